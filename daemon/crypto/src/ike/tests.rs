//! Every IKE cipher with every integrity algorithm it takes: known messages, round trips, tampering, wrong lengths.

use core::cell::RefCell;
use std::{collections::BTreeSet, sync::Mutex};

use hex_literal::hex;

use super::*;
use crate::{
    ring_provider,
    self_test::{IkeVector, encryption_key, integrity_key},
};

/// Each cipher as it can be negotiated.
fn combinations() -> Vec<(&'static dyn IkeCipher, Option<&'static dyn Integrity>)> {
    let provider = ring_provider();
    let mut combinations = Vec::new();
    for cipher in provider.ike_ciphers.iter().copied() {
        if cipher.is_aead() {
            combinations.push((cipher, None));
        } else {
            combinations.extend(provider.integrity.iter().map(|integrity| (cipher, Some(*integrity))));
        }
    }
    assert_eq!(combinations.len(), 3 + 3 * 3);
    combinations
}

fn keyed(cipher: &dyn IkeCipher, integrity: Option<&'static dyn Integrity>) -> Box<dyn IkeAead> {
    let encryption_key = encryption_key(cipher.id(), cipher.is_aead(), cipher.key_len_with_salt());
    let integrity_key = integrity_key(integrity.map_or(0, Integrity::key_len));
    cipher.key(&encryption_key, integrity.map(|integrity| (integrity, &*integrity_key))).unwrap()
}

/// A sealed message in parts.
#[derive(Clone, PartialEq, Debug)]
struct Sealed {
    iv: Vec<u8>,
    body: Vec<u8>,
    icv: Vec<u8>,
}

impl Sealed {
    fn new(key: &dyn IkeAead, aad: &[u8], plaintext: &[u8]) -> Self {
        let mut sealed = Self { iv: vec![0; key.iv_len()], body: plaintext.to_vec(), icv: vec![0; key.icv_len()] };
        key.seal(ring_provider().random, aad, &mut sealed.iv, &mut sealed.body, &mut sealed.icv).unwrap();
        sealed
    }

    fn open(mut self, key: &dyn IkeAead, aad: &[u8]) -> Result<Vec<u8>, CryptoError> {
        key.open(aad, &self.iv, &mut self.body, &self.icv)?;
        Ok(self.body)
    }
}

#[test]
fn known_messages_open() {
    for (cipher, integrity) in combinations() {
        if integrity.is_some_and(|integrity| integrity.id() != IntegrityId::HMAC_SHA2_256_128) {
            continue;
        }
        let vector = IkeVector::known(cipher.id(), cipher.key_bits()).unwrap();
        let mut body = vector.body.to_vec();
        keyed(cipher, integrity).open(&vector.aad, vector.iv, &mut body, &vector.icv).unwrap();
        assert_eq!(body, vector.opened, "{cipher:?}");
    }
}

/// AES-256-CBC with the longer MACs, sealed by OpenSSL and Python's `hmac`.
#[test]
fn known_messages_with_longer_macs_open() {
    let cipher = ring_provider().ike_cipher(EncryptionId::AES_CBC, Some(256)).unwrap();
    let cases: [(IntegrityId, [u8; 32], &[u8]); 2] = [
        (
            IntegrityId::HMAC_SHA2_384_192,
            hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000582900003c"),
            &hex!("6d1f67dce0fde32734aeaefd08a394efd071e38a5c5b1891"),
        ),
        (
            IntegrityId::HMAC_SHA2_512_256,
            hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000006029000044"),
            &hex!("daae4d8b262bd8418b1cda5159f5595298fa7140a646a0e22fe56dc3433daa48"),
        ),
    ];
    for (id, aad, icv) in cases {
        let key = keyed(cipher, ring_provider().integrity(id));
        let mut body = hex!("785139df46c24bf131aaf5be24056c85");
        key.open(&aad, &hex!("101112131415161718191a1b1c1d1e1f"), &mut body, icv).unwrap();
        assert_eq!(body, hex!("0000000c000040010000000a 000000 03"), "{id}");
    }
}

#[test]
fn round_trips_of_every_size() {
    for (cipher, integrity) in combinations() {
        let (sender, receiver) = (keyed(cipher, integrity), keyed(cipher, integrity));
        assert_eq!(sender.iv_len(), cipher.iv_len());
        for len in (1..=10).map(|blocks| blocks * sender.block_len()).chain([64 * 1024]) {
            let plaintext: Vec<u8> = (0..=255).cycle().take(len).collect();
            let sealed = Sealed::new(&*sender, b"header", &plaintext);
            assert!(len < 16 || sealed.body != plaintext);
            assert_eq!(sealed.open(&*receiver, b"header").unwrap(), plaintext, "{cipher:?} {len}");
        }
    }
}

/// One flipped bit anywhere (header, IV, ciphertext, ICV) is found.
#[test]
fn every_flipped_bit_is_refused() {
    let aad = *b"IKE header and SK header";
    for (cipher, integrity) in combinations() {
        let key = keyed(cipher, integrity);
        let sealed = Sealed::new(&*key, &aad, &[0x42; 32]);
        assert_eq!(sealed.clone().open(&*key, &aad).unwrap(), [0x42; 32]);
        let refuse = |altered: Sealed, aad: &[u8], what: &str| {
            assert_eq!(altered.open(&*key, aad), Err(CryptoError::AuthenticationFailed), "{cipher:?} {what}");
        };
        for bit in 0..aad.len() * 8 {
            let mut aad = aad;
            aad[bit / 8] ^= 1 << (bit % 8);
            refuse(sealed.clone(), &aad, "aad");
        }
        let parts: [fn(&mut Sealed) -> &mut Vec<u8>; 3] = [|s| &mut s.iv, |s| &mut s.body, |s| &mut s.icv];
        for part in parts {
            let bits = part(&mut sealed.clone()).len() * 8;
            for bit in 0..bits {
                let mut altered = sealed.clone();
                part(&mut altered)[bit / 8] ^= 1 << (bit % 8);
                refuse(altered, &aad, "octets");
            }
        }
        refuse(sealed.clone(), &aad[..23], "shorter aad");
        let other = Sealed::new(&*keyed(cipher, integrity), &aad, &[0x42; 32]);
        refuse(Sealed { icv: other.icv, ..sealed }, &aad, "ICV of another message");
    }
}

#[test]
fn another_key_does_not_open() {
    for (cipher, integrity) in combinations() {
        let sealed = Sealed::new(&*keyed(cipher, integrity), b"aad", &[1; 16]);
        let mut encryption_key = encryption_key(cipher.id(), cipher.is_aead(), cipher.key_len_with_salt());
        let mut mac_key = integrity_key(integrity.map_or(0, Integrity::key_len));
        // The salt, or the MAC key where there is one.
        if let Some(octet) = mac_key.last_mut().or(encryption_key.last_mut()) {
            *octet ^= 1;
        }
        let other = cipher.key(&encryption_key, integrity.map(|integrity| (integrity, &*mac_key))).unwrap();
        assert_eq!(sealed.open(&*other, b"aad"), Err(CryptoError::AuthenticationFailed), "{cipher:?}");
    }
}

#[test]
fn ivs_do_not_repeat() {
    for (cipher, integrity) in combinations() {
        let key = keyed(cipher, integrity);
        let ivs: BTreeSet<_> = (0..1000).map(|_| Sealed::new(&*key, b"", &[0; 16]).iv).collect();
        assert_eq!(ivs.len(), 1000, "{cipher:?}");
    }
}

/// A source that gives the same octets for ever.
#[derive(Debug)]
struct Stuck;

impl SecureRandom for Stuck {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        destination.fill(0xff);
        Ok(())
    }
}

/// The IVs of an AEAD count, also across the end of their range and when randomness fails them.
#[test]
fn ivs_of_an_aead_do_not_depend_on_randomness() {
    let key = keyed(ring_provider().ike_cipher(EncryptionId::AES_GCM_16, Some(256)).unwrap(), None);
    let ivs = RefCell::new(Vec::new());
    for _ in 0..3 {
        let (mut iv, mut body, mut icv) = ([0; 8], [0; 4], [0; 16]);
        key.seal(&Stuck, b"", &mut iv, &mut body, &mut icv).unwrap();
        ivs.borrow_mut().push(u64::from_be_bytes(iv));
    }
    assert_eq!(ivs.into_inner(), [u64::MAX, 0, 1]);
}

#[derive(Debug)]
struct Broken(Mutex<usize>);

impl SecureRandom for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), CryptoError> {
        *self.0.lock().unwrap() += 1;
        Err(CryptoError::RandomUnavailable)
    }
}

#[test]
fn without_randomness_nothing_is_sealed() {
    for (cipher, integrity) in combinations() {
        let key = keyed(cipher, integrity);
        let random = Broken(Mutex::new(0));
        let (mut iv, mut body, mut icv) = (vec![0; key.iv_len()], [3; 16], vec![0; key.icv_len()]);
        let sealed = key.seal(&random, b"", &mut iv, &mut body, &mut icv);
        assert_eq!(sealed, Err(CryptoError::RandomUnavailable), "{cipher:?}");
        assert_eq!((body, *random.0.lock().unwrap()), ([3; 16], 1));
    }
}

#[test]
fn part_lengths_are_checked() {
    for (cipher, integrity) in combinations() {
        let key = keyed(cipher, integrity);
        let (iv_len, icv_len) = (key.iv_len(), key.icv_len());
        let mut bad = vec![(iv_len - 1, 16, icv_len), (iv_len + 1, 16, icv_len), (0, 16, icv_len)];
        bad.extend([(iv_len, 16, icv_len - 1), (iv_len, 16, icv_len + 1)]);
        if key.block_len() > 1 {
            bad.extend([(iv_len, 15, icv_len), (iv_len, 17, icv_len)]);
        }
        for (iv, body, icv) in bad {
            let what = format!("{cipher:?} {iv} {body} {icv}");
            let (mut iv, mut body, mut icv) = (vec![0; iv], vec![0; body], vec![0; icv]);
            let sealed = key.seal(ring_provider().random, b"", &mut iv, &mut body, &mut icv);
            assert_eq!(sealed, Err(CryptoError::InvalidBufferLength), "{what}");
            assert!(key.open(b"", &iv, &mut body, &icv).is_err(), "{what}");
        }
    }
}

#[test]
fn key_lengths_and_combinations_are_checked() {
    let mac: &'static dyn Integrity = ring_provider().integrity(IntegrityId::HMAC_SHA2_256_128).unwrap();
    let refused = Some(CryptoError::InvalidKeyLength);
    for cipher in ring_provider().ike_ciphers {
        let right = vec![1; cipher.key_len_with_salt()];
        let with_mac = Some((mac, &[2; 32][..]));
        let (good, bad) = if cipher.is_aead() { (None, with_mac) } else { (with_mac, None) };
        assert!(cipher.key(&right, good).is_ok());
        assert_eq!(cipher.key(&right, bad).err(), refused, "{cipher:?}");
        for len in [0, right.len() - 1, right.len() + 1, right.len() + 8, right.len() - 8] {
            assert_eq!(cipher.key(&vec![1; len], good).err(), refused, "{cipher:?} {len}");
        }
        if !cipher.is_aead() {
            assert_eq!(cipher.key(&right, Some((mac, &[2; 31]))).err(), refused);
        }
    }
}

#[test]
fn keys_do_not_print() {
    for (cipher, integrity) in combinations() {
        let printed = format!("{:?}", keyed(cipher, integrity));
        assert!(printed.contains("[redacted]"), "{printed}");
        assert!(!printed.contains("5, 6, 7"), "{printed}");
    }
}
