//! The self-test passes what is right and finds each kind of wrong part.

use super::*;
use crate::{EspKey, IkeAead, IntegrityKey, PrfKey, ring_provider};

#[test]
fn default_provider_passes() {
    assert_eq!(ring_provider().self_test(), Ok(()));
}

/// Every part of the default provider has an answer, so that none is waved through on consistency alone.
#[test]
fn default_provider_is_covered_by_answers() {
    for cipher in ring_provider().ike_ciphers {
        assert!(IkeVector::known(cipher.id(), cipher.key_bits()).is_some(), "{cipher:?}");
    }
    for cipher in ring_provider().esp_ciphers {
        assert!(EspVector::known(*cipher).is_some(), "{cipher:?}");
    }
    for method in ring_provider().key_exchanges {
        assert!(generator(method.id()).is_some() || known_power(method.id()).is_some(), "{method:?}");
    }
}

#[derive(Debug)]
struct Stuck;

impl SecureRandom for Stuck {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        destination.fill(0x5a);
        Ok(())
    }
}

#[test]
fn a_stuck_random_source_is_found() {
    let provider = CryptoProvider { random: &Stuck, ..*ring_provider() };
    assert_eq!(provider.self_test(), Err(CryptoError::SelfTestFailed("random")));
}

/// A method that agrees with itself, but under the id of a curve that it is not.
#[derive(Debug)]
struct Impostor(KeyExchangeId, &'static dyn KeyExchange);

impl KeyExchange for Impostor {
    fn id(&self) -> KeyExchangeId {
        self.0
    }

    fn cost(&self) -> crate::Cost {
        self.1.cost()
    }

    fn start(&self, rng: &dyn SecureRandom) -> Result<Box<dyn crate::StartedKeyExchange>, CryptoError> {
        self.1.start(rng)
    }

    fn respond(&self, rng: &dyn SecureRandom, peer: &[u8]) -> Result<(Vec<u8>, crate::SharedSecret), CryptoError> {
        self.1.respond(rng, peer)
    }
}

#[test]
fn a_key_exchange_under_a_wrong_id_is_found() {
    let real = ring_provider().key_exchange(KeyExchangeId::CURVE_25519).unwrap();
    for id in [KeyExchangeId::ECP_256, KeyExchangeId::ECP_384, KeyExchangeId::MODP_2048] {
        let impostor: &'static dyn KeyExchange = Box::leak(Box::new(Impostor(id, real)));
        let key_exchanges: &'static [_] = Box::leak(Box::new([impostor]));
        let provider = CryptoProvider { key_exchanges, ..*ring_provider() };
        assert_eq!(provider.self_test(), Err(CryptoError::SelfTestFailed("key exchange")), "{id}");
    }
}

/// A part that works, with itself, but not as its id says: its key has one bit flipped.
#[derive(Debug)]
struct WrongKey<T: ?Sized + 'static>(&'static T);

fn flipped(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    key[0] ^= 1;
    key
}

impl Prf for WrongKey<dyn Prf> {
    fn id(&self) -> PrfId {
        self.0.id()
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn key(&self, key: &[u8]) -> Box<dyn PrfKey> {
        self.0.key(&flipped(key))
    }
}

impl Integrity for WrongKey<dyn Integrity> {
    fn id(&self) -> IntegrityId {
        self.0.id()
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn icv_len(&self) -> usize {
        self.0.icv_len()
    }

    fn key(&self, key: &[u8]) -> Result<Box<dyn IntegrityKey>, CryptoError> {
        self.0.key(&flipped(key))
    }
}

impl IkeCipher for WrongKey<dyn IkeCipher> {
    fn id(&self) -> EncryptionId {
        self.0.id()
    }

    fn key_bits(&self) -> Option<u16> {
        self.0.key_bits()
    }

    fn key_len_with_salt(&self) -> usize {
        self.0.key_len_with_salt()
    }

    fn iv_len(&self) -> usize {
        self.0.iv_len()
    }

    fn is_aead(&self) -> bool {
        self.0.is_aead()
    }

    fn key(
        &self,
        encryption_key: &[u8],
        integrity: Option<(&'static dyn Integrity, &[u8])>,
    ) -> Result<Box<dyn IkeAead>, CryptoError> {
        self.0.key(&flipped(encryption_key), integrity)
    }
}

impl EspCipher for WrongKey<dyn EspCipher> {
    fn id(&self) -> EncryptionId {
        self.0.id()
    }

    fn key_bits(&self) -> Option<u16> {
        self.0.key_bits()
    }

    fn integrity_id(&self) -> Option<IntegrityId> {
        self.0.integrity_id()
    }

    fn key_len_with_salt(&self) -> usize {
        self.0.key_len_with_salt()
    }

    fn integrity_key_len(&self) -> usize {
        self.0.integrity_key_len()
    }

    fn iv_len(&self) -> usize {
        self.0.iv_len()
    }

    fn icv_len(&self) -> usize {
        self.0.icv_len()
    }

    fn block_alignment(&self) -> usize {
        self.0.block_alignment()
    }

    fn key(&self, encryption_key: &[u8], integrity_key: &[u8]) -> Result<Box<dyn EspKey>, CryptoError> {
        self.0.key(&flipped(encryption_key), integrity_key)
    }
}

fn leak<T>(part: T) -> &'static T {
    Box::leak(Box::new(part))
}

fn failed(provider: &CryptoProvider) -> &'static str {
    match provider.self_test() {
        Err(CryptoError::SelfTestFailed(part)) => part,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_wrong_part_of_each_kind_is_found() {
    let good = *ring_provider();
    for prf in good.prfs {
        let prfs = leak([leak(WrongKey(*prf)) as &dyn Prf]);
        assert_eq!(failed(&CryptoProvider { prfs, ..good }), "PRF");
    }
    for part in good.integrity {
        let integrity = leak([leak(WrongKey(*part)) as &dyn Integrity]);
        assert_eq!(failed(&CryptoProvider { integrity, ..good }), "integrity");
    }
    for cipher in good.ike_ciphers {
        let ike_ciphers = leak([leak(WrongKey(*cipher)) as &dyn IkeCipher]);
        assert_eq!(failed(&CryptoProvider { ike_ciphers, ..good }), "IKE cipher", "{cipher:?}");
    }
    for cipher in good.esp_ciphers {
        let esp_ciphers = leak([leak(WrongKey(*cipher)) as &dyn EspCipher]);
        assert_eq!(failed(&CryptoProvider { esp_ciphers, ..good }), "ESP cipher", "{cipher:?}");
    }
}
