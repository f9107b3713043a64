//! The way of protected traffic where the kernel does IPsec: `REMOTE via HOP dev LINK src ADDRESS`, as the peer is reached.
//!
//! What the route is for is its source address, so that what this host sends by itself is inside the local selector. Its link and next hop are
//! those of the peer, or the peer itself where it is on the link: the packets that IPsec makes of it take their own route. The lookup carries
//! our mark, so that protected routes play no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::{AddressRange, SelectorPair};

use super::super::error::HostError;
use super::super::kernel::Routed;
use super::super::links;
use super::super::prefix::{Prefix, prefixes};
use super::super::probe::{Lookup, Probe, Way};
use super::{Lead, Routing, Target};

/// Outer addresses of a tunnel.
type Ends = (IpAddr, IpAddr);

/// The ways to all peers of tunnels.
#[derive(Debug)]
pub(super) struct Hops {
    probe: Probe,
    mark: u32,
    peers: BTreeMap<SelectorPair, BTreeMap<Ends, usize>>,
    ways: BTreeMap<Ends, Option<Hop>>,
    /// Routes of an earlier run that nobody has claimed yet; the SAs that it left may carry their traffic.
    kept: BTreeMap<Prefix, Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    link: u32,
    gateway: Option<IpAddr>,
}

impl Routing {
    /// Routes the remote side of a tunnel as its peer is reached, and keeps the way between the outer addresses out of that.
    pub(in super::super) fn lead(&mut self, pair: &SelectorPair, routed: Routed) -> Result<(), HostError> {
        let Some((ends, by_peer)) = ends_of(pair, routed) else { return Ok(()) };
        if let Lead::Peer(hops) = &mut self.lead {
            hops.add(pair, ends)?;
        }
        let outer = if by_peer { self.outer(ends.0, ends.1) } else { Ok(()) };
        let outcome = outer.and_then(|()| self.protect(pair));
        if outcome.is_err() {
            let _ = self.unlead(pair, routed); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::lead`].
    pub(in super::super) fn unlead(&mut self, pair: &SelectorPair, routed: Routed) -> Result<(), HostError> {
        let Some((ends, by_peer)) = ends_of(pair, routed) else { return Ok(()) };
        if let Lead::Peer(hops) = &mut self.lead {
            hops.take(pair, ends);
        }
        let outcome = self.unprotect(pair);
        outcome.and(if by_peer { self.forget_outer(ends.0, ends.1) } else { Ok(()) })
    }

    /// A guard of policies stands for these selectors: the routes by which an earlier run has blocked them in our table go.
    pub(in super::super) fn unblock_adopted(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        for prefix in prefixes(pair.remote.addresses) {
            if self.unclaimed.remove(&prefix) {
                self.apply_block(prefix)?;
            }
        }
        Ok(())
    }

    /// Routes of others have changed: the ways to peers may have.
    pub(in super::super) fn follow_ways(&mut self) -> Result<(), HostError> {
        let changed = match &mut self.lead {
            Lead::Peer(hops) => hops.look_again()?,
            Lead::Device(_) => false,
        };
        if changed { self.apply_all() } else { Ok(()) }
    }

    /// Routes of an earlier run that nobody has claimed go.
    pub(in super::super) fn settle(&mut self) -> Result<(), HostError> {
        let any = match &mut self.lead {
            Lead::Peer(hops) => hops.let_go(),
            Lead::Device(_) => false,
        };
        if any { self.apply_all() } else { Ok(()) }
    }
}

/// The way to look up, and whether it is that of a peer.
fn ends_of(pair: &SelectorPair, routed: Routed) -> Option<(Ends, bool)> {
    match routed {
        Routed::Plain => None,
        Routed::ByPeer(local, remote) => Some(((local, remote), true)),
        Routed::ByDestination => {
            let remote = somewhere_in(pair.remote.addresses);
            Some(((links::any_address(remote.is_ipv4()), remote), false))
        }
    }
}

/// An address that is routed as most of a range: of a range as wide as everything not the first one, which is special, but one of those for
/// documentation (RFC 5737, RFC 3849).
fn somewhere_in(range: AddressRange) -> IpAddr {
    let usual: [IpAddr; 2] = [[198, 51, 100, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()];
    usual.into_iter().find(|usual| range.contains(*usual)).unwrap_or(range.start())
}

impl Hops {
    pub(super) fn open(mark: u32) -> Result<Self, HostError> {
        Ok(Self { probe: Probe::open()?, mark, peers: BTreeMap::new(), ways: BTreeMap::new(), kept: BTreeMap::new() })
    }

    /// Takes over what an earlier run has left.
    pub(super) fn keep(&mut self, routes: &BTreeMap<Prefix, Target>) {
        let out = routes.iter().filter(|(_, target)| matches!(target, Target::Out { .. }));
        self.kept = out.map(|(prefix, target)| (*prefix, *target)).collect();
    }

    /// What an earlier run led somewhere.
    pub(super) fn kept(&self, prefix: Prefix) -> Option<Target> {
        self.kept.get(&prefix).copied()
    }

    /// Forgets what an earlier run left. Gives whether there was anything.
    pub(super) fn let_go(&mut self) -> bool {
        !std::mem::take(&mut self.kept).is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.let_go();
        self.peers.clear();
        self.ways.clear();
    }

    /// A tunnel between these outer addresses carries `pair`. Counted.
    pub(super) fn add(&mut self, pair: &SelectorPair, ends: Ends) -> Result<(), HostError> {
        *self.peers.entry(*pair).or_default().entry(ends).or_default() += 1;
        if !self.ways.contains_key(&ends) {
            let way = self.look(ends)?;
            self.ways.insert(ends, way);
        }
        Ok(())
    }

    /// Takes back one [`Self::add`].
    pub(super) fn take(&mut self, pair: &SelectorPair, ends: Ends) {
        if let Some(peers) = self.peers.get_mut(pair) {
            super::count_down(peers, &ends);
            if peers.is_empty() {
                self.peers.remove(pair);
            }
        }
    }

    /// The routes of this host have changed. Gives whether a way has.
    pub(super) fn look_again(&mut self) -> Result<bool, HostError> {
        let before = std::mem::take(&mut self.ways);
        let all: BTreeSet<Ends> = self.peers.values().flat_map(BTreeMap::keys).copied().collect();
        for ends in all {
            let way = self.look(ends)?;
            self.ways.insert(ends, way);
        }
        Ok(self.ways != before)
    }

    /// The route of a pair, for packets from `source`.
    pub(super) fn target(&self, pair: &SelectorPair, source: IpAddr) -> Option<Target> {
        let hop = self.peers.get(pair)?.keys().find_map(|ends| *self.ways.get(ends)?)?;
        // IPv4 in IPv6 and the other way round has a link only.
        let gateway = hop.gateway.filter(|gateway| gateway.is_ipv4() == source.is_ipv4());
        Some(Target::Out { link: hop.link, gateway, source: Some(source) })
    }

    fn look(&mut self, (local, remote): Ends) -> Result<Option<Hop>, HostError> {
        if remote.is_unspecified() {
            return Ok(None);
        }
        let known = Some(local).filter(|local| !local.is_unspecified());
        let lookup = Lookup { source: known, mark: self.mark, ..Lookup::to(remote) };
        let mut way = self.probe.way(&lookup)?;
        if let (Way::Nowhere(_), Some(_)) = (&way, known) {
            // Nothing is looked up for a source that is not (or not yet) an address of this host.
            way = self.probe.way(&Lookup { source: None, ..lookup })?;
        }
        Ok(match way {
            // The peer itself, where it is on the link; what has no peer yet is on the link too then.
            Way::Out { link, gateway, .. } => Some(Hop { link, gateway: gateway.or(known.map(|_| remote)) }),
            Way::Local | Way::Nowhere(_) => None,
        })
    }
}
