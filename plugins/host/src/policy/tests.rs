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
    let as_found = |item: &Item| is_pass(item.verdict, item.priority);
    for ends in [pair("0.0.0.0/0", "0.0.0.0/0"), pair("::/0", "::/0"), pair("10.1.0.5/32", "10.2.0.7/32")] {
        assert!(pass(&ends).iter().all(as_found));
        assert!(!guard(&ends, &surroundings()).iter().any(as_found));
    }
}

/// A policy of the kernel backend that takes all traffic between these, ranked as the core does.
fn taking(ends: &SelectorPair) -> Vec<Item> {
    const PRIORITY: u32 = 202_000;
    let mut items = beside::exemptions(ends, PRIORITY, &surroundings());
    items.extend(keys(ends).into_iter().map(|key| Item { key, priority: PRIORITY, verdict: Verdict::Block }));
    items
}

#[test]
fn a_policy_for_everything_has_the_neighbourhood_before_it() {
    let items = taking(&pair("0.0.0.0/0", "0.0.0.0/0"));
    let ask = |way, from, to, link| verdict(&items, &packet(way, from, to, link));
    assert_eq!(ask(Way::Out, "10.1.0.1", "10.1.0.5", LAN), Verdict::Allow);
    assert_eq!(ask(Way::Forward, "10.1.0.5", "10.1.1.5", SECOND_LAN), Verdict::Allow);
    assert_eq!(ask(Way::In, "10.1.0.5", "10.1.0.1", LOOPBACK), Verdict::Allow);
    assert_eq!(ask(Way::Out, "10.1.0.5", "203.0.113.1", OUTSIDE), Verdict::Block);
    assert_eq!(ask(Way::Out, "10.1.0.5", "192.0.2.9", OUTSIDE), Verdict::Block);
    let narrow = beside::exemptions(&pair("10.7.0.0/16", "10.2.0.0/16"), 1, &surroundings());
    assert_eq!(narrow, [], "nothing of it concerns two networks elsewhere");
}

#[test]
fn neighbour_discovery_goes_around_what_has_neighbours() {
    let discovery = |remote: &str| {
        let items = beside::exemptions(&pair("2001:db8:1::/64", remote), 1, &surroundings());
        items.iter().any(|item| (item.key.protocol, item.key.source_port.value) == (ICMPV6, 135))
    };
    assert!(discovery("::/0") && discovery("2001:db8:1::7/128") && discovery("fe80::/64"));
    assert!(!discovery("2001:db8:2::/64"), "nobody there is on a link of ours");
}

#[test]
fn ike_goes_through_a_device_for_our_addresses_and_ports_only() {
    const DEVICE: u32 = 12;
    let own: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()];
    let items = beside::ike(&own, &[500, 0], DEVICE);
    assert_eq!(items.len(), 4, "two directions of each family, no port 0");
    assert!(items.iter().all(|item| item.key.device() == Some(DEVICE) && item.priority == 0));
    let ask = |way, from, to, ports: (u16, u16)| {
        let packet = Packet { ports: (17, ports.0, ports.1), ..packet(way, from, to, OUTSIDE) };
        items.iter().any(|item| verdict(&[Item { verdict: Verdict::Block, ..*item }], &packet) == Verdict::Block)
    };
    assert!(ask(Way::Out, "192.0.2.1", "198.51.100.7", (500, 40_000)));
    assert!(ask(Way::In, "198.51.100.7", "192.0.2.1", (40_000, 500)));
    assert!(!ask(Way::Out, "10.1.0.5", "198.51.100.7", (500, 500)), "a LAN host's own IKE is protected");
    assert!(!ask(Way::Out, "192.0.2.1", "198.51.100.7", (40_000, 500)), "and so is that of others on this host");
    assert!(!ask(Way::In, "198.51.100.7", "192.0.2.1", (500, 40_000)));
    let exact = |ends: (&str, &str)| beside::exact_ike(&pair(ends.0, ends.1), &own, &[500, 4500], DEVICE);
    assert_eq!(exact(("192.0.2.1/32", "198.51.100.7/32")).len(), 4);
    assert!(
        exact(("192.0.2.1/32", "198.51.100.7/32"))
            .iter()
            .all(|item| { (item.key.source.length(), item.key.destination.length()) == (32, 32) })
    );
    assert_eq!(exact(("192.0.2.1/32", "198.51.100.0/24")), [], "what is not exact hides nothing");
    assert_eq!(exact(("10.1.0.5/32", "198.51.100.7/32")), [], "not our address");
}

#[test]
fn a_device_holds_what_is_about_its_own_link() {
    let beside = beside::exemptions(&pair("0.0.0.0/0", "0.0.0.0/0"), 202_000, &surroundings());
    let held = beside::in_device(&beside, LAN);
    assert!(held.iter().all(|item| item.key.link == 0 && item.key.device() == Some(LAN)));
    let has = |items: &[Item], to: &str| items.iter().any(|item| item.key.destination == prefix(to));
    assert!(has(&held, "10.1.0.0/24") && has(&beside, "192.0.2.0/24"));
    let out = |item: &&Item| item.key.way == Way::Out;
    assert!(!held.iter().filter(out).any(|item| item.key.destination == prefix("192.0.2.0/24")));
}

/// No more and no less than the types and codes of a range, which a bypass must not be wider than.
#[test]
fn types_and_codes_of_icmp_are_covered_exactly() {
    let ranges =
        [(0x0803, 0x0803), (0x0800, 0x08ff), (0x0305, 0x0804), (0x0300, 0x05ff), (0x0001, 0x00fe), (0xfe10, 0xffff)];
    for (start, end) in ranges {
        let covered = icmp(PortRange { start, end });
        let matches = |mask: PortMask, value: u8| u16::from(value) & mask.mask == mask.value;
        for kind in 0..=u8::MAX {
            for code in 0..=u8::MAX {
                let meant = (start..=end).contains(&u16::from_be_bytes([kind, code]));
                let met = covered.iter().filter(|(of, codes)| matches(*of, kind) && matches(*codes, code)).count();
                assert_eq!(met, usize::from(meant), "{start:#x}-{end:#x}: type {kind} code {code}");
            }
        }
    }
}
