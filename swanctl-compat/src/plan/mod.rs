//! From files to what is loaded: the VICI messages that swanctl sends, in order, and everything there is to say about the files.
//!
//! `swanctl --load-all` sends a plan to the daemon; the daemon makes the same plan at start and for `--check` and carries it out itself. Making one
//! has no side effects: with an error among the findings nothing should be sent.

mod doubts;
mod scripts;
mod secrets;
mod sections;
mod spans;
mod translate;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ike_model::{Connection, SharedSecret};

pub use spans::Spans;

use translate::{Form, Translation};

use crate::load_conn;
use crate::load_conn::Finding;
use crate::load_conn::offload::{self, Devices};
use crate::settings::{Diagnostic, FileSource, Settings, Severity, Span, View};
use crate::vici::Message;

/// One connection to load.
#[derive(Debug, Clone)]
pub struct PlannedConnection {
    /// Its name.
    pub name: String,
    /// The `load-conn` message.
    pub message: Message,
    /// Where its parts stand, to place errors of the daemon ([`Spans::find`] with `errpath`).
    pub spans: Spans,
    /// What it means; `None` when the findings hold an error about it.
    pub connection: Option<Connection>,
    /// A file that it names and that cannot be read: there is no message to send then.
    pub unreadable: Option<String>,
}

/// One pool or certification authority to load.
#[derive(Debug, Clone)]
pub struct PlannedSection {
    /// Its name.
    pub name: String,
    /// The `load-pool` or `load-authority` message.
    pub message: Message,
    /// A file that it names and that cannot be read: there is no message to send then.
    pub unreadable: Option<String>,
}

/// One shared secret to load.
#[derive(Debug, Clone)]
pub struct PlannedSecret {
    /// Unique id: the section's name.
    pub name: String,
    /// `ike`, `eap`, `xauth`, `ntlm` or `ppk`.
    pub kind: &'static str,
    /// The `load-shared` message.
    pub message: Message,
    /// The pre-shared key; `None` for other kinds.
    pub secret: Option<SharedSecret>,
}

/// All that a configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Connections in file order.
    pub connections: Vec<PlannedConnection>,
    /// Shared secrets in file order.
    pub secrets: Vec<PlannedSecret>,
    /// Pools in file order.
    pub pools: Vec<PlannedSection>,
    /// Certification authorities in file order.
    pub authorities: Vec<PlannedSection>,
    /// Errors and warnings, by position.
    pub findings: Vec<Diagnostic>,
}

impl Plan {
    /// Makes the plan for `settings`. `source` is asked for the permissions of files that hold secrets and of scripts, and for unused credential
    /// files beside the configuration.
    #[must_use]
    pub fn make(settings: &Settings, source: &dyn FileSource) -> Self {
        let mut plan = Self { findings: settings.diagnostics().to_vec(), ..Self::default() };
        // What follows from a file that could not be read as it was meant would only hide the cause.
        if plan.has_errors() {
            plan.sort_findings();
            return plan;
        }
        let root = settings.view();
        sections::check(settings, &mut plan.findings);
        if let Some(secrets) = root.section("secrets") {
            secrets::plan(&secrets, settings, source, &mut plan);
        }
        if let Some(connections) = root.section("connections") {
            for view in connections.sections() {
                let planned = connection(&view, settings, source, &mut plan.findings);
                plan.connections.push(planned);
            }
        }
        plan.pools = others("pools", Form::Pool, settings, source, &mut plan.findings);
        plan.authorities = others("authorities", Form::Authority, settings, source, &mut plan.findings);
        secrets::unused_files(settings, source, &mut plan.findings);
        doubts::check(settings, &mut plan);
        plan.sort_findings();
        plan
    }

    /// Whether something cannot be loaded.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The usable connections, in file order.
    pub fn usable_connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter_map(|planned| planned.connection.as_ref())
    }

    /// The pre-shared keys, in file order.
    pub fn pre_shared_keys(&self) -> impl Iterator<Item = &SharedSecret> {
        self.secrets.iter().filter_map(|planned| planned.secret.as_ref())
    }

    /// Whether the files can be sent to any daemon: errors may remain about what connections, pools and authorities mean, which another daemon may
    /// see otherwise, but none about how the files and the secrets are written.
    #[must_use]
    pub fn is_well_written(&self, settings: &Settings) -> bool {
        let error = |finding: &&Diagnostic| finding.severity == Severity::Error;
        let of_secrets =
            |finding: &Diagnostic| finding.path.as_deref().is_some_and(|path| path.starts_with("secrets."));
        let known = settings.diagnostics();
        !self
            .findings
            .iter()
            .filter(error)
            .any(|finding| known.contains(finding) || finding.code == "endless-reference" || of_secrets(finding))
    }

    /// Of the connections that the daemon has (`get-conns`), those to unload because the files do not name them any more.
    #[must_use]
    pub fn connections_to_unload(&self, loaded: &[String]) -> Vec<String> {
        let wanted: BTreeSet<&str> = self.connections.iter().map(|planned| planned.name.as_str()).collect();
        loaded.iter().filter(|name| !wanted.contains(name.as_str())).cloned().collect()
    }

    /// Of the shared secrets that the daemon has (`get-shared`), those to unload.
    #[must_use]
    pub fn secrets_to_unload(&self, loaded: &[String]) -> Vec<String> {
        let wanted: BTreeSet<&str> = self.secrets.iter().map(|planned| planned.name.as_str()).collect();
        loaded.iter().filter(|id| !wanted.contains(id.as_str())).cloned().collect()
    }

    /// Refuses the connections whose children ask for what no device of the running backend can carry, and adds what the devices have to say to
    /// the others.
    pub fn check_devices(&mut self, settings: &Settings, devices: &Devices) {
        for planned in &mut self.connections {
            let Some(connection) = &planned.connection else { continue };
            let found = offload::findings(connection, devices);
            self.findings.extend(found.iter().map(|finding| planned.spans.diagnostic(finding, settings)));
            if found.iter().any(Finding::is_error) {
                planned.connection = None;
            }
        }
        let usable: Vec<_> = self.usable_connections().collect();
        for (name, finding) in offload::hidden_shunts(&usable, devices) {
            let planned = self.connections.iter().find(|planned| planned.name == name);
            self.findings.extend(planned.map(|planned| planned.spans.diagnostic(&finding, settings)));
        }
        self.sort_findings();
    }

    /// By position, each finding once: a template's mistake is found in every connection that inherits it.
    fn sort_findings(&mut self) {
        self.findings.sort_by_key(|finding| (finding.span.is_none(), finding.span));
        let mut seen = BTreeSet::new();
        self.findings.retain(|finding| seen.insert((finding.span, finding.code, finding.message.clone())));
    }
}

/// All sections below a root section other than `connections`.
fn others(
    root: &str,
    form: Form,
    settings: &Settings,
    source: &dyn FileSource,
    findings: &mut Vec<Diagnostic>,
) -> Vec<PlannedSection> {
    let Some(all) = settings.view().section(root) else { return Vec::new() };
    let mut out = Vec::new();
    for view in all.sections() {
        let name = view.name().to_owned();
        let mut translation = Translation::new(settings, source, form);
        let content = translation.section(&view, &format!("{root}.{name}"));
        if let Some(span) = translation.endless {
            findings.push(endless(&name, span));
            continue;
        }
        let mut message = Message::new();
        message.section(name.as_str(), content);
        out.push(PlannedSection { name, message, unreadable: translation.unreadable });
    }
    out
}

fn endless(name: &str, span: Span) -> Diagnostic {
    let text = format!("connection `{name}` inherits from itself without end");
    Diagnostic::error("endless-reference", Some(span), text)
        .with_help("a section cannot refer to a section that contains it")
}

fn connection(
    view: &View<'_>,
    settings: &Settings,
    source: &dyn FileSource,
    findings: &mut Vec<Diagnostic>,
) -> PlannedConnection {
    let name = view.name().to_owned();
    let mut translation = Translation::new(settings, source, Form::Connection);
    let content = translation.section(view, &format!("connections.{name}"));
    let (spans, unreadable) = (translation.spans, translation.unreadable);
    let mut message = Message::new();
    if let Some(span) = translation.endless {
        findings.push(endless(&name, span));
        return PlannedConnection { name, message, spans, connection: None, unreadable };
    }
    let (connection, found) = match load_conn::parse(&name, &content) {
        Ok(loaded) => {
            let doubts = scripts::doubts(&loaded.connection, source);
            (Some(loaded.connection), [loaded.notes, doubts].concat())
        }
        Err(rejected) => (None, [rejected.errors, rejected.notes].concat()),
    };
    findings.extend(found.iter().map(|finding| spans.diagnostic(finding, settings)));
    message.section(name.as_str(), content);
    PlannedConnection { name, message, spans, connection, unreadable }
}
