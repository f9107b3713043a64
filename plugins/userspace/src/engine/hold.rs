//! Packets that wait for an SA, and the acquires they raised.
//!
//! Each trap has at most one outstanding acquire and a bounded queue, and all queues together are bounded too. What comes first stays: it
//! opens connections, and what follows would be repeated anyway; what finds no room is dropped and counted. A trap is armed again when its
//! SPD entry is touched or the acquire has aged; then the first packet held, or the next one, asks. Packets age by themselves.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipsec::{Instant, PolicyHandle};

/// Packets held for one policy at most.
pub const HOLD_PACKETS: usize = 64;
/// Octets held for one policy at most.
pub const HOLD_OCTETS: usize = 256 * 1024;
/// Packets held for all policies together at most.
pub const HOLD_PACKETS_IN_ALL: usize = 8 * 1024;
/// Octets held for all policies together at most.
pub const HOLD_OCTETS_IN_ALL: usize = 8 << 20;
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
    packets: usize,
    octets: usize,
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
        let kept = acquire.packets.len() < HOLD_PACKETS
            && acquire.octets + packet.len() <= HOLD_OCTETS
            && self.packets < HOLD_PACKETS_IN_ALL
            && self.octets + packet.len() <= HOLD_OCTETS_IN_ALL;
        if kept {
            acquire.octets += packet.len();
            acquire.packets.push_back((since, packet.into()));
            self.packets += 1;
            self.octets += packet.len();
        }
        Held { raise, kept }
    }

    /// Takes out all packets that are not aged, policy by policy, in the order they came; returns them with the number of aged ones. The
    /// acquires stay.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<Waiting>, usize) {
        let (mut packets, mut aged) = (Vec::with_capacity(self.packets), 0);
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
        (self.packets, self.octets) = (0, 0);
        (packets, aged)
    }

    /// Forgets acquires that hold nothing and have aged.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.acquires
            .retain(|_, acquire| !acquire.packets.is_empty() || now.saturating_since(acquire.raised) < HOLD_AGE);
    }
}

#[cfg(test)]
mod tests {
    use ipsec::Shard;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::new(Duration::from_secs(seconds))
    }

    /// Packets kept of so many that come to one trap, and acquires raised.
    fn offer(hold: &mut Hold, policy: u64, count: usize, octets: usize, now: u64) -> (usize, usize) {
        let handle = PolicyHandle::new(Shard(0), policy);
        let packet = vec![0; octets];
        let outcomes: Vec<Held> = (0..count).map(|_| hold.keep(handle, 1, &packet, at(now), at(now))).collect();
        (outcomes.iter().filter(|held| held.kept).count(), outcomes.iter().filter(|held| held.raise).count())
    }

    #[test]
    fn queues_are_bounded_each_and_all_together() {
        let mut hold = Hold::default();
        assert_eq!(offer(&mut hold, 0, 10_000, 100, 0), (HOLD_PACKETS, 1));
        assert_eq!(offer(&mut hold, 1, 100, 20_000, 0), (HOLD_OCTETS / 20_000, 1), "octets of one");
        let mut hold = Hold::default();
        let kept: usize = (0..1_000).map(|policy| offer(&mut hold, policy, 20, 40, 0).0).sum();
        assert_eq!(kept, HOLD_PACKETS_IN_ALL);
        let mut hold = Hold::default();
        let outcomes: Vec<_> = (0..1_000).map(|policy| offer(&mut hold, policy, 60, 4_000, 0)).collect();
        assert_eq!(outcomes.iter().map(|(kept, _)| kept).sum::<usize>(), HOLD_OCTETS_IN_ALL / 4_000);
        assert_eq!(outcomes.iter().map(|(_, raised)| raised).sum::<usize>(), 1_000, "each asks, with or without room");
        assert_eq!(hold.take(at(1)).0.len(), HOLD_OCTETS_IN_ALL / 4_000);
        assert_eq!(offer(&mut hold, 0, 1, 4_000, 1), (1, 0), "there is room again");
    }

    #[test]
    fn packets_and_acquires_age() {
        let mut hold = Hold::default();
        offer(&mut hold, 0, 3, 40, 0);
        offer(&mut hold, 0, 2, 40, 20);
        let (packets, aged) = hold.take(at(30));
        assert_eq!((packets.len(), aged), (2, 3));
        assert_eq!(offer(&mut hold, 0, 2, 40, 30), (2, 1), "the acquire has aged too");
        assert_eq!(hold.take(at(59)).0.len(), 2);
        hold.sweep(at(59));
        assert!(!hold.is_empty());
        hold.sweep(at(60));
        assert!(hold.is_empty());
    }
}
