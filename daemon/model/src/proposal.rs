//! Configured proposals: which algorithms may be negotiated, in order of preference.

use std::fmt;

use ike_wire::ids::{EncryptionId, EsnId, IntegrityId, KeyExchangeId, PrfId};
use serde::{Deserialize, Serialize};

/// An encryption transform with its key length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encryption {
    /// IANA transform id.
    pub id: EncryptionId,
    /// Key length attribute in bits, where the transform has one.
    pub key_bits: Option<u16>,
}

/// One proposal for an IKE SA. Within each list the first is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeProposal {
    /// Encryption transforms: all AEADs, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity transforms; empty with AEADs.
    pub integrity: Vec<IntegrityId>,
    /// Pseudorandom functions.
    pub prf: Vec<PrfId>,
    /// Key exchange methods.
    pub key_exchange: Vec<KeyExchangeId>,
}

/// One proposal for an ESP SA. Within each list the first is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspProposal {
    /// Encryption transforms: all AEADs, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity transforms; empty with AEADs.
    pub integrity: Vec<IntegrityId>,
    /// Key exchange methods for forward secrecy on rekey; empty = none, and `KeyExchangeId::NONE` beside others = optional.
    pub key_exchange: Vec<KeyExchangeId>,
    /// Extended sequence numbers; never empty.
    pub esn: Vec<EsnId>,
}

/// What was negotiated for an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IkeAlgorithms {
    /// Encryption transform id.
    pub encryption: u16,
    /// Its key length in bits.
    pub key_bits: Option<u16>,
    /// Integrity transform id; `None` with an AEAD.
    pub integrity: Option<u16>,
    /// Pseudorandom function id.
    pub prf: u16,
    /// Key exchange method id.
    pub key_exchange: u16,
}

/// What was negotiated for a CHILD SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EspAlgorithms {
    /// Encryption transform id.
    pub encryption: u16,
    /// Its key length in bits.
    pub key_bits: Option<u16>,
    /// Integrity transform id; `None` with an AEAD.
    pub integrity: Option<u16>,
    /// Key exchange method id; `None` when the keys come from the IKE SA alone.
    pub key_exchange: Option<u16>,
    /// Extended sequence numbers.
    pub esn: bool,
}

impl fmt::Display for IkeAlgorithms {
    /// Names of the registry: `AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cipher(f, self.encryption, self.key_bits, self.integrity)?;
        write!(f, "/{}/{}", PrfId(self.prf), KeyExchangeId(self.key_exchange))
    }
}

impl fmt::Display for EspAlgorithms {
    /// Names of the registry: `AES_CBC-128/HMAC_SHA2_256_128/CURVE_25519/ESN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cipher(f, self.encryption, self.key_bits, self.integrity)?;
        if let Some(method) = self.key_exchange {
            write!(f, "/{}", KeyExchangeId(method))?;
        }
        if self.esn { f.write_str("/ESN") } else { Ok(()) }
    }
}

fn cipher(f: &mut fmt::Formatter<'_>, encryption: u16, key_bits: Option<u16>, integrity: Option<u16>) -> fmt::Result {
    write!(f, "{}", EncryptionId(encryption))?;
    if let Some(bits) = key_bits {
        write!(f, "-{bits}")?;
    }
    integrity.map_or(Ok(()), |integrity| write!(f, "/{}", IntegrityId(integrity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_negotiated_has_the_names_of_the_registry() {
        let mut esp =
            EspAlgorithms { encryption: 20, key_bits: Some(256), integrity: None, key_exchange: Some(31), esn: true };
        assert_eq!(esp.to_string(), "AES_GCM_16-256/CURVE_25519/ESN");
        (esp.integrity, esp.key_exchange, esp.esn) = (Some(12), None, false);
        assert_eq!(esp.to_string(), "AES_GCM_16-256/HMAC_SHA2_256_128");
        let ike = IkeAlgorithms { encryption: 28, key_bits: None, integrity: None, prf: 5, key_exchange: 60_000 };
        assert_eq!(ike.to_string(), "CHACHA20_POLY1305/PRF_HMAC_SHA2_256/(60000)");
    }
}
