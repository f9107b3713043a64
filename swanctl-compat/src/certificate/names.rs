//! Distinguished names, general names (RFC 5280 §4.2.1.6) and address ranges (RFC 3779) as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::prelude::{FromDer as _, GeneralName, X509Name};

/// Short names of attributes by OID.
const ATTRIBUTES: [(&str, &str); 29] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "T"),
    ("2.5.4.13", "D"),
    ("2.5.4.16", "postalAddress"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.18", "postOfficeBox"),
    ("2.5.4.26", "registeredAddress"),
    ("2.5.4.36", "userCertificate"),
    ("2.5.4.41", "N"),
    ("2.5.4.42", "G"),
    ("2.5.4.43", "I"),
    ("2.5.4.45", "ID"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.54", "dmdName"),
    ("2.5.4.65", "pseudonym"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "E"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.2.840.113549.1.9.8", "unstructuredAddress"),
    ("2.16.840.1.113730.3.1.3", "employeeNumber"),
];

/// A distinguished name: attributes in their order. What is not printable ASCII is a question mark, so that a name cannot drive a terminal.
pub(super) fn distinguished(name: &X509Name<'_>) -> String {
    let parts = name.iter_attributes().map(|attribute| {
        let oid = attribute.attr_type();
        let id = oid.to_id_string();
        let known = ATTRIBUTES.iter().find(|(known, _)| *known == id);
        let key = known.map_or_else(|| super::colons(oid.as_bytes()), |(_, name)| (*name).to_owned());
        format!("{key}={}", printable(attribute.attr_value().data))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Text of which nothing but printable ASCII is kept.
pub(super) fn printable(octets: &[u8]) -> String {
    octets.iter().map(|octet| if matches!(octet, 0x20..=0x7e) { char::from(*octet) } else { '?' }).collect()
}

/// A general name; nothing for kinds that name no peer.
pub(super) fn general(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::RFC822Name(text) | GeneralName::DNSName(text) | GeneralName::URI(text) => {
            Some(printable(text.as_bytes()))
        }
        GeneralName::DirectoryName(name) => Some(distinguished(name)),
        GeneralName::IPAddress(octets) => address(octets),
        GeneralName::OtherName(oid, value) => principal(&oid.to_id_string(), value),
        GeneralName::X400Address(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

/// An address, or in name constraints an address and its mask.
fn address(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    match octets.len() {
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_string()),
        8 | 32 => {
            let (base, mask) = octets.split_at(octets.len() / 2);
            if mask.len() == 16 && base.len() == 16 || mask.len() == 4 {
                let bits: u32 = mask.iter().map(|octet| octet.count_ones()).sum();
                return Some(format!("{}/{bits}", address(base)?));
            }
            None
        }
        _ => None,
    }
}

/// Microsoft's user principal name, or an XMPP address: a UTF-8 string in an explicit tag.
fn principal(oid: &str, value: &[u8]) -> Option<String> {
    if !matches!(oid, "1.3.6.1.4.1.311.20.2.3" | "1.3.6.1.5.5.7.8.5") {
        return None;
    }
    let (_, tagged) = x509_parser::asn1_rs::Any::from_der(value).ok()?;
    let (_, text) = x509_parser::asn1_rs::Any::from_der(tagged.data).ok()?;
    Some(printable(text.data))
}

/// The addresses of an IPAddrBlocks extension (RFC 3779 §2.2.3), in its order.
pub(super) fn address_blocks(der: &[u8]) -> Option<Vec<String>> {
    use x509_parser::asn1_rs::{Any, Tag};
    let mut out = Vec::new();
    let mut families = Any::from_der(der).ok()?.1.data;
    while let Ok((rest, family)) = Any::from_der(families) {
        families = rest;
        let (choice, kind) = Any::from_der(family.data).ok()?;
        let length = match kind.data.get(..2)? {
            [0, 1] => 4,
            [0, 2] => 16,
            _ => continue,
        };
        let (_, choice) = Any::from_der(choice).ok()?;
        // NULL stands for what the issuer has.
        let mut entries = if choice.tag() == Tag::Sequence { choice.data } else { &[] };
        while let Ok((rest, entry)) = Any::from_der(entries) {
            entries = rest;
            if entry.tag() == Tag::BitString {
                let (octets, bits) = bits(entry.data, length, 0)?;
                out.push(format!("{}/{bits}", address(&octets)?));
            } else {
                let (second, first) = Any::from_der(entry.data).ok()?;
                let (_, last) = Any::from_der(second).ok()?;
                let (low, high) = (bits(first.data, length, 0)?.0, bits(last.data, length, 0xff)?.0);
                out.push(format!("{}..{}", address(&low)?, address(&high)?));
            }
        }
    }
    Some(out)
}

/// The address that a bit string begins, filled up, and how many bits it gives.
fn bits(content: &[u8], length: usize, fill: u8) -> Option<(Vec<u8>, usize)> {
    let (unused, given) = content.split_first()?;
    let unused = usize::from(*unused);
    if given.len() > length || unused > 7 || (given.is_empty() && unused > 0) {
        return None;
    }
    let mut octets = given.to_vec();
    if let Some(last) = octets.last_mut() {
        let mask = (1_u16 << unused) - 1;
        let mask = u8::try_from(mask).unwrap_or(0);
        *last = (*last & !mask) | (fill & mask);
    }
    octets.resize(length, fill);
    Some((octets, given.len() * 8 - unused))
}
