//! `recvmsg` and `sendmsg` with packet information: which of our addresses a datagram came to or leaves from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipsec::Path;

const HEADER: usize = size_of::<libc::cmsghdr>();
const LENGTH: usize = size_of::<usize>();
const CONTROL: usize = 128;

/// Octets with the alignment that the kernel's structures need.
#[repr(C, align(8))]
struct Aligned([u8; CONTROL]);

/// One datagram received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// From where to where.
    pub(super) path: Path,
    /// Octets in the buffer.
    pub(super) length: usize,
    /// The datagram was longer than the buffer.
    pub(super) truncated: bool,
}

/// Asks for the local address of each datagram.
pub(super) fn want_local_address(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    #[allow(unsafe_code)] // no safe interface to these options
    // SAFETY: the descriptor is borrowed and open; `on` is readable for `length` octets during the call.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes one datagram that came to `port`; `WouldBlock` when there is none.
pub(super) fn receive(socket: BorrowedFd<'_>, port: u16, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = Aligned([0; CONTROL]);
    let mut control = Aligned([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = empty_header();
    header.msg_name = name.0.as_mut_ptr().cast();
    header.msg_namelen = CONTROL as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    #[allow(unsafe_code)] // no safe interface to packet information
    // SAFETY: the descriptor is borrowed and open; `header` points at buffers that live, with their true lengths, across the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let remote = address(&name.0).ok_or_else(|| bad("datagram without a sender's address"))?;
    let filled = control.0.get(..header.msg_controllen).unwrap_or(&control.0);
    let local = local_address(filled).ok_or_else(|| bad("datagram without a local address"))?;
    let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { path: Path { local: SocketAddr::new(local, port), remote }, length, truncated })
}

/// Datagrams taken with one system call.
const BATCH: usize = 32;
/// Octets kept of each: more than any first request has.
const SLOT: usize = 8192;

/// Buffers to take many datagrams at once.
pub(super) struct Batch {
    octets: Box<[u8]>,
    names: Box<[Aligned]>,
    controls: Box<[Aligned]>,
    /// Sender, local address and length of what was taken; cut ones are left out.
    taken: Vec<Option<(SocketAddr, IpAddr, usize)>>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let aligned = || (0..BATCH).map(|_| Aligned([0; CONTROL])).collect();
        Self { octets: vec![0; BATCH * SLOT].into(), names: aligned(), controls: aligned(), taken: Vec::new() }
    }

    /// Takes what waits, at most as much as fits.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.taken.clear();
        let mut parts: Vec<libc::iovec> = self
            .octets
            .chunks_exact_mut(SLOT)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT })
            .collect();
        let buffers = parts.iter_mut().zip(self.names.iter_mut().zip(self.controls.iter_mut()));
        let mut headers: Vec<libc::mmsghdr> = buffers
            .map(|(part, (name, control))| {
                let mut header = empty_header();
                header.msg_name = name.0.as_mut_ptr().cast();
                header.msg_namelen = CONTROL as libc::socklen_t;
                header.msg_iov = part;
                header.msg_iovlen = 1;
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = CONTROL as _;
                libc::mmsghdr { msg_hdr: header, msg_len: 0 }
            })
            .collect();
        #[allow(unsafe_code)] // no safe interface to packet information
        // SAFETY: the descriptor is borrowed and open; each of the headers points at buffers that live, with their true lengths, across the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for ((header, name), control) in headers.iter().zip(&self.names).zip(&self.controls).take(count) {
            let filled = control.0.get(..header.msg_hdr.msg_controllen).unwrap_or(&control.0);
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let ends = address(&name.0).zip(local_address(filled)).filter(|_| whole);
            self.taken.push(ends.map(|(remote, local)| (remote, local, header.msg_len as usize)));
        }
        Ok(())
    }

    /// Sender, local address and octets of each that was taken.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, IpAddr, &[u8])> {
        self.taken.iter().zip(self.octets.chunks_exact(SLOT)).filter_map(|(taken, slot)| {
            let (remote, local, length) = (*taken)?;
            Some((remote, local, slot.get(..length)?))
        })
    }
}

/// Sends the concatenation of `parts` from and to the addresses of `path` with this DSCP.
pub(super) fn send(socket: BorrowedFd<'_>, path: &Path, parts: &[&[u8]], dscp: u8) -> io::Result<()> {
    let mut name = Aligned([0; CONTROL]);
    let name_length = put_address(&mut name.0, path.remote);
    let mut control = Aligned([0; CONTROL]);
    let control_length = put_control(&mut control.0, path.local.ip(), dscp);
    let mut vectors: Vec<libc::iovec> = parts
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect();
    let mut header = empty_header();
    header.msg_name = name.0.as_mut_ptr().cast();
    header.msg_namelen = name_length as libc::socklen_t;
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len() as _;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control_length as _;
    #[allow(unsafe_code)] // no safe interface to packet information
    // SAFETY: the descriptor is borrowed and open; `header` points at buffers that live, with their true lengths, across the call, and the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn empty_header() -> libc::msghdr {
    #[allow(unsafe_code)] // padding makes a literal impossible on some targets
    // SAFETY: `msghdr` is plain data for which all-zero (null pointers, zero lengths) is the empty value.
    unsafe {
        std::mem::zeroed()
    }
}

/// The address in a `sockaddr`.
fn address(octets: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(take(octets, 0)?);
    let port = u16::from_be_bytes(take(octets, 2)?);
    match i32::from(family) {
        libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(take::<4>(octets, 4)?), port).into()),
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(take::<16>(octets, 8)?);
            let scope = u32::from_ne_bytes(take(octets, 24)?);
            Some(SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => None,
    }
}

fn put_address(out: &mut [u8], address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            put(out, 0, &(libc::AF_INET as u16).to_ne_bytes());
            put(out, 2, &v4.port().to_be_bytes());
            put(out, 4, &v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            put(out, 0, &(libc::AF_INET6 as u16).to_ne_bytes());
            put(out, 2, &v6.port().to_be_bytes());
            put(out, 8, &v6.ip().octets());
            put(out, 24, &v6.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// The local address in control messages.
fn local_address(mut control: &[u8]) -> Option<IpAddr> {
    loop {
        let length = usize::from_ne_bytes(take(control, 0)?);
        let level = i32::from_ne_bytes(take(control, LENGTH)?);
        let kind = i32::from_ne_bytes(take(control, LENGTH + 4)?);
        let data = control.get(HEADER..length)?;
        match (level, kind) {
            // The second field: the local address, also where the destination was a broadcast.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                return take::<4>(data, 4).map(|octets| Ipv4Addr::from(octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                return take::<16>(data, 0).map(|octets| Ipv6Addr::from(octets).into());
            }
            _ => control = control.get(length.next_multiple_of(LENGTH)..)?,
        }
    }
}

/// Control messages that choose source address and DSCP; returns their length.
fn put_control(out: &mut [u8], local: IpAddr, dscp: u8) -> usize {
    let traffic_class = i32::from(dscp & 0x3f) << 2;
    let mut at = 0;
    let mut add = |level: i32, kind: i32, data: &[u8]| {
        put(out, at, &(HEADER + data.len()).to_ne_bytes());
        put(out, at + LENGTH, &level.to_ne_bytes());
        put(out, at + LENGTH + 4, &kind.to_ne_bytes());
        put(out, at + HEADER, data);
        at += (HEADER + data.len()).next_multiple_of(LENGTH);
    };
    match local {
        IpAddr::V4(address) => {
            let mut information = [0; 12];
            put(&mut information, 4, &address.octets());
            if !address.is_unspecified() {
                add(libc::IPPROTO_IP, libc::IP_PKTINFO, &information);
            }
            add(libc::IPPROTO_IP, libc::IP_TOS, &traffic_class.to_ne_bytes());
        }
        IpAddr::V6(address) => {
            let mut information = [0; 20];
            put(&mut information, 0, &address.octets());
            if !address.is_unspecified() {
                add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &information);
            }
            add(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &traffic_class.to_ne_bytes());
        }
    }
    at
}

fn take<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

fn put(out: &mut [u8], at: usize, octets: &[u8]) {
    if let Some(slot) = out.get_mut(at..at + octets.len()) {
        slot.copy_from_slice(octets);
    }
}
