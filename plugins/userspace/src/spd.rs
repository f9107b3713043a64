//! Security policy database (RFC 4301 §4.4.1): entries in order, lookup, and the flow cache in front of it.
//!
//! Entries that a NIC holds come before those of software, as they do where a NIC really looks first; within both they are ordered by priority, and
//! among equals the one activated or installed last comes first. A lookup takes the first entry that matches.
//! A protecting entry whose SA is missing yields to one of the same priority and selectors that has an SA, and otherwise drops: packets never
//! fall through to an entry behind it.
//!
//! Entries are found by tuple space search: one hash table for each pair of prefix lengths in use, and a list for selectors that are no prefixes. All
//! of it is made of shared pieces, so that a copy with one change costs a piece and not the whole.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use ipsec::{PacketSelectors, PolicyHandle, SelectorPair};

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
    /// A NIC holds it: it is looked at before those that none holds.
    pub in_device: bool,
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

type Rank = (bool, u32, Reverse<u64>);
/// Entries whose prefixes fall together, best first.
type Bucket = Vec<Arc<Policy>>;

const CHUNK: usize = 64;
/// Entries for each bucket before a table grows.
const LOAD: usize = 2;

/// All entries of one direction.
#[derive(Clone)]
pub struct Spd {
    hasher: RandomState,
    tuples: Vec<Arc<Tuple>>,
    /// Entries whose selectors are no prefixes.
    ranges: Arc<Bucket>,
}

/// The entries of one pair of prefix lengths in one family.
#[derive(Clone)]
struct Tuple {
    v4: bool,
    local: u8,
    remote: u8,
    count: usize,
    chunks: Vec<Arc<[Bucket; CHUNK]>>,
}

impl Spd {
    /// An empty database. Peers have a say in the keys of its tables, so their hash is seeded at random.
    pub fn new([a, b, c, d]: [u64; 4]) -> Self {
        Self { hasher: RandomState::with_seeds(a, b, c, d), tuples: Vec::new(), ranges: Arc::default() }
    }

    /// Puts an entry where it belongs.
    pub fn insert(&mut self, policy: Arc<Policy>) {
        let Some((local, remote)) = lengths(&policy.selectors) else {
            return insert_by_rank(Arc::make_mut(&mut self.ranges), policy);
        };
        let v4 = policy.selectors.local.addresses.is_ipv4();
        let known = self.tuples.iter().position(|tuple| (tuple.v4, tuple.local, tuple.remote) == (v4, local, remote));
        let at = known.unwrap_or_else(|| {
            self.tuples.push(Arc::new(Tuple::new(v4, local, remote)));
            self.tuples.len() - 1
        });
        if let Some(tuple) = self.tuples.get_mut(at) {
            Arc::make_mut(tuple).insert(policy, &self.hasher);
        }
    }

    /// Takes out the entry with the handle and selectors of `policy`.
    pub fn remove(&mut self, policy: &Policy) {
        let Some((local, remote)) = lengths(&policy.selectors) else {
            return Arc::make_mut(&mut self.ranges).retain(|entry| entry.handle != policy.handle);
        };
        let v4 = policy.selectors.local.addresses.is_ipv4();
        let known = self.tuples.iter().position(|tuple| (tuple.v4, tuple.local, tuple.remote) == (v4, local, remote));
        if let Some(tuple) = known.and_then(|at| self.tuples.get_mut(at)) {
            Arc::make_mut(tuple).remove(policy, &self.hasher);
        }
        self.tuples.retain(|tuple| tuple.count > 0);
    }

    /// The entry for an outbound packet.
    pub fn find_outbound(&self, packet: &PacketSelectors) -> Option<&Arc<Policy>> {
        self.find(packet.source, packet.destination, |selectors| selectors.matches_outbound(packet))
    }

    /// The entry for a decapsulated packet.
    pub fn find_inbound(&self, packet: &PacketSelectors) -> Option<&Arc<Policy>> {
        self.find(packet.destination, packet.source, |selectors| selectors.matches_inbound(packet))
    }

    fn find(&self, local: IpAddr, remote: IpAddr, matches: impl Fn(&SelectorPair) -> bool) -> Option<&Arc<Policy>> {
        let v4 = local.is_ipv4();
        let buckets =
            self.tuples.iter().filter(|tuple| tuple.v4 == v4).map(|tuple| tuple.bucket(local, remote, &self.hasher));
        let owners = buckets.chain([&**self.ranges]).filter_map(|bucket| first_match(bucket, &matches));
        let (bucket, owner) = owners.min_by_key(|(_, owner)| rank(owner))?;
        if !matches!(owner.action, Action::Protect(None)) {
            return Some(owner);
        }
        let equal = |entry: &&Arc<Policy>| (entry.priority, &entry.selectors) == (owner.priority, &owner.selectors);
        let live = |entry: &&Arc<Policy>| matches!(entry.action, Action::Protect(Some(_)));
        bucket.iter().filter(equal).find(live).or(Some(owner))
    }
}

fn first_match(
    bucket: &[Arc<Policy>],
    matches: impl Fn(&SelectorPair) -> bool,
) -> Option<(&[Arc<Policy>], &Arc<Policy>)> {
    bucket.iter().find(|entry| matches(&entry.selectors)).map(|owner| (bucket, owner))
}

impl Tuple {
    fn new(v4: bool, local: u8, remote: u8) -> Self {
        Self { v4, local, remote, count: 0, chunks: chunks(1) }
    }

    fn insert(&mut self, policy: Arc<Policy>, hasher: &RandomState) {
        if self.count >= self.chunks.len() * CHUNK * LOAD {
            self.grow(hasher);
        }
        self.count += 1;
        self.place(policy, hasher);
    }

    fn place(&mut self, policy: Arc<Policy>, hasher: &RandomState) {
        if let Some(bucket) = self.bucket_mut(&policy.selectors, hasher) {
            insert_by_rank(bucket, policy);
        }
    }

    fn remove(&mut self, policy: &Policy, hasher: &RandomState) {
        let Some(bucket) = self.bucket_mut(&policy.selectors, hasher) else { return };
        let before = bucket.len();
        bucket.retain(|entry| entry.handle != policy.handle);
        let removed = before - bucket.len();
        self.count -= removed;
    }

    fn grow(&mut self, hasher: &RandomState) {
        let larger = chunks(self.chunks.len() * 2);
        let old = std::mem::replace(&mut self.chunks, larger);
        for entry in old.iter().flat_map(|chunk| chunk.iter().flatten()) {
            self.place(Arc::clone(entry), hasher);
        }
    }

    fn bucket(&self, local: IpAddr, remote: IpAddr, hasher: &RandomState) -> &[Arc<Policy>] {
        let (chunk, at) = self.index(local, remote, hasher);
        self.chunks.get(chunk).and_then(|chunk| chunk.get(at)).map_or(&[], Vec::as_slice)
    }

    fn bucket_mut(&mut self, selectors: &SelectorPair, hasher: &RandomState) -> Option<&mut Bucket> {
        let (chunk, at) = self.index(selectors.local.addresses.start(), selectors.remote.addresses.start(), hasher);
        Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(at)
    }

    fn index(&self, local: IpAddr, remote: IpAddr, hasher: &RandomState) -> (usize, usize) {
        let hash = hasher.hash_one((network(local, self.local), network(remote, self.remote))) as usize;
        let at = hash % (self.chunks.len() * CHUNK);
        (at / CHUNK, at % CHUNK)
    }
}

fn chunks(count: usize) -> Vec<Arc<[Bucket; CHUNK]>> {
    (0..count).map(|_| Arc::new(std::array::from_fn(|_| Vec::new()))).collect()
}

/// Prefix lengths of both sides, where both are prefixes.
fn lengths(selectors: &SelectorPair) -> Option<(u8, u8)> {
    Some((selectors.local.addresses.prefix_length()?, selectors.remote.addresses.prefix_length()?))
}

/// The first `length` bits of an address.
fn network(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    bits.checked_shr(width - u32::from(length).min(width)).unwrap_or(0)
}

fn insert_by_rank(bucket: &mut Bucket, policy: Arc<Policy>) {
    let at = bucket.partition_point(|entry| rank(entry) <= rank(&policy));
    bucket.insert(at, policy);
}

fn rank(policy: &Policy) -> Rank {
    (!policy.in_device, policy.priority, Reverse(policy.order))
}

const FLOWS: usize = 4096;

/// Remembers which entry a flow has; of one thread, and empty again whenever the database changes.
pub struct FlowCache {
    hasher: RandomState,
    generation: u64,
    flows: Box<[Option<Flow>]>,
}

type Flow = (PacketSelectors, Arc<Policy>);

impl FlowCache {
    /// An empty cache. Hosts choose the keys, so the hash is seeded at random.
    pub fn new([a, b, c, d]: [u64; 4]) -> Self {
        let flows = vec![None; FLOWS].into_boxed_slice();
        Self { hasher: RandomState::with_seeds(a, b, c, d), generation: 0, flows }
    }

    /// To be called before lookups in a database of this generation: forgets what belonged to another, and with it removed SAs and their keys.
    pub fn renew(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.flows.fill(None);
        }
    }

    /// The entry for an outbound packet.
    pub fn find(&mut self, spd: &Spd, packet: &PacketSelectors) -> Option<&Arc<Policy>> {
        let place = self.hasher.hash_one(packet) as usize % FLOWS;
        let flow = self.flows.get_mut(place)?;
        if flow.as_ref().is_none_or(|(known, _)| known != packet) {
            *flow = Some((*packet, Arc::clone(spd.find_outbound(packet)?)));
        }
        flow.as_ref().map(|(_, policy)| policy)
    }
}

#[cfg(test)]
mod tests;
