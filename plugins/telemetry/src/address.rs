//! Where the server listens.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Clients that may wait until they are accepted; the system may allow fewer.
const BACKLOG: i32 = 128;

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl Listen {
    /// Reads `ADDRESS:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // As URLs write it, too.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.starts_with('/') && path.len() < 108 {
                return Ok(Self::Unix(path.into()));
            }
            return Err(format!("`{text}`: after unix: comes an absolute path of less than 108 octets"));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("`{text}`: it is an address with a port, such as 127.0.0.1:9470 or [::1]:9470, or unix:PATH")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A place to listen that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {error}")]
pub struct BindError {
    /// Where.
    pub listen: Listen,
    /// Why not.
    #[source]
    pub error: io::Error,
}

/// Sockets that listen and are not served yet: whoever connects waits.
#[derive(Debug, Default)]
pub struct Bound {
    pub(crate) tcp: Vec<TcpListener>,
    pub(crate) unix: Vec<SocketFile>,
}

impl Bound {
    /// Listens on all of `places`, or on none.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn bind(places: &[Listen]) -> Result<Self, BindError> {
        let mut bound = Self::default();
        for listen in places {
            let failed = |error| BindError { listen: listen.clone(), error };
            match listen {
                Listen::Tcp(address) => {
                    let listener = TcpListener::bind(address).map_err(failed)?;
                    listener.set_nonblocking(true).map_err(failed)?;
                    bound.tcp.push(listener);
                }
                Listen::Unix(path) => bound.unix.push(SocketFile::bind(path).map_err(failed)?),
            }
        }
        Ok(bound)
    }

    /// The addresses with the ports that were given for port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// A listening socket file. Dropping it removes the file, unless its place has been given to another one meanwhile.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl SocketFile {
    /// For the user and the group of this process. A file left by a dead process is replaced, a live listener never.
    fn bind(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        // A listener whose queue is full is no dead one, and not waited for.
        if is_socket && net::connect(socket()?, &address) == Err(Errno::CONNREFUSED) {
            std::fs::remove_file(path)?;
        }
        let socket = socket()?;
        net::bind(&socket, &address)?;
        let bound = Self { listener: socket.into(), path: path.to_owned(), file: device_and_inode(path) };
        // Until it listens, whoever connects is refused, whatever the file's permissions.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        net::listen(&bound.listener, BACKLOG)?;
        Ok(bound)
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// What tells one file from another of the same name.
fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = device_and_inode(&self.path);
        if now.is_some() && now != self.file {
            return tracing::warn!(path = %self.path.display(), "the HTTP socket is another one by now, and stays");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the HTTP socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_files() {
        assert_eq!(Listen::parse("127.0.0.1:9470").unwrap(), Listen::Tcp("127.0.0.1:9470".parse().unwrap()));
        assert_eq!(Listen::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
        for text in ["unix:/run/c.http", "unix:///run/c.http"] {
            assert_eq!(Listen::parse(text).unwrap(), Listen::Unix("/run/c.http".into()));
        }
        for wrong in ["", "9470", "localhost:9470", "127.0.0.1", "unix:c.http"] {
            assert!(Listen::parse(wrong).unwrap_err().starts_with(&format!("`{wrong}`: ")), "{wrong}");
        }
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("telemetry-{}.http", std::process::id()));
        drop(UnixListener::bind(&path).unwrap());
        let places = [Listen::Unix(path.clone())];
        let bound = Bound::bind(&places).unwrap();
        assert_eq!(Bound::bind(&places).unwrap_err().error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_that_is_too_busy_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("telemetry-{}-busy.http", std::process::id()));
        let (busy, address) = (socket().unwrap(), SocketAddrUnix::new(&path).unwrap());
        net::bind(&busy, &address).unwrap();
        net::listen(&busy, 0).unwrap();
        let connect = || socket().and_then(|socket| net::connect(&socket, &address).map(|()| socket));
        let waiting: Vec<_> = (0..8).map_while(|_| connect().ok()).collect();
        assert!(!waiting.is_empty() && waiting.len() < 8);
        let error = Bound::bind(&[Listen::Unix(path.clone())]).unwrap_err().error;
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_has_taken_its_place_is_not_removed() {
        let path = std::env::temp_dir().join(format!("telemetry-{}-successor.http", std::process::id()));
        let places = [Listen::Unix(path.clone())];
        let first = Bound::bind(&places).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Bound::bind(&places).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
