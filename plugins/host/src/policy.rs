//! Which kernel policies a guard or a pass shunt consists of, and how they rank. Pure functions.
//!
//! A guard blocks local -> remote on the way out and remote -> local on the way in and when forwarded; never local -> remote when forwarded,
//! because that is how LAN traffic enters the TUN device. Beside every block stand the exemptions without which a guard as wide as
//! `0.0.0.0/0` would cut the gateway off:
//!
//! - what leaves or is forwarded into the TUN device: the datapath's SPD decides there;
//! - loopback, link-local and link-scope multicast traffic, IPv6 neighbour discovery, and the "packet too big" errors about our own packets;
//! - own addresses to and from the subnet of the same link, and traffic between connected subnets that are inside the local selector and
//!   not on a link that carries a default route; both only where the remote selector is wider than the subnet.
//!
//! Rank: the exemptions of the first two kinds come first. All else goes by specificity, so that neither a pass shunt nor a connected
//! subnet opens a guard of a single host; among equally specific ones pass shunts come before blocks before connected subnets.
//!
//! IPv6 is different for packets of the gateway itself: unless their socket is bound to a device, the kernel shows the policies no egress, so
//! a policy cannot tell the TUN device from the outer link. There the blocks name every other link, own addresses may then leave, and a block
//! without a link comes last. What holds back own packets without a link is routing: our table answers `unreachable` when the TUN device is gone.

pub(super) mod beside;

use std::collections::BTreeSet;

use ipsec::{AddressRange, Mark, PortRange, SelectorPair};

use super::links::{Interfaces, LOOPBACK, Local};
use super::prefix::{Family, Prefix, prefixes};
use super::xfrm::{PRIORITIES, PolicyKey, PortMask, Verdict, Way};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Most bits a key can fix: two IPv6 addresses, a protocol, two ports.
const MOST_BITS: u32 = 128 + 128 + 8 + 16 + 16;
/// Offsets of the classes in our range of priorities; the first class is at its start.
const BY_SPECIFICITY: u32 = 0x100;
const OWN: u32 = 0xe00;
const LAST: u32 = 0xf00;

/// What the exemptions depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    pub(super) interfaces: Interfaces,
    /// The TUN device, while there is one.
    pub(super) tun: Option<u32>,
    /// Mark of packets that came out of the TUN device for this host itself; `None` when nothing marks them.
    pub(super) mark: Option<u32>,
    /// Whether routes hold back own packets to guarded prefixes when there is no TUN device.
    pub(super) routed: bool,
}

/// One policy that ought to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) key: PolicyKey,
    pub(super) priority: u32,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Rank {
    First,
    Pass,
    Block,
    Connected,
    Own,
    Last,
}

/// Exemptions and blocks of a guard, in the order in which they are to be installed.
pub(super) fn guard(pair: &SelectorPair, surroundings: &Surroundings) -> Vec<Item> {
    let mut items = exemptions(pair, surroundings);
    let family = if pair.local.addresses.is_ipv4() { Family::V4 } else { Family::V6 };
    let by_link = family == Family::V6 && surroundings.routed;
    let links = if by_link { surroundings.interfaces.links(surroundings.tun) } else { BTreeSet::new() };
    for key in keys(pair) {
        if by_link && key.way == Way::Out {
            items.extend(links.iter().map(|link| item(PolicyKey { link: *link, ..key }, Rank::Block, Verdict::Block)));
            items.push(item(key, Rank::Last, Verdict::Block));
        } else {
            items.push(item(key, Rank::Block, Verdict::Block));
        }
    }
    items
}

/// The policies of a pass shunt.
pub(super) fn pass(pair: &SelectorPair) -> Vec<Item> {
    keys(pair).into_iter().map(|key| item(key, Rank::Pass, Verdict::Allow)).collect()
}

/// Whether a policy of ours with this verdict and priority is that of a pass shunt.
pub(super) fn is_pass(verdict: Verdict, priority: u32) -> bool {
    let offset = priority.checked_sub(*PRIORITIES.start());
    let of_class = |offset: u32| (BY_SPECIFICITY..OWN).contains(&offset) && (offset - BY_SPECIFICITY).is_multiple_of(3);
    verdict == Verdict::Allow && offset.is_some_and(of_class)
}

fn item(key: PolicyKey, rank: Rank, verdict: Verdict) -> Item {
    let bits = u32::from(key.source.length())
        + u32::from(key.destination.length())
        + if key.protocol == 0 { 0 } else { 8 }
        + key.source_port.mask.count_ones()
        + key.destination_port.mask.count_ones();
    let by_specificity = |order| BY_SPECIFICITY + (MOST_BITS.saturating_sub(bits)) * 3 + order;
    let offset = match rank {
        Rank::First => 0,
        Rank::Pass => by_specificity(0),
        Rank::Block => by_specificity(1),
        Rank::Connected => by_specificity(2),
        Rank::Own => OWN,
        Rank::Last => LAST,
    };
    Item { key: key.owned(None), priority: PRIORITIES.start() + offset, verdict }
}

/// What the kernel has to hold for a pair of selectors, ranges split: out local -> remote, in and forward remote -> local, for every combination of
/// prefixes and ports.
pub fn keys(pair: &SelectorPair) -> Vec<PolicyKey> {
    let mut out = Vec::new();
    let ports = ports(pair);
    let protocol = protocol(pair);
    for local in prefixes(pair.local.addresses) {
        for remote in prefixes(pair.remote.addresses) {
            for (ours, theirs) in &ports {
                let between = |way, source, destination, source_port, destination_port| PolicyKey {
                    protocol,
                    source_port,
                    destination_port,
                    ..PolicyKey::between(way, source, destination)
                };
                // The kernel keeps type and code of ICMP in the place of the ports, in both directions alike.
                let (first, second) = if is_icmp(protocol) { (*ours, *theirs) } else { (*theirs, *ours) };
                out.push(between(Way::Out, local, remote, *ours, *theirs));
                out.push(between(Way::In, remote, local, first, second));
                out.push(between(Way::Forward, remote, local, first, second));
            }
        }
    }
    out
}

fn protocol(pair: &SelectorPair) -> u8 {
    if pair.local.protocol == 0 { pair.remote.protocol } else { pair.local.protocol }
}

fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

/// Our and the peer's port; for ICMP type and code.
fn ports(pair: &SelectorPair) -> Vec<(PortMask, PortMask)> {
    let protocol = protocol(pair);
    if protocol == 0 {
        return vec![(PortMask::default(), PortMask::default())];
    }
    if is_icmp(protocol) {
        return icmp(if pair.local.ports.is_any() { pair.remote.ports } else { pair.local.ports });
    }
    let theirs = port_masks(pair.remote.ports);
    port_masks(pair.local.ports).into_iter().flat_map(|ours| theirs.iter().map(move |their| (ours, *their))).collect()
}

/// Types and codes: the rest of the first type, whole types, the beginning of the last one. The kernel sees type and code 0 in packets that show
/// none, so that is OPAQUE.
fn icmp(range: PortRange) -> Vec<(PortMask, PortMask)> {
    if range.is_any() {
        return vec![(PortMask::default(), PortMask::default())];
    }
    let zero = PortMask { value: 0, mask: u16::MAX };
    if range.is_opaque() {
        return vec![(zero, zero)];
    }
    let [first, first_code] = range.start.to_be_bytes();
    let [last, last_code] = range.end.to_be_bytes();
    let within = |kind: u8| {
        let start = if kind == first { first_code } else { 0 };
        let end = if kind == last { last_code } else { u8::MAX };
        (start, end)
    };
    let part = |kind: u8, (start, end): (u8, u8)| {
        let codes = port_masks(PortRange { start: start.into(), end: end.into() });
        codes.into_iter().map(move |code| (PortMask { value: kind.into(), mask: u16::MAX }, code))
    };
    let parts = |kind: u8| Some((kind, within(kind))).filter(|(_, codes)| *codes != (0, u8::MAX));
    let ends = [parts(first), parts(last).filter(|_| first != last)];
    // Whole types, in as few masks as they take.
    let start = u16::from(first) + u16::from(ends.first().is_some_and(Option::is_some));
    let end = u16::from(last).checked_sub(u16::from(first != last && ends.last().is_some_and(Option::is_some)));
    let whole = end.filter(|end| start <= *end).map(|end| port_masks(PortRange { start, end })).unwrap_or_default();
    let whole = whole.into_iter().map(|kind| (kind, PortMask::default()));
    ends.into_iter().flatten().flat_map(|(kind, codes)| part(kind, codes)).chain(whole).collect()
}

/// The fewest masked ports that cover exactly a range. The kernel sees port 0 in packets that show none, so OPAQUE is port 0.
fn port_masks(range: PortRange) -> Vec<PortMask> {
    if range.is_any() {
        return vec![PortMask::default()];
    }
    if range.is_opaque() {
        return vec![PortMask { value: 0, mask: u16::MAX }];
    }
    let mut out = Vec::new();
    let (mut at, end) = (u32::from(range.start), u32::from(range.end));
    while at <= end {
        let mut size = 1_u32;
        while at % (size * 2) == 0 && at + size * 2 - 1 <= end {
            size *= 2;
        }
        let low = u16::try_from(at).unwrap_or(u16::MAX);
        let free = u16::try_from(size - 1).unwrap_or(u16::MAX);
        out.push(PortMask { value: low, mask: !free });
        at += size;
    }
    out
}

fn exemptions(pair: &SelectorPair, surroundings: &Surroundings) -> Vec<Item> {
    let family = if pair.local.addresses.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut first = device(family, surroundings);
    first.extend(link_scope(family));
    first.extend(own(family, &surroundings.interfaces));
    let mut items: Vec<_> =
        first.into_iter().filter(|key| concerns(pair, key)).map(|key| item(key, Rank::First, Verdict::Allow)).collect();
    items.extend(connected(pair, surroundings).into_iter().map(|key| item(key, Rank::Connected, Verdict::Allow)));
    if family == Family::V6 && surroundings.routed {
        let own = surroundings.interfaces.addresses.iter().map(host).filter(|own| own.family() == family);
        let leaving = own.map(|own| PolicyKey::between(Way::Out, own, Prefix::any(family)));
        items.extend(leaving.filter(|key| concerns(pair, key)).map(|key| item(key, Rank::Own, Verdict::Allow)));
    }
    items
}

/// Whether some packet of the key is also one of the guard's.
fn concerns(pair: &SelectorPair, key: &PolicyKey) -> bool {
    let (near, far) = match key.way {
        Way::Out => (key.source, key.destination),
        Way::In | Way::Forward => (key.destination, key.source),
    };
    near.intersects(pair.local.addresses) && far.intersects(pair.remote.addresses)
}

/// The TUN device and loopback. Arrivals from the TUN device are let pass by `disable_policy` on it, except that IPv6 looks at that setting
/// of the interface that owns the destination address: those packets carry a mark.
fn device(family: Family, surroundings: &Surroundings) -> Vec<PolicyKey> {
    let leaving = |way, link| PolicyKey { link, ..PolicyKey::everything(way, family) };
    let mut keys = vec![leaving(Way::Out, LOOPBACK)];
    if let Some(tun) = surroundings.tun {
        keys.extend([leaving(Way::Out, tun), leaving(Way::Forward, tun)]);
        if family == Family::V6 && surroundings.mark.is_some() {
            let mark = surroundings.mark.map(|mark| Mark::new(mark, u32::MAX));
            keys.push(PolicyKey { mark, ..PolicyKey::everything(Way::In, family) });
        }
    }
    keys
}

/// What never leaves a link, so that no router ever forwards it.
fn link_scope(family: Family) -> Vec<PolicyKey> {
    let any = Prefix::any(family);
    match family {
        Family::V4 => {
            let groups = [Prefix::new([224, 0, 0, 0].into(), 24), Prefix::host([255; 4].into())];
            groups.iter().flat_map(|to| [Way::Out, Way::In].map(|way| PolicyKey::between(way, any, *to))).collect()
        }
        Family::V6 => {
            let groups = Prefix::new([0xff02, 0, 0, 0, 0, 0, 0, 0].into(), 16);
            let local = Prefix::new([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10);
            let mut keys = vec![PolicyKey::between(Way::Out, any, local)];
            for way in [Way::Out, Way::In] {
                keys.extend([PolicyKey::between(way, any, groups), PolicyKey::between(way, local, any)]);
            }
            // Neighbour discovery between global addresses; on the way in it is for us by definition.
            keys.extend([135, 136].map(|kind| icmp_type(PolicyKey::everything(Way::In, family), kind)));
            keys
        }
    }
}

/// Own addresses among each other, their neighbour discovery, and errors about our own packets.
fn own(family: Family, interfaces: &Interfaces) -> Vec<PolicyKey> {
    let any = Prefix::any(family);
    let loopback = match family {
        Family::V4 => Prefix::new([127, 0, 0, 0].into(), 8),
        Family::V6 => Prefix::host([0, 0, 0, 0, 0, 0, 0, 1].into()),
    };
    let ways = [Way::In, Way::Out];
    let mut keys = ways.map(|way| PolicyKey::between(way, loopback, loopback)).to_vec();
    let own: Vec<_> = interfaces.addresses.iter().map(host).filter(|own| own.family() == family).collect();
    for one in &own {
        keys.extend(own.iter().flat_map(|other| ways.map(|way| PolicyKey::between(way, *one, *other))));
        let arriving = PolicyKey::between(Way::In, any, *one);
        let leaving = PolicyKey::between(Way::Out, *one, any);
        match family {
            Family::V4 => {
                let code = PortMask { value: 4, mask: u16::MAX };
                keys.push(PolicyKey { destination_port: code, ..icmp_type(arriving, 3) });
            }
            Family::V6 => keys.extend([icmp_type(arriving, 2), icmp_type(leaving, 135), icmp_type(leaving, 136)]),
        }
    }
    keys
}

fn icmp_type(key: PolicyKey, kind: u16) -> PolicyKey {
    let protocol = match key.family() {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    PolicyKey { protocol, source_port: PortMask { value: kind, mask: u16::MAX }, ..key }
}

fn connected(pair: &SelectorPair, surroundings: &Surroundings) -> Vec<PolicyKey> {
    let Interfaces { addresses, outside } = &surroundings.interfaces;
    let mut near = surroundings.interfaces.connected(surroundings.tun);
    near.retain(|subnet| strictly_covers(pair.remote.addresses, subnet.subnet));
    let own_on = |link| {
        let guarded = move |own: &&Local| own.link == link && pair.local.addresses.contains(own.address);
        addresses.iter().filter(guarded).map(host)
    };
    let mut keys = Vec::new();
    for there in &near {
        for own in own_on(there.link) {
            // IPv6 shows no egress here; the other end is on the link by its address.
            let link = if own.family() == Family::V4 { there.link } else { 0 };
            keys.push(PolicyKey { link, ..PolicyKey::between(Way::Out, own, there.subnet) });
            keys.push(PolicyKey::between(Way::In, there.subnet, own));
        }
    }
    near.retain(|subnet| pair.local.addresses.contains_range(subnet.subnet.range()) && !outside.contains(&subnet.link));
    for here in &near {
        for there in near.iter().filter(|there| *there != here) {
            for way in [Way::Out, Way::Forward] {
                keys.push(PolicyKey { link: there.link, ..PolicyKey::between(way, here.subnet, there.subnet) });
            }
            keys.extend(own_on(there.link).map(|own| PolicyKey::between(Way::In, here.subnet, own)));
        }
    }
    keys
}

/// Whether the remote selector covers `subnet` without being just that: an exact match is meant.
fn strictly_covers(range: AddressRange, subnet: Prefix) -> bool {
    let inner = subnet.range();
    range.contains_range(inner) && range != inner
}

fn host(local: &Local) -> Prefix {
    Prefix::host(local.address)
}

#[cfg(test)]
mod tests;
