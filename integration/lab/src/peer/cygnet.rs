//! Our own daemon with its user-space datapath.

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

impl Peer for Cygnet {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        let socket = directory.join("cygnet.vici");
        let settings = directory.join("cygnetd.toml");
        let level = if self.log.is_empty() { "info" } else { &self.log };
        let text = format!(
            "[backend]\nkind = \"userspace\"\n[swanctl]\ndirectory = \"{}\"\n[vici]\nsocket = \"unix://{}\"\n[log]\nlevel = \"{level}\"\n{}",
            directory.join("swanctl").display(),
            socket.display(),
            self.extra
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
}
