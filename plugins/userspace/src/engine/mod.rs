//! The datapath without I/O: packets and a clock value in, packets out.
//!
//! [`Outbound`] takes packets of the protected side, [`Inbound`] ESP packets of the outer side. Each belongs to one thread; both read one
//! published snapshot ([`Tables`]) and never lock or allocate for a packet that passes. A packet that is held for an SA, and a report, may allocate:
//! both are bounded by state, not by traffic.

mod hold;
mod inbound;
mod outbound;
mod reassembly;
mod show;
pub mod transport;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Cache};
use ipsec::{Reports, Tap};

pub use hold::{HOLD_AGE, HOLD_OCTETS, HOLD_OCTETS_IN_ALL, HOLD_PACKETS, HOLD_PACKETS_IN_ALL};
pub use inbound::{Arrival, Form, HEADER_ROOM, Inbound};
pub use outbound::Outbound;

use crate::drops::{DropCounters, Reason};
use crate::sad::{InboundTable, OuterPath};
use crate::spd::Spd;
use ipsec::spi::Permutation;

/// One consistent state of SAD and SPD; published as a whole.
#[derive(Clone)]
pub struct Tables {
    /// Counts publications.
    pub generation: u64,
    /// Inbound SAs.
    pub inbound: InboundTable,
    /// Outbound SPD; its entries hold the outbound SAs in use.
    pub outbound: Spd,
    /// Inbound SPD.
    pub inbound_policies: Spd,
    /// Whether the inbound SPD discards anything: only then is it looked at, an SA's selectors being the check otherwise.
    pub inbound_discards: bool,
    /// Our own addresses, for ICMP errors that belong to no policy.
    pub addresses: Arc<[IpAddr]>,
}

/// What control and all datapath threads share.
pub struct Shared {
    /// The published state.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Where events go.
    pub reports: Arc<dyn Reports>,
    /// Drop counters.
    pub drops: DropCounters,
    /// MTU of the tunnel device.
    pub device_mtu: usize,
    /// From SPI to slot.
    pub(crate) permutation: Permutation,
    /// Who is shown packets; looked at once for each batch.
    pub(crate) tap: Arc<TapPlace>,
    /// Seeds of hash tables whose keys others choose.
    pub(crate) seeds: [u64; 4],
}

/// The place of a tap, which is empty as a rule.
pub(crate) type TapPlace = ArcSwapOption<Arc<dyn Tap>>;

/// What a thread knows of the tap.
pub(crate) type TapCache = Cache<Arc<TapPlace>, Option<Arc<Arc<dyn Tap>>>>;

impl Shared {
    /// Shows packets to `tap` from the next batch on, or to nobody.
    pub fn show_packets(&self, tap: Option<Arc<dyn Tap>>) {
        self.tap.store(tap.map(Arc::new));
    }

    /// Counts a drop.
    pub(crate) fn count(&self, reason: Reason) {
        self.drops.count(reason, &*self.reports);
    }
}

/// One ESP packet in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where to.
    pub path: OuterPath,
    /// Outer TOS or traffic class.
    pub class: u8,
    /// Whether routers may not fragment the outer packet.
    pub dont_fragment: bool,
    /// TTL or hop limit of the outer packet, where it is not the system's default.
    pub hops: Option<u8>,
    /// Octets of IPv4 options or of a hop-by-hop header, which lie before `start`.
    options: usize,
    start: usize,
    length: usize,
}

/// What an outer packet looks like.
#[derive(Clone, Copy, Debug)]
struct Looks {
    class: u8,
    dont_fragment: bool,
    hops: Option<u8>,
}

impl Datagram {
    /// Whether both leave through one socket in one state.
    pub fn goes_with(&self, other: &Self) -> bool {
        (self.path, self.dont_fragment) == (other.path, other.dont_fragment)
    }
}

/// Packets on their way out of an [`Outbound`]: ESP packets next to each other in one arena, so that equal ones can leave in one system call.
pub struct Batch {
    arena: Box<[u8]>,
    used: usize,
    datagrams: Vec<Datagram>,
    replies: Vec<(usize, usize)>,
}

/// Where a batch goes.
pub trait Sink {
    /// Sends everything in `batch`. The caller empties it afterwards.
    fn transmit(&mut self, batch: &mut Batch);
}

/// Packets of one batch.
pub const BATCH_PACKETS: usize = 64;
const ARENA: usize = 256 * 1024;

impl Default for Batch {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA].into_boxed_slice(),
            used: 0,
            datagrams: Vec::with_capacity(BATCH_PACKETS),
            replies: Vec::with_capacity(BATCH_PACKETS),
        }
    }
}

impl Batch {
    /// ESP packets in the order they must leave.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = (&Datagram, &[u8])> {
        self.datagrams.iter().map(|datagram| {
            (datagram, self.arena.get(datagram.start..datagram.start + datagram.length).unwrap_or_default())
        })
    }

    /// IPv4 options, or the hop-by-hop header, of the outer packet of a datagram.
    pub fn options(&self, datagram: &Datagram) -> &[u8] {
        self.arena.get(datagram.start - datagram.options..datagram.start).unwrap_or_default()
    }

    /// ICMP errors for the protected side.
    pub fn replies(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.replies.iter().map(|(start, length)| self.arena.get(*start..start + length).unwrap_or_default())
    }

    /// Octets of the datagrams from the `first`-th on, `count` of them; they lie next to each other.
    pub fn run(&self, first: usize, count: usize) -> &[u8] {
        let range = self.datagrams.get(first..first + count).and_then(|run| {
            let (head, tail) = (run.first()?, run.last()?);
            Some(head.start..tail.start + tail.length)
        });
        range.and_then(|range| self.arena.get(range)).unwrap_or_default()
    }

    /// How many datagrams from the `first`-th on, at most `most`, lie next to each other, go one way and have the length of the first; the last may
    /// be shorter. At least 1.
    pub fn equal_run(&self, first: usize, most: usize) -> usize {
        let Some(head) = self.datagrams.get(first) else { return 1 };
        let (mut count, mut end) = (1, head.start + head.length);
        for next in self.datagrams.iter().skip(first + 1).take(most.saturating_sub(1)) {
            // Options lie between two datagrams, so what has some never follows at once.
            let like = next.goes_with(head)
                && (next.class, next.hops) == (head.class, head.hops)
                && next.start == end
                && head.options == 0;
            if !like || next.length > head.length {
                break;
            }
            (count, end) = (count + 1, next.start + next.length);
            if next.length < head.length {
                break;
            }
        }
        count
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.replies.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
        self.replies.clear();
    }

    fn has_room(&self, octets: usize) -> bool {
        self.arena.len() - self.used >= octets
            && self.datagrams.len() < BATCH_PACKETS
            && self.replies.len() < BATCH_PACKETS
    }

    fn free(&mut self) -> &mut [u8] {
        self.arena.get_mut(self.used..).unwrap_or_default()
    }

    /// Takes options that the next datagram has; there is room, by [`Self::has_room`].
    fn put_options(&mut self, options: &[u8]) {
        if let Some(place) = self.free().get_mut(..options.len()) {
            place.copy_from_slice(options);
            self.used += options.len();
        }
    }

    fn push_datagram(&mut self, path: OuterPath, looks: Looks, options: usize, length: usize) {
        let Looks { class, dont_fragment, hops } = looks;
        self.datagrams.push(Datagram { path, class, dont_fragment, hops, options, start: self.used, length });
        self.used += length;
    }

    fn push_reply(&mut self, length: usize) {
        self.replies.push((self.used, length));
        self.used += length;
    }
}
