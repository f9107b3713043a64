//! Diffie-Hellman in the MODP groups of 2048 and 3072 bits (RFC 3526 §3 and §4, generator 2) on `crypto-bigint`.
//!
//! Exponentiation is constant-time in a short exponent of at least twice the group's strength: 256 bits for MODP-2048,
//! 320 for MODP-3072 (RFC 3526 §8, RFC 7919 §5.2). Both primes are safe, so `1 < y < p - 1` leaves no small subgroup
//! but the one of quadratic residues (RFC 6989 §2.1). Values on the wire and the secret are big-endian, as long as the
//! prime, leading zeros kept (RFC 7296 §2.14 and §3.4).

use core::fmt::{self, Debug};
use std::sync::LazyLock;

use crypto_bigint::{
    Odd, U256, U320, U2048, U3072, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use ike_wire::ids::KeyExchangeId;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Cost, KeyExchange, SharedSecret, StartedKeyExchange};
use crate::{CryptoError, SecureRandom};

pub(crate) static MODP_2048: Modp<{ U2048::LIMBS }, { U256::LIMBS }> = Modp(&GROUP_2048);
pub(crate) static MODP_3072: Modp<{ U3072::LIMBS }, { U320::LIMBS }> = Modp(&GROUP_3072);

static GROUP_2048: ModpGroup<{ U2048::LIMBS }, { U256::LIMBS }> = ModpGroup {
    id: KeyExchangeId::MODP_2048,
    params: LazyLock::new(|| FixedMontyParams::new_vartime(Odd::<U2048>::from_be_hex(PRIME_2048))),
};
static GROUP_3072: ModpGroup<{ U3072::LIMBS }, { U320::LIMBS }> = ModpGroup {
    id: KeyExchangeId::MODP_3072,
    params: LazyLock::new(|| FixedMontyParams::new_vartime(Odd::<U3072>::from_be_hex(PRIME_3072))),
};

/// 2^2048 - 2^1984 - 1 + 2^64 * ( floor(2^1918 pi) + 124476 )
const PRIME_2048: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

/// 2^3072 - 2^3008 - 1 + 2^64 * ( floor(2^2942 pi) + 1690314 )
const PRIME_3072: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
    "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7",
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C",
    "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
);

/// A group whose prime has `LIMBS` words and whose exponents have `EXPONENT` words.
struct ModpGroup<const LIMBS: usize, const EXPONENT: usize> {
    id: KeyExchangeId,
    /// The prime with what Montgomery arithmetic derives from it, at first use.
    params: LazyLock<FixedMontyParams<LIMBS>>,
}

impl<const LIMBS: usize, const EXPONENT: usize> ModpGroup<LIMBS, EXPONENT> {
    fn generate(&'static self, rng: &dyn SecureRandom) -> Result<Started<LIMBS, EXPONENT>, CryptoError> {
        let mut octets = Uint::<EXPONENT>::ZERO.to_be_bytes();
        rng.fill(octets.as_mut())?;
        let private = Zeroizing::new(Uint::from_be_slice(octets.as_ref()));
        octets.zeroize();
        let public = self.power(&Uint::from(2_u8), &private).to_vec();
        Ok(Started { group: self, public, private })
    }

    /// `base ^ exponent mod p`, in a time that depends on the group only.
    fn power(&self, base: &Uint<LIMBS>, exponent: &Uint<EXPONENT>) -> Zeroizing<Vec<u8>> {
        let mut power = FixedMontyForm::new(base, &self.params).pow(exponent);
        let mut integer = power.retrieve();
        let mut octets = integer.to_be_bytes();
        power.zeroize();
        integer.zeroize();
        let result = Zeroizing::new(octets.as_ref().to_vec());
        octets.zeroize();
        result
    }

    /// A peer's value: as long as the prime, and neither 0, 1, p - 1 nor beyond.
    fn check(&self, peer: &[u8]) -> Result<Uint<LIMBS>, CryptoError> {
        if peer.len() != Uint::<LIMBS>::BYTES {
            return Err(CryptoError::InvalidPublicValue);
        }
        let value = Uint::from_be_slice(peer);
        let prime_minus_1 = self.params.modulus().as_ref().wrapping_sub(&Uint::ONE);
        if value <= Uint::ONE || value >= prime_minus_1 {
            return Err(CryptoError::InvalidPublicValue);
        }
        Ok(value)
    }
}

impl<const LIMBS: usize, const EXPONENT: usize> Debug for ModpGroup<LIMBS, EXPONENT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModpGroup").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The table's entry: a group that lives forever, so that a started exchange can refer to it.
#[derive(Debug)]
pub(crate) struct Modp<const LIMBS: usize, const EXPONENT: usize>(&'static ModpGroup<LIMBS, EXPONENT>);

impl<const LIMBS: usize, const EXPONENT: usize> KeyExchange for Modp<LIMBS, EXPONENT> {
    fn id(&self) -> KeyExchangeId {
        self.0.id
    }

    fn cost(&self) -> Cost {
        Cost::Expensive
    }

    fn start(&self, rng: &dyn SecureRandom) -> Result<Box<dyn StartedKeyExchange>, CryptoError> {
        Ok(Box::new(self.0.generate(rng)?))
    }

    fn respond(&self, rng: &dyn SecureRandom, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        // The peer's value first: a bad one must not cost us an exponentiation.
        self.0.check(peer)?;
        let started = self.0.generate(rng)?;
        let secret = started.agree(peer)?;
        Ok((started.public, secret))
    }
}

/// An exponent and the public value that belongs to it.
struct Started<const LIMBS: usize, const EXPONENT: usize> {
    group: &'static ModpGroup<LIMBS, EXPONENT>,
    public: Vec<u8>,
    private: Zeroizing<Uint<EXPONENT>>,
}

impl<const LIMBS: usize, const EXPONENT: usize> Started<LIMBS, EXPONENT> {
    fn agree(&self, peer: &[u8]) -> Result<SharedSecret, CryptoError> {
        let peer = self.group.check(peer)?;
        Ok(SharedSecret::new(self.group.power(&peer, &self.private)))
    }
}

impl<const LIMBS: usize, const EXPONENT: usize> Debug for Started<LIMBS, EXPONENT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("group", &self.group.id).field("private", &"[redacted]").finish()
    }
}

impl<const LIMBS: usize, const EXPONENT: usize> StartedKeyExchange for Started<LIMBS, EXPONENT> {
    fn id(&self) -> KeyExchangeId {
        self.group.id
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
