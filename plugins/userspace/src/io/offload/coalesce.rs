//! Joining packets of one TCP flow that follow each other into large ones for the tunnel device.
//!
//! Only what the kernel would join itself: same headers but for length, identification, checksums, sequence number and PSH; numbers without gaps;
//! equal sizes, the last may be shorter; checksums verified, because a joined packet counts as verified. The order of packets never changes.

use std::io::IoSlice;
use std::ops::Range;

use super::segment::transport_sum;
use super::{Header, Kind, Sum, addresses, long, put, set_length};

const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;
/// Packets joined at most.
const MOST: usize = 64;
const LARGEST: usize = 65_535;
const TCP: u8 = 6;

/// A TCP packet that may be joined with others.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    transport: usize,
    headers: usize,
    length: usize,
    sequence: u32,
    push: bool,
}

/// Packets found joinable so far.
struct Group {
    head: Candidate,
    count: usize,
    /// Octets of the joined packet.
    length: usize,
    next_sequence: u32,
    closed: bool,
    push: bool,
}

/// Writes the packets at `ranges` of `arena`, joined where possible; `write` gets the pieces of one write each.
pub(in crate::io) fn deliver(arena: &mut [u8], ranges: &[Range<usize>], mut write: impl FnMut(&[IoSlice<'_>])) {
    let mut first = 0;
    while let Some(range) = ranges.get(first) {
        let group = arena
            .get(range.clone())
            .and_then(candidate)
            .map(|head| gather(arena, ranges.get(first..).unwrap_or_default(), head));
        match group {
            Some(group) if group.count > 1 => {
                write_group(arena, ranges.get(first..first + group.count).unwrap_or_default(), &group, &mut write);
                first += group.count;
            }
            _ => {
                let header = Header::default().write();
                write(&[IoSlice::new(&header), IoSlice::new(arena.get(range.clone()).unwrap_or_default())]);
                first += 1;
            }
        }
    }
}

fn gather(arena: &[u8], ranges: &[Range<usize>], head: Candidate) -> Group {
    let payload = head.length - head.headers;
    let mut group = Group {
        head,
        count: 1,
        length: head.length,
        next_sequence: head.sequence.wrapping_add(payload as u32),
        closed: head.push,
        push: head.push,
    };
    let Some(first) = ranges.first().and_then(|range| arena.get(range.clone())) else { return group };
    for packet in ranges.iter().skip(1).map_while(|range| arena.get(range.clone())) {
        if group.closed || group.count == MOST || !like(first, packet, &group) {
            break;
        }
        let Some(next) = candidate(packet) else { break };
        let more = next.length - next.headers;
        let fits = next.sequence == group.next_sequence && more <= payload && group.length + more <= LARGEST;
        if next.headers != head.headers || !fits {
            break;
        }
        group.count += 1;
        group.length += more;
        group.next_sequence = next.sequence.wrapping_add(more as u32);
        group.push = next.push;
        group.closed = next.push || more < payload;
    }
    group
}

/// Whether all header fields that must be equal are. Cheap, so it comes before the checksum.
fn like(first: &[u8], packet: &[u8], group: &Group) -> bool {
    let (at, end) = (group.head.transport, group.head.headers);
    let same = |range: Range<usize>| first.get(range.clone()).is_some_and(|octets| packet.get(range) == Some(octets));
    let ip = if at == 40 { same(0..4) && same(6..40) } else { same(0..2) && same(6..10) && same(12..20) };
    // Ports; acknowledgement and data offset; window; urgent pointer and options.
    ip && same(at..at + 4) && same(at + 8..at + 13) && same(at + 14..at + 16) && same(at + 18..end)
}

fn candidate(packet: &[u8]) -> Option<Candidate> {
    let transport = match packet.first()? {
        0x45 => {
            (packet.get(9) == Some(&TCP) && packet.get(6)? & 0x3f == 0 && packet.get(7) == Some(&0)).then_some(20)?
        }
        first if first >> 4 == 6 => (packet.get(6) == Some(&TCP)).then_some(40)?,
        _ => return None,
    };
    let headers = transport + usize::from(packet.get(transport + 12)? >> 4) * 4;
    let flags = *packet.get(transport + 13)?;
    let plain = flags & !PUSH == ACK && headers >= transport + 20 && packet.len() > headers;
    if !plain || transport_sum(packet, transport, TCP)?.checksum() != [0, 0] {
        return None;
    }
    let sequence = long(packet, transport + 4)?;
    Some(Candidate { transport, headers, length: packet.len(), sequence, push: flags & PUSH != 0 })
}

fn write_group(arena: &mut [u8], ranges: &[Range<usize>], group: &Group, write: &mut impl FnMut(&[IoSlice<'_>])) {
    let Candidate { transport, headers, length, .. } = group.head;
    let mut front = [0; 128];
    let Some((source, to)) =
        ranges.first().and_then(|range| arena.get(range.start..range.start + headers)).zip(front.get_mut(..headers))
    else {
        return;
    };
    to.copy_from_slice(source);
    rewrite(to, group);
    let kind = if transport == 40 { Kind::TcpV6 } else { Kind::TcpV4 };
    let header = Header {
        partial_checksum: true,
        kind,
        headers: headers as u16,
        segment: (length - headers) as u16,
        transport: transport as u16,
        checksum: 16,
    }
    .write();
    let mut slices = [IoSlice::new(&[]); MOST + 2];
    let (Some(front), [first, second, rest @ ..]) = (front.get(..headers), &mut slices) else { return };
    (*first, *second) = (IoSlice::new(&header), IoSlice::new(front));
    for (slice, range) in rest.iter_mut().zip(ranges) {
        *slice = IoSlice::new(arena.get(range.start + headers..range.end).unwrap_or_default());
    }
    write(slices.get(..ranges.len() + 2).unwrap_or_default());
}

/// Makes the headers of the first packet those of the joined one.
fn rewrite(front: &mut [u8], group: &Group) {
    let at = group.head.transport;
    if group.push
        && let Some(flags) = front.get_mut(at + 13)
    {
        *flags |= PUSH;
    }
    let pseudo = addresses(front).map_or(Sum::default(), |octets| Sum::default().add(octets));
    put(front, at + 16, &pseudo.add_pseudo(TCP, group.length - at).partial());
    set_length(front, group.length, None);
}
