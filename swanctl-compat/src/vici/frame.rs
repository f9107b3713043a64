//! Packets in a byte stream: each is preceded by its length in four octets, most significant first.

use thiserror::Error;

use super::codec::EncodeError;
use super::packet::Packet;

/// Longest packet in either direction.
pub const MAX_PACKET: usize = 512 * 1024;

/// The other side announced a packet longer than [`MAX_PACKET`]; the connection is beyond repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("packet of {0} octets announced, at most {MAX_PACKET} are allowed")]
pub struct TooLong(pub u32);

/// `packet` with its length in front, ready to be written.
///
/// # Errors
/// When the packet cannot be encoded or is too long.
pub fn encode(packet: &Packet) -> Result<Vec<u8>, EncodeError> {
    let body = zeroize::Zeroizing::new(packet.encode()?);
    let length = u32::try_from(body.len()).map_err(|_| EncodeError::PacketTooLong(body.len()))?;
    let mut out = Vec::with_capacity(body.len() + 4);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Octets of buffer that an idle connection keeps at most.
const KEPT: usize = 64 * 1024;

/// Cuts received octets into packets. Whoever pushes sees to it that no more waits here than is meant to ([`Self::waiting`]).
#[derive(Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Octets of `buffer` already handed out.
    taken: usize,
}

impl std::fmt::Debug for Deframer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deframer").field("waiting", &self.waiting()).finish()
    }
}

impl Deframer {
    /// A deframer at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received octets.
    pub fn push(&mut self, octets: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
                // Dropped, not only shortened, so that what a long packet held is wiped and given back.
                zeroize::Zeroize::zeroize(&mut std::mem::take(&mut self.buffer));
            }
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Octets that were received and not handed out yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The octets of the next packet, or `None` until more has been received.
    ///
    /// # Errors
    /// When the announced length is above [`MAX_PACKET`].
    pub fn next_packet(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = waiting.split_first_chunk::<4>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*length);
        let length = announced as usize;
        if length > MAX_PACKET {
            return Err(TooLong(announced));
        }
        let Some(packet) = rest.get(..length) else { return Ok(None) };
        let packet = packet.to_vec();
        self.taken += 4 + length;
        Ok(Some(packet))
    }
}

impl Drop for Deframer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.buffer);
    }
}
