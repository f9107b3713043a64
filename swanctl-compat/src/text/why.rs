//! `cygnet why`: one line for each step, then one sentence.

use serde_json::{Map, Value as Json};

use super::{field, json, printable};
use crate::vici::Message;

/// Width of the column of states, and of that of steps.
const WIDTHS: (usize, usize) = (6, 13);

/// One step in one line: `ok      source         10.1.0.10 is on the subnet of lan0`.
#[must_use]
pub fn cygnet_step(event: &Message) -> String {
    let Some((name, step)) = event.sections().next() else { return String::new() };
    let (state, text) = (field(step, "state"), field(step, "text"));
    let (first, second) = WIDTHS;
    format!("{state:<first$}  {:<second$}  {text}\n", printable(name))
}

/// The sentence at the end.
#[must_use]
pub fn cygnet_verdict(answer: &Message) -> String {
    format!("{}\n", field(answer, "sentence"))
}

/// Packet, steps and verdict as one object.
#[must_use]
pub fn cygnet_why_json(question: &Message, steps: &[Message], answer: &Message) -> Json {
    let mut out = Map::new();
    out.insert("packet".into(), json(question));
    let steps = steps.iter().filter_map(|event| event.sections().next());
    out.insert("steps".into(), steps.map(|(_, step)| json(step)).collect());
    if let Json::Object(verdict) = json(answer) {
        out.extend(verdict.into_iter().filter(|(key, _)| key != "success"));
    }
    Json::Object(out)
}
