//! Holds a connection's section against the key table.

use super::finding::{Finding, FindingKind};
use crate::keys::{Key, Kind, Misfit, Scope, Status};
use crate::settings::did_you_mean;
use crate::vici::{Element, Message, Value};

/// Everything that the key table says about a connection.
pub(super) fn connection(path: &str, content: &Message) -> Vec<Finding> {
    let mut findings = Vec::new();
    section(Scope::Connection, path, content, &mut findings);
    findings
}

/// Whether a section of a connection is an authentication round, and whose.
pub(super) fn auth_scope(name: &str) -> Option<Scope> {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts("local") {
        Some(Scope::Local)
    } else if starts("remote") {
        Some(Scope::Remote)
    } else {
        None
    }
}

/// Names of sections compare without regard to case, those of keys do not.
pub(super) fn is_children(name: &str) -> bool {
    name.eq_ignore_ascii_case("children")
}

fn section(scope: Scope, path: &str, content: &Message, findings: &mut Vec<Finding>) {
    for element in content.elements() {
        let path = format!("{path}.{}", element.name());
        match element {
            Element::KeyValue(name, value) => single(scope, name, &path, value, findings),
            Element::List(name, items) => list(scope, name, &path, items, findings),
            Element::Section(name, content) => subsection(scope, name, &path, content, findings),
        }
    }
}

fn subsection(scope: Scope, name: &str, path: &str, content: &Message, findings: &mut Vec<Finding>) {
    match (scope, auth_scope(name)) {
        (Scope::Connection, Some(round)) => section(round, path, content, findings),
        (Scope::Connection, None) if is_children(name) => children(path, content, findings),
        (Scope::Local, _) if name.starts_with("cert") => certificates(name, path, findings),
        (Scope::Remote, _) if name.starts_with("cert") || name.starts_with("cacert") => {
            certificates(name, path, findings)
        }
        _ => {
            let help = did_you_mean(name, scope.sections().iter().copied()).map(|s| format!("did you mean `{s}`?"));
            findings.push(Finding::new(FindingKind::InvalidSection(name.to_owned()), path).with_help(help));
        }
    }
}

fn certificates(name: &str, path: &str, findings: &mut Vec<Finding>) {
    let finding = Finding::new(FindingKind::Unsupported(name.to_owned()), path);
    let help = Some("use `auth = psk`".to_owned());
    findings.push(finding.because("certificates and public keys are not supported").with_help(help));
}

fn children(path: &str, content: &Message, findings: &mut Vec<Finding>) {
    for element in content.elements() {
        let name = element.name();
        let path = format!("{path}.{name}");
        match element {
            Element::Section(_, child) => section(Scope::Child, &path, child, findings),
            Element::KeyValue(..) | Element::List(..) => {
                let help = Some("`children` holds one section per child".to_owned());
                findings.push(Finding::new(FindingKind::UnknownOption(name.to_owned()), path).with_help(help));
            }
        }
    }
}

fn single(scope: Scope, name: &str, path: &str, value: &Value, findings: &mut Vec<Finding>) {
    match scope.key(name) {
        Some(key) if !key.list => item(key, name, path, value, findings),
        Some(_) => findings.push(wrong_shape(name, path, "it is a list")),
        None => findings.push(unknown(scope, name, path)),
    }
}

fn list(scope: Scope, name: &str, path: &str, items: &[Value], findings: &mut Vec<Finding>) {
    match scope.key(name) {
        Some(key) if key.list => {
            for (index, value) in items.iter().enumerate() {
                item(key, name, &format!("{path}[{index}]"), value, findings);
            }
        }
        Some(_) => findings.push(wrong_shape(name, path, "it is a single value, not a list")),
        None => findings.push(unknown(scope, name, path)),
    }
}

fn unknown(scope: Scope, name: &str, path: &str) -> Finding {
    let names = scope.keys().iter().map(|key| key.name);
    let help = did_you_mean(name, names).map(|key| format!("did you mean `{key}`?"));
    Finding::new(FindingKind::UnknownOption(name.to_owned()), path).with_help(help)
}

fn wrong_shape(name: &str, path: &str, reason: &str) -> Finding {
    Finding::new(FindingKind::UnknownOption(name.to_owned()), path).because(reason)
}

/// One value, or one item of a list.
fn item(key: &Key, name: &str, path: &str, value: &Value, findings: &mut Vec<Finding>) {
    let invalid = |misfit: Misfit| {
        let kind = if misfit.unsupported { FindingKind::Unsupported } else { FindingKind::InvalidValue };
        let finding = Finding::new(kind(name.to_owned()), path).because(misfit.reason).with_help(misfit.help);
        Finding { fragment: misfit.fragment, ..finding }
    };
    // Of a file the message has the content, which need not be text.
    let text = if key.kind == Kind::File { Some("") } else { value.as_str() };
    let Some(text) = text else {
        findings.push(Finding::new(FindingKind::InvalidValue(name.to_owned()), path).because("expected UTF-8 text"));
        return;
    };
    if let Err(misfit) = key.kind.check(text) {
        findings.push(invalid(misfit));
        return;
    }
    match key.status {
        Status::Supported | Status::ByDevice => findings.extend(left_out(key.kind, name, path, text)),
        Status::NoEffect { quiet, .. } if is_harmless(key.kind, text, quiet) => {}
        Status::NoEffect { reason, .. } => {
            findings.push(Finding::new(FindingKind::NoEffect(name.to_owned()), path).because(reason));
        }
        Status::Refused { harmless, reason } => {
            if !is_harmless(key.kind, text, harmless) {
                findings.push(invalid(Misfit::unsupported(reason, None)));
            }
        }
    }
}

/// Equal as a value, not only as text: `false` is no different from `no`.
fn is_harmless(kind: Kind, text: &str, harmless: &[&str]) -> bool {
    let equal = |value: &&str| {
        if kind == Kind::Bool {
            crate::units::boolean(value) == crate::units::boolean(text)
        } else {
            value.eq_ignore_ascii_case(text)
        }
    };
    harmless.iter().any(equal)
}

/// Words of a proposal that this build leaves out.
fn left_out(kind: Kind, name: &str, path: &str, text: &str) -> Option<Finding> {
    let words = kind.left_out(text);
    let first = words.first()?.clone();
    let reason =
        format!("{} is left out, being not supported or of no use here; the rest is offered", words.join(", "));
    let finding = Finding::new(FindingKind::Doubtful(name.to_owned()), path).because(reason);
    Some(Finding { fragment: Some(first), ..finding })
}
