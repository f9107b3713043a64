//! Configured proposals: which algorithms may be negotiated, in order of preference.

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
