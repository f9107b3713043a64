//! Frames and packets as the kit wants them: Ethernet put on and taken off, the hop that forwarding takes given back, fragments made and
//! put together, ESP told from what is in clear.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipsec::conformance::{OuterContent, OuterPacket};
use lab::frame::{ESP, ETHERNET, ICMPV6, Mac, Network, Packet, UDP, parse, ports};

const IGMP: u8 = 2;
const HOP_BY_HOP: u8 = 0;
const NAT_PORT: u16 = 4500;
/// What a NAT keepalive is made of.
const KEEPALIVE: [u8; 1] = [0xff];

/// An Ethernet frame with a packet of either family, or with what is none.
pub(super) fn ethernet(destination: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if is_v6(packet) { [0x86, 0xdd] } else { [0x08, 0x00] };
    // Locally administered, nobody's.
    let source = [2, 0, 0, 0, 0, 0x77];
    [&destination, &source, kind.as_slice(), packet].concat()
}

fn is_v6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|octet| octet >> 4 == 6)
}

/// The IP packet of a frame, without padding; nothing where there is none, or one that hosts send by themselves: multicast and neighbours.
pub(super) fn packet_of(frame: &[u8]) -> Option<Vec<u8>> {
    let Network::Ip(seen) = parse(frame) else { return None };
    if is_noise(&seen) {
        return None;
    }
    let packet = frame.get(ETHERNET..)?;
    let length = match seen.source {
        IpAddr::V4(_) => usize::from(be16(packet, 2)?),
        IpAddr::V6(_) => usize::from(be16(packet, 4)?) + 40,
    };
    Some(packet.get(..length)?.to_vec())
}

fn is_noise(packet: &Packet<'_>) -> bool {
    match packet.protocol {
        IGMP | HOP_BY_HOP => true,
        // Multicast listeners, routers and neighbours, the second version of listeners.
        ICMPV6 => matches!(packet.payload.first(), Some(130..=137 | 143)),
        _ => false,
    }
}

fn be16(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Adds one to what is left of a packet's hops, as if one more router had not been there.
pub(super) fn give_hop_back(packet: &mut [u8]) {
    let at = if is_v6(packet) { 7 } else { 8 };
    if packet.len() < 20 {
        return;
    }
    if let Some(hops) = packet.get_mut(at) {
        *hops = hops.saturating_add(1);
    }
    if !is_v6(packet) {
        sum_header(packet);
    }
}

/// Makes the checksum of an IPv4 header right.
fn sum_header(packet: &mut [u8]) {
    let octets = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    if let Some(field) = packet.get_mut(10..12) {
        field.fill(0);
    }
    let words = packet.get(..octets).unwrap_or_default().chunks_exact(2).filter_map(|pair| be16(pair, 0));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

/// Puts the checksum into a UDP datagram, which IPv6 asks for.
pub(super) fn sum_udp(source: IpAddr, destination: IpAddr, datagram: &mut [u8]) {
    let octets = |address| match address {
        IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    };
    let length = (datagram.len() as u16).to_be_bytes();
    let all = [octets(source), octets(destination), vec![0, UDP], length.to_vec(), datagram.to_vec(), vec![0]].concat();
    let mut sum: u32 = all.chunks_exact(2).filter_map(|pair| be16(pair, 0)).map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let Some(field) = datagram.get_mut(6..8) {
        field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

/// An IP packet around a payload.
pub(super) fn around(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend_from_slice(&(length + 20).to_be_bytes());
            packet.extend_from_slice(&[0x35, 0x71, 0, 0, 64, protocol, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            sum_header(&mut packet);
            packet.extend_from_slice(payload);
            packet
        }
        (source, destination) => {
            let v6 = |address| match address {
                IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
                IpAddr::V6(v6) => v6,
            };
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&[protocol, 64]);
            packet.extend_from_slice(&v6(source).octets());
            packet.extend_from_slice(&v6(destination).octets());
            packet.extend_from_slice(payload);
            packet
        }
    }
}

/// The packets that a link of this MTU carries instead of one; IPv6 and what fits stay whole.
pub(super) fn fragments(packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
    if packet.len() <= mtu || is_v6(&packet) {
        return vec![packet];
    }
    let (header, payload) = packet.split_at(20);
    let most = (mtu - 20) / 8 * 8;
    let count = payload.len().div_ceil(most);
    let piece = |(number, part): (usize, &[u8])| {
        let more = if number + 1 < count { 0x2000 } else { 0 };
        let place = ((number * most / 8) as u16) | more;
        let mut one = [header, part].concat();
        for (at, field) in [(2, (one.len() as u16).to_be_bytes()), (6, place.to_be_bytes())] {
            if let Some(octets) = one.get_mut(at..at + 2) {
                octets.copy_from_slice(&field);
            }
        }
        sum_header(&mut one);
        one
    };
    payload.chunks(most).enumerate().map(piece).collect()
}

/// Puts packets together that were fragmented on the outer side; one at a time, in order, as a single link has them.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pending: Vec<u8>,
}

impl Whole {
    /// The packet that this one completes, or itself.
    pub(super) fn take(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let place = if is_v6(&packet) { 0 } else { be16(&packet, 6).unwrap_or(0) & 0x3fff };
        if place == 0 {
            return Some(packet);
        }
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        if offset == 0 {
            self.pending = packet;
            return None;
        }
        if self.pending.len() != 20 + offset {
            // Not what is missing: shown as it is.
            return Some(packet);
        }
        self.pending.extend_from_slice(packet.get(20..).unwrap_or_default());
        if more {
            return None;
        }
        let mut whole = std::mem::take(&mut self.pending);
        let length = (whole.len() as u16).to_be_bytes();
        for (at, field) in [(2, length), (6, [0, 0])] {
            if let Some(octets) = whole.get_mut(at..at + 2) {
                octets.copy_from_slice(&field);
            }
        }
        sum_header(&mut whole);
        Some(whole)
    }
}

/// A packet of the outer side as the kit knows it; nothing for a keepalive.
pub(super) fn outer(packet: Vec<u8>) -> Option<OuterPacket> {
    let frame = ethernet([0; 6], &packet);
    let Network::Ip(seen) = parse(&frame) else { return None };
    let at = |port| (SocketAddr::new(seen.source, port), SocketAddr::new(seen.destination, port));
    if seen.protocol == ESP {
        let (source, destination) = at(0);
        return Some(OuterPacket { source, destination, content: OuterContent::Esp(seen.payload.to_vec()) });
    }
    let nat = ports(&seen).filter(|(from, to)| seen.protocol == UDP && [from, to].contains(&&NAT_PORT));
    if let (Some((from, to)), Some(data)) = (nat, seen.payload.get(8..)) {
        if data == KEEPALIVE {
            return None;
        }
        if data.get(..4).is_some_and(|marker| marker != [0; 4]) {
            return Some(OuterPacket {
                source: SocketAddr::new(seen.source, from),
                destination: SocketAddr::new(seen.destination, to),
                content: OuterContent::EspInUdp(data.to_vec()),
            });
        }
    }
    let (source, destination) = at(0);
    Some(OuterPacket { source, destination, content: OuterContent::Clear(packet) })
}

/// Whether a packet goes to a port of IKE, where ESP in UDP arrives as well.
pub(super) fn is_of_ike(packet: &[u8]) -> bool {
    let frame = ethernet([0; 6], packet);
    let Network::Ip(seen) = parse(&frame) else { return false };
    ports(&seen).is_some_and(|(_, to)| seen.protocol == UDP && matches!(to, 500 | NAT_PORT))
}

/// The IP packet that carries it.
pub(super) fn carrier(packet: &OuterPacket) -> Vec<u8> {
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    match &packet.content {
        OuterContent::Esp(octets) => around(source, destination, ESP, octets),
        OuterContent::EspInUdp(octets) => {
            let mut datagram = packet.source.port().to_be_bytes().to_vec();
            datagram.extend_from_slice(&packet.destination.port().to_be_bytes());
            datagram.extend_from_slice(&(octets.len() as u16 + 8).to_be_bytes());
            // RFC 3948 §2.1: no checksum.
            datagram.extend_from_slice(&[0, 0]);
            datagram.extend_from_slice(octets);
            around(source, destination, UDP, &datagram)
        }
        OuterContent::Clear(octets) => octets.clone(),
    }
}

/// An IPv6 packet as it was before a raw socket took its header away.
pub(super) fn with_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    around(source.into(), destination.into(), protocol, payload)
}

#[cfg(test)]
mod tests {
    use ipsec::conformance::{udp_v4, udp_v6};

    use super::*;

    fn v4() -> Vec<u8> {
        udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (7, 8), 3_000, false)
    }

    #[test]
    fn a_hop_given_back_undoes_forwarding() {
        let router = |packet: &mut Vec<u8>, at: usize| {
            packet[at] -= 1;
            if at == 8 {
                sum_header(packet);
            }
        };
        let v6 = udp_v6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, (1, 2), 20);
        for (packet, at) in [(v4(), 8), (v6, 7)] {
            let mut forwarded = packet.clone();
            router(&mut forwarded, at);
            assert_ne!(forwarded, packet);
            give_hop_back(&mut forwarded);
            assert_eq!(forwarded, packet);
        }
    }

    #[test]
    fn fragments_are_put_together_again() {
        let packet = v4();
        let pieces = fragments(packet.clone(), 1_500);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1_500, 1_500, 68]);
        let mut whole = Whole::default();
        let taken: Vec<_> = pieces.into_iter().map(|piece| whole.take(piece)).collect();
        assert_eq!(taken, [None, None, Some(packet.clone())]);
        assert_eq!(whole.take(packet.clone()), Some(packet));
    }

    #[test]
    fn what_is_sent_is_what_is_seen() {
        let (source, destination) = ("192.0.2.1:0".parse().unwrap(), "192.0.2.2:0".parse().unwrap());
        let (from, to) = ("192.0.2.1:4500".parse().unwrap(), "203.0.113.7:5555".parse().unwrap());
        let packets = [
            OuterPacket { source, destination, content: OuterContent::Esp(vec![1; 40]) },
            OuterPacket { source: from, destination: to, content: OuterContent::EspInUdp(vec![1; 40]) },
        ];
        for packet in packets {
            assert_eq!(outer(carrier(&packet)), Some(packet));
        }
        let keepalive = OuterPacket { source: from, destination: to, content: OuterContent::EspInUdp(vec![0xff]) };
        assert_eq!(outer(carrier(&keepalive)), None);
        // The marker of IKE makes it no ESP.
        let ike = OuterPacket { source: from, destination: to, content: OuterContent::EspInUdp(vec![0; 40]) };
        assert!(matches!(outer(carrier(&ike)).unwrap().content, OuterContent::Clear(_)));
    }

    #[test]
    fn what_hosts_say_by_themselves_is_no_packet() {
        let solicitation = around(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), ICMPV6, &[135, 0, 0, 0]);
        assert_eq!(packet_of(&ethernet([0; 6], &solicitation)), None);
        let echo = around(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), ICMPV6, &[128, 0, 0, 0]);
        assert_eq!(packet_of(&[ethernet([0; 6], &echo), vec![0; 6]].concat()), Some(echo));
    }
}
