//! IKE identities (RFC 7296 §3.5) and matching them against configured patterns.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An identity, or a pattern for identities where the configuration allows one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Identity {
    /// Matches every identity; never sent.
    Any,
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN; as a pattern `*` stands for any prefix, e.g. `*.example.org`.
    Fqdn(String),
    /// ID_RFC822_ADDR; as a pattern `*@example.org`.
    Rfc822(String),
    /// ID_DER_ASN1_DN: the DER octets.
    DistinguishedName(Vec<u8>),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// Any other identity type, kept as it came: type and data.
    Other(u8, Vec<u8>),
}

/// How well a pattern fits an identity; higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityMatch {
    /// Not at all.
    None,
    /// The pattern is [`Identity::Any`].
    Any,
    /// By a wildcard; the number of octets matched literally.
    Wildcard(usize),
    /// Equal.
    Exact,
}

impl Identity {
    /// How well `self`, taken as a pattern, fits `identity`. Names compare without regard to ASCII case.
    pub fn match_against(&self, identity: &Self) -> IdentityMatch {
        match (self, identity) {
            (Self::Any, _) => IdentityMatch::Any,
            (Self::Fqdn(pattern), Self::Fqdn(name)) | (Self::Rfc822(pattern), Self::Rfc822(name)) => {
                match_name(pattern, name)
            }
            _ if self == identity => IdentityMatch::Exact,
            _ => IdentityMatch::None,
        }
    }

    /// Whether `self`, taken as a pattern, fits `identity`.
    pub fn matches(&self, identity: &Self) -> bool {
        self.match_against(identity) != IdentityMatch::None
    }

    /// Whether this names exactly one identity, so that it can be sent.
    pub fn is_concrete(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Fqdn(name) | Self::Rfc822(name) => !name.starts_with('*'),
            Self::Address(_) | Self::DistinguishedName(_) | Self::KeyId(_) | Self::Other(..) => true,
        }
    }

    /// ID type (IANA) and identification data as sent, or nothing for a pattern.
    pub fn to_wire(&self) -> Option<(u8, Vec<u8>)> {
        match self {
            Self::Any => None,
            Self::Address(IpAddr::V4(address)) => Some((1, address.octets().to_vec())),
            Self::Address(IpAddr::V6(address)) => Some((5, address.octets().to_vec())),
            Self::Fqdn(name) => Some((2, name.as_bytes().to_vec())),
            Self::Rfc822(name) => Some((3, name.as_bytes().to_vec())),
            Self::DistinguishedName(der) => Some((9, der.clone())),
            Self::KeyId(octets) => Some((11, octets.clone())),
            Self::Other(kind, octets) => Some((*kind, octets.clone())),
        }
    }

    /// The identity received with this type and data; what does not parse is kept as [`Self::Other`].
    pub fn from_wire(kind: u8, data: &[u8]) -> Self {
        let text = || String::from_utf8(data.to_vec()).ok().filter(|text| !text.is_empty());
        let parsed = match kind {
            1 => <[u8; 4]>::try_from(data).ok().map(|octets| Self::Address(octets.into())),
            5 => <[u8; 16]>::try_from(data).ok().map(|octets| Self::Address(octets.into())),
            2 => text().map(Self::Fqdn),
            3 => text().map(Self::Rfc822),
            9 => Some(Self::DistinguishedName(data.to_vec())),
            11 => Some(Self::KeyId(data.to_vec())),
            _ => None,
        };
        parsed.unwrap_or_else(|| Self::Other(kind, data.to_vec()))
    }
}

fn match_name(pattern: &str, name: &str) -> IdentityMatch {
    if pattern.eq_ignore_ascii_case(name) {
        return IdentityMatch::Exact;
    }
    let Some(suffix) = pattern.strip_prefix('*') else { return IdentityMatch::None };
    let tail = name.len().checked_sub(suffix.len()).and_then(|at| name.get(at..));
    match tail {
        Some(tail) if tail.eq_ignore_ascii_case(suffix) => IdentityMatch::Wildcard(suffix.len()),
        _ => IdentityMatch::None,
    }
}

impl fmt::Display for Identity {
    /// As users write it; control and non-ASCII octets of a peer's identity are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::Rfc822(name) => write_escaped(f, name.as_bytes()),
            Self::KeyId(octets) => write_escaped(f, octets),
            Self::DistinguishedName(octets) => write_hex(f, "asn1dn:#", octets),
            Self::Other(kind, octets) => write_hex(f, &format!("{{{kind}}}:#"), octets),
        }
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| match octet {
        b' '..=b'~' => write!(f, "{}", char::from(*octet)),
        _ => write!(f, "\\x{octet:02x}"),
    })
}

fn write_hex(f: &mut fmt::Formatter<'_>, prefix: &str, octets: &[u8]) -> fmt::Result {
    f.write_str(prefix)?;
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_rank_exact_over_wildcard_over_any() {
        let name = Identity::Fqdn("gw.Example.org".into());
        assert_eq!(Identity::Fqdn("GW.example.org".into()).match_against(&name), IdentityMatch::Exact);
        assert_eq!(Identity::Fqdn("*.example.org".into()).match_against(&name), IdentityMatch::Wildcard(12));
        assert_eq!(Identity::Any.match_against(&name), IdentityMatch::Any);
        assert_eq!(Identity::Fqdn("example.org".into()).match_against(&name), IdentityMatch::None);
        assert_eq!(Identity::Rfc822("gw.example.org".into()).match_against(&name), IdentityMatch::None);
    }

    #[test]
    fn wire_form_round_trips() {
        for identity in [
            Identity::Address("192.0.2.1".parse().unwrap()),
            Identity::Address("2001:db8::1".parse().unwrap()),
            Identity::Fqdn("a.example".into()),
            Identity::KeyId(vec![0, 255]),
            Identity::Other(77, vec![1]),
        ] {
            let (kind, data) = identity.to_wire().unwrap();
            assert_eq!(Identity::from_wire(kind, &data), identity);
        }
    }

    #[test]
    fn control_octets_are_escaped() {
        assert_eq!(Identity::from_wire(11, b"a\n\x1b[0m").to_string(), "a\\x0a\\x1b[0m");
    }
}
