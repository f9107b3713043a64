//! Messages as JSON: sections are objects, lists arrays, values strings; known counters, times and ids are numbers, known flags true or false.

use ike_model::Counter;
use serde_json::{Map, Value as Json};

use super::show_lines as show;
use crate::vici::{Element, Message};

/// Keys whose values are decimal numbers, besides the counters of messages; sorted.
const NUMBERS: [&str; 106] = [
    "allocs",
    "attempts",
    "bytes",
    "bytes-in",
    "bytes-out",
    "bytes-total-in",
    "bytes-total-out",
    "closed",
    "cpu",
    "critical",
    "dead",
    "delivered",
    "disabled-since",
    "dpd_delay",
    "dpd_timeout",
    "due",
    "encr-keysize",
    "end",
    "errors",
    "established",
    "failures",
    "first",
    "free",
    "generation",
    "generations",
    "given-up",
    "half-open",
    "high",
    "idle",
    "ike-uniqueid",
    "ikesa-uniqueid",
    "in-flight",
    "inactivity",
    "install-time",
    "installed",
    "integ-keysize",
    "keyingtries",
    "last-failure",
    "last-latency",
    "last-success",
    "left",
    "level",
    "life-bytes",
    "life-packets",
    "life-time",
    "life_bytes",
    "life_packets",
    "life_time",
    "lineage",
    "local-port",
    "local_port",
    "low",
    "matches",
    "medium",
    "mmap",
    "notes",
    "offline",
    "online",
    "over_time",
    "packets",
    "packets-in",
    "packets-out",
    "packets-total-in",
    "packets-total-out",
    "policy-table",
    "port",
    "priority",
    "rand_bytes",
    "rand_packets",
    "rand_time",
    "reauth-time",
    "reauth_time",
    "rekey-bytes",
    "rekey-packets",
    "rekey-time",
    "rekey_bytes",
    "rekey_packets",
    "rekey_time",
    "remote-port",
    "remote_port",
    "removed",
    "replay_window",
    "reqid",
    "restart",
    "retry-at",
    "retry-in",
    "sa-table",
    "sbrk",
    "scheduled",
    "sequence",
    "size",
    "source-port",
    "status",
    "stay",
    "terminated",
    "thread",
    "time",
    "total",
    "uniqueid",
    "until",
    "use",
    "use-in",
    "use-out",
    "used",
    "waiting",
    "warnings",
];

/// Keys whose values are `yes` or `no`; sorted. Of others, a connection's name for one, such a word is text.
const FLAGS: [&str; 26] = [
    "complete",
    "copy_df",
    "copy_ecn",
    "delivered",
    "encap",
    "esn",
    "has_privkey",
    "hostaccess",
    "initiator",
    "interface-ids",
    "mark_in_sa",
    "marks",
    "mobike",
    "nat-any",
    "nat-fake",
    "nat-local",
    "nat-remote",
    "orphan",
    "per-cpu-sas",
    "policies",
    "ppk",
    "ppk_required",
    "settings",
    "simulated",
    "success",
    "up",
];

/// Sections whose values are numbers by kind.
const TALLIES: &str = "failures";

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
        Element::Section(name, content) if name == TALLIES => (name.clone(), tallies(content)),
        Element::Section(name, content) => (name.clone(), json(content)),
    };
    message.elements().iter().map(one).collect()
}

fn tallies(message: &Message) -> Json {
    let counts = message.elements().iter().filter_map(|element| Some((element.name(), show(element.value()?))));
    Json::Object(counts.map(|(name, text)| (name.to_owned(), number(&text).unwrap_or(Json::from(text)))).collect())
}

/// Whether the values of a key are decimal numbers.
fn is_number(key: &str) -> bool {
    NUMBERS.binary_search(&key).is_ok() || Counter::ALL.iter().any(|counter| counter.name() == key)
}

/// Times may be negative, counters large.
fn number(text: &str) -> Option<Json> {
    text.parse::<i64>().map(Json::from).or_else(|_| text.parse::<u64>().map(Json::from)).ok()
}

fn scalar(key: &str, text: &str) -> Json {
    match text {
        "yes" | "no" if FLAGS.binary_search(&key).is_ok() => Json::Bool(text == "yes"),
        _ => number(text).filter(|_| is_number(key)).unwrap_or_else(|| Json::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_types() {
        assert!(NUMBERS.is_sorted() && FLAGS.is_sorted());
        let message = Message::new()
            .with("connection", "no")
            .with("msg", "yes")
            .with("initiator", "yes")
            .with("mobike", "no")
            .with("fragmentation", "no")
            .with("bytes-in", "18446744073709551615")
            .with("rekey-time", "-3")
            .with("life_time", "3960")
            .with("replay_window", "many")
            .with("local-id", "42");
        let mut failures = Message::new().with("tcp", "2");
        failures.set("of a new kind", "0");
        let mut message = message;
        message.section("failures", failures);
        let expected = serde_json::json!({
            "connection": "no",
            "msg": "yes",
            "initiator": true,
            "mobike": false,
            "fragmentation": "no",
            "bytes-in": u64::MAX,
            "rekey-time": -3,
            "life_time": 3960,
            "replay_window": "many",
            "local-id": "42",
            "failures": { "tcp": 2, "of a new kind": 0 },
        });
        assert_eq!(json(&message), expected);
    }
}
