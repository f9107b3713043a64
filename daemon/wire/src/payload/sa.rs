//! SA payload: proposals, transforms and their attributes (RFC 7296 §3.3).
//!
//! Keeps every id and attribute that a peer sends. Choosing a proposal, and refusing transforms with attributes nobody knows
//! (§3.3.6), is left to negotiation.

use std::fmt;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::{
    AttributeType, EncryptionId, EsnId, IkeSpi, IntegrityId, KeyExchangeId, PayloadType, PrfId, ProtocolId,
    TransformType,
};
use crate::writer::{Writer, count_u8, illegal};

/// Proposals read from one SA payload. Real peers send fewer than 20; proposal numbers would allow 255.
pub const MAX_PROPOSALS: usize = 64;
/// Attributes read from one transform. One is defined (the key length).
pub const MAX_ATTRIBUTES: usize = 8;

const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
const PROPOSAL_FIXED: usize = 8;
const TRANSFORM_FIXED: usize = 8;
const SHORT_FORM: u16 = 0x8000;

/// An SA payload: the proposals of the initiator, or the one that the responder chose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecurityAssociation {
    /// In order of preference.
    pub proposals: Vec<Proposal>,
}

/// A set of algorithms for one protocol. The transforms of one type are alternatives; one of each type present is chosen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    /// Position in the initiator's list, from 1; the responder repeats the number it chose.
    pub number: u8,
    /// What the SA is for.
    pub protocol: ProtocolId,
    /// SPI of the sender's inbound SA: empty for the first IKE SA, 8 octets when rekeying one, 4 octets for AH and ESP.
    pub spi: Vec<u8>,
    /// The alternatives, in order of preference within each type.
    pub transforms: Vec<Transform>,
}

/// One algorithm.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    /// What the algorithm is for.
    pub kind: TransformType,
    /// Its number in the registry that `kind` names.
    pub id: u16,
    /// Key length in bits, for algorithms that take several.
    pub key_length: Option<u16>,
    /// Every other attribute. A transform that has any is not understood and must not be chosen.
    pub attributes: Vec<Attribute>,
}

/// An attribute that this codec does not interpret.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attribute {
    /// Number without the format bit.
    pub kind: AttributeType,
    /// Value in the form in which it came.
    pub value: AttributeValue,
}

/// Value of an [`Attribute`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum AttributeValue {
    /// Type and value, two octets.
    Short(u16),
    /// Type, length and value.
    Long(Vec<u8>),
}

impl SecurityAssociation {
    /// A payload with these proposals.
    #[must_use]
    pub fn new(proposals: Vec<Proposal>) -> Self {
        Self { proposals }
    }

    //= RFC 7296 §3.3: proposals are numbered 1, 2, 3 ...
    /// Whether the proposals are numbered 1, 2, 3 ... as the initiator's must be.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.proposals.iter().map(|proposal| proposal.number).eq((1..=u8::MAX).take(self.proposals.len()))
    }

    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let mut proposals = Vec::new();
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(cursor.malformed(Problem::TooMany { what: "proposals", limit: MAX_PROPOSALS }));
            }
            let more = read_more(&mut cursor, Place::Proposal, MORE_PROPOSALS)?;
            proposals.push(Proposal::parse(&mut cursor)?);
            cursor.enter(Place::Payload(PayloadType::SA));
            if !more {
                break;
            }
        }
        cursor.finish()?;
        Ok(Self { proposals })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let count = self.proposals.len();
        if count > MAX_PROPOSALS {
            return Err(EncodeError::TooMany { what: "proposals", count, limit: MAX_PROPOSALS });
        }
        let Some((last, others)) = self.proposals.split_last() else {
            return Err(illegal(Place::Payload(PayloadType::SA))(Problem::Truncated {
                needed: PROPOSAL_FIXED,
                left: 0,
            }));
        };
        for proposal in others {
            proposal.encode(writer, MORE_PROPOSALS)?;
        }
        last.encode(writer, LAST)
    }
}

impl From<Proposal> for SecurityAssociation {
    fn from(proposal: Proposal) -> Self {
        Self { proposals: vec![proposal] }
    }
}

impl Proposal {
    /// A proposal without SPI, as in IKE_SA_INIT.
    #[must_use]
    pub fn new(number: u8, protocol: ProtocolId, transforms: Vec<Transform>) -> Self {
        Self { number, protocol, spi: Vec::new(), transforms }
    }

    /// The same proposal with the SPI of an AH or ESP SA.
    #[must_use]
    pub fn with_spi(mut self, spi: u32) -> Self {
        self.spi = spi.to_be_bytes().to_vec();
        self
    }

    /// The same proposal with the SPI of the IKE SA that replaces the current one.
    #[must_use]
    pub fn with_ike_spi(mut self, spi: IkeSpi) -> Self {
        self.spi = spi.to_octets().to_vec();
        self
    }

    /// The SPI, when it has the 4 octets of AH and ESP.
    #[must_use]
    pub fn spi_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.spi.as_slice().try_into().ok()?))
    }

    /// The SPI, when it has the 8 octets of an IKE SA.
    #[must_use]
    pub fn ike_spi(&self) -> Option<IkeSpi> {
        Some(IkeSpi::from_octets(self.spi.as_slice().try_into().ok()?))
    }

    /// The alternatives of one type, in order of preference.
    pub fn transforms_of(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |transform| transform.kind == kind)
    }

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        // The field before has told whether another proposal follows; the length counts it too.
        let claimed = cursor.u16()?;
        let body = cursor.after_fixed(claimed, PROPOSAL_FIXED)?;
        let number = cursor.u8()?;
        let protocol = ProtocolId(cursor.u8()?);
        let spi_size = usize::from(cursor.u8()?);
        let count = cursor.u8()?;
        let mut body = cursor.sub(body, Place::Proposal)?;
        check_proposal_spi(protocol, spi_size).map_err(|problem| body.malformed(problem))?;
        let spi = body.take(spi_size)?.to_vec();
        let mut transforms = Vec::new();
        for left in (0..count).rev() {
            let expected = if left == 0 { LAST } else { MORE_TRANSFORMS };
            transforms.push(Transform::parse(&mut body, expected)?);
        }
        body.enter(Place::Proposal);
        body.finish()?;
        Ok(Self { number, protocol, spi, transforms })
    }

    fn encode(&self, writer: &mut Writer, follows: u8) -> Result<(), EncodeError> {
        check_proposal_spi(self.protocol, self.spi.len()).map_err(illegal(Place::Proposal))?;
        let start = writer.len();
        writer.u8(follows);
        writer.u8(0);
        let length = writer.length(start, Place::Proposal);
        writer.u8(self.number);
        writer.u8(self.protocol.0);
        writer.u8(count_u8("octets of SPI", self.spi.len())?);
        writer.u8(count_u8("transforms", self.transforms.len())?);
        writer.octets(&self.spi);
        if let Some((last, others)) = self.transforms.split_last() {
            for transform in others {
                transform.encode(writer, MORE_TRANSFORMS)?;
            }
            last.encode(writer, LAST)?;
        }
        writer.close(length)
    }
}

/// Prints as `ESP:AES_GCM_16_256/CURVE_25519/NO_EXT_SEQ`.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.protocol)?;
        for (index, transform) in self.transforms.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            fmt::Display::fmt(transform, f)?;
        }
        Ok(())
    }
}

impl Transform {
    /// An algorithm without attributes.
    #[must_use]
    pub fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, key_length: None, attributes: Vec::new() }
    }

    /// An encryption algorithm; `key_length` in bits for those that take several.
    #[must_use]
    pub fn encryption(id: EncryptionId, key_length: Option<u16>) -> Self {
        Self { key_length, ..Self::new(TransformType::ENCR, id.0) }
    }

    /// A pseudo-random function.
    #[must_use]
    pub fn prf(id: PrfId) -> Self {
        Self::new(TransformType::PRF, id.0)
    }

    /// An integrity algorithm.
    #[must_use]
    pub fn integrity(id: IntegrityId) -> Self {
        Self::new(TransformType::INTEG, id.0)
    }

    /// A key exchange method.
    #[must_use]
    pub fn key_exchange(id: KeyExchangeId) -> Self {
        Self::new(TransformType::KE, id.0)
    }

    /// Whether sequence numbers are extended.
    #[must_use]
    pub fn esn(id: EsnId) -> Self {
        Self::new(TransformType::ESN, id.0)
    }

    /// Whether every attribute was understood; if not, the transform must not be chosen (RFC 7296 §3.3.6).
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.attributes.is_empty()
    }

    fn parse(cursor: &mut Cursor<'_>, expected: u8) -> Result<Self, Malformed> {
        cursor.enter(Place::Transform);
        let found = cursor.u8()?;
        if found != expected {
            return Err(cursor.malformed(Problem::LastSubstructure { found, expected }));
        }
        cursor.u8()?;
        let claimed = cursor.u16()?;
        let attributes = cursor.after_fixed(claimed, TRANSFORM_FIXED)?;
        let kind = TransformType(cursor.u8()?);
        cursor.u8()?;
        let mut transform = Self::new(kind, cursor.u16()?);
        transform.read_attributes(cursor.sub(attributes, Place::Transform)?)?;
        Ok(transform)
    }

    //= RFC 7296 §3.3.2: transform type, ID and attributes
    fn read_attributes(&mut self, mut cursor: Cursor<'_>) -> Result<(), Malformed> {
        while !cursor.is_empty() {
            let attribute = Attribute::parse(&mut cursor)?;
            match attribute {
                // A second key length is kept beside the first, which makes the transform one that is not understood.
                Attribute { kind: AttributeType::KEY_LENGTH, value: AttributeValue::Short(bits) }
                    if self.key_length.is_none() =>
                {
                    self.key_length = Some(bits);
                }
                other if self.attributes.len() < MAX_ATTRIBUTES => self.attributes.push(other),
                _ => return Err(cursor.malformed(Problem::TooMany { what: "attributes", limit: MAX_ATTRIBUTES })),
            }
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer, follows: u8) -> Result<(), EncodeError> {
        self.check()?;
        let start = writer.len();
        writer.u8(follows);
        writer.u8(0);
        let length = writer.length(start, Place::Transform);
        writer.u8(self.kind.0);
        writer.u8(0);
        writer.u16(self.id);
        if let Some(bits) = self.key_length {
            //= RFC 7296 §3.3.5: the key length attribute has the short form
            writer.u16(SHORT_FORM | AttributeType::KEY_LENGTH.0);
            writer.u16(bits);
        }
        for attribute in &self.attributes {
            attribute.encode(writer)?;
        }
        writer.close(length)
    }

    fn check(&self) -> Result<(), EncodeError> {
        let count = self.attributes.len();
        if count > MAX_ATTRIBUTES {
            return Err(EncodeError::TooMany { what: "attributes", count, limit: MAX_ATTRIBUTES });
        }
        let like_key_length = |attribute: &Attribute| {
            attribute.kind == AttributeType::KEY_LENGTH && matches!(attribute.value, AttributeValue::Short(_))
        };
        let out_of_range = |attribute: &Attribute| attribute.kind.0 & SHORT_FORM != 0;
        let ambiguous = self.key_length.is_none() && self.attributes.iter().any(like_key_length);
        if ambiguous || self.attributes.iter().any(out_of_range) {
            return Err(EncodeError::AmbiguousAttribute(self.kind));
        }
        Ok(())
    }
}

/// Prints the name of the algorithm, with the key length where there is one: `AES_CBC_256`.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TransformType::ENCR => EncryptionId(self.id).fmt(f)?,
            TransformType::PRF => PrfId(self.id).fmt(f)?,
            TransformType::INTEG => IntegrityId(self.id).fmt(f)?,
            TransformType::ESN => EsnId(self.id).fmt(f)?,
            TransformType::KE => KeyExchangeId(self.id).fmt(f)?,
            other if other.is_key_exchange() => write!(f, "{other}_{}", KeyExchangeId(self.id))?,
            other => write!(f, "{other}({})", self.id)?,
        }
        match self.key_length {
            Some(bits) => write!(f, "_{bits}"),
            None => Ok(()),
        }
    }
}

impl Attribute {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let field = cursor.u16()?;
        let value = cursor.u16()?;
        let value = if field & SHORT_FORM != 0 {
            AttributeValue::Short(value)
        } else {
            AttributeValue::Long(cursor.take(usize::from(value))?.to_vec())
        };
        Ok(Self { kind: AttributeType(field & !SHORT_FORM), value })
    }

    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match &self.value {
            AttributeValue::Short(value) => {
                writer.u16(SHORT_FORM | self.kind.0);
                writer.u16(*value);
                Ok(())
            }
            AttributeValue::Long(octets) => {
                writer.u16(self.kind.0);
                // This length counts the value alone.
                let start = writer.len().saturating_add(2);
                let length = writer.length(start, Place::Transform);
                writer.octets(octets);
                writer.close(length)
            }
        }
    }
}

/// Reads "last substructure" and the reserved octet of a proposal: whether another follows.
fn read_more(cursor: &mut Cursor<'_>, place: Place, more: u8) -> Result<bool, Malformed> {
    cursor.enter(place);
    let found = cursor.u8()?;
    if found != LAST && found != more {
        return Err(cursor.malformed(Problem::LastSubstructure { found, expected: more }));
    }
    cursor.u8()?;
    Ok(found == more)
}

//= RFC 7296 §3.3.1: zero or 8 octets for IKE, 4 for AH and ESP
fn check_proposal_spi(protocol: ProtocolId, octets: usize) -> Result<(), Problem> {
    let fits = match protocol {
        ProtocolId::IKE => octets == 0 || octets == 8,
        ProtocolId::AH | ProtocolId::ESP => octets == 4,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Problem::SpiSize { protocol, octets }) }
}
