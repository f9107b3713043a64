//! Traffic selectors (RFC 7296 §3.13, RFC 4301 §4.4.1.1): address and port ranges with a protocol, and narrowing.

use std::cmp::{max, min};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::sa::OuterAddresses;

/// Inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressRange {
    start: IpAddr,
    end: IpAddr,
}

/// Inclusive range of ports.
///
/// `0..=65535` is ANY. OPAQUE (`65535..=0`, ports not available, RFC 7296 §3.13.1) is the one range that runs backwards. For ICMP the port
/// holds type * 256 + code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port.
    pub end: u16,
}

/// One traffic selector: one side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// Addresses.
    pub addresses: AddressRange,
    /// IP protocol; 0 = any.
    pub protocol: u8,
    /// Ports.
    pub ports: PortRange,
}

/// Both sides of a flow as one SPD entry matches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SelectorPair {
    /// Our side.
    pub local: TrafficSelector,
    /// The peer's side.
    pub remote: TrafficSelector,
}

/// What selectors look at in one packet, seen from the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PacketSelectors {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol of the upper layer.
    pub protocol: u8,
    /// Source and destination port; for ICMP type * 256 + code in both; `None` when the packet shows none (fragment, other protocol).
    pub ports: Option<(u16, u16)>,
}

impl AddressRange {
    /// The range from `start` to `end`, or nothing when they are of different families or in wrong order.
    pub fn new(start: IpAddr, end: IpAddr) -> Option<Self> {
        (start.is_ipv4() == end.is_ipv4() && start <= end).then_some(Self { start, end })
    }

    /// One address.
    pub const fn host(address: IpAddr) -> Self {
        Self { start: address, end: address }
    }

    /// All addresses whose first `length` bits are those of `address`, or nothing when `length` is too large.
    pub fn prefix(address: IpAddr, length: u8) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
                let bits = v4.to_bits();
                (length <= 32).then(|| Self {
                    start: Ipv4Addr::from_bits(bits & !host).into(),
                    end: Ipv4Addr::from_bits(bits | host).into(),
                })
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
                let bits = v6.to_bits();
                (length <= 128).then(|| Self {
                    start: Ipv6Addr::from_bits(bits & !host).into(),
                    end: Ipv6Addr::from_bits(bits | host).into(),
                })
            }
        }
    }

    /// Every IPv4 address.
    pub const ANY_V4: Self = Self { start: IpAddr::V4(Ipv4Addr::UNSPECIFIED), end: IpAddr::V4(Ipv4Addr::BROADCAST) };
    /// Every IPv6 address.
    pub const ANY_V6: Self =
        Self { start: IpAddr::V6(Ipv6Addr::UNSPECIFIED), end: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)) };

    /// First address.
    pub const fn start(self) -> IpAddr {
        self.start
    }

    /// Last address.
    pub const fn end(self) -> IpAddr {
        self.end
    }

    /// Whether the addresses are IPv4.
    pub const fn is_ipv4(self) -> bool {
        self.start.is_ipv4()
    }

    /// Whether `address` is inside.
    pub fn contains(self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    /// Whether all of `other` is inside.
    pub fn contains_range(self, other: Self) -> bool {
        self.contains(other.start) && self.contains(other.end)
    }

    /// The addresses in both.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(max(self.start, other.start), min(self.end, other.end)).filter(|_| self.is_ipv4() == other.is_ipv4())
    }

    /// Prefix length when the range is exactly one prefix.
    pub fn prefix_length(self) -> Option<u8> {
        let (difference, width) = match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => (u128::from(start.to_bits() ^ end.to_bits()), 32),
            (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits() ^ end.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let host_bits = 128 - difference.leading_zeros();
        let length = u8::try_from(width - host_bits).ok()?;
        (Self::prefix(self.start, length) == Some(self)).then_some(length)
    }

    /// The fewest prefixes (address, length) that cover exactly this range, in order.
    pub fn prefixes(self) -> Vec<(IpAddr, u8)> {
        let mut out = Vec::new();
        let (mut at, end, width) = match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => (u128::from(start.to_bits()), u128::from(end.to_bits()), 32_u32),
            (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits(), end.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return out,
        };
        loop {
            let mut host_bits = min(at.trailing_zeros(), width);
            while host_bits > 0 && (host_bits == 128 && (at, end) != (0, u128::MAX) || last(at, host_bits) > end) {
                host_bits -= 1;
            }
            let address = if width == 32 {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(at).unwrap_or(u32::MAX)))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(at))
            };
            out.push((address, u8::try_from(width - host_bits).unwrap_or(u8::MAX)));
            let block_end = last(at, host_bits);
            if block_end >= end {
                return out;
            }
            at = block_end + 1;
        }
    }
}

/// Last address of the block of `host_bits` free bits at `start`.
fn last(start: u128, host_bits: u32) -> u128 {
    start | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1)
}

impl PortRange {
    /// Any port, and packets that show none.
    pub const ANY: Self = Self { start: 0, end: u16::MAX };
    /// Only packets whose ports are not available.
    pub const OPAQUE: Self = Self { start: u16::MAX, end: 0 };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { start: port, end: port }
    }

    /// Whether this is [`Self::ANY`].
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// Whether this is [`Self::OPAQUE`].
    pub fn is_opaque(self) -> bool {
        self == Self::OPAQUE
    }

    /// Whether a packet with this port, or with none to see, matches.
    pub fn matches(self, port: Option<u16>) -> bool {
        match port {
            _ if self.is_any() => true,
            None => self.is_opaque(),
            Some(port) => self.start <= port && port <= self.end,
        }
    }

    fn intersection(self, other: Self) -> Option<Self> {
        match (self.is_opaque(), other.is_opaque()) {
            (true, true) => Some(Self::OPAQUE),
            (true, false) => other.is_any().then_some(Self::OPAQUE),
            (false, true) => self.is_any().then_some(Self::OPAQUE),
            (false, false) => {
                let range = Self { start: max(self.start, other.start), end: min(self.end, other.end) };
                (range.start <= range.end).then_some(range)
            }
        }
    }
}

impl TrafficSelector {
    /// All protocols and ports of `addresses`.
    pub const fn all(addresses: AddressRange) -> Self {
        Self { addresses, protocol: 0, ports: PortRange::ANY }
    }

    /// All protocols and ports of a prefix, or nothing when `length` is too large.
    pub fn prefix(address: IpAddr, length: u8) -> Option<Self> {
        AddressRange::prefix(address, length).map(Self::all)
    }

    /// The traffic in both (RFC 7296 §2.9 narrowing of one selector by another).
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        Some(Self {
            addresses: self.addresses.intersection(other.addresses)?,
            protocol,
            ports: self.ports.intersection(other.ports)?,
        })
    }

    /// Whether all traffic of `other` is also ours.
    pub fn contains(&self, other: &Self) -> bool {
        self.intersection(other).as_ref() == Some(other)
    }

    /// Whether one end of a packet matches.
    pub fn matches(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        self.addresses.contains(address)
            && (self.protocol == 0 || self.protocol == protocol)
            && self.ports.matches(port)
    }

    /// Whether ports matter, so that fragments without ports cannot be told apart.
    pub fn needs_ports(&self) -> bool {
        !self.ports.is_any()
    }
}

impl SelectorPair {
    /// Whether an outbound packet matches.
    pub fn matches_outbound(&self, packet: &PacketSelectors) -> bool {
        self.local.matches(packet.source, packet.protocol, packet.ports.map(|(source, _)| source))
            && self.remote.matches(
                packet.destination,
                packet.protocol,
                packet.ports.map(|(_, destination)| destination),
            )
    }

    /// Whether an inbound packet matches.
    pub fn matches_inbound(&self, packet: &PacketSelectors) -> bool {
        self.remote.matches(packet.source, packet.protocol, packet.ports.map(|(source, _)| source))
            && self.local.matches(packet.destination, packet.protocol, packet.ports.map(|(_, destination)| destination))
    }

    /// Whether this is traffic of exactly these two hosts: all that transport mode can carry.
    pub fn is_between(&self, hosts: OuterAddresses) -> bool {
        self.local.addresses == AddressRange::host(hosts.local)
            && self.remote.addresses == AddressRange::host(hosts.remote)
    }

    /// Every combination of one local and one remote selector of the same family and compatible protocols.
    pub fn product(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Vec<Self> {
        let compatible = |a: &TrafficSelector, b: &TrafficSelector| {
            a.addresses.is_ipv4() == b.addresses.is_ipv4()
                && (a.protocol == b.protocol || a.protocol == 0 || b.protocol == 0)
        };
        local
            .iter()
            .flat_map(|l| remote.iter().filter(move |r| compatible(l, r)).map(|r| Self { local: *l, remote: *r }))
            .collect()
    }
}

/// The traffic that is both in `offered` and in `allowed` (RFC 7296 §2.9): every pairwise intersection, those contained in another left out.
/// The order is that of `offered`, so a selector taken from the packet that caused an acquire stays first.
pub fn narrow(offered: &[TrafficSelector], allowed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut out: Vec<TrafficSelector> = Vec::new();
    for common in offered.iter().flat_map(|o| allowed.iter().filter_map(|a| o.intersection(a))) {
        if !out.iter().any(|kept| kept.contains(&common)) {
            out.retain(|kept| !common.contains(kept));
            out.push(common);
        }
    }
    out
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            Some(length) => write!(f, "{}/{length}", self.start),
            None => write!(f, "{}..{}", self.start, self.end),
        }
    }
}

impl fmt::Display for TrafficSelector {
    /// As `10.1.0.0/16`, `10.1.0.0/16[6/80]`, `10.0.0.1..10.0.0.9[17/1024-2048]`; protocols and ports as numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addresses)?;
        match (self.protocol, self.ports) {
            (0, ports) if ports.is_any() => Ok(()),
            (protocol, ports) if ports.is_any() => write!(f, "[{protocol}]"),
            (protocol, ports) if ports.is_opaque() => write!(f, "[{protocol}/OPAQUE]"),
            (protocol, PortRange { start, end }) if start == end => write!(f, "[{protocol}/{start}]"),
            (protocol, PortRange { start, end }) => write!(f, "[{protocol}/{start}-{end}]"),
        }
    }
}

impl fmt::Display for SelectorPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} === {}", self.local, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ts(address: &str, length: u8) -> TrafficSelector {
        TrafficSelector::prefix(address.parse().unwrap(), length).unwrap()
    }

    fn range(start: &str, end: &str) -> AddressRange {
        AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap()
    }

    #[test]
    fn narrowing_keeps_the_offered_order_and_drops_the_contained() {
        let packet = TrafficSelector { protocol: 6, ..ts("10.1.0.5", 32) };
        let offered = [packet, ts("10.1.0.0", 16), ts("192.168.0.0", 16)];
        assert_eq!(narrow(&offered, &[ts("10.0.0.0", 8)]), [ts("10.1.0.0", 16)]);
        assert_eq!(narrow(&[packet], &[ts("10.0.0.0", 8)]), [packet]);
        assert_eq!(narrow(&offered, &[ts("172.16.0.0", 12)]), []);
    }

    #[test]
    fn opaque_meets_only_any_and_opaque() {
        let opaque = TrafficSelector { protocol: 17, ports: PortRange::OPAQUE, ..ts("10.0.0.0", 8) };
        let http = TrafficSelector { protocol: 17, ports: PortRange::single(80), ..ts("10.0.0.0", 8) };
        assert_eq!(opaque.intersection(&http), None);
        assert_eq!(opaque.intersection(&ts("10.0.0.0", 8)), Some(opaque));
        assert!(opaque.matches("10.0.0.1".parse().unwrap(), 17, None));
        assert!(!opaque.matches("10.0.0.1".parse().unwrap(), 17, Some(80)));
    }

    #[test]
    fn families_never_mix() {
        assert_eq!(AddressRange::ANY_V4.intersection(AddressRange::ANY_V6), None);
        assert!(!AddressRange::ANY_V6.contains("10.0.0.1".parse().unwrap()));
        assert!(AddressRange::new("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()).is_none());
    }

    #[test]
    fn display_is_prefix_or_range() {
        assert_eq!(ts("10.1.0.0", 16).to_string(), "10.1.0.0/16");
        assert_eq!(TrafficSelector::all(range("10.0.0.1", "10.0.0.9")).to_string(), "10.0.0.1..10.0.0.9");
        let web = TrafficSelector { protocol: 6, ports: PortRange { start: 80, end: 81 }, ..ts("::", 0) };
        assert_eq!(web.to_string(), "::/0[6/80-81]");
    }

    #[test]
    fn ranges_split_into_prefixes() {
        let text = |r: AddressRange| r.prefixes().iter().map(|(a, l)| format!("{a}/{l}")).collect::<Vec<_>>().join(" ");
        assert_eq!(text(range("10.0.0.1", "10.0.0.9")), "10.0.0.1/32 10.0.0.2/31 10.0.0.4/30 10.0.0.8/31");
        assert_eq!(text(AddressRange::ANY_V4), "0.0.0.0/0");
        assert_eq!(text(AddressRange::ANY_V6), "::/0");
        assert_eq!(text(range("::1", "::2")), "::1/128 ::2/128");
        assert_eq!(text(range("255.255.255.255", "255.255.255.255")), "255.255.255.255/32");
    }

    proptest! {
        #[test]
        fn prefixes_cover_exactly_the_range(a: u32, b: u32) {
            let (start, end) = (a.min(b), a.max(b));
            let range = AddressRange::new(Ipv4Addr::from_bits(start).into(), Ipv4Addr::from_bits(end).into()).unwrap();
            let parts: Vec<_> = range.prefixes().iter().map(|(a, l)| AddressRange::prefix(*a, *l).unwrap()).collect();
            prop_assert_eq!(parts.first().unwrap().start(), range.start());
            prop_assert_eq!(parts.last().unwrap().end(), range.end());
            for pair in parts.windows(2) {
                let (IpAddr::V4(e), IpAddr::V4(s)) = (pair[0].end(), pair[1].start()) else { unreachable!() };
                prop_assert_eq!(e.to_bits() + 1, s.to_bits());
            }
        }

        #[test]
        fn intersection_commutes_and_is_contained(a: u32, b in 0_u8..=32, c: u32, d in 0_u8..=32) {
            let x = TrafficSelector::prefix(Ipv4Addr::from_bits(a).into(), b).unwrap();
            let y = TrafficSelector::prefix(Ipv4Addr::from_bits(c).into(), d).unwrap();
            prop_assert_eq!(x.intersection(&y), y.intersection(&x));
            if let Some(common) = x.intersection(&y) {
                prop_assert!(x.contains(&common) && y.contains(&common));
            }
        }
    }
}
