//! Where clients connect: socket files and ports.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::session;
use super::socket_file::{self, Reserved, SocketFile};
use crate::config::Vici;
use crate::config::vici::Place;
use crate::core::Core;
use crate::net::tcp_port_holder;
use crate::subscribers::Peer;
use crate::updown::helper::Helper;

/// Clients served at the same time.
const CLIENTS: usize = 2048;

/// Clients that may wait until they are accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// Octets that the system keeps for a client's port at most; a file's are fewer anyway.
const SENT_AHEAD: usize = 256 * 1024;

/// After so long without a word from the machine of a client it is asked whether it still is there.
const SILENCE: Duration = Duration::from_secs(60);

/// The listening sockets. Dropping them removes the files.
pub(crate) struct Listener {
    sockets: Vec<Arc<Listening>>,
    patience: Option<Duration>,
}

enum Listening {
    Unix(SocketFile),
    Tcp(TcpListener),
}

/// A client that has connected.
pub(super) struct Connection {
    pub(super) reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// Who it is.
    pub(super) peer: Peer,
}

/// The socket files, where they have to be made before the rest: their clients wait until they are served.
#[derive(Default)]
pub(crate) struct Places(Vec<(PathBuf, Reserved)>);

impl Places {
    /// Whether [`Listener::bind`] would succeed, without listening yet.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub(crate) fn check(vici: &Vici) -> anyhow::Result<Self> {
        vici.places.iter().try_for_each(|place| match place {
            Place::Unix(path) => socket_file::could_be_bound(path, &vici.access),
            Place::Tcp(address) => bound(*address).map(|_| ()),
        })?;
        Ok(Self::default())
    }

    /// The same, and makes the socket files, which belong to `user` unless the settings say otherwise.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub(crate) fn reserve(vici: &Vici, helper: &Helper, user: u32) -> anyhow::Result<Self> {
        let Self(mut places) = Self::check(vici)?;
        for path in vici.files() {
            let deputy = helper.deputy(user)?;
            places.push((path.to_owned(), Reserved::bind(path, &vici.access, BACKLOG, Some(deputy))?));
        }
        Ok(Self(places))
    }
}

impl Listener {
    /// Listens on all places, or on none.
    ///
    /// # Errors
    /// One sentence naming the place, and what is in the way.
    pub(crate) fn bind(vici: &Vici, places: Places) -> anyhow::Result<Self> {
        allow_descriptors();
        let Places(mut reserved) = places;
        let mut bind = |place: &Place| {
            let listening = match place {
                Place::Unix(path) => {
                    let made = reserved.iter().position(|(reserved, _)| reserved == path);
                    let made = made.map(|at| Ok(reserved.swap_remove(at).1));
                    made.unwrap_or_else(|| Reserved::bind(path, &vici.access, BACKLOG, None))?
                        .open()
                        .map(Listening::Unix)?
                }
                Place::Tcp(address) => listen(*address).map(Listening::Tcp)?,
            };
            warn_of(place, vici.access.mode);
            Ok(Arc::new(listening))
        };
        let sockets = vici.places.iter().map(&mut bind).collect::<anyhow::Result<_>>()?;
        Ok(Self { sockets, patience: vici.patience })
    }

    /// Serves clients until the future is dropped.
    pub(crate) async fn serve(&self, core: Arc<Core>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        let mut accepting = JoinSet::new();
        for socket in &self.sockets {
            accepting.spawn(accept_all(Arc::clone(socket), Arc::clone(&core), Arc::clone(&places), self.patience));
        }
        while accepting.join_next().await.is_some() {}
    }
}

async fn accept_all(socket: Arc<Listening>, core: Arc<Core>, places: Arc<Semaphore>, patience: Option<Duration>) {
    loop {
        match socket.accept().await {
            Ok(connection) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let core = Arc::clone(&core);
                    tokio::spawn(async move {
                        session::serve(connection, core, patience).await;
                        drop(place);
                    });
                }
                Err(_) => tracing::warn!(clients = CLIENTS, "a VICI client was turned away: too many are connected"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a VICI client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Listening {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(file) => file.listener.accept().await.map(|(stream, _)| Connection::unix(stream)),
            Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| Connection::tcp(stream, address)),
        }
    }
}

impl Connection {
    pub(super) fn unix(stream: UnixStream) -> Self {
        let peer = peer_of(&stream);
        let (reader, writer) = stream.into_split();
        Self { reader: Box::new(reader), writer: Box::new(writer), peer }
    }

    fn tcp(stream: TcpStream, address: SocketAddr) -> Self {
        let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 6).with_retries(6);
        let socket = SockRef::from(&stream);
        let setting = socket
            .set_tcp_keepalive(&keepalive)
            .and_then(|()| socket.set_send_buffer_size(SENT_AHEAD))
            .and_then(|()| stream.set_nodelay(true));
        if let Err(error) = setting {
            tracing::debug!(%error, "a VICI client's connection stays as the system makes it");
        }
        let (reader, writer) = stream.into_split();
        Self { reader: Box::new(reader), writer: Box::new(writer), peer: Peer::Elsewhere(format!("at {address}")) }
    }
}

/// Each client takes a file descriptor, and what is allowed without asking is less than that.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the number of file descriptors stays as it is");
    }
}

/// Who a client is, as the system says: its process and its user. The file's permissions have let it in.
fn peer_of(stream: &UnixStream) -> Peer {
    match stream.peer_cred() {
        Ok(credentials) => Peer::Process { uid: credentials.uid(), pid: credentials.pid() },
        Err(_) => Peer::Elsewhere("unknown".to_owned()),
    }
}

/// A port that is ours and does not listen yet.
fn bound(address: SocketAddr) -> anyhow::Result<Socket> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Beside the same port of IPv4.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok::<_, io::Error>(socket)
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = tcp_port_holder(address.port()).unwrap_or_else(|| "another process".into());
            bail!("the VICI port {address} is held by {holder}: stop it, or set vici.socket")
        }
        other => other.with_context(|| format!("cannot listen for VICI clients on {address}")),
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = bound(address)?;
    let listen = || {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    listen().with_context(|| format!("cannot listen for VICI clients on {address}"))
}

/// Says so where more than the owner and the group of a file may connect.
fn warn_of(place: &Place, mode: u32) {
    const POWER: &str = "whoever connects controls this daemon: VICI knows no password and no encryption";
    match place {
        Place::Unix(_) if mode & 0o002 == 0 => {}
        Place::Unix(_) => {
            tracing::warn!("{place} can be used by every user of this machine (mode {mode:04o}), and {POWER}")
        }
        Place::Tcp(_) if place.is_remote() => tracing::warn!("{place} can be reached by OTHER MACHINES, and {POWER}"),
        Place::Tcp(_) => tracing::warn!("{place} can be used by every user of this machine, and {POWER}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_held_is_refused_with_its_holder() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let vici = Vici { places: vec![Place::Tcp(address)], ..Vici::default() };
        for error in [Listener::bind(&vici, Places::default()).err(), Places::check(&vici).err()] {
            let error = error.unwrap().to_string();
            assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        }
        drop(held);
        // A process that another test has just forked has it, too, until it runs its own program; also what the check had of it.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = Places::check(&vici).and_then(|places| Listener::bind(&vici, places).map(drop)) {
            assert!(std::time::Instant::now() < patience, "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_had_in_full_is_not_had_in_part() {
        let path = std::env::temp_dir().join(format!("cygnetd-vici-{}-part", std::process::id()));
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut vici = Vici::default();
        vici.access.group = rustix::process::getegid().as_raw().to_string();
        vici.places = vec![Place::Unix(path.clone()), Place::Tcp(held.local_addr().unwrap())];
        assert!(Listener::bind(&vici, Places::default()).is_err());
        assert!(!path.exists());
    }
}
