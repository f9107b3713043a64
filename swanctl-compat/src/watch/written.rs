//! The view as lines for a pipe or a file, and as JSON.

use serde_json::{Value as Json, json as object};

use super::{Choice, Rate, Row, View};
use crate::text::printable;

/// One line for each child, each with the time: what `tee` and `grep` can use.
#[must_use]
pub fn lines(view: &View, choice: Choice, time: &str) -> String {
    view.chosen(choice).into_iter().map(|row| line(row, time)).collect()
}

/// The line that stands in their place while the daemon cannot be reached.
#[must_use]
pub fn unreachable_line(time: &str, why: &str) -> String {
    format!("{time} daemon not reachable: {}\n", printable(why))
}

fn line(row: &Row, time: &str) -> String {
    let mut parts = vec![time.to_owned(), printable(&row.name).into_owned(), printable(&row.state).into_owned()];
    parts.extend(row.retry_in.map(|seconds| format!("in {seconds}s")));
    if row.sas > 0 {
        parts.push(format!("SAs {}", row.sas));
        parts.push(match row.rate {
            Some(Rate { bytes_in, packets_in, bytes_out, packets_out }) => {
                format!("in {bytes_in} B/s {packets_in} pkt/s out {bytes_out} B/s {packets_out} pkt/s")
            }
            None => "in - out -".into(),
        });
    }
    let left = row.left;
    if left.seconds.is_some() || left.bytes.is_some() || left.packets.is_some() {
        let some = |value: Option<String>, unit: &str| value.map(|value| format!("{value}{unit}"));
        let seconds = some(left.seconds.map(|value| value.to_string()), "s");
        let bytes = some(left.bytes.map(|value| value.to_string()), " B");
        let packets = some(left.packets.map(|value| value.to_string()), " pkt");
        let all: Vec<String> = [seconds, bytes, packets].into_iter().flatten().collect();
        parts.push(format!("rekey in {}", all.join(" or ")));
    }
    if !row.mode.is_empty() {
        parts.push(format!("offload {}", printable(&row.mode)));
    }
    if let Some((text, age)) = &row.trouble {
        let age = age.map(|age| format!(" ({age}s ago)")).unwrap_or_default();
        parts.push(format!("last: {}{age}", printable(text)));
    }
    format!("{}\n", parts.join(" "))
}

/// One object for a look.
#[must_use]
pub fn json(view: &View, choice: Choice) -> Json {
    let children: Vec<Json> = view.chosen(choice).into_iter().map(child).collect();
    object!({ "time": view.wall(), "reachable": true, "children": children })
}

/// The object that stands in its place while the daemon cannot be reached.
#[must_use]
pub fn unreachable_json(wall: u64, why: &str) -> Json {
    object!({ "time": wall, "reachable": false, "error": why })
}

fn child(row: &Row) -> Json {
    let rate = row.rate.map(|rate| {
        object!({
            "bytes-in": rate.bytes_in, "packets-in": rate.packets_in,
            "bytes-out": rate.bytes_out, "packets-out": rate.packets_out,
        })
    });
    let trouble = row.trouble.as_ref().map(|(text, age)| object!({ "text": text, "age": age }));
    object!({
        "name": row.name,
        "state": row.state,
        "retry-in": row.retry_in,
        "sas": row.sas,
        "per-second": rate,
        "rekey-in": { "seconds": row.left.seconds, "bytes": row.left.bytes, "packets": row.left.packets },
        "offload": Some(&row.mode).filter(|mode| !mode.is_empty()),
        "trouble": trouble,
    })
}
