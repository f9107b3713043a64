//! What is on its way to webhooks.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Answer;

/// Which events go to one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Name of the webhook.
    pub endpoint: String,
    /// Names of events, `*` at the end standing for any rest; empty = all.
    pub events: Vec<String>,
    /// Connections; empty = all, also events of no connection.
    pub connections: Vec<String>,
}

impl Subscription {
    /// An event of this name and connection goes there.
    pub fn takes(&self, event: &str, connection: Option<&str>) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => event.starts_with(prefix),
            None => event == pattern,
        };
        let of_event = self.events.is_empty() || self.events.iter().any(named);
        let concerned = |name: &str| self.connections.iter().any(|wanted| wanted == name);
        of_event && (self.connections.is_empty() || connection.is_some_and(concerned))
    }
}

/// Events that have to reach their webhooks at least once.
pub trait Outbox: Send + Sync {
    /// What goes where from now on: of every event that is taken over into the database later. What waits for others goes on waiting.
    fn subscribe(&self, subscriptions: Vec<Subscription>) -> Answer<'_, ()>;

    /// Up to `limit` deliveries to `endpoint` that are due, oldest first. Nobody else gets them until `lease_ms` have passed, or this gateway's
    /// daemon starts anew. None while the endpoint is disabled.
    fn claim<'a>(&'a self, endpoint: &'a str, lease_ms: u64, limit: u32) -> Answer<'a, Vec<Delivery>>;

    /// Tells what became of a delivery that was claimed.
    fn settle<'a>(&'a self, delivery: &'a Delivery, verdict: Verdict) -> Answer<'a, ()>;

    /// Tells what became of several, all or none.
    fn settle_all<'a>(&'a self, settled: &'a [(Delivery, Verdict)]) -> Answer<'a, ()>;

    /// Makes deliveries due again, as if never tried; tells how many.
    fn redeliver<'a>(&'a self, which: &'a Redelivery) -> Answer<'a, u64>;

    /// Gives up all that waits for `endpoint`; tells how many that were.
    fn give_up<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, u64>;

    /// Resolves, to a number to be given next time, when deliveries may be due that were not when `seen` was given; begin with 0. It does not tell
    /// of time passing: [`Self::next_due`] says when that makes the next one due.
    fn news(&self, seen: u64) -> Answer<'_, u64>;

    /// When the next delivery to `endpoint` is due or its claim runs out; `None` when nothing waits, or the endpoint is disabled.
    fn next_due<'a>(&'a self, endpoint: &'a str) -> Answer<'a, Option<u64>>;

    /// Sends nothing to `endpoint` any more, also after a restart, until [`Self::enable`]. Its deliveries wait meanwhile.
    fn disable<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, ()>;

    /// Ends that; tells whether it was disabled.
    fn enable<'a>(&'a self, endpoint: &'a str) -> Answer<'a, bool>;

    /// Since when and why nothing is sent to `endpoint`.
    fn disabled<'a>(&'a self, endpoint: &'a str) -> Answer<'a, Option<Disabled>>;

    /// How many deliveries wait and how many are dead, by endpoint.
    fn backlog(&self) -> Answer<'_, Vec<Backlog>>;

    /// Deliveries, the newest event first.
    fn deliveries<'a>(&'a self, wanted: &'a WantedDeliveries) -> Answer<'a, Vec<PastDelivery>>;
}

/// One event on its way to one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event's ULID; the same at each attempt.
    pub ulid: String,
    /// Name of the webhook.
    pub endpoint: String,
    /// Name of the event.
    pub event: String,
    /// When it happened.
    pub time_ms: u64,
    /// The record, JSON.
    pub record: String,
    /// Attempts that have failed.
    pub attempts: u32,
    /// Since when the webhook has not taken it, also in earlier runs; `None` when nobody has tried yet.
    pub failing_ms: Option<u64>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The webhook has it.
    Delivered,
    /// To be tried again.
    Retry {
        /// Not before.
        at_ms: u64,
        /// What went wrong.
        error: String,
    },
    /// To be tried again as if this had been no attempt: the message was not what failed.
    Held {
        /// Not before.
        at_ms: u64,
        /// What keeps it.
        error: String,
    },
    /// To be claimed by somebody else: nobody has tried.
    Returned {
        /// Not before.
        at_ms: u64,
    },
    /// Given up; kept to be redelivered by hand.
    Dead {
        /// What went wrong.
        error: String,
    },
}

/// What waits for one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Name of the webhook.
    pub endpoint: String,
    /// Deliveries that are due or wait for their next attempt.
    pub waiting: u64,
    /// Deliveries that were given up.
    pub dead: u64,
}

/// What is to be delivered again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redelivery {
    /// Name of the webhook; `None` = all.
    pub endpoint: Option<String>,
    /// The event, whatever has become of it so far; `None` = all that were given up.
    pub ulid: Option<String>,
}

/// That nothing is sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disabled {
    /// Since when.
    pub since_ms: u64,
    /// Why.
    pub reason: String,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is due, or waits for its next attempt.
    Waiting,
    /// The webhook has it.
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Dead];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Which deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedDeliveries {
    /// Name of the webhook; `None` = all.
    pub endpoint: Option<String>,
    /// How far they are; `None` = any.
    pub state: Option<DeliveryState>,
    /// The event; `None` = all.
    pub ulid: Option<String>,
    /// Connection of the event; `None` = all.
    pub connection: Option<String>,
    /// Only what comes after this one in the list.
    pub before: Option<DeliveryCursor>,
    /// At most so many; 0 = as many as are given at once.
    pub limit: u32,
}

/// A place in the list of deliveries, `ULID/ENDPOINT` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryCursor {
    /// The event.
    pub ulid: String,
    /// Name of the webhook.
    pub endpoint: String,
}

impl fmt::Display for DeliveryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ulid, self.endpoint)
    }
}

/// A text is no place in the list of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the ULID of an event, `/` and the name of a webhook")]
pub struct NoCursor;

impl FromStr for DeliveryCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (ulid, endpoint) = text.split_once('/').ok_or(NoCursor)?;
        Ok(Self { ulid: ulid.into(), endpoint: endpoint.into() })
    }
}

/// One delivery, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastDelivery {
    /// The event's ULID.
    pub ulid: String,
    /// Name of the webhook.
    pub endpoint: String,
    /// Name of the event.
    pub event: String,
    /// Its connection.
    pub connection: Option<String>,
    /// When it happened.
    pub time_ms: u64,
    /// How far it is.
    pub state: DeliveryState,
    /// Attempts that were made.
    pub attempts: u32,
    /// Of one that waits: when it is due or its claim runs out.
    pub due_ms: u64,
    /// What went wrong last time.
    pub last_error: Option<String>,
    /// When the webhook had it.
    pub delivered_ms: Option<u64>,
}

impl PastDelivery {
    /// Where the list goes on after it.
    pub fn cursor(&self) -> DeliveryCursor {
        DeliveryCursor { ulid: self.ulid.clone(), endpoint: self.endpoint.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_takes_what_it_names() {
        let mut to = Subscription { endpoint: "ops".into(), events: Vec::new(), connections: Vec::new() };
        assert!(to.takes("child-sa.closed", None));
        to.events = vec!["child-sa.*".into(), "config.rejected".into()];
        assert!(to.takes("child-sa.closed", Some("a")) && to.takes("config.rejected", None));
        assert!(!to.takes("ike-sa.closed", Some("a")) && !to.takes("config.rejected2", None));
        to.connections = vec!["a".into()];
        assert!(to.takes("child-sa.closed", Some("a")));
        assert!(!to.takes("child-sa.closed", Some("b")) && !to.takes("child-sa.closed", None));
    }

    #[test]
    fn states_and_places_have_a_text() {
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(DeliveryState::from_name("lost"), None);
        let place = DeliveryCursor { ulid: "01J".into(), endpoint: "a/b".into() };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!("01J".parse::<DeliveryCursor>(), Err(NoCursor));
    }
}
