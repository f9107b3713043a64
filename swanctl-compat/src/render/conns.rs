//! Configured connections, as `list-conns` shows them.

use ike_model::{
    Actions, AuthMethod, AuthRound, Child, Childless, Connection, Fragmentation, HostSpec, Identity, InterfaceIds,
    MarkConfig, TagValue, Unique,
};
use ipsec::sa::CopyDscp;

use super::{identities, policies, sas, selectors};
use crate::proposal;
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
    further(connection, &mut m);
    let mut message = Message::new();
    message.section(connection.name.as_str(), m);
    message
}

/// What VICI's own fields leave out, under the names of `swanctl.conf`: everything that is loaded can be read back.
fn further(connection: &Connection, m: &mut Message) {
    m.list("proposals", connection.proposals.iter().map(proposal::ike_text));
    m.set("mobike", yes(connection.mobike));
    m.set("encap", yes(connection.encap));
    m.set("fragmentation", fragmentation(connection.fragmentation));
    m.set("childless", childless(connection.childless));
    m.set("dscp", format!("{:06b}", connection.dscp));
    m.set_display("keyingtries", connection.keyingtries);
    m.set_display("over_time", connection.over_time.as_secs());
    m.set_display("rand_time", connection.rand_time.as_secs());
    interface_ids(connection.interface, m);
}

fn auth_round(round: &AuthRound) -> Message {
    let mut m = Message::new();
    let class = match round.method {
        AuthMethod::Psk => Some("pre-shared key"),
        AuthMethod::Any => None,
    };
    if round.id != Identity::Any {
        m.set("id", identities::identity(&round.id));
    }
    if let Some(class) = class {
        m.set("class", class);
    }
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
    further_of_child(child, &mut m);
    m
}

fn further_of_child(child: &Child, m: &mut Message) {
    m.list("esp_proposals", child.esp_proposals.iter().map(proposal::esp_text));
    let life = [("time", child.lifetime.time), ("bytes", child.lifetime.bytes), ("packets", child.lifetime.packets)];
    for (unit, lifetime) in life {
        m.set_display(format!("life_{unit}"), lifetime.hard);
        m.set_display(format!("rand_{unit}"), lifetime.jitter);
    }
    m.set("start_action", actions(child.start_action));
    m.set("hw_offload", sas::offload_mode(child.hw_offload));
    sas::set_some(m, "replay_window", child.replay_window);
    sas::set_some(m, "reqid", child.reqid);
    if let Some(updown) = &child.updown {
        m.set("updown", updown.script.as_str());
        m.set("hostaccess", yes(updown.host_access));
    }
    m.set("policies", yes(child.policies));
    m.set_display("inactivity", child.inactivity.as_secs());
    m.set("copy_df", yes(child.copy.df));
    m.set("copy_ecn", yes(child.copy.ecn));
    m.set("copy_dscp", copy_dscp(child.copy.dscp));
    let tags = &child.tags;
    for (key, value) in [
        ("mark_in", tags.mark_in),
        ("mark_out", tags.mark_out),
        ("set_mark_in", tags.set_mark_in),
        ("set_mark_out", tags.set_mark_out),
    ] {
        sas::set_some(m, key, value.map(mark));
    }
    m.set_if("mark_in_sa", tags.mark_in_sa);
    interface_ids(tags.interface, m);
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn mark(mark: MarkConfig) -> String {
    format!("{}/0x{:08x}", tag(mark.value), mark.mask)
}

/// Numbers of 0 mean that there is none.
fn interface_ids(ids: InterfaceIds, m: &mut Message) {
    for (key, id) in [("if_id_in", ids.inbound), ("if_id_out", ids.outbound)] {
        if id != TagValue::Fixed(0) {
            m.set(key, tag(id));
        }
    }
}

fn tag(value: TagValue) -> String {
    match value {
        TagValue::Fixed(number) => format!("0x{number:08x}"),
        TagValue::Unique => "%unique".to_owned(),
        TagValue::UniqueByDirection => "%unique-dir".to_owned(),
        TagValue::Same => "%same".to_owned(),
    }
}

fn fragmentation(value: Fragmentation) -> &'static str {
    match value {
        Fragmentation::Yes => "yes",
        Fragmentation::Accept => "accept",
        Fragmentation::No => "no",
        Fragmentation::Force => "force",
    }
}

fn childless(value: Childless) -> &'static str {
    match value {
        Childless::Allow => "allow",
        Childless::Prefer => "prefer",
        Childless::Force => "force",
        Childless::Never => "never",
    }
}

fn copy_dscp(value: CopyDscp) -> &'static str {
    match value {
        CopyDscp::Out => "out",
        CopyDscp::In => "in",
        CopyDscp::Yes => "yes",
        CopyDscp::No => "no",
    }
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
        (true, true) => "trap | start",
    }
}
