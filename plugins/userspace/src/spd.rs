//! Security policy database (RFC 4301 §4.4.1): entries in order, lookup, and the flow cache in front of it.
//!
//! Entries are ordered by priority, among equals the one activated or installed last comes first. A lookup takes the first entry that matches.
//! A protecting entry whose SA is missing yields to one of the same priority and selectors that has an SA, and otherwise drops: packets never
//! fall through to an entry behind it.

use std::sync::Arc;

use ahash::RandomState;
use ipsec::{PacketSelectors, PolicyHandle, SelectorPair};
use std::net::IpAddr;

use crate::sad::Sa;

/// What an entry does with a packet.
#[derive(Clone)]
pub enum Action {
    /// Apply ESP with this SA; drop while there is none.
    Protect(Option<Arc<Sa>>),
    /// Let pass in clear.
    Bypass,
    /// Drop.
    Discard,
    /// Hold and ask for an SA.
    Trap,
}

/// An SPD entry as the datapath sees it.
#[derive(Clone)]
pub struct Policy {
    /// The core's name for it.
    pub handle: PolicyHandle,
    /// Connection and child.
    pub name: Arc<str>,
    /// Local and remote side.
    pub selectors: SelectorPair,
    /// Lower comes first.
    pub priority: u32,
    /// Counts installations and activations; the higher one wins among equals.
    pub order: u64,
    /// Changes whenever the entry is touched, which arms a trap again.
    pub serial: u64,
    /// What happens.
    pub action: Action,
    /// One of our addresses inside the local selector: source of ICMP errors.
    pub gateway: Option<IpAddr>,
}

/// All entries of one direction in order.
#[derive(Clone, Default)]
pub struct Spd {
    entries: Vec<Arc<Policy>>,
}

impl Spd {
    /// Puts an entry where it belongs.
    pub fn insert(&mut self, policy: Arc<Policy>) {
        let at = self.entries.partition_point(|entry| rank(entry) <= rank(&policy));
        self.entries.insert(at, policy);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, handle: PolicyHandle) {
        self.entries.retain(|entry| entry.handle != handle);
    }

    /// Entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.entries.iter()
    }

    /// The entry at an index that [`Self::find_outbound`] returned for this very database.
    pub fn get(&self, index: u32) -> Option<&Arc<Policy>> {
        self.entries.get(index as usize)
    }

    /// The entry for an outbound packet.
    pub fn find_outbound(&self, packet: &PacketSelectors) -> Option<u32> {
        self.find(|selectors| selectors.matches_outbound(packet))
    }

    /// The entry for a decapsulated packet.
    pub fn find_inbound(&self, packet: &PacketSelectors) -> Option<u32> {
        self.find(|selectors| selectors.matches_inbound(packet))
    }

    fn find(&self, matches: impl Fn(&SelectorPair) -> bool) -> Option<u32> {
        let first = self.entries.iter().position(|entry| matches(&entry.selectors))?;
        let owner = self.entries.get(first)?;
        let index = if matches!(owner.action, Action::Protect(None)) {
            self.entries
                .iter()
                .skip(first)
                .take_while(|entry| entry.priority == owner.priority)
                .position(|entry| {
                    entry.selectors == owner.selectors && matches!(entry.action, Action::Protect(Some(_)))
                })
                .map_or(first, |further| first + further)
        } else {
            first
        };
        u32::try_from(index).ok()
    }
}

fn rank(policy: &Policy) -> (u32, std::cmp::Reverse<u64>) {
    (policy.priority, std::cmp::Reverse(policy.order))
}

const FLOWS: usize = 4096;

/// Remembers which entry a flow has; of one thread, and empty again whenever the database changes.
pub struct FlowCache {
    hasher: RandomState,
    flows: Box<[Option<(u64, PacketSelectors, u32)>]>,
}

impl FlowCache {
    /// An empty cache. Hosts choose the keys, so the hash is seeded at random.
    pub fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        Self { hasher: RandomState::with_seeds(a, b, c, d), flows: vec![None; FLOWS].into_boxed_slice() }
    }

    /// The entry for an outbound packet in the database of this generation.
    pub fn find(&mut self, spd: &Spd, generation: u64, packet: &PacketSelectors) -> Option<u32> {
        let place = self.hasher.hash_one(packet) as usize % FLOWS;
        if let Some(Some((known, flow, index))) = self.flows.get(place)
            && (*known, flow) == (generation, packet)
        {
            return Some(*index);
        }
        let index = spd.find_outbound(packet)?;
        if let Some(flow) = self.flows.get_mut(place) {
            *flow = Some((generation, *packet, index));
        }
        Some(index)
    }
}
