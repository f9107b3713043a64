//! Connections and children, one row for each that is configured.

use std::collections::{BTreeMap, HashMap};

use ike_model::snapshot::ConfiguredState;
use ike_model::{
    ChildMode, ChildSaSnapshot, ChildSaState, ConfiguredChildStatus, Counter, Counters, IkeSaSnapshot, IkeSaState,
};

use super::family::*;
use super::queues::{EXCHANGES, mode_name};
use super::seconds;
use super::text::{Page, Value};
use crate::ledger::{ChildSums, ConnectionSums, Ledger, Reasons};
use crate::view::View;

pub(super) fn tell(page: &mut Page, view: &View, ledger: &Ledger, most: usize) {
    sums(page, view, most);
    let connections = connections(view, ledger, most);
    up_connections(page, &connections);
    connection_counters(page, &connections);
    let children = children(view, ledger, most);
    states(page, &children);
    carried(page, &children);
    standing(page, &children);
    child_counters(page, &children);
}

fn sums(page: &mut Page, view: &View, most: usize) {
    page.single(&SERIES_DROPPED, view.configured.len().saturating_sub(most));
    let mut connections: Vec<&str> = view.configured.iter().map(|status| &*status.connection).collect();
    connections.dedup();
    page.single(&CONNECTIONS, connections.len());
    let mut states: BTreeMap<&str, u64> = STATES.map(|state| (state, 0)).into();
    for status in &view.configured {
        *states.entry(state_name(&status.state)).or_default() += 1;
    }
    each(page, &CHILDREN, states);
    let mut states: BTreeMap<&str, u64> = IKE_STATES.map(|state| (ike_state_name(state), 0)).into();
    for ike in &view.ike_sas {
        *states.entry(ike_state_name(ike.state)).or_default() += 1;
    }
    each(page, &IKE_SAS, states);
    page.single(&IKE_SAS_HALF_OPEN, view.half_open);
    let mut states: BTreeMap<&str, u64> = CHILD_STATES.map(|state| (child_state_name(state), 0)).into();
    for child in view.ike_sas.iter().flat_map(|ike| &ike.children) {
        *states.entry(child_state_name(child.state)).or_default() += 1;
    }
    each(page, &CHILD_SAS, states);
    let mut kinds: BTreeMap<&str, u64> = [("trap", 0), ("pass", 0), ("drop", 0)].into();
    for policy in &view.policies {
        let kind = match policy.mode {
            ChildMode::Tunnel | ChildMode::Transport => "trap",
            ChildMode::Pass => "pass",
            ChildMode::Drop => "drop",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    each(page, &POLICIES, kinds);
}

fn each(page: &mut Page, family: &'static Family, numbers: BTreeMap<&str, u64>) {
    let mut series = page.family(family);
    for (label, number) in numbers {
        series.add(&[label], number);
    }
}

/// A configured connection.
struct Connection<'v> {
    name: &'v str,
    /// Its established IKE SAs, the oldest first.
    up: Vec<&'v IkeSaSnapshot>,
    /// Repetitions of a request that is not answered now.
    repeats: u32,
    sums: ConnectionSums,
    messages: Option<&'v Counters>,
}

fn connections<'v>(view: &'v View, ledger: &Ledger, most: usize) -> Vec<Connection<'v>> {
    let mut live: HashMap<&str, Vec<&IkeSaSnapshot>> = HashMap::new();
    for ike in &view.ike_sas {
        live.entry(&ike.connection).or_default().push(ike);
    }
    let mut names: Vec<&str> = view.configured.iter().take(most).map(|status| &*status.connection).collect();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let all = live.remove(name).unwrap_or_default();
            let repeats = all.iter().map(|ike| ike.repeats).max().unwrap_or(0);
            let up = all.into_iter().filter(|ike| is_up(ike)).collect();
            let messages = view.messages.by_connection.get(name);
            Connection { name, up, repeats, sums: ledger.connection(name), messages }
        })
        .collect()
}

fn is_up(ike: &IkeSaSnapshot) -> bool {
    match ike.state {
        IkeSaState::Established | IkeSaState::Rekeying => true,
        IkeSaState::Created | IkeSaState::Connecting | IkeSaState::Rekeyed | IkeSaState::Deleting => false,
    }
}

fn up_connections(page: &mut Page, connections: &[Connection<'_>]) {
    of_each(page, &CONNECTION_UP, connections, |connection| Some(!connection.up.is_empty()));
    of_each(page, &CONNECTION_IKE_SAS, connections, |connection| Some(connection.up.len()));
    let mut series = page.family(&CONNECTION_INFO);
    for connection in connections {
        let Some(newest) = connection.up.last() else { continue };
        let nat = match (newest.nat_local, newest.nat_remote) {
            (false, false) => "none",
            (true, false) => "local",
            (false, true) => "remote",
            (true, true) => "both",
        };
        let (remote, local_id) = (newest.remote.ip().to_string(), newest.local_id.to_string());
        series.add(&[connection.name, &remote, &local_id, &newest.remote_id.to_string(), nat], true);
    }
    of_each(page, &CONNECTION_ESTABLISHED, connections, |connection| {
        connection.up.iter().filter_map(|ike| ike.established_seconds).max()
    });
    of_each(page, &CONNECTION_REKEY, connections, |connection| {
        connection.up.iter().filter_map(|ike| ike.rekey_seconds).min()
    });
    of_each(page, &CONNECTION_REAUTH, connections, |connection| {
        connection.up.iter().filter_map(|ike| ike.reauth_seconds).min()
    });
    of_each(page, &CONNECTION_HEARD, connections, |connection| connection.up.iter().map(|ike| ike.heard_seconds).min());
    of_each(page, &CONNECTION_REPEATS, connections, |connection| Some(u64::from(connection.repeats)));
}

fn of_each<V: Into<Value>>(
    page: &mut Page,
    family: &'static Family,
    connections: &[Connection<'_>],
    value: impl Fn(&Connection<'_>) -> Option<V>,
) {
    let mut series = page.family(family);
    for connection in connections {
        if let Some(value) = value(connection) {
            series.add(&[connection.name], value);
        }
    }
}

fn connection_counters(page: &mut Page, connections: &[Connection<'_>]) {
    of_each(page, &CONNECTION_ESTABLISHED_TOTAL, connections, |connection| Some(connection.sums.established));
    of_each(page, &CONNECTION_REKEYS, connections, |connection| Some(connection.sums.rekeys));
    let mut series = page.family(&CONNECTION_MESSAGES);
    for connection in connections {
        for (counter, [exchange, direction, message]) in connection.messages.iter().flat_map(|_| EXCHANGES) {
            let number = connection.messages.map_or(0, |messages| messages.so_far(counter));
            if number > 0 {
                series.add(&[connection.name, exchange, direction, message], number);
            }
        }
    }
    of_each(page, &CONNECTION_INVALID, connections, |connection| {
        Some(connection.messages.map_or(0, |messages| messages.so_far(Counter::Invalid)))
    });
    let mut series = page.family(&CONNECTION_CLOSED);
    for connection in connections {
        for (reason, times) in &connection.sums.closed {
            series.add(&[connection.name, reason], *times);
        }
    }
    let mut series = page.family(&CONNECTION_FAILURES);
    for connection in connections {
        for (what, reason, times) in failures(&connection.sums.failures) {
            series.add(&[connection.name, what, reason], times);
        }
    }
}

fn failures(all: &BTreeMap<&'static str, Reasons>) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    all.iter().flat_map(|(what, reasons)| reasons.iter().map(|(reason, times)| (*what, *reason, *times)))
}

/// A configured child.
struct Child<'v> {
    status: &'v ConfiguredChildStatus,
    /// Its installed CHILD SAs, the oldest first.
    installed: Vec<&'v ChildSaSnapshot>,
    sums: ChildSums,
}

impl Child<'_> {
    fn names(&self) -> [&str; 2] {
        [&self.status.connection, &self.status.child]
    }

    /// The CHILD SA that carries what it sends.
    fn newest(&self) -> Option<&ChildSaSnapshot> {
        self.installed.last().copied()
    }
}

fn children<'v>(view: &'v View, ledger: &Ledger, most: usize) -> Vec<Child<'v>> {
    let mut live: HashMap<(&str, &str), Vec<&ChildSaSnapshot>> = HashMap::new();
    for ike in &view.ike_sas {
        for child in ike.children.iter().filter(|child| is_installed(child)) {
            live.entry((&ike.connection, &child.name)).or_default().push(child);
        }
    }
    let told = view.configured.iter().take(most);
    told.map(|status| {
        let mut installed = live.remove(&(&*status.connection, &*status.child)).unwrap_or_default();
        installed.sort_by_key(|child| child.unique_id);
        Child { status, installed, sums: ledger.child(&status.connection, &status.child) }
    })
    .collect()
}

fn is_installed(child: &ChildSaSnapshot) -> bool {
    match child.state {
        ChildSaState::Installed | ChildSaState::Rekeying => true,
        ChildSaState::Created
        | ChildSaState::Installing
        | ChildSaState::Rekeyed
        | ChildSaState::Deleting
        | ChildSaState::Deleted => false,
    }
}

fn of_child<V: Into<Value>>(
    page: &mut Page,
    family: &'static Family,
    children: &[Child<'_>],
    value: impl Fn(&Child<'_>) -> Option<V>,
) {
    let mut series = page.family(family);
    for child in children {
        if let Some(value) = value(child) {
            series.add(&child.names(), value);
        }
    }
}

fn states(page: &mut Page, children: &[Child<'_>]) {
    of_child(page, &CHILD_CONFIGURED, children, |_| Some(true));
    of_child(page, &CHILD_UP, children, |child| {
        Some(matches!(child.status.state, ConfiguredState::Up | ConfiguredState::Shunt))
    });
    let mut series = page.family(&CHILD_STATE);
    for child in children {
        let [connection, name] = child.names();
        series.add(&[connection, name, state_name(&child.status.state)], true);
    }
    of_child(page, &CHILD_FAILED_ATTEMPTS, children, |child| Some(u64::from(child.status.failures)));
    of_child(page, &CHILD_SA_COUNT, children, |child| Some(child.installed.len()));
}

fn carried(page: &mut Page, children: &[Child<'_>]) {
    let mut series = page.family(&CHILD_BYTES);
    for child in children {
        let [connection, name] = child.names();
        series.add(&[connection, name, "in"], child.sums.carried_in.bytes);
        series.add(&[connection, name, "out"], child.sums.carried_out.bytes);
    }
    let mut series = page.family(&CHILD_PACKETS);
    for child in children {
        let [connection, name] = child.names();
        series.add(&[connection, name, "in"], child.sums.carried_in.packets);
        series.add(&[connection, name, "out"], child.sums.carried_out.packets);
    }
    let mut series = page.family(&CHILD_IDLE);
    for child in children {
        let [connection, name] = child.names();
        let idle_in = child.installed.iter().filter_map(|sa| sa.traffic_in.idle_seconds).min();
        let idle_out = child.installed.iter().filter_map(|sa| sa.traffic_out.idle_seconds).min();
        for (direction, idle) in [("in", idle_in), ("out", idle_out)] {
            if let Some(idle) = idle {
                series.add(&[connection, name, direction], idle);
            }
        }
    }
}

/// What is so only of a child that is up.
fn standing(page: &mut Page, children: &[Child<'_>]) {
    of_child(page, &CHILD_INSTALLED, children, |child| child.newest()?.installed_seconds);
    of_child(page, &CHILD_REKEY, children, |child| child.newest()?.rekey_seconds);
    of_child(page, &CHILD_LIFE, children, |child| child.newest()?.life_seconds);
    of_child(page, &CHILD_REMAINING_BYTES, children, |child| {
        let sa = child.newest()?;
        Some(sa.limits.soft.bytes?.saturating_sub(sa.traffic_in.bytes.max(sa.traffic_out.bytes)))
    });
    of_child(page, &CHILD_REMAINING_PACKETS, children, |child| {
        let sa = child.newest()?;
        Some(sa.limits.soft.packets?.saturating_sub(sa.traffic_in.packets.max(sa.traffic_out.packets)))
    });
    let mut series = page.family(&CHILD_OFFLOAD);
    for child in children {
        let Some(offload) = child.newest().map(|sa| &sa.offload) else { continue };
        let [connection, name] = child.names();
        let simulated = if offload.simulated { " (simulated)" } else { "" };
        let device = offload.device.as_ref().map(|device| format!("{device}{simulated}")).unwrap_or_default();
        series.add(&[connection, name, mode_name(offload.mode), &device], true);
    }
    of_child(page, &CHILD_ENCAP, children, |child| Some(child.newest()?.encap));
}

fn child_counters(page: &mut Page, children: &[Child<'_>]) {
    let mut series = page.family(&CHILD_REKEYS);
    for child in children {
        let [connection, name] = child.names();
        // From the start, so that the first one is seen to have been one more.
        for cause in ["time", "asked"] {
            series.add(&[connection, name, cause], child.sums.rekeys.get(cause).copied().unwrap_or(0));
        }
        for (cause, times) in child.sums.rekeys.iter().filter(|(cause, _)| !matches!(**cause, "time" | "asked")) {
            series.add(&[connection, name, cause], *times);
        }
    }
    of_child(page, &CHILD_LAST_REKEY, children, |child| child.sums.last_rekey_ms.map(seconds));
    let mut series = page.family(&CHILD_CLOSED);
    for child in children {
        let [connection, name] = child.names();
        for (reason, times) in &child.sums.closed {
            series.add(&[connection, name, reason], *times);
        }
    }
    of_child(page, &CHILD_REKEY_FAILURES, children, |child| {
        Some(child.sums.failures.get("rekey").map_or(0, |reasons| reasons.values().sum()))
    });
    let mut series = page.family(&CHILD_FAILURES);
    for child in children {
        let [connection, name] = child.names();
        for (what, reason, times) in failures(&child.sums.failures) {
            series.add(&[connection, name, what, reason], times);
        }
    }
    of_child(page, &CHILD_ACQUIRES, children, |child| Some(child.sums.acquires));
}

const STATES: [&str; 7] = ["up", "connecting", "trapped", "shunt", "retry", "down", "refused"];

fn state_name(state: &ConfiguredState) -> &'static str {
    match state {
        ConfiguredState::Up => "up",
        ConfiguredState::Connecting => "connecting",
        ConfiguredState::Trapped => "trapped",
        ConfiguredState::Shunt => "shunt",
        ConfiguredState::RetryIn(_) => "retry",
        ConfiguredState::Down => "down",
        ConfiguredState::Refused(_) => "refused",
    }
}

const IKE_STATES: [IkeSaState; 6] = [
    IkeSaState::Created,
    IkeSaState::Connecting,
    IkeSaState::Established,
    IkeSaState::Rekeying,
    IkeSaState::Rekeyed,
    IkeSaState::Deleting,
];

fn ike_state_name(state: IkeSaState) -> &'static str {
    match state {
        IkeSaState::Created => "created",
        IkeSaState::Connecting => "connecting",
        IkeSaState::Established => "established",
        IkeSaState::Rekeying => "rekeying",
        IkeSaState::Rekeyed => "rekeyed",
        IkeSaState::Deleting => "deleting",
    }
}

const CHILD_STATES: [ChildSaState; 7] = [
    ChildSaState::Created,
    ChildSaState::Installing,
    ChildSaState::Installed,
    ChildSaState::Rekeying,
    ChildSaState::Rekeyed,
    ChildSaState::Deleting,
    ChildSaState::Deleted,
];

fn child_state_name(state: ChildSaState) -> &'static str {
    match state {
        ChildSaState::Created => "created",
        ChildSaState::Installing => "installing",
        ChildSaState::Installed => "installed",
        ChildSaState::Rekeying => "rekeying",
        ChildSaState::Rekeyed => "rekeyed",
        ChildSaState::Deleting => "deleting",
        ChildSaState::Deleted => "deleted",
    }
}
