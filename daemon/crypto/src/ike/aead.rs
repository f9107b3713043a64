//! AEADs for the SK payload: RFC 5282 (AES-GCM) and RFC 7634 §3 (ChaCha20-Poly1305).
//!
//! The IV counts up from a random number: within one
//! object it cannot repeat, and two objects of one key (a restored snapshot) would have to start close to each other.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use ike_wire::ids::EncryptionId;

use super::{IkeAead, IkeCipher, Integrity};
use crate::{
    CryptoError, SecureRandom,
    aead::{Algorithm, ICV_LEN, IV_LEN, SaltedKey},
};

/// Messages one key may seal. Message IDs end at 2^32 and a message has few fragments; what counts is that it is far
/// from the period of the IV.
const MAX_MESSAGES: u64 = 1 << 48;

/// An entry of the table.
#[derive(Debug)]
pub(crate) struct AeadCipher(pub(crate) &'static Algorithm);

impl IkeCipher for AeadCipher {
    fn id(&self) -> EncryptionId {
        self.0.id
    }

    fn key_bits(&self) -> Option<u16> {
        self.0.key_bits
    }

    fn key_len_with_salt(&self) -> usize {
        self.0.key_len_with_salt()
    }

    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn key(
        &self,
        encryption_key: &[u8],
        integrity: Option<(&'static dyn Integrity, &[u8])>,
    ) -> Result<Box<dyn IkeAead>, CryptoError> {
        if integrity.is_some() {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(Box::new(AeadKey {
            key: SaltedKey::new(self.0.ring, encryption_key)?,
            first_iv: OnceLock::new(),
            sealed: AtomicU64::new(0),
        }))
    }
}

/// One direction, keyed.
#[derive(Debug)]
struct AeadKey {
    key: SaltedKey,
    first_iv: OnceLock<u64>,
    sealed: AtomicU64,
}

impl AeadKey {
    fn next_iv(&self, random: &dyn SecureRandom) -> Result<[u8; IV_LEN], CryptoError> {
        let first = match self.first_iv.get() {
            Some(first) => *first,
            None => {
                let mut octets = [0; IV_LEN];
                random.fill(&mut octets)?;
                *self.first_iv.get_or_init(|| u64::from_be_bytes(octets))
            }
        };
        let sealed = self.sealed.fetch_add(1, Ordering::Relaxed);
        if sealed >= MAX_MESSAGES {
            return Err(CryptoError::KeyExhausted);
        }
        Ok(first.wrapping_add(sealed).to_be_bytes())
    }
}

impl IkeAead for AeadKey {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(
        &self,
        random: &dyn SecureRandom,
        aad: &[u8],
        iv: &mut [u8],
        body: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let iv: &mut [u8; IV_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        let icv: &mut [u8; ICV_LEN] = icv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        *iv = self.next_iv(random)?;
        let tag = self.key.seal(*iv, aad, body)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open(&self, aad: &[u8], iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        let iv = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        let icv: [u8; ICV_LEN] = icv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        self.key.open_detached(iv, aad, body, icv)
    }
}
