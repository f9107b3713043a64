//! `--dry-run`: one line for each connection.

use std::fmt::Write as _;

use super::{field, joined, optional, printable};
use crate::vici::Message;

/// SAs that an answer to `cygnet-plan-conn` or `cygnet-plan-unload` says would not go on: those that restart and those that end.
#[must_use]
pub fn disturbed(answer: &Message) -> (u32, u32) {
    let number = |key: &str| field(answer, key).parse().unwrap_or(0);
    (number("restart"), number("end"))
}

/// One connection in one line: `unchanged`, `updated, SAs stay`, `replaced, N SAs restart`, `new` or `removed`, with what else is to know.
#[must_use]
pub fn forecast(name: &str, answer: &Message) -> String {
    let change = field(answer, "change");
    let mut line = format!("{}: {change}", printable(name));
    let (restart, end) = disturbed(answer);
    let stays = change == "updated" || optional(answer, "stay").is_some_and(|count| count != "0");
    match (restart, end) {
        (0, 0) if stays => line.push_str(", SAs stay"),
        (0, 0) => {}
        (0, end) => _ = write!(line, ", {} end", sas(end)),
        (restart, 0) => _ = write!(line, ", {} restart", sas(restart)),
        (restart, end) => _ = write!(line, ", {} restart, {} end", sas(restart), sas(end)),
    }
    let details = details(answer);
    if !details.is_empty() {
        _ = write!(line, " ({details})");
    }
    line + "\n"
}

fn sas(count: u32) -> String {
    format!("{count} {}", if count == 1 { "SA" } else { "SAs" })
}

/// What an update consists of.
fn details(answer: &Message) -> String {
    let settings = answer.is_yes("settings").then(|| "settings".to_owned());
    let children = ["changed", "added", "removed"];
    let children = children.iter().filter_map(|key| joined(answer, key).map(|names| format!("{key} {names}")));
    settings.into_iter().chain(children).collect::<Vec<_>>().join("; ")
}
