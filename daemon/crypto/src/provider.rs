//! The provider: tables of cryptographic parts, most preferred first.

use core::fmt::{self, Debug};

use ike_wire::ids::{EncryptionId, IntegrityId, KeyExchangeId, PrfId};

use crate::{
    EspCipher, IkeCipher, Integrity, KeyExchange, Prf, SecureRandom, SystemRandom, aead,
    esp::{AeadEspCipher, CbcEspCipher},
    ike::{AeadCipher, CbcCipher},
    integrity::{HMAC_SHA2_256_128, HMAC_SHA2_384_192, HMAC_SHA2_512_256},
    key_exchange::{ecdh, modp},
    prf::{PRF_HMAC_SHA2_256, PRF_HMAC_SHA2_384, PRF_HMAC_SHA2_512},
};

/// Everything cryptographic the daemon can do, as tables in order of preference.
///
/// A plain struct: a provider that lacks or replaces a part is made with struct update syntax from another one, for
/// example `CryptoProvider { key_exchanges: &[..], ..*ring_provider() }`.
#[derive(Clone, Copy)]
pub struct CryptoProvider {
    /// Ciphers for the SK payload.
    pub ike_ciphers: &'static [&'static dyn IkeCipher],
    /// Integrity algorithms for IKE ciphers that are no AEAD.
    pub integrity: &'static [&'static dyn Integrity],
    /// Pseudorandom functions.
    pub prfs: &'static [&'static dyn Prf],
    /// Key exchange methods.
    pub key_exchanges: &'static [&'static dyn KeyExchange],
    /// ESP ciphers, each with its integrity algorithm if it needs one.
    pub esp_ciphers: &'static [&'static dyn EspCipher],
    /// Source of random octets.
    pub random: &'static dyn SecureRandom,
}

impl CryptoProvider {
    /// The IKE cipher with this id and Key Length attribute; `None` for `key_bits` means that there is no attribute.
    pub fn ike_cipher(&self, id: EncryptionId, key_bits: Option<u16>) -> Option<&'static dyn IkeCipher> {
        self.ike_ciphers.iter().copied().find(|cipher| cipher.id() == id && cipher.key_bits() == key_bits)
    }

    /// The integrity algorithm with this id.
    pub fn integrity(&self, id: IntegrityId) -> Option<&'static dyn Integrity> {
        self.integrity.iter().copied().find(|integrity| integrity.id() == id)
    }

    /// The PRF with this id.
    pub fn prf(&self, id: PrfId) -> Option<&'static dyn Prf> {
        self.prfs.iter().copied().find(|prf| prf.id() == id)
    }

    /// The key exchange method with this id.
    pub fn key_exchange(&self, id: KeyExchangeId) -> Option<&'static dyn KeyExchange> {
        self.key_exchanges.iter().copied().find(|method| method.id() == id)
    }

    /// The ESP cipher with this id, Key Length attribute and integrity algorithm.
    ///
    /// [`IntegrityId::NONE`] counts as no integrity algorithm.
    pub fn esp_cipher(
        &self,
        encryption: EncryptionId,
        key_bits: Option<u16>,
        integrity: Option<IntegrityId>,
    ) -> Option<&'static dyn EspCipher> {
        let integrity = integrity.filter(|id| *id != IntegrityId::NONE);
        self.esp_ciphers.iter().copied().find(|cipher| {
            cipher.id() == encryption && cipher.key_bits() == key_bits && cipher.integrity_id() == integrity
        })
    }
}

/// The ids in their order of preference.
impl Debug for CryptoProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ike: Vec<_> = self.ike_ciphers.iter().map(|c| (c.id(), c.key_bits())).collect();
        let integrity: Vec<_> = self.integrity.iter().map(|i| i.id()).collect();
        let prfs: Vec<_> = self.prfs.iter().map(|p| p.id()).collect();
        let key_exchanges: Vec<_> = self.key_exchanges.iter().map(|k| k.id()).collect();
        let esp: Vec<_> = self.esp_ciphers.iter().map(|c| (c.id(), c.key_bits(), c.integrity_id())).collect();
        f.debug_struct("CryptoProvider")
            .field("ike_ciphers", &ike)
            .field("integrity", &integrity)
            .field("prfs", &prfs)
            .field("key_exchanges", &key_exchanges)
            .field("esp_ciphers", &esp)
            .field("random", &self.random)
            .finish()
    }
}

/// The default provider: *ring*, with RustCrypto for AES-CBC and the MODP groups.
pub fn ring_provider() -> &'static CryptoProvider {
    static PROVIDER: CryptoProvider = CryptoProvider {
        ike_ciphers: IKE_CIPHERS,
        integrity: &[&HMAC_SHA2_256_128, &HMAC_SHA2_384_192, &HMAC_SHA2_512_256],
        prfs: &[&PRF_HMAC_SHA2_256, &PRF_HMAC_SHA2_384, &PRF_HMAC_SHA2_512],
        key_exchanges: &[&ecdh::CURVE_25519, &ecdh::ECP_256, &ecdh::ECP_384, &modp::MODP_3072, &modp::MODP_2048],
        esp_ciphers: ESP_CIPHERS,
        random: &SystemRandom,
    };
    &PROVIDER
}

static IKE_CIPHERS: &[&dyn IkeCipher] = &[
    &AeadCipher(&aead::AES_GCM_16_256),
    &AeadCipher(&aead::AES_GCM_16_128),
    &AeadCipher(&aead::CHACHA20_POLY1305),
    &CbcCipher { key_bits: 256 },
    &CbcCipher { key_bits: 192 },
    &CbcCipher { key_bits: 128 },
];

static ESP_CIPHERS: &[&dyn EspCipher] = &[
    &AeadEspCipher(&aead::AES_GCM_16_256),
    &AeadEspCipher(&aead::AES_GCM_16_128),
    &AeadEspCipher(&aead::CHACHA20_POLY1305),
    &CbcEspCipher { key_bits: 256, integrity: &HMAC_SHA2_256_128 },
    &CbcEspCipher { key_bits: 256, integrity: &HMAC_SHA2_384_192 },
    &CbcEspCipher { key_bits: 256, integrity: &HMAC_SHA2_512_256 },
    &CbcEspCipher { key_bits: 192, integrity: &HMAC_SHA2_256_128 },
    &CbcEspCipher { key_bits: 192, integrity: &HMAC_SHA2_384_192 },
    &CbcEspCipher { key_bits: 192, integrity: &HMAC_SHA2_512_256 },
    &CbcEspCipher { key_bits: 128, integrity: &HMAC_SHA2_256_128 },
    &CbcEspCipher { key_bits: 128, integrity: &HMAC_SHA2_384_192 },
    &CbcEspCipher { key_bits: 128, integrity: &HMAC_SHA2_512_256 },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_find_exactly_what_was_negotiated() {
        let provider = ring_provider();
        let gcm = provider.ike_cipher(EncryptionId::AES_GCM_16, Some(128)).unwrap();
        assert_eq!((gcm.id(), gcm.key_bits(), gcm.key_len_with_salt()), (EncryptionId::AES_GCM_16, Some(128), 20));
        let chacha = provider.ike_cipher(EncryptionId::CHACHA20_POLY1305, None).unwrap();
        assert_eq!((chacha.key_len_with_salt(), chacha.iv_len(), chacha.is_aead()), (36, 8, true));
        // AES needs its Key Length attribute, ChaCha20 must not have one, and AES-GCM-192 is not in *ring*.
        assert!(provider.ike_cipher(EncryptionId::AES_GCM_16, None).is_none());
        assert!(provider.ike_cipher(EncryptionId::CHACHA20_POLY1305, Some(256)).is_none());
        assert!(provider.ike_cipher(EncryptionId::AES_GCM_16, Some(192)).is_none());
        assert!(provider.ike_cipher(EncryptionId::NULL, None).is_none());
        assert!(provider.prf(PrfId::PRF_HMAC_MD5).is_none());
        assert!(provider.key_exchange(KeyExchangeId::MODP_1024).is_none());
        assert!(provider.integrity(IntegrityId::NONE).is_none());
    }

    #[test]
    fn esp_ciphers_go_with_their_integrity() {
        let provider = ring_provider();
        let sha256 = Some(IntegrityId::HMAC_SHA2_256_128);
        assert!(provider.esp_cipher(EncryptionId::AES_GCM_16, Some(256), None).is_some());
        assert!(provider.esp_cipher(EncryptionId::AES_GCM_16, Some(256), Some(IntegrityId::NONE)).is_some());
        assert!(provider.esp_cipher(EncryptionId::AES_GCM_16, Some(256), sha256).is_none());
        let cbc = provider.esp_cipher(EncryptionId::AES_CBC, Some(256), sha256).unwrap();
        assert_eq!((cbc.key_len_with_salt(), cbc.integrity_key_len(), cbc.icv_len()), (32, 32, 16));
        assert!(provider.esp_cipher(EncryptionId::AES_CBC, Some(256), None).is_none());
        assert!(provider.esp_cipher(EncryptionId::NULL, None, sha256).is_none());
    }

    /// A lookup returns the entry itself, so no entry may hide behind another one.
    #[test]
    fn no_entry_is_listed_twice() {
        let provider = ring_provider();
        for cipher in provider.ike_ciphers {
            let matching = |other: &&&dyn IkeCipher| (other.id(), other.key_bits()) == (cipher.id(), cipher.key_bits());
            assert_eq!(provider.ike_ciphers.iter().filter(matching).count(), 1, "{cipher:?}");
        }
        for cipher in provider.esp_ciphers {
            let key = |cipher: &dyn EspCipher| (cipher.id(), cipher.key_bits(), cipher.integrity_id());
            let same = provider.esp_ciphers.iter().filter(|other| key(**other) == key(*cipher));
            assert_eq!(same.count(), 1, "{cipher:?}");
        }
    }

    #[test]
    fn debug_lists_ids() {
        let printed = format!("{:?}", ring_provider());
        assert!(printed.contains("key_exchanges") && printed.contains("SystemRandom"), "{printed}");
    }
}
