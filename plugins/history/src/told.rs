//! Records as they lie in the spool, as far as the tables need them.
//!
//! Read leniently: a record of an older or newer release may lack fields or have others.

use std::borrow::Cow;

use ike_model::history::{Limits, TrafficSelector};
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::Carried;
use ike_model::{Identity, Rfc3339};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The beginning of a run.
#[derive(Debug, Deserialize)]
pub(crate) struct Boot {
    pub(crate) gateway: String,
    pub(crate) boot_id: String,
    pub(crate) time_ms: u64,
    #[serde(default)]
    pub(crate) host: Option<String>,
    #[serde(default)]
    pub(crate) pid: Option<u32>,
}

impl Boot {
    /// What an event tells of its run.
    pub(crate) fn of(record: &Record<'_>) -> Self {
        let time_ms = Rfc3339::parse(&record.time).map_or(0, |time| time.0);
        let (gateway, boot_id) = (record.gateway.to_string(), record.boot_id.to_string());
        Self { gateway, boot_id, time_ms, host: None, pid: None }
    }
}

/// One event. SAs stay the text they are until somebody asks for one: most of what they tell is in no table.
#[derive(Debug, Deserialize)]
pub(crate) struct Record<'a> {
    #[serde(borrow)]
    pub(crate) ulid: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) gateway: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) boot_id: Cow<'a, str>,
    pub(crate) seq: u64,
    #[serde(borrow, rename = "type")]
    pub(crate) event: Cow<'a, str>,
    #[serde(default)]
    connection: Option<Text<'a>>,
    #[serde(borrow, default)]
    ike: Option<&'a RawValue>,
    /// A name or a CHILD SA.
    #[serde(borrow, default)]
    child: Option<&'a RawValue>,
    /// IKE SAs or CHILD SAs.
    #[serde(borrow, default)]
    old: Option<&'a RawValue>,
    #[serde(borrow, default)]
    new: Option<&'a RawValue>,
    /// The CHILD SA that came after one that is removed.
    #[serde(default)]
    pub(crate) successor: Option<u32>,
    /// Number of the CHILD SA that this one is to replace.
    #[serde(default)]
    pub(crate) replaces: Option<u32>,
    #[serde(default)]
    pub(crate) cause: Option<Cause>,
    #[serde(default)]
    pub(crate) path: Option<Path>,
}

impl<'a> Record<'a> {
    pub(crate) fn ike(&self) -> Option<IkeSa> {
        parse(self.ike)
    }

    /// The IKE SA of a CHILD SA.
    pub(crate) fn parent(&self) -> Option<Parent> {
        parse(self.ike)
    }

    pub(crate) fn child(&self) -> Option<ChildSa> {
        parse(self.child)
    }

    /// What was replaced and by what, of IKE SAs or CHILD SAs as the event has it.
    pub(crate) fn rekeyed<T: Deserialize<'a>>(&self) -> Option<(T, T)> {
        parse(self.old).zip(parse(self.new))
    }

    /// The connection it is about.
    pub(crate) fn connection(&self) -> Option<Cow<'a, str>> {
        let of_sa = |sa| parse::<OfConnection<'a>>(Some(sa)).map(|sa| sa.connection.0);
        let mut sas = [self.ike, self.new].into_iter().flatten();
        self.connection.as_ref().map(|text| text.0.clone()).or_else(|| sas.find_map(of_sa))
    }

    /// The child it is about.
    pub(crate) fn child_name(&self) -> Option<Cow<'a, str>> {
        let sa = self.child.or(self.new);
        parse::<Text<'a>>(sa).or_else(|| parse::<Named<'a>>(sa).map(|sa| sa.name)).map(|text| text.0)
    }
}

fn parse<'a, T: Deserialize<'a>>(value: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(value?.get()).ok()
}

/// Text where it lies. (Of an `Option<Cow<str>>` serde would make a copy.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct OfConnection<'a> {
    #[serde(borrow)]
    connection: Text<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

/// What the row of a CHILD SA tells of its IKE SA.
#[derive(Debug, Deserialize)]
pub(crate) struct Parent {
    pub(crate) connection: String,
    pub(crate) unique_id: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cause {
    pub(crate) kind: String,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Path {
    pub(crate) local: String,
    pub(crate) remote: String,
}

/// An IKE SA.
#[derive(Debug, Deserialize)]
pub(crate) struct IkeSa {
    pub(crate) connection: String,
    pub(crate) unique_id: u32,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    pub(crate) initiator: bool,
    pub(crate) initiator_spi: u64,
    pub(crate) responder_spi: u64,
    #[serde(default)]
    pub(crate) nat_local: bool,
    #[serde(default)]
    pub(crate) nat_remote: bool,
    #[serde(default)]
    pub(crate) algorithms: Option<IkeAlgorithms>,
    #[serde(default)]
    pub(crate) generation: u32,
}

/// A CHILD SA.
#[derive(Debug, Deserialize)]
pub(crate) struct ChildSa {
    pub(crate) name: String,
    pub(crate) unique_id: u32,
    pub(crate) reqid: u32,
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) encap: bool,
    #[serde(default)]
    pub(crate) spi_in: Option<u32>,
    #[serde(default)]
    pub(crate) spi_out: Option<u32>,
    #[serde(default)]
    pub(crate) algorithms: Option<EspAlgorithms>,
    #[serde(default)]
    pub(crate) traffic_in: Carried,
    #[serde(default)]
    pub(crate) traffic_out: Carried,
    #[serde(default)]
    pub(crate) total_in: Carried,
    #[serde(default)]
    pub(crate) total_out: Carried,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) local_ts: Vec<TrafficSelector>,
    #[serde(default)]
    pub(crate) remote_ts: Vec<TrafficSelector>,
    #[serde(default)]
    pub(crate) backend: String,
    #[serde(default)]
    pub(crate) generation: u32,
    pub(crate) offload: Offload,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Offload {
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) device: Option<String>,
    #[serde(default)]
    pub(crate) simulated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> String {
        format!(
            r#"{{"ulid":"U","time":"T","gateway":"gw","boot_id":"b","seq":1,"type":"child-sa.installed","later":[1]{rest}}}"#
        )
    }

    #[test]
    fn what_an_event_is_about_is_found_wherever_it_tells_of_it() {
        let cases = [
            (r#","connection":"a\"b","child":"n\u00e9t""#, Some("a\"b"), Some("nét")),
            (r#","ike":{"unique_id":1,"connection":"a"},"child":{"name":"net"}"#, Some("a"), Some("net")),
            (r#","old":{"connection":"a"},"new":{"connection":"b"}"#, Some("b"), None),
            (r#","ike":{"connection":"a"},"old":{"name":"x"},"new":{"name":"y"}"#, Some("a"), Some("y")),
            (r#","connection":null,"ike":null,"child":null"#, None, None),
            (r#","ike":{"connection":7},"child":{"name":[]}"#, None, None),
            (r#","ike":"a","child":8"#, None, None),
        ];
        for (rest, connection, child) in cases {
            let text = read(rest);
            let record: Record<'_> = serde_json::from_slice(text.as_bytes()).unwrap();
            assert_eq!((record.connection().as_deref(), record.child_name().as_deref()), (connection, child), "{rest}");
        }
    }

    #[test]
    fn an_sa_of_another_form_costs_its_row_and_not_the_event() {
        let text = read(r#","ike":{"connection":"a","unique_id":-1},"child":{"name":"net"},"old":{},"new":[]"#);
        let record: Record<'_> = serde_json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(record.seq, 1);
        assert!(record.ike().is_none() && record.parent().is_none() && record.child().is_none());
        assert!(record.rekeyed::<ChildSa>().is_none());
        let text = read(r#","ike":{"connection":"a","unique_id":3,"state":"ESTABLISHED"}"#);
        let record: Record<'_> = serde_json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(record.parent().map(|ike| (ike.connection, ike.unique_id)), Some(("a".into(), 3)));
    }
}
