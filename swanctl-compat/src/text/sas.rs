//! `--list-sas` and `--monitor-sa`.

use std::fmt::Write as _;

use super::{field, joined, optional, printable};
use crate::vici::Message;

/// States of a CHILD SA in which SPIs and counters are shown.
const WITH_SAS: [&str; 5] = ["INSTALLED", "REKEYING", "REKEYED", "DELETING", "DELETED"];

/// The IKE SAs of one event with their CHILD SAs.
#[must_use]
pub fn list_sa(event: &Message) -> String {
    let mut out = String::new();
    for (name, ike) in event.sections() {
        ike_sa(name, ike, &mut out);
        for (_, child) in ike.get_section("child-sas").map(Message::sections).into_iter().flatten() {
            child_sa(child, &mut out);
        }
    }
    out
}

fn ike_sa(name: &str, ike: &Message, out: &mut String) {
    let own = ike.is_yes("initiator");
    let f = |key: &str| field(ike, key);
    let _ = writeln!(
        out,
        "{}: #{}, {}, IKEv{}, {}_i{} {}_r{}",
        printable(name),
        f("uniqueid"),
        f("state"),
        f("version"),
        f("initiator-spi"),
        if own { "*" } else { "" },
        f("responder-spi"),
        if own { "" } else { "*" },
    );
    let _ = write!(out, "  local  '{}' @ {}[{}]", f("local-id"), f("local-host"), f("local-port"));
    virtual_ips(ike, "local-vips", out);
    let _ = write!(out, "  remote '{}' @ {}[{}]", f("remote-id"), f("remote-host"), f("remote-port"));
    if let Some(id) = optional(ike, "remote-eap-id") {
        let _ = write!(out, " EAP: '{id}'");
    }
    if let Some(id) = optional(ike, "remote-xauth-id") {
        let _ = write!(out, " XAuth: '{id}'");
    }
    virtual_ips(ike, "remote-vips", out);
    let algorithms = ike_algorithms(ike);
    if !algorithms.is_empty() {
        let _ = writeln!(out, "  {algorithms}");
    }
    ike_times(ike, out);
    for (key, title) in [("tasks-queued", "queued: "), ("tasks-active", "active: "), ("tasks-passive", "passive:")] {
        if let Some(tasks) = joined(ike, key) {
            let _ = writeln!(out, "  {title} {tasks}");
        }
    }
}

fn virtual_ips(ike: &Message, key: &str, out: &mut String) {
    match joined(ike, key) {
        Some(addresses) => {
            let _ = writeln!(out, " [{addresses}]");
        }
        None => out.push('\n'),
    }
}

fn ike_algorithms(ike: &Message) -> String {
    let mut parts = Vec::new();
    parts.extend(with_key_size(ike, "encr-alg", "encr-keysize"));
    parts.extend(with_key_size(ike, "integ-alg", "integ-keysize"));
    parts.extend(optional(ike, "prf-alg"));
    parts.extend(optional(ike, "dh-group"));
    additional_key_exchanges(ike, &mut parts);
    if ike.is_yes("ppk") {
        parts.push("PPK".to_owned());
    }
    parts.join("/")
}

fn with_key_size(message: &Message, algorithm: &str, size: &str) -> Option<String> {
    let algorithm = optional(message, algorithm)?;
    Some(match optional(message, size) {
        Some(size) => format!("{algorithm}-{size}"),
        None => algorithm,
    })
}

fn additional_key_exchanges(message: &Message, parts: &mut Vec<String>) {
    for number in 1..=7 {
        if let Some(method) = optional(message, &format!("ake{number}")) {
            parts.push(format!("KE{number}_{method}"));
        }
    }
}

fn ike_times(ike: &Message, out: &mut String) {
    let Some(established) = optional(ike, "established") else { return };
    let _ = write!(out, "  established {established}s ago");
    if let Some(seconds) = optional(ike, "rekey-time") {
        let _ = write!(out, ", rekeying in {seconds}s");
    }
    if let Some(seconds) = optional(ike, "reauth-time") {
        let _ = write!(out, ", reauth in {seconds}s");
    }
    out.push('\n');
}

fn child_sa(child: &Message, out: &mut String) {
    let f = |key: &str| field(child, key);
    let encap = if child.is_yes("encap") { "-in-UDP" } else { "" };
    let _ = write!(out, "  {}: #{}, reqid {}", f("name"), f("uniqueid"), f("reqid"));
    if let Some(cpu) = optional(child, "cpu") {
        let _ = write!(out, ", cpu {cpu}");
    }
    let _ = write!(out, ", {}, {}{encap}", f("state"), f("mode"));
    if let Some(protocol) = optional(child, "protocol") {
        let _ = write!(out, ", {protocol}:{}", child_algorithms(child));
    }
    out.push('\n');
    if WITH_SAS.contains(&f("state").as_str()) {
        child_times(child, out);
        direction(child, "in", out);
        direction(child, "out", out);
    }
    if let Some(label) = optional(child, "label") {
        let _ = writeln!(out, "    label  {label}");
    }
    let _ = writeln!(out, "    local  {}", joined(child, "local-ts").unwrap_or_default());
    let _ = writeln!(out, "    remote {}", joined(child, "remote-ts").unwrap_or_default());
}

fn child_algorithms(child: &Message) -> String {
    let mut parts = Vec::new();
    parts.extend(with_key_size(child, "encr-alg", "encr-keysize"));
    parts.extend(with_key_size(child, "integ-alg", "integ-keysize"));
    parts.extend(optional(child, "dh-group"));
    additional_key_exchanges(child, &mut parts);
    if optional(child, "esn").is_some() {
        parts.push("ESN".to_owned());
    }
    parts.join("/")
}

fn child_times(child: &Message, out: &mut String) {
    let Some(installed) = optional(child, "install-time") else { return };
    let _ = write!(out, "    installed {installed}s ago");
    if let Some(seconds) = optional(child, "rekey-time") {
        let _ = write!(out, ", rekeying in {seconds}s");
    }
    if let Some(seconds) = optional(child, "life-time") {
        let _ = write!(out, ", expires in {seconds}s");
    }
    out.push('\n');
}

/// SPI, CPI, mark and interface id, then counters.
fn direction(child: &Message, way: &str, out: &mut String) {
    let f = |key: &str| field(child, &format!("{key}-{way}"));
    let o = |key: &str| optional(child, &format!("{key}-{way}"));
    let _ = write!(out, "    {way:<3} {}", f("spi"));
    if let Some(cpi) = o("cpi") {
        let _ = write!(out, "/{cpi}");
    }
    let mask = o("mark-mask").map(|mask| format!("/0x{mask}")).unwrap_or_default();
    let mark = o("mark").map(|mark| format!("0x{mark}{mask}"));
    let interface = o("if-id").map(|id| format!("0x{id}"));
    match (mark, interface) {
        (None, None) => {}
        (Some(mark), None) => {
            let _ = write!(out, " ({mark})");
        }
        (mark, Some(interface)) => {
            let _ = write!(out, " ({}|{interface})", mark.as_deref().unwrap_or("-"));
        }
    }
    let _ = write!(out, ", {:>6} bytes, {:>5} packets", f("bytes"), f("packets"));
    if let Some(seconds) = o("use") {
        let _ = write!(out, ", {seconds:>5}s ago");
    }
    out.push('\n');
}
