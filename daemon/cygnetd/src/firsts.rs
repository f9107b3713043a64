//! First requests that came with other datagrams: several threads put, one takes.
//!
//! What comes to the NAT-T port is read by the backend together with ESP; its threads only put first requests here, which costs them little.
//! Beyond the bound they are dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ipsec::Path;
use rustix::event::EventfdFlags;

use crate::inbox::Datagram;

/// First requests waiting at most.
const WAITING: usize = 4096;
/// The longest that waits. Nobody's first request is longer, and the queue is to be small whatever is sent.
const LONGEST: usize = 8192;

/// The queue.
pub(crate) struct Firsts {
    waiting: Mutex<VecDeque<Datagram>>,
    wake: OwnedFd,
    dropped: AtomicU64,
}

impl Firsts {
    /// An empty queue.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            dropped: AtomicU64::new(0),
        })
    }

    /// Puts one in; drops it when the queue is full.
    pub(crate) fn put(&self, path: Path, octets: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING || octets.len() > LONGEST {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(Datagram { path, octets: octets.into() });
        if waiting.len() == 1 {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes all out.
    pub(crate) fn take(&self) -> VecDeque<Datagram> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_empty() {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        std::mem::take(&mut waiting)
    }

    /// Requests dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl AsFd for Firsts {
    /// Readable while something waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let firsts = Firsts::new().unwrap();
        let path = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap() };
        (0..WAITING + 7).for_each(|_| firsts.put(path, &[0; 28]));
        firsts.put(path, &vec![0; LONGEST + 1]);
        assert_eq!((firsts.dropped(), firsts.take().len()), (8, WAITING));
        assert_eq!(firsts.take().len(), 0);
        firsts.put(path, &[0; 28]);
        assert_eq!(firsts.take().len(), 1);
    }
}
