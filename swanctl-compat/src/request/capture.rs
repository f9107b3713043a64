//! `cygnet-capture`: whose packets are wanted.

use super::{RequestError, flag, number, refuse, required, selected};
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
    /// Content with IKE messages alone, where the data path shows no packets.
    pub ike_alone: bool,
    /// The keys, too.
    pub keys: bool,
}

impl WantedCapture {
    /// Keys: `ike` (the connection), `child`, `messages` (`yes`: IKE messages as well, which a capture without `child` has anyway, and alone where
    /// there is nothing else to be seen) and `keys`.
    pub(super) fn parse(message: &Message) -> Result<Self, RequestError> {
        let connection = required(message, "ike", "missing configuration name")?;
        let child = selected(message, "child");
        let ike_alone = flag(message, "messages")?;
        let ike = ike_alone || child.is_none();
        Ok(Self { connection, child, ike, ike_alone, keys: flag(message, "keys")? })
    }
}

/// The key `id`.
pub(super) fn stopped(message: &Message) -> Result<u32, RequestError> {
    number(message, "id")?.ok_or_else(|| refuse("missing id of a capture"))
}
