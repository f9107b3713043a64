//! Files written by OpenSSL 3 (`tests/keys`, all protected by `correct`), opened with the right password and with wrong ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an expectation fails")]

use super::*;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The octets of a PEM file that is not protected.
fn plain(name: &str) -> Vec<u8> {
    Block::first(&file(name)).unwrap().octets.to_vec()
}

#[test]
fn plain_keys_need_no_password() {
    for name in ["ec.pem", "rsa.pem", "ed25519.pem", "ec-plain-pkcs8.pem", "ec.der", "cert.pem"] {
        assert!(!is_encrypted(&file(name)), "{name}");
    }
    assert!(!is_encrypted(b"") && !is_encrypted(&[0xff; 40]));
}

#[test]
fn protected_keys_come_out_in_their_own_form() {
    let (ec, rsa, ed25519) = (plain("ec.pem"), plain("rsa.pem"), plain("ed25519.pem"));
    let cases = [
        ("ec-aes128.pem", "ECDSA", &ec),
        ("ec-aes192.pem", "ECDSA", &ec),
        ("ec-aes256.pem", "ECDSA", &ec),
        ("ec-des3.pem", "ECDSA", &ec),
        ("rsa-aes256.pem", "RSA", &rsa),
        ("ec-pkcs8.pem", "ECDSA", &ec),
        ("ec-pkcs8-scrypt.pem", "ECDSA", &ec),
        ("rsa-pkcs8-sha1.der", "RSA", &rsa),
        ("ed25519-pkcs8-des3.pem", "ED25519", &ed25519),
        ("ec-pkcs8-v1.pem", "ECDSA", &ec),
        ("rsa-pkcs8-v1-rc2.der", "RSA", &rsa),
    ];
    for (name, kind, expected) in cases {
        let octets = file(name);
        assert!(is_encrypted(&octets), "{name}");
        let key = decrypt(&octets, b"correct").unwrap();
        assert_eq!((key.kind, &*key.der), (kind, expected), "{name}");
        assert_eq!(format!("{key:?}"), format!("PrivateKey({kind}, [redacted])"));
        for wrong in [&b"wrong"[..], b"", b"correct ", b"Correct"] {
            assert_eq!(decrypt(&octets, wrong).unwrap_err(), KeyError::Password, "{name}");
        }
    }
}

#[test]
fn what_cannot_be_opened_says_what_it_is() {
    // The same key under RC4, which nothing here has.
    let octets = file("ec-pkcs8-v1.pem");
    let mut der = plain("ec-pkcs8-v1.pem");
    assert!(is_encrypted(&der) && is_encrypted(&plain("ec-pkcs8.pem")) && is_encrypted(&file("rsa-pkcs8-sha1.der")));
    let scheme = [1, 12, 1, 3];
    let at = der.windows(4).position(|octets| octets == scheme).unwrap();
    der[at + 3] = 1;
    assert!(is_encrypted(&der));
    assert!(matches!(decrypt(&der, b"correct"), Err(KeyError::Unsupported(_))));
    for length in 0..octets.len() {
        let _ = decrypt(&octets[..length], b"correct");
    }
    // Header and parameters; the rest is ciphertext.
    for at in 0..33 {
        let mut bent = plain("ec-pkcs8-v1.pem");
        bent[at] ^= 0x11;
        let _ = decrypt(&bent, b"correct");
    }
    assert_eq!(decrypt(&plain("ec-pkcs8-v1.pem"), &[0xff]).unwrap_err(), KeyError::Password);
    let text = String::from_utf8(file("ec-aes128.pem")).unwrap().replace("AES-128-CBC", "IDEA-CBC");
    assert_eq!(decrypt(text.as_bytes(), b"correct").unwrap_err().to_string(), "the cipher 'IDEA-CBC' is not supported");
    assert_eq!(decrypt(b"nothing", b"correct").unwrap_err(), KeyError::Malformed);
    let octets = file("ec-pkcs8.pem");
    for length in 0..octets.len() {
        let _ = decrypt(&octets[..length], b"correct");
    }
}

#[test]
fn containers_give_certificates_and_keys() {
    for name in ["modern.p12", "legacy.p12"] {
        let octets = file(name);
        let container = open(&octets, "correct").unwrap();
        assert_eq!(container.certificates, [plain("cert.pem")], "{name}");
        let keys: Vec<_> = container.keys.iter().map(|key| (key.kind, key.der.to_vec())).collect();
        assert_eq!(keys, [("ECDSA", plain("ec.pem"))], "{name}");
        assert_eq!(open(&octets, "wrong").unwrap_err(), KeyError::Password, "{name}");
    }
    assert_eq!(open(b"nothing", "correct").unwrap_err(), KeyError::Malformed);
}
