//! ESP as a toy: header and trailer of RFC 4303 §2, the payload as it is, and a keyed checksum in place of an ICV.

use crate::algorithm::KeyMaterial;

const HEADER: usize = 8;
/// Pad length and next header.
const TRAILER: usize = 2;
const ICV: usize = 16;
const ALIGNMENT: usize = 4;

/// Next header of an IPv4 packet in tunnel mode.
pub(super) const IPV4: u8 = 4;
/// The same for IPv6.
pub(super) const IPV6: u8 = 41;

/// An ESP packet.
pub(super) fn seal(key: &KeyMaterial, spi: u32, sequence: u64, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let [_, _, _, _, low @ ..] = sequence.to_be_bytes();
    let mut packet = [&spi.to_be_bytes()[..], &low[..], payload].concat();
    let padding = (payload.len() + TRAILER).next_multiple_of(ALIGNMENT) - payload.len() - TRAILER;
    packet.extend((1..=padding).map(|octet| octet.to_le_bytes()[0]));
    packet.extend([padding.to_le_bytes()[0], next_header]);
    packet.extend(checksum(key, sequence, &packet));
    packet
}

/// SPI and lower half of the sequence number.
pub(super) fn header(packet: &[u8]) -> Option<(u32, u32)> {
    let (spi, rest) = packet.split_first_chunk()?;
    Some((u32::from_be_bytes(*spi), u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Next header and payload of an authentic packet.
pub(super) fn open(key: &KeyMaterial, sequence: u64, packet: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (authentic, icv) = packet.split_last_chunk::<ICV>()?;
    if *icv != checksum(key, sequence, authentic) {
        return None;
    }
    let [rest @ .., padding, next_header] = authentic.get(HEADER..)? else { return None };
    let length = rest.len().checked_sub(usize::from(*padding))?;
    Some((*next_header, rest.get(..length)?.to_vec()))
}

/// The largest payload of an ESP packet with so many octets.
pub(super) fn room(octets: usize) -> usize {
    let inside = octets - HEADER - ICV;
    inside - inside % ALIGNMENT - TRAILER
}

/// Two Fowler-Noll-Vo hashes: every changed bit shows, which is all a toy needs.
fn checksum(key: &KeyMaterial, sequence: u64, packet: &[u8]) -> [u8; ICV] {
    let integrity = key.integrity.iter().flat_map(|key| key.iter());
    let all =
        key.encryption.iter().chain(integrity).copied().chain(sequence.to_be_bytes()).chain(packet.iter().copied());
    let hash = |start: u64| {
        all.clone().fold(start, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)).to_be_bytes()
    };
    let mut icv = [0; ICV];
    let halves = hash(0xcbf2_9ce4_8422_2325).into_iter().chain(hash(0x6c62_272e_07bb_0142));
    icv.iter_mut().zip(halves).for_each(|(place, octet)| *place = octet);
    icv
}
