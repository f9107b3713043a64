//! What every test needs: its name and its words when it fails; the rest is the lab's.

use std::path::Path;

use anyhow::Result;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer, Recipe};
use libtest_mimic::{Failed, Trial};

pub(crate) use lab::pair::{Pair, SOON, with_pair};

/// A test by name.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let words = |error: anyhow::Error| error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n\ncause: ");
    Trial::test(name, move || test().map_err(|error| Failed::from(words(error))))
}

/// Cygnet whose clients may come by a port of its namespace as well, and with further lines of its section `[vici]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ported {
    pub(crate) more: &'static str,
}

impl Ported {
    /// The port, on loopback.
    pub(crate) const PORT: u16 = 4502;
}

impl Peer for Ported {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> Result<Recipe> {
        let recipe = Cygnet::default().prepare(directory)?;
        let later = directory.join("cygnetd.d");
        std::fs::create_dir_all(&later)?;
        let places = format!("[\"unix://{}\", \"tcp://127.0.0.1:{}\"]", recipe.socket.display(), Self::PORT);
        std::fs::write(later.join("vici.toml"), format!("[vici]\nsocket = {places}\n{}\n", self.more))?;
        Ok(recipe)
    }
}
