//! `cygnet-why`: the steps of a packet and the verdict.

use ike_model::why::{Report, State, Step};

use crate::vici::Message;

/// The `cygnet-step` event: `STEP { state, text, code, fix }`; the state is `ok`, `note` or `broken`, and only a broken step has `code` and `fix`.
#[must_use]
pub fn cygnet_step(step: &Step) -> Message {
    let mut m = Message::new();
    m.set("step", step.name.name());
    m.set("state", step.state.name());
    m.set("text", step.text.as_str());
    if let Some(code) = step.code {
        m.set("code", code.name());
        m.set("fix", step.fix.as_str());
    }
    let mut message = Message::new();
    message.section(step.name.name(), m);
    message
}

/// The answer: `direction` (`outbound` or `inbound`), `delivered`, `sentence`, and when it is not delivered `broken` (the first broken step),
/// `code` and `fix`.
#[must_use]
pub fn cygnet_why(report: &Report) -> Message {
    let broken = report.broken();
    let mut m = Message::new().with("success", "yes").with("direction", report.direction.name());
    m.set("delivered", if broken.is_none() { "yes" } else { "no" });
    if let Some(Step { name, code, fix, .. }) = broken {
        m.set("broken", name.name());
        m.set("code", code.map(ike_model::why::Code::name).unwrap_or_default());
        m.set("fix", fix.as_str());
    }
    let notes = report.steps.iter().filter(|step| step.state == State::Note).count();
    m.set_display("notes", notes);
    m.set("sentence", report.sentence());
    m
}
