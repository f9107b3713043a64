use super::*;
use crate::crypto;
use ipsec::{EspAlgorithm, KeyMaterial};
use proptest::prelude::*;

fn material(algorithm: EspAlgorithm) -> KeyMaterial {
    let octets: Vec<u8> = (0..100).collect();
    KeyMaterial::new(
        &octets[..algorithm.encryption.keymat_octets()],
        algorithm.integrity.map(|integrity| &octets[..integrity.keymat_octets()]),
    )
}

#[test]
fn every_algorithm_of_the_capabilities_carries_every_length() {
    let algorithms = crypto::algorithms();
    assert!(algorithms.contains(&EspAlgorithm::AES_256_GCM) && algorithms.contains(&EspAlgorithm::CHACHA20_POLY1305));
    assert!(algorithms.len() >= 9, "{algorithms:?}");
    for algorithm in algorithms {
        let key = crypto::key(algorithm, &material(algorithm)).unwrap();
        for length in 0..80 {
            let payload = vec![0xa5; length];
            let mut out = [0; 300];
            let sealed = seal(&*key, 0x1234_5678, 7, false, next_header::IPV4, &payload, &mut out).unwrap();
            assert_eq!(sealed, sealed_length(&*key, length));
            assert!(sealed - length <= MAX_OVERHEAD);
            assert_eq!(header(&out), Some((0x1234_5678, 7)));
            let opened = open(&*key, 7, false, &mut out[..sealed]).unwrap();
            assert_eq!((&*opened.payload, opened.next_header), (&payload[..], next_header::IPV4));
        }
    }
}

#[test]
fn the_high_half_is_authenticated() {
    for algorithm in crypto::algorithms() {
        let key = crypto::key(algorithm, &material(algorithm)).unwrap();
        let mut out = [0; 200];
        let sealed = seal(&*key, 300, (5 << 32) | 9, true, next_header::IPV6, &[1; 40], &mut out).unwrap();
        let mut wrong = out;
        assert_eq!(open(&*key, (6 << 32) | 9, true, &mut wrong[..sealed]).unwrap_err(), OpenError::Integrity);
        assert!(open(&*key, (5 << 32) | 9, true, &mut out[..sealed]).is_ok());
    }
}

proptest! {
    #[test]
    fn room_and_length_agree(room in 60_usize..2_000, algorithm in prop::sample::select(crypto::algorithms())) {
        let key = crypto::key(algorithm, &material(algorithm)).unwrap();
        let payload = payload_room(&*key, room);
        prop_assume!(payload > 0);
        prop_assert!(sealed_length(&*key, payload) <= room);
        prop_assert!(sealed_length(&*key, payload + 1) > room);
    }

    #[test]
    fn altered_packets_do_not_open(at in 0_usize..100, flip in 1_u8..=255, algorithm in prop::sample::select(crypto::algorithms())) {
        let key = crypto::key(algorithm, &material(algorithm)).unwrap();
        let mut out = [0; 300];
        let sealed = seal(&*key, 300, 1, false, next_header::IPV4, &[7; 120], &mut out).unwrap();
        // The sequence number is taken from the caller; it is covered through it.
        prop_assume!(!(4..8).contains(&at));
        out[at] ^= flip;
        prop_assert!(open(&*key, 1, false, &mut out[..sealed]).is_err());
    }

    #[test]
    fn random_octets_do_not_open(mut octets in prop::collection::vec(any::<u8>(), 0..200), algorithm in prop::sample::select(crypto::algorithms())) {
        let key = crypto::key(algorithm, &material(algorithm)).unwrap();
        prop_assert!(open(&*key, 1, false, &mut octets).is_err());
    }
}
