//! TS payloads: the traffic selectors of one end of a CHILD SA (RFC 7296 §3.13).
//!
//! Fields as they stand on the wire. What a selector covers, and whether a range that runs backwards is refused, is decided by
//! whoever narrows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::TsType;
use crate::writer::{Writer, count_u8};

const FIXED: usize = 4;

/// A TSi or TSr payload. The count field is one octet, so there are at most 255 selectors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrafficSelectors {
    /// In the order of the payload; the first may be the packet that made the initiator ask (RFC 7296 §2.9).
    pub selectors: Vec<TrafficSelector>,
}

/// One traffic selector.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TrafficSelector {
    /// Addresses, a protocol and ports.
    Range(SelectorRange),
    /// A kind that this codec does not interpret.
    Other(OtherSelector),
}

//= RFC 7296 §3.13.1: protocol, ports and addresses from - to
/// TS_IPV4_ADDR_RANGE or TS_IPV6_ADDR_RANGE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SelectorRange {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// First port, or ICMP type and code of RFC 7296 §3.13.1.
    pub start_port: u16,
    /// Last port. All ports are 0 to 65535; OPAQUE is 65535 to 0.
    pub end_port: u16,
    /// First and last address.
    pub addresses: AddressRange,
}

/// First and last address of a range, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressRange {
    /// IPv4.
    V4 {
        /// First address.
        start: Ipv4Addr,
        /// Last address, included.
        end: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// First address.
        start: Ipv6Addr,
        /// Last address, included.
        end: Ipv6Addr,
    },
}

/// A selector kept as it came.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OtherSelector {
    /// Its type.
    pub kind: TsType,
    /// The octet that is the protocol in address ranges and reserved in others.
    pub protocol: u8,
    /// Everything behind the length field.
    pub body: Vec<u8>,
}

impl TrafficSelectors {
    /// A payload with these selectors.
    #[must_use]
    pub fn new(selectors: Vec<TrafficSelector>) -> Self {
        Self { selectors }
    }

    /// The selectors that are address ranges.
    pub fn ranges(&self) -> impl Iterator<Item = &SelectorRange> {
        self.selectors.iter().filter_map(TrafficSelector::as_range)
    }

    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let count = cursor.u8()?;
        cursor.take(3)?;
        let mut selectors = Vec::new();
        //= RFC 7296 §3.13: the count is of selectors, whatever their lengths
        for _ in 0..count {
            selectors.push(TrafficSelector::parse(&mut cursor)?);
        }
        cursor.finish()?;
        Ok(Self { selectors })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(count_u8("traffic selectors", self.selectors.len())?);
        writer.zeros(3);
        self.selectors.iter().try_for_each(|selector| selector.encode(writer))
    }
}

impl TrafficSelector {
    /// A selector of addresses; `None` when the ends are of different families.
    #[must_use]
    pub fn range(protocol: u8, start_port: u16, end_port: u16, start: IpAddr, end: IpAddr) -> Option<Self> {
        let addresses = AddressRange::new(start, end)?;
        Some(Self::Range(SelectorRange { protocol, start_port, end_port, addresses }))
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> TsType {
        match self {
            Self::Range(range) => range.addresses.kind(),
            Self::Other(other) => other.kind,
        }
    }

    /// The address range, if it is one.
    #[must_use]
    pub fn as_range(&self) -> Option<&SelectorRange> {
        match self {
            Self::Range(range) => Some(range),
            Self::Other(_) => None,
        }
    }

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let kind = TsType(cursor.u8()?);
        let protocol = cursor.u8()?;
        let claimed = cursor.u16()?;
        let body = cursor.after_fixed(claimed, FIXED)?;
        let mut body = cursor.sub(body, Place::TrafficSelector)?;
        match kind {
            TsType::TS_IPV4_ADDR_RANGE => SelectorRange::parse::<4>(body, protocol, claimed).map(Self::Range),
            TsType::TS_IPV6_ADDR_RANGE => SelectorRange::parse::<16>(body, protocol, claimed).map(Self::Range),
            _ => Ok(Self::Other(OtherSelector { kind, protocol, body: body.rest().to_vec() })),
        }
    }

    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let start = writer.len();
        match self {
            Self::Range(range) => {
                writer.u8(self.kind().0);
                writer.u8(range.protocol);
                let length = writer.length(start, Place::TrafficSelector);
                range.encode(writer);
                writer.close(length)
            }
            Self::Other(other) => {
                if matches!(other.kind, TsType::TS_IPV4_ADDR_RANGE | TsType::TS_IPV6_ADDR_RANGE) {
                    return Err(EncodeError::KnownSelector(other.kind));
                }
                writer.u8(other.kind.0);
                writer.u8(other.protocol);
                let length = writer.length(start, Place::TrafficSelector);
                writer.octets(&other.body);
                writer.close(length)
            }
        }
    }
}

impl From<SelectorRange> for TrafficSelector {
    fn from(range: SelectorRange) -> Self {
        Self::Range(range)
    }
}

impl SelectorRange {
    /// First address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.addresses.start()
    }

    /// Last address, included.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.addresses.end()
    }

    /// Whether the ports are OPAQUE: only packets whose ports cannot be seen.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        (self.start_port, self.end_port) == (u16::MAX, 0)
    }

    /// Whether both ranges run forward (OPAQUE ports count as such). A selector that does not can match nothing.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        (self.start_port <= self.end_port || self.is_opaque()) && self.addresses.is_ordered()
    }

    fn parse<const N: usize>(mut cursor: Cursor<'_>, protocol: u8, claimed: u16) -> Result<Self, Malformed>
    where
        AddressRange: FromOctets<N>,
    {
        let expected = FIXED + 4 + 2 * N;
        if usize::from(claimed) != expected {
            return Err(cursor.malformed(Problem::FixedLength { claimed: usize::from(claimed), expected }));
        }
        let start_port = cursor.u16()?;
        let end_port = cursor.u16()?;
        let addresses = AddressRange::from_octets(cursor.array()?, cursor.array()?);
        Ok(Self { protocol, start_port, end_port, addresses })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u16(self.start_port);
        writer.u16(self.end_port);
        match self.addresses {
            AddressRange::V4 { start, end } => {
                writer.octets(&start.octets());
                writer.octets(&end.octets());
            }
            AddressRange::V6 { start, end } => {
                writer.octets(&start.octets());
                writer.octets(&end.octets());
            }
        }
    }
}

impl AddressRange {
    /// A range; `None` when the ends are of different families.
    #[must_use]
    pub fn new(start: IpAddr, end: IpAddr) -> Option<Self> {
        match (start, end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => Some(Self::V4 { start, end }),
            (IpAddr::V6(start), IpAddr::V6(end)) => Some(Self::V6 { start, end }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        match *self {
            Self::V4 { start, .. } => start.into(),
            Self::V6 { start, .. } => start.into(),
        }
    }

    /// Last address, included.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        match *self {
            Self::V4 { end, .. } => end.into(),
            Self::V6 { end, .. } => end.into(),
        }
    }

    /// Whether the first address is not behind the last.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.start() <= self.end()
    }

    fn kind(&self) -> TsType {
        match self {
            Self::V4 { .. } => TsType::TS_IPV4_ADDR_RANGE,
            Self::V6 { .. } => TsType::TS_IPV6_ADDR_RANGE,
        }
    }
}

/// Builds a range from the octets of its ends.
trait FromOctets<const N: usize> {
    fn from_octets(start: [u8; N], end: [u8; N]) -> Self;
}

impl FromOctets<4> for AddressRange {
    fn from_octets(start: [u8; 4], end: [u8; 4]) -> Self {
        Self::V4 { start: start.into(), end: end.into() }
    }
}

impl FromOctets<16> for AddressRange {
    fn from_octets(start: [u8; 16], end: [u8; 16]) -> Self {
        Self::V6 { start: start.into(), end: end.into() }
    }
}
