//! Outer sockets: raw ESP (protocol 50) and the adopted UDP sockets of the NAT-T port.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::engine::Form;
use offload_host::{Family, HostError, sockets};

const ESP_PROTOCOL: libc::c_int = 50;
/// Room for a burst of full-size packets while the thread is away.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket that carries ESP.
pub(crate) struct OuterSocket {
    fd: OwnedFd,
    /// Where it is bound; raw sockets are bound to nothing.
    pub(crate) local: SocketAddr,
    /// What it carries.
    pub(crate) form: Form,
    /// Whether the kernel segments large sends (UDP_SEGMENT) here.
    pub(crate) segments: AtomicBool,
}

impl AsFd for OuterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OuterSocket {
    /// A raw socket for native ESP of one family; `None` where the kernel lacks the family.
    pub(crate) fn raw(v4: bool, mark: u32) -> Result<Option<Self>, SocketError> {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        let fd = match raw_socket(family, ESP_PROTOCOL) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && !v4 => return Ok(None),
            Err(error) => return Err(SocketError::Open(error)),
        };
        let any = if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let socket = Self { fd, local: SocketAddr::new(any, 0), form: Form::Native, segments: AtomicBool::new(false) };
        socket.prepare(mark)?;
        Ok(Some(socket))
    }

    /// A UDP socket of the NAT-T port that the daemon opened and bound.
    pub(crate) fn adopt(fd: OwnedFd, mark: u32) -> Result<Self, SocketError> {
        let local = rustix::net::getsockname(&fd)
            .ok()
            .and_then(|address| SocketAddr::try_from(address).ok())
            .ok_or(SocketError::NotBound)?;
        let socket = Self { fd, local, form: Form::Udp { local_port: local.port() }, segments: AtomicBool::new(false) };
        socket.prepare(mark)?;
        // Both are refused by old kernels, which then hand over and take packets one by one.
        let _ = socket.set(libc::SOL_UDP, libc::UDP_GRO, 1);
        let segments = socket.set(libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        socket.segments.store(segments, Relaxed);
        Ok(socket)
    }

    /// A second socket on the address of an adopted one, with a queue of its own for IKE: a filter of the kernel sends there what starts with the
    /// marker (RFC 3948 §2.2) and leaves ESP where it is, so that a flood of ESP pushes no IKE out.
    pub(crate) fn beside(&self, mark: u32) -> Result<Self, SocketError> {
        let family = if self.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: no pointers are passed.
        let raw = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if raw < 0 {
            return Err(SocketError::Open(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let beside = Self { fd, local: self.local, form: self.form, segments: AtomicBool::new(false) };
        if !self.local.is_ipv4() {
            beside.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        for socket in [self, &beside] {
            socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        beside.prepare(mark)?;
        rustix::net::bind(&beside.fd, &self.local).map_err(|error| SocketError::Open(error.into()))?;
        self.steer()?;
        Ok(beside)
    }

    /// Attaches the filter: four octets of zero choose the second socket of the group, everything else the first.
    fn steer(&self) -> Result<(), SocketError> {
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 1),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the descriptor is open; the program and its steps live on our stack during the call, in which the kernel copies them.
        let outcome = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(SocketError::Option(io::Error::last_os_error())) }
    }

    fn prepare(&self, mark: u32) -> Result<(), SocketError> {
        sockets::set_mark(self.fd.as_fd(), mark)?;
        sockets::socket_bypass(&self.fd, if self.local.is_ipv4() { Family::V4 } else { Family::V6 })?;
        sockets::set_receive_buffer(self.fd.as_fd(), RECEIVE_BUFFER)?;
        if self.local.is_ipv4() {
            self.set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            self.set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            self.set(libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
            // The don't-fragment bit is set while a packet fits; inner packets are made to fit, what does not is fragmented.
            self.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)?;
        } else {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        }
        Ok(())
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<(), SocketError> {
        // SAFETY: the descriptor is open; the option value is one int on our stack.
        let outcome = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(SocketError::Option(io::Error::last_os_error())) }
    }

    /// Whether routers may fragment what an IPv4 socket sends.
    pub(crate) fn set_fragmentable(&self, fragmentable: bool) {
        let discovery = if fragmentable { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_WANT };
        if let Err(error) = self.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discovery) {
            tracing::debug!(%error, "cannot switch path MTU discovery");
        }
    }

    /// Whether an SA with this local address and UDP port (`None` for native ESP) sends through this socket; bound addresses first.
    pub(crate) fn suits(&self, local: IpAddr, port: Option<u16>) -> bool {
        let form = match self.form {
            Form::Native => port.is_none(),
            Form::Udp { local_port } => port == Some(local_port),
        };
        form && self.local.is_ipv4() == local.is_ipv4()
            && (self.local.ip() == local || self.local.ip().is_unspecified())
    }
}

/// Sockets for ICMP errors to hosts of the protected side.
///
/// They are sent like packets of this host, and not written to the tunnel device: the kernel drops what arrives from a device with one of its
/// own addresses as source.
pub(crate) struct Answers {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
}

impl Answers {
    pub(crate) fn open(mark: u32) -> Result<Self, SocketError> {
        let prepared = |fd: OwnedFd, family| -> Result<OwnedFd, SocketError> {
            // The answer goes back to where the packet came from, so around our table and the guard.
            sockets::set_mark(fd.as_fd(), mark)?;
            sockets::socket_bypass(&fd, family)?;
            Ok(fd)
        };
        let v4 = prepared(raw_socket(libc::AF_INET, libc::IPPROTO_RAW).map_err(SocketError::Open)?, Family::V4)?;
        let v6 = match raw_socket(libc::AF_INET6, libc::IPPROTO_RAW) {
            Ok(fd) => Some(prepared(fd, Family::V6)?),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(SocketError::Open(error)),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends a whole IP packet.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let parsed = crate::packet::parse(packet).map_err(io::Error::other)?;
        let destination = SocketAddr::new(parsed.selectors.destination, 0);
        let socket = if destination.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let socket = socket.ok_or(io::ErrorKind::AddrNotAvailable)?;
        rustix::net::sendto(socket, packet, rustix::net::SendFlags::DONTWAIT, &destination)?;
        Ok(())
    }
}

fn raw_socket(family: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let raw = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Path MTU the kernel knows between two addresses for packets with our mark.
pub(crate) fn path_mtu(local: IpAddr, remote: IpAddr, mark: u32) -> io::Result<usize> {
    let socket = std::net::UdpSocket::bind((local, 0))?;
    sockets::set_mark(socket.as_fd(), mark).map_err(io::Error::other)?;
    // Any port serves: nothing is sent.
    socket.connect((remote, 9))?;
    let (level, option) =
        if local.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open; value and length live on our stack and fit the option.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
    if outcome == 0 { usize::try_from(value).map_err(io::Error::other) } else { Err(io::Error::last_os_error()) }
}

/// Sets an interface up that somebody set down; true when it was.
pub(crate) fn set_up(device: &str) -> io::Result<bool> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // The last octet stays zero.
    for (to, from) in ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    // SAFETY: SIOCGIFFLAGS reads and writes one `struct ifreq`, which lives on our stack; the descriptor is open.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let up = libc::IFF_UP as libc::c_short;
    // SAFETY: `ifru_flags` is what was set and read.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & up != 0 {
        return Ok(false);
    }
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: as above; SIOCSIFFLAGS only reads.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(true) }
}

/// Why an outer socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("cannot open a raw ESP socket (CAP_NET_RAW is needed): {0}")]
    Open(io::Error),
    #[error("cannot set an option of an ESP socket: {0}")]
    Option(io::Error),
    #[error("a NAT-T socket is not bound to an IP address")]
    NotBound,
    #[error(transparent)]
    Host(#[from] HostError),
}
