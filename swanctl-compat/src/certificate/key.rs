//! Public keys (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7).

use std::fmt::Write as _;

use serde_json::{Value as Json, json};
use sha1::{Digest as _, Sha1};
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

use super::colons;

/// A public key, as far as it is shown.
pub(super) struct Key {
    algorithm: &'static str,
    bits: usize,
    /// SHA-1 of the SubjectPublicKeyInfo.
    id: [u8; 20],
    /// SHA-1 of the key's own octets, which RFC 5280 §4.2.1.2 suggests as subject key identifier.
    subject_id: [u8; 20],
}

/// Curves by OID, and their size.
const CURVES: [(&str, usize); 10] = [
    ("1.2.840.10045.3.1.1", 192),
    ("1.3.132.0.33", 224),
    ("1.2.840.10045.3.1.7", 256),
    ("1.3.132.0.34", 384),
    ("1.3.132.0.35", 521),
    ("1.3.36.3.3.2.8.1.1.5", 224),
    ("1.3.36.3.3.2.8.1.1.7", 256),
    ("1.3.36.3.3.2.8.1.1.11", 384),
    ("1.3.36.3.3.2.8.1.1.13", 512),
    ("1.3.132.0.10", 256),
];

impl Key {
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        Self::of(&SubjectPublicKeyInfo::from_der(der).ok()?.1)
    }

    /// Nothing for a kind of key that IKE does not use.
    pub(super) fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let (algorithm, bits) = match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => {
                let PublicKey::RSA(rsa) = info.parsed().ok()? else { return None };
                ("RSA", significant_bits(rsa.modulus))
            }
            "1.2.840.10045.2.1" => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                ("ECDSA", CURVES.iter().find(|(oid, _)| *oid == curve)?.1)
            }
            "1.3.101.112" => ("ED25519", 256),
            "1.3.101.113" => ("ED448", 456),
            _ => return None,
        };
        let (id, subject_id) = (Sha1::digest(info.raw).into(), Sha1::digest(&info.subject_public_key.data).into());
        Some(Self { algorithm, bits, id, subject_id })
    }

    /// The subject key identifier that RFC 5280 suggests.
    pub(super) fn subject_id(&self) -> String {
        colons(&self.subject_id)
    }

    pub(super) fn text(&self, has_private_key: bool) -> String {
        let mut out = format!("  pubkey:    {} {} bits", self.algorithm, self.bits);
        let _ = writeln!(out, "{}", if has_private_key { ", has private key" } else { "" });
        let _ = writeln!(out, "  keyid:     {}", colons(&self.id));
        let _ = writeln!(out, "  subjkey:   {}", colons(&self.subject_id));
        out
    }

    pub(super) fn json(&self) -> Json {
        json!({ "algorithm": self.algorithm, "bits": self.bits, "keyid": colons(&self.id), "subjkey": colons(&self.subject_id) })
    }
}

fn significant_bits(modulus: &[u8]) -> usize {
    let mut octets = modulus.iter().copied().skip_while(|octet| *octet == 0);
    let first = octets.next().map_or(0, |octet| 8 - octet.leading_zeros() as usize);
    first + 8 * octets.count()
}
