//! Configured connections, as `list-conns` shows them.

use ike_model::{Actions, AuthMethod, AuthRound, Child, Connection, HostSpec, Identity, Unique};

use super::{policies, selectors};
use crate::vici::Message;

/// The `list-conn` event.
#[must_use]
pub fn list_conn(connection: &Connection) -> Message {
    let mut m = Message::new();
    m.list("local_addrs", connection.local_addrs.iter().map(host));
    m.list("remote_addrs", connection.remote_addrs.iter().map(host));
    m.set_display("local_port", connection.local_port);
    m.set_display("remote_port", connection.remote_port);
    m.set("version", "IKEv2");
    m.set_display("reauth_time", connection.reauth_time.as_secs());
    m.set_display("rekey_time", connection.rekey_time.as_secs());
    m.set("unique", unique(connection.unique));
    if !connection.dpd_delay.is_zero() {
        m.set_display("dpd_delay", connection.dpd_delay.as_secs());
    }
    for (side, rounds) in [("local", &connection.local), ("remote", &connection.remote)] {
        for (index, round) in rounds.iter().enumerate() {
            m.section(format!("{side}-{}", index + 1), auth_round(round));
        }
    }
    let mut children = Message::new();
    for entry in &connection.children {
        children.section(entry.name.as_str(), child(entry));
    }
    m.section("children", children);
    let mut message = Message::new();
    message.section(connection.name.as_str(), m);
    message
}

fn auth_round(round: &AuthRound) -> Message {
    let mut m = Message::new();
    let class = match round.method {
        AuthMethod::Psk => "pre-shared key",
    };
    if round.id != Identity::Any {
        m.set_display("id", &round.id);
    }
    m.set("class", class);
    for list in ["groups", "cert_policy", "certs", "cacerts"] {
        m.list(list, std::iter::empty::<&str>());
    }
    m
}

fn child(child: &Child) -> Message {
    let mut m = Message::new();
    m.set("mode", policies::child_mode(child.mode));
    m.set_display("rekey_time", child.lifetime.time.soft);
    m.set_display("rekey_bytes", child.lifetime.bytes.soft);
    m.set_display("rekey_packets", child.lifetime.packets.soft);
    m.set("dpd_action", actions(child.dpd_action));
    m.set("close_action", actions(child.close_action));
    m.list("local-ts", child.local_ts.iter().map(selectors::configured));
    m.list("remote-ts", child.remote_ts.iter().map(selectors::configured));
    if let Some(priority) = child.priority {
        m.set_display("priority", priority);
    }
    m
}

fn host(spec: &HostSpec) -> String {
    match spec {
        HostSpec::Any => "%any".to_owned(),
        HostSpec::Address(address) => address.to_string(),
        HostSpec::Range(range) => match range.prefix_length() {
            Some(length) => format!("{}/{length}", range.start()),
            None => format!("{}-{}", range.start(), range.end()),
        },
        HostSpec::Name(name) => name.clone(),
    }
}

fn unique(policy: Unique) -> &'static str {
    match policy {
        Unique::Never => "UNIQUE_NEVER",
        Unique::No => "UNIQUE_NO",
        Unique::Keep => "UNIQUE_KEEP",
        Unique::Replace => "UNIQUE_REPLACE",
    }
}

fn actions(actions: Actions) -> &'static str {
    match (actions.trap, actions.start) {
        (false, false) => "none",
        (true, false) => "trap",
        (false, true) => "start",
        (true, true) => "trap|start",
    }
}
