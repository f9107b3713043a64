//! ESP ciphers, the datapath's hot path.
//!
//! RFC 4303, RFC 4106 (AES-GCM), RFC 7634 (ChaCha20-Poly1305), RFC 3602 (AES-CBC) with RFC 4868 (HMAC-SHA2).
//! A keyed [`EspKey`] is shared by threads, takes `&self`, and neither allocates nor locks per packet.
//!
//! ```text
//! | SPI | sequence | IV | payload | padding | pad length | next header | ICV |
//!   aad (see below)  iv  |<----------------- buffer ------------------->| icv
//! ```
//!
//! `aad` is 8 octets (SPI, sequence number) without extended sequence numbers, or 12 (SPI, high 32 bits, low 32 bits)
//! with them, for every cipher alike; AES-CBC with an HMAC reorders it inside, because RFC 4303 §2.2.1 puts the high
//! bits *behind* the ciphertext there. Left to others: padding and trailer, sequence numbers and replay windows, how
//! many packets a key may protect.

mod aead;
mod cbc;

use core::fmt::Debug;

use ike_wire::ids::{EncryptionId, IntegrityId};

pub(crate) use aead::AeadEspCipher;
pub(crate) use cbc::CbcEspCipher;

use crate::CryptoError;

/// The longest explicit IV of any ESP cipher here, in octets.
pub const MAX_EXPLICIT_IV_LEN: usize = 16;

/// An ESP cipher of the provider's table: an AEAD, or a cipher with its integrity algorithm.
pub trait EspCipher: Debug + Send + Sync {
    /// The encryption transform id.
    fn id(&self) -> EncryptionId;

    /// The Key Length attribute in bits; `None` for a cipher with a fixed key, which takes no such attribute.
    fn key_bits(&self) -> Option<u16>;

    /// The integrity transform; `None` for an AEAD.
    fn integrity_id(&self) -> Option<IntegrityId>;

    /// Octets of encryption key taken from KEYMAT, with the salt that an AEAD takes from their end.
    fn key_len_with_salt(&self) -> usize;

    /// Octets of integrity key taken from KEYMAT behind the encryption key; 0 for an AEAD.
    fn integrity_key_len(&self) -> usize;

    /// Octets of the explicit IV in each packet.
    fn iv_len(&self) -> usize;

    /// Octets of the ICV in each packet.
    fn icv_len(&self) -> usize;

    /// What is encrypted (payload, padding and the two trailer octets) is a multiple of this; 4 at least.
    fn block_alignment(&self) -> usize;

    /// Keys one SA.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKeyLength`].
    fn key(&self, encryption_key: &[u8], integrity_key: &[u8]) -> Result<Box<dyn EspKey>, CryptoError>;
}

/// The keys of one ESP SA.
pub trait EspKey: Debug + Send + Sync {
    /// Octets of the explicit IV.
    fn iv_len(&self) -> usize;

    /// Octets of the ICV.
    fn icv_len(&self) -> usize;

    /// Multiple that the encrypted octets are padded to.
    fn block_alignment(&self) -> usize;

    /// Encrypts `buffer` in place, and writes the explicit IV and the ICV of the packet.
    ///
    /// `sequence` is the packet's full 64-bit sequence number (also without extended sequence numbers, where its high
    /// half is 0). The IV is made from it, so a number must never be used twice with one key: an AEAD loses all its
    /// promises then. `iv` has [`Self::iv_len`] and `icv` [`Self::icv_len`] octets.
    ///
    /// # Errors
    /// [`CryptoError::InvalidBufferLength`] when a slice does not have the length described.
    fn seal_in_place(
        &self,
        sequence: u64,
        aad: &[u8],
        iv: &mut [u8],
        buffer: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError>;

    /// Checks the ICV behind the ciphertext, then decrypts in place and returns the plaintext, trailer included.
    ///
    /// After an error the ciphertext may be overwritten.
    ///
    /// # Errors
    /// [`CryptoError::Truncated`], [`CryptoError::AuthenticationFailed`]; [`CryptoError::InvalidBufferLength`] for a wrong
    /// length of `iv` or `aad`.
    fn open_in_place<'a>(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext_and_icv: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError>;

    /// Writes the explicit IV that [`Self::seal_in_place`] makes from `sequence`, for engines that encrypt elsewhere.
    ///
    /// # Errors
    /// [`CryptoError::InvalidBufferLength`].
    fn explicit_iv(&self, sequence: u64, iv: &mut [u8]) -> Result<(), CryptoError>;
}

#[cfg(test)]
mod tests;
