//! The shape of the whole: root sections, references, repeated keys and sections, pools and authorities.

use std::collections::BTreeSet;

use crate::keys::{ROOT_SECTIONS, Scope, Status};
use crate::settings::{Diagnostic, Entry, Section, Settings, Span, View, did_you_mean};

pub(super) fn check(settings: &Settings, findings: &mut Vec<Diagnostic>) {
    let templates = referenced(settings.root());
    for section in settings.root().sections() {
        root_section(section, &templates, findings);
    }
    for name in ["pools", "authorities"] {
        if let Some(view) = settings.view().section(name) {
            unsupported(&view, findings);
        }
    }
    references(settings, settings.root(), findings);
    for root in ["connections", "secrets"] {
        if let Some(section) = settings.root().section(root) {
            repeated(settings, section, root, findings);
        }
    }
}

/// First names of all references.
fn referenced(section: &Section) -> BTreeSet<&str> {
    let mut out: BTreeSet<&str> =
        section.references().iter().filter_map(|r| r.path.first()).map(String::as_str).collect();
    for child in section.sections() {
        out.extend(referenced(child));
    }
    out
}

/// An unknown root section that looks like a known one and is no template.
fn root_section(section: &Section, templates: &BTreeSet<&str>, findings: &mut Vec<Diagnostic>) {
    let name = section.name();
    if ROOT_SECTIONS.contains(&name) || templates.contains(name) {
        return;
    }
    if let Some(name) = name.strip_prefix('\u{feff}') {
        let message = format!("section `{name}` is ignored: a byte order mark before it belongs to its name");
        let finding = Diagnostic::warning("ignored-section", section.spans().first().copied(), message);
        findings.push(finding.with_help("save the file as UTF-8 without a byte order mark"));
    } else if let Some(known) = did_you_mean(name, ROOT_SECTIONS) {
        let message = format!("section `{name}` is ignored");
        let finding = Diagnostic::warning("ignored-section", section.spans().first().copied(), message);
        findings.push(finding.with_help(format!("did you mean `{known}`?")));
    }
}

/// Pools and authorities: each is refused with its reason.
fn unsupported(view: &View<'_>, findings: &mut Vec<Diagnostic>) {
    let scope = if view.name() == "pools" { Scope::Pool } else { Scope::Authority };
    let reason = scope.keys().iter().find_map(|key| match key.status {
        Status::Refused { reason, .. } => Some(reason),
        Status::Supported | Status::ByDevice | Status::NoEffect { .. } => None,
    });
    for section in view.sections() {
        let path = format!("{}.{}", view.name(), section.name());
        let message = format!("`{path}` cannot be used: {}", reason.unwrap_or("it is not supported"));
        findings.push(Diagnostic::error("unsupported", section.span(), message).with_path(path));
    }
}

/// References to sections that do not exist; they inherit nothing.
fn references(settings: &Settings, section: &Section, findings: &mut Vec<Diagnostic>) {
    for reference in section.references() {
        if settings.view().at(&reference.path).is_none() {
            let path = reference.path.join(".");
            let message = format!("section `{}` inherits from `{path}`, which does not exist", section.name());
            let finding = Diagnostic::warning("dangling-reference", Some(reference.span), message);
            let names = settings.root().sections().iter().map(Section::name);
            let near = reference.path.first().and_then(|first| did_you_mean(first, names));
            let near = near.filter(|name| Some(*name) != reference.path.first().map(String::as_str));
            findings.push(match near {
                Some(name) => finding.with_help(format!("did you mean `{name}`?")),
                None => finding.with_help("a reference is the full path from the root of the files"),
            });
        }
    }
    for child in section.sections() {
        references(settings, child, findings);
    }
}

/// Keys given twice. In one appearance of a section the first value is lost unnoticed: a warning. In two appearances of a connection, a child
/// or a secret in one file, two definitions of the same name have collided: an error. Across files, later ones override on purpose.
fn repeated(settings: &Settings, section: &Section, path: &str, findings: &mut Vec<Diagnostic>) {
    let mut collided = BTreeSet::new();
    for entry in section.entries() {
        let Some(earlier) = entry.replaced.filter(|earlier| earlier.file == entry.name_span.file) else { continue };
        let first = appearance(section, earlier);
        let second = appearance(section, entry.name_span);
        match (first, second) {
            (Some(first), Some(second)) if first != second => {
                if collided.insert(second) {
                    findings.push(collision(section, path, first, second, entry));
                }
            }
            _ => findings.push(shadowed(settings, entry, earlier)),
        }
    }
    for child in section.sections() {
        repeated(settings, child, &format!("{path}.{}", child.name()), findings);
    }
}

/// The appearance of `section` that holds `place`: the last that begins before it.
fn appearance(section: &Section, place: Span) -> Option<Span> {
    section.spans().iter().copied().filter(|span| span.file == place.file && span.start <= place.start).max()
}

fn collision(section: &Section, path: &str, first: Span, second: Span, entry: &Entry) -> Diagnostic {
    let message = format!("`{path}` is defined twice: here and in line {}, both with `{}`", first.line, entry.name);
    let help = format!("rename one of the two `{}`, or join them and keep one `{}`", section.name(), entry.name);
    Diagnostic::error("duplicate-section", Some(second), message).with_help(help).with_path(path)
}

fn shadowed(settings: &Settings, entry: &Entry, earlier: Span) -> Diagnostic {
    let hidden = settings.sources().is_sensitive(entry.name_span) && !crate::settings::is_secret_key(&entry.name);
    let name = if hidden { "this key".to_owned() } else { format!("`{}`", entry.name) };
    let message = format!("{name} is set twice; the value in line {} is lost", earlier.line);
    Diagnostic::warning("shadowed-key", Some(entry.name_span), message).with_help("remove one of the two")
}
