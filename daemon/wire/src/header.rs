//! The IKE header (RFC 7296 §3.1).
//!
//! Checks what makes the rest of the datagram readable: version and length. Whether SPIs and message ID belong to an IKE SA
//! is decided by the endpoint.

use crate::cursor::Cursor;
use crate::error::{Malformed, ParseError, Place, Problem};
use crate::ids::{ExchangeType, IkeSpi, MessageId, PayloadType};
use crate::writer::Writer;

/// Octets of the IKE header.
pub const HEADER_LEN: usize = 28;

const LENGTH_AT: usize = 24;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_VERSION: u8 = 0x10;
const FLAG_RESPONSE: u8 = 0x20;

/// The header of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// SPI chosen by the original initiator of the IKE SA, never zero.
    pub initiator_spi: IkeSpi,
    /// SPI chosen by the responder, zero in the first request.
    pub responder_spi: IkeSpi,
    /// Type of the first payload. Encoding sets it.
    pub next_payload: PayloadType,
    /// Version of the protocol.
    pub version: Version,
    /// Type of the exchange.
    pub exchange: ExchangeType,
    /// Direction and version bits.
    pub flags: Flags,
    /// Message ID, equal in request and response.
    pub message_id: MessageId,
    /// Octets of the whole message, header included. Encoding sets it.
    pub length: u32,
}

/// IKE version; the minor one is ignored on receipt (RFC 7296 §2.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// Four bits.
    pub major: u8,
    /// Four bits.
    pub minor: u8,
}

impl Version {
    /// IKEv2.
    pub const V2: Self = Self { major: 2, minor: 0 };
}

/// The flags octet. Bits without a meaning are ignored on receipt and sent as zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags {
    /// The sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// The sender can speak a higher major version than the one in the header.
    pub version: bool,
    /// The message is a response.
    pub response: bool,
}

impl Flags {
    fn from_octet(octet: u8) -> Self {
        Self {
            initiator: octet & FLAG_INITIATOR != 0,
            version: octet & FLAG_VERSION != 0,
            response: octet & FLAG_RESPONSE != 0,
        }
    }

    fn to_octet(self) -> u8 {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        bit(self.initiator, FLAG_INITIATOR) | bit(self.version, FLAG_VERSION) | bit(self.response, FLAG_RESPONSE)
    }
}

impl Header {
    /// A header for a message that is to be encoded: version 2.0, `next_payload` and `length` filled by encoding.
    #[must_use]
    pub fn new(
        initiator_spi: IkeSpi,
        responder_spi: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        message_id: MessageId,
    ) -> Self {
        Self {
            initiator_spi,
            responder_spi,
            next_payload: PayloadType::NO_NEXT_PAYLOAD,
            version: Version::V2,
            exchange,
            flags,
            message_id,
            length: 0,
        }
    }

    /// Reads the header of a whole datagram (the non-ESP marker removed).
    ///
    /// # Errors
    /// [`ParseError::MajorVersion`] for a newer protocol, before anything but the presence of the header is checked;
    /// [`Malformed`] when octets are missing, the version is older than 2, the initiator's SPI is zero, or the length field
    /// differs from the length of the datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(datagram, 0, Place::Header);
        let header = Self::read(&mut cursor)?;
        //= RFC 7296 §2.5: a higher major version is answered, a higher minor version is ignored
        if header.version.major > Version::V2.major {
            return Err(ParseError::MajorVersion(header));
        }
        header.check(datagram.len())?;
        Ok(header)
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let initiator_spi = IkeSpi(cursor.u64()?);
        let responder_spi = IkeSpi(cursor.u64()?);
        let next_payload = PayloadType(cursor.u8()?);
        let version = cursor.u8()?;
        Ok(Self {
            initiator_spi,
            responder_spi,
            next_payload,
            version: Version { major: version >> 4, minor: version & 0x0f },
            exchange: ExchangeType(cursor.u8()?),
            flags: Flags::from_octet(cursor.u8()?),
            message_id: MessageId(cursor.u32()?),
            length: cursor.u32()?,
        })
    }

    fn check(&self, datagram: usize) -> Result<(), Malformed> {
        let malformed = |offset, problem| Err(Malformed { place: Place::Header, offset, problem });
        if self.version.major < Version::V2.major {
            return malformed(17, Problem::OldVersion { major: self.version.major });
        }
        //= RFC 7296 §3.1: the initiator's SPI must not be zero
        if self.initiator_spi.is_zero() {
            return malformed(0, Problem::ZeroInitiatorSpi);
        }
        //= RFC 7296 §3.1: length of the total message
        if usize::try_from(self.length) != Ok(datagram) {
            return malformed(LENGTH_AT, Problem::DatagramLength { header: self.length, datagram });
        }
        Ok(())
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.octets(&self.initiator_spi.to_octets());
        writer.octets(&self.responder_spi.to_octets());
        writer.u8(self.next_payload.0);
        writer.u8(self.version.major << 4 | self.version.minor & 0x0f);
        writer.u8(self.exchange.0);
        writer.u8(self.flags.to_octet());
        writer.octets(&self.message_id.0.to_be_bytes());
        writer.octets(&self.length.to_be_bytes());
    }

    /// Fills the length field of a header written at the start of `writer`.
    pub(crate) fn patch_length(writer: &mut Writer, length: u32) {
        writer.patch(LENGTH_AT, length.to_be_bytes());
    }
}
