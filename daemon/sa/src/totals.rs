//! What a child has carried over its generations: counters of an SA begin at nothing with each rekeying, these go on.
//!
//! A generation has the sum of its predecessors and itself. What comes late for one that is replaced, while it only lingers, is counted for all
//! that came after it too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ike_model::snapshot::Carried;
use ipsec::Direction;

use crate::gauge::Each;

/// The sums of one generation of a child and of those before it, under one IKE SA and its successors.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    inbound: Sum,
    outbound: Sum,
    /// Two where both ends have rekeyed it, as long as it is not decided which one stays.
    successors: Mutex<Vec<Weak<Self>>>,
}

#[derive(Debug, Default)]
struct Sum {
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl Totals {
    /// Those of a generation that comes after this one.
    pub(crate) fn successor(&self) -> Arc<Self> {
        let new = Arc::new(Self {
            inbound: self.inbound.copied(),
            outbound: self.outbound.copied(),
            successors: Mutex::default(),
        });
        let mut successors = self.successors();
        successors.retain(|successor| successor.strong_count() > 0);
        successors.push(Arc::downgrade(&new));
        new
    }

    /// An SA has carried so much more.
    pub(crate) fn add(&self, direction: Direction, more: Each<u64>) {
        let sum = self.of(direction);
        sum.bytes.fetch_add(more.bytes, Relaxed);
        sum.packets.fetch_add(more.packets, Relaxed);
        for successor in self.successors().iter().filter_map(Weak::upgrade) {
            successor.add(direction, more);
        }
    }

    /// What was carried in one direction so far.
    pub(crate) fn carried(&self, direction: Direction) -> Carried {
        let sum = self.of(direction);
        Carried { bytes: sum.bytes.load(Relaxed), packets: sum.packets.load(Relaxed) }
    }

    fn of(&self, direction: Direction) -> &Sum {
        match direction {
            Direction::Inbound | Direction::Forward => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    fn successors(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.successors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    fn copied(&self) -> Self {
        Self { bytes: self.bytes.load(Relaxed).into(), packets: self.packets.load(Relaxed).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_counts_for_all_that_came_after() {
        let more = |packets| Each { bytes: packets * 100, packets };
        let packets = |totals: &Totals| totals.carried(Direction::Inbound).packets;
        let first = Totals::default();
        first.add(Direction::Inbound, more(5));
        let second = first.successor();
        let third = second.successor();
        third.add(Direction::Inbound, more(1));
        second.add(Direction::Inbound, more(20));
        first.add(Direction::Inbound, more(300));
        assert_eq!([&first, &second, &third].map(packets), [305, 325, 326]);
        assert_eq!(third.carried(Direction::Outbound), Carried::default());
        assert_eq!(third.carried(Direction::Inbound).bytes, 32_600);
        drop(third);
        let other = second.successor();
        assert_eq!((packets(&other), second.successors().len()), (325, 1), "nobody is remembered for nothing");
    }
}
