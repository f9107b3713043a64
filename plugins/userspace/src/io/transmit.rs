//! The transmitting thread: from the tunnel device through [`Outbound`] to the outer sockets.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mmsg::{SEND_BATCH, Send, SendBuffers};
use super::offload::segment::{complete, segment};
use super::offload::{self, Header, Kind};
use super::socket::{Answers, OuterSocket};
use super::wake::Wake;
use crate::drops::Reason;
use crate::engine::{Batch, Datagram, Outbound, Shared, Sink};

/// What the threads share about I/O.
pub(crate) struct Wires {
    /// All outer sockets.
    pub(crate) sockets: ArcSwap<Vec<Arc<OuterSocket>>>,
    /// For ICMP errors.
    pub(crate) answers: Answers,
    /// Queue of the tunnel device; `None` while there is no device.
    pub(crate) tun: ArcSwap<Option<OwnedFd>>,
    /// Set when a packet did not fit the outer path.
    pub(crate) path_mtu_stale: AtomicBool,
    /// Ends the threads.
    pub(crate) stop: AtomicBool,
    pub(crate) transmit_wake: Wake,
    pub(crate) receive_wake: Wake,
    /// Called by the transmitting thread when the device is lost.
    pub(crate) device_lost: Box<dyn Fn() + std::marker::Send + Sync>,
}

/// Packets read before they are processed.
const READ_PACKETS: usize = 64;
/// Packets they may become when large ones are cut.
const READ_RANGES: usize = 4096;
const READ_ARENA: usize = 1 << 20;
/// Room for a largest packet with its header, and for its segments with headers of their own.
const READ_ROOM: usize = 256 * 1024;
/// Datagrams in one send, and their octets: what the kernel takes at most.
const JOINED: usize = 64;
const JOINED_OCTETS: usize = 65_000;
/// Held packets age and time passes even when nothing else happens.
const IDLE: Duration = Duration::from_secs(1);
/// How long a full socket buffer may stop the thread before a packet is given up.
const SEND_PATIENCE: Duration = Duration::from_millis(20);

/// Runs until told to stop.
pub(crate) fn run(shared: &Arc<Shared>, wires: &Wires) {
    let mut outbound = Outbound::new(Arc::clone(shared));
    let mut batch = Batch::default();
    let mut wire = Wire { shared: Arc::clone(shared), wires, buffers: SendBuffers::new(), single: 0 };
    let mut reader = Reader::new();
    let mut settled = super::now();
    while !wires.stop.load(Relaxed) {
        let tun = wires.tun.load_full();
        let ready = wait(tun.as_ref().as_ref(), &wires.transmit_wake);
        let now = super::now();
        if ready.woken {
            wires.transmit_wake.clear();
        }
        if ready.woken || outbound.is_unsettled() || now.saturating_since(settled) >= IDLE {
            outbound.settle(now, &mut batch, &mut wire);
            settled = now;
        }
        if let (true, Some(tun)) = (ready.readable, tun.as_ref()) {
            let outcome = reader.read(tun, shared);
            outbound.process(reader.packets(), now, &mut batch, &mut wire);
            if let Err(error) = outcome {
                tracing::warn!(%error, "the tunnel device is lost");
                wires.tun.store(Arc::new(None));
                (wires.device_lost)();
            }
        }
        if !batch.is_empty() {
            wire.transmit(&mut batch);
            batch.clear();
        }
    }
}

struct Ready {
    readable: bool,
    woken: bool,
}

fn wait(tun: Option<&OwnedFd>, wake: &Wake) -> Ready {
    let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(wake, PollFlags::empty())];
    if let (Some(tun), [_, second]) = (tun, &mut fds) {
        *second = PollFd::new(tun, PollFlags::IN);
    }
    // An interrupted wait looks like one in which nothing happened.
    let _ = poll(&mut fds, Some(&timeout));
    let [woken, readable] = fds.map(|fd| fd.revents());
    Ready { readable: tun.is_some() && !readable.is_empty(), woken: !woken.is_empty() }
}

/// Reads packets of the tunnel device into one arena, large ones cut behind where they were read.
struct Reader {
    arena: Box<[u8]>,
    ranges: Vec<Range<usize>>,
}

impl Reader {
    fn new() -> Self {
        Self { arena: vec![0; READ_ARENA].into_boxed_slice(), ranges: Vec::with_capacity(READ_RANGES) }
    }

    /// Reads what waits. An error means that the device is gone; packets read before are kept.
    fn read(&mut self, tun: &OwnedFd, shared: &Shared) -> io::Result<()> {
        self.ranges.clear();
        let mut used = 0;
        for _ in 0..READ_PACKETS {
            let Some(room) = self.arena.get_mut(used..).filter(|room| room.len() >= READ_ROOM) else { break };
            match rustix::io::read(tun, &mut *room) {
                Ok(length) => match take(room, length, used, &mut self.ranges) {
                    Some(taken) => used += taken,
                    None => shared.count(Reason::MalformedInner),
                },
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().map(|range| self.arena.get(range.clone()).unwrap_or_default())
    }
}

/// Turns what one read left at the start of `room` (which lies at `base`) into packets; returns the octets used.
fn take(room: &mut [u8], length: usize, base: usize, ranges: &mut Vec<Range<usize>>) -> Option<usize> {
    let (front, behind) = room.split_at_mut_checked(length)?;
    let header = Header::read(*front.first_chunk()?)?;
    let packet = front.get_mut(offload::HEADER..)?;
    if header.kind == Kind::Single {
        if header.partial_checksum {
            complete(packet, &header);
        }
        ranges.push(base + offload::HEADER..base + length);
        return Some(length);
    }
    let mut at = base + length;
    let used = segment(packet, &header, behind, |length| {
        ranges.push(at..at + length);
        at += length;
    })?;
    Some(length + used)
}

/// Sends batches.
struct Wire<'a> {
    shared: Arc<Shared>,
    wires: &'a Wires,
    buffers: SendBuffers,
    /// Datagrams that must be sent one by one because the kernel refused them together.
    single: usize,
}

impl Sink for Wire<'_> {
    fn transmit(&mut self, batch: &mut Batch) {
        let sockets = self.wires.sockets.load();
        let mut first = 0;
        while let Some((head, _)) = batch.datagrams().nth(first) {
            let count = batch.datagrams().skip(first).take_while(|(datagram, _)| datagram.goes_with(head)).count();
            let port = head.path.encapsulation.map(|ports| ports.local_port);
            // A socket bound to the very address comes before one bound to all.
            let fit = |socket: &&Arc<OuterSocket>| socket.suits(head.path.local, port);
            let exact = sockets.iter().filter(fit).find(|socket| socket.local.ip() == head.path.local);
            match exact.or_else(|| sockets.iter().find(fit)) {
                Some(socket) if head.dont_fragment || !head.path.remote.is_ipv4() => {
                    self.send(socket, batch, first, count);
                }
                Some(socket) => {
                    // IKE that leaves through the same socket meanwhile may be fragmented too: no harm.
                    socket.set_fragmentable(true);
                    self.send(socket, batch, first, count);
                    socket.set_fragmentable(false);
                }
                None => (0..count).for_each(|_| self.shared.count(Reason::NoSocket)),
            }
            first += count;
        }
        for reply in batch.replies() {
            if let Err(error) = self.wires.answers.send(reply) {
                tracing::debug!(%error, "cannot send an ICMP error");
            }
        }
    }
}

impl Wire<'_> {
    /// Sends `count` datagrams of one path from the `first`-th on.
    fn send(&mut self, socket: &OuterSocket, batch: &Batch, first: usize, count: usize) {
        let (mut at, end) = (first, first + count);
        self.single = 0;
        while at < end {
            let (mut sends, mut filled, mut next) = ([EMPTY; SEND_BATCH], 0, at);
            for place in &mut sends {
                let join = socket.segments.load(Relaxed) && next >= at + self.single;
                let Some((send, length)) = next_send(join, batch, next, end) else { break };
                *place = send;
                next += length;
                filled += 1;
            }
            let Some(chosen) = sends.get(..filled).filter(|chosen| !chosen.is_empty()) else { return };
            let done = self.push(socket, chosen);
            self.single = self.single.saturating_sub(done);
            at += done;
        }
    }

    /// Hands sends to the kernel and returns how many datagrams are dealt with.
    fn push(&mut self, socket: &OuterSocket, sends: &[Send<'_>]) -> usize {
        match self.buffers.send(socket, sends) {
            Ok(sent) => sends.iter().take(sent).map(datagrams_in).sum(),
            Err(error) => self.refused(socket, sends, &error),
        }
    }

    /// The first of `sends` was refused: waits, or gives up what it holds.
    fn refused(&mut self, socket: &OuterSocket, sends: &[Send<'_>], error: &io::Error) -> usize {
        let lost = sends.first().map_or(0, datagrams_in);
        let joined = sends.first().is_some_and(|send| send.segment.is_some());
        match error.raw_os_error() {
            Some(libc::EIO | libc::EOPNOTSUPP) if joined => {
                tracing::info!("the outer link does not take joined datagrams");
                socket.segments.store(false, Relaxed);
                return 0;
            }
            // Too large for the path, or more than a path with this MTU takes at once: each by itself shows which.
            Some(libc::EINVAL | libc::EMSGSIZE) if joined => {
                self.single = lost;
                return 0;
            }
            Some(libc::EINTR) => return 0,
            Some(libc::EAGAIN | libc::ENOBUFS) if wait_writable(socket) => return 0,
            Some(libc::EMSGSIZE) => self.wires.path_mtu_stale.store(true, Relaxed),
            _ => {}
        }
        tracing::debug!(%error, "cannot send ESP");
        (0..lost).for_each(|_| self.shared.count(Reason::SendFailed));
        lost
    }
}

const EMPTY: Send<'static> = Send {
    octets: &[],
    local: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    remote: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    class: 0,
    hops: None,
    options: &[],
    segment: None,
};

/// Datagrams the kernel makes of a send.
fn datagrams_in(send: &Send<'_>) -> usize {
    send.segment.map_or(1, |segment| send.octets.len().div_ceil(usize::from(segment).max(1)))
}

/// The next send from the `at`-th datagram on, and how many datagrams it holds.
fn next_send(join: bool, batch: &Batch, at: usize, end: usize) -> Option<(Send<'_>, usize)> {
    let (head, octets): (&Datagram, &[u8]) = batch.datagrams().nth(at).filter(|_| at < end)?;
    let port = head.path.encapsulation.map_or(0, |ports| ports.remote_port);
    let remote = SocketAddr::new(head.path.remote, port);
    let most = if join { JOINED.min(JOINED_OCTETS / octets.len().max(1)).min(end - at) } else { 1 };
    let count = batch.equal_run(at, most);
    let segment = if count > 1 { u16::try_from(octets.len()).ok() } else { None };
    let octets = if segment.is_some() { batch.run(at, count) } else { octets };
    let (local, options) = (head.path.local, batch.options(head));
    let send = Send { octets, local, remote, class: head.class, hops: head.hops, options, segment };
    Some((send, if segment.is_some() { count } else { 1 }))
}

fn wait_writable(socket: &OuterSocket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(SEND_PATIENCE.subsec_nanos()) };
    poll(&mut fds, Some(&patience)).is_ok_and(|ready| ready > 0)
}
