//! Protection of IKE messages: the Encrypted (SK) payload.
//!
//! RFC 7296 §3.14, RFC 5282 (AES-GCM), RFC 7634 (ChaCha20-Poly1305), RFC 4868 (HMAC-SHA2). An AEAD and the pair of
//! AES-CBC and an HMAC (encrypt, then MAC) are one and the same [`IkeAead`] to the caller.
//!
//! ```text
//!              aad                 iv                 body                  icv
//! |<---------------------------->|<-->|<------------------------------->|<----->|
//! | IKE header | ... | SK header | IV | payloads | padding | pad length | ICV   |
//! ```
//!
//! These are the parts of `ike_wire`'s `SkBuffer`. `aad` runs from the first octet of the IKE header to the IV. The lengths in
//! it are authenticated, so they must be final before sealing. Fragments (RFC 7383) use the same calls.
//! Left to others: where the parts stand in a message, and padding, which is laid out before sealing and removed after
//! opening (both `ike-wire`). A cipher never pads: it only insists on whole blocks.

mod aead;
mod cbc;

use core::fmt::Debug;

use ike_wire::ids::{EncryptionId, IntegrityId};

pub(crate) use aead::AeadCipher;
pub(crate) use cbc::CbcCipher;

use crate::{CryptoError, SecureRandom};

/// A cipher for the SK payload: an AEAD, or one that needs an [`Integrity`] beside it.
pub trait IkeCipher: Debug + Send + Sync {
    /// The transform id (transform type 1).
    fn id(&self) -> EncryptionId;

    /// The Key Length attribute in bits; `None` for a cipher with a fixed key, which takes no such attribute.
    fn key_bits(&self) -> Option<u16>;

    /// Octets of SK_ei and SK_er, with the salt that an AEAD takes from their end.
    fn key_len_with_salt(&self) -> usize;

    /// Octets of the explicit IV.
    fn iv_len(&self) -> usize;

    /// Whether the cipher brings its own integrity check; then no integrity transform is negotiated.
    fn is_aead(&self) -> bool;

    /// Keys one direction. Build one object per key and direction: it counts the IVs it has used.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKeyLength`], also when an AEAD gets an integrity algorithm or another cipher gets none.
    fn key(
        &self,
        encryption_key: &[u8],
        integrity: Option<(&'static dyn Integrity, &[u8])>,
    ) -> Result<Box<dyn IkeAead>, CryptoError>;
}

/// One direction of an IKE SA, keyed. See the module's picture for `aad`, `iv`, `body` and `icv`.
pub trait IkeAead: Debug + Send + Sync {
    /// Octets of the explicit IV.
    fn iv_len(&self) -> usize;

    /// Octets of the ICV.
    fn icv_len(&self) -> usize;

    /// Payloads, padding and pad length together are a multiple of this; 1 where there are no blocks.
    fn block_len(&self) -> usize;

    /// Encrypts `body` in place, and writes the IV and the ICV.
    ///
    /// `random` serves AES-CBC for each IV, and an AEAD once, for where its IVs start counting.
    ///
    /// # Errors
    /// [`CryptoError::InvalidBufferLength`], [`CryptoError::RandomUnavailable`], [`CryptoError::KeyExhausted`].
    fn seal(
        &self,
        random: &dyn SecureRandom,
        aad: &[u8],
        iv: &mut [u8],
        body: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError>;

    /// Checks the ICV, then decrypts `body` in place, padding included.
    ///
    /// After an error `body` holds nothing to be looked at.
    ///
    /// # Errors
    /// [`CryptoError::AuthenticationFailed`], [`CryptoError::InvalidBufferLength`].
    fn open(&self, aad: &[u8], iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), CryptoError>;
}

/// An integrity algorithm of the provider's table, for ciphers that are no AEAD.
pub trait Integrity: Debug + Send + Sync {
    /// The transform id (transform type 3).
    fn id(&self) -> IntegrityId;

    /// Octets of SK_ai and SK_ar, and of an ESP integrity key.
    fn key_len(&self) -> usize;

    /// Octets of the (truncated) ICV.
    fn icv_len(&self) -> usize;

    /// Keys the algorithm.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKeyLength`].
    fn key(&self, key: &[u8]) -> Result<Box<dyn IntegrityKey>, CryptoError>;
}

/// A keyed [`Integrity`].
pub trait IntegrityKey: Debug + Send + Sync {
    /// Octets of the ICV.
    fn icv_len(&self) -> usize;

    /// Writes the ICV over the concatenation of `parts`; `icv` has [`Self::icv_len`] octets.
    ///
    /// # Errors
    /// [`CryptoError::InvalidBufferLength`].
    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) -> Result<(), CryptoError>;

    /// Compares `icv` in constant time.
    ///
    /// # Errors
    /// [`CryptoError::AuthenticationFailed`].
    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> Result<(), CryptoError>;
}

#[cfg(test)]
mod tests;
