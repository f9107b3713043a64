//! Two answers to one command, key by key.

use std::fmt;

use swanctl_compat::vici::{Element, Message};

/// One command and what came back: events and the answer, each with its name.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The command, and what it was about.
    pub(super) name: String,
    pub(super) answers: Vec<(String, Message)>,
}

/// How two answers differ at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only charon says this.
    Missing(String),
    /// Only Cygnet says this.
    Extra(String),
    /// Both say it, but not the same.
    Value(String, String),
    /// What both say comes in another order.
    Order(String, String),
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The command.
    pub(super) step: String,
    /// Where: `list-conn/a/local-1/id`.
    pub(super) path: String,
    pub(super) kind: Kind,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.step, self.path)?;
        match &self.kind {
            Kind::Missing(value) => write!(f, "missing, charon says {value}"),
            Kind::Extra(value) => write!(f, "only ours, {value}"),
            Kind::Value(theirs, ours) => write!(f, "charon says {theirs}, we say {ours}"),
            Kind::Order(theirs, ours) => write!(f, "order: charon {theirs}; we {ours}"),
        }
    }
}

/// All differences between two runs.
pub(super) fn steps(theirs: &[Step], ours: &[Step]) -> Vec<Difference> {
    let mut out = Vec::new();
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    named(&names(theirs), &names(ours), &mut out, "sequence", "", &|_| String::new());
    for step in theirs {
        if let Some(other) = ours.iter().find(|other| other.name == step.name) {
            answers(step, other, &mut out);
        }
    }
    out
}

/// What was said in the first refusal of a run.
pub(super) fn refusal(steps: &[Step]) -> Option<String> {
    let said = steps.iter().flat_map(|step| &step.answers);
    said.filter(|(_, message)| message.get_str("success") == Some("no"))
        .map(|(_, message)| message.get_str("errmsg").unwrap_or_default().to_owned())
        .next()
}

/// The events of each kind are compared as they are numbered by their section, so that one that is missing does not shift the others.
fn answers(theirs: &Step, ours: &Step, out: &mut Vec<Difference>) {
    let label = |(name, message): &(String, Message)| {
        if name == "answer" {
            return name.clone();
        }
        let first = message.elements().iter().find_map(|element| match element {
            Element::Section(section, _) => Some(section.as_str()),
            Element::KeyValue(..) | Element::List(..) => None,
        });
        format!("{name} {}", first.unwrap_or_default())
    };
    let labels = |step: &Step| step.answers.iter().map(label).collect::<Vec<_>>();
    named(&labels(theirs), &labels(ours), out, &theirs.name, "", &|_| String::new());
    for answer in &theirs.answers {
        if let Some((_, other)) = ours.answers.iter().find(|other| label(other) == label(answer)) {
            messages(&answer.1, other, &theirs.name, &answer.0, out);
        }
    }
}

fn messages(theirs: &Message, ours: &Message, step: &str, path: &str, out: &mut Vec<Difference>) {
    let names = |message: &Message| message.elements().iter().map(|e| e.name().to_owned()).collect::<Vec<_>>();
    let text = |message: &Message, name: &str| {
        message.elements().iter().find(|element| element.name() == name).map(shown).unwrap_or_default()
    };
    let value = |name: &str| {
        let theirs = text(theirs, name);
        if theirs.is_empty() { text(ours, name) } else { theirs }
    };
    named(&names(theirs), &names(ours), out, step, path, &value);
    for element in theirs.elements() {
        let Some(other) = ours.elements().iter().find(|other| other.name() == element.name()) else { continue };
        let path = format!("{path}/{}", element.name());
        match (element, other) {
            (Element::Section(_, theirs), Element::Section(_, ours)) => messages(theirs, ours, step, &path, out),
            (theirs, ours) if theirs != ours => {
                out.push(Difference { step: step.to_owned(), path, kind: Kind::Value(shown(theirs), shown(ours)) });
            }
            _ => {}
        }
    }
}

/// Compares two sequences of names: what only one has, and the order of the rest.
fn named(
    theirs: &[String],
    ours: &[String],
    out: &mut Vec<Difference>,
    step: &str,
    path: &str,
    value: &dyn Fn(&str) -> String,
) {
    let mut say = |name: &str, kind| {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        out.push(Difference { step: step.to_owned(), path, kind });
    };
    for name in theirs.iter().filter(|name| !ours.contains(name)) {
        say(name, Kind::Missing(value(name)));
    }
    for name in ours.iter().filter(|name| !theirs.contains(name)) {
        say(name, Kind::Extra(value(name)));
    }
    let common =
        |all: &[String], other: &[String]| all.iter().filter(|name| other.contains(name)).cloned().collect::<Vec<_>>();
    let (theirs, ours) = (common(theirs, ours), common(ours, theirs));
    if theirs != ours {
        say("*", Kind::Order(theirs.join(" "), ours.join(" ")));
    }
}

fn shown(element: &Element) -> String {
    let text = |value: &swanctl_compat::vici::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => format!("{} octets", value.as_bytes().len()),
    };
    match element {
        Element::KeyValue(_, value) => format!("'{}'", text(value)),
        Element::List(_, items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        Element::Section(_, content) => {
            let parts: Vec<String> =
                content.elements().iter().map(|part| format!("{}={}", part.name(), shown(part))).collect();
            format!("{{{}}}", parts.join(" "))
        }
    }
}
