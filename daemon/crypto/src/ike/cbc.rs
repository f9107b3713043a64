//! AES-CBC with a separate integrity algorithm for the SK payload: encrypt, then MAC (RFC 7296 §3.14, RFC 3602).
//!
//! The ICV covers `aad`, IV and ciphertext, that is the whole message in front of it. The IV is random.

use ike_wire::ids::EncryptionId;

use super::{IkeAead, IkeCipher, Integrity, IntegrityKey};
use crate::{
    CryptoError, SecureRandom,
    cbc::{AesKey, BLOCK_LEN},
};

/// An entry of the table.
#[derive(Debug)]
pub(crate) struct CbcCipher {
    pub(crate) key_bits: u16,
}

impl IkeCipher for CbcCipher {
    fn id(&self) -> EncryptionId {
        EncryptionId::AES_CBC
    }

    fn key_bits(&self) -> Option<u16> {
        Some(self.key_bits)
    }

    fn key_len_with_salt(&self) -> usize {
        usize::from(self.key_bits / 8)
    }

    fn iv_len(&self) -> usize {
        BLOCK_LEN
    }

    fn is_aead(&self) -> bool {
        false
    }

    fn key(
        &self,
        encryption_key: &[u8],
        integrity: Option<(&'static dyn Integrity, &[u8])>,
    ) -> Result<Box<dyn IkeAead>, CryptoError> {
        let (algorithm, integrity_key) = integrity.ok_or(CryptoError::InvalidKeyLength)?;
        if encryption_key.len() != self.key_len_with_salt() {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(Box::new(CbcKey { aes: AesKey::new(encryption_key)?, mac: algorithm.key(integrity_key)? }))
    }
}

/// One direction, keyed.
#[derive(Debug)]
struct CbcKey {
    aes: AesKey,
    mac: Box<dyn IntegrityKey>,
}

impl IkeAead for CbcKey {
    fn iv_len(&self) -> usize {
        BLOCK_LEN
    }

    fn icv_len(&self) -> usize {
        self.mac.icv_len()
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn seal(
        &self,
        random: &dyn SecureRandom,
        aad: &[u8],
        iv: &mut [u8],
        body: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let iv: &mut [u8; BLOCK_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        random.fill(iv)?;
        self.aes.encrypt(*iv, body)?;
        self.mac.sign(&[aad, iv, body], icv)
    }

    fn open(&self, aad: &[u8], iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        let iv: &[u8; BLOCK_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        if !body.len().is_multiple_of(BLOCK_LEN) {
            return Err(CryptoError::InvalidBufferLength);
        }
        self.mac.verify(&[aad, iv, body], icv)?;
        self.aes.decrypt(*iv, body)
    }
}
