//! `cygnet-capture`: whose packets are wanted.

use super::{RequestError, flag, number, refuse, required, text};
use crate::vici::Message;

/// What a capture is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedCapture {
    /// Connection.
    pub connection: String,
    /// Only packets of this child.
    pub child: Option<String>,
    /// IKE messages, too.
    pub ike: bool,
    /// The keys, too.
    pub keys: bool,
}

impl WantedCapture {
    /// Keys: `ike` (the connection), `child`, `messages` (`yes`: IKE messages as well, which a capture without `child` has anyway) and `keys`.
    pub(super) fn parse(message: &Message) -> Result<Self, RequestError> {
        let connection = required(message, "ike", "missing configuration name")?;
        let child = text(message, "child");
        let ike = flag(message, "messages")? || child.is_none();
        Ok(Self { connection, child, ike, keys: flag(message, "keys")? })
    }
}

/// The key `id`.
pub(super) fn stopped(message: &Message) -> Result<u32, RequestError> {
    number(message, "id")?.ok_or_else(|| refuse("missing id of a capture"))
}
