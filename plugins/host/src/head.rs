//! IP and UDP headers of packets that sockets give and take without them, rebuilt for showing.
//!
//! A raw socket or a UDP socket leaves headers to the kernel. What it is told of them (addresses, ports, TOS, TTL) goes in here; what it is not told
//! (the identification of IPv4, the flow label of IPv6) is zero.

use std::net::IpAddr;

/// What stands before the payload of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol of the payload; without meaning where there are ports.
    pub protocol: u8,
    /// Ports of UDP, source first, where the payload is in UDP.
    pub ports: Option<(u16, u16)>,
    /// TOS or traffic class.
    pub class: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// Routers may not fragment it.
    pub dont_fragment: bool,
    /// Options of IPv4, or the hop-by-hop header.
    pub options: &'a [u8],
}

/// What the kernel puts into packets that name no TTL or hop limit.
pub const DEFAULT_HOPS: u8 = 64;

const UDP: u8 = 17;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const HOP_BY_HOP: u8 = 0;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// Octets of the longest head: IPv6 with all the options that go before ESP, and UDP.
const ROOM: usize = IPV6_HEADER + 64 + UDP_HEADER;

/// Room for a head.
#[must_use]
pub fn room() -> [u8; ROOM] {
    [0; ROOM]
}

impl Head<'_> {
    /// Writes it to `room`, for a packet with this payload; nothing when the ends are of two families or it is longer than a packet can be.
    pub fn write<'r>(&self, payload: &[u8], room: &'r mut [u8; ROOM]) -> &'r [u8] {
        let length = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.v4(source.octets(), destination.octets(), payload, room)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.v6(source.octets(), destination.octets(), payload, room)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        };
        room.get(..length.unwrap_or(0)).unwrap_or_default()
    }

    fn protocol(&self) -> u8 {
        if self.ports.is_some() { UDP } else { self.protocol }
    }

    fn udp_length(&self) -> usize {
        if self.ports.is_some() { UDP_HEADER } else { 0 }
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4], payload: &[u8], room: &mut [u8; ROOM]) -> Option<usize> {
        // The header's length counts words of four octets.
        let options = if self.options.len().is_multiple_of(4) { self.options } else { &[] };
        let header = IPV4_HEADER + options.len();
        let total = u16::try_from(header + self.udp_length() + payload.len()).ok()?;
        let fixed = room.first_chunk_mut::<IPV4_HEADER>()?;
        [fixed[0], fixed[1]] = [0x40 | u8::try_from(header / 4).ok()?, self.class];
        [fixed[2], fixed[3]] = total.to_be_bytes();
        [fixed[6], fixed[7]] = if self.dont_fragment { DONT_FRAGMENT } else { [0; 2] };
        [fixed[8], fixed[9]] = [self.hops, self.protocol()];
        [fixed[12], fixed[13], fixed[14], fixed[15]] = source;
        [fixed[16], fixed[17], fixed[18], fixed[19]] = destination;
        room.get_mut(IPV4_HEADER..header)?.copy_from_slice(options);
        let sum = checksum(room.get(..header)?).to_be_bytes();
        room.get_mut(10..12)?.copy_from_slice(&sum);
        self.udp(header, payload, room)
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16], payload: &[u8], room: &mut [u8; ROOM]) -> Option<usize> {
        let header = IPV6_HEADER + self.options.len();
        let length = u16::try_from(self.options.len() + self.udp_length() + payload.len()).ok()?;
        let fixed = room.first_chunk_mut::<IPV6_HEADER>()?;
        [fixed[0], fixed[1]] = [0x60 | (self.class >> 4), self.class << 4];
        [fixed[4], fixed[5]] = length.to_be_bytes();
        [fixed[6], fixed[7]] = [if self.options.is_empty() { self.protocol() } else { HOP_BY_HOP }, self.hops];
        room.get_mut(8..24)?.copy_from_slice(&source);
        room.get_mut(24..IPV6_HEADER)?.copy_from_slice(&destination);
        room.get_mut(IPV6_HEADER..header)?.copy_from_slice(self.options);
        let end = self.udp(header, payload, room)?;
        if self.ports.is_some() {
            let udp = u16::try_from(UDP_HEADER + payload.len()).ok()?.to_be_bytes();
            let sum = sum_of(&[&source, &destination, &udp, &[0, UDP], room.get(header..end)?, payload]);
            room.get_mut(header + 6..end)?.copy_from_slice(&sum.to_be_bytes());
        }
        Some(end)
    }

    /// Writes the UDP header at `at`, with a checksum of zero (RFC 3948 §2.1); gives where it ends.
    fn udp(&self, at: usize, payload: &[u8], room: &mut [u8; ROOM]) -> Option<usize> {
        let Some((from, to)) = self.ports else { return Some(at) };
        let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
        let field = |value: u16| value.to_be_bytes();
        let header = [field(from), field(to), field(length), [0; 2]];
        room.get_mut(at..at + UDP_HEADER)?.copy_from_slice(header.as_flattened());
        Some(at + UDP_HEADER)
    }
}

/// The Internet checksum of parts, of which all but the last have even lengths; never zero, which UDP over IPv6 may not have (RFC 8200 §8.1).
fn sum_of(parts: &[&[u8]]) -> u16 {
    let sum: u32 = parts.iter().map(|part| u32::from(!checksum(part))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => u16::MAX,
        sum => sum,
    }
}

/// The Internet checksum (RFC 1071); zero counts where `octets` end in the middle of a word.
fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(*pair.first().unwrap_or(&0)) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = octets.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(source: &str, destination: &str) -> Head<'static> {
        Head {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 50,
            ports: None,
            class: 0xb8,
            hops: 64,
            dont_fragment: true,
            options: &[],
        }
    }

    #[test]
    fn a_native_packet_over_ipv4() {
        let mut room = room();
        let octets = head("192.0.2.1", "192.0.2.2").write(&[0; 36], &mut room);
        assert_eq!(octets[..10], [0x45, 0xb8, 0, 56, 0, 0, 0x40, 0, 64, 50]);
        assert_eq!(octets[12..], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(checksum(octets), 0, "a header with its checksum sums up to nothing");
    }

    #[test]
    fn options_are_part_of_the_header() {
        let mut room = room();
        let octets = Head { options: &[1, 1, 1, 0], ..head("192.0.2.1", "192.0.2.2") }.write(&[0; 4], &mut room);
        assert_eq!((octets.len(), octets[0], octets[3]), (24, 0x46, 28));
        assert_eq!((checksum(octets), &octets[20..]), (0, &[1, 1, 1, 0][..]));
        let mut room = self::room();
        let octets = Head { options: &[50, 0, 1, 4, 0, 0, 0, 0], ..head("2001:db8::1", "2001:db8::2") };
        let octets = octets.write(&[0; 4], &mut room);
        assert_eq!((octets.len(), octets[5], octets[6]), (48, 12, 0));
    }

    #[test]
    fn udp_over_ipv6_has_a_checksum_and_over_ipv4_none() {
        let in_udp = |source, destination| Head { ports: Some((4500, 4501)), ..head(source, destination) };
        let mut room = room();
        let octets = in_udp("192.0.2.1", "192.0.2.2").write(b"ESP", &mut room);
        assert_eq!((octets[9], &octets[20..]), (17, &[0x11, 0x94, 0x11, 0x95, 0, 11, 0, 0][..]));
        let mut room = self::room();
        let octets = in_udp("2001:db8::1", "2001:db8::2").write(b"ESP", &mut room);
        assert_eq!((octets[6], &octets[40..46]), (17, &[0x11, 0x94, 0x11, 0x95, 0, 11][..]));
        let pseudo = [&octets[8..40], &[0, 11, 0, 17], &octets[40..], b"ESP"].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn what_makes_no_packet_has_no_head() {
        let mut room = room();
        assert!(head("192.0.2.1", "2001:db8::1").write(&[], &mut room).is_empty());
        assert!(head("192.0.2.1", "192.0.2.2").write(&[0; 65_535], &mut room).is_empty());
    }
}
