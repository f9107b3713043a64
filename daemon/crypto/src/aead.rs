//! Salted AEADs on *ring*, shared by IKE and ESP: the nonce is a secret salt and the explicit IV.
//!
//! RFC 4106 §4 and RFC 5282 §4 (AES-GCM), RFC 7634 §2 (ChaCha20-Poly1305): 4 octets of salt from the end of the key
//! material, 8 octets of IV, 16 octets of ICV.

use core::{
    fmt::{self, Debug},
    hint::black_box,
};

use ike_wire::ids::EncryptionId;
use ring::aead::{self, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::CryptoError;

pub(crate) const SALT_LEN: usize = 4;
pub(crate) const IV_LEN: usize = 8;
pub(crate) const ICV_LEN: usize = 16;

/// An AEAD as both tables list it.
#[derive(Debug)]
pub(crate) struct Algorithm {
    pub(crate) id: EncryptionId,
    pub(crate) key_bits: Option<u16>,
    pub(crate) ring: &'static aead::Algorithm,
}

impl Algorithm {
    pub(crate) fn key_len_with_salt(&self) -> usize {
        self.ring.key_len().saturating_add(SALT_LEN)
    }
}

pub(crate) static AES_GCM_16_128: Algorithm =
    Algorithm { id: EncryptionId::AES_GCM_16, key_bits: Some(128), ring: &aead::AES_128_GCM };
pub(crate) static AES_GCM_16_256: Algorithm =
    Algorithm { id: EncryptionId::AES_GCM_16, key_bits: Some(256), ring: &aead::AES_256_GCM };
pub(crate) static CHACHA20_POLY1305: Algorithm =
    Algorithm { id: EncryptionId::CHACHA20_POLY1305, key_bits: None, ring: &aead::CHACHA20_POLY1305 };

/// Key and salt of one SA.
pub(crate) struct SaltedKey {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl SaltedKey {
    /// Takes the key with the salt at its end.
    pub(crate) fn new(algorithm: &'static aead::Algorithm, key_with_salt: &[u8]) -> Result<Self, CryptoError> {
        let (key, salt) = key_with_salt.split_last_chunk().ok_or(CryptoError::InvalidKeyLength)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::InvalidKeyLength)?;
        Ok(Self { key: LessSafeKey::new(key), salt: *salt })
    }

    /// Encrypts in place and returns the ICV.
    pub(crate) fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], in_out: &mut [u8]) -> Result<Tag, CryptoError> {
        // *ring* refuses only inputs of many gigabytes.
        self.key
            .seal_in_place_separate_tag(self.nonce(iv), Aad::from(aad), in_out)
            .map_err(|_| CryptoError::InvalidBufferLength)
    }

    /// Checks and decrypts in place; the ICV is the end of `in_out`.
    pub(crate) fn open<'a>(
        &self,
        iv: [u8; IV_LEN],
        aad: &[u8],
        in_out: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        self.key.open_in_place(self.nonce(iv), Aad::from(aad), in_out).map_err(|_| CryptoError::AuthenticationFailed)
    }

    /// Checks and decrypts in place; the ICV stands elsewhere.
    pub(crate) fn open_detached(
        &self,
        iv: [u8; IV_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        icv: [u8; ICV_LEN],
    ) -> Result<(), CryptoError> {
        self.key
            .open_in_place_separate_tag(self.nonce(iv), Aad::from(aad), Tag::from(icv), in_out, 0..)
            .map(|_| ())
            .map_err(|_| CryptoError::AuthenticationFailed)
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let ([s0, s1, s2, s3], [i0, i1, i2, i3, i4, i5, i6, i7]) = (self.salt, iv);
        Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
    }
}

/// *ring* does not wipe its keys, so the schedule of an all-zero key is put in their place; `black_box` keeps the
/// compiler from leaving that out because nobody reads it.
impl Drop for SaltedKey {
    fn drop(&mut self) {
        let zero = [0; 32];
        let algorithm = self.key.algorithm();
        if let Some(Ok(key)) = zero.get(..algorithm.key_len()).map(|zero| UnboundKey::new(algorithm, zero)) {
            self.key = LessSafeKey::new(key);
        }
        self.salt = [0; SALT_LEN];
        black_box(&self.key);
        black_box(&self.salt);
    }
}

impl Debug for SaltedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedKey([redacted])")
    }
}

#[cfg(test)]
mod tests;
