//! What was found in a connection, and how the daemon words it.

use crate::render;
use crate::vici::Message;

/// Kind of a finding. The first five are errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// A key that does not exist here.
    UnknownOption(String),
    /// A section that does not exist here.
    InvalidSection(String),
    /// A value that does not fit its key.
    InvalidValue(String),
    /// A key or value that is right but not built.
    Unsupported(String),
    /// The connection as a whole, with the text.
    Message(String),
    /// A key that has no effect.
    NoEffect(String),
    /// Legal but doubtful.
    Doubtful(String),
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Configuration path of the key or section; list items are counted from 0 in brackets.
    pub path: String,
    /// The piece of the value that is wrong, if it is not all of it.
    pub fragment: Option<String>,
    /// What is wrong, or why it has no effect.
    pub reason: String,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    pub(crate) fn new(kind: FindingKind, path: impl Into<String>) -> Self {
        Self { kind, path: path.into(), fragment: None, reason: String::new(), help: None }
    }

    pub(crate) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    pub(crate) fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Whether the connection cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.kind {
            FindingKind::UnknownOption(_)
            | FindingKind::InvalidSection(_)
            | FindingKind::InvalidValue(_)
            | FindingKind::Unsupported(_)
            | FindingKind::Message(_) => true,
            FindingKind::NoEffect(_) | FindingKind::Doubtful(_) => false,
        }
    }

    /// The daemon's error text. The first three forms are those that clients of charon know.
    #[must_use]
    pub fn errmsg(&self) -> String {
        match &self.kind {
            FindingKind::UnknownOption(key) => format!("unknown option: {key}, config discarded"),
            FindingKind::InvalidSection(name) => format!("invalid section: {name}"),
            FindingKind::InvalidValue(key) => format!("invalid value for: {key}, config discarded"),
            FindingKind::Unsupported(key) => format!("unsupported: {key}: {}, config discarded", self.reason),
            FindingKind::Message(text) => text.clone(),
            FindingKind::NoEffect(key) => format!("{key} has no effect: {}", self.reason),
            FindingKind::Doubtful(key) => format!("{key}: {}", self.reason),
        }
    }

    /// The sentence that file checks print.
    #[must_use]
    pub fn sentence(&self) -> String {
        let section = self.path.rsplit_once('.').map_or("", |(section, _)| section);
        match &self.kind {
            FindingKind::UnknownOption(key) => format!("unknown key `{key}` in {section}"),
            FindingKind::InvalidSection(name) => format!("unknown section `{name}` in {section}"),
            FindingKind::InvalidValue(key) => format!("invalid value for `{key}`: {}", self.reason),
            FindingKind::Unsupported(key) => format!("`{key}` cannot be used: {}", self.reason),
            FindingKind::Message(text) => text.clone(),
            FindingKind::NoEffect(key) => format!("`{key}` has no effect: {}", self.reason),
            FindingKind::Doubtful(key) => format!("`{key}`: {}", self.reason),
        }
    }

    /// Stable short name, for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind {
            FindingKind::UnknownOption(_) => "unknown-key",
            FindingKind::InvalidSection(_) => "unknown-section",
            FindingKind::InvalidValue(_) => "invalid-value",
            FindingKind::Unsupported(_) => "unsupported",
            FindingKind::Message(_) => "connection",
            FindingKind::NoEffect(_) => "no-effect",
            FindingKind::Doubtful(_) => "doubtful",
        }
    }
}

/// A connection that cannot be used: why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// At least one error, in the order of the message.
    pub errors: Vec<Finding>,
    /// Other findings.
    pub notes: Vec<Finding>,
}

impl Rejected {
    pub(crate) fn one(finding: Finding) -> Self {
        Self { errors: vec![finding], notes: Vec::new() }
    }

    /// The answer to `load-conn`: the first error, with `errpath` and, where there is more to say, `errhelp`.
    #[must_use]
    pub fn reply(&self) -> Message {
        let Some(first) = self.errors.first() else { return render::failed("config discarded") };
        let errmsg = first.errmsg();
        let more = [first.reason.as_str(), first.help.as_deref().unwrap_or_default()];
        let more: Vec<&str> = more.into_iter().filter(|text| !text.is_empty() && !errmsg.contains(text)).collect();
        let help = more.join("; ");
        render::refused(&errmsg, &first.path, if help.is_empty() { None } else { Some(&help) })
    }

    /// The first error's text.
    #[must_use]
    pub fn errmsg(&self) -> String {
        self.errors.first().map(Finding::errmsg).unwrap_or_default()
    }
}
