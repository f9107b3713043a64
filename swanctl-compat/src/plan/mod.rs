//! From files to what is loaded: the VICI messages that swanctl sends, in order, and everything there is to say about the files.
//!
//! `swanctl --load-all` sends a plan to the daemon; the daemon makes the same plan at start and for `--check` and carries it out itself. Making one
//! has no side effects. A file that cannot be read as it was meant loads nothing ([`Plan::is_readable`]); otherwise each connection and each secret
//! stands for itself, and what runs under the name of a bad one goes on.

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
use zeroize::Zeroizing;

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
    /// Why there is no message to send: a file that it names and that cannot be read, or inheritance without end.
    pub unreadable: Option<String>,
    /// Two definitions under this name have collided. Which of the two is meant is not known; another daemon's tool mixes them.
    pub collision: Option<String>,
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
    /// The pre-shared key; `None` for other kinds, and when the findings hold an error about it.
    pub secret: Option<SharedSecret>,
    /// Why there is no message to send: a secret that stands for no octets.
    pub unreadable: Option<String>,
    /// Two definitions under this name have collided.
    pub collision: Option<String>,
}

/// The password of a file with a private key or of a PKCS#12 container.
#[derive(Clone)]
pub struct Password {
    /// The section's name; it begins with the name of the directory that the file is in.
    pub section: String,
    /// The file's name in that directory.
    pub file: String,
    /// The password.
    pub secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Password({}, {}, [redacted])", self.section, self.file)
    }
}

/// A private key on a smart card or in a hardware module.
#[derive(Debug, Clone)]
pub struct PlannedToken {
    /// The section's name.
    pub name: String,
    /// The `load-token` message.
    pub message: Message,
}

/// Findings that something is not there: said of files that could be read whole.
const MISSING: [&str; 3] = ["secret-missing", "dangling-reference", "endless-reference"];

/// All that a configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Connections in file order.
    pub connections: Vec<PlannedConnection>,
    /// Shared secrets in file order.
    pub secrets: Vec<PlannedSecret>,
    /// Passwords of files with private keys.
    pub passwords: Vec<Password>,
    /// Private keys on tokens in file order.
    pub tokens: Vec<PlannedToken>,
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
        let torn = plan.has_errors();
        plan.read(settings, source, torn);
        if torn {
            // What a mistake above has moved or taken away is no mistake of its own.
            let own = |finding: &Diagnostic| {
                settings.diagnostics().contains(finding)
                    || !MISSING.contains(&finding.code) && finding.span.is_some_and(|span| settings.stands(span))
            };
            plan.findings.retain(own);
            plan = Self { findings: plan.findings, ..Self::default() };
        } else {
            secrets::unused_files(settings, source, &mut plan.findings);
            plan.withhold_collided();
            doubts::check(settings, &mut plan);
        }
        plan.sort_findings();
        plan
    }

    /// Reads every section; of files with mistakes in their form, only what stands there is judged.
    fn read(&mut self, settings: &Settings, source: &dyn FileSource, torn: bool) {
        let root = settings.view();
        sections::check(settings, &mut self.findings);
        if let Some(secrets) = root.section("secrets") {
            secrets::plan(&secrets, settings, source, self);
        }
        if let Some(connections) = root.section("connections") {
            for view in connections.sections() {
                let planned = connection(&view, settings, source, torn, &mut self.findings);
                self.connections.push(planned);
            }
        }
        self.pools = others("pools", Form::Pool, settings, source, &mut self.findings);
        self.authorities = others("authorities", Form::Authority, settings, source, &mut self.findings);
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

    /// Whether the files could be read as they were meant. Otherwise nothing of them should be loaded, and nothing unloaded.
    #[must_use]
    pub fn is_readable(&self, settings: &Settings) -> bool {
        settings.diagnostics().iter().all(|finding| finding.severity != Severity::Error)
    }

    /// The findings that are true for any daemon: how files and secrets are written. What connections, pools and authorities mean, another daemon
    /// may see otherwise.
    pub fn findings_for_any_daemon<'p>(&'p self, settings: &'p Settings) -> impl Iterator<Item = &'p Diagnostic> {
        let of_a_secret = |path: &str| path.starts_with("secrets.") && path.ends_with(".secret");
        self.findings.iter().filter(move |finding| {
            settings.diagnostics().contains(finding)
                || finding.code == "endless-reference"
                || finding.path.as_deref().is_some_and(of_a_secret)
        })
    }

    /// Takes from use what is defined twice.
    fn withhold_collided(&mut self) {
        for finding in self.findings.iter().filter(|finding| finding.code == "duplicate-section") {
            let Some(path) = finding.path.as_deref() else { continue };
            let of = |root: &str, name: &str| {
                let rest = path.strip_prefix(root).and_then(|rest| rest.strip_prefix(name));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            for planned in self.connections.iter_mut().filter(|planned| of("connections.", &planned.name)) {
                planned.connection = None;
                planned.collision.get_or_insert_with(|| finding.message.clone());
            }
            for planned in self.secrets.iter_mut().filter(|planned| of("secrets.", &planned.name)) {
                planned.secret = None;
                planned.collision.get_or_insert_with(|| finding.message.clone());
            }
        }
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
        let mut message = Message::new();
        if let Some(span) = translation.endless {
            let finding = endless(&format!("{root}.{name}"), span);
            let unreadable = Some(finding.message.clone());
            findings.push(finding);
            out.push(PlannedSection { name, message, unreadable });
            continue;
        }
        message.section(name.as_str(), content);
        out.push(PlannedSection { name, message, unreadable: translation.unreadable });
    }
    out
}

fn endless(path: &str, span: Span) -> Diagnostic {
    let text = format!("`{path}` inherits from itself without end");
    Diagnostic::error("endless-reference", Some(span), text)
        .with_help("a section cannot refer to a section that contains it")
        .with_path(path)
}

fn connection(
    view: &View<'_>,
    settings: &Settings,
    source: &dyn FileSource,
    torn: bool,
    findings: &mut Vec<Diagnostic>,
) -> PlannedConnection {
    let name = view.name().to_owned();
    let mut translation = Translation::new(settings, source, Form::Connection);
    let content = translation.section(view, &format!("connections.{name}"));
    let (spans, unreadable) = (translation.spans, translation.unreadable);
    let mut message = Message::new();
    if let Some(span) = translation.endless {
        let finding = endless(&format!("connections.{name}"), span);
        let unreadable = Some(finding.message.clone());
        findings.push(finding);
        return PlannedConnection { name, message, spans, connection: None, unreadable, collision: None };
    }
    let (connection, found) = match load_conn::parse(&name, &content) {
        Ok(loaded) => {
            let doubts = scripts::doubts(&loaded.connection, source);
            (Some(loaded.connection), [loaded.notes, doubts].concat())
        }
        Err(rejected) => (None, [rejected.errors, rejected.notes].concat()),
    };
    let found = found.iter().filter(|finding| !torn || spans.holds(&finding.path));
    findings.extend(found.map(|finding| spans.diagnostic(finding, settings)));
    message.section(name.as_str(), content);
    PlannedConnection { name, message, spans, connection, unreadable, collision: None }
}
