//! `cygnet doctor`: a table of devices, then one line for each thing looked at, and what to do below it.

use serde_json::{Map, Value as Json};

use super::{field, joined, json, optional};
use crate::vici::Message;

const HEADINGS: [&str; 9] = ["device", "state", "mode", "ESN", "UDP", "modes", "replay", "limits", "SAs"];

/// Devices rung by rung, each with its ciphers in a line of their own.
#[must_use]
pub fn cygnet_devices(events: &[Message]) -> String {
    let rungs: Vec<&Message> =
        events.iter().filter_map(|event| event.sections().next()).map(|(_, rung)| rung).collect();
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(rungs.iter().map(|rung| row(rung)));
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut ciphers = rungs.iter().map(|rung| joined(rung, "algorithms").unwrap_or_default());
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if number > 0 {
            text.push_str(&format!("  {}\n", ciphers.next().unwrap_or_default()));
        }
    }
    text
}

fn row(rung: &Message) -> [String; 9] {
    let list = |key| joined(rung, key).map(|all| all.replace(' ', ",")).filter(|all| !all.is_empty());
    let or = |text: Option<String>, instead: &str| text.unwrap_or_else(|| instead.to_owned());
    let mode = if rung.is_yes("simulated") { "mode (simulated)" } else { "mode" };
    [
        field(rung, "device"),
        field(rung, "state"),
        mode.replace("mode", &field(rung, "mode")),
        field(rung, "esn"),
        field(rung, "encap"),
        or(list("modes"), "none"),
        or(list("replay-windows"), "none"),
        or(list("limits"), "none"),
        or(optional(rung, "sa-table"), "unlimited"),
    ]
}

/// One line, and below it what to do: `warning  host       ...`.
#[must_use]
pub fn cygnet_check(event: &Message) -> String {
    let Some((_, check)) = event.sections().next() else { return String::new() };
    let f = |key| field(check, key);
    let mut text = format!("{:<7}  {:<9}  {}\n", f("level"), f("area"), f("text"));
    if let Some(fix) = optional(check, "fix") {
        text.push_str(&format!("{:<7}  {:<9}  -> {fix}\n", "", ""));
    }
    text
}

/// Devices, lines and counts as one object.
#[must_use]
pub fn cygnet_doctor_json(devices: &[Message], checks: &[Message], answer: &Message) -> Json {
    let contents = |events: &[Message]| -> Json {
        events.iter().filter_map(|event| event.sections().next()).map(|(_, content)| json(content)).collect()
    };
    let mut out = Map::new();
    out.insert("devices".into(), contents(devices));
    out.insert("checks".into(), contents(checks));
    if let Json::Object(counts) = json(answer) {
        out.extend(counts.into_iter().filter(|(key, _)| key != "success"));
    }
    Json::Object(out)
}
