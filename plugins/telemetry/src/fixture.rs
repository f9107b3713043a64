//! A daemon that is made up, for tests.

use std::sync::Arc;

use ike_model::{EventBody, EventRecord, Outbox, Rfc3339, Timeline, Ulids};
use tokio::sync::watch;

use crate::view::{Asked, Condition, Daemon, View};

/// An event about a connection.
pub(crate) fn loaded(seq: u64, connection: &str) -> EventRecord {
    event(seq, EventBody::ConfigLoaded { connection: connection.into() })
}

/// An event.
pub(crate) fn event(seq: u64, body: EventBody) -> EventRecord {
    EventRecord {
        v: 1,
        ulid: Ulids::default().next(seq, || [0; 10]),
        time: Rfc3339(seq),
        gateway: "gw".into(),
        boot_id: "b".into(),
        seq,
        body,
    }
}

/// A daemon whose answers tests choose.
#[derive(Debug)]
pub(crate) struct Puppet {
    pub(crate) view: watch::Sender<View>,
    pub(crate) conditions: watch::Sender<Vec<Condition>>,
    pub(crate) alive: watch::Sender<Result<(), String>>,
}

impl Default for Puppet {
    fn default() -> Self {
        let met = vec![Condition::met("sockets")];
        Self { view: watch::Sender::default(), conditions: watch::Sender::new(met), alive: watch::Sender::new(Ok(())) }
    }
}

impl Daemon for Puppet {
    fn view(&self) -> Asked<'_, View> {
        Box::pin(async { self.view.borrow().clone() })
    }

    fn readiness(&self) -> Asked<'_, Vec<Condition>> {
        Box::pin(async { self.conditions.borrow().clone() })
    }

    fn alive(&self) -> Asked<'_, Result<(), String>> {
        Box::pin(async { self.alive.borrow().clone() })
    }

    fn timeline(&self) -> Option<Arc<dyn Timeline>> {
        None
    }

    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        None
    }
}
