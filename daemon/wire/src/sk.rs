//! Layout of encrypted messages: what stands in front of the encrypted octets and is authenticated with them
//! (RFC 7296 §3.14, RFC 5282 §5, RFC 7383 §2.5).
//!
//! The division of work with a cipher: this module writes the headers, which the integrity check covers and whose lengths must
//! be final, and puts the plaintext behind the room for the IV. The cipher does everything inside [`SkParts::body`]: IV,
//! padding, pad length, encryption, ICV, and the way back.

use std::fmt;

use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::header::{HEADER_LEN, Header};
use crate::ids::PayloadType;
use crate::message::{Chain, Message, finish};
use crate::payload::{PAYLOAD_HEADER_LEN, Payload, write_fragment_numbers};
use crate::writer::Writer;

/// Octets of a message that are not the body of its SK payload.
pub const SK_OVERHEAD: usize = HEADER_LEN + PAYLOAD_HEADER_LEN;

/// Octets of a message that are not the body of its SKF payload.
pub const SKF_OVERHEAD: usize = SK_OVERHEAD + 4;

/// What a cipher says about the body that it will make of a plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SkSizes {
    /// Octets of the explicit IV at its start.
    pub iv: usize,
    /// Octets of IV, plaintext, padding, pad length and ICV together.
    pub body: usize,
}

/// A whole message with an SK or SKF payload, to be encrypted or decrypted in place.
pub struct SkBuffer {
    octets: Vec<u8>,
    /// Type of the first payload inside.
    first: PayloadType,
    /// Octets before the body: IKE header, other payloads, headers of SK or SKF.
    associated: usize,
}

/// The two parts of an [`SkBuffer`], which together are the whole message.
pub struct SkParts<'a> {
    /// First octet of the IKE header to the IV: authenticated, not encrypted.
    pub associated: &'a [u8],
    /// IV, plaintext or ciphertext, room for padding and pad length, ICV.
    pub body: &'a mut [u8],
}

impl SkBuffer {
    /// Lays out a message whose only payload is SK, with `chain` in its body behind the room for the IV and zeros elsewhere.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when it does not fit into a datagram, [`EncodeError::BodyTooSmall`] when `sizes` are not those of
    /// this chain.
    pub fn seal(header: &Header, chain: &Chain, sizes: SkSizes) -> Result<Self, EncodeError> {
        Self::lay_out(header, PayloadType::SK, chain.first, None, &chain.octets, sizes)
    }

    /// Lays out fragment `number` of `total`, which carries `piece` of the octets of a chain whose first payload is of type
    /// `first`.
    ///
    /// # Errors
    /// As [`Self::seal`], and [`EncodeError::Illegal`] for a number that is not within 1 to `total`.
    pub fn seal_fragment(
        header: &Header,
        first: PayloadType,
        (number, total): (u16, u16),
        piece: &[u8],
        sizes: SkSizes,
    ) -> Result<Self, EncodeError> {
        //= RFC 7383 §2.5: only the first fragment names the first payload
        let first = if number == 1 { first } else { PayloadType::NO_NEXT_PAYLOAD };
        Self::lay_out(header, PayloadType::SKF, first, Some((number, total)), piece, sizes)
    }

    fn lay_out(
        header: &Header,
        kind: PayloadType,
        first: PayloadType,
        fragment: Option<(u16, u16)>,
        plaintext: &[u8],
        sizes: SkSizes,
    ) -> Result<Self, EncodeError> {
        let used = sizes.iv.saturating_add(plaintext.len());
        let Some(room) = sizes.body.checked_sub(used) else {
            return Err(EncodeError::BodyTooSmall { body: sizes.body, used });
        };
        let mut writer = Writer::default();
        Header { next_payload: kind, ..*header }.write(&mut writer);
        let start = writer.len();
        writer.u8(first.0);
        writer.u8(0);
        let length = writer.length(start, Place::Payload(kind));
        if let Some((number, total)) = fragment {
            write_fragment_numbers(number, total, &mut writer)?;
        }
        let associated = writer.len();
        writer.zeros(sizes.iv);
        writer.octets(plaintext);
        writer.zeros(room);
        writer.close(length)?;
        Ok(Self { octets: finish(writer)?, first, associated })
    }

    /// Copies a received message, to decrypt it.
    ///
    /// # Errors
    /// [`Problem::NotEncrypted`] when the message does not end in SK or SKF.
    pub fn open(message: &Message<'_>) -> Result<Self, Malformed> {
        let (first, body) = match message.encrypted() {
            Some(Payload::Encrypted(sk)) => (sk.first, sk.body.len()),
            Some(Payload::EncryptedFragment(skf)) => (skf.first, skf.body.len()),
            Some(_) | None => {
                return Err(Malformed { place: Place::Chain, offset: HEADER_LEN, problem: Problem::NotEncrypted });
            }
        };
        // The encrypted payload is the last one, so the datagram ends with its body.
        let associated = message.octets().len().saturating_sub(body);
        Ok(Self { octets: message.octets().to_vec(), first, associated })
    }

    /// What the cipher needs.
    pub fn parts(&mut self) -> SkParts<'_> {
        let at = self.associated.min(self.octets.len());
        let (associated, body) = self.octets.split_at_mut(at);
        SkParts { associated, body }
    }

    /// Type of the first payload inside, for [`parse_chain`](crate::parse_chain); zero in a fragment that is not the first.
    #[must_use]
    pub fn first(&self) -> PayloadType {
        self.first
    }

    /// Position of the body in the message. With the octets of the IV added it is the base offset for
    /// [`parse_chain`](crate::parse_chain).
    #[must_use]
    pub fn body_offset(&self) -> usize {
        self.associated
    }

    /// The message, once it is encrypted.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// Shows no octets: they may be plaintext.
impl fmt::Debug for SkBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkBuffer")
            .field("octets", &self.octets.len())
            .field("first", &self.first)
            .field("associated", &self.associated)
            .finish()
    }
}
