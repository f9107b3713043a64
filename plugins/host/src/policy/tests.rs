use std::collections::BTreeSet;
use std::net::IpAddr;

use ipsec::TrafficSelector;

use super::super::prefix::tests::prefix;
use super::*;

const OUTSIDE: u32 = 2;
const LAN: u32 = 3;
const SECOND_LAN: u32 = 4;
const TUN: u32 = 9;

fn selector(text: &str) -> TrafficSelector {
    let prefix = prefix(text);
    TrafficSelector::prefix(prefix.address(), prefix.length()).unwrap()
}

fn pair(local: &str, remote: &str) -> SelectorPair {
    SelectorPair { local: selector(local), remote: selector(remote) }
}

fn surroundings() -> Surroundings {
    let local = |address: &str, length, link| {
        let address: IpAddr = address.parse().unwrap();
        Local { address, subnet: Prefix::new(address, length), link }
    };
    let addresses = vec![
        local("192.0.2.1", 24, OUTSIDE),
        local("10.1.0.1", 24, LAN),
        local("10.1.1.1", 24, SECOND_LAN),
        local("2001:db8:1::1", 64, LAN),
    ];
    let interfaces = Interfaces { addresses, outside: BTreeSet::from([OUTSIDE]) };
    Surroundings { interfaces, tun: Some(TUN), mark: Some(0x4347), routed: true }
}

struct Packet {
    way: Way,
    source: &'static str,
    destination: &'static str,
    /// As the kernel compares it: egress, or loopback on the way in.
    link: u32,
    ports: (u8, u16, u16),
    mark: u32,
}

fn packet(way: Way, source: &'static str, destination: &'static str, link: u32) -> Packet {
    Packet { way, source, destination, link, ports: (17, 1000, 2000), mark: 0 }
}

/// What the kernel would do: the best matching policy decides, nothing lets pass.
fn verdict(items: &[Item], packet: &Packet) -> Verdict {
    let (protocol, source_port, destination_port) = packet.ports;
    let matches = |item: &&Item| {
        let PolicyKey { way, source, destination, protocol: wanted, .. } = item.key;
        way == packet.way
            && source.contains(packet.source.parse().unwrap())
            && destination.contains(packet.destination.parse().unwrap())
            && (wanted == 0 || wanted == protocol)
            && source_port & item.key.source_port.mask == item.key.source_port.value
            && destination_port & item.key.destination_port.mask == item.key.destination_port.value
            && (item.key.link == 0 || item.key.link == packet.link)
            && item.key.mark.is_none_or(|mark| packet.mark & mark.mask == mark.value)
    };
    items.iter().filter(matches).min_by_key(|item| item.priority).map_or(Verdict::Allow, |item| item.verdict)
}

#[test]
fn a_guard_blocks_out_in_and_forward_but_not_the_way_into_the_tun() {
    let items = guard(&pair("10.1.0.0/16", "10.2.0.0/16"), &surroundings());
    let ask = |packet: Packet| verdict(&items, &packet);
    assert_eq!(ask(packet(Way::Out, "10.1.0.5", "10.2.0.7", OUTSIDE)), Verdict::Block);
    assert_eq!(ask(packet(Way::Out, "10.1.0.5", "10.2.0.7", TUN)), Verdict::Allow);
    assert_eq!(ask(packet(Way::Forward, "10.1.0.5", "10.2.0.7", TUN)), Verdict::Allow);
    assert_eq!(ask(packet(Way::Forward, "10.2.0.7", "10.1.0.5", LAN)), Verdict::Block);
    assert_eq!(ask(packet(Way::In, "10.2.0.7", "10.1.0.1", LOOPBACK)), Verdict::Block);
    assert_eq!(ask(packet(Way::Out, "10.1.0.5", "198.51.100.1", OUTSIDE)), Verdict::Allow);
    let forward_blocks: Vec<_> =
        items.iter().filter(|item| item.key.way == Way::Forward && item.verdict == Verdict::Block).collect();
    assert!(forward_blocks.iter().all(|item| item.key.source == prefix("10.2.0.0/16")));
}

#[test]
fn a_guard_of_everything_leaves_connected_subnets_reachable() {
    let items = guard(&pair("0.0.0.0/0", "0.0.0.0/0"), &surroundings());
    let allowed = [
        packet(Way::Out, "10.1.0.1", "10.1.0.5", LAN),
        packet(Way::In, "10.1.0.5", "10.1.0.1", LOOPBACK),
        packet(Way::Out, "192.0.2.1", "192.0.2.9", OUTSIDE),
        packet(Way::In, "192.0.2.9", "192.0.2.1", LOOPBACK),
        packet(Way::Forward, "10.1.0.5", "10.1.1.5", SECOND_LAN),
        packet(Way::Out, "10.1.0.5", "10.1.1.5", SECOND_LAN),
        packet(Way::In, "10.1.0.5", "10.1.1.1", LOOPBACK),
        packet(Way::In, "10.1.0.1", "10.1.1.1", LOOPBACK),
        packet(Way::Out, "10.1.0.1", "255.255.255.255", LAN),
        packet(Way::Forward, "10.1.0.5", "203.0.113.1", TUN),
    ];
    for packet in &allowed {
        assert_eq!(
            verdict(&items, packet),
            Verdict::Allow,
            "{:?} {} -> {}",
            packet.way,
            packet.source,
            packet.destination
        );
    }
    let blocked = [
        packet(Way::Out, "10.1.0.5", "192.0.2.9", OUTSIDE),
        packet(Way::Forward, "192.0.2.9", "10.1.0.5", LAN),
        packet(Way::In, "192.0.2.9", "10.1.0.1", LOOPBACK),
        packet(Way::Out, "192.0.2.1", "203.0.113.1", OUTSIDE),
        packet(Way::Forward, "203.0.113.1", "10.1.0.5", LAN),
        packet(Way::Out, "10.1.0.5", "203.0.113.1", OUTSIDE),
    ];
    for packet in &blocked {
        assert_eq!(
            verdict(&items, packet),
            Verdict::Block,
            "{:?} {} -> {}",
            packet.way,
            packet.source,
            packet.destination
        );
    }
}

#[test]
fn path_mtu_errors_about_our_own_packets_pass_a_guard_of_everything() {
    let items = guard(&pair("0.0.0.0/0", "0.0.0.0/0"), &surroundings());
    let error =
        |code, destination| Packet { ports: (ICMP, 3, code), ..packet(Way::In, "203.0.113.1", destination, LOOPBACK) };
    assert_eq!(verdict(&items, &error(4, "192.0.2.1")), Verdict::Allow);
    assert_eq!(verdict(&items, &error(1, "192.0.2.1")), Verdict::Block);
    assert_eq!(verdict(&items, &Packet { way: Way::Forward, ..error(4, "10.1.0.5") }), Verdict::Block);
}

#[test]
fn ipv6_neighbour_discovery_passes_but_not_that_of_a_lan_host() {
    let items = guard(&pair("::/0", "::/0"), &surroundings());
    let discovery =
        |way, source, destination, link| Packet { ports: (ICMPV6, 135, 0), ..packet(way, source, destination, link) };
    let allowed = [
        discovery(Way::Out, "2001:db8:1::1", "ff02::1:ff00:5", LAN),
        discovery(Way::Out, "2001:db8:1::1", "2001:db8:1::5", LAN),
        discovery(Way::In, "2001:db8:1::5", "2001:db8:1::1", LOOPBACK),
        discovery(Way::Out, "fe80::1", "2001:db8:9::5", OUTSIDE),
        discovery(Way::In, "fe80::2", "fe80::1", LOOPBACK),
        discovery(Way::In, "2001:db8:9::5", "ff02::1:ff00:1", LOOPBACK),
    ];
    for packet in &allowed {
        assert_eq!(
            verdict(&items, packet),
            Verdict::Allow,
            "{:?} {} -> {}",
            packet.way,
            packet.source,
            packet.destination
        );
    }
    let through = discovery(Way::Out, "2001:db8:1::5", "2001:db8:2::7", OUTSIDE);
    assert_eq!(verdict(&items, &through), Verdict::Block);
}

#[test]
fn ipv6_from_the_tunnel_to_this_host_needs_the_mark() {
    let items = guard(&pair("2001:db8:1::/64", "2001:db8:2::/64"), &surroundings());
    let mut arriving = packet(Way::In, "2001:db8:2::7", "2001:db8:1::1", LOOPBACK);
    assert_eq!(verdict(&items, &arriving), Verdict::Block);
    arriving.mark = 0x4347;
    assert_eq!(verdict(&items, &arriving), Verdict::Allow);
}

#[test]
fn own_ipv6_packets_show_no_egress_unless_bound_to_a_device() {
    let ends = pair("2001:db8:1::/64", "2001:db8:2::/64");
    let items = guard(&ends, &surroundings());
    let own = |link| packet(Way::Out, "2001:db8:1::1", "2001:db8:2::7", link);
    assert_eq!(verdict(&items, &own(0)), Verdict::Allow);
    assert_eq!(verdict(&items, &own(TUN)), Verdict::Allow);
    assert_eq!(verdict(&items, &own(OUTSIDE)), Verdict::Block);
    assert_eq!(verdict(&items, &own(LAN)), Verdict::Block);
    assert_eq!(verdict(&items, &packet(Way::Out, "2001:db8:1::5", "2001:db8:2::7", OUTSIDE)), Verdict::Block);
    assert_eq!(verdict(&items, &packet(Way::Out, "2001:db8:1::5", "2001:db8:2::7", 77)), Verdict::Block);
    let unrouted = guard(&ends, &Surroundings { routed: false, ..surroundings() });
    assert_eq!(verdict(&unrouted, &own(0)), Verdict::Block);
}

#[test]
fn neither_shunt_nor_subnet_opens_a_guard_of_one_host() {
    let mut items = guard(&pair("0.0.0.0/0", "0.0.0.0/0"), &surroundings());
    items.extend(guard(&pair("192.0.2.1/32", "192.0.2.7/32"), &surroundings()));
    items.extend(pass(&pair("0.0.0.0/0", "192.0.2.0/24")));
    assert_eq!(verdict(&items, &packet(Way::Out, "192.0.2.1", "192.0.2.7", OUTSIDE)), Verdict::Block);
    assert_eq!(verdict(&items, &packet(Way::Out, "192.0.2.1", "192.0.2.8", OUTSIDE)), Verdict::Allow);
    assert_eq!(verdict(&items, &packet(Way::Out, "10.1.0.5", "192.0.2.8", OUTSIDE)), Verdict::Allow);
    assert_eq!(verdict(&items, &packet(Way::Out, "10.1.0.5", "203.0.113.8", OUTSIDE)), Verdict::Block);
}

#[test]
fn a_remote_selector_that_is_just_the_subnet_is_meant() {
    let items = guard(&pair("0.0.0.0/0", "192.0.2.0/24"), &surroundings());
    assert_eq!(verdict(&items, &packet(Way::Out, "192.0.2.1", "192.0.2.9", OUTSIDE)), Verdict::Block);
}

#[test]
fn without_a_device_nothing_is_let_into_one() {
    let without = Surroundings { tun: None, mark: None, ..surroundings() };
    let items = guard(&pair("10.1.0.0/16", "10.2.0.0/16"), &without);
    assert_eq!(verdict(&items, &packet(Way::Out, "10.1.0.5", "10.2.0.7", TUN)), Verdict::Block);
}

#[test]
fn ports_are_mirrored_on_the_way_in_and_icmp_is_not() {
    let mut web = pair("10.1.0.0/16", "10.2.0.0/16");
    web.remote.protocol = 6;
    web.remote.ports = PortRange::single(80);
    let items = guard(&web, &Surroundings::default());
    let tcp = |way, source, destination, ports: (u16, u16)| Packet {
        ports: (6, ports.0, ports.1),
        ..packet(way, source, destination, OUTSIDE)
    };
    assert_eq!(verdict(&items, &tcp(Way::Out, "10.1.0.5", "10.2.0.7", (9, 80))), Verdict::Block);
    assert_eq!(verdict(&items, &tcp(Way::Out, "10.1.0.5", "10.2.0.7", (80, 9))), Verdict::Allow);
    assert_eq!(verdict(&items, &tcp(Way::Forward, "10.2.0.7", "10.1.0.5", (80, 9))), Verdict::Block);
    let mut echo = pair("10.1.0.0/16", "10.2.0.0/16");
    echo.local.protocol = 1;
    echo.local.ports = PortRange::single(0x0800);
    let items = guard(&echo, &Surroundings::default());
    let icmp =
        |way, source, destination, kind| Packet { ports: (1, kind, 0), ..packet(way, source, destination, OUTSIDE) };
    assert_eq!(verdict(&items, &icmp(Way::Out, "10.1.0.5", "10.2.0.7", 8)), Verdict::Block);
    assert_eq!(verdict(&items, &icmp(Way::Forward, "10.2.0.7", "10.1.0.5", 8)), Verdict::Block);
    assert_eq!(verdict(&items, &icmp(Way::Out, "10.1.0.5", "10.2.0.7", 0)), Verdict::Allow);
}

#[test]
fn port_masks_cover_exactly_the_range() {
    for (start, end) in [(0, 0), (1, 1), (80, 88), (1024, 65535), (1, 65535), (0, 1023), (4999, 5001), (65535, 65535)] {
        let masks = port_masks(PortRange { start, end });
        for port in 0..=u16::MAX {
            let covered = masks.iter().filter(|mask| port & mask.mask == mask.value).count();
            assert_eq!(covered, usize::from((start..=end).contains(&port)), "port {port} of {start}-{end}");
        }
        assert!(masks.len() <= 30);
    }
    assert_eq!(port_masks(PortRange::ANY), [PortMask::default()]);
    assert_eq!(port_masks(PortRange::OPAQUE), [PortMask { value: 0, mask: u16::MAX }]);
}

#[test]
fn every_priority_carries_our_marker() {
    let mut tiny = pair("10.1.0.5/32", "10.2.0.7/32");
    tiny.local.protocol = 6;
    tiny.remote.ports = PortRange::single(80);
    for pair in [tiny, pair("0.0.0.0/0", "0.0.0.0/0"), pair("2001:db8::1/128", "2001:db8::2/128"), pair("::/0", "::/0")]
    {
        for item in guard(&pair, &surroundings()).iter().chain(&pass(&pair)) {
            assert!(PRIORITIES.contains(&item.priority), "{:?}", item);
        }
    }
}

#[test]
fn shunts_are_told_from_blocks_and_exemptions_by_their_priority() {
    let as_found = |item: &Item| Found { key: item.key, verdict: item.verdict, priority: item.priority, index: 0 };
    for ends in [pair("0.0.0.0/0", "0.0.0.0/0"), pair("::/0", "::/0"), pair("10.1.0.5/32", "10.2.0.7/32")] {
        assert!(pass(&ends).iter().all(|item| is_pass(&as_found(item))));
        assert!(!guard(&ends, &surroundings()).iter().any(|item| is_pass(&as_found(item))));
    }
}
