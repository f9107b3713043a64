//! Clamping of the TCP maximum segment size (RFC 9293 §3.7.1) in packets that open a connection.
//!
//! Path MTU discovery tells hosts what fits, but often ICMP is lost on the way; a segment size that fits from the start needs no telling.

use crate::packet::Packet;

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const TCP_HEADER: usize = 20;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Smallest size worth clamping to: what every host takes.
const LEAST: u16 = 536;

/// Whether a packet opens a TCP connection.
pub(crate) fn opens_connection(packet: &[u8], parsed: &Packet) -> bool {
    parsed.selectors.protocol == TCP
        && !parsed.fragment
        && transport(parsed).and_then(|at| packet.get(at + 13)).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the segment size a SYN offers to what fits into `mtu`. True when it did.
pub(crate) fn clamp(packet: &mut [u8], parsed: &Packet, mtu: usize) -> bool {
    let headers = parsed.header + TCP_HEADER;
    let most = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(LEAST);
    transport(parsed).and_then(|at| lower(packet.get_mut(at..parsed.length)?, most)).is_some()
}

/// Where the TCP header starts; behind extension headers it is left alone.
fn transport(parsed: &Packet) -> Option<usize> {
    parsed.bare.then_some(parsed.header)
}

fn lower(segment: &mut [u8], most: u16) -> Option<()> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut at = TCP_HEADER;
    while at < end {
        let length = match *segment.get(at)? {
            END => return None,
            NO_OPERATION => 1,
            MAXIMUM_SEGMENT_SIZE if at + 4 <= end => return replace(segment, at + 2, most),
            _ => usize::from(*segment.get(at + 1)?).max(2),
        };
        at += length;
    }
    None
}

/// Writes a smaller value and adjusts the checksum (RFC 1624).
fn replace(segment: &mut [u8], at: usize, most: u16) -> Option<()> {
    let word = |segment: &[u8], at: usize| segment.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let (old, sum) = (word(segment, at)?, word(segment, 16)?);
    if old <= most {
        return None;
    }
    // Both words are seen swapped where the option lies on an odd octet.
    let swap = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
    let total = u32::from(!sum) + u32::from(!swap(old)) + u32::from(swap(most));
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    segment.get_mut(at..at + 2)?.copy_from_slice(&most.to_be_bytes());
    segment.get_mut(16..18)?.copy_from_slice(&(!(folded as u16)).to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{checksum, parse};

    /// A SYN with `options`, over IPv4, its checksum right.
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut segment = vec![0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0, SYN, 0xff, 0xff, 0, 0, 0, 0];
        segment.extend_from_slice(options);
        segment[12] = (segment.len() as u8 / 4) << 4;
        let mut packet =
            vec![0x45, 0, 0, 20 + segment.len() as u8, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
        let sum = checksum(&[&packet[12..20], &[0, 6, 0, segment.len() as u8], &segment].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(&segment);
        packet
    }

    fn is_sound(packet: &[u8]) -> bool {
        checksum(&[&packet[12..20], &[0, 6, 0, packet.len() as u8 - 20], &packet[20..]].concat()) == 0
    }

    #[test]
    fn a_size_that_does_not_fit_is_lowered() {
        // Plain; behind other options; on an odd octet.
        for (options, at) in
            [(&[2, 4, 5, 0xb4][..], 42), (&[4, 2, 1, 2, 4, 5, 0xb4, 1][..], 45), (&[1, 2, 4, 5, 0xb4, 0, 0, 0][..], 43)]
        {
            let mut packet = syn(options);
            let parsed = parse(&packet).unwrap();
            assert!(opens_connection(&packet, &parsed) && is_sound(&packet));
            assert!(!clamp(&mut packet, &parsed, 1_500));
            assert!(clamp(&mut packet, &parsed, 1_438));
            assert_eq!(u16::from_be_bytes([packet[at], packet[at + 1]]), 1_398);
            assert!(is_sound(&packet), "{options:?}");
        }
    }

    #[test]
    fn nonsense_is_left_alone() {
        for options in [&[2, 4][..], &[0, 0, 0, 0], &[7, 0, 0, 0], &[9, 200, 1, 1], &[1, 1, 1, 2]] {
            let mut packet = syn(options);
            let before = packet.clone();
            let parsed = parse(&packet).unwrap();
            assert!(!clamp(&mut packet, &parsed, 600));
            assert_eq!(packet, before);
        }
    }
}
