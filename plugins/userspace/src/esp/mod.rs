//! ESP packets (RFC 4303 §2 and §3.3-3.4, with RFC 4106, RFC 7634, and RFC 3602/4868) as pure functions over buffers.
//!
//! Sealing writes SPI to ICV into a buffer of the caller; opening works in place. Outer headers, UDP headers and which SA it is are left to
//! others, so is the decision what to do with the plaintext.

mod replay;

use ike_crypto::{CryptoError, EspKey, MAX_EXPLICIT_IV_LEN};

pub use replay::{MAX_WINDOW, ReplayWindow, extend};

/// SPI and sequence number.
pub const HEADER: usize = 8;
/// Pad length and next header.
const TRAILER: usize = 2;
/// Longest ICV of any cipher here.
const MAX_ICV: usize = 32;

/// Next header values of ESP payloads.
pub mod next_header {
    /// An IPv4 packet.
    pub const IPV4: u8 = 4;
    /// An IPv6 packet.
    pub const IPV6: u8 = 41;
    /// A dummy packet (RFC 4303 §2.6).
    pub const DUMMY: u8 = 59;
}

/// Why a packet could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, or not a whole number of cipher blocks.
    #[error("ESP packet is truncated")]
    Truncated,
    /// The ICV does not fit.
    #[error("integrity check failed")]
    Integrity,
    /// The ICV fits, but the padding makes no sense.
    #[error("ESP padding is wrong")]
    Padding,
}

/// Octets that ESP makes of `payload` octets, header and ICV included.
pub fn sealed_length(key: &dyn EspKey, payload: usize) -> usize {
    HEADER + key.iv_len() + (payload + TRAILER).next_multiple_of(key.block_alignment().max(4)) + key.icv_len()
}

/// Largest payload whose ESP packet has at most `room` octets.
pub fn payload_room(key: &dyn EspKey, room: usize) -> usize {
    let sealed = room.saturating_sub(HEADER + key.iv_len() + key.icv_len());
    let alignment = key.block_alignment().max(4);
    (sealed / alignment * alignment).saturating_sub(TRAILER)
}

/// Seals `payload` into `out` and returns the length of the ESP packet; `None` when `out` is too small.
///
/// `sequence` is the full number; it must never be used twice with one key. With `esn` its high half is authenticated but not sent.
pub fn seal(
    key: &dyn EspKey,
    spi: u32,
    sequence: u64,
    esn: bool,
    next_header: u8,
    payload: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let total = sealed_length(key, payload.len());
    let (header, rest) = out.get_mut(..total)?.split_at_mut_checked(HEADER)?;
    let (iv, rest) = rest.split_at_mut_checked(key.iv_len())?;
    let (buffer, icv) = rest.split_at_mut_checked(rest.len().checked_sub(key.icv_len())?)?;
    let (spi_field, number_field) = header.split_at_mut_checked(4)?;
    spi_field.copy_from_slice(&spi.to_be_bytes());
    number_field.copy_from_slice(&(sequence as u32).to_be_bytes());
    let (text, tail) = buffer.split_at_mut_checked(payload.len())?;
    text.copy_from_slice(payload);
    let (padding, trailer) = tail.split_at_mut_checked(tail.len().checked_sub(TRAILER)?)?;
    // Default padding scheme: 1, 2, 3, ... (RFC 4303 §2.4).
    for (octet, value) in padding.iter_mut().zip(1_u8..) {
        *octet = value;
    }
    trailer.copy_from_slice(&[u8::try_from(padding.len()).ok()?, next_header]);
    let (aad, aad_length) = additional_data(spi, sequence, esn);
    key.seal_in_place(sequence, aad.get(..aad_length)?, iv, buffer, icv).ok()?;
    Some(total)
}

/// What a packet carried.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Payload, without padding and trailer.
    pub payload: &'a mut [u8],
    /// Its protocol.
    pub next_header: u8,
}

/// SPI and low half of the sequence number of an ESP packet.
pub fn header(packet: &[u8]) -> Option<(u32, u32)> {
    let [a, b, c, d, e, f, g, h] = *packet.first_chunk::<HEADER>()?;
    Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
}

/// Checks and opens a packet in place; `sequence` is the full number that the receiver worked out.
///
/// # Errors
/// [`OpenError`]; the octets may be changed then.
pub fn open<'a>(key: &dyn EspKey, sequence: u64, esn: bool, packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
    let (spi, _) = header(packet).ok_or(OpenError::Truncated)?;
    let minimum = HEADER + key.iv_len() + TRAILER + key.icv_len();
    if packet.len() < minimum {
        return Err(OpenError::Truncated);
    }
    let (_, rest) = packet.split_at_mut_checked(HEADER).ok_or(OpenError::Truncated)?;
    let (iv, sealed) = rest.split_at_mut_checked(key.iv_len()).ok_or(OpenError::Truncated)?;
    let (aad, aad_length) = additional_data(spi, sequence, esn);
    let aad = aad.get(..aad_length).ok_or(OpenError::Truncated)?;
    let forged =
        |error| if error == CryptoError::AuthenticationFailed { OpenError::Integrity } else { OpenError::Truncated };
    let plain = key.open_in_place(iv, aad, sealed).map_err(forged)?;
    let (before, trailer) =
        plain.len().checked_sub(TRAILER).and_then(|at| plain.split_at_mut_checked(at)).ok_or(OpenError::Padding)?;
    let [pad, next_header] = *trailer.first_chunk::<TRAILER>().ok_or(OpenError::Padding)?;
    let payload = before
        .len()
        .checked_sub(usize::from(pad))
        .and_then(|length| before.split_at_mut_checked(length))
        .map(|(payload, _)| payload)
        .ok_or(OpenError::Padding)?;
    Ok(Opened { payload, next_header })
}

/// SPI and sequence number as the ICV covers them: 8 octets, 12 with extended sequence numbers.
fn additional_data(spi: u32, sequence: u64, esn: bool) -> ([u8; 12], usize) {
    let [a, b, c, d] = spi.to_be_bytes();
    let [h1, h2, h3, h4, l1, l2, l3, l4] = sequence.to_be_bytes();
    if esn { ([a, b, c, d, h1, h2, h3, h4, l1, l2, l3, l4], 12) } else { ([a, b, c, d, l1, l2, l3, l4, 0, 0, 0, 0], 8) }
}

/// Most octets that ESP adds to a payload with any cipher of the provider.
pub const MAX_OVERHEAD: usize = HEADER + MAX_EXPLICIT_IV_LEN + 15 + TRAILER + MAX_ICV;

#[cfg(test)]
mod tests;
