//! Signatures of the Standard Webhooks specification, and the secrets that they are made with.
//!
//! A signature is `v1,` and the base64 of an HMAC-SHA256 over the message's identity, the time at which it is sent and the octets sent, joined by
//! full stops. With several secrets there are several signatures, a blank between each: while a receiver moves from one secret to the next, both
//! verify.

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use ring::hmac;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// What the other kind of key begins with, private and public.
const ASYMMETRIC: [&str; 2] = ["whsk_", "whpk_"];
/// Octets that a secret may have: the specification's limits.
const OCTETS: std::ops::RangeInclusive<usize> = 24..=64;
/// Octets of a fresh one, as many as HMAC-SHA256 has use for.
const FRESH: usize = 32;

/// A secret that messages are signed with; never shown.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    /// Secrets that sign alike are the same.
    fn eq(&self, other: &Self) -> bool {
        hmac::verify(&self.0, b"", hmac::sign(&other.0, b"").as_ref()).is_ok()
    }
}

impl Secret {
    /// Reads `whsec_` and base64 behind it; the prefix may be missing.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if ASYMMETRIC.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(
                "is an asymmetric key, but messages are signed with a shared secret, `whsec_` and base64".into()
            );
        }
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let octets = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_| complaint(encoded))?);
        if !OCTETS.contains(&octets.len()) {
            return Err(format!("has {} octets, but needs {} to {}", octets.len(), OCTETS.start(), OCTETS.end()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &octets)))
    }

    /// The signature of a message: its identity, the seconds since the epoch at which it is sent, and the octets sent.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

/// Receivers' libraries take no other form of base64, some of them without a word: better to hear it here.
fn complaint(encoded: &str) -> String {
    let padded = format!("{encoded}{}", "=".repeat(encoded.len().wrapping_neg() % 4));
    if BASE64_STANDARD.decode(&padded).is_ok() {
        return "is base64 without its padding: add `=` until its length is a multiple of 4".into();
    }
    if BASE64_URL_SAFE.decode(&padded).is_ok() {
        return "is URL-safe base64: secrets are written with `+` and `/` in place of `-` and `_`".into();
    }
    "is not base64 behind `whsec_`".into()
}

/// The signatures of a message by each of `secrets`, as one header carries them.
pub fn signatures(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let each: Vec<String> = secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    each.join(" ")
}

/// A secret that nobody else has, as text.
///
/// # Errors
/// The system gives no random octets.
pub fn fresh(random: &dyn SecureRandom) -> Result<Zeroizing<String>, ring::error::Unspecified> {
    let mut octets = Zeroizing::new([0; FRESH]);
    random.fill(&mut *octets)?;
    Ok(Zeroizing::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(*octets))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_is_met() {
        // From the specification's reference implementations.
        let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = secret.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn another_implementation_agrees() {
        let random = ring::rand::SystemRandom::new();
        for number in 0..50 {
            let text = fresh(&random).unwrap();
            let (id, body) = (format!("01J{number}"), format!("{{\"number\":{number},\"text\":\"ä\"}}"));
            let theirs = standardwebhooks::Webhook::new(&text).unwrap();
            let ours = Secret::parse(&text).unwrap();
            assert_eq!(theirs.sign(&id, number, body.as_bytes()).unwrap(), {
                ours.sign(&id, number.unsigned_abs(), body.as_bytes())
            });
        }
    }

    #[test]
    fn each_secret_signs() {
        let secrets = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"];
        let secrets = secrets.map(|text| Secret::parse(text).unwrap());
        let both = signatures(&secrets, "id", 7, b"{}");
        let each: Vec<_> = secrets.iter().map(|secret| secret.sign("id", 7, b"{}")).collect();
        assert_eq!(both.split(' ').collect::<Vec<_>>(), each);
    }

    #[test]
    fn wrong_secrets_are_explained_and_not_repeated() {
        let encode = |length| BASE64_STANDARD.encode(vec![0xfb; length]);
        let url_safe = BASE64_URL_SAFE.encode([0xfb; 30]);
        let no_padding = encode(32).trim_end_matches('=').to_owned();
        let cases = [
            (encode(23), "has 23 octets, but needs 24 to 64"),
            (encode(65), "has 65 octets, but needs 24 to 64"),
            (String::new(), "has 0 octets, but needs 24 to 64"),
            (url_safe, "URL-safe"),
            (no_padding, "padding"),
            ("not base64 at all!".into(), "is not base64"),
        ];
        for (encoded, expected) in cases {
            for text in [encoded.clone(), format!("whsec_{encoded}")] {
                let error = Secret::parse(&text).unwrap_err();
                assert!(error.contains(expected), "{text}: {error}");
                assert!(encoded.is_empty() || !error.contains(&encoded), "{error}");
            }
        }
        assert!(Secret::parse("whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").unwrap_err().contains("asymmetric"));
        for length in [24, 64] {
            let secret = Secret::parse(&encode(length)).unwrap();
            assert_eq!(format!("{secret:?}"), "[redacted]");
        }
    }
}
