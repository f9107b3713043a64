//! ICMP echo from a raw socket, so that no program needs to be installed.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketAddrV6, SocketFlags, SocketType, bind, connect, ipproto,
    recv, send, socket_with,
};

use crate::netns::Namespace;

/// For whoever expects an answer: on a busy machine it may take its time.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests.
const INTERVAL: Duration = Duration::from_millis(20);

/// Sends echo requests and returns how many were answered within the time each has.
///
/// # Errors
/// Raw sockets are not allowed.
pub fn ping(from: &Namespace, source: IpAddr, target: IpAddr, count: u16, patience: Duration) -> anyhow::Result<u16> {
    let socket = match from.run(|| open(source, target))? {
        // A block policy stands already when the socket asks for its route.
        Err(Errno::PERM) => return Ok(0),
        outcome => outcome?,
    };
    let mut answered = 0;
    for number in 0..count {
        // The kernel refuses while there is no route or a block policy stands: that is no answer, too.
        if send(&socket, &request(target, number), SendFlags::empty()).is_ok()
            && wait_for(&socket, target, number, patience)?
        {
            answered += 1;
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(answered)
}

/// Repeats single requests until one is answered.
///
/// # Errors
/// As [`ping`].
pub fn answers_within(from: &Namespace, source: IpAddr, target: IpAddr, limit: Duration) -> anyhow::Result<bool> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if ping(from, source, target, 1, Duration::from_millis(250))? == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open(source: IpAddr, target: IpAddr) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    match (source, target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
            bind(&socket, &SocketAddrV6::new(source, 0, 0, 0))?;
            connect(&socket, &SocketAddrV6::new(target, 0, 0, 0))?;
            Ok(socket)
        }
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
            bind(&socket, &SocketAddrV4::new(source, 0))?;
            connect(&socket, &SocketAddrV4::new(target, 0))?;
            Ok(socket)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Err(rustix::io::Errno::AFNOSUPPORT),
    }
}

/// An echo request: type, code, checksum, identifier, number, data. IPv6 checksums are the kernel's.
fn request(target: IpAddr, number: u16) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0, 0x43, 0x47];
    message.extend_from_slice(&number.to_be_bytes());
    message.extend_from_slice(&[0x2a; 56]);
    if target.is_ipv4() {
        let sum = crate::frame::checksum(0, &message);
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
    message
}

fn wait_for(socket: &OwnedFd, target: IpAddr, number: u16, patience: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience;
    let mut buffer = [0_u8; 2_048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Ok((length, _)) = recv(socket, &mut buffer, RecvFlags::DONTWAIT) else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        if is_reply(packet, target, number) {
            return Ok(true);
        }
    }
}

fn is_reply(packet: &[u8], target: IpAddr, number: u16) -> bool {
    // An IPv4 raw socket delivers the IP header, an IPv6 one does not.
    let (message, kind) = if target.is_ipv4() {
        let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        (packet.get(header..).unwrap_or_default(), 0)
    } else {
        (packet, 129)
    };
    let [high, low] = number.to_be_bytes();
    matches!(message, [found, 0, _, _, 0x43, 0x47, h, l, ..] if *found == kind && *h == high && *l == low)
}
