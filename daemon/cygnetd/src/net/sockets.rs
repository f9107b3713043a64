//! Opening the sockets and sending on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail};
use ipsec::Path;
use socket2::{Domain, Protocol, Socket, Type};

use super::{holder, message, steer};

/// Wanted size of receive buffers, so that a burst of handshakes is not lost.
const RECEIVE_BUFFER: usize = 4 << 20;
const NON_ESP_MARKER: [u8; 4] = [0; 4];
const KEEPALIVE: [u8; 1] = [0xff];

/// What the sockets are opened for.
pub(crate) struct Options<'a> {
    /// IKE port; 0 = off.
    pub(crate) port: u16,
    /// NAT-T port; 0 = off.
    pub(crate) nat_port: u16,
    /// Local addresses; empty = all.
    pub(crate) listen: &'a [IpAddr],
    /// Takes a socket out of our own routing and guards; called before it is bound.
    pub(crate) exempt: &'a dyn Fn(BorrowedFd<'_>, bool) -> anyhow::Result<()>,
}

/// One bound socket.
pub(super) struct Bound {
    pub(super) socket: Socket,
    pub(super) local: SocketAddr,
    pub(super) nat: bool,
    /// It gets first requests only; what is sent goes out of the one beside it.
    pub(super) first: bool,
}

/// All sockets of IKE.
pub(crate) struct Sockets {
    bound: Vec<Bound>,
}

impl Sockets {
    /// Opens everything.
    ///
    /// # Errors
    /// One sentence that names the address, the port and who holds it.
    pub(crate) fn open(options: &Options<'_>) -> anyhow::Result<Self> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if options.listen.is_empty() { &any[..] } else { options.listen };
        let mut bound = Vec::new();
        for (port, nat) in [(options.port, false), (options.nat_port, true)] {
            for address in addresses.iter().filter(|_| port != 0) {
                let local = SocketAddr::new(*address, port);
                match open(local, nat, options) {
                    Ok(socket) => bound.extend(both(socket, local, nat, options)),
                    Err(error) if options.listen.is_empty() && local.is_ipv6() && lacks_ipv6(&error) => {
                        tracing::info!(port, "this machine has no IPv6: IKE uses IPv4 only");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if bound.is_empty() {
            bail!("no UDP socket could be opened");
        }
        Ok(Self { bound })
    }

    /// Duplicates of the NAT-T sockets, for the backend.
    pub(crate) fn nat_duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.bound.iter().filter(|bound| bound.nat).map(|bound| bound.socket.as_fd().try_clone_to_owned()).collect()
    }

    /// Sockets to read here: without those of the NAT-T port when the backend reads them, and without those of first requests.
    pub(super) fn to_read(&self, nat_too: bool) -> impl Iterator<Item = &Bound> {
        self.bound.iter().filter(move |bound| !bound.first && (nat_too || !bound.nat))
    }

    /// Sockets that get first requests only.
    pub(super) fn of_first_requests(&self) -> impl Iterator<Item = &Bound> {
        self.bound.iter().filter(|bound| bound.first)
    }

    //= RFC 3948 §2.2: on the NAT-T port four octets of zero stand before IKE
    /// Sends an IKE message; from the NAT-T port with the non-ESP marker.
    pub(crate) fn send(&self, path: &Path, octets: &[u8], dscp: u8) -> io::Result<()> {
        let bound = self.find(path)?;
        let marker: &[u8] = if bound.nat { &NON_ESP_MARKER } else { &[] };
        message::send(bound.socket.as_fd(), path, &[marker, octets], dscp)
    }

    //= RFC 3948 §2.3: one octet of 0xff
    /// Sends a NAT keepalive.
    pub(crate) fn keepalive(&self, path: &Path) -> io::Result<()> {
        message::send(self.find(path)?.socket.as_fd(), path, &[&KEEPALIVE], 0)
    }

    fn find(&self, path: &Path) -> io::Result<&Bound> {
        let serves = |bound: &&Bound| {
            !bound.first
                && bound.local.port() == path.local.port()
                && bound.local.is_ipv4() == path.remote.is_ipv4()
                && (bound.local.ip().is_unspecified() || bound.local.ip() == path.local.ip())
        };
        let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no socket sends from {}", path.local));
        self.bound.iter().find(serves).ok_or_else(none)
    }
}

/// A bound socket, and beside it on the IKE port the one for first requests, where the kernel can tell them apart.
fn both(socket: Socket, local: SocketAddr, nat: bool, options: &Options<'_>) -> Vec<Bound> {
    let mut both = vec![Bound { socket, local, nat, first: false }];
    if nat {
        return both;
    }
    let beside = both.first().map(|known| beside(&known.socket, local, options));
    match beside {
        Some(Ok(socket)) => both.push(Bound { socket, local, nat, first: true }),
        Some(Err(error)) => tracing::warn!(%local, "first requests and all others share one queue: {error:#}"),
        None => {}
    }
    both
}

/// A second socket on the address of `known`, which then gets first requests only. The first one was bound alone, so nobody else holds the
/// port; from here on whoever runs as our user could join.
fn beside(known: &Socket, local: SocketAddr, options: &Options<'_>) -> anyhow::Result<Socket> {
    let socket = unbound(local, false, options)?;
    known.set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    steer::first_requests_to_second(known.as_fd())?;
    Ok(socket)
}

fn open(local: SocketAddr, nat: bool, options: &Options<'_>) -> anyhow::Result<Socket> {
    let socket = unbound(local, nat, options)?;
    socket.bind(&local.into()).map_err(|error| explain_bind(local, error))?;
    Ok(socket)
}

fn unbound(local: SocketAddr, nat: bool, options: &Options<'_>) -> anyhow::Result<Socket> {
    let v6 = local.is_ipv6();
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let action = || format!("cannot open a UDP socket for {local}");
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).with_context(action)?;
    if v6 {
        socket.set_only_v6(true).with_context(action)?;
    }
    (options.exempt)(socket.as_fd(), v6)?;
    message::want_local_address(socket.as_fd(), v6).with_context(action)?;
    // SO_RCVBUFFORCE needs a capability in the first user namespace; what the system grants otherwise has to do.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    if !nat {
        // IKE messages longer than the path's MTU must arrive, in fragments if need be. The NAT-T socket also carries ESP: the backend decides.
        if v6 {
            let _ =
                rustix::net::sockopt::set_ipv6_mtu_discover(&socket, rustix::net::sockopt::Ipv6PathMtuDiscovery::DONT);
        } else {
            let _ =
                rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::DONT);
        }
    }
    Ok(socket)
}

fn explain_bind(local: SocketAddr, error: io::Error) -> anyhow::Error {
    let port = local.port();
    let sentence = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => match holder::udp_port_holder(port) {
            Some(holder) => format!("UDP port {port} is held by {holder}: stop it, or set ike.port and ike.nat_port"),
            None => format!("UDP port {port} is held by another process: stop it, or set ike.port and ike.nat_port"),
        },
        Some(libc::EACCES | libc::EPERM) => {
            format!("UDP port {port} needs the capability NET_BIND_SERVICE: start as root or grant it")
        }
        Some(libc::EADDRNOTAVAIL) => format!("{} is no address of this machine: correct ike.listen", local.ip()),
        _ => format!("cannot bind UDP {local}"),
    };
    anyhow::Error::new(error).context(sentence)
}

fn lacks_ipv6(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(cause.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPFNOSUPPORT))
    })
}
