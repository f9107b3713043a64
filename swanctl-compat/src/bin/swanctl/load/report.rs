//! What is said of a load: sentences as strongSwan's tool has them, or one JSON document at the end.

use serde_json::{Value as Json, json};
use swanctl_compat::settings::{Diagnostic, Sources};
use swanctl_compat::vici::client::ClientError;

use crate::output::{Form, print};
use crate::stdio::{say, tell};

/// Collects what was done.
pub(super) struct Report {
    form: Form,
    findings: Vec<Json>,
    steps: Vec<Json>,
    failed: usize,
}

/// One thing that was loaded or unloaded, or was to be.
pub(super) struct Step<'s> {
    /// The command that does it.
    pub(super) command: &'s str,
    /// What it is called: a name, or a path.
    pub(super) name: &'s str,
}

impl Report {
    pub(super) fn new(form: Form) -> Self {
        Self { form, findings: Vec::new(), steps: Vec::new(), failed: 0 }
    }

    /// Prints what was found in the files, on standard error, and notes it.
    pub(super) fn find<'f>(&mut self, findings: impl Iterator<Item = &'f Diagnostic>, sources: &Sources) {
        for finding in findings {
            tell(format_args!("{}", finding.render(sources)));
            self.findings.push(json!({
                "severity": finding.severity.as_str(),
                "code": finding.code,
                "file": finding.span.map(|span| sources.path(span.file)),
                "line": finding.span.map(|span| span.line),
                "column": finding.span.map(|span| span.column),
                "path": finding.path,
                "message": finding.message,
                "help": finding.help,
            }));
        }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// It was done; `words` for a person, unless there are none.
    pub(super) fn done(&mut self, step: &Step<'_>, words: &str) -> Result<(), ClientError> {
        self.steps.push(json!({ "command": step.command, "name": step.name, "success": true }));
        if words.is_empty() { Ok(()) } else { self.say(words) }
    }

    /// It failed.
    pub(super) fn failed(&mut self, step: &Step<'_>, reason: &str, words: &str) {
        self.failed += 1;
        self.steps.push(json!({ "command": step.command, "name": step.name, "success": false, "error": reason }));
        say!("{words}");
    }

    /// A sentence for a person.
    pub(super) fn say(&self, words: &str) -> Result<(), ClientError> {
        if self.form == Form::Human { print(&format!("{words}\n")) } else { Ok(()) }
    }

    /// Further members of the document.
    pub(super) fn note(&mut self, step: Json) {
        self.steps.push(step);
    }

    /// Prints the document.
    pub(super) fn end(self) -> Result<(), ClientError> {
        if self.form != Form::Json {
            return Ok(());
        }
        print(&format!("{}\n", json!({ "findings": self.findings, "steps": self.steps, "failed": self.failed })))
    }
}
