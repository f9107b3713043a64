//! Payloads that are a few fixed fields and octets: KE, IDi and IDr, CERT, CERTREQ, AUTH, Ni and Nr, V, EAP, and those that
//! nobody here knows (RFC 7296 §3.4 to §3.9, §3.12, §3.16).

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::{AuthMethod, CertEncoding, IdType, KeyExchangeId, PayloadType};
use crate::writer::{Writer, illegal};

/// Legal lengths of a nonce in octets (RFC 7296 §3.9).
pub const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// Octets of a hash of a CA's public key in a CERTREQ payload (SHA-1, RFC 7296 §3.7).
pub const AUTHORITY_HASH_LEN: usize = 20;

//= RFC 7296 §3.4: method and value
/// KE payload: a public value. Its length is checked by the method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyExchange<'a> {
    /// The key exchange method.
    pub method: KeyExchangeId,
    /// The public value.
    pub data: Cow<'a, [u8]>,
}

impl<'a> KeyExchange<'a> {
    /// A payload with this public value.
    #[must_use]
    pub fn new(method: KeyExchangeId, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { method, data: data.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> KeyExchange<'static> {
        KeyExchange { method: self.method, data: Cow::Owned(self.data.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let method = KeyExchangeId(cursor.u16()?);
        cursor.take(2)?;
        Ok(Self { method, data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u16(self.method.0);
        writer.zeros(2);
        writer.octets(&self.data);
    }
}

/// IDi or IDr payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identification<'a> {
    /// How to read `data`.
    pub kind: IdType,
    /// Sent as zero and ignored, but AUTH covers whatever the peer has sent here.
    pub reserved: [u8; 3],
    /// The identity. Not trusted: names may hold control characters.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Identification<'a> {
    /// A payload with this identity.
    #[must_use]
    pub fn new(kind: IdType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { kind, reserved: [0; 3], data: data.into() }
    }

    /// An address as identity.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::new(IdType::ID_IPV4_ADDR, address.octets().to_vec()),
            IpAddr::V6(address) => Self::new(IdType::ID_IPV6_ADDR, address.octets().to_vec()),
        }
    }

    /// The body of the payload, reserved octets as received: what AUTH covers (`RestOfInitIDPayload`, RFC 7296 §2.15).
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_octets()
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Identification<'static> {
        Identification { data: Cow::Owned(self.data.into_owned()), ..self }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let kind = IdType(cursor.u8()?);
        let reserved = cursor.array()?;
        let check = check_identity(kind, cursor.left());
        check.map_err(|problem| cursor.malformed(problem))?;
        Ok(Self { kind, reserved, data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, place: Place, writer: &mut Writer) -> Result<(), EncodeError> {
        check_identity(self.kind, self.data.len()).map_err(illegal(place))?;
        self.write(writer);
        Ok(())
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(self.kind.0);
        writer.octets(&self.reserved);
        writer.octets(&self.data);
    }
}

//= RFC 7296 §3.5: type, three reserved octets, data of the form that the type asks for
fn check_identity(kind: IdType, octets: usize) -> Result<(), Problem> {
    let expected = match kind {
        IdType::ID_IPV4_ADDR => 4,
        IdType::ID_IPV6_ADDR => 16,
        _ => return Ok(()),
    };
    if octets == expected { Ok(()) } else { Err(Problem::AddressLength { octets, expected }) }
}

/// CERT payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate<'a> {
    /// How to read `data`.
    pub encoding: CertEncoding,
    /// The certificate.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Certificate<'a> {
    /// A payload with this certificate.
    #[must_use]
    pub fn new(encoding: CertEncoding, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { encoding, data: data.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Certificate<'static> {
        Certificate { encoding: self.encoding, data: Cow::Owned(self.data.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        Ok(Self { encoding: CertEncoding(cursor.u8()?), data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.octets(&self.data);
    }
}

/// CERTREQ payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRequest<'a> {
    /// Encoding of the certificates that are wanted.
    pub encoding: CertEncoding,
    /// The authorities: for X.509 SHA-1 hashes of their public keys, one behind the other.
    pub authorities: Cow<'a, [u8]>,
}

impl<'a> CertificateRequest<'a> {
    /// A payload that asks for certificates of these authorities.
    #[must_use]
    pub fn new(encoding: CertEncoding, authorities: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { encoding, authorities: authorities.into() }
    }

    /// The hashes of the authorities; a remainder shorter than a hash is left out.
    pub fn hashes(&self) -> impl Iterator<Item = &[u8; AUTHORITY_HASH_LEN]> {
        self.authorities.as_chunks().0.iter()
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> CertificateRequest<'static> {
        CertificateRequest { encoding: self.encoding, authorities: Cow::Owned(self.authorities.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        Ok(Self { encoding: CertEncoding(cursor.u8()?), authorities: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.octets(&self.authorities);
    }
}

//= RFC 7296 §3.8: method and data
/// AUTH payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authentication<'a> {
    /// How `data` was computed.
    pub method: AuthMethod,
    /// Signature or MAC.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Authentication<'a> {
    /// A payload with this signature or MAC.
    #[must_use]
    pub fn new(method: AuthMethod, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { method, data: data.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Authentication<'static> {
        Authentication { method: self.method, data: Cow::Owned(self.data.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let method = AuthMethod(cursor.u8()?);
        cursor.take(3)?;
        Ok(Self { method, data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(self.method.0);
        writer.zeros(3);
        writer.octets(&self.data);
    }
}

/// Ni or Nr payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nonce<'a> {
    /// 16 to 256 octets.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Nonce<'a> {
    /// A payload with this nonce.
    #[must_use]
    pub fn new(data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { data: data.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Nonce<'static> {
        Nonce { data: Cow::Owned(self.data.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let check = check_nonce(cursor.left());
        check.map_err(|problem| cursor.malformed(problem))?;
        Ok(Self { data: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        check_nonce(self.data.len()).map_err(illegal(Place::Payload(PayloadType::NONCE)))?;
        writer.octets(&self.data);
        Ok(())
    }
}

//= RFC 7296 §3.9: the size of the nonce data must be between 16 and 256 octets
fn check_nonce(octets: usize) -> Result<(), Problem> {
    if NONCE_LEN.contains(&octets) { Ok(()) } else { Err(Problem::NonceLength { octets }) }
}

//= RFC 7296 §3.12: any octets
/// Vendor ID payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorId<'a> {
    /// Octets that name an implementation or an extension.
    pub data: Cow<'a, [u8]>,
}

impl<'a> VendorId<'a> {
    /// A payload with this vendor ID.
    #[must_use]
    pub fn new(data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { data: data.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> VendorId<'static> {
        VendorId { data: Cow::Owned(self.data.into_owned()) }
    }
}

/// EAP payload: one EAP message (RFC 3748), of which only the length field is checked. It may hold a password, so its `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Eap<'a> {
    /// The message: code, identifier, length of two octets, and what they count.
    pub message: Cow<'a, [u8]>,
}

impl<'a> Eap<'a> {
    /// A payload with this EAP message.
    #[must_use]
    pub fn new(message: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { message: message.into() }
    }

    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Eap<'static> {
        Eap { message: Cow::Owned(self.message.into_owned()) }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let start = cursor;
        check_eap(&mut cursor)?;
        let mut message = start;
        Ok(Self { message: message.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let place = Place::Payload(PayloadType::EAP);
        let mut cursor = Cursor::new(&self.message, 0, place);
        check_eap(&mut cursor).map_err(|malformed| illegal(place)(malformed.problem))?;
        writer.octets(&self.message);
        Ok(())
    }
}

//= RFC 7296 §3.16: the EAP length field counts the whole EAP message
fn check_eap(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    let expected = cursor.left();
    cursor.take(2)?;
    let claimed = usize::from(cursor.u16()?);
    if claimed == expected { Ok(()) } else { Err(cursor.malformed(Problem::FixedLength { claimed, expected })) }
}

impl fmt::Debug for Eap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eap").field("message", &"[redacted]").finish()
    }
}

/// A payload of a type that this codec does not know. If it is critical, the message must be answered with
/// UNSUPPORTED_CRITICAL_PAYLOAD; otherwise the payload is skipped (RFC 7296 §2.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPayload<'a> {
    /// Its type.
    pub kind: PayloadType,
    /// The critical bit.
    pub critical: bool,
    /// Everything behind the generic payload header.
    pub body: Cow<'a, [u8]>,
}

impl UnknownPayload<'_> {
    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> UnknownPayload<'static> {
        UnknownPayload { kind: self.kind, critical: self.critical, body: Cow::Owned(self.body.into_owned()) }
    }
}
