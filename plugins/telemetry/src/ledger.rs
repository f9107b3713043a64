//! What has happened and what has been carried since the start, added up by configured connection and child.
//!
//! Fed by events, and by what each view shows of SAs that stand. Sums never shrink: each SA counts by what it has carried more than was known of
//! it, whoever tells, in whatever order; an SA that is gone is remembered for a while, so that a view from before its end adds nothing twice.
//! Names come from the configuration and reasons from closed sets, so strangers cannot make it grow.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ike_model::device::LimitUnit;
use ike_model::snapshot::{Carried, Traffic};
use ike_model::{Cause, ChildSaSnapshot, EventBody, EventRecord, IkeSaSnapshot};

use crate::view::View;

/// Connections that are counted apart at most.
const CONNECTIONS: usize = 65_536;
/// How long an SA that is gone is remembered: longer than a view can be old.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    events: BTreeMap<&'static str, u64>,
    connections: HashMap<String, ConnectionSums>,
    /// By number of the CHILD SA, those that stand and those that have just ended.
    sas: HashMap<u32, Sa>,
    ended: VecDeque<(Instant, u32)>,
}

/// What has happened to the IKE SAs of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionSums {
    pub(crate) established: u64,
    pub(crate) rekeys: u64,
    pub(crate) closed: Reasons,
    pub(crate) failures: BTreeMap<&'static str, Reasons>,
    children: HashMap<String, ChildSums>,
}

/// How often, by the name of the cause's kind.
pub(crate) type Reasons = BTreeMap<&'static str, u64>;

/// What has happened to the CHILD SAs of a child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildSums {
    pub(crate) carried_in: Carried,
    pub(crate) carried_out: Carried,
    pub(crate) rekeys: BTreeMap<&'static str, u64>,
    pub(crate) last_rekey_ms: Option<u64>,
    pub(crate) closed: Reasons,
    pub(crate) failures: BTreeMap<&'static str, Reasons>,
    pub(crate) acquires: u64,
}

/// What is known of one CHILD SA.
#[derive(Clone, Copy, Debug, Default)]
struct Sa {
    carried_in: Carried,
    carried_out: Carried,
    /// The limit that asked for its rekeying.
    soft: Option<LimitUnit>,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more event. Takes a moment.
    pub(crate) fn note(&self, record: &EventRecord) {
        self.books().note(record);
    }

    /// Takes in what the SAs of a view have carried, and forgets connections that are not configured any more. The lock is held for one of them at
    /// a time.
    pub(crate) fn look(&self, view: &View) {
        for ike in &view.ike_sas {
            for child in &ike.children {
                self.books().saw(&ike.connection, child);
            }
        }
        if view.complete {
            let mut known: HashSet<&str> = view.configured.iter().map(|status| &*status.connection).collect();
            known.extend(view.ike_sas.iter().map(|ike| &*ike.connection));
            self.books().connections.retain(|name, _| known.contains(&**name));
        }
    }

    /// How often each event has happened.
    pub(crate) fn events(&self) -> BTreeMap<&'static str, u64> {
        self.books().events.clone()
    }

    /// The sums of a connection.
    pub(crate) fn connection(&self, connection: &str) -> ConnectionSums {
        let books = self.books();
        let sums = books.connections.get(connection);
        sums.map_or_else(ConnectionSums::default, |sums| ConnectionSums { children: HashMap::new(), ..sums.clone() })
    }

    /// The sums of a child.
    pub(crate) fn child(&self, connection: &str, child: &str) -> ChildSums {
        let books = self.books();
        books.connections.get(connection).and_then(|sums| sums.children.get(child)).cloned().unwrap_or_default()
    }
}

impl Books {
    fn note(&mut self, record: &EventRecord) {
        *self.events.entry(record.body.name()).or_default() += 1;
        match &record.body {
            EventBody::IkeSaEstablished { ike } => self.change(&ike.connection, |sums| sums.established += 1),
            EventBody::IkeSaRekeyed { new, .. } => self.change(&new.connection, |sums| sums.rekeys += 1),
            EventBody::IkeSaClosed { ike, cause } => {
                self.change(&ike.connection, |sums| count(&mut sums.closed, cause))
            }
            EventBody::IkeSaAuthFailed { ike, cause, .. } => self.failed(ike, "authenticate", cause),
            EventBody::IkeSaFailed { ike, cause } => self.failed(ike, "establish", cause),
            EventBody::IkeSaRekeyFailed { ike, cause } => self.failed(ike, "rekey", cause),
            EventBody::PeerUnreachable { ike, cause } => self.failed(ike, "unreachable", cause),
            EventBody::ChildSaInstalled { ike, child } => self.saw(&ike.connection, child),
            EventBody::ChildSaRekeyed { ike, old, new } => self.rekeyed(&ike.connection, old, new, record.time.0),
            EventBody::ChildSaClosed { ike, child, cause } => {
                self.saw(&ike.connection, child);
                self.child(&ike.connection, &child.name, |sums| count(&mut sums.closed, cause));
            }
            EventBody::ChildSaRemoved { ike, child, .. } => {
                self.saw(&ike.connection, child);
                self.ended(child.unique_id);
            }
            EventBody::ChildSaRekeyFailed { ike, child, cause } => {
                self.child_failed(&ike.connection, &child.name, "rekey", cause.kind.name());
            }
            EventBody::ChildSaInstallFailed { ike, child, cause } => {
                self.child_failed(&ike.connection, child, "install", cause.kind.name());
            }
            EventBody::ChildSaFailed { ike, child: Some(child), cause } => {
                self.child_failed(&ike.connection, child, "negotiate", cause.kind.name());
            }
            EventBody::ChildSaSoftExpired { ike, child, unit } => {
                self.saw(&ike.connection, child);
                self.sas.entry(child.unique_id).or_default().soft = Some(*unit);
            }
            EventBody::ChildSaHardExpired { ike, child, unit } => {
                self.saw(&ike.connection, child);
                self.child_failed(&ike.connection, &child.name, "hard-limit", unit_name(*unit));
            }
            EventBody::Degraded { ike, child, cause } => {
                self.child_failed(&ike.connection, &child.name, "degraded", cause.kind.name());
            }
            EventBody::StateLost { ike, child } => {
                self.child_failed(&ike.connection, &child.name, "state-lost", "device-lost");
            }
            EventBody::PolicyAcquire { connection, child, .. } => {
                self.child(connection, child, |sums| sums.acquires += 1);
            }
            EventBody::UpdownFailed { connection, child, cause, .. } => {
                self.child_failed(connection, child, "updown", cause.kind.name());
            }
            // What was prepared for the peer counts once it is switched to; what a peer asked for and nobody has is nobody's failure.
            EventBody::ChildSaPrepared { .. }
            | EventBody::ChildSaFailed { child: None, .. }
            | EventBody::ChildSaWithdrawn { .. }
            | EventBody::IkeSaUpdated { .. }
            | EventBody::IkeSaDuplicate { .. }
            | EventBody::PeerReachable { .. }
            | EventBody::DeviceDown { .. }
            | EventBody::DeviceUp { .. }
            | EventBody::Repaired { .. }
            | EventBody::ConfigLoaded { .. }
            | EventBody::ConfigRejected { .. }
            | EventBody::KeysExported { .. }
            | EventBody::EventsGap { .. } => {}
        }
    }

    fn change(&mut self, connection: &str, change: impl FnOnce(&mut ConnectionSums)) {
        // Names are many only where a configuration is; what is beyond is in the view still.
        if !self.connections.contains_key(connection) {
            if self.connections.len() >= CONNECTIONS {
                return;
            }
            self.connections.insert(connection.to_owned(), ConnectionSums::default());
        }
        if let Some(sums) = self.connections.get_mut(connection) {
            change(sums);
        }
    }

    fn child(&mut self, connection: &str, child: &str, change: impl FnOnce(&mut ChildSums)) {
        self.change(connection, |sums| match sums.children.get_mut(child) {
            Some(sums) => change(sums),
            None => change(sums.children.entry(child.to_owned()).or_default()),
        });
    }

    fn failed(&mut self, ike: &IkeSaSnapshot, what: &'static str, cause: &Cause) {
        self.change(&ike.connection, |sums| count(sums.failures.entry(what).or_default(), cause));
    }

    fn child_failed(&mut self, connection: &str, child: &str, what: &'static str, reason: &'static str) {
        self.child(connection, child, |sums| {
            *sums.failures.entry(what).or_default().entry(reason).or_default() += 1;
        });
    }

    fn rekeyed(&mut self, connection: &str, old: &ChildSaSnapshot, new: &ChildSaSnapshot, time_ms: u64) {
        self.saw(connection, old);
        self.saw(connection, new);
        let soft = self.sas.get(&old.unique_id).and_then(|sa| sa.soft);
        let cause = soft.map_or("asked", unit_name);
        self.child(connection, &old.name, |sums| {
            *sums.rekeys.entry(cause).or_default() += 1;
            sums.last_rekey_ms = Some(time_ms);
        });
    }

    /// Adds what an SA has carried more than was known.
    fn saw(&mut self, connection: &str, child: &ChildSaSnapshot) {
        let sa = self.sas.entry(child.unique_id).or_default();
        let more_in = grow(&mut sa.carried_in, child.traffic_in);
        let more_out = grow(&mut sa.carried_out, child.traffic_out);
        self.child(connection, &child.name, |sums| {
            add(&mut sums.carried_in, more_in);
            add(&mut sums.carried_out, more_out);
        });
    }

    fn ended(&mut self, unique_id: u32) {
        self.ended.push_back((Instant::now(), unique_id));
        self.forget();
    }

    fn forget(&mut self) {
        while self.ended.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            if let Some((_, unique_id)) = self.ended.pop_front() {
                self.sas.remove(&unique_id);
            }
        }
    }
}

fn count(reasons: &mut Reasons, cause: &Cause) {
    *reasons.entry(cause.kind.name()).or_default() += 1;
}

fn add(sum: &mut Carried, more: Carried) {
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.packets = sum.packets.saturating_add(more.packets);
}

/// What `now` is more than `known`, which it becomes.
fn grow(known: &mut Carried, now: Traffic) -> Carried {
    let more =
        Carried { bytes: now.bytes.saturating_sub(known.bytes), packets: now.packets.saturating_sub(known.packets) };
    add(known, more);
    more
}

/// The name of a limit's unit.
pub(crate) fn unit_name(unit: LimitUnit) -> &'static str {
    match unit {
        LimitUnit::Time => "time",
        LimitUnit::Bytes => "bytes",
        LimitUnit::Packets => "packets",
    }
}
