//! ESP transforms and the keys that go with them.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Encryption transform of an ESP SA (IANA IKEv2 transform type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EspEncryption {
    /// AES-GCM with a 16-octet ICV (RFC 4106); key length in bits, salt not counted: 128, 192 or 256.
    AesGcm16(u16),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC (RFC 3602), always with an integrity transform; key length in bits: 128, 192 or 256.
    AesCbc(u16),
}

/// Integrity transform of an ESP SA (IANA IKEv2 transform type 3), for ciphers that are not AEADs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EspIntegrity {
    /// HMAC-SHA2-256-128 (RFC 4868).
    HmacSha2_256_128,
    /// HMAC-SHA2-384-192 (RFC 4868).
    HmacSha2_384_192,
    /// HMAC-SHA2-512-256 (RFC 4868).
    HmacSha2_512_256,
}

/// The pair of transforms an ESP SA runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EspAlgorithm {
    /// Encryption, or the AEAD.
    pub encryption: EspEncryption,
    /// Integrity; `None` exactly when the encryption is an AEAD.
    pub integrity: Option<EspIntegrity>,
}

impl EspEncryption {
    /// IANA transform id.
    pub const fn id(self) -> u16 {
        match self {
            Self::AesCbc(_) => 12,
            Self::AesGcm16(_) => 20,
            Self::ChaCha20Poly1305 => 28,
        }
    }

    /// Key length attribute as negotiated, in bits; `None` where the transform has a fixed length.
    pub const fn key_bits(self) -> Option<u16> {
        match self {
            Self::AesCbc(bits) | Self::AesGcm16(bits) => Some(bits),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// Octets of keying material taken from KEYMAT, the four salt octets of an AEAD included (RFC 4106 §8.1, RFC 7634 §2).
    pub const fn keymat_octets(self) -> usize {
        match self {
            Self::AesCbc(bits) => bits as usize / 8,
            Self::AesGcm16(bits) => bits as usize / 8 + 4,
            Self::ChaCha20Poly1305 => 36,
        }
    }

    /// Whether the transform authenticates by itself.
    pub const fn is_aead(self) -> bool {
        match self {
            Self::AesCbc(_) => false,
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => true,
        }
    }
}

impl EspIntegrity {
    /// IANA transform id.
    pub const fn id(self) -> u16 {
        match self {
            Self::HmacSha2_256_128 => 12,
            Self::HmacSha2_384_192 => 13,
            Self::HmacSha2_512_256 => 14,
        }
    }

    /// Octets of keying material taken from KEYMAT.
    pub const fn keymat_octets(self) -> usize {
        match self {
            Self::HmacSha2_256_128 => 32,
            Self::HmacSha2_384_192 => 48,
            Self::HmacSha2_512_256 => 64,
        }
    }
}

impl EspAlgorithm {
    /// AES-GCM-16 with a 128-bit key.
    pub const AES_128_GCM: Self = Self { encryption: EspEncryption::AesGcm16(128), integrity: None };
    /// AES-GCM-16 with a 256-bit key.
    pub const AES_256_GCM: Self = Self { encryption: EspEncryption::AesGcm16(256), integrity: None };
    /// ChaCha20-Poly1305.
    pub const CHACHA20_POLY1305: Self = Self { encryption: EspEncryption::ChaCha20Poly1305, integrity: None };

    /// The algorithm for a negotiated combination of IANA ids, or nothing when it is not one an ESP SA can be made of here.
    pub fn from_ids(encryption: u16, key_bits: Option<u16>, integrity: Option<u16>) -> Option<Self> {
        let encryption = match (encryption, key_bits) {
            (12, Some(bits @ (128 | 192 | 256))) => EspEncryption::AesCbc(bits),
            (20, Some(bits @ (128 | 192 | 256))) => EspEncryption::AesGcm16(bits),
            (28, None | Some(256)) => EspEncryption::ChaCha20Poly1305,
            _ => return None,
        };
        let integrity = match integrity {
            None | Some(0) => None,
            Some(12) => Some(EspIntegrity::HmacSha2_256_128),
            Some(13) => Some(EspIntegrity::HmacSha2_384_192),
            Some(14) => Some(EspIntegrity::HmacSha2_512_256),
            Some(_) => return None,
        };
        (encryption.is_aead() == integrity.is_none()).then_some(Self { encryption, integrity })
    }

    /// Length of the integrity check value in bits.
    pub const fn icv_bits(self) -> u16 {
        match self.integrity {
            None | Some(EspIntegrity::HmacSha2_256_128) => 128,
            Some(EspIntegrity::HmacSha2_384_192) => 192,
            Some(EspIntegrity::HmacSha2_512_256) => 256,
        }
    }
}

impl fmt::Display for EspAlgorithm {
    /// As in `esp_proposals`: `aes256gcm16`, `aes128-sha256`, `chacha20poly1305`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encryption {
            EspEncryption::AesGcm16(bits) => write!(f, "aes{bits}gcm16"),
            EspEncryption::ChaCha20Poly1305 => f.write_str("chacha20poly1305"),
            EspEncryption::AesCbc(bits) => write!(f, "aes{bits}"),
        }?;
        match self.integrity {
            None => Ok(()),
            Some(EspIntegrity::HmacSha2_256_128) => f.write_str("-sha256"),
            Some(EspIntegrity::HmacSha2_384_192) => f.write_str("-sha384"),
            Some(EspIntegrity::HmacSha2_512_256) => f.write_str("-sha512"),
        }
    }
}

/// Keys of one SA direction. Wiped on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMaterial {
    /// Encryption key followed by the salt of an AEAD; [`EspEncryption::keymat_octets`] long.
    pub encryption: Zeroizing<Box<[u8]>>,
    /// Integrity key; [`EspIntegrity::keymat_octets`] long.
    pub integrity: Option<Zeroizing<Box<[u8]>>>,
}

impl KeyMaterial {
    /// Copies the keys of one direction.
    pub fn new(encryption: &[u8], integrity: Option<&[u8]>) -> Self {
        Self {
            encryption: Zeroizing::new(encryption.into()),
            integrity: integrity.map(|key| Zeroizing::new(key.into())),
        }
    }

    /// Whether the lengths are those `algorithm` needs.
    pub fn fits(&self, algorithm: EspAlgorithm) -> bool {
        self.encryption.len() == algorithm.encryption.keymat_octets()
            && self.integrity.as_ref().map(|key| key.len()) == algorithm.integrity.map(EspIntegrity::keymat_octets)
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
