//! Our own daemon, with its user-space datapath or another backend.

use std::path::Path;

use super::{Client, Peer, Recipe, binary};

/// Cygnet, with additions to its configuration file.
#[derive(Clone, Debug, Default)]
pub struct Cygnet {
    /// Further lines of `cygnetd.toml`.
    pub extra: String,
    /// Its log filter; empty means `info`.
    pub log: String,
}

/// Cygnet with a chosen backend: `kernel` or `auto`.
#[derive(Clone, Debug)]
pub struct CygnetOn {
    /// The backend's kind.
    pub backend: &'static str,
    /// Further lines of `cygnetd.toml`.
    pub extra: String,
    /// Its log filter; empty means `info`.
    pub log: String,
}

impl Peer for Cygnet {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, "userspace", &self.extra, &self.log)
    }
}

impl Peer for CygnetOn {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        // Two daemons of one machine must not write into one journal.
        let own = format!("[backend.kernel]\njournal = \"{}\"\n", directory.join("kernel.journal").display());
        let extra = match self.extra.split_once("[backend.kernel]\n") {
            Some((before, after)) => format!("{before}{own}{after}"),
            None => format!("{}\n{own}", self.extra),
        };
        prepare(directory, self.backend, &extra, &self.log)
    }
}

fn prepare(directory: &Path, backend: &str, extra: &str, log: &str) -> anyhow::Result<Recipe> {
    let socket = directory.join("cygnet.vici");
    let settings = directory.join("cygnetd.toml");
    let level = if log.is_empty() { "info" } else { log };
    // Each daemon keeps its own past.
    let history = match extra.contains("[history]") {
        true => String::new(),
        false => format!("[history]\nurl = \"sqlite://{}\"\n", directory.join("history/history.db").display()),
    };
    // And several may run in one namespace.
    let http = match extra.contains("[http]") {
        true => String::new(),
        false => format!("[http]\nlisten = \"unix:{}\"\n", directory.join("cygnet.http").display()),
    };
    // Whoever runs the lab may have a user of that name, who has no place in it.
    let privileges = match extra.contains("[privileges]") {
        true => "",
        false => "[privileges]\nuser = \"root\"\n",
    };
    let text = format!(
        "{privileges}[backend]\nkind = \"{backend}\"\n[swanctl]\ndirectory = \"{}\"\n[vici]\nsocket = \"unix://{}\"\n[log]\nlevel = \"{level}\"\n{history}{http}{extra}",
        directory.join("swanctl").display(),
        socket.display(),
    );
    std::fs::write(&settings, text)?;
    Ok(Recipe {
        program: binary("cygnetd")?,
        arguments: vec!["--config".into(), settings.into()],
        environment: Vec::new(),
        socket,
        log: None,
        client: Client::Cygnet,
        loads_at_start: true,
    })
}
