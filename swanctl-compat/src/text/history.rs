//! `cygnet history` and `cygnet events`: totals, generations and IKE SAs as tables, an event in one line.

use ike_model::Rfc3339;
use serde_json::Value as Json;

use super::table::{Table, Tone};
use super::{field, optional, printable};
use crate::vici::Message;

/// How a moment, in milliseconds since the epoch, is shown.
pub type When<'a> = &'a dyn Fn(u64) -> String;

/// Causes that somebody wanted, or that are part of normal life.
const QUIET: [&str; 8] =
    ["operator", "reload", "rekeyed", "replaced", "collision-lost", "peer-deleted", "shutdown", "inactive"];

/// What each child has carried, from `cygnet-total` events.
#[must_use]
pub fn cygnet_totals(events: &[Message], when: When<'_>) -> Table {
    let mut table = Table::new(&["GATEWAY", "CHILD", "STATE", "GENERATIONS", "SINCE", "IN", "OUT"]);
    let several = several(events);
    for (name, total) in events.iter().filter_map(|event| event.sections().next()) {
        let up = total.is_yes("up");
        table.row(
            if up { Tone::Good } else { Tone::Plain },
            [
                if several { field(total, "gateway") } else { String::new() },
                printable(name).into_owned(),
                if up { "up".into() } else { "down".into() },
                field(total, "generations"),
                shown(total, "first", when),
                amount(total, "in"),
                amount(total, "out"),
            ],
        );
    }
    table
}

/// Generations of CHILD SAs, from `cygnet-generation` events: when each was up, its number, SPIs and algorithms, the mode really in use, what it
/// carried and why it ended.
#[must_use]
pub fn cygnet_generations(events: &[Message], when: When<'_>) -> Table {
    let heading =
        ["GATEWAY", "INSTALLED", "LASTED", "CHILD SA", "SPIS IN, OUT", "ALGORITHMS", "MODE", "IN", "OUT", "END"];
    let mut table = Table::new(&heading);
    let several = several(events);
    for (name, row) in events.iter().filter_map(|event| event.sections().next()) {
        let spi = |key| optional(row, key).unwrap_or_else(|| "-".into());
        table.row(
            tone(row, "removed"),
            [
                if several { field(row, "gateway") } else { String::new() },
                shown(row, "installed", when),
                lasted(row, "installed", "removed"),
                format!("{}{{{}}} #{}", printable(name), field(row, "uniqueid"), field(row, "generation")),
                format!("{} {}", spi("spi-in"), spi("spi-out")),
                algorithms(row),
                mode(row),
                amount(row, "in"),
                amount(row, "out"),
                end(row),
            ],
        );
    }
    table
}

/// IKE SAs, from `cygnet-past-ike` events.
#[must_use]
pub fn cygnet_past_ikes(events: &[Message], when: When<'_>) -> Table {
    let heading = ["GATEWAY", "ESTABLISHED", "LASTED", "IKE SA", "SPIS I, R", "LOCAL", "REMOTE", "ALGORITHMS", "END"];
    let mut table = Table::new(&heading);
    let several = several(events);
    for (name, row) in events.iter().filter_map(|event| event.sections().next()) {
        let (i, r) = if row.is_yes("initiator") { ("*", "") } else { ("", "*") };
        table.row(
            tone(row, "closed"),
            [
                if several { field(row, "gateway") } else { String::new() },
                shown(row, "established", when),
                lasted(row, "established", "closed"),
                format!("{}[{}] #{}", printable(name), field(row, "uniqueid"), field(row, "generation")),
                format!("{}{i} {}{r}", field(row, "initiator-spi"), field(row, "responder-spi")),
                format!("{} [{}]", field(row, "local"), field(row, "local-id")),
                format!("{} [{}]", field(row, "remote"), field(row, "remote-id")),
                algorithms(row),
                end(row),
            ],
        );
    }
    table
}

/// The record of a `cygnet-event`, JSON.
#[must_use]
pub fn cygnet_record(event: &Message) -> Option<String> {
    if let Some(record) = event.get_str("record") {
        return Some(record.to_owned());
    }
    event.get_list("pieces")?.iter().map(crate::vici::Value::as_str).collect()
}

/// One event in one line: time, name, what it is about, SPIs where there are any, and the cause. `record` is the record of the event.
#[must_use]
pub fn cygnet_event_line(record: &Json, when: When<'_>) -> (Tone, String) {
    let text = |value: &Json, key: &str| value.get(key).and_then(Json::as_str).map(|text| printable(text).into_owned());
    let time = text(record, "time").unwrap_or_default();
    let cause = record.get("cause");
    let kind = cause.and_then(|cause| text(cause, "kind"));
    let parts = [
        Rfc3339::parse(&time).map_or(time, |Rfc3339(ms)| when(ms)),
        format!("{:<21}", text(record, "type").unwrap_or_default()),
        about(record),
        match (&kind, cause.and_then(|cause| text(cause, "text"))) {
            (Some(kind), Some(text)) => format!("{kind}: {text}"),
            (None, Some(text)) => text,
            (_, None) => String::new(),
        },
    ];
    let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
    let tone = if kind.is_none_or(|kind| QUIET.contains(&&*kind)) { Tone::Plain } else { Tone::Bad };
    (tone, parts.join("  ").trim_end().to_owned())
}

/// Rows are of more than one gateway.
fn several(events: &[Message]) -> bool {
    let mut gateways = events.iter().filter_map(|event| event.sections().next()?.1.get_str("gateway"));
    let first = gateways.next();
    gateways.any(|gateway| Some(gateway) != first)
}

/// Connection and child of an event, with the numbers and SPIs of the CHILD SAs.
fn about(record: &Json) -> String {
    let string = |value: Option<&Json>| value.and_then(Json::as_str).map(|text| printable(text).into_owned());
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

pub(super) fn line(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    format!("{}\n", parts.join("  "))
}

pub(super) fn moment(row: &Message, key: &str) -> String {
    field(row, key).parse().map(|ms| Rfc3339(ms).to_string()).unwrap_or_default()
}

fn shown(row: &Message, key: &str, when: When<'_>) -> String {
    field(row, key).parse().map(when).unwrap_or_default()
}

fn tone(row: &Message, end: &str) -> Tone {
    match optional(row, "cause") {
        None if row.get(end).is_none() => Tone::Good,
        Some(kind) if !QUIET.contains(&&*kind) => Tone::Bad,
        None | Some(_) => Tone::Plain,
    }
}

/// How long it lasted, or that it still does.
fn lasted(row: &Message, from: &str, to: &str) -> String {
    let ms = |key| field(row, key).parse::<u64>().ok();
    match ms(from).zip(ms(to)) {
        Some((from, to)) => length(to.saturating_sub(from)),
        None => "up".into(),
    }
}

fn length(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms / 100 % 10),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
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

/// What was carried: `3.9 KiB, 40 packets`. JSON has it to the octet.
fn amount(row: &Message, direction: &str) -> String {
    let (bytes, packets) = (field(row, &format!("bytes-{direction}")), field(row, &format!("packets-{direction}")));
    let plural = if packets == "1" { "" } else { "s" };
    format!("{}, {packets} packet{plural}", bytes.parse().map(octets).unwrap_or(bytes))
}

/// Octets in the largest unit in which they are at least one.
fn octets(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (u128::from(count) * 10, UNITS[0]);
    for next in UNITS {
        unit = next;
        tenths /= 1024;
        if tenths < 10_240 {
            break;
        }
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn end(row: &Message) -> String {
    optional(row, "cause").map(|kind| format!("{kind}: {}", field(row, "cause-text"))).unwrap_or_default()
}
