//! `cygnet-why`: which packet is asked about.

use std::net::IpAddr;

use ipsec::PacketSelectors;

use super::{RequestError, refuse, text};
use crate::render::services;
use crate::units;
use crate::vici::Message;

/// A packet whose way is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyQuestion {
    /// The packet.
    pub packet: PacketSelectors,
    /// Its length in octets with its IP header.
    pub size: Option<u32>,
    /// The link that it arrives on.
    pub arrival: Option<String>,
}

/// Source port where none is given: one that clients take.
const CLIENT_PORT: u16 = 49_152;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Echo requests, as selectors see them: type * 256 + code.
const ECHO: u16 = 8 << 8;
const ECHO_V6: u16 = 128 << 8;

impl WhyQuestion {
    pub(super) fn parse(message: &Message) -> Result<Self, RequestError> {
        let address = |key: &str| {
            let given = text(message, key).ok_or_else(|| refuse(&format!("missing {key}")))?;
            given.parse::<IpAddr>().map_err(|_| refuse(&format!("{key}: '{given}' is no IP address")))
        };
        let (source, destination) = (address("src")?, address("dst")?);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(refuse("source and destination are of different address families"));
        }
        let protocol = match text(message, "proto") {
            None => {
                if source.is_ipv4() {
                    ICMP
                } else {
                    ICMPV6
                }
            }
            Some(name) => protocol(&name, source.is_ipv4())?,
        };
        let (from, to) = (number(message, "source-port")?, number(message, "port")?);
        let ports = match (protocol, to) {
            (ICMP, None) => Some((ECHO, ECHO)),
            (ICMPV6, None) => Some((ECHO_V6, ECHO_V6)),
            (ICMP | ICMPV6, Some(kind)) if kind > 0xff => return Err(refuse(&format!("{kind} is no ICMP type"))),
            (ICMP | ICMPV6, Some(kind)) => Some((kind << 8, kind << 8)),
            (_, Some(to)) => Some((from.unwrap_or(CLIENT_PORT), to)),
            (TCP | UDP, None) => {
                return Err(refuse("tcp and udp need a port, for example tcp:443"));
            }
            (_, None) => None,
        };
        let packet = PacketSelectors { source, destination, protocol, ports };
        let size = super::number(message, "size")?;
        Ok(Self { packet, size, arrival: text(message, "in") })
    }
}

fn protocol(name: &str, v4: bool) -> Result<u8, RequestError> {
    let name = name.to_ascii_lowercase();
    if name == "icmp" && !v4 {
        return Ok(ICMPV6);
    }
    let known = services::protocol(&name).filter(|number| *number > 0);
    let by_number = || units::u32(&name).and_then(|number| u8::try_from(number).ok()).filter(|number| *number > 0);
    known.or_else(by_number).ok_or_else(|| refuse(&format!("'{name}' is no IP protocol")))
}

fn number(message: &Message, key: &str) -> Result<Option<u16>, RequestError> {
    let number = super::number(message, key)?;
    let narrow = |number| u16::try_from(number).map_err(|_| refuse(&format!("{key}: {number} is no port")));
    number.map(narrow).transpose()
}
