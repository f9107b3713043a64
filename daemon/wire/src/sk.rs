//! Layout of encrypted messages: where IV, ciphertext and ICV stand, padding, and what the ICV covers (RFC 7296 §3.14,
//! RFC 5282 §3 and §5, RFC 7383 §2.5).
//!
//! The division of work with a cipher: this module writes header, plaintext, padding and pad length and leaves room for IV and
//! ICV; the cipher fills the IV, encrypts [`SkParts::body`] in place and writes the ICV. Coming in, the cipher checks the ICV
//! and decrypts in place, and this module removes the padding. A cipher never pads. An AEAD authenticates `associated` and `body`;
//! a MAC covers `associated`, `iv` and the encrypted `body`, which together are the whole message before the ICV.

use std::fmt;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::header::{HEADER_LEN, Header};
use crate::ids::PayloadType;
use crate::message::{Chain, MAX_MESSAGE, Message, finish};
use crate::payload::{
    FRAGMENT_NUMBERS_LEN, MAX_FRAGMENTS, PAYLOAD_HEADER_LEN, Payload, Payloads, parse_chain, write_fragment_numbers,
};
use crate::writer::Writer;

/// Sizes of a cipher, in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SkSizes {
    /// Explicit IV: 8 for AES-GCM and ChaCha20-Poly1305, 16 for AES-CBC.
    pub iv: usize,
    /// ICV: the tag of an AEAD, the truncated MAC otherwise.
    pub icv: usize,
    /// Block that the plaintext with padding and pad length must fill: 16 for AES-CBC, 1 where there is none.
    pub block: usize,
}

impl SkSizes {
    /// Octets of padding that make `plaintext` octets and the pad length field fill whole blocks. At most 255, for blocks up to 256.
    fn padding(self, plaintext: usize) -> u8 {
        let block = self.block.clamp(1, 256);
        let used = plaintext.saturating_add(1).checked_rem(block).unwrap_or(0);
        let padding = block.saturating_sub(used).checked_rem(block).unwrap_or(0);
        u8::try_from(padding).unwrap_or(0)
    }
}

/// A whole message with an SK or SKF payload, to be encrypted or decrypted in place.
pub struct SkBuffer {
    octets: Vec<u8>,
    /// Type of the first payload inside.
    first: PayloadType,
    /// Octets before the IV: IKE header, other payloads, headers of SK or SKF.
    associated: usize,
    sizes: SkSizes,
}

/// The parts of an [`SkBuffer`], which together are the whole message.
pub struct SkParts<'a> {
    /// IKE header up to the IV: the associated data of an AEAD.
    pub associated: &'a [u8],
    /// Explicit IV.
    pub iv: &'a mut [u8],
    /// Payloads, padding and pad length: plaintext or ciphertext.
    pub body: &'a mut [u8],
    /// Integrity check value.
    pub icv: &'a mut [u8],
}

impl SkBuffer {
    /// Lays out a message whose only payload is SK around `chain`. IV and ICV are zero and the body is plaintext.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when it does not fit into a datagram.
    pub fn seal(header: &Header, chain: &Chain, sizes: SkSizes) -> Result<Self, EncodeError> {
        Self::lay_out(header, PayloadType::SK, chain.first, None, &chain.octets, sizes)
    }

    /// Lays out fragment `number` of `total` (RFC 7383), which carries `piece` of the chain; `first` is the type of the first
    /// payload of the whole chain.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when it does not fit into a datagram, [`EncodeError::Illegal`] for a number outside 1 to `total`.
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

    /// Lays out `chain` in as few fragments as possible of at most `limit` octets each. They get longer than that when there would be
    /// more than [`MAX_FRAGMENTS`]. A chain that one fragment could carry is left whole: in SK it is shorter.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when the chain is longer than a message may be.
    pub fn seal_fragments(
        header: &Header,
        chain: &Chain,
        limit: usize,
        sizes: SkSizes,
    ) -> Result<Vec<Self>, EncodeError> {
        let octets = chain.octets.len();
        if octets > MAX_MESSAGE {
            return Err(EncodeError::TooLong { place: Place::Chain, octets, limit: MAX_MESSAGE });
        }
        let piece = skf_capacity(limit, sizes).max(octets.div_ceil(usize::from(MAX_FRAGMENTS)));
        let total = u16::try_from(octets.div_ceil(piece)).unwrap_or(MAX_FRAGMENTS);
        if total <= 1 {
            return Ok(vec![Self::seal(header, chain, sizes)?]);
        }
        //= RFC 7383 §2.5: the content is split in order, and each piece becomes a message that is protected on its own
        let pieces = (1..).zip(chain.octets.chunks(piece));
        pieces.map(|(number, piece)| Self::seal_fragment(header, chain.first, (number, total), piece, sizes)).collect()
    }

    fn lay_out(
        header: &Header,
        kind: PayloadType,
        first: PayloadType,
        fragment: Option<(u16, u16)>,
        plaintext: &[u8],
        sizes: SkSizes,
    ) -> Result<Self, EncodeError> {
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
        let padding = sizes.padding(plaintext.len());
        writer.zeros(usize::from(padding));
        writer.u8(padding);
        writer.zeros(sizes.icv);
        writer.close(length)?;
        Ok(Self { octets: finish(writer)?, first, associated, sizes })
    }

    /// Copies a received message to decrypt it.
    ///
    /// # Errors
    /// [`Malformed`] when the message does not end in SK or SKF, or when its body cannot hold IV, ICV and at least one whole
    /// block.
    pub fn open(message: &Message<'_>, sizes: SkSizes) -> Result<Self, Malformed> {
        let (kind, first, body) = match message.payloads.as_slice().last() {
            Some(Payload::Encrypted(sk)) => (PayloadType::SK, sk.first, sk.body.len()),
            Some(Payload::EncryptedFragment(skf)) => (PayloadType::SKF, skf.first, skf.body.len()),
            _ => return Err(Malformed { place: Place::Chain, offset: HEADER_LEN, problem: Problem::NotEncrypted }),
        };
        // The encrypted payload is the last one, so the datagram ends with its body.
        let associated = message.octets().len().saturating_sub(body);
        let malformed = |problem| Malformed { place: Place::Payload(kind), offset: associated, problem };
        let overhead = sizes.iv.saturating_add(sizes.icv);
        let minimum = overhead.saturating_add(sizes.block.max(1));
        let Some(octets) = body.checked_sub(overhead).filter(|octets| *octets > 0) else {
            return Err(malformed(Problem::Truncated { needed: minimum, left: body }));
        };
        if octets.checked_rem(sizes.block).unwrap_or(0) != 0 {
            return Err(malformed(Problem::EncryptedLength { octets, block: sizes.block }));
        }
        Ok(Self { octets: message.octets().to_vec(), first, associated, sizes })
    }

    /// The parts for a cipher to work on.
    pub fn parts(&mut self) -> SkParts<'_> {
        let (associated, rest) = split(&mut self.octets, self.associated);
        let (iv, rest) = split(rest, self.sizes.iv);
        let body = rest.len().saturating_sub(self.sizes.icv);
        let (body, icv) = split(rest, body);
        SkParts { associated, iv, body, icv }
    }

    /// The message, once it is encrypted.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// The chain, once the ICV was found good and the body is decrypted.
    ///
    /// # Errors
    /// [`Malformed`] when the pad length is larger than the body or a payload breaks a rule.
    pub fn payloads(&self) -> Result<Payloads<'_>, Malformed> {
        parse_chain(self.first, self.plaintext()?, self.plaintext_offset())
    }

    /// The plaintext without padding: a chain, or a piece of one in a fragment.
    ///
    /// # Errors
    /// [`Malformed`] when the pad length is larger than the body.
    pub fn plaintext(&self) -> Result<&[u8], Malformed> {
        let start = self.plaintext_offset();
        let end = self.octets.len().saturating_sub(self.sizes.icv);
        let body = self.octets.get(start..end).unwrap_or_default();
        let cursor = Cursor::new(body, start, Place::Padding);
        let Some((pad_length, padded)) = body.split_last() else {
            return Err(cursor.malformed(Problem::Truncated { needed: 1, left: 0 }));
        };
        //= RFC 7296 §3.14: the padding may have any content and the pad length any value that fits
        let padding = usize::from(*pad_length);
        let plaintext = padded.len().checked_sub(padding).and_then(|length| padded.get(..length));
        plaintext.ok_or_else(|| cursor.malformed(Problem::PaddingLength { padding, plaintext: padded.len() }))
    }

    /// Type of the first payload inside; zero in a fragment that is not the first.
    #[must_use]
    pub fn first(&self) -> PayloadType {
        self.first
    }

    fn plaintext_offset(&self) -> usize {
        self.associated.saturating_add(self.sizes.iv)
    }
}

impl fmt::Debug for SkBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkBuffer")
            .field("octets", &self.octets.len())
            .field("first", &self.first)
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

/// Octets that an SK message has around a plaintext of `plaintext` octets: what fragmentation reckons with.
#[must_use]
pub fn sk_overhead(plaintext: usize, sizes: SkSizes) -> usize {
    [HEADER_LEN, PAYLOAD_HEADER_LEN, sizes.iv, usize::from(sizes.padding(plaintext)), 1, sizes.icv].iter().sum()
}

/// Octets of a chain that a fragment of at most `limit` octets can carry; at least one, however small the limit is.
#[must_use]
pub fn skf_capacity(limit: usize, sizes: SkSizes) -> usize {
    let around = [HEADER_LEN, PAYLOAD_HEADER_LEN, FRAGMENT_NUMBERS_LEN, sizes.iv, sizes.icv].iter().sum();
    let room = limit.min(MAX_MESSAGE).saturating_sub(around);
    let incomplete = room.checked_rem(sizes.block).unwrap_or(0);
    // The pad length field takes one octet of the last block.
    room.saturating_sub(incomplete).saturating_sub(1).max(1)
}

/// The constructors have checked that `at` lies inside; an empty second half would only make a cipher fail.
fn split(octets: &mut [u8], at: usize) -> (&mut [u8], &mut [u8]) {
    let at = at.min(octets.len());
    octets.split_at_mut(at)
}
