//! Transport mode on octets: what of a packet goes into ESP, and how the receiver puts a packet together again (RFC 4303 §3.1.1).
//!
//! The IP header stays outside, and with it what every node on the way may look at: IPv4 options, hop-by-hop options. All behind goes into ESP,
//! also destination options. ESP is applied to whole packets only; what arrives is whole too, the kernel having put fragments together.
//! A receiver behind or before NAT puts the checksums right that the sender made with other addresses (RFC 3948 §3.1.2).

use std::net::IpAddr;

use ipsec::OuterAddresses;

use crate::drops::Reason;
use crate::packet::{self, IPV4_HEADER, IPV6_HEADER, Packet};

/// Octets of IPv4 options, or of hop-by-hop options, that are carried over to the packet with ESP.
pub const OPTIONS: usize = 64;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// A packet on its way out, cut where ESP goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The packet that was cut.
    pub whole: &'a [u8],
    /// IPv4 options, or the hop-by-hop options header; empty as a rule.
    pub options: &'a [u8],
    /// What ESP encloses.
    pub payload: &'a [u8],
    /// Protocol of the payload.
    pub next_header: u8,
    /// TTL or hop limit.
    pub hops: u8,
}

impl Cut<'_> {
    /// Octets of the packet outside of ESP.
    pub fn outside(&self, parsed: &Packet) -> usize {
        parsed.length - self.payload.len()
    }
}

/// Cuts a packet, or says why it cannot travel in transport mode.
///
/// # Errors
/// The reason to count it under.
pub fn cut<'a>(packet: &'a [u8], parsed: &Packet) -> Result<Cut<'a>, Reason> {
    //= RFC 4303 §3.3.4: transport mode is applied to whole IP packets, never to fragments
    if parsed.fragment {
        return Err(Reason::FragmentInTransport);
    }
    let whole = packet.get(..parsed.length).ok_or(Reason::MalformedInner)?;
    let found = if parsed.selectors.source.is_ipv4() { cut_v4(whole, parsed) } else { cut_v6(whole) };
    let cut = found.ok_or(Reason::MalformedInner)?;
    // Routing and (atomic) fragment headers belong before ESP too, and the sockets cannot put them there.
    let movable = parsed.selectors.source.is_ipv4() || !matches!(cut.next_header, HOP_BY_HOP | ROUTING | FRAGMENT);
    if movable && cut.options.len() <= OPTIONS && !routed(&cut) { Ok(cut) } else { Err(Reason::HeadersInTransport) }
}

fn cut_v4<'a>(packet: &'a [u8], parsed: &Packet) -> Option<Cut<'a>> {
    Some(Cut {
        whole: packet,
        options: packet.get(IPV4_HEADER..parsed.header)?,
        payload: packet.get(parsed.header..)?,
        next_header: *packet.get(9)?,
        hops: *packet.get(8)?,
    })
}

fn cut_v6(packet: &[u8]) -> Option<Cut<'_>> {
    let (first, hops) = (*packet.get(6)?, *packet.get(7)?);
    let rest = packet.get(IPV6_HEADER..)?;
    if first != HOP_BY_HOP {
        return Some(Cut { whole: packet, options: &[], payload: rest, next_header: first, hops });
    }
    let (options, payload) = rest.split_at_checked(8 + usize::from(*rest.get(1)?) * 8)?;
    Some(Cut { whole: packet, options, payload, next_header: *options.first()?, hops })
}

/// Whether destination options stand before a routing header: they belong to the nodes on the way.
fn routed(cut: &Cut<'_>) -> bool {
    cut.next_header == DESTINATION && cut.payload.first() == Some(&ROUTING)
}

/// The IP header of a packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// TOS or traffic class.
    pub class: u8,
}

/// Writes the packet that was in ESP to the start of `room` and returns its length; nothing when addresses or lengths make no packet.
///
/// IPv4 options and hop-by-hop options are gone: they were for the way, which ends here.
pub fn rebuild(came: &Came, next_header: u8, payload: &[u8], room: &mut [u8]) -> Option<usize> {
    let header = match (came.source, came.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(IPV4_HEADER + payload.len()).ok()?;
            let header = room.first_chunk_mut::<IPV4_HEADER>()?;
            *header = [0; IPV4_HEADER];
            [header[0], header[1], header[8], header[9]] = [0x45, came.class, came.hops, next_header];
            [header[2], header[3]] = length.to_be_bytes();
            // Never fragmented again, so the identification may be zero (RFC 6864).
            [header[6], header[7]] = DONT_FRAGMENT;
            [header[12], header[13], header[14], header[15]] = source.octets();
            [header[16], header[17], header[18], header[19]] = destination.octets();
            [header[10], header[11]] = packet::checksum(header).to_be_bytes();
            IPV4_HEADER
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).ok()?;
            let header = room.first_chunk_mut::<IPV6_HEADER>()?;
            *header = [0; IPV6_HEADER];
            [header[0], header[1]] = [0x60 | (came.class >> 4), came.class << 4];
            [header[4], header[5]] = length.to_be_bytes();
            [header[6], header[7]] = [next_header, came.hops];
            header.get_mut(8..24)?.copy_from_slice(&source.octets());
            header.get_mut(24..40)?.copy_from_slice(&destination.octets());
            IPV6_HEADER
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    room.get_mut(header..header + payload.len())?.copy_from_slice(payload);
    Some(header + payload.len())
}

/// Puts the checksum right that the sender made with the addresses in its own view; what has none is left alone.
//= RFC 3948 §3.1.2: the checksum is recomputed incrementally from the addresses known from IKE; a UDP checksum of zero stays
pub fn translate(packet: &mut [u8], parsed: &Packet, came: &Came, view: &OuterAddresses) {
    let (at, optional) = match (parsed.selectors.protocol, came.source.is_ipv4()) {
        (6, _) => (16, false),
        (17, v4) => (6, v4),
        // DCCP and UDP-Lite.
        (33 | 136, _) => (6, false),
        (58, false) => (2, false),
        _ => return,
    };
    let Some(field) = packet.get_mut(parsed.upper + at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
    let sum = u16::from_be_bytes(*field);
    if optional && sum == 0 {
        return;
    }
    let folded = fold(
        u64::from(!sum) + negated(view.remote) + negated(view.local) + words(came.source) + words(came.destination),
    );
    // A computed zero is sent as all ones where zero means that there is none (RFC 768, RFC 8200 §8.1).
    let corrected = if !folded == 0 && parsed.selectors.protocol == 17 { u16::MAX } else { !folded };
    *field = corrected.to_be_bytes();
}

fn words(address: IpAddr) -> u64 {
    let sum = |octets: &[u8]| {
        octets
            .chunks_exact(2)
            .filter_map(|pair| pair.first_chunk())
            .map(|pair| u64::from(u16::from_be_bytes(*pair)))
            .sum()
    };
    match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    }
}

/// What takes an address out of a sum of ones' complements.
fn negated(address: IpAddr) -> u64 {
    u64::from(!fold(words(address)))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
