//! A daemon with a past that is made up, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ike_model::device::{ModeInUse, OffloadMode};
use ike_model::history::{
    Answer, Backlog, ChildTotal, Delivery, DeliveryState, Disabled, Generation, HistoryError, Limits, PastDelivery,
    PastEvent, PastIkeSa, Redelivery, Subscription, Verdict, Wanted, WantedDeliveries,
};
use ike_model::snapshot::{Carried, ConfiguredState};
use ike_model::{ChildSaSnapshot, ConfiguredChildStatus, EventRecord, Identity, IkeSaSnapshot, Outbox, Timeline};

use crate::fixture::Puppet;
use crate::view::{Asked, Condition, Daemon, View};

/// An identity that a peer may well claim.
pub(crate) const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

pub(crate) fn child(name: &str, unique_id: u32) -> ChildSaSnapshot {
    ChildSaSnapshot {
        installed_seconds: Some(10),
        offload: ModeInUse { mode: OffloadMode::Packet, device: Some("cygnet0".into()), simulated: true },
        ..ChildSaSnapshot::plain(name, unique_id)
    }
}

pub(crate) fn ike(connection: &str, unique_id: u32, children: Vec<ChildSaSnapshot>) -> IkeSaSnapshot {
    let local = (([192, 0, 2, 1], 500).into(), Identity::Fqdn("gw-a.example".into()));
    let remote = (([198, 51, 100, 9], 500).into(), Identity::Fqdn(HOSTILE.into()));
    IkeSaSnapshot {
        established_seconds: Some(20),
        heard_seconds: 1,
        children,
        ..IkeSaSnapshot::plain(connection, unique_id, local, remote)
    }
}

pub(crate) fn configured(connection: &str, child: &str, state: ConfiguredState) -> ConfiguredChildStatus {
    let (connection, child) = (connection.into(), child.into());
    ConfiguredChildStatus { connection, child, state, offload: None, failures: 0, last_cause: None }
}

pub(crate) fn up(connection: &str, child: &str) -> ConfiguredChildStatus {
    configured(connection, child, ConfiguredState::Up)
}

pub(crate) fn view(configured: Vec<ConfiguredChildStatus>, sas: Vec<(&str, Vec<ChildSaSnapshot>)>) -> View {
    let numbered = (1..).zip(sas);
    View {
        taken_ms: 1_767_000_000_000,
        loaded: true,
        complete: true,
        gateway: "gw-a.example".into(),
        boot_id: "boot".into(),
        version: "0.1.0",
        backend: "userspace",
        ike_sas: numbered.map(|(number, (connection, children))| ike(connection, number, children)).collect(),
        configured,
        ..View::default()
    }
}

/// A daemon with a history.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) puppet: Puppet,
    pub(crate) past: Option<Arc<Past>>,
}

impl Daemon for Stage {
    fn view(&self) -> Asked<'_, View> {
        self.puppet.view()
    }

    fn readiness(&self) -> Asked<'_, Vec<Condition>> {
        self.puppet.readiness()
    }

    fn alive(&self) -> Asked<'_, Result<(), String>> {
        self.puppet.alive()
    }

    fn timeline(&self) -> Option<Arc<dyn Timeline>> {
        self.past.clone().map(|past| past as Arc<dyn Timeline>)
    }

    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        self.past.clone().map(|past| past as Arc<dyn Outbox>)
    }
}

/// A history in memory, oldest first.
#[derive(Default)]
pub(crate) struct Past {
    /// Not all that happened can be found.
    pub(crate) is_behind: AtomicBool,
    pub(crate) events: Mutex<Vec<PastEvent>>,
    pub(crate) generations: Mutex<Vec<Generation>>,
    pub(crate) deliveries: Mutex<Vec<PastDelivery>>,
    pub(crate) disabled: Mutex<BTreeMap<String, Disabled>>,
}

impl Past {
    pub(crate) fn take_down(&self, record: &EventRecord) {
        let event = PastEvent {
            ulid: record.ulid.to_string(),
            time_ms: record.time.0,
            event: record.body.name().into(),
            record: serde_json::to_string(record).unwrap(),
        };
        locked(&self.events).push(event);
    }

    pub(crate) fn delivery(&self, ulid: &str, endpoint: &str, state: DeliveryState) {
        locked(&self.deliveries).push(PastDelivery {
            ulid: ulid.into(),
            endpoint: endpoint.into(),
            event: "child-sa.closed".into(),
            connection: Some("site".into()),
            time_ms: 1,
            state,
            attempts: 3,
            due_ms: 2,
            last_error: Some("HTTP 503".into()),
            delivered_ms: None,
        });
    }
}

/// A generation of `site/net`.
pub(crate) fn generation(unique_id: u32, installed_ms: u64, removed_ms: Option<u64>) -> Generation {
    Generation {
        gateway: "gw-a.example".into(),
        boot_id: "boot".into(),
        connection: "site".into(),
        child: "net".into(),
        unique_id,
        ike_unique_id: 1,
        lineage: 1,
        generation: unique_id,
        mode: "tunnel".into(),
        encap: false,
        reqid: 1,
        spi_in: Some(0xc0de),
        spi_out: None,
        algorithms: None,
        backend: "userspace".into(),
        offload: "packet".into(),
        device: Some("cygnet0".into()),
        simulated: true,
        local_ts: "10.1.0.0/24".into(),
        remote_ts: "10.2.0.0/24".into(),
        limits: Limits::default(),
        carried_in: Carried { bytes: 1, packets: 1 },
        carried_out: Carried::default(),
        total_in: Carried::default(),
        total_out: Carried::default(),
        installed_ms,
        removed_ms,
        cause: removed_ms.map(|_| "rekeyed".into()),
        cause_text: None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn given<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(async { Ok(value) })
}

fn newest<T>(rows: impl DoubleEndedIterator<Item = T>, limit: u32) -> Vec<T> {
    let limit = if limit == 0 { usize::MAX } else { limit as usize };
    rows.rev().take(limit).collect()
}

impl Timeline for Past {
    fn generations<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<Generation>> {
        let rows = locked(&self.generations).clone();
        let fits = |row: &Generation| {
            wanted.child.as_ref().is_none_or(|child| *child == row.child)
                && wanted.since_ms.is_none_or(|since| row.removed_ms.is_none_or(|removed| removed >= since))
        };
        given(newest(rows.into_iter().filter(fits), wanted.limit))
    }

    fn totals<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<ChildTotal>> {
        let much = wanted.since_ms.is_some();
        Box::pin(async move { if much { Err(HistoryError::TooMuch("too many".into())) } else { Ok(Vec::new()) } })
    }

    fn complete(&self) -> Answer<'_, bool> {
        given(!self.is_behind.load(Ordering::Relaxed))
    }

    fn ike_sas<'a>(&'a self, _: &'a Wanted) -> Answer<'a, Vec<PastIkeSa>> {
        given(Vec::new())
    }

    fn events<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<PastEvent>> {
        let mut rows = locked(&self.events).clone();
        rows.sort_by(|a, b| a.ulid.cmp(&b.ulid));
        let fits = |row: &PastEvent| {
            wanted.until_ms.is_none_or(|until| row.time_ms < until)
                && wanted.since_ms.is_none_or(|since| row.time_ms >= since)
        };
        given(newest(rows.into_iter().filter(fits), wanted.limit))
    }
}

impl Outbox for Past {
    fn subscribe(&self, _: Vec<Subscription>) -> Answer<'_, ()> {
        given(())
    }

    fn claim<'a>(&'a self, _: &'a str, _: u64, _: u32) -> Answer<'a, Vec<Delivery>> {
        given(Vec::new())
    }

    fn settle<'a>(&'a self, _: &'a Delivery, _: Verdict) -> Answer<'a, ()> {
        given(())
    }

    fn settle_all<'a>(&'a self, _: &'a [(Delivery, Verdict)]) -> Answer<'a, ()> {
        given(())
    }

    fn redeliver<'a>(&'a self, which: &'a Redelivery) -> Answer<'a, u64> {
        let mut count = 0;
        for row in locked(&self.deliveries).iter_mut() {
            let named = which.ulid.as_ref().map_or(row.state == DeliveryState::Dead, |ulid| *ulid == row.ulid);
            if named && which.endpoint.as_ref().is_none_or(|endpoint| *endpoint == row.endpoint) {
                (row.state, row.attempts) = (DeliveryState::Waiting, 0);
                count += 1;
            }
        }
        given(count)
    }

    fn news(&self, seen: u64) -> Answer<'_, u64> {
        given(seen)
    }

    fn next_due<'a>(&'a self, _: &'a str) -> Answer<'a, Option<u64>> {
        given(None)
    }

    fn give_up<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, u64> {
        let mut deliveries = locked(&self.deliveries);
        let waiting =
            deliveries.iter_mut().filter(|row| row.endpoint == endpoint && row.state == DeliveryState::Waiting);
        let given_up = waiting.map(|row| (row.state, row.last_error) = (DeliveryState::Dead, Some(reason.into())));
        given(given_up.count() as u64)
    }

    fn disable<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, ()> {
        locked(&self.disabled).insert(endpoint.into(), Disabled { since_ms: 1, reason: reason.into() });
        given(())
    }

    fn enable<'a>(&'a self, endpoint: &'a str) -> Answer<'a, bool> {
        given(locked(&self.disabled).remove(endpoint).is_some())
    }

    fn disabled<'a>(&'a self, endpoint: &'a str) -> Answer<'a, Option<Disabled>> {
        given(locked(&self.disabled).get(endpoint).cloned())
    }

    fn backlog(&self) -> Answer<'_, Vec<Backlog>> {
        let mut all: BTreeMap<String, Backlog> = BTreeMap::new();
        for row in locked(&self.deliveries).iter() {
            let name = row.endpoint.clone();
            let one = all.entry(name.clone()).or_insert(Backlog { endpoint: name, waiting: 0, dead: 0 });
            one.waiting += u64::from(row.state == DeliveryState::Waiting);
            one.dead += u64::from(row.state == DeliveryState::Dead);
        }
        given(all.into_values().collect())
    }

    fn deliveries<'a>(&'a self, wanted: &'a WantedDeliveries) -> Answer<'a, Vec<PastDelivery>> {
        let rows = locked(&self.deliveries).clone();
        let fits = |row: &PastDelivery| {
            wanted.state.is_none_or(|state| state == row.state)
                && wanted.endpoint.as_ref().is_none_or(|endpoint| *endpoint == row.endpoint)
                && wanted.before.as_ref().is_none_or(|before| row.ulid < before.ulid)
        };
        given(newest(rows.into_iter().filter(fits), wanted.limit))
    }
}
