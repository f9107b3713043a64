//! Secrets as files write them: text, `0x` and hexadecimal digits, or `0s` and Base64 (RFC 4648 §4).

use zeroize::Zeroizing;

/// Why a secret cannot be read. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// After `0x` stands something else than pairs of hexadecimal digits.
    Hex,
    /// After `0s` stands something else than Base64.
    Base64,
}

impl SecretError {
    /// What was expected.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Hex => "pairs of hexadecimal digits after `0x`",
            Self::Base64 => "Base64 after `0s`",
        }
    }
}

/// The octets of a secret.
///
/// # Errors
/// When the digits after `0x` or `0s` are wrong.
pub fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if let Some(digits) = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")) {
        let digits = std::str::from_utf8(digits).map_err(|_| SecretError::Hex)?;
        return crate::identity::decode_hex(digits).map(Zeroizing::new).ok_or(SecretError::Hex);
    }
    if let Some(digits) = text.strip_prefix(b"0s").or_else(|| text.strip_prefix(b"0S")) {
        return base64(digits).ok_or(SecretError::Base64);
    }
    Ok(Zeroizing::new(text.to_vec()))
}

fn base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Zeroizing::new(Vec::with_capacity(digits.len() / 4 * 3 + 2));
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = (bits << 6) | u32::from(sextet(*digit)?);
        }
        // A group of 2 or 3 digits ends the text and carries 1 or 2 octets; one digit alone carries none.
        let octets = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        out.extend(bits.to_be_bytes().iter().skip(1).take(octets));
    }
    Some(out)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_to_write_a_secret() {
        let cases: [(&str, Result<&[u8], SecretError>); 13] = [
            ("text", Ok(b"text")),
            ("", Ok(b"")),
            ("0x6162", Ok(b"ab")),
            ("0x61:62", Ok(b"ab")),
            ("0x616", Err(SecretError::Hex)),
            ("0xzz", Err(SecretError::Hex)),
            ("0sYWJj", Ok(b"abc")),
            ("0sYWI=", Ok(b"ab")),
            ("0sYQ==", Ok(b"a")),
            ("0sYQ", Ok(b"a")),
            ("0sY", Err(SecretError::Base64)),
            ("0sY*==", Err(SecretError::Base64)),
            ("0S//8=", Ok(&[0xff, 0xff])),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes()).as_deref().map(Vec::as_slice), expected.as_ref().copied(), "{text}");
        }
    }
}
