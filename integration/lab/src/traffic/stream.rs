//! Sequence-numbered UDP: one sender at a fixed rate, one receiver, and an account of every single packet.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::net::sockopt;

use crate::topology::{Family, Site};

/// IP and UDP headers (IPv4): a stream of "1,400 B" has packets of 1,400 octets on the wire inside the tunnel.
const HEADERS_V4: usize = 28;
/// The same for IPv6.
const HEADERS_V6: usize = 48;
/// Starts each payload.
const MAGIC: &[u8; 8] = b"cygstrm1";
/// How long nothing may have come, after the last packet was sent, until what is missing is lost.
const GRACE: Duration = Duration::from_millis(1_000);
/// A sender that had no processor makes up for it this many times as fast as it sends otherwise, and not at once: queues on the way are made for
/// the rate that was asked for.
const HASTE: f64 = 4.0;
/// What may wait for a receiver that has no processor, octets.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Waits that end early keep the bursts of a paced stream short.
const PACE: Duration = Duration::from_micros(500);
/// The longest such wait.
const SLOW_PACE: Duration = Duration::from_millis(10);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Whole IP packet, octets.
    pub octets: usize,
    /// Packets in a second.
    pub rate: f64,
    /// Addresses inside the tunnel.
    pub family: Family,
}

/// The account of a finished stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Packets never received.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Runs of lost packets.
    pub gaps: Vec<Gap>,
    /// The time in which a packet was sent last, since the start.
    pub duration: Duration,
}

/// Consecutive packets that never arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream they belong to.
    pub stream: Arc<str>,
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// When the first was due, since the start of the stream.
    pub after: Duration,
}

impl Report {
    /// Adds another stream's account.
    pub fn add(&mut self, other: &Report) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.gaps.extend(other.gaps.iter().cloned());
        self.duration = self.duration.max(other.duration);
    }

    /// Whether each packet arrived exactly once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.sent > 0 && self.lost == 0 && self.duplicated == 0 && self.reordered == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} received {} lost {} duplicated {} reordered {}",
            self.sent, self.received, self.lost, self.duplicated, self.reordered
        )?;
        for Gap { stream, first, count, after } in self.gaps.iter().take(6) {
            write!(f, " [{stream}: {count} from #{first}, {:.2} s]", after.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A running stream between the hosts of two sites.
#[derive(Debug)]
pub struct Stream {
    name: Arc<str>,
    rate: f64,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    /// Zero until the sender has stopped; then one more than the packets sent.
    sent_all: Arc<AtomicU64>,
    sender: Option<JoinHandle<(u64, Duration)>>,
    receiver: Option<JoinHandle<Seen>>,
}

impl Stream {
    /// Starts sending from a site's host to the other's.
    ///
    /// # Errors
    /// The sockets could not be made.
    pub fn start(from: &Site, to: &Site, load: Load) -> anyhow::Result<Self> {
        let receiver = to.host.run(|| UdpSocket::bind(SocketAddr::new(to.host_address(load.family), 0)))??;
        let sender = from.host.run(|| UdpSocket::bind(SocketAddr::new(from.host_address(load.family), 0)))??;
        let mut stream = Self::between(sender, receiver, load)?;
        stream.name = name(from, to, load.family, load.octets).into();
        Ok(stream)
    }

    /// Starts sending from a socket to another.
    ///
    /// # Errors
    /// A socket has no address, or a thread could not start.
    pub fn between(sender: UdpSocket, receiver: UdpSocket, load: Load) -> anyhow::Result<Self> {
        // Beyond the system's own limit where we may.
        if sockopt::set_socket_recv_buffer_size_force(&receiver, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&receiver, RECEIVE_BUFFER)?;
        }
        receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
        sender.connect(receiver.local_addr()?)?;
        let headers = if matches!(load.family, Family::V4) { HEADERS_V4 } else { HEADERS_V6 };
        let payload = load.octets.saturating_sub(headers).max(16);
        let stop = Arc::new(AtomicBool::new(false));
        let sent_all = Arc::new(AtomicU64::new(0));
        let sent = Arc::new(AtomicU64::new(0));
        let (flag, count, total) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&sent_all));
        let sending = thread::Builder::new().name("stream sender".into()).spawn(move || {
            let outcome = send(&sender, payload, load.rate, &flag, &count);
            total.store(outcome.0 + 1, Ordering::Release);
            outcome
        })?;
        let total = Arc::clone(&sent_all);
        let receiving =
            thread::Builder::new().name("stream receiver".into()).spawn(move || receive(&receiver, &total))?;
        Ok(Stream {
            name: "stream".into(),
            rate: load.rate,
            stop,
            sent,
            sent_all,
            sender: Some(sending),
            receiver: Some(receiving),
        })
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is under way and gives the account.
    ///
    /// # Errors
    /// A thread of the stream panicked.
    pub fn finish(mut self) -> anyhow::Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, duration) = self.sender.take().and_then(|thread| thread.join().ok()).context("the sender failed")?;
        let seen = self.receiver.take().and_then(|thread| thread.join().ok()).context("the receiver failed")?;
        let mut report = seen.account(sent, duration);
        for gap in &mut report.gaps {
            gap.stream = Arc::clone(&self.name);
            gap.after = Duration::from_secs_f64(gap.first as f64 / self.rate);
        }
        Ok(report)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.sender.take() {
            let _ = thread.join();
        }
        // Also when the sender panicked, so that the receiver ends.
        self.sent_all.fetch_max(1, Ordering::Release);
        if let Some(thread) = self.receiver.take() {
            let _ = thread.join();
        }
    }
}

/// What a stream of packets of so many octets is called.
#[must_use]
pub fn name(from: &Site, to: &Site, family: Family, octets: usize) -> String {
    format!("{} to {}, {family:?}, {octets} B", from.side.letter(), to.side.letter())
}

/// The number of a packet of a stream, by its UDP payload; `None` for anything else.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u64> {
    let (magic, rest) = payload.split_first_chunk::<8>()?;
    let field = rest.first_chunk::<8>()?;
    (magic == MAGIC).then(|| u64::from_be_bytes(*field))
}

/// Runs streams for a while: `octets` sizes each way, and gives one account of all of them.
///
/// # Errors
/// As for starting and finishing one.
pub fn both_ways(a: &Site, b: &Site, loads: &[Load], time: Duration) -> anyhow::Result<Report> {
    let streams = start_both_ways(a, b, loads)?;
    thread::sleep(time);
    finish_all(streams)
}

/// Starts a stream of each load in each direction.
///
/// # Errors
/// The sockets could not be made.
pub fn start_both_ways(a: &Site, b: &Site, loads: &[Load]) -> anyhow::Result<Vec<Stream>> {
    for site in [a, b] {
        make_room(site);
    }
    let mut streams = Vec::new();
    for load in loads {
        streams.push(Stream::start(a, b, *load)?);
        streams.push(Stream::start(b, a, *load)?);
    }
    Ok(streams)
}

/// Devices by which packets come to a datapath in user space, ours and charon's.
const DEVICES: [&str; 2] = ["cygnet0", "ipsec0"];

/// The kernel keeps 500 packets for a reader that has no processor, and throws away what comes then: on a busy machine that would be told as a loss
/// of the tunnel's.
fn make_room(site: &Site) {
    // There is one of them at most, and none without a daemon.
    let _ = DEVICES.iter().any(|device| site.gateway.ip(&["link", "set", device, "txqueuelen", "10000"]).is_ok());
}

/// Ends streams and adds their accounts.
///
/// # Errors
/// A thread of a stream panicked.
pub fn finish_all(streams: Vec<Stream>) -> anyhow::Result<Report> {
    // All stop sending first, so that they share the wait for what is under way.
    for stream in &streams {
        stream.stop.store(true, Ordering::Relaxed);
    }
    let mut sum = Report::default();
    for stream in streams {
        sum.add(&stream.finish()?);
    }
    Ok(sum)
}

fn send(socket: &UdpSocket, payload: usize, rate: f64, stop: &AtomicBool, count: &AtomicU64) -> (u64, Duration) {
    let mut data = vec![0x5a; payload];
    let started = Instant::now();
    // Slow streams need not wake up so often.
    let pause = Duration::try_from_secs_f64(0.25 / rate).unwrap_or(PACE).clamp(PACE, SLOW_PACE);
    let most = (HASTE * rate * pause.as_secs_f64()).ceil() as u64;
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        let end = (due + 1).min(sent + most);
        while sent < end {
            if let Some(head) = data.get_mut(..16) {
                head.copy_from_slice(&header(sent));
            }
            // A refusal (an ICMP answer to an earlier packet, a full queue) counts as sent: the receiver will miss it.
            let _ = socket.send(&data);
            sent += 1;
        }
        count.store(sent, Ordering::Relaxed);
        thread::sleep(pause);
    }
    (sent, started.elapsed())
}

fn header(number: u64) -> [u8; 16] {
    let mut octets = [0; 16];
    let (magic, field) = octets.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    field.copy_from_slice(&number.to_be_bytes());
    octets
}

fn receive(socket: &UdpSocket, sent_all: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 65_536];
    let mut quiet_since = None;
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            seen.note(buffer.get(..length).unwrap_or_default());
            // More may wait, however long ago it came.
            quiet_since = None;
            continue;
        }
        let total = sent_all.load(Ordering::Acquire);
        if total == 0 {
            continue;
        }
        let quiet = quiet_since.get_or_insert_with(Instant::now).elapsed();
        // Everything is here: a short wait more still finds copies.
        if quiet >= if seen.received + 1 >= total { GRACE / 8 } else { GRACE } {
            return seen;
        }
    }
}

/// What the receiver knows.
#[derive(Debug, Default)]
struct Seen {
    numbers: Vec<bool>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    highest: Option<u64>,
}

impl Seen {
    fn note(&mut self, packet: &[u8]) {
        let Some(number) = number(packet) else { return };
        let Ok(index) = usize::try_from(number) else { return };
        if self.numbers.len() <= index {
            self.numbers.resize(index + 1, false);
        }
        let Some(known) = self.numbers.get_mut(index) else { return };
        if std::mem::replace(known, true) {
            self.duplicated += 1;
            return;
        }
        self.received += 1;
        self.reordered += u64::from(self.highest.is_some_and(|highest| number < highest));
        self.highest = self.highest.max(Some(number));
    }

    fn account(&self, sent: u64, duration: Duration) -> Report {
        let mut gaps: Vec<Gap> = Vec::new();
        for number in 0..sent {
            let arrived =
                usize::try_from(number).ok().and_then(|index| self.numbers.get(index)).is_some_and(|seen| *seen);
            match gaps.last_mut() {
                _ if arrived => {}
                Some(gap) if gap.first + gap.count == number => gap.count += 1,
                Some(_) | None => gaps.push(Gap { stream: "".into(), first: number, count: 1, after: Duration::ZERO }),
            }
        }
        let lost = sent.saturating_sub(self.received);
        Report {
            sent,
            received: self.received,
            lost,
            duplicated: self.duplicated,
            reordered: self.reordered,
            gaps,
            duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[u64], sent: u64) -> Report {
        let mut seen = Seen::default();
        for number in numbers {
            seen.note(&header(*number));
        }
        seen.account(sent, Duration::ZERO)
    }

    #[test]
    fn every_fate_is_counted() {
        let report = account(&[0, 1, 1, 4, 3, 6], 8);
        assert_eq!((report.received, report.lost, report.duplicated, report.reordered), (5, 3, 1, 1));
        assert_eq!(report.gaps.iter().map(|gap| (gap.first, gap.count)).collect::<Vec<_>>(), [(2, 1), (5, 1), (7, 1)]);
        assert!(!report.is_clean());
        assert!(account(&[0, 1, 2], 3).is_clean());
    }

    #[test]
    fn a_loopback_stream_is_complete() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        // So slow that the receiver's buffer holds all of it, whatever else the processors do meanwhile.
        let load = Load { octets: 64, rate: 100.0, family: Family::V4 };
        let stream = Stream::between(socket(), socket(), load).unwrap();
        while stream.sent() < 20 {
            thread::sleep(Duration::from_millis(10));
        }
        let report = stream.finish().unwrap();
        // As many as were due when the sender last looked, and one.
        let due = report.duration.as_secs_f64() * load.rate;
        assert!(report.is_clean() && report.sent >= 20 && report.sent as f64 <= due + 1.0, "{report}");
    }
}
