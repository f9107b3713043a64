//! What can go wrong in a cryptographic operation, sorted by whose fault it is.

use thiserror::Error;

/// Failure of a cryptographic operation.
///
/// [`Self::is_peer_fault`] tells what the peer (or the path) caused from what is our own mistake or machine. No variant
/// carries octets of a key, a plaintext or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The integrity check value does not match: altered, forged, or made with another key.
    #[error("integrity check value does not match")]
    AuthenticationFailed,
    /// A received ESP packet is too short, or not whole cipher blocks, so that it cannot have been sealed.
    #[error("sealed octets have an impossible length")]
    Truncated,
    /// The peer's public value has the wrong length, is not a member of the group, or leads to a shared secret that
    /// says nothing about our share.
    #[error("invalid public value")]
    InvalidPublicValue,
    /// A key of the wrong length was handed in, or an integrity key where none belongs (or none where one does).
    #[error("wrong key length for the algorithm")]
    InvalidKeyLength,
    /// A buffer handed in does not have the length that the operation needs.
    #[error("buffer length does not fit the operation")]
    InvalidBufferLength,
    /// The key has sealed as much as it may.
    #[error("key is exhausted")]
    KeyExhausted,
    /// The source of random octets failed.
    #[error("no random octets available")]
    RandomUnavailable,
    /// A known-answer test failed: the named algorithm must not be used.
    #[error("self-test failed: {0}")]
    SelfTestFailed(&'static str),
}

impl CryptoError {
    /// Whether octets that came from the network caused this, as opposed to the caller or the machine.
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::AuthenticationFailed | Self::Truncated | Self::InvalidPublicValue => true,
            Self::InvalidKeyLength
            | Self::InvalidBufferLength
            | Self::KeyExhausted
            | Self::RandomUnavailable
            | Self::SelfTestFailed(_) => false,
        }
    }
}
