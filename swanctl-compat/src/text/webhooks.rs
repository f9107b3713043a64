//! `cygnet webhook`: webhooks and deliveries, one line each.

use super::history::{line, moment};
use super::{field, joined, optional, printable};
use crate::vici::{Element, Message};

/// One webhook in one line: `ops  up  https://hooks.example/x  3 waiting, 0 dead  120 delivered, 2 failed (tcp 2)  last ...`.
#[must_use]
pub fn cygnet_webhook(event: &Message) -> String {
    let Some((name, webhook)) = event.sections().next() else { return String::new() };
    let state = match optional(webhook, "reason") {
        Some(reason) => format!("{} since {}: {reason}", field(webhook, "state"), moment(webhook, "disabled-since")),
        None => field(webhook, "state"),
    };
    line(&[
        printable(name).into_owned(),
        state,
        field(webhook, "url"),
        only(webhook),
        queue(webhook),
        counts(webhook),
        last(webhook, "last-success", "last delivered"),
        last(webhook, "last-failure", "last failed"),
        optional(webhook, "last-error").unwrap_or_default(),
    ])
}

fn only(webhook: &Message) -> String {
    let parts: Vec<String> = [("events", "only"), ("connections", "of")]
        .iter()
        .filter_map(|(key, word)| {
            joined(webhook, key).filter(|list| !list.is_empty()).map(|list| format!("{word} {list}"))
        })
        .collect();
    parts.join(" ")
}

fn queue(webhook: &Message) -> String {
    match optional(webhook, "waiting") {
        Some(waiting) => format!("{waiting} waiting, {} dead", field(webhook, "dead")),
        None => "the history database does not say what waits".into(),
    }
}

fn counts(webhook: &Message) -> String {
    if field(webhook, "attempts") == "0" {
        return String::new();
    }
    let failures = webhook.get_section("failures").map(Message::elements).unwrap_or_default();
    let count = |class: &Element| Some((printable(class.name()).into_owned(), class.value()?.as_str()?.parse().ok()?));
    let by_class: Vec<(String, u64)> = failures.iter().filter_map(count).collect();
    let failed: u64 = by_class.iter().map(|(_, count)| count).sum();
    let classes: Vec<String> = by_class.iter().map(|(class, count)| format!("{class} {count}")).collect();
    let classes = if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    format!("{} delivered, {failed} failed{classes}", field(webhook, "delivered"))
}

fn last(webhook: &Message, key: &str, words: &str) -> String {
    let time = moment(webhook, key);
    if time.is_empty() { time } else { format!("{words} {time}") }
}

/// One delivery in one line: time, identity, event and connection, webhook, state, attempts, and what comes next or went wrong.
#[must_use]
pub fn cygnet_delivery(event: &Message) -> String {
    let Some((_, delivery)) = event.sections().next() else { return String::new() };
    let attempts = field(delivery, "attempts");
    let plural = if attempts == "1" { "" } else { "s" };
    let about = [Some(field(delivery, "type")), optional(delivery, "connection")];
    line(&[
        moment(delivery, "time"),
        field(delivery, "event"),
        about.into_iter().flatten().collect::<Vec<_>>().join(" "),
        format!("to {}", field(delivery, "name")),
        field(delivery, "state"),
        format!("{attempts} attempt{plural}"),
        last(delivery, "delivered", "at"),
        last(delivery, "due", "next at"),
        optional(delivery, "last-error").unwrap_or_default(),
    ])
}

/// What became of a test, in one line.
#[must_use]
pub fn cygnet_webhook_tried(name: &str, answer: &Message) -> String {
    let name = printable(name);
    let id = optional(answer, "id").map(|id| format!("  webhook-id {id}")).unwrap_or_default();
    let ms = field(answer, "time").parse().map(|micros: u64| micros as f64 / 1000.0).unwrap_or_default();
    if answer.is_yes("success") {
        return format!("{name}: delivered, the receiver answered {} after {ms:.1} ms{id}\n", field(answer, "status"));
    }
    let what =
        optional(answer, "failed").map(|class| format!("failed at {class} after {ms:.1} ms: ")).unwrap_or_default();
    format!("{name}: {what}{}{id}\n", field(answer, "errmsg"))
}
