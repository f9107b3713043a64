//! The queue of one capture: octets next to each other, and a record of each packet; bounded in both.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ipsec::{Direction, SaHandle, Side, Spi};

/// Octets that wait at most.
pub(super) const OCTETS: usize = 4 << 20;
/// Packets that wait at most.
pub(super) const PACKETS: usize = 16 * 1024;

/// Where a packet belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// To an SA.
    Esp {
        /// Which.
        sa: SaHandle,
        /// Connection and child.
        name: Arc<str>,
        /// Its SPI.
        spi: Spi,
        /// ESP sequence number, as far as it is known.
        sequence: Option<u64>,
    },
    /// To an IKE SA.
    Ike,
}

/// One packet that waits.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When it was seen.
    pub(crate) time: Duration,
    /// `Inbound` or `Outbound`.
    pub(crate) direction: Direction,
    /// In clear, or not.
    pub(crate) side: Side,
    /// Why it went no further.
    pub(crate) dropped: Option<&'static str>,
    /// Where it belongs.
    pub(crate) origin: Origin,
    place: Range<usize>,
}

/// A packet on its way into queues.
pub(super) struct NewRecord<'a, F> {
    pub(super) time: Duration,
    pub(super) direction: Direction,
    pub(super) side: Side,
    pub(super) dropped: Option<&'static str>,
    pub(super) origin: F,
    pub(super) octets: [&'a [u8]; 2],
}

/// Packets that were taken out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    octets: Vec<u8>,
    records: Vec<Record>,
}

impl Batch {
    /// Packets in the order in which they were seen.
    pub(crate) fn packets(&self) -> impl Iterator<Item = (&Record, &[u8])> {
        self.records.iter().map(|record| (record, self.octets.get(record.place.clone()).unwrap_or_default()))
    }

    /// Without packets, keeping its room.
    pub(crate) fn emptied(mut self) -> Self {
        self.octets.clear();
        self.records.clear();
        self
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Batch,
    /// Inner and outer.
    lost: [u64; 2],
}

impl Queue {
    /// Takes a packet, or loses it; whether the queue was empty before.
    pub(super) fn put(&mut self, new: &NewRecord<'_, impl Fn() -> Origin>) -> bool {
        let Batch { octets, records } = &mut self.waiting;
        let length: usize = new.octets.iter().map(|part| part.len()).sum();
        if records.len() >= PACKETS || octets.len() + length > OCTETS {
            let [inner, outer] = &mut self.lost;
            match new.side {
                Side::Inner => *inner += 1,
                Side::Outer => *outer += 1,
            }
            return false;
        }
        let start = octets.len();
        new.octets.iter().for_each(|part| octets.extend_from_slice(part));
        let NewRecord { time, direction, side, dropped, .. } = *new;
        records.push(Record { time, direction, side, dropped, origin: (new.origin)(), place: start..start + length });
        records.len() == 1
    }

    /// Takes what waits, leaving `empty` in its place; and how many were lost so far.
    pub(super) fn take(&mut self, empty: Batch) -> (Batch, [u64; 2]) {
        (std::mem::replace(&mut self.waiting, empty), self.lost)
    }
}
