//! Traffic selectors between payloads and SPD entries (RFC 7296 §2.9, §3.13).

use std::net::IpAddr;

use ike_model::ConfiguredSelector;
use ike_wire::{SelectorRange, TrafficSelectors};
use ipsec::{AddressRange, PacketSelectors, PortRange, TrafficSelector};

/// Configured selectors of one side, once its outer address is known.
pub(crate) fn resolve(configured: &[ConfiguredSelector], outer: IpAddr) -> Vec<TrafficSelector> {
    let mut out: Vec<TrafficSelector> = Vec::with_capacity(configured.len());
    for selector in configured.iter().map(|selector| selector.resolve(outer)) {
        if !out.iter().any(|kept| kept.contains(&selector)) {
            out.retain(|kept| !selector.contains(kept));
            out.push(selector);
        }
    }
    out
}

/// As a payload.
pub(crate) fn to_wire(selectors: &[TrafficSelector]) -> TrafficSelectors {
    let wire = selectors.iter().filter_map(|s| {
        let (start, end) = (s.addresses.start(), s.addresses.end());
        ike_wire::TrafficSelector::range(s.protocol, s.ports.start, s.ports.end, start, end)
    });
    TrafficSelectors::new(wire.collect())
}

/// The selectors of a payload that can match anything.
pub(crate) fn from_wire(payload: &TrafficSelectors) -> Vec<TrafficSelector> {
    payload.ranges().filter(|range| range.is_ordered()).filter_map(from_range).collect()
}

fn from_range(range: &SelectorRange) -> Option<TrafficSelector> {
    let addresses = AddressRange::new(range.addresses.start(), range.addresses.end())?;
    let ports = PortRange { start: range.start_port, end: range.end_port };
    Some(TrafficSelector { addresses, protocol: range.protocol, ports })
}

/// What is offered for one side: the packet that asked first (RFC 7296 §2.9), then what is configured.
pub(crate) fn with_packet(packet: Option<TrafficSelector>, configured: Vec<TrafficSelector>) -> Vec<TrafficSelector> {
    let packet = packet.filter(|first| !configured.contains(first));
    packet.into_iter().chain(configured).collect()
}

/// Source and destination of a packet as selectors of exactly this flow.
pub(crate) fn of_packet(packet: &PacketSelectors) -> (TrafficSelector, TrafficSelector) {
    let one = |address, port: Option<u16>| TrafficSelector {
        addresses: AddressRange::host(address),
        protocol: packet.protocol,
        ports: port.map_or(PortRange::ANY, PortRange::single),
    };
    (one(packet.source, packet.ports.map(|p| p.0)), one(packet.destination, packet.ports.map(|p| p.1)))
}

/// Whether all of `narrowed` lies in `offered` (RFC 7296 §2.9: the responder may only narrow).
pub(crate) fn is_subset(narrowed: &[TrafficSelector], offered: &[TrafficSelector]) -> bool {
    !narrowed.is_empty() && narrowed.iter().all(|selector| offered.iter().any(|outer| outer.contains(selector)))
}

/// In words.
pub(crate) fn describe(selectors: &[TrafficSelector]) -> String {
    let shown: Vec<_> = selectors.iter().take(16).map(ToString::to_string).collect();
    if shown.is_empty() { "nothing".into() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(address: &str, length: u8) -> TrafficSelector {
        TrafficSelector::prefix(address.parse().unwrap(), length).unwrap()
    }

    #[test]
    fn payload_round_trips() {
        let selectors = [
            ts("10.1.0.0", 16),
            TrafficSelector { protocol: 17, ports: PortRange::OPAQUE, ..ts("2001:db8::", 32) },
            TrafficSelector { protocol: 6, ports: PortRange::single(80), ..ts("10.0.0.1", 32) },
        ];
        assert_eq!(from_wire(&to_wire(&selectors)), selectors);
    }

    #[test]
    fn selectors_that_run_backwards_match_nothing() {
        let range =
            ike_wire::TrafficSelector::range(0, 0, u16::MAX, "10.0.0.9".parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert!(range.is_none_or(|range| from_wire(&TrafficSelectors::new(vec![range])).is_empty()));
    }

    #[test]
    fn packet_comes_first() {
        let packet = PacketSelectors {
            source: "10.1.0.5".parse().unwrap(),
            destination: "10.2.0.7".parse().unwrap(),
            protocol: 6,
            ports: Some((40_000, 443)),
        };
        let (local, _) = of_packet(&packet);
        let offered = with_packet(Some(local), vec![ts("10.1.0.0", 16)]);
        assert_eq!(describe(&offered), "10.1.0.5/32[6/40000] 10.1.0.0/16");
        assert!(is_subset(&offered, &[ts("10.0.0.0", 8)]));
        assert!(!is_subset(&[ts("10.0.0.0", 8)], &offered));
        assert!(!is_subset(&[], &offered));
    }

    //= RFC 7296 §2.9, §3.13.1: the selector of an ICMP packet is its type and code, in both port fields
    #[test]
    fn an_icmp_packet_is_selected_by_type_and_code() {
        let (source, destination) = ("10.1.0.5".parse().unwrap(), "10.2.0.7".parse().unwrap());
        let echo = PacketSelectors { source, destination, protocol: 1, ports: Some((0x0800, 0x0800)) };
        let (local, remote) = of_packet(&echo);
        let wire = to_wire(&with_packet(Some(remote), vec![ts("10.2.0.0", 16)]));
        let first = wire.ranges().next().unwrap();
        assert_eq!((first.protocol, first.start_port, first.end_port), (1, 0x0800, 0x0800));
        assert_eq!(describe(&[local]), "10.1.0.5/32[1/2048]");
        // A fragment, or a protocol without ports, shows none: all of its protocol is meant.
        let (local, _) = of_packet(&PacketSelectors { protocol: 50, ports: None, ..echo });
        assert_eq!(local.ports, PortRange::ANY);
    }
}
