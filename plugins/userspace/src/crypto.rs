//! From the transforms of an SAD entry to a keyed cipher of the crypto provider.

use ike_crypto::{EspCipher, EspKey, ring_provider};
use ipsec::{EspAlgorithm, EspEncryption, EspIntegrity, KeyMaterial, OffloadError};

/// Every algorithm the datapath can run, in the provider's order of preference.
pub(crate) fn algorithms() -> Vec<EspAlgorithm> {
    ring_provider()
        .esp_ciphers
        .iter()
        .filter_map(|cipher| {
            EspAlgorithm::from_ids(cipher.id().0, cipher.key_bits(), cipher.integrity_id().map(|id| id.0))
        })
        .collect()
}

/// Keys one SA direction.
pub(crate) fn key(algorithm: EspAlgorithm, material: &KeyMaterial) -> Result<Box<dyn EspKey>, OffloadError> {
    if !material.fits(algorithm) {
        return Err(OffloadError::Invalid(format!("key length does not fit {algorithm:?}")));
    }
    let integrity = material.integrity.as_ref().map_or(&[][..], |key| key);
    cipher(algorithm)
        .ok_or_else(|| OffloadError::Invalid(format!("no cipher for {algorithm:?}")))?
        .key(&material.encryption, integrity)
        .map_err(|error| OffloadError::Invalid(error.to_string()))
}

fn cipher(algorithm: EspAlgorithm) -> Option<&'static dyn EspCipher> {
    ring_provider().esp_ciphers.iter().copied().find(|cipher| {
        cipher.id().0 == algorithm.encryption.id()
            && (cipher.key_bits() == algorithm.encryption.key_bits()
                || algorithm.encryption == EspEncryption::ChaCha20Poly1305)
            && cipher.integrity_id().map(|id| id.0) == algorithm.integrity.map(EspIntegrity::id)
    })
}
