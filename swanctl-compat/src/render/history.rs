//! `cygnet-history` and `cygnet-events`: the past as messages.

use ike_model::history::{ChildTotal, Generation, PastIkeSa};
use ike_model::snapshot::Carried;

use super::sas::set_some;
use crate::names;
use crate::vici::Message;

/// The `cygnet-total` event: `CONNECTION/CHILD { ... }`.
///
/// Fields: `gateway`, `connection`, `child`, `up`, `generations`, `first` (milliseconds since the epoch), and what they have carried:
/// `bytes-in packets-in bytes-out packets-out`.
#[must_use]
pub fn cygnet_total(total: &ChildTotal) -> Message {
    let mut m = Message::new();
    m.set("gateway", total.gateway.as_str());
    m.set("connection", total.connection.as_str());
    m.set("child", total.child.as_str());
    m.set_if("up", total.up);
    m.set_display("generations", total.generations);
    m.set_display("first", total.first_ms);
    carried(&mut m, "", total.carried_in, total.carried_out);
    named(&total.connection, &total.child, m)
}

/// The `cygnet-generation` event: `CONNECTION/CHILD { ... }`.
///
/// Fields of one generation of a CHILD SA under the names that `list-sas` has for them, its limits (`rekey-*`, `life-*`, the time in seconds),
/// `boot-id` of the daemon's run, `ike-uniqueid`, `lineage` (number of the first generation of the same line of rekeys), `installed` and `removed`
/// (milliseconds since the epoch), `cause` and `cause-text` of its end.
#[must_use]
pub fn cygnet_generation(row: &Generation) -> Message {
    let mut m = Message::new();
    for (key, value) in [("gateway", &row.gateway), ("boot-id", &row.boot_id), ("connection", &row.connection)] {
        m.set(key, value.as_str());
    }
    m.set("child", row.child.as_str());
    m.set_display("uniqueid", row.unique_id);
    m.set_display("ike-uniqueid", row.ike_unique_id);
    m.set_display("lineage", row.lineage);
    m.set_display("generation", row.generation);
    m.set_display("reqid", row.reqid);
    m.set("mode", row.mode.to_ascii_uppercase());
    m.set_if("encap", row.encap);
    for (key, spi) in [("spi-in", row.spi_in), ("spi-out", row.spi_out)] {
        set_some(&mut m, key, spi.map(|spi| format!("{spi:08x}")));
    }
    if let Some(chosen) = row.algorithms {
        m.set("encr-alg", names::encryption(chosen.encryption));
        set_some(&mut m, "encr-keysize", chosen.key_bits);
        set_some(&mut m, "integ-alg", chosen.integrity.map(names::integrity));
        set_some(&mut m, "dh-group", chosen.key_exchange.map(names::key_exchange));
        if chosen.esn {
            m.set("esn", "1");
        }
    }
    m.set("local-ts", row.local_ts.as_str());
    m.set("remote-ts", row.remote_ts.as_str());
    m.set("backend", row.backend.as_str());
    m.set("hw-offload", row.offload.as_str());
    set_some(&mut m, "offload-dev", row.device.as_deref());
    m.set_if("simulated", row.simulated);
    for (which, limit) in [("rekey", row.limits.soft), ("life", row.limits.hard)] {
        set_some(&mut m, &format!("{which}-time"), limit.time.map(|time| time.as_secs()));
        set_some(&mut m, &format!("{which}-bytes"), limit.bytes);
        set_some(&mut m, &format!("{which}-packets"), limit.packets);
    }
    carried(&mut m, "", row.carried_in, row.carried_out);
    carried(&mut m, "-total", row.total_in, row.total_out);
    m.set_display("installed", row.installed_ms);
    set_some(&mut m, "removed", row.removed_ms);
    set_some(&mut m, "cause", row.cause.as_deref());
    set_some(&mut m, "cause-text", row.cause_text.as_deref());
    named(&row.connection, &row.child, m)
}

/// The `cygnet-past-ike` event: `CONNECTION { ... }`.
///
/// Fields of one IKE SA under the names that `list-sas` has for them, `boot-id` of the daemon's run, `generation`, `established` and `closed`
/// (milliseconds since the epoch), `cause` and `cause-text` of its end.
#[must_use]
pub fn cygnet_past_ike(row: &PastIkeSa) -> Message {
    let mut m = Message::new();
    for (key, value) in [("gateway", &row.gateway), ("boot-id", &row.boot_id), ("connection", &row.connection)] {
        m.set(key, value.as_str());
    }
    m.set_display("uniqueid", row.unique_id);
    m.set_display("generation", row.generation);
    m.set_if("initiator", row.initiator);
    for (key, value) in [
        ("initiator-spi", &row.initiator_spi),
        ("responder-spi", &row.responder_spi),
        ("local", &row.local),
        ("remote", &row.remote),
        ("local-id", &row.local_id),
        ("remote-id", &row.remote_id),
    ] {
        m.set(key, value.as_str());
    }
    if let Some(chosen) = row.algorithms {
        m.set("encr-alg", names::encryption(chosen.encryption));
        set_some(&mut m, "encr-keysize", chosen.key_bits);
        set_some(&mut m, "integ-alg", chosen.integrity.map(names::integrity));
        m.set("prf-alg", names::prf(chosen.prf));
        m.set("dh-group", names::key_exchange(chosen.key_exchange));
    }
    m.set_display("established", row.established_ms);
    set_some(&mut m, "closed", row.closed_ms);
    set_some(&mut m, "cause", row.cause.as_deref());
    set_some(&mut m, "cause-text", row.cause_text.as_deref());
    let mut message = Message::new();
    message.section(row.connection.as_str(), m);
    message
}

/// Octets of one value at most; VICI counts them in 16 bits.
const PIECE: usize = 60_000;
/// Octets of a record that still goes into one packet.
const RECORD_MAX: usize = 7 * PIECE;

/// The `cygnet-event` event: `ulid`, and the whole `record` as JSON; one that is too long for a value is the list of its `pieces` instead. Of one
/// that is too long for a packet, an IKE SA with hundreds of children, the children are left out.
#[must_use]
pub fn cygnet_event(ulid: &str, record: &str) -> Message {
    let mut message = Message::new().with("ulid", ulid);
    if record.len() <= PIECE {
        message.set("record", record);
        return message;
    }
    let shortened;
    let mut rest = if record.len() > RECORD_MAX {
        shortened = without_children(record);
        shortened.as_str()
    } else {
        record
    };
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    message.list("pieces", pieces);
    message
}

fn without_children(record: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<serde_json::Value>(record) else { return String::new() };
    for key in ["ike", "old", "new"] {
        if let Some(ike) = json.get_mut(key).and_then(serde_json::Value::as_object_mut) {
            ike.remove("children");
        }
    }
    json.to_string()
}

/// The answer to a question about the past: `complete=yes` when all that happened before it could be found.
#[must_use]
pub fn complete(complete: bool) -> Message {
    let mut answer = Message::new();
    answer.set_if("complete", complete);
    answer
}

fn carried(m: &mut Message, infix: &str, inbound: Carried, outbound: Carried) {
    for (direction, carried) in [("in", inbound), ("out", outbound)] {
        m.set_display(format!("bytes{infix}-{direction}"), carried.bytes);
        m.set_display(format!("packets{infix}-{direction}"), carried.packets);
    }
}

fn named(connection: &str, child: &str, content: Message) -> Message {
    let mut message = Message::new();
    message.section(format!("{connection}/{child}"), content);
    message
}
