//! Pseudorandom functions and prf+.
//!
//! RFC 7296 §2.13 (prf and prf+), RFC 4868 (HMAC-SHA2 as a PRF: key of any length, output not truncated).
//! Left to others: which octets go in (the key schedule and AUTH of `ike-sa`).

use core::fmt::{self, Debug};

use ike_wire::ids::PrfId;
use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{CryptoError, hmac::HmacKey};

/// The longest output of any PRF here, in octets (HMAC-SHA2-512).
pub const MAX_PRF_OUTPUT_LEN: usize = 64;

/// A pseudorandom function of the provider's table.
pub trait Prf: Debug + Send + Sync {
    /// The transform id (transform type 2).
    fn id(&self) -> PrfId;

    /// Octets of output.
    fn output_len(&self) -> usize;

    /// Preferred key length in octets: the length of SK_d, SK_pi and SK_pr.
    fn key_len(&self) -> usize;

    /// Keys the function. Every length is legal, as RFC 7296 §2.14 asks for nonces and §2.15 for shared secrets.
    fn key(&self, key: &[u8]) -> Box<dyn PrfKey>;
}

/// A keyed [`Prf`].
pub trait PrfKey: Debug + Send + Sync {
    /// The function over the concatenation of `parts`.
    fn sign(&self, parts: &[&[u8]]) -> PrfOutput;
}

/// Output of a PRF: up to [`MAX_PRF_OUTPUT_LEN`] octets, kept inline and wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrfOutput {
    octets: [u8; MAX_PRF_OUTPUT_LEN],
    len: usize,
}

impl PrfOutput {
    /// Takes `octets` as output; `None` beyond [`MAX_PRF_OUTPUT_LEN`].
    pub fn new(octets: &[u8]) -> Option<Self> {
        let mut output = Self { octets: [0; MAX_PRF_OUTPUT_LEN], len: octets.len() };
        output.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(output)
    }
}

impl AsRef<[u8]> for PrfOutput {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// Constant-time.
impl PartialEq for PrfOutput {
    fn eq(&self, other: &Self) -> bool {
        crate::constant_time_eq(self.as_ref(), other.as_ref())
    }
}

impl Eq for PrfOutput {}

impl Debug for PrfOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrfOutput([redacted])")
    }
}

/// HMAC-SHA2 as a PRF.
#[derive(Debug)]
pub(crate) struct HmacPrf {
    id: PrfId,
    ring: &'static hmac::Algorithm,
    output_len: usize,
}

pub(crate) static PRF_HMAC_SHA2_256: HmacPrf =
    HmacPrf { id: PrfId::PRF_HMAC_SHA2_256, ring: &hmac::HMAC_SHA256, output_len: 32 };
pub(crate) static PRF_HMAC_SHA2_384: HmacPrf =
    HmacPrf { id: PrfId::PRF_HMAC_SHA2_384, ring: &hmac::HMAC_SHA384, output_len: 48 };
pub(crate) static PRF_HMAC_SHA2_512: HmacPrf =
    HmacPrf { id: PrfId::PRF_HMAC_SHA2_512, ring: &hmac::HMAC_SHA512, output_len: 64 };

impl Prf for HmacPrf {
    fn id(&self) -> PrfId {
        self.id
    }

    fn output_len(&self) -> usize {
        self.output_len
    }

    /// RFC 4868 §2.1.2: as long as the output.
    fn key_len(&self) -> usize {
        self.output_len
    }

    fn key(&self, key: &[u8]) -> Box<dyn PrfKey> {
        Box::new(HmacKey::new(*self.ring, key))
    }
}

impl PrfKey for HmacKey {
    fn sign(&self, parts: &[&[u8]]) -> PrfOutput {
        let tag = HmacKey::sign(self, parts.iter().copied());
        let mut output = PrfOutput { octets: [0; MAX_PRF_OUTPUT_LEN], len: 0 };
        for (to, from) in output.octets.iter_mut().zip(tag.as_ref()) {
            *to = *from;
            output.len = output.len.saturating_add(1);
        }
        output
    }
}

//= RFC 7296 §2.13: T1 = prf(K, S | 0x01), Tn = prf(K, Tn-1 | S | n)
/// prf+ (RFC 7296 §2.13): `len` octets from `key` and the concatenation of `seed`.
///
/// `T1 = prf(K, S | 1)`, `Tn = prf(K, Tn-1 | S | n)`.
///
/// # Errors
/// [`CryptoError::InvalidBufferLength`] beyond 255 blocks of output, where the counter octet would repeat.
pub fn prf_plus(key: &dyn PrfKey, seed: &[&[u8]], len: usize) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    // Full capacity at once, so that no half-filled copy of key material stays behind in a reallocation.
    let mut output = Zeroizing::new(Vec::with_capacity(len));
    let mut previous: Option<PrfOutput> = None;
    let mut counter = 0_u8;
    while output.len() < len {
        counter = counter.checked_add(1).ok_or(CryptoError::InvalidBufferLength)?;
        let counter_octet = [counter];
        let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len().saturating_add(2));
        parts.extend(previous.as_ref().map(AsRef::as_ref));
        parts.extend_from_slice(seed);
        parts.push(&counter_octet);
        let block = key.sign(&parts);
        let missing = len.saturating_sub(output.len());
        output.extend(block.as_ref().iter().take(missing));
        previous = Some(block);
    }
    Ok(output)
}

#[cfg(test)]
mod tests;
