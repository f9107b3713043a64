//! IKE identities as users write them.
//!
//! A prefix such as `fqdn:` or `{11}:` forces the type; otherwise it is recognised: `=` makes a distinguished name, `@` an e-mail address or (in front)
//! a name or key id, digits an address, anything else a name. What is left to others: matching ([`ike_model::Identity`]).

mod dn;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike_model::Identity;
use ipsec::AddressRange;
use thiserror::Error;

/// Why text is no identity that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// An address after `ipv4:` or `ipv6:` that is none.
    #[error("expected an address of that family after the prefix")]
    Address,
    /// Digits after `#` that are not hexadecimal.
    #[error("expected pairs of hexadecimal digits after `#`")]
    Hex,
    /// A type number above 255.
    #[error("expected a number from 0 to 255 between the braces")]
    Type,
    /// A distinguished name that does not parse after `asn1dn:`.
    #[error("expected a distinguished name such as `C=XX, O=Example, CN=gw`")]
    Name,
    /// A regular expression.
    #[error("regular expressions are not supported; a leading `*` is, as in `*.example.org`")]
    Regex,
    /// A wildcard that is not in front.
    #[error("`*` is supported only in front, as in `*.example.org` or `*@example.org`")]
    Wildcard,
    /// A type that cannot be expressed.
    #[error("identities of this type are not supported")]
    Unsupported,
}

/// Understands an identity.
///
/// # Errors
/// When a forced type does not fit the text, or for patterns that cannot be matched here.
pub fn parse(text: &str) -> Result<Identity, IdentityError> {
    if let Some((prefix, rest)) = split_prefix(text) {
        return forced(prefix, rest);
    }
    if let Some(rest) = text.strip_prefix('{')
        && let Some((number, rest)) = rest.split_once("}:")
    {
        let kind = number.parse().map_err(|_| IdentityError::Type)?;
        return Ok(Identity::from_wire(kind, &raw(rest)?));
    }
    if text.contains('=') {
        if text.contains('*') {
            return Err(IdentityError::Wildcard);
        }
        return Ok(dn::encode(text).map_or_else(|| Identity::KeyId(text.into()), Identity::DistinguishedName));
    }
    match text.strip_prefix('@') {
        Some(rest) => match (rest.strip_prefix('#'), rest.strip_prefix('@')) {
            (Some(hex), _) => Ok(Identity::KeyId(decode_hex(hex).ok_or(IdentityError::Hex)?)),
            (None, Some(mail)) => pattern(mail).map(Identity::Rfc822),
            (None, None) => pattern(rest).map(Identity::Fqdn),
        },
        None if text.contains('@') => pattern(text).map(Identity::Rfc822),
        None => unmarked(text),
    }
}

/// Without any mark: an address, "any", or a name.
fn unmarked(text: &str) -> Result<Identity, IdentityError> {
    if matches!(text, "" | "%any" | "%any6" | "0.0.0.0" | "*" | "::" | "0::0") {
        return Ok(Identity::Any);
    }
    if let Some(identity) = address(text) {
        return Ok(identity);
    }
    if text.contains(':') { Ok(Identity::KeyId(text.into())) } else { pattern(text).map(Identity::Fqdn) }
}

/// An address, network or range.
fn address(text: &str) -> Option<Identity> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Identity::Address(address));
    }
    if let Some((address, length)) = text.split_once('/') {
        return network(address.parse().ok()?, length.parse().ok()?);
    }
    let (from, to) = text.split_once('-')?;
    range(from.trim().parse().ok()?, to.trim().parse().ok()?)
}

/// ID_IPV4_ADDR_SUBNET (4) or ID_IPV6_ADDR_SUBNET (6): address and mask.
fn network(address: IpAddr, length: u8) -> Option<Identity> {
    let range = AddressRange::prefix(address, length)?;
    Some(match (range.start(), range.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            let mask = Ipv4Addr::from_bits(!(start.to_bits() ^ end.to_bits()));
            Identity::Other(4, [start.octets(), mask.octets()].concat())
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            let mask = Ipv6Addr::from_bits(!(start.to_bits() ^ end.to_bits()));
            Identity::Other(6, [start.octets(), mask.octets()].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    })
}

/// ID_IPV4_ADDR_RANGE (7) or ID_IPV6_ADDR_RANGE (8): first and last address.
fn range(from: IpAddr, to: IpAddr) -> Option<Identity> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => {
            Some(Identity::Other(7, [from.octets(), to.octets()].concat()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) if from <= to => {
            Some(Identity::Other(8, [from.octets(), to.octets()].concat()))
        }
        _ => None,
    }
}

/// Names of types that may stand in front of a colon, with their IANA number.
const PREFIXES: [(&str, u8); 16] = [
    ("ipv4", 1),
    ("ipv6", 5),
    ("ipv4net", 4),
    ("ipv6net", 6),
    ("ipv4range", 7),
    ("ipv6range", 8),
    ("rfc822", 3),
    ("email", 3),
    ("userfqdn", 3),
    ("fqdn", 2),
    ("dns", 2),
    ("asn1dn", 9),
    ("asn1gn", 10),
    ("keyid", 11),
    ("xmppaddr", 0),
    ("uri", 0),
];

fn split_prefix(text: &str) -> Option<(u8, &str)> {
    let (name, rest) = text.split_once(':')?;
    PREFIXES.iter().find(|(prefix, _)| prefix.eq_ignore_ascii_case(name)).map(|(_, kind)| (*kind, rest))
}

fn forced(kind: u8, rest: &str) -> Result<Identity, IdentityError> {
    if let Some(hex) = rest.strip_prefix('#') {
        return Ok(Identity::from_wire(kind, &decode_hex(hex).ok_or(IdentityError::Hex)?));
    }
    match kind {
        1 => rest.parse::<Ipv4Addr>().map(|a| Identity::Address(a.into())).map_err(|_| IdentityError::Address),
        5 => rest.parse::<Ipv6Addr>().map(|a| Identity::Address(a.into())).map_err(|_| IdentityError::Address),
        4 | 6..=8 => match address(rest) {
            Some(Identity::Other(found, data)) if found == kind => Ok(Identity::Other(kind, data)),
            Some(_) | None => Err(IdentityError::Address),
        },
        2 => pattern(rest).map(Identity::Fqdn),
        3 => pattern(rest).map(Identity::Rfc822),
        9 => dn::encode(rest).map(Identity::DistinguishedName).ok_or(IdentityError::Name),
        11 => Ok(Identity::KeyId(rest.into())),
        _ => Err(IdentityError::Unsupported),
    }
}

/// A name that may have a wildcard in front.
fn pattern(text: &str) -> Result<String, IdentityError> {
    if text.starts_with('^') {
        return Err(IdentityError::Regex);
    }
    let literal = text.strip_prefix('*').unwrap_or(text);
    if literal.contains('*') { Err(IdentityError::Wildcard) } else { Ok(text.to_owned()) }
}

fn raw(text: &str) -> Result<Vec<u8>, IdentityError> {
    match text.strip_prefix('#') {
        Some(hex) => decode_hex(hex).ok_or(IdentityError::Hex),
        None => Ok(text.into()),
    }
}

/// Hexadecimal digits in pairs, colons between them allowed.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |octet, digit| (octet << 4) | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fqdn(text: &str) -> Result<Identity, IdentityError> {
        Ok(Identity::Fqdn(text.into()))
    }

    #[test]
    fn types_are_recognised() {
        let cases = [
            ("%any", Ok(Identity::Any)),
            ("", Ok(Identity::Any)),
            ("*", Ok(Identity::Any)),
            ("0.0.0.0", Ok(Identity::Any)),
            ("::", Ok(Identity::Any)),
            ("192.0.2.1", Ok(Identity::Address("192.0.2.1".parse().unwrap()))),
            ("2001:db8::1", Ok(Identity::Address("2001:db8::1".parse().unwrap()))),
            ("not:an:address", Ok(Identity::KeyId(b"not:an:address".to_vec()))),
            ("gw.example.org", fqdn("gw.example.org")),
            ("@gw", fqdn("gw")),
            ("*.example.org", fqdn("*.example.org")),
            ("a*.example.org", Err(IdentityError::Wildcard)),
            ("me@example.org", Ok(Identity::Rfc822("me@example.org".into()))),
            ("*@example.org", Ok(Identity::Rfc822("*@example.org".into()))),
            ("@@me", Ok(Identity::Rfc822("me".into()))),
            ("@#0a0B", Ok(Identity::KeyId(vec![10, 11]))),
            ("@#0", Err(IdentityError::Hex)),
            ("10.0.0.0/8", Ok(Identity::Other(4, vec![10, 0, 0, 0, 255, 0, 0, 0]))),
            ("10.0.0.1-10.0.0.9", Ok(Identity::Other(7, vec![10, 0, 0, 1, 10, 0, 0, 9]))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn prefixes_force_a_type() {
        let cases = [
            ("fqdn:10.0.0.1", fqdn("10.0.0.1")),
            ("dns:gw", fqdn("gw")),
            ("email:x", Ok(Identity::Rfc822("x".into()))),
            ("keyid:gw.example.org", Ok(Identity::KeyId(b"gw.example.org".to_vec()))),
            ("keyid:#6162", Ok(Identity::KeyId(b"ab".to_vec()))),
            ("{11}:#6162", Ok(Identity::KeyId(b"ab".to_vec()))),
            ("{2}:gw", fqdn("gw")),
            ("{300}:gw", Err(IdentityError::Type)),
            ("ipv4:gw", Err(IdentityError::Address)),
            ("ipv4:10.0.0.1", Ok(Identity::Address("10.0.0.1".parse().unwrap()))),
            ("ipv4net:10.0.0.1", Err(IdentityError::Address)),
            ("fqdn:^.*\\.org$", Err(IdentityError::Regex)),
            ("uri:https://x", Err(IdentityError::Unsupported)),
            ("asn1dn:nonsense", Err(IdentityError::Name)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn an_equals_sign_makes_a_distinguished_name() {
        let Ok(Identity::DistinguishedName(der)) = parse("C=XX, O=Example, CN=gw") else { panic!("no name") };
        assert_eq!(der.first(), Some(&0x30));
        assert_eq!(parse("colour=red"), Ok(Identity::KeyId(b"colour=red".to_vec())));
    }
}
