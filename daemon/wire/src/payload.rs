//! Payloads and the chain that they form (RFC 7296 §3.2).
//!
//! Each payload is read on its own: whether the right ones are there, once each, is decided by the exchange.

mod chain;
mod configuration;
mod contents;
mod encrypted;
mod notify;
mod plain;
mod sa;
mod ts;

use std::borrow::Cow;

pub use chain::Payloads;
pub use configuration::{Configuration, ConfigurationAttribute, MAX_CONFIGURATION_ATTRIBUTES};
pub use contents::Contents;
pub use encrypted::{Encrypted, EncryptedFragment, MAX_FRAGMENTS};
pub(crate) use encrypted::{FRAGMENT_NUMBERS_LEN, write_fragment_numbers};
pub use notify::{Delete, Notify};
pub use plain::{
    AUTHORITY_HASH_LEN, Authentication, Certificate, CertificateRequest, Eap, Identification, KeyExchange, NONCE_LEN,
    Nonce, UnknownPayload, VendorId,
};
pub use sa::{Attribute, AttributeValue, MAX_ATTRIBUTES, MAX_PROPOSALS, Proposal, SecurityAssociation, Transform};
pub use ts::{AddressRange, OtherSelector, SelectorRange, TrafficSelector, TrafficSelectors};

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::PayloadType;
use crate::writer::Writer;

/// Payloads read from one message. The largest real ones, with certificate chains and an address list, have about 50.
pub const MAX_PAYLOADS: usize = 128;

/// Octets of the generic payload header.
pub const PAYLOAD_HEADER_LEN: usize = 4;

const CRITICAL: u8 = 0x80;

/// One payload. Octet strings are borrowed from the datagram when parsed, and borrowed or owned when built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// SA.
    Sa(SecurityAssociation),
    /// KEi or KEr.
    KeyExchange(KeyExchange<'a>),
    /// IDi.
    IdInitiator(Identification<'a>),
    /// IDr.
    IdResponder(Identification<'a>),
    /// CERT.
    Certificate(Certificate<'a>),
    /// CERTREQ.
    CertificateRequest(CertificateRequest<'a>),
    /// AUTH.
    Auth(Authentication<'a>),
    /// Ni or Nr.
    Nonce(Nonce<'a>),
    /// N.
    Notify(Notify<'a>),
    /// D.
    Delete(Delete<'a>),
    /// V.
    VendorId(VendorId<'a>),
    /// TSi.
    TsInitiator(TrafficSelectors),
    /// TSr.
    TsResponder(TrafficSelectors),
    /// SK, always the last.
    Encrypted(Encrypted<'a>),
    /// SKF, always the last.
    EncryptedFragment(EncryptedFragment<'a>),
    /// CP.
    Configuration(Configuration<'a>),
    /// EAP.
    Eap(Eap<'a>),
    /// A type that this codec does not know.
    Unknown(UnknownPayload<'a>),
}

impl Payload<'_> {
    /// The payload type.
    #[must_use]
    pub fn kind(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::KeyExchange(_) => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::ID_INITIATOR,
            Self::IdResponder(_) => PayloadType::ID_RESPONDER,
            Self::Certificate(_) => PayloadType::CERT,
            Self::CertificateRequest(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TsInitiator(_) => PayloadType::TS_INITIATOR,
            Self::TsResponder(_) => PayloadType::TS_RESPONDER,
            Self::Encrypted(_) => PayloadType::SK,
            Self::EncryptedFragment(_) => PayloadType::SKF,
            Self::Configuration(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown(unknown) => unknown.kind,
        }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Payload<'static> {
        match self {
            Self::Sa(payload) => Payload::Sa(payload),
            Self::KeyExchange(payload) => Payload::KeyExchange(payload.into_owned()),
            Self::IdInitiator(payload) => Payload::IdInitiator(payload.into_owned()),
            Self::IdResponder(payload) => Payload::IdResponder(payload.into_owned()),
            Self::Certificate(payload) => Payload::Certificate(payload.into_owned()),
            Self::CertificateRequest(payload) => Payload::CertificateRequest(payload.into_owned()),
            Self::Auth(payload) => Payload::Auth(payload.into_owned()),
            Self::Nonce(payload) => Payload::Nonce(payload.into_owned()),
            Self::Notify(payload) => Payload::Notify(payload.into_owned()),
            Self::Delete(payload) => Payload::Delete(payload.into_owned()),
            Self::VendorId(payload) => Payload::VendorId(payload.into_owned()),
            Self::TsInitiator(payload) => Payload::TsInitiator(payload),
            Self::TsResponder(payload) => Payload::TsResponder(payload),
            Self::Encrypted(payload) => Payload::Encrypted(payload.into_owned()),
            Self::EncryptedFragment(payload) => Payload::EncryptedFragment(payload.into_owned()),
            Self::Configuration(payload) => Payload::Configuration(payload.into_owned()),
            Self::Eap(payload) => Payload::Eap(payload.into_owned()),
            Self::Unknown(payload) => Payload::Unknown(payload.into_owned()),
        }
    }

    /// What the "next payload" field says when this payload ends the chain.
    fn next_after_last(&self) -> PayloadType {
        match self {
            Self::Encrypted(payload) => payload.first,
            Self::EncryptedFragment(payload) => payload.first,
            Self::Sa(_)
            | Self::KeyExchange(_)
            | Self::IdInitiator(_)
            | Self::IdResponder(_)
            | Self::Certificate(_)
            | Self::CertificateRequest(_)
            | Self::Auth(_)
            | Self::Nonce(_)
            | Self::Notify(_)
            | Self::Delete(_)
            | Self::VendorId(_)
            | Self::TsInitiator(_)
            | Self::TsResponder(_)
            | Self::Configuration(_)
            | Self::Eap(_)
            | Self::Unknown(_) => PayloadType::NO_NEXT_PAYLOAD,
        }
    }

    fn is_encrypted(&self) -> bool {
        matches!(self, Self::Encrypted(_) | Self::EncryptedFragment(_))
    }

    fn encode(&self, next: PayloadType, writer: &mut Writer) -> Result<(), EncodeError> {
        let place = Place::Payload(self.kind());
        let start = writer.len();
        writer.u8(next.0);
        //= RFC 7296 §2.5: the critical bit is clear on the payload types of this protocol version
        let critical = matches!(self, Self::Unknown(unknown) if unknown.critical);
        writer.u8(if critical { CRITICAL } else { 0 });
        let length = writer.length(start, place);
        self.encode_body(place, writer)?;
        writer.close(length)
    }

    fn encode_body(&self, place: Place, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Sa(payload) => payload.encode(writer)?,
            Self::KeyExchange(payload) => payload.encode(writer),
            Self::IdInitiator(payload) | Self::IdResponder(payload) => payload.encode(place, writer)?,
            Self::Certificate(payload) => payload.encode(writer),
            Self::CertificateRequest(payload) => payload.encode(writer),
            Self::Auth(payload) => payload.encode(writer),
            Self::Nonce(payload) => payload.encode(writer)?,
            Self::Notify(payload) => payload.encode(writer)?,
            Self::Delete(payload) => payload.encode(writer)?,
            Self::VendorId(payload) => writer.octets(&payload.data),
            Self::TsInitiator(payload) | Self::TsResponder(payload) => payload.encode(writer)?,
            Self::Encrypted(payload) => writer.octets(&payload.body),
            Self::EncryptedFragment(payload) => payload.encode(writer)?,
            Self::Configuration(payload) => payload.encode(writer)?,
            Self::Eap(payload) => payload.encode(writer)?,
            Self::Unknown(payload) => {
                if is_known(payload.kind) {
                    return Err(EncodeError::KnownPayload(payload.kind));
                }
                writer.octets(&payload.body);
            }
        }
        Ok(())
    }
}

//= RFC 7296 §3.2: next payload, critical bit, length with its header
/// Reads the chain inside an SK payload, or inside the joined fragments of one. `base_offset` is added to the offsets of errors.
///
/// # Errors
/// [`Malformed`] at the first payload that breaks a rule, when octets are left behind the last payload, and when an SK or SKF
/// payload stands in the chain.
pub fn parse_chain(first: PayloadType, octets: &[u8], base_offset: usize) -> Result<Payloads<'_>, Malformed> {
    let payloads = parse_payloads(first, octets, base_offset)?;
    match payloads.as_slice().last() {
        //= RFC 7296 §3.14: encrypted payloads are not nested
        Some(last) if last.is_encrypted() => {
            let problem = Problem::NestedEncryption(last.kind());
            Err(Malformed { place: Place::Chain, offset: base_offset, problem })
        }
        Some(_) | None => Ok(payloads),
    }
}

/// Reads a chain that an SK or SKF payload may end.
pub(crate) fn parse_payloads(first: PayloadType, octets: &[u8], base: usize) -> Result<Payloads<'_>, Malformed> {
    let mut cursor = Cursor::new(octets, base, Place::Chain);
    let mut payloads = Vec::new();
    let mut kind = first;
    while kind != PayloadType::NO_NEXT_PAYLOAD {
        if payloads.len() == MAX_PAYLOADS {
            return Err(cursor.malformed(Problem::TooMany { what: "payloads", limit: MAX_PAYLOADS }));
        }
        cursor.enter(Place::Payload(kind));
        let next = PayloadType(cursor.u8()?);
        let critical = cursor.u8()? & CRITICAL != 0;
        let claimed = cursor.u16()?;
        let length = cursor.after_fixed(claimed, PAYLOAD_HEADER_LEN)?;
        let body = cursor.sub(length, Place::Payload(kind))?;
        let payload = parse_body(kind, critical, next, body)?;
        //= RFC 7296 §3.14: the encrypted payload is the last, its "next payload" names the first inside
        kind = if payload.is_encrypted() { PayloadType::NO_NEXT_PAYLOAD } else { next };
        payloads.push(payload);
    }
    cursor.enter(Place::Chain);
    cursor.finish()?;
    Ok(Payloads::new(payloads))
}

fn parse_body(
    kind: PayloadType,
    critical: bool,
    next: PayloadType,
    mut body: Cursor<'_>,
) -> Result<Payload<'_>, Malformed> {
    Ok(match kind {
        PayloadType::SA => Payload::Sa(SecurityAssociation::parse(body)?),
        PayloadType::KE => Payload::KeyExchange(KeyExchange::parse(body)?),
        PayloadType::ID_INITIATOR => Payload::IdInitiator(Identification::parse(body)?),
        PayloadType::ID_RESPONDER => Payload::IdResponder(Identification::parse(body)?),
        PayloadType::CERT => Payload::Certificate(Certificate::parse(body)?),
        PayloadType::CERTREQ => Payload::CertificateRequest(CertificateRequest::parse(body)?),
        PayloadType::AUTH => Payload::Auth(Authentication::parse(body)?),
        PayloadType::NONCE => Payload::Nonce(Nonce::parse(body)?),
        PayloadType::NOTIFY => Payload::Notify(Notify::parse(body)?),
        PayloadType::DELETE => Payload::Delete(Delete::parse(body)?),
        PayloadType::VENDOR_ID => Payload::VendorId(VendorId { data: body.rest().into() }),
        PayloadType::TS_INITIATOR => Payload::TsInitiator(TrafficSelectors::parse(body)?),
        PayloadType::TS_RESPONDER => Payload::TsResponder(TrafficSelectors::parse(body)?),
        PayloadType::SK => Payload::Encrypted(Encrypted { first: next, body: body.rest().into() }),
        PayloadType::SKF => Payload::EncryptedFragment(EncryptedFragment::parse(body, next)?),
        PayloadType::CP => Payload::Configuration(Configuration::parse(body)?),
        PayloadType::EAP => Payload::Eap(Eap::parse(body)?),
        _ => Payload::Unknown(UnknownPayload { kind, critical, body: Cow::Borrowed(body.rest()) }),
    })
}

/// The types that [`parse_body`] reads as something else than [`Payload::Unknown`], and "no next payload".
fn is_known(kind: PayloadType) -> bool {
    kind == PayloadType::NO_NEXT_PAYLOAD
        || kind == PayloadType::SKF
        || (PayloadType::SA..=PayloadType::EAP).contains(&kind)
}

/// Appends the payloads; returns the type of the first.
pub(crate) fn encode_payloads(payloads: &[Payload<'_>], writer: &mut Writer) -> Result<PayloadType, EncodeError> {
    if payloads.len() > MAX_PAYLOADS {
        return Err(EncodeError::TooMany { what: "payloads", count: payloads.len(), limit: MAX_PAYLOADS });
    }
    let mut rest = payloads.iter().peekable();
    while let Some(payload) = rest.next() {
        let next = match rest.peek() {
            Some(_) if payload.is_encrypted() => return Err(EncodeError::NotLast(payload.kind())),
            Some(following) => following.kind(),
            None => payload.next_after_last(),
        };
        payload.encode(next, writer)?;
    }
    Ok(payloads.first().map_or(PayloadType::NO_NEXT_PAYLOAD, Payload::kind))
}
