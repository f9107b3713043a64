//! What the tests are made of: trials with a watchdog, shares between machines, places joined by a link, `ip`.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::capture::{Capture, Captured};
use lab::netns::Namespace;
use lab::process::{Process, wait_until};
use lab::topology::Family;
use lab::traffic::ping::ping;
use libtest_mimic::Trial;

/// After this a test counts as hanging, and the machine ends: the next ones would not tell anything.
const LONGEST_TEST: Duration = Duration::from_secs(150);

/// Which share of the tests this machine has: its number and how many there are.
pub(crate) fn share() -> Option<(usize, usize)> {
    let text = std::env::var("CYGNET_GUEST_SHARE").ok()?;
    let (index, count) = text.split_once('/')?;
    Some((index.parse().ok()?, count.parse().ok()?))
}

/// Every so many-th test.
pub(crate) fn of_share(trials: Vec<Trial>, index: usize, count: usize) -> Vec<Trial> {
    let own = |number: usize| number % count.max(1) == index;
    trials.into_iter().enumerate().filter(|(number, _)| own(*number)).map(|(_, trial)| trial).collect()
}

/// A test of the guest.
pub(crate) fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    trial_within(LONGEST_TEST, name, test)
}

/// A test that may wait for longer than others, on the guest's clock.
pub(crate) fn trial_within(
    limit: Duration,
    name: &str,
    test: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let title = name.to_owned();
    Trial::test(name, move || {
        let _watchdog = Watchdog::start(title, limit);
        let words =
            |error: anyhow::Error| error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n\ncause: ");
        test().map_err(|error| words(error).into())
    })
}

/// Ends the whole program when a test takes too long.
struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(title: String, limit: Duration) -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("hangs\nguest: {title} has not ended after {} s", limit.as_secs());
                std::process::exit(3);
            }
        });
        Watchdog { _alive: alive }
    }
}

/// The name of the interface that joins the two places of a [`Pair`].
pub(crate) const WIRE: &str = "wire";

/// Two places joined by a link: `192.0.2.1` and `2001:db8::1` on one side, `.2` and `::2` on the other.
pub(crate) struct Pair {
    /// The side with `.1`.
    pub(crate) a: Namespace,
    /// The side with `.2`.
    pub(crate) b: Namespace,
}

impl Pair {
    /// Joined by a pair of virtual Ethernet devices.
    pub(crate) fn veth() -> anyhow::Result<Self> {
        let pair = Self::apart()?;
        let (a, b) = (pair.a.name(), pair.b.name());
        pair.a.ip(&["link", "add", WIRE, "netns", a, "type", "veth", "peer", "name", WIRE, "netns", b])?;
        pair.join()?;
        Ok(pair)
    }

    /// Two places without a link.
    pub(crate) fn apart() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = |letter| Namespace::new(&format!("pair{number}-{letter}"));
        Ok(Pair { a: place("a")?, b: place("b")? })
    }

    /// Gives the link its addresses and waits until it carries.
    pub(crate) fn join(&self) -> anyhow::Result<()> {
        for (place, host) in [(&self.a, 1), (&self.b, 2)] {
            place.ip(&["addr", "add", &format!("192.0.2.{host}/24"), "dev", WIRE])?;
            place.ip(&["addr", "add", &format!("2001:db8::{host}/64"), "dev", WIRE, "nodad"])?;
            place.ip(&["link", "set", WIRE, "up"])?;
        }
        for place in [&self.a, &self.b] {
            let carries = || place.ip(&["link", "show", "dev", WIRE]).is_ok_and(|text| text.contains("LOWER_UP"));
            ensure!(wait_until(Duration::from_secs(3), carries), "the link of {} has no carrier", place.name());
        }
        Ok(())
    }

    /// The addresses of both sides.
    pub(crate) fn addresses(family: Family) -> (IpAddr, IpAddr) {
        let address = |host: u8| match family {
            Family::V4 => IpAddr::from([192, 0, 2, host]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)]),
        };
        (address(1), address(2))
    }

    /// How many of so many echo requests from A are answered.
    pub(crate) fn ping(&self, family: Family, count: u16) -> anyhow::Result<u16> {
        let (a, b) = Self::addresses(family);
        ping(&self.a, a, b, count, Duration::from_millis(1_000))
    }

    /// Captures what B's side of the link carries.
    pub(crate) fn capture(&self) -> anyhow::Result<Capture> {
        Capture::start(&self.b, WIRE, &[], 1_000)
    }

    /// Ends a capture of B's side.
    pub(crate) fn finish(&self, capture: Capture) -> anyhow::Result<Captured> {
        capture.finish(&self.b, WIRE)
    }
}

/// Runs `ip` with one line of words in a place.
pub(crate) fn ip(place: &Namespace, line: &str) -> anyhow::Result<String> {
    place.ip(&line.split_whitespace().collect::<Vec<_>>())
}

/// Starts a program that goes on by itself; its output is in [`Process::output`].
pub(crate) fn start(place: &Namespace, line: &str) -> anyhow::Result<Process> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut words = line.split_whitespace();
    let program = words.next().context("a line names a program")?;
    let log = lab::enter::directory().join(format!("process-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
    Process::start(place, Path::new(program), &words.collect::<Vec<_>>(), &[], &log)
}
