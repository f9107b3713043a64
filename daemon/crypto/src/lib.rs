//! Cryptography for IKEv2 and ESP behind one table of parts, [`CryptoProvider`].
//!
//! A provider is a plain struct of preference-ordered tables: IKE ciphers, integrity algorithms, PRFs, key exchange
//! methods, ESP ciphers and a source of random octets, each part looked up by its IANA transform id. What a table
//! does not list cannot be negotiated. [`ring_provider`] is the default: *ring* does AES-GCM, ChaCha20-Poly1305,
//! HMAC-SHA2, X25519, P-256 and P-384; AES-CBC and the MODP groups, which *ring* lacks, come from RustCrypto.
//!
//! | trait | keyed object | RFC |
//! |---|---|---|
//! | [`Prf`] | [`PrfKey`], [`prf_plus`] | 7296 §2.13, 4868 |
//! | [`IkeCipher`] (with [`Integrity`]) | [`IkeAead`]: one call for AEAD and for encrypt-then-MAC | 7296 §3.14, 5282, 7634, 4868 |
//! | [`KeyExchange`] | [`StartedKeyExchange`], [`SharedSecret`] | 7296 §3.4, 8031, 5903, 3526 |
//! | [`EspCipher`] | [`EspKey`]: no allocation and no lock per packet | 4303, 4106, 7634, 3602, 4868 |
//! | [`SecureRandom`] | - | 4086 |
//!
//! Secrets are wiped when dropped (but for the private values inside *ring*), print as `[redacted]`, and are compared in
//! constant time. Nothing here reads a clock, starts a thread or touches a socket. Left to others: the key schedule and
//! AUTH payloads (`ike-sa`), signatures and certificates (`ike-pki`), where octets sit in a message (`ike-wire`) or a
//! packet (the datapath).
#![forbid(unsafe_code)]

mod aead;
mod cbc;
mod error;
mod esp;
mod hash;
mod hmac;
mod ike;
mod integrity;
mod key_exchange;
mod prf;
mod provider;
mod random;
mod self_test;
#[cfg(feature = "test-provider")]
mod test_provider;

pub use error::CryptoError;
pub use esp::{EspCipher, EspKey, MAX_EXPLICIT_IV_LEN};
pub use hash::{constant_time_eq, sha1};
pub use ike::{IkeAead, IkeCipher, Integrity, IntegrityKey};
pub use key_exchange::{Cost, KeyExchange, SharedSecret, StartedKeyExchange};
pub use prf::{MAX_PRF_OUTPUT_LEN, Prf, PrfKey, PrfOutput, prf_plus};
pub use provider::{CryptoProvider, ring_provider};
pub use random::{SecureRandom, SystemRandom};
#[cfg(feature = "test-provider")]
pub use test_provider::{InsecureKeyExchange, InsecureRandom, insecure_test_provider};
