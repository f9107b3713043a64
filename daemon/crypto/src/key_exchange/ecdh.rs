//! Elliptic curve Diffie-Hellman on *ring*: X25519 (RFC 8031, RFC 7748), P-256 and P-384 (RFC 5903).
//!
//! RFC 5903 §7 sends a point as `x | y`, where *ring* wants the SEC 1 octet 4 (uncompressed) in front; the secret is
//! the x coordinate alone. *ring* checks that a point is on the curve and refuses an all-zero X25519 secret, and it
//! draws private values from the operating system, never from a source handed in. It does not wipe them either, and
//! nobody else can; they live for one exchange.

use ike_wire::ids::KeyExchangeId;
use ring::{
    agreement::{self, EphemeralPrivateKey, UnparsedPublicKey},
    rand,
};
use zeroize::Zeroizing;

use super::{Cost, KeyExchange, SharedSecret, StartedKeyExchange};
use crate::{CryptoError, SecureRandom, constant_time_eq};

pub(crate) static CURVE_25519: RingCurve = RingCurve {
    id: KeyExchangeId::CURVE_25519,
    ring: &agreement::X25519,
    public_len: 32,
    sec1_point: false,
    cost: Cost::Cheap,
};
pub(crate) static ECP_256: RingCurve = RingCurve {
    id: KeyExchangeId::ECP_256,
    ring: &agreement::ECDH_P256,
    public_len: 64,
    sec1_point: true,
    cost: Cost::Cheap,
};
pub(crate) static ECP_384: RingCurve = RingCurve {
    id: KeyExchangeId::ECP_384,
    ring: &agreement::ECDH_P384,
    public_len: 96,
    sec1_point: true,
    cost: Cost::Expensive,
};

/// The octet that SEC 1 puts in front of an uncompressed point.
const SEC1_UNCOMPRESSED: u8 = 4;

/// A curve that *ring* implements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingCurve {
    id: KeyExchangeId,
    ring: &'static agreement::Algorithm,
    /// Octets of the Key Exchange Data.
    public_len: usize,
    sec1_point: bool,
    cost: Cost,
}

impl RingCurve {
    fn generate(self, rng: &dyn rand::SecureRandom) -> Result<Started, CryptoError> {
        let private = EphemeralPrivateKey::generate(self.ring, rng).map_err(|_| CryptoError::RandomUnavailable)?;
        let public = private.compute_public_key().map_err(|_| CryptoError::RandomUnavailable)?;
        let public = match public.as_ref() {
            [SEC1_UNCOMPRESSED, coordinates @ ..] if self.sec1_point => coordinates,
            octets => octets,
        };
        Ok(Started { curve: self, public: public.to_vec(), private })
    }
}

impl KeyExchange for RingCurve {
    fn id(&self) -> KeyExchangeId {
        self.id
    }

    fn cost(&self) -> Cost {
        self.cost
    }

    fn start(&self, _rng: &dyn SecureRandom) -> Result<Box<dyn StartedKeyExchange>, CryptoError> {
        Ok(Box::new(self.generate(&rand::SystemRandom::new())?))
    }

    fn respond(&self, _rng: &dyn SecureRandom, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        let started = self.generate(&rand::SystemRandom::new())?;
        let public = started.public.clone();
        Ok((public, started.agree(peer)?))
    }
}

/// A private value and the public one that belongs to it.
struct Started {
    curve: RingCurve,
    public: Vec<u8>,
    private: EphemeralPrivateKey,
}

impl core::fmt::Debug for Started {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Started").field("curve", &self.curve.id).field("private", &"[redacted]").finish()
    }
}

impl Started {
    fn agree(self, peer: &[u8]) -> Result<SharedSecret, CryptoError> {
        if peer.len() != self.curve.public_len {
            return Err(CryptoError::InvalidPublicValue);
        }
        let mut point = Vec::with_capacity(self.curve.public_len.saturating_add(1));
        point.extend(self.curve.sec1_point.then_some(SEC1_UNCOMPRESSED));
        point.extend_from_slice(peer);
        let peer = UnparsedPublicKey::new(self.curve.ring, point);
        let secret = agreement::agree_ephemeral(self.private, &peer, |secret| Zeroizing::new(secret.to_vec()))
            .map_err(|_| CryptoError::InvalidPublicValue)?;
        // RFC 8031 §2: an all-zero secret does not depend on our share. *ring* refuses it too; here it is ours to see.
        // On the other curves zero is the x coordinate of a point like any other.
        if !self.curve.sec1_point && constant_time_eq(&secret, &vec![0; secret.len()]) {
            return Err(CryptoError::InvalidPublicValue);
        }
        Ok(SharedSecret::new(secret))
    }
}

impl StartedKeyExchange for Started {
    fn id(&self) -> KeyExchangeId {
        self.curve.id
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, CryptoError> {
        self.agree(peer)
    }
}

#[cfg(test)]
mod tests;
