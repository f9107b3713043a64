//! Where the parts of a message stand in the files.

use std::collections::BTreeMap;

use crate::load_conn::{Finding, FindingKind};
use crate::settings::{Diagnostic, Settings, Severity, Sources, Span};

/// Place of a key's name and of its value, or of a section's name twice.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: Span,
    value: Span,
}

/// Places by configuration path.
#[derive(Debug, Clone, Default)]
pub struct Spans(BTreeMap<String, Place>);

impl Spans {
    pub(super) fn add(&mut self, path: String, name: Span, value: Span) {
        self.0.insert(path, Place { name, value });
    }

    /// Where `path` stands: its value, or its section's name. For a path that stands nowhere, the nearest section around it.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Span> {
        self.place(path).map(|place| if place.value.start < place.value.end { place.value } else { place.name })
    }

    /// Whether `path` itself stands somewhere.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn place(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(place);
            }
            path = path.rsplit_once(['.', '['])?.0;
        }
    }

    /// A finding of the daemon's half, placed in the file.
    pub(super) fn diagnostic(&self, finding: &Finding, settings: &Settings) -> Diagnostic {
        let severity = if finding.is_error() { Severity::Error } else { Severity::Warning };
        let span = self.span_of(finding, settings.sources());
        let hidden = span.is_some_and(|span| settings.sources().is_sensitive(span));
        let message = if hidden { generic(finding) } else { finding.sentence() };
        let help = if hidden { None } else { finding.help.clone() };
        Diagnostic { severity, code: finding.code(), span, path: Some(finding.path.clone()), message, help }
    }

    fn span_of(&self, finding: &Finding, sources: &Sources) -> Option<Span> {
        let place = self.place(&finding.path)?;
        match finding.kind {
            FindingKind::UnknownOption(_) | FindingKind::InvalidSection(_) | FindingKind::Message(_) => {
                Some(place.name)
            }
            FindingKind::InvalidValue(_)
            | FindingKind::Unsupported(_)
            | FindingKind::NoEffect(_)
            | FindingKind::Doubtful(_) => {
                let span = self.find(&finding.path)?;
                Some(finding.fragment.as_deref().map_or(span, |fragment| sources.narrow(span, fragment)))
            }
        }
    }
}

/// The sentence for a place whose text must stay hidden.
fn generic(finding: &Finding) -> String {
    match finding.kind {
        FindingKind::UnknownOption(_) => "unknown key".to_owned(),
        FindingKind::InvalidSection(_) => "unknown section".to_owned(),
        FindingKind::InvalidValue(_) | FindingKind::Message(_) => "invalid value".to_owned(),
        FindingKind::Unsupported(_) => "unsupported value".to_owned(),
        FindingKind::NoEffect(_) => "this has no effect".to_owned(),
        FindingKind::Doubtful(_) => "doubtful value".to_owned(),
    }
}
