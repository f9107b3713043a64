//! What happens to the machine: its addresses and routes change, it sleeps and wakes. Every shard is told.
//!
//! Sleep is seen by the two clocks of which only one counts it (see [`crate::clock::Naps`]). A timer of the wall clock that the kernel cancels
//! when that clock is set, as it is on waking, makes us look at once; a mere step of the wall clock is looked at and means nothing.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use offload_host::Watch;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use crate::router::{Message, Router};

/// Changes come in bursts, an address with its routes and its link. The first is told at once, the rest when it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(50);
/// which is waited for at most so many times.
const PATIENCE: u32 = 10;
/// The wall clock's timer is for being cancelled, not for running out.
const FAR: i64 = 1 << 40;

/// The watching thread. Dropping it ends the thread.
pub(crate) struct Surroundings {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Surroundings {
    /// Tells every shard the present addresses and goes on watching. `device` is our tunnel device, `listen` the only addresses to use unless empty.
    ///
    /// # Errors
    /// One sentence when the kernel does not let us listen.
    pub(crate) fn start(device: Option<&str>, listen: &[IpAddr], router: Arc<Router>) -> anyhow::Result<Self> {
        let watch = Watch::open(device).context("cannot hear of changes of addresses and routes")?;
        let clock = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .context("cannot make a timer")?;
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut watcher = Watcher { watch, clock, listen: listen.to_vec(), router };
        watcher.arm();
        watcher.tell();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("surroundings".into()).spawn(move || watcher.run(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watcher {
    watch: Watch,
    clock: OwnedFd,
    listen: Vec<IpAddr>,
    router: Arc<Router>,
}

impl Watcher {
    fn run(&mut self, stop: &OwnedFd) {
        loop {
            let ready = match wait([stop.as_fd(), self.watch.as_fd(), self.clock.as_fd()], None) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "cannot hear of changes of addresses any more");
                    return;
                }
            };
            let [stopped, network, clock] = ready;
            if stopped {
                return;
            }
            if clock {
                self.arm();
                // Each shard looks at the clocks before it does anything.
                self.router.tell_all(|| Message::Awake);
            }
            if network && self.watch.heard() {
                // At once, because a lost address costs packets; and again if it was only the beginning.
                self.tell();
                if self.settle() {
                    self.tell();
                }
            }
        }
    }

    /// Lets a burst of changes pass; the answer is whether there were more.
    fn settle(&mut self) -> bool {
        let mut more = false;
        for _ in 0..PATIENCE {
            match wait([self.watch.as_fd()], Some(QUIET)) {
                Ok([true]) => more |= self.watch.heard(),
                Ok([false]) | Err(_) => break,
            }
        }
        more
    }

    fn tell(&mut self) {
        match self.watch.addresses() {
            Ok(mut addresses) => {
                addresses.retain(|address| self.listen.is_empty() || self.listen.contains(address));
                tracing::debug!(?addresses, "addresses or routes of this machine have changed");
                let addresses: Arc<[IpAddr]> = addresses.into();
                self.router.tell_all(|| Message::Network(Arc::clone(&addresses)));
            }
            Err(error) => tracing::warn!(%error, "the addresses of this machine cannot be read"),
        }
    }

    fn arm(&self) {
        // Whatever it says: that it was cancelled is known.
        let _ = rustix::io::read(&self.clock, &mut [0; 8]);
        let at = Itimerspec { it_interval: Timespec::default(), it_value: Timespec { tv_sec: FAR, tv_nsec: 0 } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        if let Err(error) = timerfd_settime(&self.clock, flags, &at) {
            tracing::warn!(%error, "waking up will be noticed late");
        }
    }
}

/// Which of these can be read.
fn wait<const N: usize>(fds: [std::os::fd::BorrowedFd<'_>; N], most: Option<Duration>) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let most = most.map(|most| Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(most.subsec_nanos()),
    });
    match rustix::event::poll(&mut polled, most.as_ref()) {
        Ok(_) => Ok(polled.map(|entry| !entry.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}
