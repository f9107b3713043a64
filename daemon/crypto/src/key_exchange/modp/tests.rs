//! The groups' primes from their definition, known powers, and what a peer may not send.

use crypto_bigint::{NonZero, U4096};
use hex_literal::hex;
use ring::digest;

use super::*;
use crate::ring_provider;

/// Private values that count up, as the known powers have them.
#[derive(Debug)]
struct Counting(u8);

impl SecureRandom for Counting {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        for (octet, value) in destination.iter_mut().zip(self.0..) {
            *octet = value;
        }
        Ok(())
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, octets).as_ref().try_into().unwrap()
}

/// `floor(2^bits pi)` by Machin's formula, with 64 more bits inside.
fn scaled_pi(bits: u32) -> U4096 {
    let four = U4096::from(4_u8);
    let one = U4096::ONE << (bits + 64);
    let quarter = four.wrapping_mul(&inverse_arctan(5, one)).wrapping_sub(&inverse_arctan(239, one));
    four.wrapping_mul(&quarter) >> 64
}

/// `one * arctan(1 / x)`
fn inverse_arctan(x: u16, one: U4096) -> U4096 {
    let divide = |a: U4096, b: u64| a.wrapping_div_vartime(&NonZero::new(U4096::from(b)).unwrap());
    let mut power = divide(one, x.into());
    let mut sum = power;
    let mut n = 1;
    while power != U4096::ZERO {
        power = divide(power, u64::from(x) * u64::from(x));
        n += 2;
        let term = divide(power, n);
        sum = if n % 4 == 3 { sum.wrapping_sub(&term) } else { sum.wrapping_add(&term) };
    }
    sum
}

/// RFC 3526: `p = 2^n - 2^(n - 64) - 1 + 2^64 (floor(2^(n - 130) pi) + c)`.
#[test]
fn primes_follow_their_definition() {
    for (bits, c, prime) in [(2048_u32, 124_476_u32, PRIME_2048), (3072, 1_690_314, PRIME_3072)] {
        let middle = scaled_pi(bits - 130).wrapping_add(&U4096::from(c)) << 64;
        let expected = (U4096::ONE << bits)
            .wrapping_sub(&(U4096::ONE << (bits - 64)))
            .wrapping_sub(&U4096::ONE)
            .wrapping_add(&middle);
        let zeros = "0".repeat(1024 - prime.len());
        assert_eq!(expected, U4096::from_be_hex(&(zeros + prime)), "{bits}");
    }
}

fn integer(len: usize, value: u16) -> Vec<u8> {
    let mut octets = vec![0; len - 2];
    octets.extend(value.to_be_bytes());
    octets
}

/// Python: SHA-256 over `2^x mod p` and over `3^x mod p`, x counting up from 0x11.
#[test]
fn known_powers() {
    let cases = [
        (
            &MODP_2048 as &dyn KeyExchange,
            256,
            hex!("8df3eee583501a45e5af58f33dfa2e7e3f338a3203e6b6628aedc4dc348a216e"),
            hex!("a0a6ada6f82e3c07eb27c6e9059c10e4009409c0f314a5731aa2d5c317b3d1de"),
        ),
        (
            &MODP_3072,
            384,
            hex!("0904d29f6f408c48e6978d0d3e944b661d7ede7b111df5717dd47db09e50e08a"),
            hex!("e6cecddf84a8df9a0f2e99475c18e18323a41d9a6a8f12d90ee0f223a58b4b56"),
        ),
    ];
    for (method, len, public, secret) in cases {
        let answer = method.respond(&Counting(0x11), &integer(len, 3)).unwrap();
        assert_eq!((answer.0.len(), answer.1.as_ref().len()), (len, len));
        assert_eq!(sha256(&answer.0), public, "{}", method.id());
        assert_eq!(sha256(answer.1.as_ref()), secret, "{}", method.id());
    }
}

/// RFC 7296 §2.14: "with leading zeros": these bases were searched for secrets that begin with a zero octet.
#[test]
fn leading_zeros_are_kept() {
    let secret = MODP_2048.respond(&Counting(0x11), &integer(256, 556)).unwrap().1;
    assert_eq!(secret.as_ref().len(), 256);
    assert!(secret.as_ref().starts_with(&hex!("003f96c2")));

    let secret = MODP_3072.respond(&Counting(0x11), &integer(384, 232)).unwrap().1;
    assert!(secret.as_ref().starts_with(&hex!("001d0547")));
    assert_eq!(sha256(secret.as_ref()), hex!("6f445ae1f298be2ecce35824cf0668ba46f15e00a46592a162830ec696634768"));
}

#[test]
fn both_ends_agree_and_exchanges_differ() {
    let random = ring_provider().random;
    for method in [&MODP_2048 as &dyn KeyExchange, &MODP_3072] {
        let started = method.start(random).unwrap();
        let own = started.public_value().to_vec();
        let (public, secret) = method.respond(random, &own).unwrap();
        assert_eq!(started.id(), method.id());
        assert_eq!(started.complete(&public).unwrap(), secret);
        assert_ne!(method.start(random).unwrap().public_value(), own);
    }
}

/// 0, 1, p - 1, p, p + 1 and all ones; and values a leading octet too long or too short.
#[test]
fn bad_public_values_are_refused() {
    let random = ring_provider().random;
    for (method, prime) in [(&MODP_2048 as &dyn KeyExchange, PRIME_2048), (&MODP_3072, PRIME_3072)] {
        let prime: Vec<u8> =
            (0..prime.len()).step_by(2).map(|at| u8::from_str_radix(&prime[at..at + 2], 16).unwrap()).collect();
        let len = prime.len();
        let changed = |change: i8| {
            let mut octets = prime.clone();
            // The low 64 bits of the primes are ones: p + 1 carries into the octet above them.
            match change {
                1 => {
                    octets[len - 8..].fill(0);
                    octets[len - 9] += 1;
                }
                _ => octets[len - 1] = octets[len - 1].wrapping_add_signed(change),
            }
            octets
        };
        let good = [integer(len, 2), changed(-2)];
        for peer in good {
            assert!(method.respond(random, &peer).is_ok());
        }
        let bad = [
            integer(len, 0),
            integer(len, 1),
            changed(-1),
            prime.clone(),
            changed(1),
            vec![0xff; len],
            Vec::new(),
            integer(len - 1, 2),
            integer(len + 1, 2),
        ];
        for peer in bad {
            assert_eq!(method.respond(random, &peer).err(), Some(CryptoError::InvalidPublicValue));
            let started = method.start(random).unwrap();
            assert_eq!(started.complete(&peer).err(), Some(CryptoError::InvalidPublicValue));
        }
    }
}

#[test]
fn a_failing_random_source_is_reported() {
    #[derive(Debug)]
    struct Broken;
    impl SecureRandom for Broken {
        fn fill(&self, _: &mut [u8]) -> Result<(), CryptoError> {
            Err(CryptoError::RandomUnavailable)
        }
    }
    assert_eq!(MODP_2048.start(&Broken).err(), Some(CryptoError::RandomUnavailable));
    let answer = MODP_2048.respond(&Broken, &integer(256, 2));
    assert_eq!(answer.err(), Some(CryptoError::RandomUnavailable));
}

#[test]
fn private_values_do_not_print() {
    let started = MODP_2048.start(&Counting(0x11)).unwrap();
    let printed = format!("{started:?}");
    assert!(printed.contains("[redacted]"), "{printed}");
    assert!(!printed.to_lowercase().contains("11121314"), "{printed}");
}
