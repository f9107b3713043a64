//! Certificates, revocation lists and public keys as `swanctl --list-certs` shows them.
//!
//! The daemon sends DER (RFC 5280); what is in it is read here, for a person or as JSON. Signatures are not verified: a certificate counts as
//! self-signed when it names itself as its issuer.

mod crl;
mod key;
mod names;
mod time;
mod x509;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};
use x509_parser::prelude::{FromDer as _, X509Name};

use crate::vici::{Message, Value};
use key::Key;

pub use time::Clock;

/// A distinguished name (DER) in words.
pub(crate) fn distinguished_name(der: &[u8]) -> Option<String> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    rest.is_empty().then(|| names::distinguished(&name))
}

/// How much is shown.
#[derive(Debug, Clone, Copy)]
pub struct Style<'c> {
    /// Leave out altNames' companions: flags, URIs, constraints, revoked certificates.
    pub short: bool,
    /// Times, and what "now" is.
    pub clock: &'c Clock,
}

/// Why something cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The octets are not what the event says they are.
    #[error("parsing {0} failed")]
    Malformed(&'static str),
    /// A kind that is not shown.
    #[error("certificates of type '{0}' cannot be shown")]
    Kind(String),
}

/// What a `list-cert` event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    X509,
    Crl,
    PublicKey,
    Attribute,
    Ocsp,
}

impl Kind {
    fn of(event: &Message) -> Result<Self, CertificateError> {
        match event.get_str("type").unwrap_or_default() {
            "X509" => Ok(Self::X509),
            "X509_CRL" => Ok(Self::Crl),
            "PUBKEY" => Ok(Self::PublicKey),
            "X509_AC" => Ok(Self::Attribute),
            "OCSP_RESPONSE" => Ok(Self::Ocsp),
            other => Err(CertificateError::Kind(other.to_owned())),
        }
    }

    /// Heading of a list of them.
    fn heading(self, flag: &str) -> &'static str {
        match (self, flag) {
            (Self::X509, "CA") => "List of X.509 CA Certificates",
            (Self::X509, "AA") => "List of X.509 AA Certificates",
            (Self::X509, "OCSP") => "List of X.509 OCSP Signer Certificates",
            (Self::X509, _) => "List of X.509 End Entity Certificates",
            (Self::Crl, _) => "List of X.509 CRLs",
            (Self::PublicKey, _) => "List of Raw Public Keys",
            (Self::Attribute, _) => "List of X.509 Attribute Certificates",
            (Self::Ocsp, _) => "List of OCSP Responses",
        }
    }

    /// Label of its PEM form.
    fn label(self) -> &'static str {
        match self {
            Self::X509 => "CERTIFICATE",
            Self::Crl => "X509 CRL",
            Self::PublicKey => "PUBLIC KEY",
            Self::Attribute => "ATTRIBUTE CERTIFICATE",
            Self::Ocsp => "OCSP RESPONSE",
        }
    }
}

/// Headings come once before each run of entries of one kind.
#[derive(Debug, Default)]
pub struct Listing {
    heading: Option<&'static str>,
}

impl Listing {
    /// One `list-cert` event for a person, with its heading where a new list begins.
    ///
    /// # Errors
    /// When the octets are not what the event says.
    pub fn entry(&mut self, event: &Message, style: Style<'_>) -> Result<String, CertificateError> {
        let kind = Kind::of(event)?;
        let body = body(kind, event, style)?;
        let heading = kind.heading(event.get_str("flag").unwrap_or_default());
        let mut out = String::new();
        if self.heading != Some(heading) {
            let _ = writeln!(out, "\n{heading}");
            self.heading = Some(heading);
        }
        let _ = write!(out, "\n{body}");
        Ok(out)
    }
}

fn body(kind: Kind, event: &Message, style: Style<'_>) -> Result<String, CertificateError> {
    let data = data(event);
    let has_private_key = event.is_yes("has_privkey");
    match kind {
        Kind::X509 => Ok(x509::Certificate::read(data)?.text(style, has_private_key)),
        Kind::Crl => Ok(crl::Crl::read(data)?.text(style)),
        Kind::PublicKey => {
            let key = Key::read(data).ok_or(CertificateError::Malformed("PUBKEY"))?;
            Ok(key.text(has_private_key))
        }
        Kind::Attribute | Kind::Ocsp => Err(CertificateError::Kind(kind.label().to_lowercase())),
    }
}

fn data(event: &Message) -> &[u8] {
    event.get("data").map(Value::as_bytes).unwrap_or_default()
}

/// The PEM form of a `list-cert` event (RFC 7468).
///
/// # Errors
/// When its type has none.
pub fn pem(event: &Message) -> Result<String, CertificateError> {
    use base64::Engine as _;
    let label = Kind::of(event)?.label();
    let text = base64::engine::general_purpose::STANDARD.encode(data(event));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        let _ = writeln!(out, "{line}");
        rest = more;
    }
    let _ = writeln!(out, "-----END {label}-----");
    Ok(out)
}

/// A `list-cert` event as JSON: what it says, what is in the certificate, and its PEM form. Times are RFC 3339, UTC.
///
/// # Errors
/// When its type is unknown; of octets that are not what the event says, only the PEM form is given.
pub fn json(event: &Message) -> Result<Json, CertificateError> {
    let kind = Kind::of(event)?;
    let mut out = Map::new();
    for key in ["type", "flag", "subject", "not-before", "not-after"] {
        out.extend(event.get_str(key).map(|value| (key.to_owned(), Json::from(value))));
    }
    out.insert("has_privkey".to_owned(), event.is_yes("has_privkey").into());
    match kind {
        Kind::X509 => {
            out.extend(x509::Certificate::read(data(event)).map(|certificate| certificate.json()).unwrap_or_default())
        }
        Kind::Crl => out.extend(crl::Crl::read(data(event)).map(|crl| crl.json()).unwrap_or_default()),
        Kind::PublicKey => out.extend(Key::read(data(event)).map(|key| ("key".to_owned(), key.json()))),
        Kind::Attribute | Kind::Ocsp => {}
    }
    out.insert("pem".to_owned(), pem(event)?.into());
    Ok(Json::Object(out))
}

/// Octets as pairs of digits with colons between.
fn colons(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// A serial number's octets without the zero that only says that it is positive.
fn serial(octets: &[u8]) -> String {
    match octets {
        [0, rest @ ..] if !rest.is_empty() => colons(rest),
        _ => colons(octets),
    }
}
