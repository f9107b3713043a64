//! AEADs for ESP: AES-GCM with a 16-octet ICV (RFC 4106) and ChaCha20-Poly1305 (RFC 7634 §2).
//!
//! The explicit IV is the 64-bit sequence number, which the datapath never repeats under one key.

use ike_wire::ids::{EncryptionId, IntegrityId};

use super::{EspCipher, EspKey};
use crate::{
    CryptoError,
    aead::{Algorithm, ICV_LEN, IV_LEN, SaltedKey},
};

/// RFC 4303 §2.4: the next header field ends on a 4-octet boundary, whatever the cipher.
const ALIGNMENT: usize = 4;

/// An entry of the table.
#[derive(Debug)]
pub(crate) struct AeadEspCipher(pub(crate) &'static Algorithm);

impl EspCipher for AeadEspCipher {
    fn id(&self) -> EncryptionId {
        self.0.id
    }

    fn key_bits(&self) -> Option<u16> {
        self.0.key_bits
    }

    fn integrity_id(&self) -> Option<IntegrityId> {
        None
    }

    fn key_len_with_salt(&self) -> usize {
        self.0.key_len_with_salt()
    }

    fn integrity_key_len(&self) -> usize {
        0
    }

    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_alignment(&self) -> usize {
        ALIGNMENT
    }

    fn key(&self, encryption_key: &[u8], integrity_key: &[u8]) -> Result<Box<dyn EspKey>, CryptoError> {
        if !integrity_key.is_empty() {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(Box::new(AeadEspKey(SaltedKey::new(self.0.ring, encryption_key)?)))
    }
}

/// The key of one SA.
#[derive(Debug)]
struct AeadEspKey(SaltedKey);

impl EspKey for AeadEspKey {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_alignment(&self) -> usize {
        ALIGNMENT
    }

    fn seal_in_place(
        &self,
        sequence: u64,
        aad: &[u8],
        iv: &mut [u8],
        buffer: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        check_aad(aad)?;
        let icv: &mut [u8; ICV_LEN] = icv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        self.explicit_iv(sequence, iv)?;
        let tag = self.0.seal(sequence.to_be_bytes(), aad, buffer)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open_in_place<'a>(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext_and_icv: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        check_aad(aad)?;
        let iv: [u8; IV_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        if ciphertext_and_icv.len() < ICV_LEN {
            return Err(CryptoError::Truncated);
        }
        self.0.open(iv, aad, ciphertext_and_icv)
    }

    fn explicit_iv(&self, sequence: u64, iv: &mut [u8]) -> Result<(), CryptoError> {
        let iv: &mut [u8; IV_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        *iv = sequence.to_be_bytes();
        Ok(())
    }
}

/// RFC 4106 §5: SPI and sequence number, 32 or 64 bits of it.
fn check_aad(aad: &[u8]) -> Result<(), CryptoError> {
    match aad.len() {
        8 | 12 => Ok(()),
        _ => Err(CryptoError::InvalidBufferLength),
    }
}
