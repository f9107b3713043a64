//! What can be wrong with received octets, and with a message that we were asked to encode.

use thiserror::Error;

use crate::header::Header;
use crate::ids::{ConfigurationAttributeType, PayloadType, ProtocolId, TransformType, TsType};

/// A datagram is not a message that can be processed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ParseError {
    /// The octets break a rule of the format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The peer speaks a newer IKE: answer INVALID_MAJOR_VERSION with version 2 (RFC 7296 §2.5). Nothing behind the header
    /// was looked at, and its `length` was not checked.
    #[error("major version {} is newer than 2", .0.version.major)]
    MajorVersion(Header),
}

/// A rule of the format that received octets break. Inside an authenticated message the answer is INVALID_SYNTAX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{place}: {problem} (octet {offset})")]
pub struct Malformed {
    /// The part of the message that was being read.
    pub place: Place,
    /// Where reading stopped, counted from the start of the datagram; inside a decrypted chain, from the base that the
    /// caller of [`parse_chain`](crate::parse_chain) named.
    pub offset: usize,
    /// What was expected and what was found.
    pub problem: Problem,
}

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The IKE header.
    Header,
    /// A payload, its generic header included.
    Payload(PayloadType),
    /// A proposal inside an SA payload.
    Proposal,
    /// A transform inside a proposal, attributes included.
    Transform,
    /// One selector inside a TS payload.
    TrafficSelector,
    /// One attribute inside a CP payload.
    ConfigurationAttribute,
    /// The chain of payloads as a whole.
    Chain,
    /// The decrypted inside of an SK or SKF payload: its padding.
    Padding,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("IKE header"),
            Self::Payload(kind) => write!(f, "payload {kind}"),
            Self::Proposal => f.write_str("proposal"),
            Self::Transform => f.write_str("transform"),
            Self::TrafficSelector => f.write_str("traffic selector"),
            Self::ConfigurationAttribute => f.write_str("configuration attribute"),
            Self::Chain => f.write_str("payload chain"),
            Self::Padding => f.write_str("padding"),
        }
    }
}

/// The rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// The octets end early.
    #[error("{needed} octets needed, {left} left")]
    Truncated {
        /// Octets that the field takes.
        needed: usize,
        /// Octets that are there.
        left: usize,
    },
    /// A length field says less than the fixed fields that it counts.
    #[error("length field says {claimed}, the fixed fields alone take {minimum}")]
    LengthField {
        /// Value of the field.
        claimed: usize,
        /// Smallest legal value.
        minimum: usize,
    },
    /// A length field of a fixed-size structure has another value.
    #[error("length field says {claimed}, must be {expected}")]
    FixedLength {
        /// Value of the field.
        claimed: usize,
        /// The only legal value.
        expected: usize,
    },
    /// The header counts another number of octets than the datagram has.
    #[error("header counts {header} octets, the datagram has {datagram}")]
    DatagramLength {
        /// Value of the length field.
        header: u32,
        /// Octets received.
        datagram: usize,
    },
    /// IKE version 1 or older.
    #[error("major version {major} is older than 2")]
    OldVersion {
        /// Major version of the header.
        major: u8,
    },
    /// The initiator's SPI must not be zero.
    #[error("the initiator's SPI is zero")]
    ZeroInitiatorSpi,
    /// Octets are left after the last structure.
    #[error("{count} octets left over")]
    TrailingOctets {
        /// How many.
        count: usize,
    },
    /// More structures than this codec reads.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many are read.
        limit: usize,
    },
    /// The "last substructure" field has an illegal value or contradicts the length or the count around it.
    #[error("the field that says whether another follows is {found}, expected {expected}")]
    LastSubstructure {
        /// Value of the field.
        found: u8,
        /// Value that fits its position.
        expected: u8,
    },
    /// A nonce has 16 to 256 octets.
    #[error("nonce of {octets} octets, must have 16 to 256")]
    NonceLength {
        /// Octets of the nonce.
        octets: usize,
    },
    /// The SPI size does not fit the protocol.
    #[error("SPI of {octets} octets does not fit protocol {protocol}")]
    SpiSize {
        /// Protocol named beside the SPI.
        protocol: ProtocolId,
        /// Octets of the SPI.
        octets: usize,
    },
    /// Count times size of the SPIs of a Delete payload is not the length of its body.
    #[error("{count} SPIs of {size} octets do not fill {left} octets")]
    SpiCount {
        /// Number of SPIs claimed.
        count: u16,
        /// Octets of each.
        size: u8,
        /// Octets of the body.
        left: usize,
    },
    /// An address has 4 or 16 octets, as its type says.
    #[error("address of {octets} octets, must have {expected}")]
    AddressLength {
        /// Octets found.
        octets: usize,
        /// Octets of such an address.
        expected: usize,
    },
    /// Fragment numbers start at 1 and end at the total.
    #[error("fragment {number} of {total}")]
    FragmentNumber {
        /// Number of this fragment.
        number: u16,
        /// Number of fragments.
        total: u16,
    },
    /// SK and SKF stand outside only.
    #[error("{0} inside an encrypted payload")]
    NestedEncryption(PayloadType),
    /// The encrypted part does not hold IV, ICV and whole cipher blocks of plaintext.
    #[error("{octets} encrypted octets are not whole blocks of {block}")]
    EncryptedLength {
        /// Octets between IV and ICV.
        octets: usize,
        /// Block size of the cipher.
        block: usize,
    },
    /// The pad length is larger than the plaintext.
    #[error("padding of {padding} octets in a plaintext of {plaintext}")]
    PaddingLength {
        /// Value of the pad length field.
        padding: usize,
        /// Octets before that field.
        plaintext: usize,
    },
    /// The message has no SK or SKF payload where one was to be opened.
    #[error("no encrypted payload")]
    NotEncrypted,
}

/// A message that the format cannot carry. Always a mistake of the caller, never of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EncodeError {
    /// More octets than the length field can count.
    #[error("{place} of {octets} octets is longer than {limit}")]
    TooLong {
        /// The structure.
        place: Place,
        /// Its length.
        octets: usize,
        /// What the length field can say.
        limit: usize,
    },
    /// More structures than the count field can count, or than the parser of the other side accepts.
    #[error("{count} {what}, at most {limit}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A value that the parser would refuse.
    #[error("{place}: {problem}")]
    Illegal {
        /// The structure.
        place: Place,
        /// The rule it breaks.
        problem: Problem,
    },
    /// SK and SKF end the chain.
    #[error("{0} is not the last payload")]
    NotLast(PayloadType),
    /// An unknown payload or selector carries the number of a known one, so that it would be read as something else.
    #[error("payload type {0} is not unknown")]
    KnownPayload(PayloadType),
    /// As [`Self::KnownPayload`], for a traffic selector.
    #[error("traffic selector type {0} is not unknown")]
    KnownSelector(TsType),
    /// A transform attribute carries a value that its format bit contradicts, or a second key length in short form.
    #[error("attribute of transform type {0} cannot be told from a key length")]
    AmbiguousAttribute(TransformType),
    /// Types of configuration attributes have 15 bits.
    #[error("configuration attribute type {0} has more than 15 bits")]
    ConfigurationAttribute(ConfigurationAttributeType),
}
