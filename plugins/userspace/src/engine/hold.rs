//! Packets that wait for an SA, and the acquires they raised.
//!
//! Each trap has at most one outstanding acquire and a bounded queue. A trap is armed again when its SPD entry is touched or the acquire has
//! aged; packets age by themselves.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipsec::{Instant, PolicyHandle};

/// Packets held for one policy at most.
pub const HOLD_PACKETS: usize = 64;
/// Octets held for one policy at most.
pub const HOLD_OCTETS: usize = 256 * 1024;
/// How long an acquire is outstanding and a packet waits.
pub const HOLD_AGE: Duration = Duration::from_secs(30);

/// A packet and since when it has been waiting.
pub(super) type Waiting = (Instant, Box<[u8]>);

struct Acquire {
    raised: Instant,
    serial: u64,
    packets: VecDeque<Waiting>,
    octets: usize,
}

/// All held packets of the transmitting thread.
#[derive(Default)]
pub(super) struct Hold {
    acquires: BTreeMap<PolicyHandle, Acquire>,
}

/// What became of a packet that met a trap.
pub(super) struct Held {
    /// Whether an acquire is to be raised.
    pub(super) raise: bool,
    /// Whether the packet found room.
    pub(super) kept: bool,
}

impl Hold {
    pub(super) fn is_empty(&self) -> bool {
        self.acquires.is_empty()
    }

    /// Keeps a packet that met the trap `policy` in its state `serial`.
    pub(super) fn keep(
        &mut self,
        policy: PolicyHandle,
        serial: u64,
        packet: &[u8],
        since: Instant,
        now: Instant,
    ) -> Held {
        let mut raise = false;
        let acquire = self.acquires.entry(policy).or_insert_with(|| {
            raise = true;
            Acquire { raised: now, serial, packets: VecDeque::new(), octets: 0 }
        });
        if acquire.serial != serial || now.saturating_since(acquire.raised) >= HOLD_AGE {
            raise = true;
            (acquire.raised, acquire.serial) = (now, serial);
        }
        let kept = acquire.packets.len() < HOLD_PACKETS && acquire.octets + packet.len() <= HOLD_OCTETS;
        if kept {
            acquire.octets += packet.len();
            acquire.packets.push_back((since, packet.into()));
        }
        Held { raise, kept }
    }

    /// Takes out all packets that are not aged, policy by policy, in the order they came; returns them with the number of aged ones. The
    /// acquires stay.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<Waiting>, usize) {
        let (mut packets, mut aged) = (Vec::new(), 0);
        for acquire in self.acquires.values_mut() {
            acquire.octets = 0;
            for (since, packet) in acquire.packets.drain(..) {
                if now.saturating_since(since) < HOLD_AGE {
                    packets.push((since, packet));
                } else {
                    aged += 1;
                }
            }
        }
        (packets, aged)
    }

    /// Forgets acquires that hold nothing and have aged.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.acquires
            .retain(|_, acquire| !acquire.packets.is_empty() || now.saturating_since(acquire.raised) < HOLD_AGE);
    }
}
