//! VICI messages as text for a terminal: raw, pretty, JSON, and the layouts that people and their scripts know.
//!
//! The layouts follow strongSwan's swanctl to the character; what we add comes behind. Everything is made from messages, so a client prints what any
//! daemon sent.

mod conns;
mod doctor;
mod explain;
mod forecast;
mod history;
mod json;
mod listings;
mod log;
mod printable;
mod raw;
mod sas;
mod stats;
mod status;
mod table;
mod webhooks;
mod why;

#[cfg(test)]
mod tests;

pub use conns::{list_conn, list_policy};
pub use doctor::{cygnet_check, cygnet_devices, cygnet_doctor_json};
pub use explain::cygnet_block;
pub use forecast::{disturbed, forecast};
pub use history::{When, cygnet_event_line, cygnet_generations, cygnet_past_ikes, cygnet_record, cygnet_totals};
pub use json::{json, named_json};
pub use listings::{algorithms, counters, list_authority, pools};
pub use log::cygnet_raised;
pub use printable::printable;
pub use raw::{labelled, pretty, raw};
pub use sas::list_sa;
pub use stats::{stats, version};
pub use status::{cygnet_backend_sa, cygnet_child, cygnet_json};
pub use table::{Table, Tone};
pub use webhooks::{cygnet_delivery, cygnet_webhook, cygnet_webhook_tried};
pub use why::{cygnet_step, cygnet_verdict, cygnet_why_json};

use self::printable::is_printable;
use crate::vici::{Message, Value};

/// A value on a line. What a peer chose neither moves a cursor nor makes lines of its own.
fn show(value: &Value) -> String {
    value.as_str().map_or_else(|| hex(value), |text| printable(text).into_owned())
}

/// A value that may have several lines: as it is when printable, else in hexadecimal.
fn show_lines(value: &Value) -> String {
    match value.as_str().filter(|text| text.split(['\n', '\t']).all(is_printable)) {
        Some(text) => text.to_owned(),
        None => hex(value),
    }
}

/// A value in the raw forms, which show anything but printable ASCII in hexadecimal.
fn show_raw(value: &Value) -> String {
    let printable = value.as_bytes().iter().all(|octet| matches!(octet, b' '..=b'~'));
    match value.as_str().filter(|_| printable) {
        Some(text) => text.to_owned(),
        None => hex(value),
    }
}

fn hex(value: &Value) -> String {
    let digits: String = value.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("0x{digits}")
}

/// The value of `key`, or nothing.
fn field(message: &Message, key: &str) -> String {
    message.get(key).map(show).unwrap_or_default()
}

/// The value of `key`, if it is there.
fn optional(message: &Message, key: &str) -> Option<String> {
    message.get(key).map(show)
}

/// The items of a list joined by a blank, if the list is there.
fn joined(message: &Message, key: &str) -> Option<String> {
    message.get_list(key).map(|items| items.iter().map(show).collect::<Vec<_>>().join(" "))
}

/// A log line with its prefix before each of its lines: `05[IKE] text`, or `[IKE] text` in `control-log`.
#[must_use]
pub fn log(message: &Message) -> String {
    let group = field(message, "group");
    let prefix = match optional(message, "thread") {
        Some(thread) => format!("{thread:0>2}[{group}] "),
        None => format!("[{group}] "),
    };
    let text = message.get("msg").map(show_lines).unwrap_or_default();
    text.lines().map(|line| format!("{prefix}{line}\n")).collect()
}
