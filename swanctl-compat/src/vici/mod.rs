//! The VICI protocol: message trees, their encoding, and packets.
//!
//! Nothing here owns a socket. [`endpoint`] is where one is, [`frame`] cuts a stream into packets, [`Packet`] is one packet, [`Message`] its content.

pub mod client;
mod codec;
pub mod endpoint;
pub mod frame;
mod message;
mod packet;

#[cfg(test)]
mod tests;

pub use codec::{DecodeError, EncodeError, MAX_DEPTH};
pub use message::{Element, Message, Value};
pub use packet::{Packet, PacketError};
