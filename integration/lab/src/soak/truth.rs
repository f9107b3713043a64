//! How often CHILD SAs were rekeyed and how often both ends did so at once: by the daemons' own word, and as the path has seen it.
//!
//! A daemon says each switch to a successor once, and says it when its own rekeying has lost against the peer's (RFC 7296 §2.8.1); of a
//! collision one end says so. The path sees CREATE_CHILD_SA exchanges of both ends that overlap, of the same or of different children; what
//! they are about is encrypted. And it sees SPIs in use.

use std::collections::BTreeSet;
use std::fmt;

use lab::capture::Captured;
use lab::peer::Daemon;
use lab::relay::{IkeSeen, Relay, overlapping};

/// What a daemon has to log so that this can be counted.
pub(super) const LOG: &str = "info,ike_sa::exchange::create_child=debug";
/// A switch to a successor, in the words of Cygnet and of charon.
const REKEYED: [&str; 2] = ["rekeyed CHILD_SA ", "] outbound CHILD_SA "];
/// A rekeying that has lost a collision.
const LOST: [&str; 2] = ["collision lost ", "CHILD_SA rekey collision lost"];
/// CREATE_CHILD_SA (RFC 7296 §3.1).
const CREATE_CHILD_SA: u8 = 36;

/// Counts from a moment on.
pub(super) struct Watcher<'lab> {
    gateways: &'lab [Daemon<'lab>; 2],
    relay: &'lab Relay,
    /// Octets of the logs, and IKE messages, that were there before.
    logged: [usize; 2],
    seen: usize,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// Switches to a successor at gateway A.
    pub(super) rekeys: u64,
    /// The same at gateway B.
    rekeys_at_b: u64,
    /// Collisions that were decided.
    pub(super) collided: u64,
    /// Exchanges of A and B that overlapped on the way.
    crossed: usize,
    /// Rekeyings that each end began.
    begun: [usize; 2],
}

impl<'lab> Watcher<'lab> {
    pub(super) fn start(gateways: &'lab [Daemon<'lab>; 2], relay: &'lab Relay) -> Self {
        Watcher {
            gateways,
            relay,
            logged: gateways.each_ref().map(|daemon| daemon.log().len()),
            seen: relay.ike_count(),
        }
    }

    pub(super) fn so_far(&self) -> Truth {
        let [a, b] = self.gateways;
        let count = |daemon: &Daemon<'_>, skip: usize| {
            let log = daemon.log();
            let new = log.get(skip..).unwrap_or_default();
            [REKEYED, LOST].map(|words| words.iter().map(|words| new.matches(words).count() as u64).sum::<u64>())
        };
        let [rekeys, lost] = count(a, self.logged[0]);
        let [rekeys_at_b, lost_at_b] = count(b, self.logged[1]);
        let seen = self.relay.ike_seen(self.seen);
        let begun = [true, false].map(|left| begun(&seen, left));
        let crossed = overlapping(&seen, CREATE_CHILD_SA);
        Truth { rekeys, rekeys_at_b, collided: lost + lost_at_b, crossed, begun }
    }
}

impl Truth {
    /// Both ends have switched as often; one of them may be a trip behind.
    pub(super) fn ends_agree(&self) -> bool {
        self.rekeys.abs_diff(self.rekeys_at_b) <= 2
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rekeyed {} times by A's word, {} by B's; begun by A {}, by B {}; collided {}, exchanges that crossed on the way {}",
            self.rekeys, self.rekeys_at_b, self.begun[0], self.begun[1], self.collided, self.crossed
        )
    }
}

/// CREATE_CHILD_SA requests of one end, repetitions counted once.
fn begun(seen: &[IkeSeen], from_left: bool) -> usize {
    let requests = seen.iter().filter(|message| {
        message.exchange == CREATE_CHILD_SA && message.from_left == from_left && !message.is_response
    });
    requests.map(|message| (message.spis, message.message_id)).collect::<BTreeSet<_>>().len()
}

/// Pairs of SPIs in use beyond the first of each child.
pub(super) fn successors(captured: &[Captured; 2], children: usize) -> u64 {
    let spis: BTreeSet<u32> = captured.iter().flat_map(|side| side.counts.by_spi.keys().copied()).collect();
    (spis.len() / 2).saturating_sub(children) as u64
}
