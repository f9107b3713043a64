//! Numbers, times, sizes and booleans as VICI clients write them.
//!
//! Numbers follow C's base detection (decimal, `0x` hexadecimal, leading `0` octal); an empty text is 0. Unlike C, a sign, a negative number and
//! anything out of range are refused instead of wrapped.

/// Longest text of a 32-bit number or a time.
const SHORT: usize = 15;
/// Longest text of any other number.
const LONG: usize = 31;

/// `yes true enabled 1` or `no false disabled 0`, in either case.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["yes", "true", "enabled", "1"]) {
        Some(true)
    } else if is(["no", "false", "disabled", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A 32-bit number.
#[must_use]
pub fn u32(text: &str) -> Option<u32> {
    if text.len() > SHORT { None } else { number(text).and_then(|n| n.try_into().ok()) }
}

/// A 64-bit number, as packet limits are written.
#[must_use]
pub fn u64(text: &str) -> Option<u64> {
    if text.len() > LONG { None } else { number(text) }
}

/// A time in seconds: a number and at most one of the suffixes `s m h d`, in either case.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    if text.len() > SHORT {
        return None;
    }
    let (digits, suffix) = split_suffix(text)?;
    let unit = match suffix {
        None | Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some(_) => return None,
    };
    number(digits)?.checked_mul(unit)
}

/// A size in octets: a number and at most one of the suffixes `k m g` (1024-based), in either case. Saturates.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    if text.len() > LONG {
        return None;
    }
    let (digits, suffix) = split_suffix(text)?;
    let unit = match suffix {
        None => 1,
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        Some('g') => 1 << 30,
        Some(_) => return None,
    };
    Some(number(digits)?.saturating_mul(unit))
}

/// Exactly the digits 0 and 1, as `dscp` is written; only the low six bits count.
#[must_use]
pub fn dscp(text: &str) -> Option<u8> {
    if text.is_empty() || text.len() > SHORT || !text.bytes().all(|b| matches!(b, b'0' | b'1')) {
        return None;
    }
    let bits = text.bytes().fold(0u16, |bits, b| (bits << 1) | u16::from(b == b'1'));
    u8::try_from(bits & 0x3f).ok()
}

/// Splits off one trailing letter that is not part of a hexadecimal number.
fn split_suffix(text: &str) -> Option<(&str, Option<char>)> {
    let is_hex = text.trim_start().get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    match text.chars().last() {
        // A suffix needs a number: `m` alone is a slip.
        Some(last) if last.is_ascii_alphabetic() && !(is_hex && last.is_ascii_hexdigit()) => {
            let digits = text.get(..text.len() - 1)?.trim_end_matches([' ', '\t']);
            if digits.is_empty() { None } else { Some((digits, Some(last.to_ascii_lowercase()))) }
        }
        Some(_) | None => Some((text, None)),
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    if text.is_empty() {
        return Some(0);
    }
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    // `from_str_radix` takes a sign; C's parser would wrap a negative one.
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for (text, expected) in [
            ("yes", Some(true)),
            ("YES", Some(true)),
            ("true", Some(true)),
            ("enabled", Some(true)),
            ("1", Some(true)),
            ("no", Some(false)),
            ("False", Some(false)),
            ("disabled", Some(false)),
            ("0", Some(false)),
            ("on", None),
            ("", None),
            ("2", None),
        ] {
            assert_eq!(boolean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("42", Some(42)),
            ("0x2A", Some(42)),
            ("052", Some(42)),
            ("-1", None),
            ("+1", None),
            ("08", None),
            ("1.5", None),
            ("12 ", None),
            ("ten", None),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("0000000000000001", None),
        ] {
            assert_eq!(u32(text), expected, "{text:?}");
        }
        assert_eq!(u64("18446744073709551615"), Some(u64::MAX));
        assert_eq!(u64("18446744073709551616"), None);
        assert_eq!(u64(&"0".repeat(32)), None);
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("", Some(0)),
            ("3600", Some(3600)),
            ("10s", Some(10)),
            ("10S", Some(10)),
            ("5m", Some(300)),
            ("5 m", Some(300)),
            ("1h", Some(3600)),
            ("2D", Some(172_800)),
            ("0x10", Some(16)),
            ("1h30m", None),
            ("1w", None),
            ("m", None),
            ("-5m", None),
            ("1 0s", None),
            ("99999999999999d", Some(8_639_999_999_999_913_600)),
            ("999999999999999d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("500", Some(500)),
            ("1k", Some(1024)),
            ("1M", Some(1 << 20)),
            ("2 g", Some(2 << 30)),
            ("5t", None),
            ("1kb", None),
            ("k", None),
            ("-1k", None),
            ("99999999999999999g", Some(u64::MAX)),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn dscp_is_binary() {
        for (text, expected) in
            [("000000", Some(0)), ("101110", Some(46)), ("1101110", Some(46)), ("46", None), ("", None), ("0b1", None)]
        {
            assert_eq!(dscp(text), expected, "{text:?}");
        }
    }
}
