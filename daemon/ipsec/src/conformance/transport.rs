//! Rules about transport mode (RFC 4303 §3.1.1, RFC 3948 §3.1.2).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::packets::{udp_v4, udp_v6};
use super::setup::{Bench, HairPin, LOCAL, LOCAL_V6, REMOTE, REMOTE_V6};
use super::{Kept, OuterPacket, Verdict, ensure};
use crate::backend::{Event, LimitUnit, OffloadError, Op, Request};
use crate::policy::PolicyAction;
use crate::sa::{OuterAddresses, SaMode};
use crate::selector::{AddressRange, PortRange, SelectorPair, TrafficSelector};

fn host(address: IpAddr) -> TrafficSelector {
    TrafficSelector::all(AddressRange::host(address))
}

fn hosts(local: IpAddr, remote: IpAddr) -> SelectorPair {
    SelectorPair { local: host(local), remote: host(remote) }
}

/// The same, UDP to and from port 7 of the peer only.
fn echo_only() -> SelectorPair {
    let pair = hosts(LOCAL, REMOTE);
    let udp = |selector, ports| TrafficSelector { protocol: 17, ports, ..selector };
    SelectorPair { local: udp(pair.local, PortRange::ANY), remote: udp(pair.remote, PortRange::single(7)) }
}

/// A hair-pin in transport mode between the two outer addresses: what comes back has them exchanged.
fn pin(bench: &mut Bench<'_>, selectors: SelectorPair) -> Result<HairPin, Verdict> {
    let mut pin = bench.hair_pin(selectors)?;
    (pin.outbound.mode, pin.inbound.mode) = (SaMode::Transport, SaMode::Transport);
    pin.inbound.selectors = Arc::new([selectors]);
    if let PolicyAction::Protect { mode, .. } = &mut pin.policy.action {
        *mode = SaMode::Transport;
    }
    Ok(pin)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// UDP from the local address to port 7 of the remote one.
fn echo(payload: usize) -> Vec<u8> {
    udp_v4(v4(LOCAL), v4(REMOTE), (5000, 7), payload, false)
}

/// Ones' complement sum of pseudo-header and segment: 0xffff when the checksum in it is right for these addresses.
fn sum(protocol: u8, source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let all = [octets(source), octets(destination), vec![0, protocol], length.to_vec(), segment.to_vec()].concat();
    let word = |pair: &[u8]| {
        (u32::from(pair.first().copied().unwrap_or(0)) << 8) + u32::from(pair.get(1).copied().unwrap_or(0))
    };
    let mut sum: u32 = all.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// An IPv4 packet of a protocol whose checksum at `at` is right for other addresses than its own.
fn summed(protocol: u8, at: usize, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut packet = echo(30);
    if let Some(field) = packet.get_mut(9) {
        *field = protocol;
    }
    let segment = packet.get(20..).unwrap_or_default().to_vec();
    let mut segment: Vec<u8> = segment
        .iter()
        .enumerate()
        .map(|(place, octet)| if place == at || place == at + 1 { 0 } else { *octet })
        .collect();
    let right = (!sum(protocol, source, destination, &segment)).to_be_bytes();
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&right);
    }
    packet.truncate(20);
    packet.extend_from_slice(&segment);
    packet
}

fn header(packet: &[u8]) -> (Option<&[u8]>, Option<&u8>) {
    (packet.get(12..20), packet.get(9))
}

//= RFC 4303 §3.1.1: ESP encloses what is behind the IP header, and the receiver gets the same packet
//= RFC 3948 §3.3: payloads arrive as they were sent
pub(super) fn transport_mode_carries_payloads_between_two_hosts(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport)?;
    let pin = pin(bench, hosts(LOCAL, REMOTE))?;
    bench.apply(pin.everything())?;
    let packets: Vec<Vec<u8>> = (1..=20).map(|number| echo(number * 13)).collect();
    let sent = bench.send(&packets)?;
    ensure(sent.iter().all(|packet| (packet.source.ip(), packet.destination.ip()) == (LOCAL, REMOTE)), || {
        "a packet left with other addresses".into()
    })?;
    let delivered = bench.receive(&sent)?;
    let expected = [octets(REMOTE), octets(LOCAL)].concat();
    let same = |(got, packet): (&Vec<u8>, &Vec<u8>)| {
        header(got) == (Some(expected.as_slice()), Some(&17)) && got.get(20..) == packet.get(20..)
    };
    ensure(delivered.len() == 20 && delivered.iter().zip(&packets).all(same), || {
        format!("{} of 20 packets arrived with their payload and the addresses exchanged", delivered.len())
    })?;
    let payload: usize = packets.iter().map(|packet| packet.len() - 20).sum();
    for handle in [pin.outbound.handle, pin.inbound.handle] {
        let status = bench.status(handle)?;
        ensure((status.packets, status.bytes) == (20, payload as u64), || {
            format!("20 payloads of {payload} octets, counters {} and {}", status.packets, status.bytes)
        })?;
    }
    Ok(())
}

/// The same for IPv6.
pub(super) fn transport_mode_carries_ipv6(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport)?;
    let (local, remote) = (IpAddr::V6(LOCAL_V6), IpAddr::V6(REMOTE_V6));
    let mut pin = pin(bench, hosts(local, remote))?;
    let outer = OuterAddresses { local, remote };
    pin.outbound.outer = outer;
    if let PolicyAction::Protect { outer: of_policy, .. } = &mut pin.policy.action {
        *of_policy = outer;
    }
    pin.inbound.outer = outer;
    bench.apply(pin.everything())?;
    let packet = udp_v6(LOCAL_V6, REMOTE_V6, (5000, 7), 100);
    let sent = bench.send(std::slice::from_ref(&packet))?;
    let delivered = bench.receive(&sent)?;
    let expected = [octets(remote), octets(local), packet.get(40..).unwrap_or_default().to_vec()].concat();
    let same =
        delivered.first().is_some_and(|got| got.get(8..) == Some(expected.as_slice()) && got.get(6) == Some(&17));
    ensure(delivered.len() == 1 && same, || format!("sent was {packet:02x?}, delivered {delivered:02x?}"))?;
    let bytes = bench.status(pin.inbound.handle)?.bytes;
    ensure(bytes == 108, || format!("a payload of 108 octets was counted as {bytes}"))
}

/// Selectors other than the two outer addresses are refused, and packets outside of protocol and ports go nowhere, in either direction.
pub(super) fn transport_mode_is_bound_to_its_hosts_and_selectors(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport && rung.selectors.ports)?;
    let wrong = pin(bench, super::setup::networks())?;
    let wide = pin(bench, SelectorPair { remote: TrafficSelector::all(AddressRange::ANY_V4), ..hosts(LOCAL, REMOTE) })?;
    for refused in [&wrong, &wide] {
        let outcome = bench.ask(Request::Apply(refused.everything()))?;
        ensure(matches!(outcome, Err(OffloadError::Invalid(_))), || format!("other hosts: {outcome:?}"))?;
    }
    let narrow = pin(bench, echo_only())?;
    bench.apply(narrow.everything())?;
    let other = [
        udp_v4(v4(LOCAL), v4(REMOTE), (5000, 8), 10, false),
        udp_v4(v4(LOCAL), Ipv4Addr::new(192, 0, 2, 3), (5000, 7), 10, false),
        udp_v4(Ipv4Addr::new(192, 0, 2, 4), v4(REMOTE), (5000, 7), 10, false),
    ];
    let sent = bench.send_strange(&other)?.len();
    ensure(sent == 0, || format!("{sent} packets outside the selectors were sent"))?;
    // The hair-pin turns addresses but not ports: what goes to port 7 of the peer comes from port 5000 of it, which is not what was agreed on.
    let sent = bench.send(&[echo(10)])?;
    let delivered = bench.receive(&sent)?.len();
    ensure(sent.len() == 1 && delivered == 0, || format!("{delivered} packets outside the selectors arrived"))?;
    let told = bench.told_drops("selector-mismatch");
    ensure(told == 1, || "the drop was not told".into())?;
    if !bench.claims().in_place_move {
        return Ok(());
    }
    let moved = OuterAddresses { local: LOCAL, remote: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)) };
    let op = Op::UpdateSa { sa: narrow.outbound.handle, outer: moved, encapsulation: None };
    let outcome = bench.ask(Request::Apply(vec![op]))?;
    ensure(outcome.is_err(), || "an SA in transport mode moved to another host".into())
}

//= RFC 4303 §3.3.4: transport mode seals whole packets, never fragments
pub(super) fn transport_mode_seals_whole_packets_only(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport)?;
    let pin = pin(bench, hosts(LOCAL, REMOTE))?;
    bench.apply(pin.everything())?;
    // 32 octets of payload each.
    let fragment = |flags: [u8; 2]| {
        let mut packet = echo(24);
        if let Some(field) = packet.get_mut(6..8) {
            field.copy_from_slice(&flags);
        }
        packet
    };
    let (first, second, gap) = (fragment([0x20, 0]), fragment([0, 4]), fragment([0, 5]));
    for wrong in [vec![second.clone()], vec![first.clone(), gap]] {
        let sent = bench.send(&wrong)?.len();
        ensure(sent == 0, || format!("{sent} packets were made of fragments that are no whole"))?;
    }
    let told = bench.told_drops("fragment-in-transport");
    ensure(told == 1, || "the drop was not told".into())?;
    let sent = bench.send(&[first, second])?;
    let delivered = bench.receive(&sent)?;
    let whole = delivered.first().is_some_and(|packet| packet.len() == 84 && packet.get(6..8) == Some(&[0x40, 0][..]));
    ensure(sent.len() == 1 && delivered.len() == 1 && whole, || {
        format!("two fragments of one packet were sent as {}, delivered {delivered:02x?}", sent.len())
    })?;
    // A large packet that may be fragmented is sent whole: its ESP packet is what gets fragmented on the way.
    let sent = bench.send(&[echo(4000)])?;
    let delivered = bench.receive(&sent)?;
    ensure(sent.len() == 1 && delivered.first().is_some_and(|packet| packet.len() == 4028), || {
        format!("a large packet became {} packets", sent.len())
    })?;
    let unfragmentable = udp_v4(v4(LOCAL), v4(REMOTE), (5000, 7), 4000, true);
    let sent = bench.send(&[unfragmentable])?.len();
    let answers = bench.wire()?.captured_inner();
    let too_big = |packet: &Vec<u8>| packet.get(20..22) == Some(&[3, 4][..]);
    ensure(sent == 0 && answers.len() == 1 && answers.iter().all(too_big), || {
        format!("a packet that does not fit was sent as {sent} packets and answered {} times", answers.len())
    })
}

//= RFC 3948 §3.1.2: checksums made with the addresses before translation are right after decapsulation
pub(super) fn transport_mode_puts_checksums_right_behind_nat(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport)?;
    let mut pin = pin(bench, hosts(LOCAL, REMOTE))?;
    // The peer calls itself 10.0.0.7 and us 203.0.113.5.
    let view = OuterAddresses {
        local: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)),
        remote: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)),
    };
    pin.inbound.peer_view = Some(view);
    bench.apply(pin.everything())?;
    for (protocol, at) in [(6, 16), (17, 6), (33, 6), (136, 6)] {
        let packet = summed(protocol, at, view.remote, view.local);
        let sent = bench.send(&[packet])?;
        let delivered = bench.receive(&sent)?;
        let right =
            delivered.first().and_then(|packet| packet.get(20..)).map(|segment| sum(protocol, REMOTE, LOCAL, segment));
        ensure(right == Some(u16::MAX), || format!("protocol {protocol}: {delivered:02x?}"))?;
    }
    // What has no checksum, or none over addresses, stays as it is.
    let mut gre = echo(30);
    if let Some(protocol) = gre.get_mut(9) {
        *protocol = 47;
    }
    for packet in [echo(30), gre] {
        let sent = bench.send(std::slice::from_ref(&packet))?;
        let delivered = bench.receive(&sent)?;
        let same = delivered.first().is_some_and(|got| got.get(20..) == packet.get(20..));
        ensure(same, || format!("a packet without a checksum was changed: {delivered:02x?}"))?;
    }
    Ok(())
}

/// Byte limits count payloads, as the counters do.
pub(super) fn transport_mode_limits_count_payloads(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.transport && rung.limits.bytes)?;
    let mut pin = pin(bench, hosts(LOCAL, REMOTE))?;
    let payload = (echo(30).len() - 20) as u64;
    (pin.outbound.limits.soft.bytes, pin.outbound.limits.hard.bytes) = (Some(payload * 3), Some(payload * 5));
    bench.apply(pin.everything())?;
    let handle = pin.outbound.handle;
    let soft =
        |bench: &Bench<'_>| bench.told(|event| *event == Event::SoftExpire { sa: handle, unit: LimitUnit::Bytes });
    let mut sent: Vec<OuterPacket> = Vec::new();
    for (count, expected) in [(2, 0), (1, 1), (7, 1)] {
        sent.extend(bench.send(&vec![echo(30); count])?);
        let told = soft(bench);
        ensure(told == expected, || format!("after {} packets the soft limit was told {told} times", sent.len()))?;
    }
    ensure(sent.len() == 5, || format!("{} packets passed a limit of five payloads", sent.len()))?;
    let told = bench.told(|event| *event == Event::HardExpire { sa: handle, unit: LimitUnit::Bytes });
    ensure(told == 1, || format!("the hard limit was told {told} times"))
}
