//! ICMP errors about packets that came out of the TUN device: too big, or not allowed (RFC 792, 1191, 1812 §4.3.2, RFC 4443).
//!
//! Pure functions and one lock-free rate limit; nothing here allocates. Who sends the result, and from which address, is for the datapath.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Most octets of an ICMPv4 error (RFC 1812 §4.3.2.3).
pub const LARGEST_V4: usize = 576;
/// Most octets of an ICMPv6 error (RFC 4443 §2.4 (c)).
pub const LARGEST_V6: usize = 1280;

const HEADER_V4: usize = 20;
const HEADER_V6: usize = 40;
const HEADER_ICMP: usize = 8;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// It does not fit; packets of up to `mtu` octets do.
    TooBig {
        /// Octets of the largest inner packet that fits.
        mtu: u32,
    },
    /// Policy forbids it.
    Prohibited,
}

/// Why no error may be sent about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It is not a whole IP packet, or not of the family of our address.
    Malformed,
    /// It is a fragment other than the first.
    Fragment,
    /// It is an ICMP error itself, or a redirect.
    Error,
    /// Its source is not one host.
    Source,
    /// Its destination is not one host.
    Destination,
    /// The buffer is smaller than [`LARGEST_V4`] or [`LARGEST_V6`].
    Buffer,
}

/// Writes the ICMP error about `original`, an IP packet, to `out` and returns its length. `source` is our address in it.
pub fn error(original: &[u8], complaint: Complaint, source: IpAddr, out: &mut [u8]) -> Result<usize, Silence> {
    match (original.first().map(|octet| octet >> 4), source) {
        (Some(4), IpAddr::V4(source)) => error_v4(original, complaint, source, out),
        (Some(6), IpAddr::V6(source)) => error_v6(original, complaint, source, out),
        _ => Err(Silence::Malformed),
    }
}

fn error_v4(original: &[u8], complaint: Complaint, source: Ipv4Addr, out: &mut [u8]) -> Result<usize, Silence> {
    let header: &[u8; HEADER_V4] = original.first_chunk().ok_or(Silence::Malformed)?;
    let [first, _, high, low, _, _, fragment_high, fragment_low, _, protocol, ..] = *header;
    let header_octets = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([high, low]));
    let original = original.get(..total).filter(|_| header_octets >= HEADER_V4).ok_or(Silence::Malformed)?;
    let payload = original.get(header_octets..).ok_or(Silence::Malformed)?;
    if u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0 {
        return Err(Silence::Fragment);
    }
    if protocol == 1 && matches!(payload.first().ok_or(Silence::Malformed)?, 3 | 4 | 5 | 11 | 12) {
        return Err(Silence::Error);
    }
    let [.., s1, s2, s3, s4, d1, d2, d3, d4] = *header;
    let (from, to) = (Ipv4Addr::new(s1, s2, s3, s4), Ipv4Addr::new(d1, d2, d3, d4));
    let class_e = s1 >= 240;
    if s1 == 0 || from.is_multicast() || from.is_loopback() || class_e {
        return Err(Silence::Source);
    }
    if to.is_multicast() || to.is_broadcast() {
        return Err(Silence::Destination);
    }
    let (code, rest) = match complaint {
        Complaint::TooBig { mtu } => {
            let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
            (4, [0, 0, high, low])
        }
        Complaint::Prohibited => (13, [0; 4]),
    };
    let quote = quoted(original, LARGEST_V4 - HEADER_V4 - HEADER_ICMP);
    let length = HEADER_V4 + HEADER_ICMP + quote.len();
    let (ip, icmp) = split(out, HEADER_V4, length)?;
    write_icmp(icmp, 3, code, rest, quote, 0);
    let [length_high, length_low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    // Precedence 6 (RFC 1812 §4.3.2.5); never fragmented, so the identification may be zero (RFC 6864).
    put(ip, 0, &[0x45, 0xc0, length_high, length_low, 0, 0, 0x40, 0, 64, 1, 0, 0]);
    put(ip, 12, &source.octets());
    put(ip, 16, &from.octets());
    let checksum = fold(sum(ip, 0));
    put(ip, 10, &checksum.to_be_bytes());
    Ok(length)
}

fn error_v6(original: &[u8], complaint: Complaint, source: Ipv6Addr, out: &mut [u8]) -> Result<usize, Silence> {
    let header: &[u8; HEADER_V6] = original.first_chunk().ok_or(Silence::Malformed)?;
    let [_, _, _, _, high, low, next, ..] = *header;
    let total = HEADER_V6 + usize::from(u16::from_be_bytes([high, low]));
    let original = original.get(..total).ok_or(Silence::Malformed)?;
    let from = address_v6(header, 8);
    let to = address_v6(header, 24);
    check_upper_v6(next, original.get(HEADER_V6..).unwrap_or_default())?;
    if from.is_unspecified() || from.is_multicast() || from.is_loopback() {
        return Err(Silence::Source);
    }
    let too_big = matches!(complaint, Complaint::TooBig { .. });
    if to.is_multicast() && !too_big {
        return Err(Silence::Destination); // RFC 4443 §2.4 (e.3): path MTU discovery works for multicast
    }
    let (kind, code, rest) = match complaint {
        Complaint::TooBig { mtu } => (2, 0, mtu.max(1280).to_be_bytes()),
        Complaint::Prohibited => (1, 1, [0; 4]),
    };
    let quote = quoted(original, LARGEST_V6 - HEADER_V6 - HEADER_ICMP);
    let length = HEADER_V6 + HEADER_ICMP + quote.len();
    let (ip, icmp) = split(out, HEADER_V6, length)?;
    let payload = u16::try_from(HEADER_ICMP + quote.len()).unwrap_or(u16::MAX);
    let pseudo = sum(&from.octets(), sum(&source.octets(), u32::from(payload) + 58));
    write_icmp(icmp, kind, code, rest, quote, pseudo);
    let [payload_high, payload_low] = payload.to_be_bytes();
    put(ip, 0, &[0x60, 0, 0, 0, payload_high, payload_low, 58, 64]);
    put(ip, 8, &source.octets());
    put(ip, 24, &from.octets());
    Ok(length)
}

/// Walks the extension headers: no error about an ICMPv6 error or redirect, nor about a fragment that hides what it is.
fn check_upper_v6(mut next: u8, mut rest: &[u8]) -> Result<(), Silence> {
    loop {
        let octets = match (next, rest) {
            (58, [kind, ..]) => return if *kind < 128 || *kind == 137 { Err(Silence::Error) } else { Ok(()) },
            (58, []) => return Err(Silence::Malformed),
            (44, [_, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) & 0xfff8 != 0 => {
                return Err(Silence::Fragment);
            }
            (44, _) => 8,
            (0 | 43 | 60, [_, length, ..]) => (usize::from(*length) + 1) * 8,
            (51, [_, length, ..]) => (usize::from(*length) + 2) * 4,
            (0 | 43 | 51 | 60, _) => return Err(Silence::Malformed),
            _ => return Ok(()),
        };
        next = *rest.first().ok_or(Silence::Malformed)?;
        rest = rest.get(octets..).ok_or(Silence::Malformed)?;
    }
}

fn quoted(original: &[u8], most: usize) -> &[u8] {
    original.get(..most).unwrap_or(original)
}

fn split(out: &mut [u8], header: usize, length: usize) -> Result<(&mut [u8], &mut [u8]), Silence> {
    out.get_mut(..length).and_then(|packet| packet.split_at_mut_checked(header)).ok_or(Silence::Buffer)
}

fn write_icmp(icmp: &mut [u8], kind: u8, code: u8, rest: [u8; 4], quote: &[u8], pseudo: u32) {
    put(icmp, 0, &[kind, code, 0, 0]);
    put(icmp, 4, &rest);
    put(icmp, HEADER_ICMP, quote);
    let checksum = fold(sum(icmp, pseudo));
    put(icmp, 2, &checksum.to_be_bytes());
}

/// Copies `value` to `at`; the callers' buffers have room for all they write.
fn put(out: &mut [u8], at: usize, value: &[u8]) {
    for (slot, octet) in out.iter_mut().skip(at).zip(value) {
        *slot = *octet;
    }
}

fn address_v6(header: &[u8; HEADER_V6], at: usize) -> Ipv6Addr {
    let octets = header.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
    octets.map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
}

/// The Internet checksum's sum over `octets`, added to `start` (RFC 1071).
fn sum(octets: &[u8], start: u32) -> u32 {
    let mut pairs = octets.chunks_exact(2);
    let whole = pairs.by_ref().filter_map(|pair| pair.first_chunk()).copied().map(u16::from_be_bytes);
    let total = whole.fold(start, |total, word| total + u32::from(word));
    total + pairs.remainder().first().map_or(0, |last| u32::from(*last) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A token bucket without locks: so many per second, so many at once (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
///
/// It is one word: the instant, in nanoseconds of the caller's clock, at which the bucket will be full again.
#[derive(Debug)]
pub struct RateLimit {
    full_at: AtomicU64,
    interval: u64,
    depth: u64,
}

impl RateLimit {
    /// A full bucket of `burst` tokens that gains `per_second`; zero of either counts as one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        let burst = if burst == 0 { 1 } else { burst };
        let interval = 1_000_000_000 / per_second as u64;
        Self { full_at: AtomicU64::new(0), interval, depth: interval * burst as u64 }
    }

    /// Takes a token, if there is one at `now` nanoseconds.
    pub fn take(&self, now: u64) -> bool {
        let spend = |full_at: u64| {
            let after = full_at.max(now).saturating_add(self.interval);
            (after - now <= self.depth).then_some(after)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests;
