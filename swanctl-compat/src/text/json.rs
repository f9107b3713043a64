//! Messages as JSON: sections are objects, lists arrays, values strings; known counters, times and ids are numbers.

use ike_model::Counter;
use serde_json::{Map, Value as Json};

use super::show;
use crate::vici::{Element, Message};

/// Keys whose values are decimal numbers, besides the counters of messages.
const NUMBERS: [&str; 71] = [
    "uniqueid",
    "reqid",
    "local-port",
    "remote-port",
    "encr-keysize",
    "integ-keysize",
    "established",
    "rekey-time",
    "reauth-time",
    "life-time",
    "install-time",
    "bytes-in",
    "packets-in",
    "use-in",
    "bytes-out",
    "packets-out",
    "use-out",
    "bytes-total-in",
    "packets-total-in",
    "bytes-total-out",
    "packets-total-out",
    "rekey-bytes",
    "life-bytes",
    "rekey-packets",
    "life-packets",
    "generation",
    "local_port",
    "remote_port",
    "reauth_time",
    "rekey_time",
    "rekey_bytes",
    "rekey_packets",
    "dpd_delay",
    "dpd_timeout",
    "priority",
    "matches",
    "terminated",
    "total",
    "idle",
    "critical",
    "high",
    "medium",
    "low",
    "scheduled",
    "half-open",
    "sbrk",
    "mmap",
    "used",
    "free",
    "level",
    "thread",
    "ikesa-uniqueid",
    "retry-in",
    "time",
    "cpu",
    "allocs",
    "port",
    "source-port",
    "size",
    "notes",
    "errors",
    "warnings",
    "sa-table",
    "policy-table",
    "ike-uniqueid",
    "lineage",
    "generations",
    "first",
    "installed",
    "removed",
    "closed",
];

/// A message as an object.
#[must_use]
pub fn json(message: &Message) -> Json {
    Json::Object(object(message))
}

/// The first section of an event as an object, with the section's name as `key` in front.
#[must_use]
pub fn named_json(message: &Message, key: &str) -> Option<Json> {
    let (name, content) = message.sections().next()?;
    let mut out = Map::new();
    out.insert(key.to_owned(), Json::from(name));
    out.extend(object(content));
    Some(Json::Object(out))
}

fn object(message: &Message) -> Map<String, Json> {
    let one = |element: &Element| match element {
        Element::KeyValue(name, value) => (name.clone(), scalar(name, &show(value))),
        Element::List(name, items) => (name.clone(), items.iter().map(|item| Json::from(show(item))).collect()),
        Element::Section(name, content) => (name.clone(), json(content)),
    };
    message.elements().iter().map(one).collect()
}

/// Whether the values of a key are decimal numbers.
fn is_number(key: &str) -> bool {
    NUMBERS.contains(&key) || Counter::ALL.iter().any(|counter| counter.name() == key)
}

fn scalar(key: &str, text: &str) -> Json {
    match text.parse::<i64>() {
        Ok(number) if is_number(key) => Json::from(number),
        Ok(_) | Err(_) => match text {
            "yes" => Json::Bool(true),
            "no" if key != "hw-offload" => Json::Bool(false),
            _ => Json::from(text),
        },
    }
}
