//! `--list-conns` and `--list-pols`.

use std::fmt::Write as _;

use super::{field, joined, optional, printable};
use crate::vici::Message;

/// The connections of one event.
#[must_use]
pub fn list_conn(event: &Message) -> String {
    let mut out = String::new();
    for (name, connection) in event.sections() {
        head(name, connection, &mut out);
        for (section, content) in connection.sections() {
            let side = ["local", "remote"].into_iter().find(|side| section.starts_with(side));
            if let Some(side) = side {
                auth_round(side, content, &mut out);
            }
        }
        for (name, child) in connection.get_section("children").map(Message::sections).into_iter().flatten() {
            child_config(name, child, nonzero(connection, "dpd_delay").is_some(), &mut out);
        }
    }
    out
}

fn head(name: &str, connection: &Message, out: &mut String) {
    let _ = write!(out, "{}: {}, ", printable(name), field(connection, "version"));
    match nonzero(connection, "reauth_time") {
        Some(seconds) => {
            let _ = write!(out, "reauthentication every {seconds}s");
        }
        None => out.push_str("no reauthentication"),
    }
    if let Some(seconds) = nonzero(connection, "rekey_time") {
        let _ = write!(out, ", rekeying every {seconds}s");
    } else {
        out.push_str(", no rekeying");
    }
    if let Some(seconds) = nonzero(connection, "dpd_delay") {
        let _ = write!(out, ", dpd delay {seconds}s");
    }
    out.push('\n');
    if let Some(id) = optional(connection, "ppk_id") {
        let not = if connection.is_yes("ppk_required") { "" } else { "not " };
        let _ = writeln!(out, "  ppk: {id}, {not}required");
    }
    for (title, addresses, port) in
        [("local: ", "local_addrs", "local_port"), ("remote:", "remote_addrs", "remote_port")]
    {
        let port = optional(connection, port).map(|port| format!("[{port}]")).unwrap_or_default();
        for address in connection.get_list(addresses).unwrap_or_default() {
            let _ = writeln!(out, "  {title} {}{port}", super::show(address));
        }
    }
}

fn nonzero(message: &Message, key: &str) -> Option<String> {
    optional(message, key).filter(|value| value != "0")
}

fn auth_round(side: &str, round: &Message, out: &mut String) {
    let class = optional(round, "eap-type").or_else(|| optional(round, "class"));
    let class = class.unwrap_or_else(|| "unspecified".to_owned());
    let _ = writeln!(out, "  {side} {class} authentication:");
    for key in ["id", "ca_id", "eap_id", "xauth_id", "aaa_id"] {
        if let Some(value) = optional(round, key) {
            let _ = writeln!(out, "    {key}: {value}");
        }
    }
    for (key, title) in
        [("groups", "groups"), ("cert_policy", "cert policy"), ("certs", "certs"), ("cacerts", "cacerts")]
    {
        if let Some(items) = joined(round, key).filter(|items| !items.is_empty()) {
            let _ = writeln!(out, "    {title}: {items}");
        }
    }
}

/// The action on a dead peer is shown only where peers are checked for life.
fn child_config(name: &str, child: &Message, checked_for_life: bool, out: &mut String) {
    let mode = field(child, "mode");
    let _ = write!(out, "  {}: {mode}, ", printable(name));
    let shunt = matches!(mode.as_str(), "PASS" | "DROP");
    let limits: Vec<String> = [("rekey_time", "s"), ("rekey_bytes", " bytes"), ("rekey_packets", " packets")]
        .iter()
        .filter_map(|(key, unit)| nonzero(child, key).map(|value| format!("{value}{unit}")))
        .collect();
    if shunt || limits.is_empty() {
        out.push_str("no rekeying");
    } else {
        let _ = write!(out, "rekeying every {}", limits.join(" or "));
    }
    if let Some(action) = optional(child, "dpd_action").filter(|_| checked_for_life) {
        let _ = write!(out, ", dpd action is {action}");
    }
    out.push('\n');
    if let Some(label) = optional(child, "label") {
        let _ = writeln!(out, "    label:  {label}");
    }
    let _ = writeln!(out, "    local:  {}", joined(child, "local-ts").unwrap_or_default());
    let _ = writeln!(out, "    remote: {}", joined(child, "remote-ts").unwrap_or_default());
    for key in ["interface", "priority"] {
        if let Some(value) = optional(child, key) {
            let _ = writeln!(out, "    {key}: {value}");
        }
    }
}

/// The policies of one event. The reqid is shown where the daemon sent one.
#[must_use]
pub fn list_policy(event: &Message) -> String {
    let mut out = String::new();
    for (name, policy) in event.sections() {
        let reqid = optional(policy, "reqid").map(|reqid| format!("reqid {reqid}, ")).unwrap_or_default();
        let _ = writeln!(out, "{}, {reqid}{}", printable(name), field(policy, "mode"));
        if let Some(label) = optional(policy, "label") {
            let _ = writeln!(out, "  label:  {label}");
        }
        let _ = writeln!(out, "  local:  {}", joined(policy, "local-ts").unwrap_or_default());
        let _ = writeln!(out, "  remote: {}", joined(policy, "remote-ts").unwrap_or_default());
    }
    out
}
