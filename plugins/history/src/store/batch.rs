//! What a batch of events changes, each SA once: the last word on it is what the database is told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ike_model::history::Subscription;
use ike_model::snapshot::Carried;

use crate::sql::Value;
use crate::told::{ChildSa, IkeSa, Parent, Record};

/// Run and number of an SA.
pub(super) type Key = (String, u32);

/// Rows to be written, and what is to be changed in others.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Vec<Value>>,
    pub(super) deliveries: Vec<Vec<Value>>,
    /// Number of the last event of each run.
    pub(super) last: BTreeMap<String, u64>,
    pub(super) ike_sas: BTreeMap<Key, IkeChange>,
    pub(super) child_sas: BTreeMap<Key, ChildChange>,
}

/// What is told of an IKE SA.
#[derive(Debug, Default)]
pub(super) struct IkeChange {
    pub(super) up: Option<IkeUp>,
    /// Local and remote address, where they have changed.
    pub(super) path: Option<(String, String)>,
    pub(super) end: Option<End>,
}

/// An IKE SA is up.
#[derive(Debug)]
pub(super) struct IkeUp {
    pub(super) gateway: String,
    pub(super) ike: IkeSa,
    /// The one that it replaces.
    pub(super) previous: Option<u32>,
    pub(super) at: u64,
}

/// What is told of a CHILD SA.
#[derive(Debug, Default)]
pub(super) struct ChildChange {
    pub(super) up: Option<ChildUp>,
    pub(super) told: Told,
    pub(super) end: Option<End>,
}

/// A CHILD SA is up.
#[derive(Debug)]
pub(super) struct ChildUp {
    pub(super) gateway: String,
    pub(super) connection: String,
    pub(super) ike_unique_id: u32,
    pub(super) child: ChildSa,
    /// The one that it replaces.
    pub(super) previous: Option<u32>,
    pub(super) at: u64,
}

/// Mode and counters, as last told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Where that was told.
    pub(super) offload: Option<String>,
    pub(super) device: Option<String>,
    /// What it has carried: octets and packets in, octets and packets out.
    pub(super) own: [u64; 4],
    /// What its line of rekeys has.
    pub(super) line: [u64; 4],
    /// What the generations before it have carried, as told by the last word on one of them.
    pub(super) before: [u64; 4],
}

/// The end of an SA.
#[derive(Debug)]
pub(super) struct End {
    pub(super) at: u64,
    pub(super) cause: String,
    pub(super) text: String,
}

impl Batch {
    /// Number of the last event of a run, if one is in the batch.
    pub(super) fn last(&self, boot_id: &str) -> Option<u64> {
        self.last.get(boot_id).copied()
    }

    /// Takes one event in that happened at `at` (microseconds); tells how many deliveries that makes.
    pub(super) fn take(&mut self, record: &Record<'_>, at: u64, json: &[u8], subscriptions: &[Subscription]) -> u64 {
        self.last.insert(record.boot_id.to_string(), record.seq);
        let (connection, child) = (record.connection(), record.child_name());
        let (ulid, gateway, connection) = (&*record.ulid, &*record.gateway, connection.as_deref());
        // All of it is understood as text at once, unless it is none.
        let text = str::from_utf8(json).map_or_else(|_| String::from_utf8_lossy(json), Cow::Borrowed);
        self.events.push(vec![
            ulid.into(),
            (&*record.boot_id).into(),
            record.seq.into(),
            gateway.into(),
            at.into(),
            (&*record.event).into(),
            connection.into(),
            child.as_deref().into(),
            (&*text).into(),
        ]);
        let before = self.deliveries.len();
        for wanted in subscriptions.iter().filter(|wanted| wanted.takes(&record.event, connection)) {
            let endpoint = &*wanted.endpoint;
            self.deliveries.push(vec![ulid.into(), endpoint.into(), gateway.into(), "waiting".into(), at.into()]);
        }
        self.change(record, at);
        (self.deliveries.len() - before) as u64
    }

    /// What the event says about SAs.
    fn change(&mut self, record: &Record<'_>, at: u64) {
        match &*record.event {
            "ike-sa.established" => {
                if let Some(ike) = record.ike() {
                    self.ike_up(record, ike, None, at);
                }
            }
            "ike-sa.rekeyed" => {
                if let Some((old, new)) = record.rekeyed::<IkeSa>() {
                    let text = format!("replaced by [{}]", new.unique_id);
                    self.ike(record, old.unique_id).ends(End { at, cause: "rekeyed".into(), text });
                    self.ike_up(record, new, Some(old.unique_id), at);
                }
            }
            "ike-sa.closed" => {
                if let Some(ike) = record.parent() {
                    self.ike(record, ike.unique_id).ends(End::told(record, at));
                }
            }
            "ike-sa.updated" => {
                if let Some((ike, path)) = record.parent().zip(record.path.as_ref()) {
                    self.ike(record, ike.unique_id).path = Some((path.local.clone(), path.remote.clone()));
                }
            }
            "child-sa.installed" => {
                if let Some((ike, child)) = record.parent().zip(record.child()) {
                    self.child_up(record, ike, child, None, at);
                }
            }
            "child-sa.prepared" => {
                if let Some((ike, child)) = record.parent().zip(record.child()) {
                    self.child_up(record, ike, child, record.replaces, at);
                }
            }
            "child-sa.rekeyed" => {
                if let Some((ike, (old, new))) = record.parent().zip(record.rekeyed::<ChildSa>()) {
                    let text = format!("replaced by {{{}}}", new.unique_id);
                    self.child(record, &old).ends(End { at, cause: "rekeyed".into(), text });
                    self.child_up(record, ike, new, Some(old.unique_id), at);
                }
            }
            "child-sa.closed" | "child-sa.withdrawn" => {
                if let Some(child) = record.child() {
                    self.child(record, &child).ends(End::told(record, at));
                }
            }
            "child-sa.removed" => {
                if let Some(child) = record.child() {
                    self.child_removed(record, &child, at);
                }
            }
            // What other events tell of a CHILD SA is its counters and its mode.
            _ => {
                if let Some(child) = record.child() {
                    self.child(record, &child);
                }
            }
        }
    }

    fn ike(&mut self, record: &Record<'_>, unique_id: u32) -> &mut IkeChange {
        self.ike_sas.entry((record.boot_id.to_string(), unique_id)).or_default()
    }

    fn ike_up(&mut self, record: &Record<'_>, ike: IkeSa, previous: Option<u32>, at: u64) {
        let gateway = record.gateway.to_string();
        let change = self.ike(record, ike.unique_id);
        change.up.get_or_insert(IkeUp { gateway, ike, previous, at });
    }

    /// Notes what an event tells of a CHILD SA.
    fn child(&mut self, record: &Record<'_>, child: &ChildSa) -> &mut ChildChange {
        let change = self.child_sas.entry((record.boot_id.to_string(), child.unique_id)).or_default();
        change.tells(child);
        change
    }

    /// The last counters of a CHILD SA, whose end may never have been told. What came late for one that was replaced was carried before its
    /// successor's totals.
    fn child_removed(&mut self, record: &Record<'_>, child: &ChildSa, at: u64) {
        let change = self.child(record, child);
        let Some(successor) = record.successor else {
            return change.ends(End { at, cause: "internal".into(), text: "its end was not told".into() });
        };
        change.ends(End { at, cause: "rekeyed".into(), text: format!("replaced by {{{successor}}}") });
        let change = self.child_sas.entry((record.boot_id.to_string(), successor)).or_default();
        raise(&mut change.told.before, [child.total_in, child.total_out]);
    }

    fn child_up(&mut self, record: &Record<'_>, ike: Parent, child: ChildSa, previous: Option<u32>, at: u64) {
        let (gateway, connection) = (record.gateway.to_string(), ike.connection);
        let change = self.child(record, &child);
        change.up.get_or_insert(ChildUp { gateway, connection, ike_unique_id: ike.unique_id, child, previous, at });
    }
}

impl Told {
    /// What the line of rekeys of a row that is new has carried.
    pub(super) fn whole_line(&self) -> [u64; 4] {
        let mut line = self.line;
        for ((line, own), before) in line.iter_mut().zip(self.own).zip(self.before) {
            *line = own.saturating_add(before).max(*line);
        }
        line
    }
}

impl IkeChange {
    /// The first end is the end.
    fn ends(&mut self, end: End) {
        self.end.get_or_insert(end);
    }
}

impl ChildChange {
    /// Counters never go back: what comes late was counted early. Of one that has ended, they may still come late, but its mode is what it was.
    fn tells(&mut self, child: &ChildSa) {
        raise(&mut self.told.own, [child.traffic_in, child.traffic_out]);
        raise(&mut self.told.line, [child.total_in, child.total_out]);
        if self.end.is_none() {
            self.told.offload = Some(child.offload.mode.clone());
            self.told.device.clone_from(&child.offload.device);
        }
    }

    fn ends(&mut self, end: End) {
        self.end.get_or_insert(end);
    }
}

/// Octets and packets of each, or what is known if that is more.
fn raise(known: &mut [u64; 4], now: [Carried; 2]) {
    for (known, now) in known.iter_mut().zip(now.into_iter().flat_map(|sum| [sum.bytes, sum.packets])) {
        *known = now.max(*known);
    }
}

impl End {
    fn told(record: &Record<'_>, at: u64) -> Self {
        let (cause, text) = match &record.cause {
            Some(cause) => (&*cause.kind, &*cause.text),
            None => ("internal", "no cause was told"),
        };
        Self { at, cause: cause.into(), text: text.into() }
    }
}
