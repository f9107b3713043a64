//! Every ESP cipher: known packets, round trips, ESN, tampering, wrong lengths.

use std::collections::BTreeSet;

use hex_literal::hex;

use super::*;
use crate::{
    ring_provider,
    self_test::{EspVector, encryption_key, integrity_key},
};

fn keyed(cipher: &dyn EspCipher) -> Box<dyn EspKey> {
    let is_aead = cipher.integrity_id().is_none();
    let encryption_key = encryption_key(cipher.id(), is_aead, cipher.key_len_with_salt());
    cipher.key(&encryption_key, &integrity_key(cipher.integrity_key_len())).unwrap()
}

/// Seals and returns IV and ciphertext with ICV.
fn seal(key: &dyn EspKey, sequence: u64, aad: &[u8], plaintext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut iv, mut icv) = (vec![0; key.iv_len()], vec![0; key.icv_len()]);
    let mut sealed = plaintext.to_vec();
    key.seal_in_place(sequence, aad, &mut iv, &mut sealed, &mut icv).unwrap();
    sealed.extend_from_slice(&icv);
    (iv, sealed)
}

#[test]
fn known_packets() {
    for cipher in ring_provider().esp_ciphers {
        let vector = EspVector::known(*cipher).unwrap();
        let key = cipher.key(&vector.key, &vector.integrity_key).unwrap();
        let (iv, mut sealed) = seal(&*key, vector.sequence, vector.aad, vector.plaintext);
        assert!(sealed.ends_with(vector.icv), "{cipher:?}");
        assert_eq!(key.open_in_place(&iv, vector.aad, &mut sealed).unwrap(), vector.plaintext);
    }
}

/// The whole ciphertext of RFC 7634 appendix A and of the AES-GCM test cases.
#[test]
fn known_ciphertexts() {
    let cases: [(EncryptionId, Option<u16>, &[u8]); 3] = [
        (
            EncryptionId::CHACHA20_POLY1305,
            None,
            &hex!(
                "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7"
                "2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0"
            ),
        ),
        (
            EncryptionId::AES_GCM_16,
            Some(128),
            &hex!(
                "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
                "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732"
            ),
        ),
        (
            EncryptionId::AES_GCM_16,
            Some(256),
            &hex!(
                "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e"
            ),
        ),
    ];
    for (id, key_bits, expected) in cases {
        let cipher = ring_provider().esp_cipher(id, key_bits, None).unwrap();
        let vector = EspVector::known(cipher).unwrap();
        let key = cipher.key(&vector.key, &[]).unwrap();
        let (iv, sealed) = seal(&*key, vector.sequence, vector.aad, vector.plaintext);
        assert_eq!(iv, vector.sequence.to_be_bytes());
        assert_eq!(sealed[..vector.plaintext.len()], *expected, "{id}");
    }
}

/// Sealed by OpenSSL and Python's `hmac`: IV, ciphertext, and the ICV over a 32-bit sequence number.
#[test]
fn known_cbc_packet_without_esn() {
    let cipher =
        ring_provider().esp_cipher(EncryptionId::AES_CBC, Some(256), Some(IntegrityId::HMAC_SHA2_256_128)).unwrap();
    let vector = EspVector::known(cipher).unwrap();
    let (iv, sealed) = seal(&*keyed(cipher), vector.sequence, &hex!("01020304 00000005"), vector.plaintext);
    assert_eq!(iv, hex!("97e13fedc9a2353cc365c8f484c160de"));
    let (ciphertext, icv) = sealed.split_at(vector.plaintext.len());
    assert_eq!(
        ciphertext,
        hex!(
            "14c6565d29e4fcb2fdab36566b92a4307581d6f51fc2b5ab5901c118f6ee1162"
            "9cf179f6725cce1129f8289968170b05a5bfd953eeaafb2ba41e52ac3aeb09a9"
            "fc5e3d06559c57be7624c51dcffdf29fce84cc71aa00886526b18d012652f19e"
        )
    );
    assert_eq!(icv, hex!("8347ee1294f8f96c9c4e5653bfbd7523"));
}

#[test]
fn round_trips_of_every_size_with_and_without_esn() {
    for cipher in ring_provider().esp_ciphers {
        let (sender, receiver) = (keyed(*cipher), keyed(*cipher));
        let lengths = (1..=12).map(|n| n * cipher.block_alignment()).chain([1408, 9008, 65_504]);
        for (len, sequence) in lengths.zip(0xffff_fffa_u64..) {
            let plaintext: Vec<u8> = (0..=255).cycle().take(len).collect();
            let octets = sequence.to_be_bytes();
            let (high, low) = octets.split_at(4);
            for aad in [[b"SPI.", low].concat(), [b"SPI.", high, low].concat()] {
                let (iv, mut sealed) = seal(&*sender, sequence, &aad, &plaintext);
                assert_eq!(sealed.len(), len + cipher.icv_len());
                assert_eq!(iv.len(), cipher.iv_len());
                let opened = receiver.open_in_place(&iv, &aad, &mut sealed).unwrap();
                assert_eq!(opened, plaintext, "{cipher:?} {len}");
            }
        }
    }
}

/// A receiver that guesses the high half wrong, or has not negotiated it, does not open.
#[test]
fn the_high_half_of_esn_is_authenticated() {
    for cipher in ring_provider().esp_ciphers {
        let key = keyed(*cipher);
        let (iv, sealed) = seal(&*key, 0x1_0000_0005, &hex!("01020304 00000001 00000005"), &[0; 64]);
        for aad in [&hex!("01020304 00000000 00000005")[..], &hex!("01020304 00000005"), &hex!("01020304 00000001")] {
            let mut sealed = sealed.clone();
            let opened = key.open_in_place(&iv, aad, &mut sealed);
            assert_eq!(opened, Err(CryptoError::AuthenticationFailed), "{cipher:?}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for cipher in ring_provider().esp_ciphers {
        let key = keyed(*cipher);
        for aad in [&hex!("01020304 00000005")[..], &hex!("01020304 00000001 00000005")] {
            let (iv, sealed) = seal(&*key, 5, aad, &[0x42; 48]);
            let refused = |iv: &[u8], aad: &[u8], mut sealed: Vec<u8>| {
                key.open_in_place(iv, aad, &mut sealed) == Err(CryptoError::AuthenticationFailed)
            };
            assert!(!refused(&iv, aad, sealed.clone()));
            let flip = |octets: &[u8], bit: usize| {
                let mut octets = octets.to_vec();
                octets[bit / 8] ^= 1 << (bit % 8);
                octets
            };
            assert!((0..iv.len() * 8).all(|bit| refused(&flip(&iv, bit), aad, sealed.clone())), "{cipher:?} IV");
            assert!((0..aad.len() * 8).all(|bit| refused(&iv, &flip(aad, bit), sealed.clone())), "{cipher:?} AAD");
            assert!((0..sealed.len() * 8).all(|bit| refused(&iv, aad, flip(&sealed, bit))), "{cipher:?} octets");
        }
    }
}

#[test]
fn cut_packets_are_refused() {
    for cipher in ring_provider().esp_ciphers {
        let key = keyed(*cipher);
        let (iv, sealed) = seal(&*key, 5, &[0; 8], &[0x42; 32]);
        for len in 0..sealed.len() {
            let opened = key.open_in_place(&iv, &[0; 8], &mut sealed[..len].to_vec()).err();
            let whole_blocks = len.checked_sub(key.icv_len()).is_some_and(|ciphertext| {
                cipher.integrity_id().is_none() || ciphertext.is_multiple_of(cipher.block_alignment())
            });
            let expected = if whole_blocks { CryptoError::AuthenticationFailed } else { CryptoError::Truncated };
            assert_eq!(opened, Some(expected), "{cipher:?} {len}");
        }
    }
}

#[test]
fn part_lengths_are_checked() {
    for cipher in ring_provider().esp_ciphers {
        let key = keyed(*cipher);
        let seal_with = |aad: usize, iv: usize, buffer: usize, icv: usize| {
            key.seal_in_place(1, &vec![0; aad], &mut vec![0; iv], &mut vec![0; buffer], &mut vec![0; icv])
        };
        let (iv, icv) = (key.iv_len(), key.icv_len());
        assert_eq!(seal_with(8, iv, 32, icv), Ok(()));
        assert_eq!(seal_with(12, iv, 32, icv), Ok(()));
        for (aad, iv, icv) in
            [(0, iv, icv), (4, iv, icv), (7, iv, icv), (13, iv, icv), (8, iv + 1, icv), (8, iv - 1, icv), (8, 0, icv)]
        {
            assert_eq!(seal_with(aad, iv, 32, icv), Err(CryptoError::InvalidBufferLength), "{cipher:?}");
            let opened = key.open_in_place(&vec![0; iv], &vec![0; aad], &mut [0; 64]).err();
            assert_eq!(opened, Some(CryptoError::InvalidBufferLength), "{cipher:?}");
        }
        for icv in [0, icv - 1, icv + 1] {
            assert_eq!(seal_with(8, iv, 32, icv), Err(CryptoError::InvalidBufferLength), "{cipher:?}");
        }
        let uneven = seal_with(8, iv, 33, icv);
        assert_eq!(uneven.is_err(), cipher.block_alignment() == 16, "{cipher:?}");
        assert_eq!(key.explicit_iv(1, &mut vec![0; iv + 1]), Err(CryptoError::InvalidBufferLength));
    }
}

#[test]
fn explicit_ivs_are_those_of_sealing_and_do_not_repeat() {
    for cipher in ring_provider().esp_ciphers {
        let key = keyed(*cipher);
        let ivs: BTreeSet<_> = (0..1000)
            .map(|sequence| {
                let mut iv = vec![0; key.iv_len()];
                key.explicit_iv(sequence, &mut iv).unwrap();
                assert_eq!(seal(&*key, sequence, &[0; 8], &[0; 16]).0, iv);
                iv
            })
            .collect();
        assert_eq!(ivs.len(), 1000, "{cipher:?}");
    }
}

/// RFC 3602 §3: the IVs of two SAs have nothing in common, and neighbours differ in about half of their bits.
#[test]
fn cbc_ivs_look_random() {
    let cipher =
        ring_provider().esp_cipher(EncryptionId::AES_CBC, Some(128), Some(IntegrityId::HMAC_SHA2_256_128)).unwrap();
    let iv = |key: u8, sequence| {
        let mut iv = [0; 16];
        cipher.key(&[key; 16], &[9; 32]).unwrap().explicit_iv(sequence, &mut iv).unwrap();
        u128::from_be_bytes(iv)
    };
    assert_ne!(iv(1, 7), iv(2, 7));
    let differing: u32 = (0..100).map(|sequence| (iv(1, sequence) ^ iv(1, sequence + 1)).count_ones()).sum();
    assert!((6000..6800).contains(&differing), "{differing} of 12,800 bits");
}

#[test]
fn key_lengths_are_checked() {
    for cipher in ring_provider().esp_ciphers {
        let (encryption, integrity) = (cipher.key_len_with_salt(), cipher.integrity_key_len());
        assert!(cipher.key(&vec![1; encryption], &vec![2; integrity]).is_ok());
        for (encryption, integrity) in [
            (encryption - 1, integrity),
            (encryption + 1, integrity),
            (0, integrity),
            (encryption, integrity + 1),
            (encryption, if integrity == 0 { 32 } else { 0 }),
        ] {
            let key = cipher.key(&vec![1; encryption], &vec![2; integrity]);
            assert_eq!(key.err(), Some(CryptoError::InvalidKeyLength), "{cipher:?}");
        }
    }
}

#[test]
fn keys_do_not_print() {
    for cipher in ring_provider().esp_ciphers {
        let printed = format!("{:?}", keyed(*cipher));
        assert!(printed.contains("[redacted]") && !printed.contains("5, 6, 7"), "{printed}");
    }
}

/// One key serves several threads at a time.
#[test]
fn keys_are_shared_by_threads() {
    for cipher in ring_provider().esp_ciphers {
        let key = &*keyed(*cipher);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for sequence in thread * 100..thread * 100 + 100 {
                        let (iv, mut sealed) = seal(key, sequence, &[0; 8], &[7; 64]);
                        assert_eq!(key.open_in_place(&iv, &[0; 8], &mut sealed).unwrap(), [7; 64]);
                    }
                });
            }
        });
    }
}
