//! Ethernet frames with an IP packet: reading the few fields that the lab looks at, building UDP packets, mending checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of an Ethernet header.
pub const ETHERNET: usize = 14;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ESP.
pub const ESP: u8 = 50;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// Address resolution.
    Arp,
    /// An IPv4 or IPv6 packet.
    Ip(Packet<'a>),
    /// Something else, or too short to tell.
    Other,
}

/// The fields of an IP packet, and what follows its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// A fragment other than the first: the payload has no header.
    pub later_fragment: bool,
    /// What follows the IP header, cut to the packet's own length.
    pub payload: &'a [u8],
}

/// Reads a frame.
#[must_use]
pub fn parse(frame: &[u8]) -> Network<'_> {
    let packet = match frame.get(12..ETHERNET) {
        Some([0x08, 0x06]) => return Network::Arp,
        Some([0x08, 0x00]) => frame.get(ETHERNET..).and_then(parse_ipv4),
        Some([0x86, 0xdd]) => frame.get(ETHERNET..).and_then(parse_ipv6),
        Some(_) | None => None,
    };
    packet.map_or(Network::Other, Network::Ip)
}

fn parse_ipv4(packet: &[u8]) -> Option<Packet<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let length = usize::from(be16(packet, 2)?);
    Some(Packet {
        source: Ipv4Addr::from(*packet.get(12..16)?.first_chunk::<4>()?).into(),
        destination: Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into(),
        protocol: *packet.get(9)?,
        later_fragment: be16(packet, 6)? & 0x1fff != 0,
        payload: packet.get(header..length.min(packet.len()))?,
    })
}

fn parse_ipv6(packet: &[u8]) -> Option<Packet<'_>> {
    let end = (40 + usize::from(be16(packet, 4)?)).min(packet.len());
    let mut protocol = *packet.get(6)?;
    let mut at = 40;
    let mut later_fragment = false;
    // Hop-by-hop, routing, destination options and fragment headers come before the payload.
    while matches!(protocol, 0 | 43 | 44 | 60) {
        let octets = if protocol == 44 { 8 } else { 8 + usize::from(*packet.get(at + 1)?) * 8 };
        later_fragment |= protocol == 44 && be16(packet, at + 2)? & 0xfff8 != 0;
        protocol = *packet.get(at)?;
        at += octets;
    }
    Some(Packet {
        source: Ipv6Addr::from(*packet.get(8..24)?.first_chunk::<16>()?).into(),
        destination: Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into(),
        protocol,
        later_fragment,
        payload: packet.get(at..end)?,
    })
}

/// Source and destination port of a UDP or TCP payload.
#[must_use]
pub fn ports(packet: &Packet<'_>) -> Option<(u16, u16)> {
    let has_ports = matches!(packet.protocol, UDP | TCP) && !packet.later_fragment;
    if !has_ports {
        return None;
    }
    Some((be16(packet.payload, 0)?, be16(packet.payload, 2)?))
}

/// Builds an Ethernet frame with a UDP packet of either family.
///
/// # Panics
/// When the two addresses are of different families: a mistake in the test.
#[must_use]
pub fn udp(source_mac: Mac, destination_mac: Mac, source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + 48 + data.len());
    frame.extend_from_slice(&destination_mac);
    frame.extend_from_slice(&source_mac);
    let udp_length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
            frame.extend_from_slice(&(udp_length + 20).to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0x40, 0, 64, UDP, 0, 0]);
            frame.extend_from_slice(&from.octets());
            frame.extend_from_slice(&to.octets());
            let sum = checksum(0, frame.get(ETHERNET..).unwrap_or_default());
            write16(&mut frame, ETHERNET + 10, sum);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&udp_length.to_be_bytes());
            frame.extend_from_slice(&[UDP, 64]);
            frame.extend_from_slice(&from.octets());
            frame.extend_from_slice(&to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("addresses of two families"),
    }
    frame.extend_from_slice(&source.port().to_be_bytes());
    frame.extend_from_slice(&destination.port().to_be_bytes());
    frame.extend_from_slice(&udp_length.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(data);
    mend_checksum(&mut frame);
    frame
}

/// Writes the UDP or TCP checksum anew: a frame read from a virtual link has it only begun, the rest was left to a device.
pub fn mend_checksum(frame: &mut [u8]) {
    let Network::Ip(packet) = parse(frame) else { return };
    let field = match packet.protocol {
        UDP => 6,
        TCP => 16,
        _ => return,
    };
    let is_first_fragment =
        matches!(packet.source, IpAddr::V4(_)) && frame.get(20).is_some_and(|flags| flags & 0x20 != 0);
    if packet.later_fragment || is_first_fragment {
        return;
    }
    let at = packet.payload.as_ptr() as usize - frame.as_ptr() as usize;
    let length = packet.payload.len();
    let mut pseudo = Vec::with_capacity(36);
    match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend_from_slice(&from.octets());
            pseudo.extend_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            pseudo.extend_from_slice(&from.octets());
            pseudo.extend_from_slice(&to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return,
    }
    let protocol = packet.protocol;
    let start = sum_words(u64::from(protocol) + length as u64, &pseudo);
    write16(frame, at + field, 0);
    let sum = checksum(start, frame.get(at..at + length).unwrap_or_default());
    write16(frame, at + field, if sum == 0 && protocol == UDP { 0xffff } else { sum });
}

fn sum_words(start: u64, octets: &[u8]) -> u64 {
    octets.chunks(2).fold(start, |sum, pair| match pair {
        [high, low] => sum + u64::from(u16::from_be_bytes([*high, *low])),
        [high] => sum + (u64::from(*high) << 8),
        _ => sum,
    })
}

/// The Internet checksum (RFC 1071) over octets, on top of a sum begun elsewhere.
pub fn checksum(start: u64, octets: &[u8]) -> u16 {
    let mut sum = sum_words(start, octets);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn be16(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*octets.get(at..)?.first_chunk::<2>()?))
}

fn write16(octets: &mut [u8], at: usize, value: u16) {
    if let Some(field) = octets.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_packet_reads_back() {
        for (source, destination) in
            [("10.1.0.10:1000", "10.2.0.10:2000"), ("[2001:db8:1::10]:1000", "[2001:db8:2::10]:2000")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let frame = udp([2; 6], [3; 6], source, destination, b"hello");
            let Network::Ip(packet) = parse(&frame) else { panic!("no IP packet") };
            assert_eq!((packet.source, packet.destination, packet.protocol), (source.ip(), destination.ip(), UDP));
            assert_eq!(ports(&packet), Some((1000, 2000)));
            assert_eq!(packet.payload.get(8..), Some(&b"hello"[..]));
        }
    }

    /// The IPv4 header of a published worked example: its checksum is 0xb861.
    #[test]
    fn checksum_of_a_known_header() {
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(0, &header), 0xb861);
    }

    #[test]
    fn a_mended_checksum_verifies() {
        let mut frame =
            udp([2; 6], [3; 6], "[2001:db8::1]:500".parse().unwrap(), "[2001:db8::2]:500".parse().unwrap(), &[7; 33]);
        write16(&mut frame, ETHERNET + 40 + 6, 0x1234);
        mend_checksum(&mut frame);
        // Over the pseudo header and the payload with its checksum in place the sum is all ones.
        let start = sum_words(u64::from(UDP) + 41, &frame[ETHERNET + 8..ETHERNET + 40]);
        assert_eq!(checksum(start, &frame[ETHERNET + 40..]), 0);
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut frame =
            udp([2; 6], [3; 6], "10.1.0.10:1000".parse().unwrap(), "10.2.0.10:2000".parse().unwrap(), &[0; 64]);
        write16(&mut frame, ETHERNET + 6, 0x0010);
        let Network::Ip(packet) = parse(&frame) else { panic!("no IP packet") };
        assert!(packet.later_fragment);
        assert_eq!(ports(&packet), None);
    }
}
