//! AES-CBC with an HMAC for ESP: RFC 3602, RFC 4868, RFC 4303 §3.3.2 (encrypt, then MAC).
//!
//! The ICV covers SPI, the low half of the sequence number, IV and ciphertext, and behind them the high half when
//! extended sequence numbers are in use (RFC 4303 §2.2.1).
//!
//! RFC 3602 §3 asks for an unpredictable IV. It is the sequence number encrypted under an AES key of its own, derived
//! from the SA's encryption key: no random octets and no state per packet, and without that key nobody can tell the
//! next IV from a random one. The same key must not do both jobs, so the IV key is HMAC-SHA2-256 over a fixed label,
//! keyed with the encryption key and cut to 16 octets.

use aes::{
    Aes128Enc,
    cipher::{BlockCipherEncrypt as _, KeyInit as _},
};
use ike_wire::ids::{EncryptionId, IntegrityId};
use ring::hmac;

use super::{EspCipher, EspKey};
use crate::{
    CryptoError,
    cbc::{AesKey, BLOCK_LEN},
    hmac::HmacKey,
    integrity::{HmacSha2, TruncatedHmac},
};

const IV_KEY_LABEL: &[u8] = b"ESP AES-CBC initialization vectors";

/// An entry of the table: a key length with an integrity algorithm.
#[derive(Debug)]
pub(crate) struct CbcEspCipher {
    pub(crate) key_bits: u16,
    pub(crate) integrity: &'static HmacSha2,
}

impl EspCipher for CbcEspCipher {
    fn id(&self) -> EncryptionId {
        EncryptionId::AES_CBC
    }

    fn key_bits(&self) -> Option<u16> {
        Some(self.key_bits)
    }

    fn integrity_id(&self) -> Option<IntegrityId> {
        Some(self.integrity.id)
    }

    fn key_len_with_salt(&self) -> usize {
        usize::from(self.key_bits / 8)
    }

    fn integrity_key_len(&self) -> usize {
        self.integrity.key_len
    }

    fn iv_len(&self) -> usize {
        BLOCK_LEN
    }

    fn icv_len(&self) -> usize {
        self.integrity.icv_len
    }

    fn block_alignment(&self) -> usize {
        BLOCK_LEN
    }

    fn key(&self, encryption_key: &[u8], integrity_key: &[u8]) -> Result<Box<dyn EspKey>, CryptoError> {
        if encryption_key.len() != self.key_len_with_salt() {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(Box::new(CbcEspKey {
            aes: AesKey::new(encryption_key)?,
            iv_key: iv_key(encryption_key)?,
            mac: self.integrity.truncated(integrity_key)?,
        }))
    }
}

fn iv_key(encryption_key: &[u8]) -> Result<Aes128Enc, CryptoError> {
    let derived = HmacKey::new(hmac::HMAC_SHA256, encryption_key).sign([IV_KEY_LABEL]);
    derived
        .as_ref()
        .get(..BLOCK_LEN)
        .and_then(|key| Aes128Enc::new_from_slice(key).ok())
        .ok_or(CryptoError::InvalidKeyLength)
}

/// The keys of one SA.
struct CbcEspKey {
    aes: AesKey,
    iv_key: Aes128Enc,
    mac: TruncatedHmac,
}

impl core::fmt::Debug for CbcEspKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CbcEspKey([redacted])")
    }
}

impl EspKey for CbcEspKey {
    fn iv_len(&self) -> usize {
        BLOCK_LEN
    }

    fn icv_len(&self) -> usize {
        self.mac.icv_len
    }

    fn block_alignment(&self) -> usize {
        BLOCK_LEN
    }

    fn seal_in_place(
        &self,
        sequence: u64,
        aad: &[u8],
        iv: &mut [u8],
        buffer: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let header = Covered::new(aad)?;
        let iv: &mut [u8; BLOCK_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        *iv = self.iv(sequence);
        self.aes.encrypt(*iv, buffer)?;
        self.mac.sign_parts(header.parts(iv, buffer), icv)
    }

    fn open_in_place<'a>(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext_and_icv: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let header = Covered::new(aad)?;
        let iv: &[u8; BLOCK_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        let ciphertext_len = ciphertext_and_icv.len().checked_sub(self.mac.icv_len).ok_or(CryptoError::Truncated)?;
        let (ciphertext, icv) =
            ciphertext_and_icv.split_at_mut_checked(ciphertext_len).ok_or(CryptoError::Truncated)?;
        if !ciphertext.len().is_multiple_of(BLOCK_LEN) {
            return Err(CryptoError::Truncated);
        }
        self.mac.verify_parts(header.parts(iv, ciphertext), icv)?;
        self.aes.decrypt(*iv, ciphertext)?;
        Ok(ciphertext)
    }

    fn explicit_iv(&self, sequence: u64, iv: &mut [u8]) -> Result<(), CryptoError> {
        let iv: &mut [u8; BLOCK_LEN] = iv.try_into().map_err(|_| CryptoError::InvalidBufferLength)?;
        *iv = self.iv(sequence);
        Ok(())
    }
}

impl CbcEspKey {
    fn iv(&self, sequence: u64) -> [u8; BLOCK_LEN] {
        let mut block = u128::from(sequence).to_be_bytes().into();
        self.iv_key.encrypt_block(&mut block);
        block.into()
    }
}

/// The authenticated header in the order of the MAC: SPI, low half, and at the very end the high half or nothing.
struct Covered<'a> {
    spi: &'a [u8],
    low: &'a [u8],
    high: &'a [u8],
}

impl<'a> Covered<'a> {
    fn new(aad: &'a [u8]) -> Result<Self, CryptoError> {
        let (spi, sequence) = aad.split_at_checked(4).ok_or(CryptoError::InvalidBufferLength)?;
        let (high, low) = match sequence.len() {
            4 => (&[][..], sequence),
            8 => sequence.split_at_checked(4).ok_or(CryptoError::InvalidBufferLength)?,
            _ => return Err(CryptoError::InvalidBufferLength),
        };
        Ok(Self { spi, low, high })
    }

    fn parts<'b>(&self, iv: &'b [u8], ciphertext: &'b [u8]) -> [&'b [u8]; 5]
    where
        'a: 'b,
    {
        [self.spi, self.low, iv, ciphertext, self.high]
    }
}
