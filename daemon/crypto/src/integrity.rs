//! HMAC-SHA2 integrity algorithms with truncated ICV (RFC 4868 §2.6): key as long as the hash, ICV half of it.

use ike_wire::ids::IntegrityId;
use ring::hmac;

use crate::{CryptoError, Integrity, IntegrityKey, constant_time_eq, hmac::HmacKey};

pub(crate) static HMAC_SHA2_256_128: HmacSha2 =
    HmacSha2 { id: IntegrityId::HMAC_SHA2_256_128, ring: &hmac::HMAC_SHA256, key_len: 32, icv_len: 16 };
pub(crate) static HMAC_SHA2_384_192: HmacSha2 =
    HmacSha2 { id: IntegrityId::HMAC_SHA2_384_192, ring: &hmac::HMAC_SHA384, key_len: 48, icv_len: 24 };
pub(crate) static HMAC_SHA2_512_256: HmacSha2 =
    HmacSha2 { id: IntegrityId::HMAC_SHA2_512_256, ring: &hmac::HMAC_SHA512, key_len: 64, icv_len: 32 };

/// One row of RFC 4868 §2.6.
#[derive(Debug)]
pub(crate) struct HmacSha2 {
    pub(crate) id: IntegrityId,
    ring: &'static hmac::Algorithm,
    pub(crate) key_len: usize,
    pub(crate) icv_len: usize,
}

impl HmacSha2 {
    pub(crate) fn truncated(&self, key: &[u8]) -> Result<TruncatedHmac, CryptoError> {
        if key.len() != self.key_len {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(TruncatedHmac { key: HmacKey::new(*self.ring, key), icv_len: self.icv_len })
    }
}

impl Integrity for HmacSha2 {
    fn id(&self) -> IntegrityId {
        self.id
    }

    fn key_len(&self) -> usize {
        self.key_len
    }

    fn icv_len(&self) -> usize {
        self.icv_len
    }

    fn key(&self, key: &[u8]) -> Result<Box<dyn IntegrityKey>, CryptoError> {
        Ok(Box::new(self.truncated(key)?))
    }
}

/// A keyed HMAC that shows only the first octets of its output.
#[derive(Debug)]
pub(crate) struct TruncatedHmac {
    key: HmacKey,
    pub(crate) icv_len: usize,
}

impl TruncatedHmac {
    /// Writes the ICV; `icv` has `icv_len` octets.
    pub(crate) fn sign_parts<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let tag = self.key.sign(parts);
        match tag.as_ref().get(..self.icv_len) {
            Some(truncated) if icv.len() == truncated.len() => icv.copy_from_slice(truncated),
            Some(_) | None => return Err(CryptoError::InvalidBufferLength),
        }
        Ok(())
    }

    /// Compares in constant time; an `icv` of another length never matches.
    pub(crate) fn verify_parts<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        let tag = self.key.sign(parts);
        match tag.as_ref().get(..self.icv_len) {
            Some(truncated) if constant_time_eq(truncated, icv) => Ok(()),
            Some(_) | None => Err(CryptoError::AuthenticationFailed),
        }
    }
}

impl IntegrityKey for TruncatedHmac {
    fn icv_len(&self) -> usize {
        self.icv_len
    }

    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) -> Result<(), CryptoError> {
        self.sign_parts(parts.iter().copied(), icv)
    }

    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> Result<(), CryptoError> {
        self.verify_parts(parts.iter().copied(), icv)
    }
}

#[cfg(test)]
mod tests;
