//! What loading a connection again means, from the words of the file on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an expectation fails")]

use ike_model::Connection;
use ike_model::reload::{Change, Updated, compare};
use swanctl_compat::load_conn;
use swanctl_compat::vici::Message;

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
