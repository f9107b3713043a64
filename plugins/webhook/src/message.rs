//! A message: what a receiver reads.

use ike_model::Rfc3339;
use ike_model::history::Delivery;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

/// A message as it is sent, but for its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// `webhook-id`: the event's ULID.
    pub(crate) id: String,
    /// The octets.
    pub(crate) body: Vec<u8>,
}

/// `data` is JSON.
fn body(event: &str, time_ms: u64, id: &str, data: &str) -> Vec<u8> {
    let (event, time, id) = (Json::from(event), Json::from(Rfc3339(time_ms).to_string()), Json::from(id));
    format!(r#"{{"type":{event},"timestamp":{time},"id":{id},"data":{data}}}"#).into_bytes()
}

impl Message {
    /// Of an event, whose record goes as it was taken down.
    ///
    /// # Errors
    /// The record is no JSON.
    pub(crate) fn of(delivery: &Delivery) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<IgnoredAny>(&delivery.record)?;
        let body = body(&delivery.event, delivery.time_ms, &delivery.ulid, &delivery.record);
        Ok(Self { id: delivery.ulid.clone(), body })
    }

    /// Of no event: to see whether messages arrive.
    pub(crate) fn test(id: &str, time_ms: u64, gateway: &str, endpoint: &str) -> Self {
        const NAME: &str = "webhook.test";
        let data = serde_json::json!({
            "v": 1, "ulid": id, "time": Rfc3339(time_ms).to_string(), "gateway": gateway, "type": NAME, "webhook": endpoint,
        });
        Self { id: id.into(), body: body(NAME, time_ms, id, &data.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_as_it_was_taken_down() {
        let record = r#"{"v":1, "seq":7,"type":"child-sa.rekeyed","text":"\u00e4 ä"}"#;
        let mut delivery = Delivery {
            ulid: "01J".into(),
            endpoint: "ops".into(),
            event: "child-sa.rekeyed".into(),
            time_ms: 1,
            record: record.into(),
            attempts: 0,
            failing_ms: None,
        };
        let message = Message::of(&delivery).unwrap();
        let expected = format!(
            r#"{{"type":"child-sa.rekeyed","timestamp":"1970-01-01T00:00:00.001Z","id":"01J","data":{record}}}"#
        );
        assert_eq!((message.id.as_str(), String::from_utf8(message.body).unwrap()), ("01J", expected));
        delivery.record = r#"{"v":1"#.into();
        assert!(Message::of(&delivery).is_err(), "what is no record is not sent");
    }
}
