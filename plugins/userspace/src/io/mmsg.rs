//! Batched receiving and sending with ancillary data: local address, traffic class, segment size.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::engine::HEADER_ROOM;
use crate::engine::transport::OPTIONS;

/// Datagrams taken by one system call.
pub(crate) const RECEIVE_BATCH: usize = 16;
/// Largest datagram, or run of datagrams that the kernel joined.
const SLOT: usize = 65_536;
const CONTROL: usize = 256;
/// Hops of a packet whose header did not tell.
const USUAL_HOPS: u8 = 64;
/// Packets that one datagram of the kernel holds at most.
const JOINED: usize = 64;

/// Where datagrams are received, all together.
const RECEIVED: usize = SLOT * RECEIVE_BATCH;
/// Behind it, where packets of transport mode get their headers back.
const SPARE: usize = RECEIVED + HEADER_ROOM * JOINED * RECEIVE_BATCH;

/// Octets of ancillary data, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Buffers of one receiving thread.
pub(crate) struct ReceiveBuffers {
    octets: Box<[u8]>,
    controls: Box<[Control]>,
    names: Box<[libc::sockaddr_storage]>,
    metas: Vec<Meta>,
}

/// What is known of a received datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) remote: SocketAddr,
    /// Our address the datagram was sent to, where the kernel told.
    pub(crate) local: Option<IpAddr>,
    pub(crate) class: u8,
    /// TTL or hop limit.
    pub(crate) hops: u8,
    pub(crate) length: usize,
    /// Length of each joined datagram but the last; `length` when it is one.
    pub(crate) segment: usize,
}

impl ReceiveBuffers {
    pub(crate) fn new() -> Self {
        // SAFETY: an all-zero sockaddr_storage is a valid value.
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            octets: vec![0; RECEIVED + SPARE].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); RECEIVE_BATCH].into_boxed_slice(),
            names: vec![name; RECEIVE_BATCH].into_boxed_slice(),
            metas: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// Receives what waits, at most one batch; 0 when nothing does.
    pub(crate) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        self.metas.clear();
        // SAFETY: all-zero headers are valid; every pointer set below stays valid during the call because the buffers are borrowed.
        let mut headers: [libc::mmsghdr; RECEIVE_BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; RECEIVE_BATCH] = unsafe { zeroed() };
        let buffers = self.octets.chunks_exact_mut(SLOT).zip(&mut self.controls).zip(&mut self.names);
        for ((header, vector), ((octets, control), name)) in headers.iter_mut().zip(&mut vectors).zip(buffers) {
            vector.iov_base = octets.as_mut_ptr().cast();
            vector.iov_len = octets.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL;
        }
        // SAFETY: `headers` has RECEIVE_BATCH valid entries.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                RECEIVE_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            let nothing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind());
            return if nothing { Ok(0) } else { Err(error) };
        }
        let received = usize::try_from(received).unwrap_or(0);
        for (header, name) in headers.iter().zip(&self.names).take(received) {
            let length = (header.msg_len as usize).min(SLOT);
            let mut meta = Meta {
                remote: address(name).unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
                local: None,
                class: 0,
                hops: USUAL_HOPS,
                length,
                segment: length,
            };
            read_control(&header.msg_hdr, &mut meta);
            self.metas.push(meta);
        }
        Ok(received)
    }

    /// The same, with the room behind them.
    pub(crate) fn datagrams_and_spare(&mut self) -> (impl Iterator<Item = (Meta, &mut [u8])>, &mut [u8]) {
        let (received, spare) = self.octets.split_at_mut(RECEIVED);
        let datagrams = self.metas.iter().zip(received.chunks_exact_mut(SLOT)).map(|(meta, octets)| {
            let (datagram, _) = octets.split_at_mut(meta.length);
            (*meta, datagram)
        });
        (datagrams, spare)
    }

    /// Where all datagrams lie.
    pub(crate) fn arena(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// The datagrams of the last [`Self::receive`].
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = (Meta, &mut [u8])> {
        self.metas.iter().zip(self.octets.chunks_exact_mut(SLOT)).map(|(meta, octets)| {
            let (datagram, _) = octets.split_at_mut(meta.length);
            (*meta, datagram)
        })
    }
}

fn read_control(header: &libc::msghdr, meta: &mut Meta) {
    // SAFETY: the kernel wrote a chain of control messages into the buffer that `header` names, and its length into msg_controllen; the
    // CMSG macros stay inside that length. Payloads are read unaligned, and only as much as the message type carries.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            let room = ((*message).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if room >= size_of::<libc::in_pktinfo>() => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    meta.local = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if room >= size_of::<libc::in6_pktinfo>() => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    meta.local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) if room >= 1 => meta.class = *data,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if room >= size_of::<libc::c_int>() => {
                    meta.class = (ptr::read_unaligned::<libc::c_int>(data.cast()) & 0xff) as u8;
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
                    if room >= size_of::<libc::c_int>() =>
                {
                    meta.hops = (ptr::read_unaligned::<libc::c_int>(data.cast()) & 0xff) as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) if room >= size_of::<libc::c_int>() => {
                    let segment = ptr::read_unaligned::<libc::c_int>(data.cast());
                    meta.segment = usize::try_from(segment).unwrap_or(0).clamp(1, meta.length.max(1));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = ptr::from_ref(name);
    // SAFETY: a sockaddr_storage is large enough and aligned for every address; the family says which one the kernel wrote.
    unsafe {
        match libc::c_int::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// One send: octets, where to, from which address, with which traffic class, cut into segments of which size.
#[derive(Clone, Copy)]
pub(crate) struct Send<'a> {
    pub(crate) octets: &'a [u8],
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) class: u8,
    /// TTL or hop limit; `None` is the system's default.
    pub(crate) hops: Option<u8>,
    /// IPv4 options or a hop-by-hop header.
    pub(crate) options: &'a [u8],
    /// Segment size; `None` sends one datagram.
    pub(crate) segment: Option<u16>,
}

/// Buffers of one sending thread.
pub(crate) struct SendBuffers {
    controls: Box<[Control]>,
    names: Box<[libc::sockaddr_storage]>,
}

/// Sends handed to the kernel by one system call.
pub(crate) const SEND_BATCH: usize = 64;

impl SendBuffers {
    pub(crate) fn new() -> Self {
        // SAFETY: an all-zero sockaddr_storage is a valid value.
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            controls: vec![Control([0; CONTROL]); SEND_BATCH].into_boxed_slice(),
            names: vec![name; SEND_BATCH].into_boxed_slice(),
        }
    }

    /// Sends the first of `sends` and as many more as the kernel takes at once; returns how many.
    pub(crate) fn send(&mut self, socket: &impl AsFd, sends: &[Send<'_>]) -> io::Result<usize> {
        // SAFETY: all-zero headers are valid; every pointer set below stays valid during the call because its target is borrowed.
        let mut headers: [libc::mmsghdr; SEND_BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; SEND_BATCH] = unsafe { zeroed() };
        let count = sends.len().min(SEND_BATCH);
        let buffers = self.controls.iter_mut().zip(&mut self.names);
        for (((header, vector), (control, name)), send) in headers.iter_mut().zip(&mut vectors).zip(buffers).zip(sends)
        {
            vector.iov_base = send.octets.as_ptr().cast_mut().cast();
            vector.iov_len = send.octets.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = write_address(name, send.remote);
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = write_control(control, send);
        }
        // SAFETY: the first `count` of `headers` are filled in.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(sent).unwrap_or(0)) }
    }
}

fn write_address(name: &mut libc::sockaddr_storage, address: SocketAddr) -> libc::socklen_t {
    let place = ptr::from_mut(name);
    // SAFETY: a sockaddr_storage is large enough and aligned for either address; both are plain data.
    unsafe {
        match address {
            SocketAddr::V4(v4) => {
                place.cast::<libc::sockaddr_in>().write(libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                });
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                place.cast::<libc::sockaddr_in6>().write(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                });
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}

/// Writes control messages one after the other and returns their length.
fn write_control(control: &mut Control, send: &Send<'_>) -> usize {
    let mut used = 0;
    match send.local {
        IpAddr::V4(local) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += push(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            used += push(control, used, libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(send.class));
            if let Some(hops) = send.hops {
                // The kernel takes 1 to 255; what is 0 has ended here.
                used += push(control, used, libc::IPPROTO_IP, libc::IP_TTL, libc::c_int::from(hops.max(1)));
            }
            used += push_octets(control, used, libc::IPPROTO_IP, libc::IP_RETOPTS, send.options);
        }
        IpAddr::V6(local) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
            used += push(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            used += push(control, used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::c_int::from(send.class));
            if let Some(hops) = send.hops {
                used += push(control, used, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::c_int::from(hops));
            }
            used += push_octets(control, used, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, send.options);
        }
    }
    if let Some(segment) = send.segment {
        used += push(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

/// Appends one control message at `at` and returns the room it takes. `T` is plain data of the C interface.
fn push<T: Copy>(control: &mut Control, at: usize, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, length) =
        unsafe { (libc::CMSG_SPACE(size_of::<T>() as libc::c_uint), libc::CMSG_LEN(size_of::<T>() as libc::c_uint)) };
    let space = space as usize;
    assert!(at + space <= CONTROL, "ancillary data outgrows its buffer");
    let header = libc::cmsghdr { cmsg_len: length as usize, cmsg_level: level, cmsg_type: kind };
    // SAFETY: the assertion keeps both writes inside the buffer; `at` is a sum of CMSG_SPACEs, so aligned for a header.
    unsafe {
        let place = control.0.as_mut_ptr().add(at);
        place.cast::<libc::cmsghdr>().write_unaligned(header);
        place.add(libc::CMSG_LEN(0) as usize).cast::<T>().write_unaligned(value);
    }
    space
}

/// Appends a control message of so many octets, if there are any, and returns the room it takes.
fn push_octets(control: &mut Control, at: usize, level: libc::c_int, kind: libc::c_int, octets: &[u8]) -> usize {
    if octets.is_empty() {
        return 0;
    }
    assert!(octets.len() <= OPTIONS, "options are longer than they may be");
    let length = octets.len() as libc::c_uint;
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, whole, front) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length), libc::CMSG_LEN(0)) };
    let (space, front) = (space as usize, front as usize);
    assert!(at + space <= CONTROL, "ancillary data outgrows its buffer");
    let header = libc::cmsghdr { cmsg_len: whole as usize, cmsg_level: level, cmsg_type: kind };
    // SAFETY: the assertion keeps the write inside the buffer; `at` is a sum of CMSG_SPACEs, so aligned for a header.
    unsafe { control.0.as_mut_ptr().add(at).cast::<libc::cmsghdr>().write_unaligned(header) };
    for (to, from) in control.0.iter_mut().skip(at + front).zip(octets) {
        *to = *from;
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn addresses_and_classes_travel_with_datagrams() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            let (level, tos, info) = if any.starts_with('1') {
                (libc::IPPROTO_IP, libc::IP_RECVTOS, libc::IP_PKTINFO)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, libc::IPV6_RECVPKTINFO)
            };
            for option in [tos, info] {
                let on: libc::c_int = 1;
                // SAFETY: one int for an int option of an open socket.
                let outcome = unsafe { libc::setsockopt(b.as_raw_fd(), level, option, (&raw const on).cast(), 4) };
                assert_eq!(outcome, 0);
            }
            let local = a.local_addr().unwrap();
            let send = |octets, class, segment| Send {
                octets,
                local: local.ip(),
                remote: b.local_addr().unwrap(),
                class,
                hops: None,
                options: &[],
                segment,
            };
            let sends = [send(&[1; 10][..], 0xb8, None), send(&[2; 25][..], 0x02, Some(10))];
            assert_eq!(SendBuffers::new().send(&a, &sends).unwrap(), 2);
            let mut buffers = ReceiveBuffers::new();
            let mut seen = Vec::new();
            // A machine with much else to do may deliver them later, and one by one.
            b.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
            while seen.len() < 4 {
                b.peek(&mut [0; 64]).unwrap();
                buffers.receive(&b).unwrap();
                let datagrams = buffers.datagrams();
                seen.extend(datagrams.map(|(meta, octets)| (meta.class, octets.len(), meta.remote, meta.local)));
            }
            let expected = |class, length| (class, length, local, Some(local.ip()));
            assert_eq!(seen, [expected(0xb8, 10), expected(2, 10), expected(2, 10), expected(2, 5)]);
            assert_eq!(buffers.receive(&b).unwrap(), 0);
        }
    }
}
