//! Cutting what the kernel handed over into packets as they would have been without offloads.

use super::{Header, Kind, Sum, addresses, long, put, set_length, word};

const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Completes a packet that came with a partial checksum.
pub(in crate::io) fn complete(packet: &mut [u8], header: &Header) {
    let (start, place) = (usize::from(header.transport), usize::from(header.transport) + usize::from(header.checksum));
    // The field holds the pseudo-header's sum already.
    let sum = Sum::default().add(packet.get(start..).unwrap_or_default()).checksum();
    // For UDP a sum of zero is sent as its complement (RFC 768); TCP takes either.
    put(packet, place, &if sum == [0, 0] { [0xff, 0xff] } else { sum });
}

/// Cuts a large packet; segments are written to `out` one after the other and their lengths handed to `emit`. Returns the octets used,
/// `None` when the packet contradicts its header or `out` is too small.
pub(in crate::io) fn segment(
    packet: &[u8],
    header: &Header,
    out: &mut [u8],
    mut emit: impl FnMut(usize),
) -> Option<usize> {
    let transport = usize::from(header.transport);
    let headers = match header.kind {
        Kind::Single => return None,
        Kind::TcpV4 | Kind::TcpV6 => transport + usize::from(packet.get(transport + 12)? >> 4) * 4,
        Kind::Udp => transport + 8,
    };
    let front = packet.get(..headers)?;
    let payload = packet.get(headers..)?;
    let size = usize::from(header.segment);
    if size == 0 || payload.is_empty() {
        return None;
    }
    let count = payload.len().div_ceil(size);
    let mut used = 0;
    for (index, piece) in payload.chunks(size).enumerate() {
        let segment = out.get_mut(used..used + headers + piece.len())?;
        let (to_front, to_payload) = segment.split_at_mut(headers);
        to_front.copy_from_slice(front);
        to_payload.copy_from_slice(piece);
        let place = Place { index, size, last: index + 1 == count, transport };
        match header.kind {
            Kind::Udp => finish_udp(segment, &place)?,
            Kind::TcpV4 | Kind::TcpV6 | Kind::Single => finish_tcp(segment, &place)?,
        }
        used += segment.len();
        emit(segment.len());
    }
    Some(used)
}

/// Which segment of how large ones.
struct Place {
    index: usize,
    size: usize,
    last: bool,
    transport: usize,
}

fn finish_ip(segment: &mut [u8], place: &Place) -> Option<()> {
    let identification = word(segment, 4)?.wrapping_add(place.index as u16);
    set_length(segment, segment.len(), Some(identification));
    Some(())
}

fn finish_tcp(segment: &mut [u8], place: &Place) -> Option<()> {
    finish_ip(segment, place)?;
    let at = place.transport;
    let sequence = long(segment, at + 4)?.wrapping_add((place.index * place.size) as u32);
    put(segment, at + 4, &sequence.to_be_bytes());
    let flags = segment.get_mut(at + 13)?;
    *flags &= !(if place.last { 0 } else { FIN | PUSH } | if place.index == 0 { 0 } else { CWR });
    put(segment, at + 16, &[0, 0]);
    let sum = transport_sum(segment, at, 6)?.checksum();
    put(segment, at + 16, &sum);
    Some(())
}

fn finish_udp(segment: &mut [u8], place: &Place) -> Option<()> {
    finish_ip(segment, place)?;
    let at = place.transport;
    let length = u16::try_from(segment.len() - at).ok()?;
    put(segment, at + 4, &length.to_be_bytes());
    put(segment, at + 6, &[0, 0]);
    let sum = transport_sum(segment, at, 17)?.checksum();
    put(segment, at + 6, &if sum == [0, 0] { [0xff, 0xff] } else { sum });
    Some(())
}

/// Sum over pseudo-header, transport header and payload.
pub(super) fn transport_sum(packet: &[u8], transport: usize, protocol: u8) -> Option<Sum> {
    let rest = packet.get(transport..)?;
    Some(Sum::default().add(addresses(packet)?).add_pseudo(protocol, rest.len()).add(rest))
}
