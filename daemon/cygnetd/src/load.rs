//! Loading swanctl.conf at start and on SIGHUP, by the same plan as `swanctl --load-all`.
//!
//! A file that cannot be read as it was meant loads nothing and changes nothing. Otherwise each connection stands for itself: what is usable is
//! loaded, what is not stays listed as refused, and what runs under its name goes on.

use std::path::{Path, PathBuf};

use ike_model::Connection;
use swanctl_compat::load_conn::Finding;
use swanctl_compat::plan::{Plan, PlannedConnection};
use swanctl_compat::settings::{Diagnostic, OsFiles, Settings, Severity};

use crate::store::Store;

/// Name of the file in its directory.
pub(crate) const FILE: &str = "swanctl.conf";

/// Loads one connection, with what is doubtful about it in the log.
pub(crate) fn connection(store: &Store, connection: Connection, notes: &[Finding]) {
    for note in notes {
        tracing::warn!(conn = connection.name, path = note.path, "{}", note.sentence());
    }
    store.load([connection]);
}

/// swanctl.conf and what it includes, as they were read.
pub(crate) struct Files {
    path: PathBuf,
    /// Nothing where there is no such file.
    read: Option<(Settings, Plan)>,
}

/// Makes what is loaded the same as what `directory` says, which is read aside: others are served meanwhile.
pub(crate) async fn directory(store: &Store, directory: &Path) {
    let directory = directory.to_owned();
    match tokio::task::spawn_blocking(move || read(&directory)).await {
        Ok(files) => files.load(store),
        Err(error) => tracing::error!(%error, "nothing was loaded: reading the files has failed"),
    }
}

/// Reads what `directory` says. Blocks.
pub(crate) fn read(directory: &Path) -> Files {
    let path = directory.join(FILE);
    // One that cannot be looked at is a finding.
    let missing = matches!(path.try_exists(), Ok(false));
    let read = (!missing).then(|| {
        let settings = Settings::load(&OsFiles, &path.to_string_lossy());
        let plan = Plan::make(&settings, &OsFiles);
        (settings, plan)
    });
    Files { path, read }
}

impl Files {
    /// Names of the files, that of the first one also where it could not be read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let included = self.read.iter().flat_map(|(settings, _)| settings.sources().paths().map(PathBuf::from));
        let included = included.filter(|path| *path != self.path);
        self.read.iter().map(|_| self.path.clone()).chain(included).collect()
    }

    /// Makes what is loaded the same as what was read.
    pub(crate) fn load(self, store: &Store) {
        let path = self.path.display();
        let Some((settings, mut plan)) = self.read else {
            return tracing::warn!(%path, "there is no such file: no connections are loaded from it");
        };
        plan.check_devices(&settings, &store.devices());
        for finding in &plan.findings {
            write_finding(&settings, finding);
        }
        if !plan.is_readable(&settings) {
            return tracing::error!(%path, "nothing was loaded: the file cannot be read as it was meant");
        }
        let unwanted = plan.secrets_to_unload(&store.secret_ids());
        store.retain_secrets(|known| !unwanted.iter().any(|id| id == known));
        store.load_secrets(plan.pre_shared_keys().cloned());
        let idle = plan.secrets.iter().filter(|planned| planned.kind != "ike");
        store.note_idle_secrets(idle.map(|planned| planned.name.clone()));
        store.unload(&plan.connections_to_unload(&store.names()));
        store.retain_refused(|name| plan.connections.iter().any(|planned| planned.name == name));
        store.load(plan.usable_connections().cloned());
        for planned in plan.connections.iter().filter(|planned| planned.connection.is_none()) {
            refuse(store, &settings, &plan, planned);
        }
        let (usable, all) = (plan.usable_connections().count(), plan.connections.len());
        tracing::info!(%path, "{usable} of {all} connections loaded");
    }
}

fn refuse(store: &Store, settings: &Settings, plan: &Plan, planned: &PlannedConnection) {
    let section = format!("connections.{}", planned.name);
    let within = |path: &str| path.strip_prefix(&section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let error = plan
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error && finding.path.as_deref().is_some_and(within));
    let reason = error.map_or_else(|| "not usable as configured".to_owned(), |error| placed(settings, error));
    store.refuse(&planned.name, planned.message.get_section(&planned.name), &reason);
}

/// The finding with its place in front.
pub(crate) fn placed(settings: &Settings, finding: &Diagnostic) -> String {
    match finding.span {
        Some(span) => {
            format!("{}:{}:{}: {}", settings.sources().path(span.file), span.line, span.column, finding.message)
        }
        None => finding.message.clone(),
    }
}

fn write_finding(settings: &Settings, finding: &Diagnostic) {
    let text = placed(settings, finding);
    let help = finding.help.as_deref();
    match finding.severity {
        Severity::Warning => tracing::warn!(code = finding.code, help, "{text}"),
        Severity::Error => tracing::error!(code = finding.code, help, "{text}"),
    }
}
