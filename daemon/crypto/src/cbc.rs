//! AES-CBC in place on RustCrypto's `aes` and `cbc`, shared by IKE and ESP.
//!
//! RFC 3602, without integrity and without padding: both are the business of the callers. The key schedules wipe
//! themselves.

use core::fmt::{self, Debug};

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, InnerIvInit as _},
    cipher::{BlockSizeUser, KeyInit as _, array::Array, consts::U16},
};

use crate::CryptoError;

/// Octets of a block and of the IV.
pub(crate) const BLOCK_LEN: usize = 16;

/// An AES key of one of the three lengths, expanded for both directions.
pub(crate) enum AesKey {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl AesKey {
    pub(crate) fn new(key: &[u8]) -> Result<Self, CryptoError> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Self::Aes128),
            24 => Aes192::new_from_slice(key).map(Self::Aes192),
            _ => Aes256::new_from_slice(key).map(Self::Aes256),
        }
        .map_err(|_| CryptoError::InvalidKeyLength)
    }

    /// Encrypts whole blocks.
    pub(crate) fn encrypt(&self, iv: [u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        match self {
            Self::Aes128(aes) => encrypt(aes, iv, in_out),
            Self::Aes192(aes) => encrypt(aes, iv, in_out),
            Self::Aes256(aes) => encrypt(aes, iv, in_out),
        }
    }

    /// Decrypts whole blocks.
    pub(crate) fn decrypt(&self, iv: [u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        match self {
            Self::Aes128(aes) => decrypt(aes, iv, in_out),
            Self::Aes192(aes) => decrypt(aes, iv, in_out),
            Self::Aes256(aes) => decrypt(aes, iv, in_out),
        }
    }
}

impl Debug for AesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesKey([redacted])")
    }
}

fn encrypt<C>(aes: &C, iv: [u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let blocks = whole_blocks(in_out)?;
    cbc::Encryptor::inner_iv_init(aes, &iv.into()).encrypt_blocks(blocks);
    Ok(())
}

fn decrypt<C>(aes: &C, iv: [u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let blocks = whole_blocks(in_out)?;
    cbc::Decryptor::inner_iv_init(aes, &iv.into()).decrypt_blocks(blocks);
    Ok(())
}

fn whole_blocks(octets: &mut [u8]) -> Result<&mut [Array<u8, U16>], CryptoError> {
    match Array::slice_as_chunks_mut(octets) {
        (blocks, []) => Ok(blocks),
        (_, _) => Err(CryptoError::InvalidBufferLength),
    }
}

#[cfg(test)]
mod tests;
