//! Notify and Delete payloads (RFC 7296 §3.10 and §3.11).

use std::borrow::Cow;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::{KeyExchangeId, NotifyType, PayloadType, ProtocolId};
use crate::writer::{Writer, count_u8, illegal};

/// A Notify payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify<'a> {
    /// Protocol of the SPI; means nothing when there is no SPI.
    pub protocol: ProtocolId,
    /// SPI of the SA that the notification is about; empty when it is about none, or about this IKE SA.
    pub spi: Cow<'a, [u8]>,
    /// What it says.
    pub kind: NotifyType,
    /// Data, in a form that depends on `kind`.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Notify<'a> {
    /// A notification about no SA in particular.
    #[must_use]
    pub fn new(kind: NotifyType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Cow::Borrowed(&[]), kind, data: data.into() }
    }

    /// A notification without data about no SA in particular.
    #[must_use]
    pub fn plain(kind: NotifyType) -> Self {
        Self::new(kind, &[][..])
    }

    /// A notification without data about one AH or ESP SA, such as REKEY_SA.
    #[must_use]
    pub fn about(kind: NotifyType, protocol: ProtocolId, spi: u32) -> Self {
        Self { protocol, spi: Cow::Owned(spi.to_be_bytes().to_vec()), ..Self::plain(kind) }
    }

    /// INVALID_KE_PAYLOAD, naming the method that would be accepted.
    #[must_use]
    pub fn invalid_ke_payload(wanted: KeyExchangeId) -> Self {
        Self::new(NotifyType::INVALID_KE_PAYLOAD, wanted.0.to_be_bytes().to_vec())
    }

    /// UNSUPPORTED_CRITICAL_PAYLOAD, naming the payload type.
    #[must_use]
    pub fn unsupported_critical_payload(kind: PayloadType) -> Self {
        Self::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind.0])
    }

    /// The SPI, when it has the 4 octets of AH and ESP.
    #[must_use]
    pub fn spi_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.spi.as_ref().try_into().ok()?))
    }

    /// The data as a number of two octets, as in INVALID_KE_PAYLOAD.
    #[must_use]
    pub fn data_u16(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.data.as_ref().try_into().ok()?))
    }

    /// The data as a number of four octets, as in SET_WINDOW_SIZE and AUTH_LIFETIME.
    #[must_use]
    pub fn data_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.data.as_ref().try_into().ok()?))
    }

    /// The same notification with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Notify<'static> {
        Notify {
            protocol: self.protocol,
            spi: Cow::Owned(self.spi.into_owned()),
            kind: self.kind,
            data: Cow::Owned(self.data.into_owned()),
        }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(cursor.u8()?);
        let spi_size = usize::from(cursor.u8()?);
        let kind = NotifyType(cursor.u16()?);
        check_notify_spi(protocol, spi_size).map_err(|problem| cursor.malformed(problem))?;
        let spi = cursor.take(spi_size)?.into();
        Ok(Self { protocol, spi, kind, data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        check_notify_spi(self.protocol, self.spi.len()).map_err(illegal(Place::Payload(PayloadType::NOTIFY)))?;
        writer.u8(self.protocol.0);
        writer.u8(count_u8("octets of SPI", self.spi.len())?);
        writer.u16(self.kind.0);
        writer.octets(&self.spi);
        writer.octets(&self.data);
        Ok(())
    }
}

//= RFC 7296 §3.10: an SPI only with the protocol that it belongs to
/// No SPI fits everything. An SPI of an IKE SA (8 octets) should not be sent but is harmless. Without a protocol an SPI of any
/// size means nothing, which is no reason to lose an IKE SA over a notification that may be ignored anyway.
fn check_notify_spi(protocol: ProtocolId, octets: usize) -> Result<(), Problem> {
    let fits = match protocol {
        _ if octets == 0 => true,
        ProtocolId::IKE => octets == 8,
        ProtocolId::AH | ProtocolId::ESP => octets == 4,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Problem::SpiSize { protocol, octets }) }
}

/// A Delete payload: this IKE SA, or SAs of one protocol by the sender's inbound SPIs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete<'a> {
    /// IKE, AH or ESP.
    pub protocol: ProtocolId,
    /// Octets of each SPI: 0 for IKE, 4 for AH and ESP.
    pub spi_size: u8,
    /// The SPIs, one behind the other.
    pub octets: Cow<'a, [u8]>,
}

impl<'a> Delete<'a> {
    /// Deletion of the IKE SA that carries the message.
    #[must_use]
    pub fn ike_sa() -> Self {
        Self { protocol: ProtocolId::IKE, spi_size: 0, octets: Cow::Borrowed(&[]) }
    }

    /// Deletion of AH or ESP SAs.
    #[must_use]
    pub fn child_sas(protocol: ProtocolId, spis: &[u32]) -> Self {
        let octets = spis.iter().flat_map(|spi| spi.to_be_bytes()).collect();
        Self { protocol, spi_size: 4, octets: Cow::Owned(octets) }
    }

    /// Whether the IKE SA itself is deleted.
    #[must_use]
    pub fn is_ike_sa(&self) -> bool {
        self.protocol == ProtocolId::IKE
    }

    /// The SPIs of AH and ESP SAs; nothing for other sizes.
    pub fn spis(&self) -> impl Iterator<Item = u32> {
        let octets = if self.spi_size == 4 { self.octets.as_ref() } else { &[] };
        octets.as_chunks().0.iter().map(|spi| u32::from_be_bytes(*spi))
    }

    /// The same deletion with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Delete<'static> {
        Delete { octets: Cow::Owned(self.octets.into_owned()), ..self }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(cursor.u8()?);
        let spi_size = cursor.u8()?;
        let count = cursor.u16()?;
        let check = check_delete(protocol, spi_size, count, cursor.left());
        check.map_err(|problem| cursor.malformed(problem))?;
        Ok(Self { protocol, spi_size, octets: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let place = Place::Payload(PayloadType::DELETE);
        let octets = self.octets.len();
        let count = octets.checked_div(usize::from(self.spi_size)).unwrap_or(0);
        let limit = usize::from(u16::MAX);
        let count = u16::try_from(count).map_err(|_| EncodeError::TooMany { what: "SPIs", count, limit })?;
        check_delete(self.protocol, self.spi_size, count, octets).map_err(illegal(place))?;
        writer.u8(self.protocol.0);
        writer.u8(self.spi_size);
        writer.u16(count);
        writer.octets(&self.octets);
        Ok(())
    }
}

//= RFC 7296 §3.11: the SPI size is zero for IKE, four for AH and ESP; the SPIs fill the payload
fn check_delete(protocol: ProtocolId, size: u8, count: u16, left: usize) -> Result<(), Problem> {
    let size_fits = match protocol {
        ProtocolId::IKE => size == 0,
        ProtocolId::AH | ProtocolId::ESP => size == 4,
        _ => true,
    };
    if !size_fits {
        return Err(Problem::SpiSize { protocol, octets: usize::from(size) });
    }
    let product = usize::from(count).checked_mul(usize::from(size));
    // SPIs of no octets cannot be counted by what follows, so there must be none.
    if product != Some(left) || (size == 0 && count != 0) {
        return Err(Problem::SpiCount { count, size, left });
    }
    Ok(())
}
