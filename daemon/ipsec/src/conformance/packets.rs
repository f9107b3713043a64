//! Rules about single packets: counters, replay, integrity, selectors, ESP forms, size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::setup::{Bench, REMOTE, UDP, network, networks};
use super::{Kept, OuterContent, OuterPacket, Verdict, ensure};
use crate::backend::{Answer, Event, Op};
use crate::sa::{OuterAddresses, UdpEncapsulation};
use crate::selector::{AddressRange, PortRange, SelectorPair, TrafficSelector};

/// A UDP packet over IPv4 with `payload` octets behind the UDP header; the UDP checksum is left out.
pub fn udp_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ports: (u16, u16),
    payload: usize,
    dont_fragment: bool,
) -> Vec<u8> {
    let length = u16::try_from(28 + payload).unwrap_or(u16::MAX);
    let [length_high, length_low] = length.to_be_bytes();
    let flags = if dont_fragment { 0x40 } else { 0 };
    let mut packet = vec![0x45, 0, length_high, length_low, 0, 1, flags, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = header_checksum(&packet);
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    push_udp(&mut packet, ports, payload);
    packet
}

/// A UDP packet over IPv6 with `payload` octets behind the UDP header; the UDP checksum is left out.
pub fn udp_v6(source: Ipv6Addr, destination: Ipv6Addr, ports: (u16, u16), payload: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(8 + payload).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(&[17, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    push_udp(&mut packet, ports, payload);
    packet
}

fn push_udp(packet: &mut Vec<u8>, ports: (u16, u16), payload: usize) {
    packet.extend_from_slice(&ports.0.to_be_bytes());
    packet.extend_from_slice(&ports.1.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(8 + payload).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend((0..payload).map(|at| at.to_le_bytes()[0]));
}

fn header_checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).filter_map(|pair| pair.first_chunk()).copied().map(u16::from_be_bytes);
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A selector for all traffic of one host.
pub fn destination(address: &str) -> TrafficSelector {
    TrafficSelector::all(AddressRange::host(IpAddr::V4(v4(address))))
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// A small packet with its number in the port.
pub(super) fn ping(source: &str, to: &str, number: u16) -> Vec<u8> {
    udp_v4(v4(source), v4(to), (number, 7), 30, false)
}

/// Numbered packets of the usual networks.
pub(super) fn pings(count: u16) -> Vec<Vec<u8>> {
    (1..=count).map(|number| ping("10.1.0.1", "10.2.0.1", number)).collect()
}

pub(super) fn counters_are_exact(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    ensure(bench.status(pin.outbound.handle)?.idle_seconds.is_none(), || "an unused SA has an idle time".into())?;
    let packets = pings(100);
    let octets: usize = packets.iter().map(Vec::len).sum();
    let sent = bench.send(&packets)?;
    let delivered = bench.receive(&sent)?;
    ensure(delivered == packets, || format!("{} of 100 packets arrived unchanged and in order", delivered.len()))?;
    for handle in [pin.outbound.handle, pin.inbound.handle] {
        let status = bench.status(handle)?;
        let seen = (status.packets, status.bytes, status.sequence, status.idle_seconds);
        ensure(seen == (100, octets as u64, 100, Some(0)), || {
            format!("100 packets of {octets} octets, counters {seen:?}")
        })?;
    }
    bench.pass_time(std::time::Duration::from_secs(5))?;
    let idle = bench.status(pin.inbound.handle)?.idle_seconds;
    ensure(idle == Some(5), || format!("5 seconds after the last packet the idle time is {idle:?}"))
}

/// Whoever keeps accounts sees an SA for the last time in the answer to its removal.
pub(super) fn a_removal_tells_the_last_counters(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let packets = pings(7);
    let octets: usize = packets.iter().map(Vec::len).sum();
    let sent = bench.send(&packets)?;
    bench.receive(&sent)?;
    let handles = [pin.outbound.handle, pin.inbound.handle];
    let answer = bench.apply(handles.map(Op::RemoveSa).to_vec())?;
    let Answer::Applied(applied) = answer else {
        return Err(Verdict::Broken(format!("a removal was answered with {answer:?}")));
    };
    let told: Vec<_> = applied.removed.iter().map(|status| (status.sa, status.packets, status.bytes)).collect();
    ensure(told == handles.map(|sa| (sa, 7, octets as u64)), || {
        format!("both SAs carried 7 packets of {octets} octets, their removal told {told:?}")
    })
}

pub(super) fn a_replayed_packet_is_rejected(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let window = usize::try_from(pin.inbound.replay_window).unwrap_or(0);
    ensure(window > 10, || format!("a window of {window} packets protects from nothing"))?;
    // Numbers 1 to 10, then the last 11, then what is between: as many packets as the window has, less those 11, are still new.
    let all = window + 36;
    let sent = bench.send(&pings(u16::try_from(all).unwrap_or(u16::MAX)))?;
    let pick = |from: usize, to: usize| sent.get(from..to).unwrap_or_default().to_vec();
    let mut delivered = bench.receive(&pick(0, 10))?.len() + bench.receive(&pick(all - 11, all))?.len();
    ensure(delivered == 21, || format!("{delivered} of 21 packets in order arrived"))?;
    delivered = bench.receive(&pick(0, all))?.len();
    let new = window - 11;
    ensure(delivered == new, || format!("{delivered} packets arrived late, {new} are new and inside the window"))?;
    delivered = bench.receive(&sent)?.len();
    ensure(delivered == 0, || format!("{delivered} packets arrived twice"))?;
    let told = bench.told_drops("replay");
    ensure(told == 1, || format!("{told} drop events of replays"))?;
    let carried = bench.status(pin.inbound.handle)?.packets;
    ensure(carried == (window + 10) as u64, || "replays were counted as carried".into())
}

pub(super) fn an_altered_packet_is_rejected(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let sent = bench.send(&pings(1))?;
    let length = sent.first().and_then(OuterPacket::esp).map_or(0, <[u8]>::len);
    // The SPI is not altered here: that is another rule.
    let altered: Vec<OuterPacket> = (4..length).map(|at| alter(&sent, at)).collect();
    let delivered = bench.receive(&altered)?.len();
    ensure(delivered == 0, || format!("{delivered} of {length} altered packets arrived"))?;
    let shortened: Vec<OuterPacket> = (0..length).map(|end| shorten(&sent, end)).collect();
    let delivered = bench.receive(&shortened)?.len();
    ensure(delivered == 0, || format!("{delivered} shortened packets arrived"))?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 1, || "forged packets used up the number of the authentic one".into())?;
    ensure(bench.status(pin.inbound.handle)?.packets == 1, || "forged packets were counted".into())
}

pub(super) fn alter(sent: &[OuterPacket], at: usize) -> OuterPacket {
    edit(sent, |octets| {
        if let Some(octet) = octets.get_mut(at) {
            *octet ^= 0x40;
        }
    })
}

fn shorten(sent: &[OuterPacket], end: usize) -> OuterPacket {
    edit(sent, |octets| octets.truncate(end))
}

/// A changed copy of the first packet.
fn edit(sent: &[OuterPacket], change: impl FnOnce(&mut Vec<u8>)) -> OuterPacket {
    let mut octets = sent.first().and_then(OuterPacket::esp).unwrap_or_default().to_vec();
    change(&mut octets);
    let address = SocketAddr::new(REMOTE, 0);
    let (source, destination) = sent.first().map_or((address, address), |packet| (packet.source, packet.destination));
    OuterPacket { source, destination, content: OuterContent::Esp(octets) }
}

pub(super) fn the_whole_spi_is_compared(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    let sent = bench.send(&pings(1))?;
    let wrong: Vec<OuterPacket> = (0..4).map(|at| alter(&sent, at)).collect();
    let delivered = bench.receive(&wrong)?.len();
    let told = bench.told_drops("unknown-spi");
    ensure((delivered, told) == (0, 1), || {
        format!("{delivered} packets with a wrong SPI arrived, {told} drop events")
    })?;
    // No other SA's key is tried.
    let tried = bench.told_drops("integrity");
    ensure(tried == 0, || "a packet with a wrong SPI was taken for one of another SA".into())
}

//= RFC 3948 §3.1.1: inner addresses are held against the SPD
pub(super) fn an_inner_packet_outside_the_selectors_is_dropped(bench: &mut Bench<'_>) -> Kept {
    // The sender is allowed more than the receiver negotiated.
    let wide = SelectorPair { local: network(1), remote: TrafficSelector::all(AddressRange::ANY_V4) };
    let mut pin = bench.hair_pin(wide)?;
    let turned = SelectorPair { local: network(2), remote: network(1) };
    pin.inbound.selectors = Arc::new([turned]);
    bench.apply(pin.everything())?;
    let sent = bench.send(&[ping("10.1.0.1", "10.3.0.1", 1), ping("10.1.0.1", "10.2.0.1", 2)])?;
    let delivered = bench.receive(&sent)?;
    ensure(delivered == [ping("10.1.0.1", "10.2.0.1", 2)], || {
        format!("{} of 2 packets arrived, one is allowed", delivered.len())
    })?;
    ensure(bench.status(pin.inbound.handle)?.packets == 1, || "a dropped packet was counted as carried".into())
}

pub(super) fn an_inner_fragment_passes_only_without_ports(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.selectors.ports)?;
    let open = bench.connected()?;
    let mut fragment = ping("10.1.0.1", "10.2.0.1", 1);
    // Offset 8 octets, more to come; the checksum field is the sum's complement, so it drops by the same amount.
    for (at, value) in [(6, 0x20), (7, 0x01)] {
        if let Some(octet) = fragment.get_mut(at) {
            *octet = value;
        }
    }
    let sum =
        fragment.get(10..12).map_or(0, |octets| octets.iter().fold(0_u16, |sum, octet| (sum << 8) | u16::from(*octet)));
    if let Some(field) = fragment.get_mut(10..12) {
        field.copy_from_slice(&sum.wrapping_sub(0x2001).to_be_bytes());
    }
    let sent = bench.send(std::slice::from_ref(&fragment))?;
    ensure(bench.receive(&sent)?.len() == 1, || "a fragment was dropped although selectors have no ports".into())?;
    let sent = bench.send(std::slice::from_ref(&fragment))?;
    let port = TrafficSelector { protocol: 17, ports: PortRange::single(7), ..network(2) };
    bench.apply(open.remove_inbound())?;
    let mut narrow = bench.hair_pin(networks())?;
    narrow.inbound.selectors = Arc::new([SelectorPair { local: port, remote: network(1) }]);
    bench.apply(narrow.everything())?;
    ensure(bench.receive(&sent)?.is_empty(), || "a removed SA delivers".into())?;
    let sent = bench.send(&[fragment, ping("10.1.0.1", "10.2.0.1", 2)])?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 1, || format!("with ports, {delivered} of fragment and whole packet arrived, one should"))?;
    let told = bench.told(|event| matches!(event, Event::Drops { .. }));
    // The packet of the SA that was removed is one, this the other.
    ensure(told == 2, || format!("{told} reasons for drops were told, a fragment is one"))
}

/// The packet in the other form, from these ports.
fn in_udp(packet: &OuterPacket, source: SocketAddr) -> OuterPacket {
    let octets = packet.esp().unwrap_or_default().to_vec();
    let destination = SocketAddr::new(packet.destination.ip(), 4500);
    OuterPacket { source, destination, content: OuterContent::EspInUdp(octets) }
}

//= RFC 3948 §2.1, §3.4, §3.5: ESP in UDP and without, whichever the peer sends
pub(super) fn both_forms_are_accepted_and_the_peers_is_told(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.udp_encapsulation)?;
    let pin = bench.connected()?;
    let sent = bench.send(&pings(3))?;
    let native = bench.receive(sent.get(..1).unwrap_or_default())?.len();
    let told = |bench: &Bench<'_>| bench.told(|event| matches!(event, Event::PeerForm { .. }));
    ensure((native, told(bench)) == (1, 0), || "a packet in our own form is not delivered, or told of".into())?;
    let from = SocketAddr::new(turn_ip(&sent), 61_000);
    let other: Vec<OuterPacket> = sent.iter().skip(1).map(|packet| in_udp(packet, from)).collect();
    let delivered = bench.receive(&other)?.len();
    ensure(delivered == 2, || format!("{delivered} of 2 packets in the other form arrived"))?;
    let expected = Event::PeerForm {
        sa: pin.inbound.handle,
        encapsulation: Some(UdpEncapsulation { local_port: 4500, remote_port: 61_000 }),
    };
    ensure(told(bench) == 1 && bench.told(|event| *event == expected) == 1, || {
        format!("events {:?}", bench.log().events())
    })
}

fn turn_ip(sent: &[OuterPacket]) -> IpAddr {
    // As captured: our own address, which the hair-pin turns into the peer's.
    sent.first().map_or(REMOTE, |packet| packet.source.ip())
}

pub(super) fn a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.udp_encapsulation)?;
    let mut pin = bench.hair_pin(networks())?;
    (pin.inbound.encapsulation, pin.outbound.encapsulation) = (Some(UDP), Some(UDP));
    bench.apply(pin.everything())?;
    let sent = bench.send(&pings(4))?;
    let moved = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), 1_024);
    let from =
        |packet: Option<&OuterPacket>| packet.map(|packet| in_udp(packet, moved)).into_iter().collect::<Vec<_>>();
    let told = |bench: &Bench<'_>| bench.told(|event| matches!(event, Event::MappingChange { .. }));
    bench.receive(&[1, 0].map(|at| sent.get(at).cloned()).into_iter().flatten().collect::<Vec<_>>())?;
    // Known number, altered content, old number: none of them moves anything.
    let altered = in_udp(&alter(sent.get(2..).unwrap_or_default(), 30), moved);
    bench.receive(&from(sent.first()))?;
    bench.receive(&[altered])?;
    ensure(told(bench) == 0, || "a replayed or forged packet moved the mapping".into())?;
    let delivered = bench.receive(&from(sent.get(2)))?.len() + bench.receive(&from(sent.get(3)))?.len();
    let expected = Event::MappingChange { sa: pin.inbound.handle, remote: moved };
    ensure(delivered == 2 && told(bench) == 1 && bench.told(|event| *event == expected) == 1, || {
        format!("{delivered} of 2 packets arrived, events {:?}", bench.log().events())
    })
}

pub(super) fn the_first_inbound_packet_is_told_once(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let sent = bench.send(&pings(5))?;
    let told = |bench: &Bench<'_>| bench.told(|event| *event == Event::InboundFirstUse { sa: pin.inbound.handle });
    ensure(told(bench) == 0, || "an inbound SA was used before a packet came".into())?;
    bench.receive(&[alter(&sent, 20)])?;
    ensure(told(bench) == 0, || "a forged packet counts as use".into())?;
    bench.receive(&sent)?;
    ensure(told(bench) == 1, || format!("the first use was told {} times", told(bench)))
}

pub(super) fn a_moved_sa_sends_to_its_new_address(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.in_place_move && rung.udp_encapsulation)?;
    let pin = bench.connected()?;
    bench.send(&pings(2))?;
    let remote = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    let outer = OuterAddresses { local: pin.outbound.outer.local, remote };
    let encapsulation = Some(UdpEncapsulation { local_port: 4500, remote_port: 5_555 });
    bench.apply(vec![Op::UpdateSa { sa: pin.outbound.handle, outer, encapsulation }])?;
    let sent = bench.send(&pings(1))?;
    let Some(packet) = sent.first() else { return Err(Verdict::Broken("a moved SA sends nothing".into())) };
    let udp = matches!(packet.content, OuterContent::EspInUdp(_));
    ensure(udp && packet.destination == SocketAddr::new(remote, 5_555), || {
        format!("a moved SA sends to {}", packet.destination)
    })?;
    let sequence = bench.status(pin.outbound.handle)?.sequence;
    ensure(sequence == 3, || format!("after the move the sequence number is {sequence}, not 3"))
}

/// Moving must not start anything over: a sequence number used twice under one key breaks AES-GCM, and a window that forgets takes replays.
pub(super) fn a_moved_sa_keeps_sequence_window_and_counters(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.in_place_move && rung.udp_encapsulation)?;
    let pin = bench.connected()?;
    let kept = bench.send(&pings(4))?;
    bench.receive(&kept)?;
    let home = pin.outbound.outer;
    let away = OuterAddresses { local: home.local, remote: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)) };
    let udp = Some(UdpEncapsulation { local_port: 4500, remote_port: 4500 });
    let state =
        |bench: &mut Bench<'_>, sa| bench.status(sa).map(|status| (status.sequence, status.packets, status.bytes));
    let (mut sent, mut received) = (4, 4);
    // Encapsulation comes and goes, addresses change and come back.
    for (outer, encapsulation) in [(away, udp), (away, None), (home, udp), (home, None)] {
        let before = (state(bench, pin.outbound.handle)?, state(bench, pin.inbound.handle)?);
        let move_both = [pin.outbound.handle, pin.inbound.handle].map(|sa| Op::UpdateSa { sa, outer, encapsulation });
        bench.apply(move_both.into())?;
        let after = (state(bench, pin.outbound.handle)?, state(bench, pin.inbound.handle)?);
        ensure(before == after, || format!("a move changes {before:?} to {after:?}"))?;
        ensure(bench.receive(&kept)?.is_empty(), || "a moved SA takes packets again that it had before".into())?;
        let more = bench.send(&pings(1))?;
        sent += 1;
        ensure(bench.status(pin.outbound.handle)?.sequence == sent, || format!("the sequence number is not {sent}"))?;
        received += bench.receive(&more)?.len() as u64;
        ensure(received == sent, || format!("{received} of {sent} packets arrived"))?;
    }
    Ok(())
}

pub(super) fn an_oversize_packet_is_answered_or_fragmented(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    let big = |dont_fragment| udp_v4(v4("10.1.0.1"), v4("10.2.0.1"), (9, 9), 1_472, dont_fragment);
    let sent = bench.send(&[big(true)])?.len();
    let answers = bench.wire()?.captured_inner();
    ensure(sent == 0, || "a packet that does not fit and may not be fragmented left".into())?;
    // From one of our addresses that the sender may hear of.
    let from = answers.first().and_then(|answer| answer.get(12..14));
    ensure(from == Some(&[10, 1]), || format!("the answer comes from {from:?}"))?;
    // Destination unreachable, fragmentation needed, with a next-hop MTU from which a packet passes (RFC 1191 §4).
    let mtu =
        answers.first().filter(|answer| answer.get(20..22) == Some(&[3, 4])).and_then(|answer| answer.get(26..28));
    let mtu = mtu.and_then(|octets| octets.first_chunk()).copied().map_or(0, u16::from_be_bytes);
    ensure((1_200..1_500).contains(&mtu), || {
        format!("the answer to an oversize packet tells an MTU of {mtu}: {answers:x?}")
    })?;
    let fitting = udp_v4(v4("10.1.0.1"), v4("10.2.0.1"), (9, 9), usize::from(mtu) - 28, true);
    let sent = bench.send(std::slice::from_ref(&fitting))?;
    let outer =
        |packet: &OuterPacket| packet.esp().map_or(0, <[u8]>::len) + if packet.source.port() == 0 { 20 } else { 28 };
    let lengths: Vec<usize> = sent.iter().map(outer).collect();
    ensure(lengths.len() == 1 && lengths.iter().all(|length| *length <= 1_500), || {
        format!("a packet of the MTU told becomes outer packets of {lengths:?} octets")
    })?;
    let sent = bench.send(&[big(false)])?;
    let delivered = bench.receive(&sent)?;
    let payload: usize = delivered.iter().map(|packet| packet.len() - 20).sum();
    // A host may fragment what it has sealed instead of what it is to seal.
    let least = if bench.subject().is_the_host() { 1 } else { 2 };
    ensure(delivered.len() >= least && payload == 1_480, || {
        format!("{} fragments with {payload} octets", delivered.len())
    })
}

pub(super) fn ipv6_is_carried_like_ipv4(bench: &mut Bench<'_>) -> Kept {
    let net = |n: u16| Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 1);
    let all = |n: u16| TrafficSelector::prefix(IpAddr::V6(net(n)), 32).ok_or(Verdict::CannotShow);
    let selectors = SelectorPair { local: all(1)?, remote: all(2)? };
    let pin = bench.hair_pin(selectors)?;
    bench.apply(pin.everything())?;
    let packets: Vec<Vec<u8>> = [10, 500, 1_200].map(|size| udp_v6(net(1), net(2), (5, 6), size)).into();
    let sent = bench.send(&packets)?;
    let delivered = bench.receive(&sent)?;
    ensure(delivered == packets, || format!("{} of 3 IPv6 packets arrived unchanged", delivered.len()))?;
    // A packet for the other family's entry does not exist: the IPv4 one is not covered.
    let sent = bench.send_strange(&pings(1))?.len();
    ensure(sent == 0, || "an IPv4 packet left over IPv6 selectors".into())
}

//= RFC 4303 §2.2: the counter goes up by one for each packet
pub(super) fn sequence_numbers_go_up_by_one(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let mut numbers = Vec::new();
    // One by one, then as a batch; what is dropped in between takes no number.
    for batch in [pings(1), pings(1), vec![ping("10.9.0.1", "10.9.0.2", 1)], pings(20)] {
        numbers.extend(bench.send_strange(&batch)?.iter().filter_map(OuterPacket::sequence));
    }
    let expected: Vec<u32> = (1..=22).collect();
    ensure(numbers == expected, || format!("numbers sent are {numbers:?}"))?;
    let sequence = bench.status(pin.outbound.handle)?.sequence;
    ensure(sequence == 22, || format!("after 22 packets the number told is {sequence}"))
}

/// While both ends go over to new SAs, packets of the old ones are still on their way.
pub(super) fn old_and_new_inbound_sas_work_side_by_side(bench: &mut Bench<'_>) -> Kept {
    let (old, new) = (bench.connected()?, bench.hair_pin(networks())?);
    bench.apply(vec![Op::InstallSa(Box::new(new.inbound.clone())), Op::InstallSa(Box::new(new.outbound.clone()))])?;
    let late = bench.send(&pings(3))?;
    bench.apply(vec![Op::Activate { policy: old.policy.handle, sa: new.outbound.handle }])?;
    let early = bench.send(&pings(3))?;
    bench.apply(vec![Op::RemoveSa(old.outbound.handle)])?;
    let mut delivered = 0;
    for (old, new) in late.iter().zip(&early) {
        delivered += bench.receive(&[new.clone(), old.clone()])?.len();
    }
    ensure(delivered == 6, || format!("{delivered} of 6 packets of old and new SA arrived"))?;
    bench.apply(vec![Op::RemoveSa(old.inbound.handle)])?;
    let after = bench.receive(&late)?.len();
    ensure(after == 0, || format!("{after} packets of a removed SA arrived"))
}

//= RFC 4443 §3.2: packet too big
pub(super) fn an_oversize_ipv6_packet_is_answered(bench: &mut Bench<'_>) -> Kept {
    let net = |n: u16| Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 1);
    let all = |n: u16| TrafficSelector::prefix(IpAddr::V6(net(n)), 32).ok_or(Verdict::CannotShow);
    let pin = bench.hair_pin(SelectorPair { local: all(1)?, remote: all(2)? })?;
    bench.apply(pin.everything())?;
    let sent = bench.send(&[udp_v6(net(1), net(2), (5, 6), 1_452)])?.len();
    let answers = bench.wire()?.captured_inner();
    ensure(sent == 0, || "an IPv6 packet that does not fit left".into())?;
    let answer =
        answers.first().filter(|answer| answer.get(40) == Some(&2) && answer.get(24..40) == Some(&net(1).octets()));
    let mtu = answer.and_then(|answer| answer.get(44..48)?.first_chunk()).copied().map_or(0, u32::from_be_bytes);
    ensure((1_280..1_500).contains(&mtu), || format!("the answer to an oversize IPv6 packet: {answers:02x?}"))?;
    let fitting = udp_v6(net(1), net(2), (5, 6), usize::try_from(mtu).unwrap_or(0) - 48);
    let sent = bench.send(&[fitting])?.len();
    ensure(sent == 1, || format!("a packet of the MTU told became {sent} packets"))
}
