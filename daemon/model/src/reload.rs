//! What a change of the configuration means for the SAs that are up.
//!
//! Connections are compared after defaults, references and units, so that another way of writing the same changes nothing. Only identities,
//! authentication, addresses and proposals are properties of the IKE SA itself; everything else takes effect without ending it. The protocol
//! core acts by these rules; a client that only asks gets a [`Forecast`] by the same ones.

use std::collections::BTreeMap;

use crate::config::{Child, Connection, HostSpec};
use crate::snapshot::{ChildSaSnapshot, ChildSaState, IkeSaSnapshot, IkeSaState};

/// What becomes of a connection when a configuration is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not loaded before.
    New,
    /// Nothing changed; no SA is touched.
    Unchanged,
    /// The IKE SA stays.
    Updated(Updated),
    /// Identities, authentication, addresses or proposals changed: the IKE SA is replaced, make-before-break.
    Replaced,
    /// It is not configured any more.
    Removed,
}

/// What changed besides the IKE SA's own properties, by child name in the order of the new configuration (removed ones in the old order).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Updated {
    /// Lifetimes, DPD or other settings of the connection changed.
    pub settings: bool,
    /// Children that are new.
    pub added: Vec<String>,
    /// Children that differ.
    pub changed: Vec<String>,
    /// Children that are gone.
    pub removed: Vec<String>,
}

/// What loading a configuration would do to one connection and its SAs, IKE SAs and CHILD SAs counted alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// What becomes of the connection.
    pub change: Change,
    /// SAs that are up and are made again.
    pub restart: u32,
    /// SAs that are up and end without successor.
    pub end: u32,
    /// SAs that are up and stay.
    pub stay: u32,
}

/// Whether two configurations of a connection mean the same IKE SA.
#[must_use]
pub fn same_ike_sa(a: &Connection, b: &Connection) -> bool {
    fn own(connection: &Connection) -> impl PartialEq + '_ {
        // Every field is named, so that a further one is decided about here.
        let Connection {
            name: _,
            local_addrs,
            remote_addrs,
            local_port,
            remote_port,
            proposals,
            local,
            remote,
            dscp: _,
            encap,
            mobike: _,
            fragmentation: _,
            dpd_delay: _,
            keyingtries: _,
            unique: _,
            childless: _,
            interface,
            reauth_time: _,
            rekey_time: _,
            over_time: _,
            rand_time: _,
            children: _,
        } = connection;
        (local_addrs, remote_addrs, local_port, remote_port, proposals, local, remote, encap, interface)
    }
    own(a) == own(b)
}

/// Whether a CHILD SA made under one configuration of a child is also one made under the other.
#[must_use]
pub fn same_child_sa(a: &Child, b: &Child) -> bool {
    fn own(child: &Child) -> impl PartialEq + '_ {
        let Child {
            name: _,
            esp_proposals,
            local_ts,
            remote_ts,
            lifetime: _,
            mode,
            start_action: _,
            close_action: _,
            dpd_action: _,
            hw_offload,
            replay_window,
            reqid,
            priority,
            copy,
            policies,
            inactivity: _,
            tags,
            updown: _,
        } = child;
        let spd = (local_ts, remote_ts, mode, reqid, priority, policies);
        (spd, esp_proposals, hw_offload, replay_window, copy, tags)
    }
    own(a) == own(b)
}

/// Whether a connection names a peer that one can initiate to.
#[must_use]
pub fn can_initiate(connection: &Connection) -> bool {
    let concrete = |spec: &HostSpec| matches!(spec, HostSpec::Address(_) | HostSpec::Name(_));
    connection.remote_addrs.iter().any(concrete)
}

/// Compares a loaded connection with its new configuration.
#[must_use]
pub fn compare(old: &Connection, new: &Connection) -> Change {
    if old == new {
        return Change::Unchanged;
    }
    if !same_ike_sa(old, new) {
        return Change::Replaced;
    }
    let before: BTreeMap<&str, _> = old.children.iter().map(|child| (child.name.as_str(), child)).collect();
    let after: BTreeMap<&str, _> = new.children.iter().map(|child| (child.name.as_str(), child)).collect();
    let mut updated = Updated { settings: settings_differ(old, new), ..Updated::default() };
    for child in &new.children {
        match before.get(child.name.as_str()) {
            None => updated.added.push(child.name.clone()),
            Some(known) if *known != child => updated.changed.push(child.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.children.iter().filter(|child| !after.contains_key(child.name.as_str()));
    updated.removed = gone.map(|child| child.name.clone()).collect();
    Change::Updated(updated)
}

/// Whether anything but the children differs. A change of their order alone counts: it decides which child is tried first.
fn settings_differ(old: &Connection, new: &Connection) -> bool {
    let without_children = |connection: &Connection| Connection { children: Vec::new(), ..connection.clone() };
    let names =
        |connection: &Connection| connection.children.iter().map(|child| child.name.clone()).collect::<Vec<_>>();
    let (mut before, mut after) = (names(old), names(new));
    let both_orders = (before.clone(), after.clone());
    before.sort();
    after.sort();
    let reordered = before == after && both_orders.0 != both_orders.1;
    without_children(old) != without_children(new) || reordered
}

/// What would happen to a connection and to its SAs among `ike_sas` if `new` took the place of `old`; `None` = not configured.
#[must_use]
pub fn forecast(old: Option<&Connection>, new: Option<&Connection>, ike_sas: &[IkeSaSnapshot]) -> Option<Forecast> {
    let change = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => Change::New,
        (Some(_), None) => Change::Removed,
        (Some(old), Some(new)) => compare(old, new),
    };
    let name = old.or(new).map_or("", |connection| connection.name.as_str());
    let mut forecast = Forecast { change, restart: 0, end: 0, stay: 0 };
    for ike in ike_sas.iter().filter(|ike| &*ike.connection == name && is_up(ike)) {
        let children: Vec<Fate> = live(ike).map(|child| child_fate(old, new, &forecast.change, child)).collect();
        let own = ike_fate(new, &forecast.change, &children);
        children.into_iter().chain([own]).for_each(|fate| forecast.count(fate));
    }
    Some(forecast)
}

/// What becomes of one SA.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Restarts,
    Ends,
}

impl Forecast {
    fn count(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Stays => &mut self.stay,
            Fate::Restarts => &mut self.restart,
            Fate::Ends => &mut self.end,
        };
        *count = count.saturating_add(1);
    }
}

fn is_up(ike: &IkeSaSnapshot) -> bool {
    matches!(ike.state, IkeSaState::Established | IkeSaState::Rekeying)
}

fn live(ike: &IkeSaSnapshot) -> impl Iterator<Item = &ChildSaSnapshot> {
    ike.children.iter().filter(|child| matches!(child.state, ChildSaState::Installed | ChildSaState::Rekeying))
}

fn ike_fate(new: Option<&Connection>, change: &Change, children: &[Fate]) -> Fate {
    // It stays as long as something below it does.
    let carries = children.contains(&Fate::Stays);
    match change {
        Change::New | Change::Unchanged | Change::Updated(_) => Fate::Stays,
        Change::Replaced if !carries && new.is_some_and(starts) => Fate::Restarts,
        Change::Removed if !carries => Fate::Ends,
        Change::Replaced | Change::Removed => Fate::Stays,
    }
}

/// Whether loading a connection initiates it.
fn starts(connection: &Connection) -> bool {
    can_initiate(connection) && connection.children.iter().any(|child| child.start_action.start)
}

fn child_fate(old: Option<&Connection>, new: Option<&Connection>, change: &Change, sa: &ChildSaSnapshot) -> Fate {
    let before = old.and_then(|old| old.child(&sa.name));
    let after = new.and_then(|new| new.child(&sa.name));
    let started = before.is_some_and(|child| child.start_action.start);
    match change {
        Change::New | Change::Unchanged => Fate::Stays,
        Change::Replaced => match after {
            None => Fate::Ends,
            Some(after) if after.start_action.start && new.is_some_and(can_initiate) => Fate::Restarts,
            // The peer has to bring it back; until then it stays.
            Some(_) => Fate::Stays,
        },
        Change::Removed if started => Fate::Ends,
        Change::Removed => Fate::Stays,
        Change::Updated(_) => match (before, after) {
            (Some(before), Some(after)) if same_child_sa(before, after) => Fate::Stays,
            _ if !started => Fate::Stays,
            (_, Some(after)) if after.start_action.start && new.is_some_and(can_initiate) => Fate::Restarts,
            (_, Some(_) | None) => Fate::Ends,
        },
    }
}
