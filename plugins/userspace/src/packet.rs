//! What the datapath reads and changes in IP headers: selectors, fragments, length, DSCP and ECN.
//!
//! RFC 791, RFC 8200 (extension headers), RFC 4301 §4.4.1.1 (selectors of a packet), RFC 6040 (ECN through tunnels).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipsec::PacketSelectors;
use ipsec::sa::CopyDscp;

/// Smallest IPv4 header.
pub const IPV4_HEADER: usize = 20;
/// IPv6 header.
pub const IPV6_HEADER: usize = 40;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;
/// Extension headers walked at most; more is nothing a sane host sends.
const MAX_EXTENSIONS: usize = 8;

/// A packet whose headers make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, protocol and ports. Fragments show no ports, not even the first: all fragments of a datagram go one way.
    pub selectors: PacketSelectors,
    /// Length of the packet by its own header; what follows in the buffer is not part of it.
    pub length: usize,
    /// Header length (IPv6: 40).
    pub header: usize,
    /// Where the upper-layer header starts; in fragments other than the first, where their data does.
    pub upper: usize,
    /// Whether the upper-layer header follows at once (IPv6: without extension headers).
    pub bare: bool,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// Whether routers may not fragment it (always for IPv6).
    pub dont_fragment: bool,
    /// TOS or traffic class octet.
    pub traffic_class: u8,
}

/// The packet's headers contradict themselves or the length of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed IP packet")]
pub struct Malformed;

/// Reads the headers of an IPv4 or IPv6 packet.
///
/// # Errors
/// [`Malformed`].
pub fn parse(packet: &[u8]) -> Result<Packet, Malformed> {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => v4(packet),
        Some(6) => v6(packet),
        _ => None,
    }
    .ok_or(Malformed)
}

fn v4(packet: &[u8]) -> Option<Packet> {
    let fixed = packet.first_chunk::<IPV4_HEADER>()?;
    let header = usize::from(fixed[0] & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header < IPV4_HEADER || length < header || length > packet.len() {
        return None;
    }
    let offset = u16::from_be_bytes([fixed[6], fixed[7]]);
    let fragment = offset & (OFFSET_MASK | MORE_FRAGMENTS) != 0;
    let protocol = fixed[9];
    let source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]);
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    let payload = packet.get(header..length)?;
    Some(Packet {
        selectors: PacketSelectors {
            source: source.into(),
            destination: destination.into(),
            protocol,
            ports: if fragment { None } else { ports(protocol, payload) },
        },
        length,
        header,
        upper: header,
        bare: true,
        fragment,
        dont_fragment: offset & DONT_FRAGMENT != 0,
        traffic_class: fixed[1],
    })
}

fn v6(packet: &[u8]) -> Option<Packet> {
    let fixed = packet.first_chunk::<IPV6_HEADER>()?;
    let length = IPV6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let payload = packet.get(IPV6_HEADER..length)?;
    let (protocol, upper, fragment) = skip_extensions(fixed[6], payload)?;
    let address = |from: usize| {
        fixed.get(from..from + 16).and_then(|octets| <[u8; 16]>::try_from(octets).ok()).map(Ipv6Addr::from)
    };
    Some(Packet {
        selectors: PacketSelectors {
            source: address(8)?.into(),
            destination: address(24)?.into(),
            protocol,
            ports: if fragment { None } else { ports(protocol, upper) },
        },
        length,
        header: IPV6_HEADER,
        upper: length - upper.len(),
        bare: protocol == fixed[6],
        fragment,
        dont_fragment: true,
        traffic_class: (fixed[0] << 4) | (fixed[1] >> 4),
    })
}

/// Upper-layer protocol, its octets and whether a fragment header was passed (RFC 8200 §4).
fn skip_extensions(mut next: u8, mut rest: &[u8]) -> Option<(u8, &[u8], bool)> {
    let mut fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => 8 + usize::from(*rest.get(1)?) * 8,
            44 => {
                let offset = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]);
                // An atomic fragment (RFC 6946) is whole.
                fragment |= offset & 0xfff9 != 0;
                if offset & 0xfff8 != 0 {
                    return Some((*rest.first()?, rest.get(8..)?, true));
                }
                8
            }
            _ => return Some((next, rest, fragment)),
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

/// Source and destination port; type and code of ICMP in both (RFC 4301 §4.4.1.1).
fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        6 | 17 | 33 | 132 | 136 => {
            let octets = payload.first_chunk::<4>()?;
            Some((u16::from_be_bytes([octets[0], octets[1]]), u16::from_be_bytes([octets[2], octets[3]])))
        }
        1 | 58 => {
            let octets = payload.first_chunk::<2>()?;
            let both = u16::from_be_bytes(*octets);
            Some((both, both))
        }
        _ => None,
    }
}

/// Outer traffic class of a packet that enters the tunnel (RFC 6040 §4.1 normal mode, RFC 4301 §5.1.2).
pub fn outer_class(inner: u8, dscp: CopyDscp, ecn: bool) -> u8 {
    let copied = match dscp {
        CopyDscp::Out | CopyDscp::Yes => inner & 0xfc,
        CopyDscp::In | CopyDscp::No => 0,
    };
    copied | if ecn { inner & 0x03 } else { 0 }
}

//= RFC 7296 §2.24: ECN of inner and outer header are combined at the end of the tunnel
/// Inner traffic class of a packet that leaves the tunnel, `None` when it must be dropped: congestion was experienced by a transport that
/// does not understand the mark (RFC 6040 §4.2).
pub fn inner_class(inner: u8, outer: u8, dscp: CopyDscp, ecn: bool) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    let class = match dscp {
        CopyDscp::In | CopyDscp::Yes => outer & 0xfc,
        CopyDscp::Out | CopyDscp::No => inner & 0xfc,
    };
    if !ecn {
        return Some(class | (inner & 3));
    }
    let mark = match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (unchanged, _) => unchanged,
    };
    Some(class | mark)
}

/// Writes the traffic class; an IPv4 header checksum is adjusted (RFC 1624).
pub fn set_traffic_class(packet: &mut [u8], class: u8) {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => {
            if let Some(header) = packet.first_chunk_mut::<IPV4_HEADER>() {
                let before = u16::from_be_bytes([header[0], header[1]]);
                header[1] = class;
                let after = u16::from_be_bytes([header[0], header[1]]);
                let sum =
                    u32::from(!u16::from_be_bytes([header[10], header[11]])) + u32::from(!before) + u32::from(after);
                let folded = (sum & 0xffff) + (sum >> 16);
                let folded = (folded & 0xffff) + (folded >> 16);
                [header[10], header[11]] = (!(folded as u16)).to_be_bytes();
            }
        }
        Some(6) => {
            if let Some([first, second, ..]) = packet.first_chunk_mut::<2>() {
                *first = (*first & 0xf0) | (class >> 4);
                *second = (*second & 0x0f) | (class << 4);
            }
        }
        _ => {}
    }
}

/// The Internet checksum (RFC 1071) of a header whose checksum field is zero.
pub fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets.chunks(2).fold(0, |sum, pair| {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum.wrapping_add(u32::from(u16::from_be_bytes([high, low])))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Cuts an IPv4 packet into fragments of at most `mtu` octets (RFC 791 §3.2), each built in `scratch` and handed to `emit`. Nothing is
/// emitted when `mtu` has no room for data or `scratch` for a fragment.
pub fn fragment_v4(packet: &[u8], parsed: &Packet, mtu: usize, scratch: &mut [u8], mut emit: impl FnMut(&[u8])) {
    let (Some(header), Some(data)) = (packet.get(..parsed.header), packet.get(parsed.header..parsed.length)) else {
        return;
    };
    let room = mtu.min(scratch.len()).saturating_sub(parsed.header) & !7;
    if room == 0 {
        return;
    }
    let flags =
        header.get(6..8).map_or(0, |octets| octets.iter().fold(0_u16, |value, octet| (value << 8) | u16::from(*octet)));
    let pieces = data.len().div_ceil(room);
    for (index, piece) in data.chunks(room).enumerate() {
        let more = index + 1 < pieces || flags & MORE_FRAGMENTS != 0;
        let offset = (flags & OFFSET_MASK) + (index * room / 8) as u16;
        let length = parsed.header + piece.len();
        let Some(out) = scratch.get_mut(..length) else { return };
        let (to_header, to_data) = out.split_at_mut(parsed.header);
        to_header.copy_from_slice(header);
        to_data.copy_from_slice(piece);
        if index > 0 {
            blank_uncopied_options(to_header);
        }
        if let Some(fixed) = to_header.first_chunk_mut::<IPV4_HEADER>() {
            [fixed[2], fixed[3]] = (length as u16).to_be_bytes();
            [fixed[6], fixed[7]] = (offset | if more { MORE_FRAGMENTS } else { 0 }).to_be_bytes();
            [fixed[10], fixed[11]] = [0, 0];
        }
        let sum = checksum(to_header);
        if let Some(field) = to_header.get_mut(10..12) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        emit(out);
    }
}

/// Options without the copied flag stand in the first fragment only; no-operation options take their room.
fn blank_uncopied_options(header: &mut [u8]) {
    let mut rest = header.get_mut(IPV4_HEADER..).unwrap_or_default();
    while let Some(kind) = rest.first().copied() {
        let length = match kind {
            0 => return,
            1 => 1,
            _ => match rest.get(1) {
                Some(length @ 2..) => usize::from(*length),
                _ => return,
            },
        };
        let Some((option, after)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
        if kind & 0x80 == 0 {
            option.fill(1);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests;
