//! Whole messages: a header and the payloads outside of any encryption.

use crate::error::{EncodeError, Malformed, ParseError, Place};
use crate::header::{HEADER_LEN, Header};
use crate::ids::PayloadType;
use crate::payload::{EncryptedFragment, Payload, Payloads, encode_payloads, parse_chain, parse_payloads};
use crate::writer::Writer;

/// A message that borrows from its datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The payloads that can be read without keys. In an encrypted message the last one is SK or SKF.
    pub payloads: Payloads<'a>,
    octets: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a datagram (the non-ESP marker removed).
    ///
    /// # Errors
    /// Those of [`Header::parse`], and [`ParseError::Malformed`] at the first payload that breaks a rule.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let header = Header::parse(datagram)?;
        let body = datagram.get(HEADER_LEN..).unwrap_or_default();
        let payloads = parse_payloads(header.next_payload, body, HEADER_LEN)?;
        Ok(Self { header, payloads, octets: datagram })
    }

    /// The datagram, as AUTH signs it and as associated data counts it.
    #[must_use]
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The SK or SKF payload.
    #[must_use]
    pub fn encrypted(&self) -> Option<&Payload<'a>> {
        self.payloads.as_slice().last().filter(|last| matches!(last.kind(), PayloadType::SK | PayloadType::SKF))
    }

    /// The SKF payload.
    #[must_use]
    pub fn fragment(&self) -> Option<&EncryptedFragment<'a>> {
        let last = self.payloads.as_slice().last();
        last.and_then(|last| if let Payload::EncryptedFragment(fragment) = last { Some(fragment) } else { None })
    }
}

/// Encodes a message. `next_payload` and `length` of `header` are computed, whatever they say.
///
/// # Errors
/// [`EncodeError`] for a message that the format cannot carry or that [`Message::parse`] would refuse.
pub fn encode(header: &Header, payloads: &[Payload<'_>]) -> Result<Vec<u8>, EncodeError> {
    let mut body = Writer::default();
    let next_payload = encode_payloads(payloads, &mut body)?;
    let mut writer = Writer::default();
    Header { next_payload, ..*header }.write(&mut writer);
    writer.octets(&body.into_octets());
    finish(writer)
}

/// A chain of payloads without a message around it: the plaintext of an SK payload, or that of all fragments of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Chain {
    /// Type of the first payload.
    pub first: PayloadType,
    /// The payloads.
    pub octets: Vec<u8>,
}

impl Chain {
    /// The payloads.
    ///
    /// # Errors
    /// [`Malformed`] at the first payload that breaks a rule; offsets count from the start of the chain.
    pub fn payloads(&self) -> Result<Payloads<'_>, Malformed> {
        parse_chain(self.first, &self.octets, 0)
    }
}

/// Shows no octets: they are what SK hides.
impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("first", &self.first).field("octets", &self.octets.len()).finish()
    }
}

/// Encodes the inside of an SK payload.
///
/// # Errors
/// As [`encode`].
pub fn encode_chain(payloads: &[Payload<'_>]) -> Result<Chain, EncodeError> {
    let mut writer = Writer::default();
    let first = encode_payloads(payloads, &mut writer)?;
    Ok(Chain { first, octets: writer.into_octets() })
}

/// Fills the length of the header at the start.
pub(crate) fn finish(mut writer: Writer) -> Result<Vec<u8>, EncodeError> {
    let octets = writer.len();
    let too_long = |limit| EncodeError::TooLong { place: Place::Chain, octets, limit };
    // A message travels in one UDP datagram.
    if octets > MAX_MESSAGE {
        return Err(too_long(MAX_MESSAGE));
    }
    let length = u32::try_from(octets).map_err(|_| too_long(MAX_MESSAGE))?;
    Header::patch_length(&mut writer, length);
    Ok(writer.into_octets())
}

/// Octets that a message can have: what the length field of UDP can count.
pub const MAX_MESSAGE: usize = 65_535 - 8;
