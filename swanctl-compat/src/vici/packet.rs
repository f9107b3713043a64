//! VICI packets: a type octet, for some types a name, for some a message.

use thiserror::Error;

use super::codec::{DecodeError, EncodeError};
use super::frame::MAX_PACKET;
use super::message::Message;

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const CMD_UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_UNREGISTER: u8 = 4;
const EVENT_CONFIRM: u8 = 5;
const EVENT_UNKNOWN: u8 = 6;
const EVENT: u8 = 7;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Client: run a command.
    CmdRequest(String, Message),
    /// Daemon: its answer.
    CmdResponse(Message),
    /// Daemon: there is no such command.
    CmdUnknown,
    /// Client: send me this event.
    EventRegister(String),
    /// Client: stop sending it.
    EventUnregister(String),
    /// Daemon: (un)registered.
    EventConfirm,
    /// Daemon: no such event, or it was not registered.
    EventUnknown,
    /// Daemon: an event.
    Event(String, Message),
}

/// Why octets are not a packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PacketError {
    /// No type octet.
    #[error("empty packet")]
    Empty,
    /// A type that VICI does not know.
    #[error("unknown packet type {0}")]
    UnknownType(u8),
    /// The name is missing, longer than the packet or not UTF-8.
    #[error("bad name in packet")]
    Name,
    /// Octets after a packet that ends there.
    #[error("octets after the end of the packet")]
    Trailing,
    /// The message of a command, whose name is here.
    #[error("message of command {0:?}: {1}")]
    Request(String, DecodeError),
    /// The message.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

impl Packet {
    /// Octets of its encoding.
    fn encoded_len(&self) -> usize {
        match self {
            Self::CmdRequest(name, message) | Self::Event(name, message) => 2 + name.len() + message.encoded_len(),
            Self::CmdResponse(message) => 1 + message.encoded_len(),
            Self::EventRegister(name) | Self::EventUnregister(name) => 2 + name.len(),
            Self::CmdUnknown | Self::EventConfirm | Self::EventUnknown => 1,
        }
    }

    /// The packet's octets, without the length that [`super::frame`] adds.
    ///
    /// # Errors
    /// When a name, a value or the packet as a whole is longer than VICI can carry.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        // In one piece from the beginning: what a growing buffer leaves behind is not wiped.
        let mut out = Vec::with_capacity(self.encoded_len());
        match self {
            Self::CmdRequest(name, message) => named(CMD_REQUEST, name, Some(message), &mut out)?,
            Self::CmdResponse(message) => {
                out.push(CMD_RESPONSE);
                message.encode(&mut out)?;
            }
            Self::CmdUnknown => out.push(CMD_UNKNOWN),
            Self::EventRegister(name) => named(EVENT_REGISTER, name, None, &mut out)?,
            Self::EventUnregister(name) => named(EVENT_UNREGISTER, name, None, &mut out)?,
            Self::EventConfirm => out.push(EVENT_CONFIRM),
            Self::EventUnknown => out.push(EVENT_UNKNOWN),
            Self::Event(name, message) => named(EVENT, name, Some(message), &mut out)?,
        }
        if out.len() > MAX_PACKET { Err(EncodeError::PacketTooLong(out.len())) } else { Ok(out) }
    }

    /// Reads a packet that fills `octets` exactly.
    ///
    /// # Errors
    /// When it is no well-formed packet. The daemon answers such a packet with nothing, unless it can be known for a command.
    pub fn decode(octets: &[u8]) -> Result<Self, PacketError> {
        let (&kind, rest) = octets.split_first().ok_or(PacketError::Empty)?;
        match kind {
            CMD_REQUEST => {
                let (name, rest) = name(rest)?;
                match Message::decode(rest) {
                    Ok(message) => Ok(Self::CmdRequest(name, message)),
                    Err(error) => Err(PacketError::Request(name, error)),
                }
            }
            CMD_RESPONSE => Ok(Self::CmdResponse(Message::decode(rest)?)),
            CMD_UNKNOWN => bare(rest, Self::CmdUnknown),
            // What comes after the name means nothing, and charon takes no offence at it.
            EVENT_REGISTER => Ok(Self::EventRegister(name(rest)?.0)),
            EVENT_UNREGISTER => Ok(Self::EventUnregister(name(rest)?.0)),
            EVENT_CONFIRM => bare(rest, Self::EventConfirm),
            EVENT_UNKNOWN => bare(rest, Self::EventUnknown),
            EVENT => {
                let (name, rest) = name(rest)?;
                Ok(Self::Event(name, Message::decode(rest)?))
            }
            unknown => Err(PacketError::UnknownType(unknown)),
        }
    }
}

fn named(kind: u8, name: &str, message: Option<&Message>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = u8::try_from(name.len()).map_err(|_| EncodeError::NameTooLong(name.len()))?;
    out.extend([kind, length]);
    out.extend_from_slice(name.as_bytes());
    message.map_or(Ok(()), |message| message.encode(out))
}

fn name(octets: &[u8]) -> Result<(String, &[u8]), PacketError> {
    let (&length, rest) = octets.split_first().ok_or(PacketError::Name)?;
    let (name, rest) = rest.split_at_checked(length.into()).ok_or(PacketError::Name)?;
    let name = std::str::from_utf8(name).map_err(|_| PacketError::Name)?;
    Ok((name.to_owned(), rest))
}

fn bare(rest: &[u8], packet: Packet) -> Result<Packet, PacketError> {
    if rest.is_empty() { Ok(packet) } else { Err(PacketError::Trailing) }
}
