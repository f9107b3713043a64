//! The socket file: whose it is, and who holds it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::session;
use crate::core::Core;
use crate::net::process_name;

/// Clients served at the same time.
const CLIENTS: usize = 2048;

/// The listening socket. Dropping it removes the file.
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path` for root and `group`. A file left by a dead process is removed, a live listener never.
    ///
    /// # Errors
    /// One sentence naming the holder, the file or the group.
    pub(crate) fn bind(path: &Path, group: &str) -> anyhow::Result<Self> {
        allow_descriptors();
        let group_id = Self::check(path, group)?;
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot make the VICI socket {}", path.display()))?;
        let bound = Self { listener, path: path.to_owned() };
        let restrict = || -> io::Result<()> {
            chown(path, None, Some(group_id))?;
            std::fs::set_permissions(path, Permissions::from_mode(0o660))
        };
        restrict().with_context(|| format!("cannot give {} to group `{group}`", path.display()))?;
        Ok(bound)
    }

    /// Whether [`Self::bind`] would succeed, without listening yet; the answer is the group's number.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub(crate) fn check(path: &Path, group: &str) -> anyhow::Result<u32> {
        make_room(path)?;
        group_id(group).with_context(|| format!("vici.group: there is no group `{group}`"))
    }

    /// Serves clients until the future is dropped.
    pub(crate) async fn serve(&self, core: Arc<Core>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let core = Arc::clone(&core);
                        let peer = peer_name(&stream);
                        tokio::spawn(async move {
                            session::serve(stream, core, peer).await;
                            drop(place);
                        });
                    }
                    Err(_) => {
                        tracing::warn!(clients = CLIENTS, "a VICI client was turned away: too many are connected")
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a VICI client");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the VICI socket");
        }
    }
}

/// Each client takes a file descriptor, and what is allowed without asking is less than that.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the number of file descriptors stays as it is");
    }
}

/// Who a client is, as the system says: its process and its user. The file's permissions have let it in; this is for the log.
fn peer_name(stream: &UnixStream) -> String {
    let Ok(credentials) = stream.peer_cred() else { return "unknown".to_owned() };
    let process = credentials.pid().map_or_else(|| "a process elsewhere".to_owned(), |pid| format!("pid {pid}"));
    format!("{process}, uid {}", credentials.uid())
}

/// Removes a dead socket file; refuses when somebody listens or the file is something else.
fn make_room(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            if !directory.is_dir() {
                bail!("the directory {} for the VICI socket does not exist", directory.display());
            }
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
        Ok(metadata) if !metadata.file_type().is_socket() => bail!("{shown} is there and no socket: move it away"),
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(stream) => {
            let holder = rustix::net::sockopt::socket_peercred(&stream)
                .map_or_else(|_| "another process".into(), |peer| process_name(peer.pid.as_raw_nonzero().get()));
            bail!("the VICI socket {shown} is held by {holder}: stop it, or set vici.socket");
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove the dead socket {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot tell whether somebody listens on {shown}")),
    }
}

/// The number of a group: given as such, or looked up.
fn group_id(group: &str) -> Option<u32> {
    if let Ok(number) = group.parse() {
        return Some(number);
    }
    let table = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut rows = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = rows.find(|fields| fields.first() == Some(&group));
    // Root's number is the same everywhere, also where there is no such file.
    found.and_then(|fields| fields.get(2)?.parse().ok()).or((group == "root").then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cygnetd-vici-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn a_live_listener_is_left_alone_and_named() {
        let path = path("live");
        let first = Listener::bind(&path, "root").unwrap();
        let error = Listener::bind(&path, "root").err().unwrap().to_string();
        assert!(error.contains("is held by") && error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let path = path("dead");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Listener::bind(&path, "0").unwrap());
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&path, "root").err().unwrap().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let error = Listener::bind(Path::new("/nonexistent/x.vici"), "root").err().unwrap().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
        let error = Listener::bind(&path("group"), "no-such-group").err().unwrap().to_string();
        assert!(error.contains("no-such-group"), "{error}");
    }
}
