//! What the double knows of IP packets: selectors, fragments, ICMP errors, headers of transport mode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::selector::PacketSelectors;

pub(super) const V4_HEADER: usize = 20;
pub(super) const V6_HEADER: usize = 40;
const UDP: u8 = 17;

/// What is looked at in a packet.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) selectors: PacketSelectors,
    /// Octets of the IP header.
    pub(super) header: usize,
    /// Octets of the packet.
    pub(super) length: usize,
    pub(super) dont_fragment: bool,
    /// Octets of the datagram before this fragment.
    pub(super) offset: usize,
    /// More fragments follow.
    pub(super) more: bool,
    /// Identification of the datagram.
    pub(super) id: u16,
}

impl Packet {
    pub(super) fn is_fragment(&self) -> bool {
        self.more || self.offset > 0
    }

    pub(super) fn is_v4(&self) -> bool {
        self.selectors.source.is_ipv4()
    }
}

fn be16(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Reads a packet; nothing when it is none.
pub(super) fn parse(octets: &[u8]) -> Option<Packet> {
    match octets.first()? >> 4 {
        4 => parse_v4(octets),
        6 => parse_v6(octets),
        _ => None,
    }
}

fn parse_v4(octets: &[u8]) -> Option<Packet> {
    let header = usize::from(octets.first()? & 0x0f) * 4;
    let length = usize::from(be16(octets, 2)?);
    let flags = be16(octets, 6)?;
    let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*octets.get(at..)?.first_chunk::<4>()?)));
    let offset = usize::from(flags & 0x1fff) * 8;
    let protocol = *octets.get(9)?;
    let ports = if offset == 0 { ports(protocol, octets.get(header..)?) } else { None };
    let selectors = PacketSelectors { source: address(12)?, destination: address(16)?, protocol, ports };
    (header >= V4_HEADER && (header..=octets.len()).contains(&length)).then_some(Packet {
        selectors,
        header,
        length,
        dont_fragment: flags & 0x4000 != 0,
        offset,
        more: flags & 0x2000 != 0,
        id: be16(octets, 4)?,
    })
}

fn parse_v6(octets: &[u8]) -> Option<Packet> {
    let length = V6_HEADER + usize::from(be16(octets, 4)?);
    let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*octets.get(at..)?.first_chunk::<16>()?)));
    let protocol = *octets.get(6)?;
    let ports = ports(protocol, octets.get(V6_HEADER..)?);
    let selectors = PacketSelectors { source: address(8)?, destination: address(24)?, protocol, ports };
    (length <= octets.len()).then_some(Packet {
        selectors,
        header: V6_HEADER,
        length,
        dont_fragment: true,
        offset: 0,
        more: false,
        id: 0,
    })
}

fn ports(protocol: u8, segment: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        6 | UDP | 33 | 132 | 136 => Some((be16(segment, 0)?, be16(segment, 2)?)),
        1 | 58 => be16(segment, 0).map(|kind| (kind, kind)),
        _ => None,
    }
}

/// Ones' complement sum, folded.
fn sum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

fn set16(octets: &mut [u8], at: usize, value: u16) {
    if let Some(field) = octets.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Puts length and checksum of an IPv4 header right.
fn finish_v4(packet: &mut [u8], header: usize) {
    set16(packet, 2, u16::try_from(packet.len()).unwrap_or(u16::MAX));
    set16(packet, 10, 0);
    let checksum = !sum(packet.get(..header).unwrap_or_default());
    set16(packet, 10, checksum);
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A packet of this payload, as the receiver of transport mode makes it.
pub(super) fn whole(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [octets_of(source), octets_of(destination)].concat();
    if source.is_ipv4() {
        let mut packet = [&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0], addresses.as_slice(), payload].concat();
        finish_v4(&mut packet, V4_HEADER);
        packet
    } else {
        let [high, low] = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[0x60, 0, 0, 0, high, low, protocol, 64], addresses.as_slice(), payload].concat()
    }
}

/// Cuts an IPv4 packet into fragments of at most `mtu` octets.
pub(super) fn fragment(octets: &[u8], packet: &Packet, mtu: usize) -> Vec<Vec<u8>> {
    let header = octets.get(..packet.header).unwrap_or_default();
    let payload = octets.get(packet.header..packet.length).unwrap_or_default();
    let piece = (mtu - packet.header) / 8 * 8;
    let count = payload.len().div_ceil(piece);
    let make = |(at, part): (usize, &[u8])| {
        let mut fragment = [header, part].concat();
        let offset = u16::try_from((packet.offset + at * piece) / 8).unwrap_or(0x1fff);
        let more = if packet.more || at + 1 < count { 0x2000 } else { 0 };
        set16(&mut fragment, 6, more | offset);
        finish_v4(&mut fragment, packet.header);
        fragment
    };
    payload.chunks(piece).enumerate().map(make).collect()
}

// RFC 1191 §4, RFC 4443 §3.2: too big, with the MTU that fits
/// The answer to a packet that does not fit.
pub(super) fn too_big(octets: &[u8], packet: &Packet, from: IpAddr, mtu: usize) -> Vec<u8> {
    let to = packet.selectors.source;
    let quoted =
        octets.get(..octets.len().min(if to.is_ipv4() { packet.header + 8 } else { 1_232 })).unwrap_or_default();
    if to.is_ipv4() {
        let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
        let mut icmp = [&[3, 4, 0, 0, 0, 0, high, low], quoted].concat();
        let checksum = !sum(&icmp);
        set16(&mut icmp, 2, checksum);
        return whole(from, to, 1, &icmp);
    }
    let mtu = u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes();
    let mut icmp = [&[2, 0, 0, 0], &mtu[..], quoted].concat();
    let length = u32::try_from(icmp.len()).unwrap_or(u32::MAX).to_be_bytes();
    let checksum = !sum(&[&octets_of(from)[..], &octets_of(to), &length, &[0, 0, 0, 58], &icmp].concat());
    set16(&mut icmp, 2, checksum);
    whole(from, to, 58, &icmp)
}

// RFC 3948 §3.1.2: the checksum was made with the addresses before translation
/// Makes the checksum of a segment right for other addresses than those it was made with.
pub(super) fn translate(protocol: u8, segment: &mut [u8], made_with: [IpAddr; 2], now: [IpAddr; 2]) {
    let at = match protocol {
        6 => 16,
        UDP | 33 | 136 => 6,
        _ => return,
    };
    let Some(old) = be16(segment, at) else { return };
    if protocol == UDP && old == 0 {
        return;
    }
    // RFC 1624: what was added goes, what is there comes.
    let inverted: Vec<u8> = made_with.into_iter().flat_map(octets_of).map(|octet| !octet).collect();
    let present: Vec<u8> = now.into_iter().flat_map(octets_of).collect();
    let new = !sum(&[&(!old).to_be_bytes()[..], &inverted, &present].concat());
    set16(segment, at, new);
}

/// Whether this is IKE on its ports, and whose: the port of the near side and its address.
pub(super) fn ike_end(packet: &Packet, outbound: bool) -> Option<IpAddr> {
    let (source, destination) = packet.selectors.ports.filter(|_| packet.selectors.protocol == UDP)?;
    let (port, address) =
        if outbound { (source, packet.selectors.source) } else { (destination, packet.selectors.destination) };
    matches!(port, 500 | 4500).then_some(address)
}
