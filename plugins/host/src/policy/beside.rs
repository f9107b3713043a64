//! What stands beside policies that protect, where the kernel does IPsec: exemptions that come before them, in software and in devices.
//!
//! A guard lets pass what must pass only while nothing protects; a protecting policy as wide as `0.0.0.0/0` would take it all the same. So the
//! exemptions of [`super::guard`] stand in front of it too: what never leaves a link, neighbour discovery, and errors about our own packets
//! before everything, connected subnets just before the policy that is wider.
//!
//! A device looks up its own policies only, and the kernel looks at those of devices before its own: a hit there ends the search. What is to go
//! around a policy in a device must be in that device, and in the kernel's view of it. IKE goes around both: its sockets carry a policy, which
//! the kernel looks at first and no device knows, and the device holds exemptions for our addresses and ports. Where a device protects all
//! traffic between two hosts, the kernel never looks at less exact entries, so those have the same two hosts.

use std::net::IpAddr;

use ipsec::{AddressRange, SelectorPair};

use super::{ICMPV6, Item, Surroundings, concerns, connected, link_scope, own};
use crate::prefix::{Family, Prefix};
use crate::xfrm::{PolicyKey, PortMask, Verdict, Way};

/// Priority of what comes before everything else.
const FIRST: u32 = 0;
const UDP: u8 = 17;

/// The exemptions that a protecting, trap or discarding policy of this priority needs beside it in software.
pub(in super::super) fn exemptions(pair: &SelectorPair, priority: u32, surroundings: &Surroundings) -> Vec<Item> {
    let family = if pair.local.addresses.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut first = link_scope(family);
    first.extend(own(family, &surroundings.interfaces));
    let near = has_neighbours(pair, surroundings);
    let needed = |key: &PolicyKey| concerns(pair, key) && (near || !is_discovery(key));
    let first = first.into_iter().filter(needed).map(|key| allow(key, FIRST));
    let near = connected(pair, surroundings).into_iter().map(|key| allow(key, priority.saturating_sub(1)));
    first.chain(near).collect()
}

/// Whether the far side holds anybody who is on a link of ours: neighbours are nowhere else.
fn has_neighbours(pair: &SelectorPair, surroundings: &Surroundings) -> bool {
    let link_local = Prefix::new([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10);
    let mut near = surroundings.interfaces.connected(None).into_iter().map(|near| near.subnet).chain([link_local]);
    near.any(|subnet| subnet.intersects(pair.remote.addresses))
}

/// Neighbour solicitations and advertisements.
fn is_discovery(key: &PolicyKey) -> bool {
    key.protocol == ICMPV6 && matches!(key.source_port.value, 135 | 136)
}

/// The same in a device: what is about other links is not.
pub(in super::super) fn in_device(items: &[Item], device: u32) -> Vec<Item> {
    let here = items.iter().filter(|item| item.key.link == 0 || item.key.link == device);
    here.map(|item| held(PolicyKey { link: 0, ..item.key }, item.priority, device)).collect()
}

/// IKE of our addresses through a device, whoever the peer is.
pub(in super::super) fn ike(own: &[IpAddr], ports: &[u16], device: u32) -> Vec<Item> {
    let any = |own: &IpAddr| (*own, Prefix::any(Family::of(*own)));
    own.iter().map(any).flat_map(|(own, peer)| ike_between(own, peer, ports, device)).collect()
}

/// IKE between the two hosts that a policy is about, if it is about just two and one of them is this one.
pub(in super::super) fn exact_ike(pair: &SelectorPair, own: &[IpAddr], ports: &[u16], device: u32) -> Vec<Item> {
    let one = |range: AddressRange| (range == AddressRange::host(range.start())).then_some(range.start());
    match (one(pair.local.addresses), one(pair.remote.addresses)) {
        (Some(local), Some(remote)) if own.contains(&local) => ike_between(local, Prefix::host(remote), ports, device),
        _ => Vec::new(),
    }
}

fn ike_between(own: IpAddr, peer: Prefix, ports: &[u16], device: u32) -> Vec<Item> {
    let own = Prefix::host(own);
    let of_port = |port: &u16| {
        let port = PortMask { value: *port, mask: u16::MAX };
        let udp =
            |way, source, destination| PolicyKey { protocol: UDP, ..PolicyKey::between(way, source, destination) };
        [
            PolicyKey { source_port: port, ..udp(Way::Out, own, peer) },
            PolicyKey { destination_port: port, ..udp(Way::In, peer, own) },
        ]
    };
    ports.iter().filter(|port| **port != 0).flat_map(of_port).map(|key| held(key, FIRST, device)).collect()
}

fn allow(key: PolicyKey, priority: u32) -> Item {
    Item { key: key.owned(None), priority, verdict: Verdict::Allow }
}

fn held(key: PolicyKey, priority: u32, device: u32) -> Item {
    Item { key: key.owned(Some(device)), priority, verdict: Verdict::Allow }
}
