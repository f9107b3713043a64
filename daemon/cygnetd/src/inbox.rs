//! The inbox of a shard: several threads put, one takes, and a flood of datagrams delays nothing else.
//!
//! Four lanes. *Control* holds commands, backend reports, finished work and messages of other shards; each of these answers something that was
//! asked or is bounded by state, so the lane has no bound of its own. Datagrams come from anybody: beyond their bound they are dropped and
//! counted. *First requests*, which name no IKE SA of ours yet and are what a flood is made of, have lanes apart from the *others*, so that
//! established IKE SAs go on: one for those that show a valid COOKIE (*proven*), one for the rest. A turn takes everything from control and at
//! most a burst from each lane of datagrams.
//!
//! # What is bounded in the daemon, and what happens at the bound
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | datagrams in a socket | 4 MiB | the kernel drops; first requests have a socket of their own on the IKE port |
//! | first requests from the NAT-T port | 4096 of at most 8 KiB | dropped, counted, logged every 10 s |
//! | datagrams in each lane of an inbox | 4096 | dropped, counted, logged every 10 s |
//! | control lane of an inbox | answers to what was asked: jobs, backend requests, one question or command of each client | - |
//! | jobs of a shard | `init_limit_job_load` (256) for first requests; the rest one of each exchange | first requests stay in their lane |
//! | VICI clients | 2048 | turned away |
//! | octets of a VICI packet, and read ahead | 512 KiB, twice that | the client is cut off; it is not read from |
//! | packets of a VICI client that make no sense | 64 | the client is cut off |
//! | octets that wait for a VICI client | 512 KiB, each packet for at least 128 | events are lost and counted, answers wait for room |
//! | commands that wait | one of each client, 4096 in a shard | refused with a reason |

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipsec::{Instant, Path};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Datagrams waiting at most, in each lane.
const DATAGRAMS: usize = 4096;
/// Datagrams taken per turn.
const BURST: usize = 64;
/// First requests taken per turn, of each kind.
const FIRST_BURST: usize = 16;

/// A datagram on its way to the core.
pub(crate) struct Datagram {
    /// From where to where.
    pub(crate) path: Path,
    /// The IKE message.
    pub(crate) octets: Box<[u8]>,
}

struct Lanes<T> {
    control: VecDeque<T>,
    others: VecDeque<Datagram>,
    proven: VecDeque<Datagram>,
    first: VecDeque<Datagram>,
    awake: bool,
}

/// What one turn has to do.
pub(crate) struct Turn<T> {
    /// Everything from the control lane.
    pub(crate) control: VecDeque<T>,
    /// A burst from the datagram lane.
    pub(crate) datagrams: VecDeque<Datagram>,
}

/// The inbox.
pub(crate) struct Inbox<T> {
    lanes: Mutex<Lanes<T>>,
    wake: OwnedFd,
    timer: OwnedFd,
    dropped: AtomicU64,
}

impl<T> Inbox<T> {
    /// An empty inbox.
    pub(crate) fn new() -> io::Result<Self> {
        let lanes = Lanes {
            control: VecDeque::new(),
            others: VecDeque::new(),
            proven: VecDeque::new(),
            first: VecDeque::new(),
            awake: false,
        };
        Ok(Self {
            lanes: Mutex::new(lanes),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            dropped: AtomicU64::new(0),
        })
    }

    /// Puts into the control lane.
    pub(crate) fn control(&self, message: T) {
        let mut lanes = self.lock();
        lanes.control.push_back(message);
        self.wake(&mut lanes);
    }

    /// Puts a message for an IKE SA into its lane; drops it when that is full.
    pub(crate) fn datagram(&self, path: Path, octets: &[u8]) {
        self.put(path, octets, |lanes| &mut lanes.others);
    }

    /// Puts a first request into its lane; drops it when that is full. `proven` = it shows a valid COOKIE.
    pub(crate) fn first_request(&self, path: Path, octets: &[u8], proven: bool) {
        self.put(path, octets, |lanes| if proven { &mut lanes.proven } else { &mut lanes.first });
    }

    fn put(&self, path: Path, octets: &[u8], lane: impl Fn(&mut Lanes<T>) -> &mut VecDeque<Datagram>) {
        let mut lanes = self.lock();
        let lane = lane(&mut lanes);
        if lane.len() >= DATAGRAMS {
            drop(lanes);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lane.push_back(Datagram { path, octets: octets.into() });
        self.wake(&mut lanes);
    }

    /// Datagrams dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Messages waiting: control, datagrams.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let lanes = self.lock();
        (lanes.control.len(), lanes.others.len() + lanes.proven.len() + lanes.first.len())
    }

    /// What has come; waits until something does or `deadline` passes. Without `first` the lanes of first requests are left to fill up.
    pub(crate) fn turn(&self, deadline: Option<Instant>, first: bool) -> Turn<T> {
        let turn = self.take(first);
        if !turn.control.is_empty() || !turn.datagrams.is_empty() {
            return turn;
        }
        self.wait(deadline);
        self.take(first)
    }

    fn take(&self, first: bool) -> Turn<T> {
        let mut lanes = self.lock();
        let others = lanes.others.len().min(BURST);
        let burst = if first { FIRST_BURST } else { 0 };
        let (proven, first) = (lanes.proven.len().min(burst), lanes.first.len().min(burst));
        let mut datagrams: VecDeque<Datagram> = lanes.others.drain(..others).collect();
        datagrams.extend(lanes.proven.drain(..proven));
        datagrams.extend(lanes.first.drain(..first));
        let turn = Turn { control: std::mem::take(&mut lanes.control), datagrams };
        // What is left is taken by the next turn without waiting, or must not end its wait.
        if lanes.awake {
            lanes.awake = false;
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        turn
    }

    fn wake(&self, lanes: &mut MutexGuard<'_, Lanes<T>>) {
        if !lanes.awake {
            lanes.awake = true;
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// A timer of CLOCK_BOOTTIME rather than a time-out of `poll`, which would not count time spent asleep.
    fn wait(&self, deadline: Option<Instant>) {
        let at = deadline.map_or(Timespec::default(), |deadline| {
            let since = deadline.since_start();
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            // All zero would disarm the timer.
            Timespec { tv_sec: seconds, tv_nsec: i64::from(since.subsec_nanos()).max(1) }
        });
        let value = Itimerspec { it_interval: Timespec::default(), it_value: at };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value) {
            tracing::error!(%error, "cannot set a timer");
        }
        let fds: [BorrowedFd<'_>; 2] = [self.wake.as_fd(), self.timer.as_fd()];
        let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = rustix::event::poll(&mut polled, None);
    }

    fn lock(&self) -> MutexGuard<'_, Lanes<T>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a request with a responder's SPI of zero: one to establish an IKE SA. A response with that SPI answers one of ours.
pub(crate) fn is_first_request(octets: &[u8]) -> bool {
    let unknown = octets.get(8..16).is_none_or(|spi| spi.iter().all(|octet| *octet == 0));
    unknown && octets.get(FLAGS_AT).is_none_or(|flags| flags & RESPONSE == 0)
}

const FLAGS_AT: usize = 19;
const RESPONSE: u8 = 0x20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn path() -> Path {
        Path { local: "192.0.2.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() }
    }

    #[test]
    fn a_flood_is_bounded_and_the_rest_gets_through() {
        let inbox = Inbox::new().unwrap();
        for _ in 0..DATAGRAMS + 10 {
            inbox.first_request(path(), &[0; 28], false);
        }
        inbox.datagram(path(), &[1; 28]);
        inbox.first_request(path(), &[2; 28], true);
        inbox.control(7);
        assert_eq!(inbox.dropped(), 10);
        let turn = inbox.turn(None, true);
        assert_eq!((turn.control.len(), turn.datagrams.len()), (1, 2 + FIRST_BURST));
        assert_eq!(
            (turn.datagrams[0].octets[0], turn.datagrams[1].octets[0]),
            (1, 2),
            "known ones and proven ones first"
        );
        assert_eq!(inbox.waiting(), (0, DATAGRAMS - FIRST_BURST));
    }

    #[test]
    fn first_requests_can_be_left_waiting() {
        let inbox = Inbox::<()>::new().unwrap();
        inbox.first_request(path(), &[0; 28], false);
        let start = clock::now();
        assert!(inbox.turn(Some(start + Duration::from_millis(20)), false).datagrams.is_empty());
        inbox.datagram(path(), &[1; 28]);
        assert_eq!(inbox.turn(None, false).datagrams.len(), 1);
        assert_eq!(inbox.turn(None, true).datagrams.len(), 1);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let inbox = Inbox::<()>::new().unwrap();
        let start = clock::now();
        let turn = inbox.turn(Some(start + Duration::from_millis(50)), true);
        let waited = clock::now().saturating_since(start);
        assert!(turn.control.is_empty() && waited >= Duration::from_millis(50), "{waited:?}");
        inbox.turn(Some(start), true);
    }

    #[test]
    fn a_message_ends_the_wait() {
        let inbox = Arc::new(Inbox::new().unwrap());
        for round in 0..100 {
            let other = Arc::clone(&inbox);
            let thread = std::thread::spawn(move || other.control(round));
            let turn = inbox.turn(Some(clock::now() + Duration::from_secs(60)), true);
            assert_eq!(turn.control, [round]);
            thread.join().unwrap();
        }
    }
}
