//! What a reload of one connection means for SAs that are up.
//!
//! Connections are compared after defaults, references and units, so that another way of writing the same changes nothing. Only identities,
//! authentication, addresses and proposals are properties of the IKE SA itself; everything else takes effect without ending it.

use std::collections::BTreeMap;

use ike_model::Connection;

/// Outcome of [`compare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing changed; no SA is touched.
    Unchanged,
    /// The IKE SA stays.
    Updated(Updated),
    /// Identities, authentication, addresses or proposals changed: the IKE SA is replaced, make-before-break.
    Replaced,
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

/// Compares the loaded connection with its new configuration.
#[must_use]
pub fn compare(old: &Connection, new: &Connection) -> Change {
    if old == new {
        return Change::Unchanged;
    }
    if is_replaced(old, new) {
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

fn is_replaced(old: &Connection, new: &Connection) -> bool {
    old.local_addrs != new.local_addrs
        || old.remote_addrs != new.remote_addrs
        || (old.local_port, old.remote_port) != (new.local_port, new.remote_port)
        || old.proposals != new.proposals
        || old.local != new.local
        || old.remote != new.remote
        || old.encap != new.encap
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_conn;
    use crate::vici::Message;

    fn connection(edit: impl FnOnce(&mut Message, &mut Message, &mut Message)) -> Connection {
        let (mut conn, mut local, mut child) = (Message::new(), Message::new(), Message::new());
        local.set("auth", "psk");
        edit(&mut conn, &mut local, &mut child);
        let mut children = Message::new();
        children.section("net", child);
        conn.section("local", local);
        conn.section("children", children);
        load_conn::parse("c", &conn).unwrap().connection
    }

    #[test]
    fn other_spelling_is_no_change() {
        let old = connection(|conn, _, child| {
            conn.set("rekey_time", "4h");
            child.set("start_action", "route");
            child.list("local_ts", ["10.1.0.1/16"]);
        });
        let new = connection(|_, _, child| {
            child.set("start_action", "trap");
            child.list("local_ts", ["10.1.0.0/16"]);
            child.list("esp_proposals", ["default"]);
        });
        assert_eq!(compare(&old, &new), Change::Unchanged);
    }

    #[test]
    fn settings_and_children_keep_the_ike_sa() {
        let old = connection(|_, _, _| {});
        let new = connection(|conn, _, child| {
            conn.set("dpd_delay", "30");
            child.set("rekey_time", "10m");
        });
        let expected = Updated { settings: true, changed: vec!["net".into()], ..Updated::default() };
        assert_eq!(compare(&old, &new), Change::Updated(expected));
    }

    #[test]
    fn children_come_and_go() {
        let old = connection(|_, _, _| {});
        let mut new = old.clone();
        let mut child = (*new.children[0]).clone();
        child.name = "other".into();
        new.children = vec![child.into()];
        let expected = Updated { added: vec!["other".into()], removed: vec!["net".into()], ..Updated::default() };
        assert_eq!(compare(&old, &new), Change::Updated(expected));
    }

    #[test]
    fn identity_addresses_and_proposals_replace() {
        let old = connection(|_, _, _| {});
        let others = [
            connection(|_, local, _| local.set("id", "gw")),
            connection(|conn, _, _| conn.list("remote_addrs", ["192.0.2.1"])),
            connection(|conn, _, _| conn.list("proposals", ["aes128-sha256-x25519"])),
            connection(|conn, _, _| conn.set("encap", "yes")),
        ];
        for new in others {
            assert_eq!(compare(&old, &new), Change::Replaced);
        }
    }
}
