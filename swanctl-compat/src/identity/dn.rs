//! Distinguished names from text such as `C=XX, O=Example, CN=gw` (RFC 4514 attribute names) to DER (X.501).

use crate::der::wrap;

/// Attribute names, the content octets of their OID, and whether the value is an IA5String.
const ATTRIBUTES: [(&str, &[u8], bool); 17] = [
    ("CN", &[0x55, 4, 3], false),
    ("S", &[0x55, 4, 4], false),
    ("SN", &[0x55, 4, 5], false),
    ("serialNumber", &[0x55, 4, 5], false),
    ("C", &[0x55, 4, 6], false),
    ("L", &[0x55, 4, 7], false),
    ("ST", &[0x55, 4, 8], false),
    ("street", &[0x55, 4, 9], false),
    ("O", &[0x55, 4, 10], false),
    ("OU", &[0x55, 4, 11], false),
    ("T", &[0x55, 4, 12], false),
    ("G", &[0x55, 4, 42], false),
    ("I", &[0x55, 4, 43], false),
    ("UID", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], false),
    ("DC", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], true),
    ("E", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], true),
    ("emailAddress", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], true),
];

const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The DER of a name, or nothing when the text is none. Parts are separated by `,` or `/`.
pub(super) fn encode(text: &str) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    for part in text.split([',', '/']).map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        content.extend(relative_name(name.trim(), value.trim())?);
    }
    if content.is_empty() { None } else { Some(wrap(SEQUENCE, &content)) }
}

fn relative_name(name: &str, value: &str) -> Option<Vec<u8>> {
    let (_, oid, ia5) = ATTRIBUTES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    let tag = match ia5 {
        true if value.is_ascii() => IA5_STRING,
        false if value.chars().all(is_printable) => PRINTABLE_STRING,
        true | false => UTF8_STRING,
    };
    let pair = [wrap(OID, oid), wrap(tag, value.as_bytes())].concat();
    Some(wrap(SET, &wrap(SEQUENCE, &pair)))
}

/// The character set of PrintableString.
fn is_printable(c: char) -> bool {
    c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encoding() {
        let expected: &[u8] = &[
            0x30, 0x1a, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 4, 6, 0x13, 0x02, b'X', b'X', //
            0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 4, 3, 0x0c, 0x02, b'*', b'g',
        ];
        assert_eq!(encode("C=XX, CN=*g").unwrap(), expected);
        assert_eq!(encode("/C=XX/CN=*g").unwrap(), expected);
    }

    #[test]
    fn long_names_have_long_lengths() {
        let der = encode(&format!("O={}", "x".repeat(200))).unwrap();
        assert_eq!(&der[..3], &[0x30, 0x81, 0xd6]);
        assert_eq!(der.len(), 0xd6 + 3);
    }

    #[test]
    fn unknown_attributes_are_refused() {
        assert_eq!(encode("X=1"), None);
        assert_eq!(encode("C"), None);
        assert_eq!(encode(""), None);
    }
}
