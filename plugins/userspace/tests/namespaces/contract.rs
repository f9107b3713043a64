//! The rules of the backend contract on the backend as it runs: its threads, and the kernel's guard, routes and sockets around it.
//!
//! Packets do not come back to their sender here, and the clock is the machine's, so what takes a wire is shown in process. The host is real:
//! what becomes of a packet is seen on the links.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipsec::conformance::{BEHAVIOURS, Fate, Log, Subject, Verdict, Wire};
use ipsec::{Direction, OffloadBackend, OffloadMode, OnStop, PacketSelectors, Reports, Request, Shard, Tag};
use offload_host::sockets;
use offload_host::{Family, HostError};
use offload_userspace::control::LONGEST_USE;
use offload_userspace::{Userspace, UserspaceConfig, packet};

use super::lab::{Capture, Lab, bound, eventually, turn, uninterrupted};

/// How long a packet may take to its link.
const PATIENCE: Duration = Duration::from_millis(400);

/// The backend in a gateway of a lab.
struct Hosted<'l> {
    lab: &'l Lab,
    log: Arc<Log>,
    backend: Arc<Userspace>,
    tags: AtomicU64,
}

impl<'l> Hosted<'l> {
    fn start(lab: &'l Lab) -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let backend = lab.inside("ga", || Userspace::start(UserspaceConfig::default(), reports).unwrap());
        Self { lab, log, backend, tags: AtomicU64::new(1) }
    }

    fn outbound(&self, seen: &PacketSelectors, octets: &[u8]) -> Fate {
        // The device goes with the backend.
        let there = self.lab.try_exec("ga", &["ip", "link", "show", "cygnet0"]).status.success();
        let tunnel = there.then(|| self.lab.capture("ga", "cygnet0"));
        let outer = self.lab.capture("ga", "wan");
        if own(seen.source) {
            let (from, to) = ends(seen);
            let sent = self.lab.inside("ga", || udp(from).unwrap().send_to(b"whatever", to));
            sent.map(drop).unwrap_or_else(|error| assert_blocked(&error));
        } else {
            self.lab.inside("la", || send_raw(octets, seen.destination)).unwrap();
        }
        let mut fate = Fate::Blocked;
        within_patience(|| {
            if tunnel.as_ref().is_some_and(|tunnel| saw(tunnel, seen)) {
                fate = Fate::Datapath;
            } else if saw(&outer, seen) {
                fate = Fate::Clear;
            }
            fate != Fate::Blocked
        });
        fate
    }

    fn inbound(&self, seen: &PacketSelectors, octets: &[u8]) -> Fate {
        let arrived = if own(seen.destination) {
            let (from, to) = ends(seen);
            let receiver = self.lab.inside("ga", || udp(to).unwrap());
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            self.lab.inside("gb", || bound(from).send_to(b"whatever", to).unwrap());
            uninterrupted(|| receiver.recv_from(&mut [0; 2_000])).is_ok()
        } else {
            let behind = self.lab.capture("la", "lan");
            self.lab.inside("gb", || send_raw(octets, seen.destination)).unwrap();
            within_patience(|| saw(&behind, seen))
        };
        if arrived { Fate::Clear } else { Fate::Blocked }
    }
}

/// A policy that blocks what a socket sends says so.
fn assert_blocked(error: &io::Error) {
    let blocked = [libc::EPERM, libc::EACCES, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ESRCH];
    assert!(error.raw_os_error().is_some_and(|code| blocked.contains(&code)), "{error}");
}

impl Hosted<'_> {
    /// A request that changes nothing is answered.
    fn answered(&self) {
        let tag = Tag::new(Shard(9), self.tags.fetch_add(1, Ordering::Relaxed));
        self.backend.submit(tag, Request::Apply(Vec::new()));
        eventually("an answer", || !self.log.outcomes(tag).is_empty());
    }
}

impl Subject for Hosted<'_> {
    fn backend(&self) -> &dyn OffloadBackend {
        &*self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    /// Requests are answered in their order, but for removals, which wait a while for whoever still uses what they took out.
    fn settle(&mut self) {
        self.answered();
        std::thread::sleep(LONGEST_USE);
        // Removals whose wait is over are answered after the first of these and before the second.
        self.answered();
        self.answered();
    }

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        None
    }

    fn host(&mut self, direction: Direction, octets: &[u8]) -> Option<Fate> {
        let seen = packet::parse(octets).ok()?.selectors;
        Some(match direction {
            Direction::Outbound => self.outbound(&seen, octets),
            Direction::Inbound | Direction::Forward => self.inbound(&seen, octets),
        })
    }
}

impl Drop for Hosted<'_> {
    fn drop(&mut self) {
        self.backend.shut_down(OnStop::Open);
        // What a behaviour has left on purpose.
        for command in ["xfrm policy flush", "route flush table 220", "-6 route flush table 220"] {
            let words: Vec<&str> = ["ip"].into_iter().chain(command.split(' ')).collect();
            self.lab.try_exec("ga", &words);
        }
    }
}

fn own(address: IpAddr) -> bool {
    [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])].contains(&address)
}

fn ends(seen: &PacketSelectors) -> (SocketAddr, SocketAddr) {
    let (from, to) = seen.ports.unwrap();
    (SocketAddr::new(seen.source, from), SocketAddr::new(seen.destination, to))
}

/// A socket of ours; on the ports of IKE one as the daemon has.
fn udp(address: SocketAddr) -> Result<UdpSocket, HostError> {
    let socket = bound(address);
    if matches!(address.port(), 500 | 4500) {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        sockets::set_mark(socket.as_fd(), UserspaceConfig::default().mark)?;
        sockets::socket_bypass(&socket, family)?;
    }
    Ok(socket)
}

/// Sends a whole IP packet from the namespace of the thread.
fn send_raw(octets: &[u8], to: IpAddr) -> io::Result<()> {
    let address = destination(to);
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed; the descriptor is fresh.
    let socket = unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let sent = match address {
        Address::V4(address) => send(&socket, octets, &address),
        Address::V6(address) => send(&socket, octets, &address),
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

fn destination(to: IpAddr) -> Address {
    match to {
        IpAddr::V4(to) => Address::V4(libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.octets()) },
            sin_zero: [0; 8],
        }),
        IpAddr::V6(to) => Address::V6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as u16,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: to.octets() },
            sin6_scope_id: 0,
        }),
    }
}

fn send<A>(socket: &OwnedFd, octets: &[u8], address: &A) -> isize {
    // SAFETY: both pointers are valid for the lengths given during the call.
    unsafe {
        let length = size_of::<A>() as u32;
        libc::sendto(
            socket.as_raw_fd(),
            octets.as_ptr().cast(),
            octets.len(),
            0,
            std::ptr::from_ref(address).cast(),
            length,
        )
    }
}

fn saw(link: &Capture, wanted: &PacketSelectors) -> bool {
    let same = |octets: &Vec<u8>| packet::parse(octets).is_ok_and(|seen| seen.selectors == *wanted);
    link.packets().iter().any(same)
}

fn within_patience(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Addresses of the kit on both sides of gateway `a`.
fn lab() -> Lab {
    let lab = Lab::new(false);
    for command in
        ["addr del 10.1.0.1/24 dev lan", "addr add 10.1.0.254/24 dev lan", "-6 addr add fd00:1::fe/64 dev lan nodad"]
    {
        lab.exec("ga", &["ip"].into_iter().chain(command.split(' ')).collect::<Vec<_>>());
    }
    for command in [
        "addr add 10.1.0.1/24 dev lan",
        "route replace default via 10.1.0.254",
        "-6 addr add fd00:1::1/64 dev lan nodad",
        "-6 route replace default via fd00:1::fe",
    ] {
        lab.exec("la", &["ip"].into_iter().chain(command.split(' ')).collect::<Vec<_>>());
    }
    lab
}

/// Behaviours that did not end well. Most of their time is waiting, so several are exercised at once, each worker in a lab of its own.
fn ended() -> Vec<(&'static str, Verdict)> {
    const AT_ONCE: usize = 4;
    let (next, ended) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let lab = lab();
                while let Some(behaviour) = BEHAVIOURS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(verdict) = behaviour.check(&mut Hosted::start(&lab), OffloadMode::No) {
                        ended.lock().unwrap().push((behaviour.name, verdict));
                    }
                }
            });
        }
    });
    ended.into_inner().unwrap()
}

#[test]
fn the_backend_as_it_runs_keeps_what_needs_no_wire() {
    let _turn = turn();
    let ended = ended();
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let kept = |name: &&str| ended.iter().all(|(other, _)| other != name);
    assert!(HOST.iter().all(kept), "{ended:#?}");
    // Beside those, what needs neither wire nor faults: a third of the list.
    let kept = BEHAVIOURS.len() - ended.len();
    assert!(kept >= 39, "{kept} behaviours were shown: {ended:#?}");
}

/// What only a real host can show, and what the datapath fed by hand shows with a host made up.
const HOST: [&str; 6] = [
    "a_guard_blocks_both_ways_before_the_first_policy",
    "a_guard_yields_to_policies_and_outlives_them",
    "a_guard_stands_until_its_last_owner_removes_it",
    "a_guard_outlives_a_stop_that_blocks",
    "a_guard_goes_with_a_stop_that_opens",
    "ike_passes_whatever_is_protected",
];
