#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test ends where an expectation fails")]

//! Rendering of certificates made here; what Debian's tool makes of them is compared in the interop tests.

use jiff::tz::TimeZone;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use super::*;

fn clock(now: i64) -> Clock {
    Clock { now, zone: TimeZone::UTC, utc: false }
}

fn event(kind: &str, flag: &str, data: &[u8]) -> Message {
    Message::new().with("type", kind).with("flag", flag).with("has_privkey", "yes").with("data", data)
}

fn authority() -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "XX");
    params.distinguished_name.push(DnType::CommonName, "Root\u{1b}[2J");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.not_before = rcgen::date_time_ymd(2026, 1, 2);
    params.not_after = rcgen::date_time_ymd(2026, 1, 12);
    params.serial_number = Some(vec![0x80, 1].into());
    (params, KeyPair::generate().unwrap())
}

#[test]
fn headings_come_once_and_names_cannot_drive_a_terminal() {
    let (params, key) = authority();
    let root = params.self_signed(&key).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let names = vec!["gw-a.example".to_owned(), "192.0.2.1".to_owned()];
    let leaf =
        CertificateParams::new(names).unwrap().signed_by(&leaf_key, &Issuer::from_params(&params, &key)).unwrap();
    let clock = clock(1_767_398_400 + 3_600);
    let style = Style { short: false, clock: &clock };
    let mut listing = Listing::default();
    let first = listing.entry(&event("X509", "CA", root.der()), style).unwrap();
    let start = "\nList of X.509 CA Certificates\n\n  subject:  \"C=XX, CN=Root?[2J\"\n  issuer:   \"C=XX, CN=Root?[2J\"\n  validity:  \
                 not before Jan 02 00:00:00 2026, ok\n             not after  Jan 12 00:00:00 2026, ok (expires in 8 days)\n  \
                 serial:    80:01\n  flags:     CA self-signed \n  pathlen:   1\n";
    assert!(first.starts_with(start), "{first}");
    assert!(first.contains("  pubkey:    ECDSA 256 bits, has private key\n  keyid:     "), "{first}");
    let second = listing.entry(&event("X509", "CA", root.der()), style).unwrap();
    assert!(second.starts_with("\n  subject:"), "{second}");
    let third = listing.entry(&event("X509", "NONE", leaf.der()), style).unwrap();
    assert!(third.starts_with("\nList of X.509 End Entity Certificates\n\n  subject:"), "{third}");
    assert!(third.contains("  altNames:  gw-a.example, 192.0.2.1\n"), "{third}");
    let short = body(Kind::X509, &event("X509", "CA", root.der()), Style { short: true, clock: &clock }).unwrap();
    assert!(!short.contains("flags") && !short.contains("pathlen") && short.contains("subjkeyId"), "{short}");
}

#[test]
fn json_has_what_the_text_has() {
    let (params, key) = authority();
    let root = params.self_signed(&key).unwrap();
    let document = json(&event("X509", "CA", root.der())).unwrap();
    assert_eq!(document["subject"], "C=XX, CN=Root?[2J");
    assert_eq!(document["not_after"], "2026-01-12T00:00:00Z");
    assert_eq!(document["flags"], serde_json::json!(["CA", "self-signed"]));
    assert_eq!((&document["key"]["bits"], &document["has_privkey"]), (&256.into(), &true.into()));
    assert_eq!(document["pem"].as_str().unwrap(), root.pem().replace("\r\n", "\n"));
}

#[test]
fn octets_that_are_no_certificate_are_an_error() {
    let clock = clock(0);
    let style = Style { short: false, clock: &clock };
    let (params, key) = authority();
    let whole = params.self_signed(&key).unwrap().der().to_vec();
    let show = |kind: &str, data: &[u8]| Listing::default().entry(&event(kind, "NONE", data), style);
    for length in 0..whole.len() {
        for kind in ["X509", "X509_CRL", "PUBKEY"] {
            assert!(show(kind, &whole[..length]).is_err(), "{kind} {length}");
        }
    }
    // A changed octet may make another certificate, never a panic.
    for place in 0..whole.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] = value;
            let _ = show("X509", &changed);
            let _ = json(&event("X509", "NONE", &changed));
        }
    }
    assert_eq!(show("SOMETHING", &whole), Err(CertificateError::Kind("SOMETHING".to_owned())));
    assert_eq!(show("X509", b"x").unwrap_err().to_string(), "parsing X509 failed");
}

#[test]
fn distances_have_one_unit() {
    let day = 86_400;
    let clock = clock(10 * day);
    let end = |seconds: i64| clock.end(10 * day + seconds).split_once(", ").unwrap().1.to_owned();
    assert_eq!(end(1), "ok (expires in 1 second)");
    assert_eq!(end(120), "ok (expires in 120 seconds)");
    assert_eq!(end(121), "ok (expires in 2 minutes)");
    assert_eq!(end(2 * day), "ok (expires in 48 hours)");
    assert_eq!(end(3 * day), "ok (expires in 3 days)");
    assert_eq!(end(-3 * day), "expired (3 days ago)");
    assert_eq!(clock.show(253_402_300_799), "Dec 31 23:59:59 9999");
    assert_eq!(time::rfc3339(253_402_300_799), "9999-12-31T23:59:59Z");
    assert!(clock.begin(11 * day).ends_with("not valid yet (valid in 24 hours)"));
}
