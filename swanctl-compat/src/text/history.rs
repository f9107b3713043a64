//! `cygnet history` and `cygnet events`: totals, generations and events, one line each.

use ike_model::Rfc3339;
use serde_json::Value as Json;

use super::{field, optional};
use crate::vici::Message;

/// One child in one line: `site/net  up  4 generations since 2026-01-31T12:00:00.000Z  in 4000 bytes, 40 packets  out 0 bytes, 0 packets`.
#[must_use]
pub fn cygnet_total(event: &Message) -> String {
    let Some((name, total)) = event.sections().next() else { return String::new() };
    let state = if total.is_yes("up") { "up" } else { "down" };
    let count = field(total, "generations");
    let plural = if count == "1" { "" } else { "s" };
    format!("{name}  {state}  {count} generation{plural} since {}  {}\n", moment(total, "first"), carried(total))
}

/// One generation in one line: when it was up, its number, SPIs and algorithms, the mode really in use, what it carried and why it ended.
#[must_use]
pub fn cygnet_generation(event: &Message) -> String {
    let Some((name, row)) = event.sections().next() else { return String::new() };
    let spi = |key| optional(row, key).unwrap_or_else(|| "-".into());
    let parts = [
        span(row, "installed", "removed"),
        format!("{name}{{{}}} #{}", field(row, "uniqueid"), field(row, "generation")),
        format!("{}_i {}_o", spi("spi-in"), spi("spi-out")),
        algorithms(row),
        mode(row),
        carried(row),
        end(row),
    ];
    line(&parts)
}

/// One IKE SA in one line.
#[must_use]
pub fn cygnet_past_ike(event: &Message) -> String {
    let Some((name, row)) = event.sections().next() else { return String::new() };
    let (i, r) = if row.is_yes("initiator") { ("_i*", "_r") } else { ("_i", "_r*") };
    let parts = [
        span(row, "established", "closed"),
        format!("{name}[{}] #{}", field(row, "uniqueid"), field(row, "generation")),
        format!("{}{i} {}{r}", field(row, "initiator-spi"), field(row, "responder-spi")),
        format!(
            "{} [{}] - {} [{}]",
            field(row, "local"),
            field(row, "local-id"),
            field(row, "remote"),
            field(row, "remote-id")
        ),
        algorithms(row),
        end(row),
    ];
    line(&parts)
}

/// One event in one line: time, name, what it is about, SPIs where there are any, and the cause. `record` is the record of the event.
#[must_use]
pub fn cygnet_event_line(record: &Json) -> String {
    let text = |value: &Json, key: &str| value.get(key).and_then(Json::as_str).map(printable);
    let parts = [
        text(record, "time").unwrap_or_default(),
        text(record, "type").unwrap_or_default(),
        about(record),
        record.get("cause").and_then(|cause| text(cause, "text")).unwrap_or_default(),
    ];
    line(&parts)
}

/// Connection and child of an event, with the numbers and SPIs of the CHILD SAs.
fn about(record: &Json) -> String {
    let string = |value: Option<&Json>| value.and_then(Json::as_str).map(printable);
    let of_ike = ["ike", "new"].iter().find_map(|key| string(record.get(key)?.get("connection")));
    let connection = string(record.get("connection")).or(of_ike);
    let sa = |key: &str| record.get(key).filter(|sa| sa.get("spi_in").is_some());
    let child = string(record.get("child")).or_else(|| string(sa("child").or_else(|| sa("new"))?.get("name")));
    let name = [connection, child].into_iter().flatten().collect::<Vec<_>>().join("/");
    let sas = ["child", "old", "new"].iter().filter_map(|key| sa(key)).map(numbers).collect::<Vec<_>>();
    match (name.is_empty(), sas.is_empty()) {
        (true, _) => string(record.get("name")).unwrap_or_default(),
        (false, true) => name,
        (false, false) => format!("{name} {}", sas.join(" -> ")),
    }
}

fn numbers(sa: &Json) -> String {
    let number = |key: &str| sa.get(key).and_then(Json::as_u64);
    let spi = |key: &str| number(key).map_or_else(|| "-".into(), |spi| format!("{spi:08x}"));
    format!("{{{}}} {}_i {}_o", number("unique_id").unwrap_or(0), spi("spi_in"), spi("spi_out"))
}

/// What a peer chose does not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

pub(super) fn line(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    format!("{}\n", parts.join("  "))
}

pub(super) fn moment(row: &Message, key: &str) -> String {
    field(row, key).parse().map(|ms| Rfc3339(ms).to_string()).unwrap_or_default()
}

/// From when to when: `2026-01-31T12:00:00.000Z +59m12s`, or `... up`.
fn span(row: &Message, from: &str, to: &str) -> String {
    let ms = |key| field(row, key).parse::<u64>().ok();
    let length = match ms(from).zip(ms(to)) {
        Some((from, to)) => format!("+{}", length(to.saturating_sub(from) / 1000)),
        None => "up".into(),
    };
    format!("{} {length}", moment(row, from))
}

fn length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn algorithms(row: &Message) -> String {
    let mut parts = Vec::new();
    if let Some(encryption) = optional(row, "encr-alg") {
        parts.push(match optional(row, "encr-keysize") {
            Some(bits) => format!("{encryption}-{bits}"),
            None => encryption,
        });
    }
    parts.extend(["integ-alg", "prf-alg", "dh-group"].iter().filter_map(|key| optional(row, key)));
    if row.get("esn").is_some() {
        parts.push("ESN".into());
    }
    parts.join("/")
}

fn mode(row: &Message) -> String {
    let offload = match (field(row, "hw-offload").as_str(), optional(row, "offload-dev")) {
        ("no" | "", _) => String::new(),
        (mode, Some(device)) => format!(", {mode} offload on {device}"),
        (mode, None) => format!(", {mode} offload"),
    };
    let simulated = if row.is_yes("simulated") { " (simulated)" } else { "" };
    format!("{} {}{offload}{simulated}", field(row, "backend"), field(row, "mode").to_ascii_lowercase())
}

fn carried(row: &Message) -> String {
    let of = |direction| {
        let (bytes, packets) = (field(row, &format!("bytes-{direction}")), field(row, &format!("packets-{direction}")));
        format!("{direction} {bytes} bytes, {packets} packets")
    };
    format!("{}  {}", of("in"), of("out"))
}

fn end(row: &Message) -> String {
    optional(row, "cause").map(|kind| format!("{kind}: {}", field(row, "cause-text"))).unwrap_or_default()
}
