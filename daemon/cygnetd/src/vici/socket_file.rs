//! A socket file: whose it is, and who holds it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::config::vici::Access;
use crate::net::process_name;
use crate::updown::helper::Deputy;
use crate::users;

/// A listening socket file. Dropping it removes the file.
pub(super) struct SocketFile {
    // Dropped first: nobody shall find a file that nobody listens at.
    _remover: Remover,
    pub(super) listener: UnixListener,
}

/// Owner and group by number.
struct Owner {
    user: Option<u32>,
    group: u32,
}

/// A socket file at which clients may wait until they are accepted. Dropping it removes the file.
pub(super) struct Reserved {
    remover: Remover,
    listener: StdListener,
}

impl Reserved {
    /// Binds `path`. A file left by a dead process is removed, a live listener never. Nobody can connect before the file is as `access` says. Where
    /// there is a `deputy`, it belongs to the user whose deputy that is, unless `access` names another one.
    ///
    /// # Errors
    /// One sentence naming the holder, the file, the user or the group.
    pub(super) fn bind(path: &Path, access: &Access, backlog: i32, deputy: Option<Deputy>) -> anyhow::Result<Self> {
        let owner = check(path, access)?;
        let shown = path.display();
        let making = || format!("cannot make the VICI socket {shown}");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).with_context(making)?;
        socket.bind(&SockAddr::unix(path).with_context(making)?).with_context(making)?;
        let user = owner.user.or(deputy.as_ref().map(|deputy| deputy.user));
        let remover = Remover::of(path, deputy);
        // Until it listens, whoever connects is refused, whatever the file's permissions.
        chown(path, user, Some(owner.group))
            .with_context(|| format!("cannot give {shown} to user `{}` and group `{}`", access.user, access.group))?;
        std::fs::set_permissions(path, Permissions::from_mode(access.mode))
            .with_context(|| format!("cannot give {shown} the mode {:04o}", access.mode))?;
        socket.listen(backlog).with_context(making)?;
        socket.set_nonblocking(true).with_context(making)?;
        Ok(Self { remover, listener: StdListener::from(socket) })
    }

    /// From now on clients are accepted, from within the runtime.
    ///
    /// # Errors
    /// One sentence naming the file.
    pub(super) fn open(self) -> anyhow::Result<SocketFile> {
        let shown = self.remover.path.display();
        let listener = UnixListener::from_std(self.listener).with_context(|| format!("cannot listen at {shown}"))?;
        Ok(SocketFile { _remover: self.remover, listener })
    }
}

/// Whether there is room for a file, and whether user and group exist.
///
/// # Errors
/// As [`Reserved::bind`].
pub(super) fn could_be_bound(path: &Path, access: &Access) -> anyhow::Result<()> {
    check(path, access).map(|_| ())
}

fn check(path: &Path, access: &Access) -> anyhow::Result<Owner> {
    make_room(path)?;
    let Access { user, group, .. } = access;
    let group = users::group_number(group).with_context(|| format!("vici.group: there is no group `{group}`"))?;
    if user.is_empty() {
        return Ok(Owner { user: None, group });
    }
    let user = users::user_number(user).with_context(|| format!("vici.user: there is no user `{user}`"))?;
    Ok(Owner { user: Some(user), group })
}

/// Removes the file of a socket that goes, unless its place has been given to another one meanwhile.
struct Remover {
    path: PathBuf,
    file: Option<(u64, u64)>,
    deputy: Option<Deputy>,
}

impl Remover {
    fn of(path: &Path, deputy: Option<Deputy>) -> Self {
        Self { path: path.to_owned(), file: device_and_inode(path), deputy }
    }

    fn remove(&self) -> io::Result<()> {
        match (std::fs::remove_file(&self.path), &self.deputy, self.file) {
            (Err(error), Some(deputy), Some(file)) if error.kind() == io::ErrorKind::PermissionDenied => {
                deputy.remove_socket(&self.path, file)
            }
            (outcome, ..) => outcome,
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        let now = device_and_inode(&self.path);
        if now.is_some() && now != self.file {
            return tracing::warn!(path = %self.path.display(), "the VICI socket is another one by now, and stays");
        }
        if let Err(error) = self.remove() {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the VICI socket");
        }
    }
}

/// What tells one file from another of the same name.
fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
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
    match connect(path) {
        Ok(stream) => {
            let holder = rustix::net::sockopt::socket_peercred(&stream)
                .map_or_else(|_| "another process".into(), |peer| process_name(peer.pid.as_raw_nonzero().get()));
            bail!("the VICI socket {shown} is held by {holder}: stop it, or set vici.socket");
        }
        // It listens, but has no time to accept.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("the VICI socket {shown} is held by another process: stop it, or set vici.socket")
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove the dead socket {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot tell whether somebody listens on {shown}")),
    }
}

/// Connects without waiting: a listener whose queue is full would hold up the start for ever.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cygnetd-vici-{}-{name}", std::process::id()))
    }

    fn access(user: &str, group: &str, mode: u32) -> Access {
        Access { user: user.into(), group: group.into(), mode }
    }

    /// A group that whoever runs the test may give a file to.
    fn own_group() -> String {
        rustix::process::getegid().as_raw().to_string()
    }

    fn bind(path: &Path) -> anyhow::Result<SocketFile> {
        bind_as(path, &access("", &own_group(), 0o660))
    }

    fn bind_as(path: &Path, access: &Access) -> anyhow::Result<SocketFile> {
        Reserved::bind(path, access, 8, None)?.open()
    }

    #[tokio::test]
    async fn a_live_listener_is_left_alone_and_named() {
        let path = path("live");
        let first = bind(&path).unwrap();
        let error = bind(&path).err().unwrap().to_string();
        assert!(error.contains("is held by") && error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_listener_that_accepts_nobody_is_left_alone() {
        let path = path("full");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let waiting: Vec<_> = (0..8).map_while(|_| connect(&path).ok()).collect();
        assert!(!waiting.is_empty() && waiting.len() < 8);
        let error = bind(&path).err().unwrap().to_string();
        assert!(error.contains("is held by another process"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let path = path("dead");
        drop(StdListener::bind(&path).unwrap());
        // A process that another test has just forked listens, too, until it runs its own program.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = bind(&path).map(drop) {
            assert!(std::time::Instant::now() < patience, "{error}");
        }
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&path).err().unwrap().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn what_has_taken_its_place_is_not_removed() {
        let path = path("successor");
        let first = bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_file_is_as_configured() {
        let path = path("mode");
        let user = rustix::process::geteuid().as_raw();
        for mode in [0o600, 0o660, 0o666] {
            let bound = bind_as(&path, &access(&user.to_string(), &own_group(), mode)).unwrap();
            let file = std::fs::metadata(&path).unwrap();
            assert_eq!((file.mode() & 0o7777, file.uid(), file.gid().to_string()), (mode, user, own_group()));
            drop(bound);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let error = bind(Path::new("/nonexistent/x.vici")).err().unwrap().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
        for (user, group) in [("", "no-such-group"), ("no-such-user", "root")] {
            let file = path("nobody");
            let error = bind_as(&file, &access(user, group, 0o660)).err().unwrap().to_string();
            assert!(error.contains("there is no") && error.contains("no-such"), "{error}");
            assert!(!file.exists());
        }
    }
}
