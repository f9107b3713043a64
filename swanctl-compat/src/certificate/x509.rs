//! X.509 certificates (RFC 5280 §4).

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralSubtree, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::key::Key;
use super::{CertificateError, Style, colons, names, serial, time};

/// Everything of a certificate that is shown.
pub(super) struct Certificate {
    subject: String,
    issuer: String,
    not_before: i64,
    not_after: i64,
    serial: String,
    alt_names: Vec<String>,
    flags: Flags,
    crl_uris: Vec<String>,
    ocsp_uris: Vec<String>,
    path_length: Option<u32>,
    permitted: Vec<String>,
    excluded: Vec<String>,
    policies: Vec<Policy>,
    mappings: Vec<(String, String)>,
    constraints: PolicyConstraints,
    addresses: Vec<String>,
    authority_key: Option<String>,
    subject_key: Option<String>,
    key: Option<Key>,
}

/// What it may be used for.
#[derive(Default)]
struct Flags {
    ca: bool,
    crl_sign: bool,
    ocsp_signing: bool,
    server_auth: bool,
    client_auth: bool,
    ike_intermediate: bool,
    smartcard_logon: bool,
    self_signed: bool,
}

struct Policy {
    id: String,
    /// Where its practice statement is.
    statement: Option<String>,
}

#[derive(Default)]
struct PolicyConstraints {
    require_explicit: Option<u32>,
    inhibit_mapping: Option<u32>,
    inhibit_any: Option<u32>,
}

impl Flags {
    fn names(&self) -> Vec<&'static str> {
        [
            (self.ca, "CA"),
            (self.crl_sign, "CRLSign"),
            (self.ocsp_signing, "ocspSigning"),
            (self.server_auth, "serverAuth"),
            (self.client_auth, "clientAuth"),
            (self.ike_intermediate, "ikeIntermediate"),
            (self.smartcard_logon, SMARTCARD),
            (self.self_signed, "self-signed"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
    }
}

const ID_AD_OCSP: &str = "1.3.6.1.5.5.7.48.1";
const ID_QT_CPS: &str = "1.3.6.1.5.5.7.2.1";
const ID_PE_IP_ADDR_BLOCKS: &str = "1.3.6.1.5.5.7.1.7";
const IKE_INTERMEDIATE: &str = "1.3.6.1.5.5.8.2.2";
const SMARTCARD: &str = "msSmartcardLogon";
const SMARTCARD_LOGON: &str = "1.3.6.1.4.1.311.20.2.2";

impl Certificate {
    pub(super) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed("X509"))?;
        let mut out = Self {
            subject: names::distinguished(parsed.subject()),
            issuer: names::distinguished(parsed.issuer()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            serial: serial(parsed.raw_serial()),
            alt_names: Vec::new(),
            flags: Flags::default(),
            crl_uris: Vec::new(),
            ocsp_uris: Vec::new(),
            path_length: None,
            permitted: Vec::new(),
            excluded: Vec::new(),
            policies: Vec::new(),
            mappings: Vec::new(),
            constraints: PolicyConstraints::default(),
            addresses: Vec::new(),
            authority_key: None,
            subject_key: None,
            key: Key::of(parsed.public_key()),
        };
        for extension in parsed.iter_extensions() {
            out.extension(extension.parsed_extension());
            if extension.oid.to_id_string() == ID_PE_IP_ADDR_BLOCKS {
                out.addresses = names::address_blocks(extension.value).unwrap_or_default();
            }
        }
        // Without the extension, the identifier is what it would be made of.
        out.subject_key = out.subject_key.take().or_else(|| out.key.as_ref().map(Key::subject_id));
        let own_key = out.authority_key.is_none() || out.authority_key == out.subject_key;
        out.flags.self_signed = parsed.subject().as_raw() == parsed.issuer().as_raw() && own_key;
        Ok(out)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's enum: an extension that is not shown needs no name here"
    )]
    fn extension(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(name) => {
                self.alt_names = name.general_names.iter().filter_map(names::general).collect();
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.flags.ca = constraints.ca;
                self.path_length = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => self.flags.crl_sign = usage.crl_sign(),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.flags.ocsp_signing = usage.ocsp_signing;
                self.flags.server_auth = usage.server_auth;
                self.flags.client_auth = usage.client_auth;
                let has = |oid: &str| usage.other.iter().any(|other| other.to_id_string() == oid);
                self.flags.ike_intermediate = has(IKE_INTERMEDIATE);
                self.flags.smartcard_logon = has(SMARTCARD_LOGON);
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                self.crl_uris = points.points.iter().flat_map(distribution_point).collect();
            }
            ParsedExtension::AuthorityInfoAccess(access) => {
                let ocsp = access.iter().filter(|entry| entry.access_method.to_id_string() == ID_AD_OCSP);
                self.ocsp_uris = ocsp.filter_map(|entry| names::general(&entry.access_location)).collect();
            }
            ParsedExtension::NameConstraints(constraints) => {
                self.permitted = subtrees(constraints.permitted_subtrees.as_deref());
                self.excluded = subtrees(constraints.excluded_subtrees.as_deref());
            }
            ParsedExtension::CertificatePolicies(policies) => {
                self.policies = policies.iter().map(policy).collect();
            }
            ParsedExtension::PolicyMappings(mappings) => {
                let pair = |mapping: &x509_parser::extensions::PolicyMapping<'_>| {
                    (mapping.issuer_domain_policy.to_id_string(), mapping.subject_domain_policy.to_id_string())
                };
                self.mappings = mappings.mappings.iter().map(pair).collect();
            }
            ParsedExtension::PolicyConstraints(constraints) => {
                self.constraints.require_explicit = constraints.require_explicit_policy;
                self.constraints.inhibit_mapping = constraints.inhibit_policy_mapping;
            }
            ParsedExtension::InhibitAnyPolicy(inhibit) => self.constraints.inhibit_any = Some(inhibit.skip_certs),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key = id.key_identifier.as_ref().map(|id| colons(id.0));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key = Some(colons(id.0)),
            _ => {}
        }
    }

    pub(super) fn text(&self, style: Style<'_>, has_private_key: bool) -> String {
        let clock = style.clock;
        let mut out = String::new();
        let _ = writeln!(out, "  subject:  \"{}\"", self.subject);
        let _ = writeln!(out, "  issuer:   \"{}\"", self.issuer);
        let _ = writeln!(out, "  validity:  not before {}", clock.begin(self.not_before));
        let _ = writeln!(out, "             not after  {}", clock.end(self.not_after));
        let _ = writeln!(out, "  serial:    {}", self.serial);
        if !self.alt_names.is_empty() {
            let _ = writeln!(out, "  altNames:  {}", self.alt_names.join(", "));
        }
        if !style.short {
            self.details(&mut out);
        }
        if let Some(id) = &self.authority_key {
            let _ = writeln!(out, "  authkeyId: {id}");
        }
        if let Some(id) = &self.subject_key {
            let _ = writeln!(out, "  subjkeyId: {id}");
        }
        if let Some(key) = &self.key {
            out.push_str(&key.text(has_private_key));
        }
        out
    }

    fn details(&self, out: &mut String) {
        let _ = write!(out, "  flags:     ");
        self.flags.names().iter().for_each(|name| {
            // The one without a blank behind it, as scripts have it since ever.
            let blank = if *name == SMARTCARD { "" } else { " " };
            let _ = write!(out, "{name}{blank}");
        });
        out.push('\n');
        listed(out, "  CRL URIs:  ", "           ", &self.crl_uris);
        listed(out, "  OCSP URIs: ", "           ", &self.ocsp_uris);
        if let Some(length) = self.path_length {
            let _ = writeln!(out, "  pathlen:   {length}");
        }
        headed(out, "permitted nameConstraints", &self.permitted);
        headed(out, "excluded nameConstraints", &self.excluded);
        if !self.policies.is_empty() {
            let _ = writeln!(out, "  certificatePolicies:");
        }
        for policy in &self.policies {
            let _ = writeln!(out, "             {}", policy.id);
            if let Some(uri) = &policy.statement {
                let _ = writeln!(out, "             CPS: {uri}");
            }
        }
        let mappings: Vec<String> = self.mappings.iter().map(|(from, to)| format!("{from} => {to}")).collect();
        headed(out, "policyMappings", &mappings);
        let constraints = [
            (self.constraints.require_explicit, "requireExplicitPolicy"),
            (self.constraints.inhibit_mapping, "inhibitPolicyMapping"),
            (self.constraints.inhibit_any, "inhibitAnyPolicy"),
        ];
        let constraints: Vec<String> =
            constraints.into_iter().filter_map(|(count, name)| count.map(|count| format!("{name}: {count}"))).collect();
        headed(out, "policyConstraints", &constraints);
        if !self.addresses.is_empty() {
            let _ = writeln!(out, "  addresses: {}", self.addresses.join(", "));
        }
    }

    pub(super) fn json(&self) -> Map<String, Json> {
        let policies: Vec<&str> = self.policies.iter().map(|policy| policy.id.as_str()).collect();
        let members = [
            ("subject", Json::from(self.subject.as_str())),
            ("issuer", self.issuer.as_str().into()),
            ("not_before", time::rfc3339(self.not_before).into()),
            ("not_after", time::rfc3339(self.not_after).into()),
            ("serial", self.serial.as_str().into()),
            ("alt_names", self.alt_names.clone().into()),
            ("flags", self.flags.names().into()),
            ("crl_uris", self.crl_uris.clone().into()),
            ("ocsp_uris", self.ocsp_uris.clone().into()),
            ("path_length", self.path_length.into()),
            ("policies", policies.into()),
            ("authkeyid", self.authority_key.clone().into()),
            ("subjkeyid", self.subject_key.clone().into()),
            ("key", self.key.as_ref().map(Key::json).into()),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Values one below the other, the first behind a title.
fn listed(out: &mut String, title: &str, indent: &str, values: &[String]) {
    for (index, value) in values.iter().enumerate() {
        let _ = writeln!(out, "{}{value}", if index == 0 { title } else { indent });
    }
}

/// Values below a title.
fn headed(out: &mut String, title: &str, values: &[String]) {
    if !values.is_empty() {
        let _ = writeln!(out, "  {title}:");
        values.iter().for_each(|value| {
            let _ = writeln!(out, "           {value}");
        });
    }
}

/// The URIs of one distribution point, the last first as strongSwan lists them.
fn distribution_point(point: &x509_parser::extensions::CRLDistributionPoint<'_>) -> Vec<String> {
    let issuer = point.crl_issuer.as_ref().and_then(|names| names.iter().find_map(names::general));
    let issuer = issuer.map(|issuer| format!(" (CRL issuer: {issuer})")).unwrap_or_default();
    let Some(DistributionPointName::FullName(full)) = &point.distribution_point else { return Vec::new() };
    full.iter().rev().filter_map(names::general).map(|uri| format!("{uri}{issuer}")).collect()
}

fn subtrees(all: Option<&[GeneralSubtree<'_>]>) -> Vec<String> {
    all.unwrap_or_default().iter().filter_map(|subtree| names::general(&subtree.base)).collect()
}

fn policy(information: &x509_parser::extensions::PolicyInformation<'_>) -> Policy {
    let qualifiers = information.policy_qualifiers.iter().flatten();
    let mut statements = qualifiers.filter(|qualifier| qualifier.policy_qualifier_id.to_id_string() == ID_QT_CPS);
    let text = |qualifier: &[u8]| {
        let (_, uri) = x509_parser::asn1_rs::Any::from_der(qualifier).ok()?;
        Some(names::printable(uri.data))
    };
    Policy { id: information.policy_id.to_id_string(), statement: statements.find_map(|s| text(s.qualifier)) }
}
