//! Fragments of our own host put together again, because ESP in transport mode takes whole packets (RFC 4303 §3.3.4).
//!
//! The kernel fragments to what the TUN device takes, in order and without a pause; nothing else is expected here. So a datagram is a run of
//! fragments, each beginning where the last one ended, and everything else is refused. Buffers are few, made once and used again: no memory grows
//! with what comes, and a run that is never finished gives way to the next.

use std::net::IpAddr;

use crate::packet::{self, IPV4_HEADER, IPV6_HEADER, Packet};

/// Datagrams that are put together at one time.
const RUNS: usize = 4;
const LARGEST: usize = 65_535;
const FRAGMENT_HEADER: usize = 8;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;

/// What a fragment belongs to.
type Key = (IpAddr, IpAddr, u8, u32);

struct Run {
    key: Option<Key>,
    /// Octets of headers at the start of the buffer.
    headers: usize,
    /// Octets in the buffer, headers included.
    length: usize,
    buffer: Box<[u8]>,
}

/// Runs of fragments under way.
#[derive(Default)]
pub(super) struct Reassembly {
    runs: Vec<Run>,
    next: usize,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// More is to come.
    Kept,
    /// It was the last one: the whole packet.
    Whole(&'a [u8]),
    /// It continues nothing.
    Refused,
}

/// A fragment taken apart.
struct Part<'a> {
    key: Key,
    /// Headers of the packet, without that of the fragment.
    headers: [&'a [u8]; 2],
    /// Protocol of the data in an IPv6 fragment header.
    next: Option<u8>,
    offset: usize,
    more: bool,
    data: &'a [u8],
}

impl Reassembly {
    /// With all buffers.
    pub(super) fn new() -> Self {
        let run = || Run { key: None, headers: 0, length: 0, buffer: vec![0; LARGEST].into_boxed_slice() };
        Self { runs: (0..RUNS).map(|_| run()).collect(), next: 0 }
    }

    /// Takes a fragment.
    pub(super) fn take(&mut self, packet: &[u8], parsed: &Packet) -> Piece<'_> {
        let Some(part) = split(packet, parsed) else { return Piece::Refused };
        let known = self.runs.iter().position(|run| run.key == Some(part.key));
        let at = match (part.offset, known) {
            (0, Some(at)) => at,
            (0, None) => {
                self.next = (self.next + 1) % self.runs.len().max(1);
                self.next
            }
            (_, Some(at)) => at,
            (_, None) => return Piece::Refused,
        };
        let Some(run) = self.runs.get_mut(at) else { return Piece::Refused };
        if part.offset == 0 {
            run.begin(&part);
        }
        if run.append(&part).is_none() {
            run.key = None;
            return Piece::Refused;
        }
        if part.more {
            return Piece::Kept;
        }
        run.key = None;
        run.finish().map_or(Piece::Refused, Piece::Whole)
    }
}

impl Run {
    fn begin(&mut self, part: &Part<'_>) {
        let [first, second] = part.headers;
        (self.key, self.headers) = (Some(part.key), first.len() + second.len());
        self.length = self.headers;
        for (to, from) in self.buffer.iter_mut().zip(first.iter().chain(second)) {
            *to = *from;
        }
        // The header before that of the fragment names what comes behind it now.
        let names = if second.is_empty() { 6 } else { IPV6_HEADER };
        if let Some((next, field)) = part.next.zip(self.buffer.get_mut(names)) {
            *field = next;
        }
    }

    fn append(&mut self, part: &Part<'_>) -> Option<()> {
        let follows = part.offset == self.length - self.headers;
        let whole_words = !part.more || part.data.len().is_multiple_of(8);
        if !follows || !whole_words {
            return None;
        }
        let end = self.length + part.data.len();
        self.buffer.get_mut(self.length..end)?.copy_from_slice(part.data);
        self.length = end;
        Some(())
    }

    /// Lengths and checksum of the whole packet.
    fn finish(&mut self) -> Option<&[u8]> {
        let v4 = self.buffer.first().is_some_and(|octet| octet >> 4 == 4);
        let total = u16::try_from(self.length).ok()?;
        if v4 {
            self.buffer.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
            self.buffer.get_mut(6..8)?.fill(0);
            self.buffer.get_mut(10..12)?.fill(0);
            let sum = packet::checksum(self.buffer.get(..self.headers)?);
            self.buffer.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        } else {
            let payload = total.checked_sub(IPV6_HEADER as u16)?;
            self.buffer.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
        }
        self.buffer.get(..self.length)
    }
}

fn split<'a>(packet: &'a [u8], parsed: &Packet) -> Option<Part<'a>> {
    let packet = packet.get(..parsed.length)?;
    let (source, destination) = (parsed.selectors.source, parsed.selectors.destination);
    if source.is_ipv4() {
        let fixed = packet.first_chunk::<IPV4_HEADER>()?;
        let place = u16::from_be_bytes([fixed[6], fixed[7]]);
        let (headers, data) = packet.split_at_checked(parsed.header)?;
        let key = (source, destination, fixed[9], u32::from(u16::from_be_bytes([fixed[4], fixed[5]])));
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        return Some(Part { key, headers: [headers, &[]], next: None, offset, more, data });
    }
    let (fixed, rest) = packet.split_at_checked(IPV6_HEADER)?;
    let first = *fixed.get(6)?;
    let (options, rest) = match first {
        HOP_BY_HOP => rest.split_at_checked(8 + usize::from(*rest.get(1)?) * 8)?,
        _ => rest.split_at_checked(0)?,
    };
    let named = options.first().copied().unwrap_or(first);
    let (fragment, data) = rest.split_at_checked(FRAGMENT_HEADER)?;
    let [next, _, high, low, a, b, c, d] = *fragment.first_chunk::<FRAGMENT_HEADER>()?;
    if named != FRAGMENT {
        return None;
    }
    let place = u16::from_be_bytes([high, low]);
    let key = (source, destination, next, u32::from_be_bytes([a, b, c, d]));
    let (offset, more) = (usize::from(place & 0xfff8), place & 1 != 0);
    Some(Part { key, headers: [fixed, options], next: Some(next), offset, more, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{fragment_v4, parse};
    use ipsec::conformance::udp_v4;

    fn take<'r>(reassembly: &'r mut Reassembly, packet: &[u8]) -> Piece<'r> {
        reassembly.take(packet, &parse(packet).unwrap())
    }

    fn fragments(number: u8, mtu: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut packet = udp_v4([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), (5, u16::from(number)), 4000, false);
        packet[5] = number;
        packet[10..12].fill(0);
        let sum = packet::checksum(&packet[..20]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        let (mut all, mut scratch) = (Vec::new(), vec![0; 2000]);
        fragment_v4(&packet, &parse(&packet).unwrap(), mtu, &mut scratch, |piece| all.push(piece.to_vec()));
        (packet, all)
    }

    //= RFC 4303 §3.3.4: what is sealed in transport mode is the packet before it was fragmented
    #[test]
    fn runs_become_whole_packets_also_when_they_mix() {
        let mut reassembly = Reassembly::new();
        let (one, ones) = fragments(1, 1400);
        let (two, twos) = fragments(2, 900);
        assert_eq!((ones.len(), twos.len()), (3, 5));
        for round in 0..3 {
            for at in 0..2 {
                assert_eq!(take(&mut reassembly, &ones[at]), Piece::Kept, "round {round}");
                assert_eq!(take(&mut reassembly, &twos[at]), Piece::Kept);
            }
            assert_eq!(take(&mut reassembly, &ones[2]), Piece::Whole(&one));
            assert_eq!(take(&mut reassembly, &twos[2]), Piece::Kept);
            assert_eq!(take(&mut reassembly, &twos[3]), Piece::Kept);
            assert_eq!(take(&mut reassembly, &twos[4]), Piece::Whole(&two));
        }
    }

    #[test]
    fn what_continues_nothing_is_refused() {
        let mut reassembly = Reassembly::new();
        let (_, all) = fragments(1, 900);
        assert_eq!(take(&mut reassembly, &all[1]), Piece::Refused);
        assert_eq!(take(&mut reassembly, &all[0]), Piece::Kept);
        // A gap, and after it the run is gone.
        assert_eq!(take(&mut reassembly, &all[2]), Piece::Refused);
        assert_eq!(take(&mut reassembly, &all[1]), Piece::Refused);
        // The same twice.
        assert_eq!(take(&mut reassembly, &all[0]), Piece::Kept);
        assert_eq!(take(&mut reassembly, &all[1]), Piece::Kept);
        assert_eq!(take(&mut reassembly, &all[1]), Piece::Refused);
        // More runs than there is room for: the oldest goes.
        let many: Vec<_> = (10..10 + RUNS as u8 + 1).map(|number| fragments(number, 1400).1).collect();
        for run in &many {
            assert_eq!(take(&mut reassembly, &run[0]), Piece::Kept);
        }
        assert_eq!(take(&mut reassembly, &many[0][1]), Piece::Refused);
        assert_eq!(take(&mut reassembly, &many[1][1]), Piece::Kept);
    }

    #[test]
    fn ipv6_loses_its_fragment_header() {
        for options in [&[][..], &[FRAGMENT, 0, 5, 2, 0, 0, 1, 0]] {
            let piece = |offset: u16, data: &[u8], more: bool| {
                let first = if options.is_empty() { FRAGMENT } else { HOP_BY_HOP };
                let mut packet = vec![0x60, 0, 0, 0, 0, (options.len() + 8 + data.len()) as u8, first, 64];
                packet.extend([0xfd; 32]);
                packet.extend(options);
                let [high, low] = (offset | u16::from(more)).to_be_bytes();
                packet.extend([17, 0, high, low, 0, 0, 0, 9]);
                packet.extend(data);
                packet
            };
            let mut reassembly = Reassembly::new();
            assert_eq!(take(&mut reassembly, &piece(0, &[1; 16], true)), Piece::Kept);
            let Piece::Whole(whole) = take(&mut reassembly, &piece(16, &[2; 5], false)) else { panic!("not whole") };
            let parsed = parse(whole).unwrap();
            assert_eq!((parsed.fragment, parsed.selectors.protocol, parsed.length), (false, 17, 61 + options.len()));
            assert_eq!(&whole[40 + options.len()..], [&[1; 16][..], &[2; 5]].concat());
        }
    }
}
