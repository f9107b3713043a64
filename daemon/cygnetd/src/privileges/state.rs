//! The daemon's own directories, which whoever it runs as must be able to change: made where they are missing, and handed over where root has
//! made them before, as the service manager does (`StateDirectory=` of systemd.exec(5)).

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::backend::{self, Kind};
use crate::config::Config;
use crate::users::Account;

/// Directories that belong to nobody but us; others are somebody's choice, and so is whose they are.
const OURS: [&str; 2] = ["/var/lib/cygnet", "/run/cygnet"];
/// Directories within directories, at most.
const DEPTH: u32 = 4;

/// A directory that the daemon writes into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Where.
    pub(super) directory: PathBuf,
    /// Permissions, where we make it.
    mode: u32,
    /// What is kept there.
    pub(super) what: &'static str,
    /// The daemon does not start without it.
    pub(super) needed: bool,
}

impl State {
    /// Whether it is handed over at a start as root.
    pub(super) fn is_ours(&self) -> bool {
        OURS.iter().any(|ours| self.directory.starts_with(ours))
    }
}

/// All that are used with these settings.
pub(super) fn all(config: &Config) -> Vec<State> {
    let mut all = Vec::new();
    let history = &config.history;
    let needed = history.is_chosen() || config.has_webhooks();
    let mut add = |directory: &Path, mode, what, needed| {
        if !directory.as_os_str().is_empty() {
            all.push(State { directory: directory.to_owned(), mode, what, needed });
        }
    };
    #[cfg(feature = "history")]
    if !history.url.is_empty() {
        if let Some(database) = history.url.strip_prefix("sqlite://").and_then(|file| Path::new(file).parent()) {
            add(database, 0o750, "the history", needed);
        }
        add(&history.spool(), 0o700, "the history's spool", needed);
    }
    let kernel = backend::configured(&config.backend) != Some(Kind::Userspace);
    if let Some(directory) = config.backend.kernel.journal.parent().filter(|_| kernel) {
        add(directory, 0o755, "the journal of kernel SAs", false);
    }
    all
}

/// Makes those that are missing, and gives them to `account`; with root's privileges.
///
/// # Errors
/// One sentence naming the directory.
pub(crate) fn prepare(config: &Config, account: &Account) -> anyhow::Result<()> {
    for ours in OURS.map(Path::new) {
        if all(config).iter().any(|state| state.directory.starts_with(ours)) && ours.is_dir() {
            hand_over(ours, account)
                .with_context(|| format!("cannot give {} to `{}`", ours.display(), account.name))?;
        }
    }
    for state in all(config) {
        let shown = state.directory.display();
        let made = make(&state, account);
        made.with_context(|| format!("cannot make {shown}, for {}, or give it to `{}`", state.what, account.name))?;
    }
    Ok(())
}

/// Makes a directory and those above it that are missing.
fn make(state: &State, account: &Account) -> io::Result<()> {
    let missing: Vec<&Path> = state.directory.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        DirBuilder::new().mode(state.mode).create(path)?;
        lchown(path, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

/// Gives a directory with what root has made in it. What somebody else has put there, or could have, is left alone: a link, or a file with
/// several names, may be one that is not ours to give.
fn hand_over(directory: &Path, account: &Account) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    if is_roots_alone(&found) { give_all(directory, account, DEPTH) } else { Ok(()) }
}

/// Root's, and nobody else can change what is in it.
fn is_roots_alone(directory: &Metadata) -> bool {
    directory.is_dir() && directory.uid() == 0 && directory.mode() & 0o022 == 0
}

/// What is inside first: from when the directory is given, its contents are another's to change.
fn give_all(directory: &Path, account: &Account, depth: u32) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        if found.uid() != 0 {
            continue;
        }
        if is_roots_alone(&found) && depth > 0 {
            give_all(&path, account, depth - 1)?;
        } else if found.is_file() && found.nlink() == 1 {
            lchown(&path, Some(account.uid), Some(account.gid))?;
        }
    }
    lchown(directory, Some(account.uid), Some(account.gid))
}
