//! RFC 4868 §2.7.2 and what a truncated HMAC refuses.

use hex_literal::hex;

use super::*;
use crate::ring_provider;

/// Test case 4 of each: keys that count up from 1 (the last 16 octets of the middle one from 10), 50 octets of 0xcd.
#[test]
fn rfc_4868_truncates_to_half() {
    let cases: [(IntegrityId, u8, &[u8]); 3] = [
        (IntegrityId::HMAC_SHA2_256_128, 32, &hex!("372efcf9b40b35c2115b1346903d2ef4")),
        (IntegrityId::HMAC_SHA2_384_192, 48, &hex!("5b540085c6e6358096532b2493609ed1cb298f774f87bb5c")),
        (IntegrityId::HMAC_SHA2_512_256, 64, &hex!("5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108")),
    ];
    for (id, key_len, expected) in cases {
        let integrity = ring_provider().integrity(id).unwrap();
        assert_eq!((integrity.key_len(), integrity.icv_len()), (usize::from(key_len), expected.len()));
        let key: Vec<u8> = if key_len == 48 { (1..=32).chain(10..26).collect() } else { (1..=key_len).collect() };
        let key = integrity.key(&key).unwrap();
        let mut icv = vec![0; expected.len()];
        key.sign(&[&[0xcd; 20], &[0xcd; 30]], &mut icv).unwrap();
        assert_eq!(icv, expected, "{id}");
    }
}

#[test]
fn verification_refuses_every_flipped_bit_and_every_other_length() {
    for integrity in ring_provider().integrity {
        let key = integrity.key(&vec![7; integrity.key_len()]).unwrap();
        let mut icv = vec![0; integrity.icv_len()];
        key.sign(&[b"data"], &mut icv).unwrap();
        assert_eq!(key.verify(&[b"da", b"ta"], &icv), Ok(()));
        for bit in 0..icv.len() * 8 {
            let mut altered = icv.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&[b"data"], &altered), Err(CryptoError::AuthenticationFailed));
        }
        for len in 0..icv.len() {
            assert_eq!(key.verify(&[b"data"], &icv[..len]), Err(CryptoError::AuthenticationFailed));
            assert_eq!(key.sign(&[b"data"], &mut vec![0; len]), Err(CryptoError::InvalidBufferLength));
        }
    }
}

#[test]
fn key_lengths_are_checked() {
    for integrity in ring_provider().integrity {
        for len in [0, 20, integrity.key_len() - 1, integrity.key_len() + 1] {
            assert_eq!(integrity.key(&vec![7; len]).err(), Some(CryptoError::InvalidKeyLength));
        }
    }
}
