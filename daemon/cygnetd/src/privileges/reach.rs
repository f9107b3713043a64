//! What the daemon must still be able to reach once root's privileges are gone: its state, and the files that a reload reads again.
//!
//! The system is asked as whoever we are by then (access(2)), so that access lists and read-only file systems count.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::state;
use crate::backend::{self, Kind};
use crate::config::Config;
use crate::users::Account;

/// Files in a directory of ours that are looked at, at most.
const FILES: usize = 1_000;

/// Something that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// What, and why it matters.
    pub(crate) text: String,
    /// What to do.
    pub(crate) fix: String,
    /// The daemon cannot start without it.
    pub(crate) needed: bool,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.text, self.fix)
    }
}

/// One thing to reach.
struct Wanted {
    path: PathBuf,
    how: Access,
    /// What does not work without it.
    loss: String,
    needed: bool,
}

impl Wanted {
    fn to_read(path: &Path, loss: &str) -> Self {
        Self { path: path.to_owned(), how: Access::READ_OK, loss: loss.to_owned(), needed: false }
    }
}

/// Files that are read again while the daemon runs: those of the settings, and those of swanctl.conf as they were read last.
pub(crate) fn files(
    config: &Config,
    settings: &[PathBuf],
    connections: &[PathBuf],
    account: &Account,
) -> Vec<Unreachable> {
    const SETTINGS: &str = "settings cannot be loaded again";
    const CONNECTIONS: &str = "connections and secrets cannot be loaded again by SIGHUP, only by `swanctl --load-all`";
    let mut wanted: Vec<_> = settings.iter().map(|path| Wanted::to_read(path, SETTINGS)).collect();
    wanted.extend(connections.iter().map(|path| Wanted::to_read(path, CONNECTIONS)));
    // A pattern of includes is looked up in its directory.
    let mut directories: Vec<_> = connections.iter().skip(1).filter_map(|path| path.parent()).collect();
    directories.dedup();
    wanted.extend(directories.into_iter().map(|path| Wanted::to_read(path, CONNECTIONS)));
    #[cfg(feature = "telemetry")]
    if !config.http.token_file.as_os_str().is_empty() && !config.http.listen.is_empty() {
        let token = Wanted::to_read(&config.http.token_file, "the token of [http] is not known");
        wanted.push(Wanted { needed: true, ..token });
    }
    #[cfg(feature = "webhook")]
    for webhook in &config.webhooks {
        let loss = format!("webhook {} cannot be served", webhook.endpoint.name);
        wanted.extend(webhook.files().map(|path| Wanted::to_read(path, &loss)));
    }
    unreachable(wanted, account)
}

/// State that is kept on disk, and the device that makes TUN devices. With `before`, what a start as root hands over is left out.
pub(crate) fn places(config: &Config, account: &Account, before: bool) -> Vec<Unreachable> {
    let mut wanted = Vec::new();
    for state in state::all(config).into_iter().filter(|state| !(before && state.is_ours())) {
        let state::State { directory, what, needed, .. } = state;
        if before && !directory.exists() {
            continue;
        }
        let loss = format!("{what} cannot be kept there");
        let files = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let files: Vec<_> = files.filter(|path| path.is_file()).take(FILES).collect();
        let (loss, how) = (|| loss.clone(), Access::READ_OK | Access::WRITE_OK);
        wanted.push(Wanted { path: directory, how: how | Access::EXEC_OK, loss: loss(), needed });
        wanted.extend(files.into_iter().map(|path| Wanted { path, how, loss: loss(), needed }));
    }
    if backend::configured(&config.backend) == Some(Kind::Userspace) {
        let (path, how) = ("/dev/net/tun".into(), Access::READ_OK | Access::WRITE_OK);
        wanted.push(Wanted { path, how, loss: "there is no tunnel device without it".into(), needed: true });
    }
    unreachable(wanted, account)
}

/// What of that cannot be reached. Of many for one reason, such as a directory that cannot be entered, one is told.
fn unreachable(wanted: Vec<Wanted>, account: &Account) -> Vec<Unreachable> {
    let mut all: Vec<Unreachable> = Vec::new();
    for found in wanted.iter().filter_map(|wanted| look(wanted, account)) {
        match all.iter_mut().find(|known| known.fix == found.fix) {
            Some(known) => known.needed |= found.needed,
            None => all.push(found),
        }
    }
    all
}

fn look(wanted: &Wanted, account: &Account) -> Option<Unreachable> {
    let Wanted { path, how, loss, needed } = wanted;
    if access(path, *how).is_ok() {
        return None;
    }
    let Account { name, group, .. } = account;
    let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let closed = above.filter(|above| above.is_dir() && access(*above, Access::EXEC_OK).is_err()).last();
    let (text, fix) = match closed {
        Some(closed) => {
            let closed = closed.display();
            let text = format!("user `{name}` cannot enter {closed}, so {loss} ({})", path.display());
            (text, format!("chgrp {group} {closed} && chmod g+rx {closed}"))
        }
        None if how.contains(Access::WRITE_OK) => {
            let (of, shown) = (path.parent().filter(|_| path.is_file()).unwrap_or(path), path.display());
            let text = format!("user `{name}` cannot write to {shown}, so {loss}");
            match path.starts_with("/dev") {
                true => (text, format!("chgrp {group} {shown} && chmod g+rw {shown}")),
                false => (text, format!("chown -R {name}:{group} {}", of.display())),
            }
        }
        None => {
            let shown = path.display();
            let bits = if path.is_dir() { "g+rx" } else { "g+r" };
            let text = format!("user `{name}` cannot read {shown}, so {loss}");
            (text, format!("chgrp {group} {shown} && chmod {bits} {shown}"))
        }
    };
    Some(Unreachable { text, fix, needed: *needed })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn account() -> Account {
        Account { name: "cygnet".into(), uid: 998, gid: 997, group: "vpn".into(), groups: vec![997] }
    }

    fn wanted(path: &Path, how: Access) -> Wanted {
        Wanted { path: path.to_owned(), how, loss: "nothing works".into(), needed: false }
    }

    /// What root may not do either: write to a file that is not there, run what is not to be run.
    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let directory = std::env::temp_dir().join(format!("cygnetd-reach-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (there, gone) = (directory.join("there"), directory.join("gone"));
        fs::write(&there, "").unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(look(&wanted(&there, Access::READ_OK), &account()), None);
        let found = look(&wanted(&gone, Access::READ_OK), &account()).unwrap();
        let shown = gone.display();
        assert_eq!(found.text, format!("user `cygnet` cannot read {shown}, so nothing works"));
        assert_eq!(found.fix, format!("chgrp vpn {shown} && chmod g+r {shown}"));
        let found = look(&wanted(&directory.join("no/such"), Access::WRITE_OK), &account()).unwrap();
        assert!(found.fix.starts_with("chown -R cygnet:vpn "), "{found}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn one_reason_is_told_once_and_the_worst_counts() {
        let path = Path::new("/nonexistent/reach");
        let worse = Wanted { needed: true, ..wanted(path, Access::READ_OK) };
        let found = unreachable(vec![wanted(path, Access::READ_OK), worse], &account());
        assert_eq!((found.len(), found[0].needed), (1, true));
    }
}
