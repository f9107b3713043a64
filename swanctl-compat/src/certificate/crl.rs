//! Certificate revocation lists (RFC 5280 §5).

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, ReasonCode};

use super::{CertificateError, Style, colons, names, serial, time};

/// A revocation list.
pub(super) struct Crl<'a>(CertificateRevocationList<'a>);

impl<'a> Crl<'a> {
    pub(super) fn read(der: &'a [u8]) -> Result<Self, CertificateError> {
        CertificateRevocationList::from_der(der)
            .map(|(_, crl)| Self(crl))
            .map_err(|_| CertificateError::Malformed("X509_CRL"))
    }

    fn number(&self) -> Option<String> {
        self.0.crl_number().map(|number| serial(&number.to_bytes_be()))
    }

    fn authority_key(&self) -> Option<String> {
        self.0.extensions().iter().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
            id.key_identifier.as_ref().map(|id| colons(id.0))
        })
    }

    fn revoked(&self) -> impl Iterator<Item = (String, i64, &'static str)> {
        self.0.iter_revoked_certificates().map(|entry| {
            let reason = entry.reason_code().map_or(UNSPECIFIED, |(_, code)| reason(code));
            (serial(entry.raw_serial()), entry.revocation_date.timestamp(), reason)
        })
    }

    pub(super) fn text(&self, style: Style<'_>) -> String {
        let clock = style.clock;
        let mut out = String::new();
        let _ = writeln!(out, "  issuer:   \"{}\"", names::distinguished(self.0.issuer()));
        let _ = writeln!(out, "  update:    this on {}", clock.begin(self.0.last_update().timestamp()));
        if let Some(next) = self.0.next_update() {
            let _ = writeln!(out, "             next on {}", clock.end(next.timestamp()));
        }
        if let Some(number) = self.number() {
            let _ = writeln!(out, "  serial:    {number}");
        }
        if let Some(id) = self.authority_key() {
            let _ = writeln!(out, "  authKeyId: {id}");
        }
        let count = self.revoked().count();
        let (plural, colon) = (if count == 1 { "" } else { "s" }, if count > 0 && !style.short { ":" } else { "" });
        let _ = writeln!(out, "  {count} revoked certificate{plural}{colon}");
        if !style.short {
            for (serial, date, reason) in self.revoked() {
                let _ = writeln!(out, "    {serial}: {}, {reason}", clock.show(date));
            }
        }
        out
    }

    pub(super) fn json(&self) -> Map<String, Json> {
        let revoked: Vec<Json> = self
            .revoked()
            .map(|(serial, date, reason)| json!({ "serial": serial, "date": time::rfc3339(date), "reason": reason }))
            .collect();
        let members = [
            ("issuer", Json::from(names::distinguished(self.0.issuer()))),
            ("this_update", time::rfc3339(self.0.last_update().timestamp()).into()),
            ("next_update", self.0.next_update().map(|next| time::rfc3339(next.timestamp())).into()),
            ("serial", self.number().into()),
            ("authkeyid", self.authority_key().into()),
            ("revoked", revoked.into()),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

const UNSPECIFIED: &str = "unspecified";

/// Reasons of RFC 5280 §5.3.1.
fn reason(code: ReasonCode) -> &'static str {
    match code.0 {
        1 => "key compromise",
        2 => "ca compromise",
        3 => "affiliation changed",
        4 => "superseded",
        5 => "cessation of operation",
        6 => "certificate hold",
        8 => "remove from crl",
        _ => UNSPECIFIED,
    }
}
