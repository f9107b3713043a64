//! What the host kernel says about a packet and about the ways to the peers. Blocks.

use std::net::IpAddr;

use ike_model::why::{HostFacts, Link, Met, NoWay, Outer, Place, Tunnel, Way};
use ipsec::PacketSelectors;
use offload_host::devices::{self, Links};
use offload_host::probe::{self, KernelPolicy, KernelVerdict, KernelWay, Lookup, OwnAddress, Probe};
use offload_host::{Family, HostError};

/// What is asked.
pub(crate) struct HostQuestion {
    /// The packet.
    pub(crate) packet: PacketSelectors,
    /// The link that it arrives on, if the user says so.
    pub(crate) arrival: Option<String>,
    /// The tunnel device; none where the kernel is the data path.
    pub(crate) tunnel: Option<String>,
    /// Mark of our outer packets.
    pub(crate) mark: u32,
    /// Peers.
    pub(crate) peers: Vec<Peer>,
}

/// A peer and our end.
pub(crate) struct Peer {
    pub(crate) connection: String,
    pub(crate) local: Option<IpAddr>,
    pub(crate) remote: Option<IpAddr>,
}

struct Asking {
    probe: Probe,
    links: Links,
    addresses: Vec<OwnAddress>,
}

/// Asks.
pub(crate) fn ask(question: &HostQuestion) -> Result<(HostFacts, Vec<Outer>), HostError> {
    let mut probe = Probe::open()?;
    let (links, addresses) = (probe.links()?, probe.addresses()?);
    let mut asking = Asking { probe, links, addresses };
    let outer = question.peers.iter().map(|peer| asking.outer(peer, question.mark)).collect::<Result<_, _>>()?;
    Ok((asking.host(question)?, outer))
}

impl Asking {
    fn host(&mut self, question: &HostQuestion) -> Result<HostFacts, HostError> {
        let packet = question.packet;
        let family = Family::of(packet.source);
        let mut source = self.place(packet.source)?;
        if let Some(name) = &question.arrival {
            source.near = self.links.by_name(name).map(|link| self.link(link, family));
            source.local &= source.near.is_none();
        }
        let destination = self.place(packet.destination)?;
        let tunnel = question.tunnel.as_ref().and_then(|tunnel| self.links.by_name(tunnel)).cloned();
        let behind = source.near.as_ref().or(match &source.way {
            Way::Out { link, .. } => Some(link),
            Way::Local | Way::Nowhere(_) => None,
        });
        let arrival =
            behind.filter(|_| !source.local).and_then(|link| self.links.by_name(&link.name)).map(|link| link.index);
        let way = self.way(&Lookup {
            destination: packet.destination,
            source: Some(packet.source),
            arrival,
            mark: 0,
            upper: Some((packet.protocol, packet.ports)),
        })?;
        let inbound = arrival.is_some() && arrival == tunnel.as_ref().map(|link| link.index);
        let policies = self.probe.policies()?;
        let kernel = question.tunnel.is_none();
        let ways: &[KernelWay] = match (source.local, inbound) {
            (true, _) => &[KernelWay::Out],
            // What the kernel takes out of ESP is held against its policies like what arrives in clear.
            (false, _) if kernel && destination.local => &[KernelWay::In],
            // What comes out of our device is not held against the policies of the way in.
            (false, true) if destination.local => &[],
            (false, true) => &[KernelWay::Out],
            (false, false) => &[KernelWay::Forward, KernelWay::Out],
        };
        let egress = match &way {
            Way::Out { link, .. } => self.links.by_name(&link.name).map_or(0, |link| link.index),
            Way::Local | Way::Nowhere(_) => 0,
        };
        let first = |way: &KernelWay| policies.iter().find(|policy| policy.matches(*way, &packet, egress));
        let foreign = |policy: &&KernelPolicy| {
            let ours = policy.ours || (kernel && policy.backend);
            !ours && policy.verdict != KernelVerdict::Allow
        };
        let tunnel_link = tunnel.map(|link| self.link(&link, family));
        Ok(HostFacts {
            tunnel: question.tunnel.clone().map(|name| Tunnel { name, link: tunnel_link }),
            met: kernel.then(|| met(ways.iter().filter_map(first))),
            foreign_policy: ways.iter().filter_map(first).find(foreign).map(ToString::to_string),
            source,
            destination,
            way,
        })
    }

    fn place(&mut self, address: IpAddr) -> Result<Place, HostError> {
        let local = self.addresses.iter().any(|own| own.address == address);
        // The longest subnet is the one that counts.
        let near =
            self.addresses.iter().filter(|own| own.is_near(address) && !is_host(own)).max_by_key(|own| own.length);
        let near = near.and_then(|own| self.links.get(own.link)).map(|link| self.link(link, Family::of(address)));
        Ok(Place { local, near: near.filter(|_| !local), way: self.way(&Lookup::to(address))? })
    }

    fn outer(&mut self, peer: &Peer, mark: u32) -> Result<Outer, HostError> {
        let own = |address| self.addresses.iter().find(|own| own.address == address);
        let mine = peer.local.and_then(own);
        let near = || {
            let remote = peer.remote?;
            self.addresses.iter().find(|own| own.is_near(remote) && !is_host(own))
        };
        let of = mine.or_else(near).and_then(|own| self.links.get(own.link));
        let link = of.map(|link| self.link(link, peer.remote.map_or(Family::V4, Family::of)));
        let (local_is_ours, local) = (mine.is_some(), peer.local);
        let way = match peer.remote {
            None => None,
            Some(remote) => {
                let source = local.filter(|local| local_is_ours && local.is_ipv4() == remote.is_ipv4());
                Some(self.way(&Lookup { source, mark, ..Lookup::to(remote) })?)
            }
        };
        Ok(Outer { connection: peer.connection.clone(), local, local_is_ours, link, remote: peer.remote, way })
    }

    fn way(&mut self, lookup: &Lookup) -> Result<Way, HostError> {
        Ok(match self.probe.way(lookup)? {
            probe::Way::Local => Way::Local,
            probe::Way::Nowhere(reason) => Way::Nowhere(match reason {
                probe::NoWay::NoRoute => NoWay::NoRoute,
                probe::NoWay::Unreachable => NoWay::Unreachable,
                probe::NoWay::Blackhole => NoWay::Blackhole,
                probe::NoWay::Prohibited => NoWay::Prohibited,
                probe::NoWay::ReversePath => NoWay::ReversePath,
                probe::NoWay::Other(words) => NoWay::Other(words),
            }),
            probe::Way::Out { link, gateway, table, mtu, .. } => match self.links.get(link) {
                Some(link) => Way::Out { link: self.link(link, Family::of(lookup.destination)), gateway, table, mtu },
                None => Way::Nowhere(NoWay::Other(format!("link {link} has just vanished"))),
            },
        })
    }

    fn link(&self, link: &devices::Link, family: Family) -> Link {
        link_of(&self.links, link, family)
    }
}

/// What a packet meets first of ours: the entry of the backend on any of its ways decides, then the guard.
fn met<'p>(first: impl Iterator<Item = &'p KernelPolicy>) -> Met {
    let mut found = Met::Nothing;
    for policy in first.filter(|policy| policy.ours || policy.backend) {
        if policy.backend {
            return Met::Entry(policy.to_string(), policy.device.clone());
        }
        if found == Met::Nothing {
            found = match policy.verdict {
                KernelVerdict::Block => Met::Guard(policy.to_string()),
                KernelVerdict::Allow | KernelVerdict::Protect => Met::Exemption(policy.to_string()),
            };
        }
    }
    found
}

/// A link with its settings for packets of a family.
pub(crate) fn link_of(links: &Links, link: &devices::Link, family: Family) -> Link {
    let reverse_path = match family {
        Family::V4 => probe::reverse_path_filter(&link.name).unwrap_or_default(),
        Family::V6 => 0,
    };
    let mut below = Vec::new();
    let mut at = link;
    while let Some(lower) = at.lower.filter(|_| !at.lower_elsewhere).and_then(|lower| links.get(lower)) {
        if below.len() >= DEEPEST {
            break;
        }
        below.push(lower.name.to_string());
        at = lower;
    }
    Link {
        name: link.name.to_string(),
        up: link.up,
        carrier: link.carrier,
        mtu: link.mtu,
        forwarding: probe::forwarding(&link.name, family).unwrap_or_default(),
        reverse_path,
        below,
    }
}

/// Links on top of each other at most.
const DEEPEST: usize = 16;

/// An address without a subnet has no neighbours.
fn is_host(own: &OwnAddress) -> bool {
    own.length == if own.address.is_ipv4() { 32 } else { 128 }
}
