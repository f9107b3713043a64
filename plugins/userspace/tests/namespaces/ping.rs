//! ICMP echo, paced as by `ping`, which waits for its last answer hardly longer than for the others: too short on a machine with much else to do.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, connect, ipproto, recv, send,
    socket_with,
};

/// Between two requests: so far that they are not sent as one.
const INTERVAL: Duration = Duration::from_millis(10);

/// What `ping` calls by these letters.
pub(crate) struct Options<'a> {
    /// `-s`: octets of each request.
    octets: usize,
    /// `-I`: the source address.
    source: Option<&'a str>,
    /// `-M`: what is done about the path MTU.
    discovery: Option<libc::c_int>,
    /// `-W`: how long the last answers are waited for.
    patience: Duration,
}

impl<'a> Options<'a> {
    /// Understands pairs of an option and its value.
    pub(crate) fn parse(words: &[&'a str]) -> Self {
        let mut options = Self { octets: 56, source: None, discovery: None, patience: Duration::from_secs(3) };
        for pair in words.chunks(2) {
            match *pair {
                ["-s", octets] => options.octets = octets.parse().unwrap(),
                ["-I", source] => options.source = Some(source),
                ["-M", "dont"] => options.discovery = Some(libc::IP_PMTUDISC_DONT),
                ["-M", "want"] => options.discovery = Some(libc::IP_PMTUDISC_WANT),
                ["-M", "do"] => options.discovery = Some(libc::IP_PMTUDISC_DO),
                ["-W", seconds] => options.patience = Duration::from_secs_f64(seconds.parse().unwrap()),
                _ => panic!("{pair:?} is no option"),
            }
        }
        options
    }
}

/// Sends so many requests from the namespace of this thread, and counts those that are answered.
pub(crate) fn ping(to: &str, count: u32, options: &Options<'_>) -> u32 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let to: IpAddr = to.parse().unwrap();
    // A block policy stands already when the socket asks for its route.
    let Some(socket) = open(to, options) else { return 0 };
    let mut answers = Answers { v4: to.is_ipv4(), identifier: NEXT.fetch_add(1, Ordering::Relaxed), seen: Vec::new() };
    for number in 0..count {
        let request = answers.request(number as u16, options.octets);
        // A refusal, as of what is too big, is no answer.
        let _ = send(&socket, &request, SendFlags::empty());
        let next = Instant::now() + INTERVAL;
        answers.take(&socket, next, count);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    answers.take(&socket, Instant::now() + options.patience, count);
    answers.seen.len() as u32
}

fn open(to: IpAddr, options: &Options<'_>) -> Option<OwnedFd> {
    let (family, protocol) =
        if to.is_ipv4() { (AddressFamily::INET, ipproto::ICMP) } else { (AddressFamily::INET6, ipproto::ICMPV6) };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
    if let Some(discovery) = options.discovery {
        let (level, option) = if to.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        };
        // SAFETY: one int for an int option of an open socket.
        let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const discovery).cast(), 4) };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    }
    let port_less = |address: IpAddr| -> SocketAddrAny { std::net::SocketAddr::new(address, 0).into() };
    if let Some(source) = options.source {
        bind(&socket, &port_less(source.parse().unwrap())).unwrap();
    }
    connect(&socket, &port_less(to)).ok()?;
    Some(socket)
}

struct Answers {
    v4: bool,
    identifier: u16,
    /// Numbers of the requests that are answered.
    seen: Vec<u16>,
}

impl Answers {
    /// An echo request. IPv6 checksums are the kernel's.
    fn request(&self, number: u16, octets: usize) -> Vec<u8> {
        let mut message = vec![if self.v4 { 8 } else { 128 }, 0, 0, 0];
        message.extend([self.identifier.to_be_bytes(), number.to_be_bytes()].concat());
        message.extend(std::iter::repeat_n(0x2a, octets));
        if self.v4 {
            let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            let mut sum: u32 = message.chunks(2).map(word).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        message
    }

    /// Takes answers until a moment, or until there are enough.
    fn take(&mut self, socket: &OwnedFd, until: Instant, enough: u32) {
        let mut buffer = vec![0; 70_000];
        while self.seen.len() < enough as usize {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            // An interruption is no answer.
            let _ = poll(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(&left));
            // What an ICMP error leaves in the socket is none either.
            if let Ok((length, _)) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                self.note(&buffer[..length]);
            }
        }
    }

    fn note(&mut self, packet: &[u8]) {
        // An IPv4 raw socket gives the IP header, too.
        let header = if self.v4 { usize::from(packet[0] & 0xf) * 4 } else { 0 };
        let Some(message) = packet.get(header..header + 8) else { return };
        let number = u16::from_be_bytes([message[6], message[7]]);
        let is_answer = message[0] == if self.v4 { 0 } else { 129 };
        if is_answer && message[4..6] == self.identifier.to_be_bytes() && !self.seen.contains(&number) {
            self.seen.push(number);
        }
    }
}
