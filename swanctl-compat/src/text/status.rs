//! `cygnet status`: one line per configured child. `cygnet backend-sas`: one line per SA of the data path.

use serde_json::Value as Json;

use super::history::When;
use super::{field, json, optional, printable};
use crate::vici::Message;

/// One child in one line: `site-b/net  up  offload no` or `site-b/net  retry in 17s at 14:03:20 CET, 4 failures  last: no secret for ...
/// (12 minutes ago)`. `now` is the wall clock in seconds since the epoch; `width` the width of the name column; `when` shows the time of day of a moment,
/// with its zone.
#[must_use]
pub fn cygnet_child(event: &Message, now: u64, width: usize, when: When<'_>) -> String {
    let Some((name, child)) = event.sections().next() else { return String::new() };
    let mut parts = vec![format!("{:<width$}", printable(name)), state(child, when)];
    if let Some(mode) = optional(child, "hw-offload") {
        parts.push(offload(child, &mode));
    }
    if let Some(cause) = child.get_section("last-cause") {
        let age = field(cause, "time").parse().map(|time| age(now.saturating_sub(time))).unwrap_or_default();
        parts.push(format!("last: {} ({age} ago)", field(cause, "text")));
    }
    format!("{}\n", parts.join("  ").trim_end())
}

/// One SA of the data path in one line: `c1a2b3c4  in   site-b/net{12}  INSTALLED  75 packets, 9000 bytes, 3s ago`.
#[must_use]
pub fn cygnet_backend_sa(event: &Message) -> String {
    let Some((_, sa)) = event.sections().next() else { return String::new() };
    let f = |key| field(sa, key);
    let owner = match sa.is_yes("orphan") {
        true => "-    orphan: no CHILD SA knows of it".to_owned(),
        false => {
            format!("{:<3}  {}/{}{{{}}}  {}", f("direction"), f("connection"), f("child"), f("uniqueid"), f("state"))
        }
    };
    let used = optional(sa, "use").map(|seconds| format!(", {seconds}s ago")).unwrap_or_default();
    format!("{}  {owner}  {} packets, {} bytes{used}\n", f("spi"), f("packets"), f("bytes"))
}

fn state(child: &Message, when: When<'_>) -> String {
    match (field(child, "state").as_str(), optional(child, "retry-in"), optional(child, "reason")) {
        ("retry", Some(seconds), _) => retry(child, &seconds, when),
        ("refused", _, Some(reason)) => format!("refused: {reason}"),
        (state, ..) => format!("{state:<10}"),
    }
}

fn retry(child: &Message, seconds: &str, when: When<'_>) -> String {
    let at = optional(child, "retry-at").and_then(|at| at.parse::<u64>().ok()).map(|at| when(at.saturating_mul(1_000)));
    let failures = match optional(child, "failures").as_deref() {
        None => String::new(),
        Some("1") => ", 1 failure".to_owned(),
        Some(count) => format!(", {count} failures"),
    };
    format!("retry in {seconds}s{}{failures}", at.map(|at| format!(" at {at}")).unwrap_or_default())
}

fn offload(child: &Message, mode: &str) -> String {
    let simulated = if child.is_yes("simulated") { " (simulated)" } else { "" };
    match optional(child, "offload-dev") {
        Some(device) => format!("offload {mode} on {device}{simulated}"),
        None => format!("offload {mode}"),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The child, or the SA, as an object.
#[must_use]
pub fn cygnet_json(event: &Message) -> Option<Json> {
    event.sections().next().map(|(_, child)| json(child))
}
