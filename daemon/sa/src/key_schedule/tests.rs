//! Known answers, computed with another implementation of HMAC-SHA2-256 from the formulas of RFC 7296.

use hex_literal::hex;
use ike_crypto::ring_provider;
use ike_model::Encryption;
use ike_wire::ids::{EncryptionId, KeyExchangeId, PrfId};

use super::*;

const SUITE: IkeSuite = IkeSuite {
    encryption: Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) },
    integrity: None,
    prf: PrfId::PRF_HMAC_SHA2_256,
    method: KeyExchangeId::CURVE_25519,
};

fn nonces() -> (Vec<u8>, Vec<u8>) {
    ((0..32).collect(), (100..132).collect())
}

fn contributions<'a>(nonce_i: &'a [u8], nonce_r: &'a [u8]) -> Contributions<'a> {
    Contributions {
        nonce_i,
        nonce_r,
        spi_i: IkeSpi(0x0102_0304_0506_0708),
        spi_r: IkeSpi(0x1112_1314_1516_1718),
        secret: &[7; 32],
    }
}

fn initial() -> (Keys, AuthKeys) {
    let (nonce_i, nonce_r) = nonces();
    Keys::initial(ring_provider(), SUITE, contributions(&nonce_i, &nonce_r), true, None).unwrap()
}

//= RFC 7296 §2.14: SKEYSEED = prf(Ni | Nr, g^ir); {SK_d | ...} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr)
#[test]
fn keys_of_the_first_ike_sa() {
    let (keys, auth) = initial();
    assert_eq!(keys.sk_d.as_ref(), hex!("ef2304c500a2e5bde6df8b262ac9109bc8af4da1021f43cd0386a4fb7bcab205"));
    assert_eq!(auth.sk_pi.as_ref(), hex!("c3916de98879d436141629f65e202666d1725a34af96ce2eefc6cc01831f0a39"));
}

//= RFC 7296 §2.17: KEYMAT = prf+(SK_d, Ni | Nr); the initiator's direction first, encryption before integrity
#[test]
fn keys_of_child_sas() {
    let (keys, _) = initial();
    let (nonce_i, nonce_r) = nonces();
    let (there, back) = keys.child(EspAlgorithm::AES_256_GCM, None, &nonce_i, &nonce_r).unwrap();
    assert_eq!(**there.encryption, hex!("0193aa3cb55585c99baa8e6ca30207d0f7ace6410d9eb4f2c6630bd6773f722553ebb307"));
    assert_eq!(**back.encryption, hex!("254f4534a05c9ba08c4b6faacb24f98ee5f76d60c8dcaab186a61555cefab8d3dfa211b1"));
    let cbc = EspAlgorithm::from_ids(12, Some(256), Some(12)).unwrap();
    let (there, back) = keys.child(cbc, Some(&[7; 32]), &nonce_i, &nonce_r).unwrap();
    assert_eq!(**there.encryption, hex!("a6b61d4058fa0210528021a2d2fdbda6056f5a75c01f02663f4e46af4e1e9492"));
    assert_eq!(
        ***there.integrity.as_ref().unwrap(),
        hex!("43a102711045ba1e0cbd6ee8e0b411e0aea4230fad3b9ea08ef0c0b0a5be9459")
    );
    assert_eq!(**back.encryption, hex!("c74896631cbee8b80f4929239d02e4e5f4a9216640d0fab386a0cf375cb5b60b"));
    assert_eq!(
        ***back.integrity.as_ref().unwrap(),
        hex!("cf43cf746b7c3cdb337ca9c5452043bebfa73eb08a44554726c1cdb6ba699b0b")
    );
}

//= RFC 7296 §2.15: AUTH = prf( prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)
#[test]
fn auth_of_both_ends() {
    let (keys, auth) = initial();
    let (nonce_i, nonce_r) = nonces();
    let identification = b"\x02\0\0\0a.example";
    let octets = SignedOctets { message: b"message", nonce: &nonce_r, identification };
    assert_eq!(
        auth.psk(keys.prf, Role::Initiator, b"secret", octets).as_ref(),
        hex!("2f3658681ffcc84a86c6f5f64493d9f6aadac115c990d4c75698d92570b39e0c")
    );
    let octets = SignedOctets { message: b"response", nonce: &nonce_i, identification };
    assert_eq!(
        auth.psk(keys.prf, Role::Responder, b"secret", octets).as_ref(),
        hex!("5f5d1ef5a0c55ccc074200de992f9429c2b7ca7a1b032bf6efd8f52ce72c733a")
    );
}

//= RFC 7296 §2.18: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
#[test]
fn keys_of_a_rekeyed_ike_sa() {
    let (keys, _) = initial();
    let (nonce_i, nonce_r) = nonces();
    let next = keys.rekeyed(ring_provider(), SUITE, contributions(&nonce_i, &nonce_r), true, None).unwrap();
    let (there, _) = next.child(EspAlgorithm::AES_256_GCM, None, &nonce_i, &nonce_r).unwrap();
    assert_eq!(**there.encryption, hex!("c286fb6a6ab11678f5f6bccde78c68519c95a1a0aec28ab146da06c7c182986bd0998384"));
}

#[test]
fn both_ends_have_the_same_keys_crossed() {
    let (nonce_i, nonce_r) = nonces();
    let from = contributions(&nonce_i, &nonce_r);
    let (initiator, _) = Keys::initial(ring_provider(), SUITE, from, true, None).unwrap();
    let (responder, _) = Keys::initial(ring_provider(), SUITE, from, false, None).unwrap();
    let (mut iv, mut body, mut icv) = ([0; 8], *b"payloads", [0; 16]);
    initiator.outbound.seal(ring_provider().random, b"header", &mut iv, &mut body, &mut icv).unwrap();
    assert!(initiator.inbound.open(b"header", &iv, &mut body.clone(), &icv).is_err());
    responder.inbound.open(b"header", &iv, &mut body, &icv).unwrap();
    assert_eq!(&body, b"payloads");
}
