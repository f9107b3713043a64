//! Key exchange methods in a KEM's shape, so that Diffie-Hellman and key encapsulation (RFC 9370) fit alike.
//!
//! The initiator starts and later completes; the responder has one call that takes the initiator's public value and
//! yields its own together with the secret. Public values are in the form of the KE payload (RFC 7296 §3.4).

pub(crate) mod ecdh;
pub(crate) mod modp;

use core::fmt::{self, Debug};

use ike_wire::ids::KeyExchangeId;
use zeroize::Zeroizing;

use crate::{CryptoError, SecureRandom};

/// A key exchange method of the provider's table.
pub trait KeyExchange: Debug + Send + Sync {
    /// The transform id (transform type 4).
    fn id(&self) -> KeyExchangeId;

    /// What one call of [`Self::respond`] costs, so that the caller can choose where to run it.
    fn cost(&self) -> Cost;

    /// Starts an exchange as initiator: draws a fresh private value.
    ///
    /// Methods of *ring* draw from the operating system themselves and leave `rng` alone.
    ///
    /// # Errors
    /// [`CryptoError::RandomUnavailable`].
    fn start(&self, rng: &dyn SecureRandom) -> Result<Box<dyn StartedKeyExchange>, CryptoError>;

    /// Answers `peer`, the initiator's public value: our public value and the shared secret.
    ///
    /// # Errors
    /// [`CryptoError::InvalidPublicValue`] or [`CryptoError::RandomUnavailable`].
    fn respond(&self, rng: &dyn SecureRandom, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError>;
}

/// An initiator's exchange that waits for the responder's public value.
pub trait StartedKeyExchange: Debug + Send + Sync {
    /// The method this exchange was started with.
    fn id(&self) -> KeyExchangeId;

    /// Our public value, as it goes into the KE payload. It stays the same, so that a request repeated with a COOKIE
    /// carries the same value.
    fn public_value(&self) -> &[u8];

    /// The shared secret with `peer`, the responder's public value. The private value is gone afterwards.
    ///
    /// # Errors
    /// [`CryptoError::InvalidPublicValue`].
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, CryptoError>;
}

/// Where an operation belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Around 100 microseconds or less: may run on the reactor.
    Cheap,
    /// Up to several milliseconds: belongs on a worker.
    Expensive,
}

/// The secret of a key exchange (g^ir), in the octets that enter the key schedule. Wiped on drop.
pub struct SharedSecret(Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// Takes the octets of a secret.
    pub fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }
}

impl AsRef<[u8]> for SharedSecret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Constant-time.
impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        crate::constant_time_eq(self.as_ref(), other.as_ref())
    }
}

impl Eq for SharedSecret {}

impl Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret([redacted])")
    }
}
