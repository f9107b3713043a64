//! Keys of SAs on their way through VICI, and the tables that Wireshark reads them from.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::vici::Message;

/// Octets that are wiped when they are dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// Transforms by their IANA numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transforms {
    /// Encryption.
    pub encryption: u16,
    /// Length of its key in bits, where it has several.
    pub key_bits: Option<u16>,
    /// Integrity, where the encryption is no AEAD.
    pub integrity: Option<u16>,
}

/// Keys of one SA.
#[derive(Clone, PartialEq, Eq)]
pub enum Keys {
    /// Of ESP.
    Esp {
        /// Child.
        child: String,
        /// SPI, as hexadecimal digits.
        spi: String,
        /// Where its packets come from.
        source: IpAddr,
        /// Where they go.
        destination: IpAddr,
        /// Algorithms.
        transforms: Transforms,
        /// 64-bit sequence numbers.
        esn: bool,
        /// Encryption key, with the salt of an AEAD behind it.
        encryption: Secret,
        /// Integrity key; empty with an AEAD.
        integrity: Secret,
    },
    /// Of IKE.
    Ike {
        /// The initiator's SPI, as hexadecimal digits.
        initiator: String,
        /// The responder's.
        responder: String,
        /// Algorithms.
        transforms: Transforms,
        /// SK_ei and SK_er, with the salt of an AEAD behind each.
        encryption: [Secret; 2],
        /// SK_ai and SK_ar; empty with an AEAD.
        integrity: [Secret; 2],
    },
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp { spi, .. } => write!(f, "ESP {spi} [redacted]"),
            Self::Ike { initiator, responder, .. } => write!(f, "IKE {initiator}_i {responder}_r [redacted]"),
        }
    }
}

impl Transforms {
    fn set(self, message: &mut Message) {
        message.set_display("encr-alg", self.encryption);
        if let Some(bits) = self.key_bits {
            message.set_display("encr-keysize", bits);
        }
        if let Some(integrity) = self.integrity {
            message.set_display("integ-alg", integrity);
        }
    }

    fn read(message: &Message) -> Option<Self> {
        let number = |key: &str| message.get_str(key).map(str::parse::<u16>);
        Some(Self {
            encryption: number("encr-alg")?.ok()?,
            key_bits: number("encr-keysize").transpose().ok()?,
            integrity: number("integ-alg").transpose().ok()?,
        })
    }
}

impl Keys {
    /// One section of a `cygnet-keys` event: `protocol` (`esp` or `ike`), `encr-alg`, `encr-keysize`, `integ-alg` (IANA numbers); of ESP
    /// `child`, `spi`, `src`, `dst`, `esn`, `key`, `integ-key`; of IKE `initiator-spi`, `responder-spi`, `sk-ei`, `sk-er`, `sk-ai`, `sk-ar`.
    #[must_use]
    pub fn message(&self) -> Message {
        let mut m = Message::new();
        match self {
            Self::Esp { child, spi, source, destination, transforms, esn, encryption, integrity } => {
                m.set("protocol", "esp");
                transforms.set(&mut m);
                m.set("child", child.as_str());
                m.set("spi", spi.as_str());
                m.set_display("src", source);
                m.set_display("dst", destination);
                m.set_if("esn", *esn);
                m.set("key", encryption.as_slice());
                m.set("integ-key", integrity.as_slice());
            }
            Self::Ike { initiator, responder, transforms, encryption, integrity } => {
                m.set("protocol", "ike");
                transforms.set(&mut m);
                m.set("initiator-spi", initiator.as_str());
                m.set("responder-spi", responder.as_str());
                for (name, key) in [("sk-ei", "sk-er"), ("sk-ai", "sk-ar")].into_iter().zip([encryption, integrity]) {
                    let ((first, second), [one, other]) = (name, key);
                    m.set(first, one.as_slice());
                    m.set(second, other.as_slice());
                }
            }
        }
        m
    }

    /// Reads it; nothing where something is missing.
    #[must_use]
    pub fn read(message: &Message) -> Option<Self> {
        let text = |key: &str| message.get_str(key).map(str::to_owned);
        let secret = |key: &str| message.get(key).map(|value| Zeroizing::new(value.as_bytes().to_vec()));
        let transforms = Transforms::read(message)?;
        match message.get_str("protocol")? {
            "esp" => Some(Self::Esp {
                child: text("child")?,
                spi: text("spi")?,
                source: message.get_str("src")?.parse().ok()?,
                destination: message.get_str("dst")?.parse().ok()?,
                transforms,
                esn: message.is_yes("esn"),
                encryption: secret("key")?,
                integrity: secret("integ-key")?,
            }),
            "ike" => Some(Self::Ike {
                initiator: text("initiator-spi")?,
                responder: text("responder-spi")?,
                transforms,
                encryption: [secret("sk-ei")?, secret("sk-er")?],
                integrity: [secret("sk-ai")?, secret("sk-ar")?],
            }),
            _ => None,
        }
    }

    /// The file of Wireshark's that the SA belongs into.
    #[must_use]
    pub const fn table(&self) -> &'static str {
        match self {
            Self::Esp { .. } => "esp_sa",
            Self::Ike { .. } => "ikev2_decryption_table",
        }
    }

    /// Its line in that file, without the end of the line; nothing for an algorithm that Wireshark 4.0 cannot decrypt.
    #[must_use]
    pub fn line(&self) -> Option<Zeroizing<String>> {
        // As long as it gets: wiping is of no use for what a growing text leaves behind.
        let mut line = Zeroizing::new(String::with_capacity(1024));
        match self {
            Self::Esp { spi, source, destination, transforms, esn, encryption, integrity, .. } => {
                let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
                let (cipher, mac) = (esp_cipher(*transforms)?, esp_integrity(*transforms)?);
                let _ = write!(line, "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi}\",\"{cipher}\",\"0x");
                hex(&mut line, encryption);
                let _ = write!(line, "\",\"{mac}\",\"");
                if !integrity.is_empty() {
                    line.push_str("0x");
                    hex(&mut line, integrity);
                }
                line.push('"');
                if *esn {
                    // Releases up to 4.0 do not know these fields; they say so and go on without.
                    line.push_str(",\"64-bit\",\"0x00000000\"");
                }
            }
            Self::Ike { initiator, responder, transforms, encryption: [ei, er], integrity: [ai, ar] } => {
                let (cipher, mac) = (ike_cipher(*transforms)?, ike_integrity(*transforms)?);
                let _ = write!(line, "{initiator},{responder},");
                hex(&mut line, ei);
                line.push(',');
                hex(&mut line, er);
                let _ = write!(line, ",\"{cipher}\",");
                hex(&mut line, ai);
                line.push(',');
                hex(&mut line, ar);
                let _ = write!(line, ",\"{mac}\"");
            }
        }
        Some(line)
    }
}

fn hex(line: &mut String, octets: &[u8]) {
    for octet in octets {
        // Writing to a text cannot fail.
        let _ = write!(line, "{octet:02x}");
    }
}

const AES_CBC: u16 = 12;
const AES_GCM_16: u16 = 20;

/// Wireshark's name of a cipher of ESP; it sees the length of the key from the key.
fn esp_cipher(transforms: Transforms) -> Option<&'static str> {
    match transforms.encryption {
        AES_CBC => Some("AES-CBC [RFC3602]"),
        AES_GCM_16 => Some("AES-GCM with 16 octet ICV [RFC4106]"),
        _ => None,
    }
}

fn esp_integrity(transforms: Transforms) -> Option<&'static str> {
    match transforms.integrity {
        None => Some("NULL"),
        Some(12) => Some("HMAC-SHA-256-128 [RFC4868]"),
        Some(13) => Some("HMAC-SHA-384-192 [RFC4868]"),
        Some(14) => Some("HMAC-SHA-512-256 [RFC4868]"),
        Some(_) => None,
    }
}

fn ike_cipher(transforms: Transforms) -> Option<&'static str> {
    match (transforms.encryption, transforms.key_bits) {
        (AES_CBC, Some(128)) => Some("AES-CBC-128 [RFC3602]"),
        (AES_CBC, Some(192)) => Some("AES-CBC-192 [RFC3602]"),
        (AES_CBC, Some(256)) => Some("AES-CBC-256 [RFC3602]"),
        (AES_GCM_16, Some(128)) => Some("AES-GCM-128 with 16 octet ICV [RFC5282]"),
        (AES_GCM_16, Some(192)) => Some("AES-GCM-192 with 16 octet ICV [RFC5282]"),
        (AES_GCM_16, Some(256)) => Some("AES-GCM-256 with 16 octet ICV [RFC5282]"),
        _ => None,
    }
}

fn ike_integrity(transforms: Transforms) -> Option<&'static str> {
    match transforms.integrity {
        None => Some("NONE [RFC4306]"),
        Some(12) => Some("HMAC_SHA2_256_128 [RFC4868]"),
        Some(13) => Some("HMAC_SHA2_384_192 [RFC4868]"),
        Some(14) => Some("HMAC_SHA2_512_256 [RFC4868]"),
        Some(_) => None,
    }
}

/// The `cygnet-keys` event: the keys of some SAs, numbered from 1.
#[must_use]
pub fn message(keys: &[Keys]) -> Message {
    let mut message = Message::new();
    for (number, keys) in keys.iter().enumerate() {
        message.section((number + 1).to_string(), keys.message());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(octet: u8, length: usize) -> Secret {
        Zeroizing::new(vec![octet; length])
    }

    fn esp(transforms: Transforms, integrity: usize) -> Keys {
        Keys::Esp {
            child: "net".into(),
            spi: "00c0ffee".into(),
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            transforms,
            esn: true,
            encryption: secret(0xab, 20),
            integrity: secret(0xcd, integrity),
        }
    }

    fn ike(transforms: Transforms, integrity: usize) -> Keys {
        Keys::Ike {
            initiator: "0123456789abcdef".into(),
            responder: "fedcba9876543210".into(),
            transforms,
            encryption: [secret(1, 3), secret(2, 3)],
            integrity: [secret(3, integrity), secret(4, integrity)],
        }
    }

    const GCM: Transforms = Transforms { encryption: AES_GCM_16, key_bits: Some(128), integrity: None };
    const CBC: Transforms = Transforms { encryption: AES_CBC, key_bits: Some(256), integrity: Some(12) };

    #[test]
    fn what_is_written_is_read_and_never_printed() {
        for keys in [esp(GCM, 0), ike(GCM, 0), esp(CBC, 32), ike(CBC, 32)] {
            let message = keys.message();
            assert_eq!(Keys::read(&message).as_ref(), Some(&keys));
            assert!(!format!("{keys:?}{message:?}").contains("abab"));
            for left_out in message.elements().iter().map(|element| element.name().to_owned()) {
                let mut less = Message::new();
                message.elements().iter().filter(|e| e.name() != left_out).for_each(|e| less.push(e.clone()));
                let optional = ["esn", "encr-keysize", "integ-alg"].contains(&left_out.as_str());
                assert_eq!(Keys::read(&less).is_some(), optional, "without {left_out}");
            }
        }
    }

    #[test]
    fn lines_are_as_wireshark_reads_them() {
        let line = esp(GCM, 0).line().unwrap();
        let expected = format!(
            r#""IPv4","192.0.2.1","192.0.2.2","0x00c0ffee","AES-GCM with 16 octet ICV [RFC4106]","0x{}","NULL","","64-bit","0x00000000""#,
            "ab".repeat(20)
        );
        assert_eq!(*line, expected);
        let line = ike(CBC, 2).line().unwrap();
        let expected = "0123456789abcdef,fedcba9876543210,010101,020202,\"AES-CBC-256 [RFC3602]\",0303,0404,\"HMAC_SHA2_256_128 [RFC4868]\"";
        assert_eq!(*line, expected);
        assert_eq!((esp(GCM, 0).table(), ike(GCM, 0).table()), ("esp_sa", "ikev2_decryption_table"));
    }

    #[test]
    fn what_wireshark_does_not_know_has_no_line() {
        let chacha = Transforms { encryption: 28, key_bits: None, integrity: None };
        assert!(esp(chacha, 0).line().is_none() && ike(chacha, 0).line().is_none());
    }
}
