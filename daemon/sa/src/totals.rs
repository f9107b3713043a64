//! What all generations of a child have carried: counters of an SA begin at nothing with each rekeying, these go on.
//!
//! The generations share one set of sums, and so do those that only linger: what comes late is counted too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ike_model::snapshot::Carried;
use ipsec::Direction;

use crate::gauge::{Each, Gauge};

/// The sums of one child under one IKE SA and its successors.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    inbound: Sum,
    outbound: Sum,
}

#[derive(Debug, Default)]
struct Sum {
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl Totals {
    /// An SA has carried so much more.
    pub(crate) fn add(&self, direction: Direction, more: Each<u64>) {
        let sum = self.of(direction);
        sum.bytes.fetch_add(more.bytes, Relaxed);
        sum.packets.fetch_add(more.packets, Relaxed);
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
}

/// An SA that is being removed, until its last counters are known.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// Where they count.
    pub(crate) totals: Arc<Totals>,
    /// What has been counted already.
    pub(crate) gauge: Gauge,
}
