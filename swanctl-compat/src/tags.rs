//! Marks and interface ids as written: `0x2a/0xff`, `%unique`, `%unique-dir`, `%same`.

use ike_model::{MarkConfig, TagValue};

use crate::units;

/// Longest text of a mark or an interface id.
const LONGEST: usize = 31;

/// An interface id: a number, `%unique` or `%unique-dir`; 0 = none.
#[must_use]
pub fn interface_id(text: &str) -> Option<TagValue> {
    if text.len() > LONGEST {
        return None;
    }
    word(text).or_else(|| units::u32(text).map(TagValue::Fixed))
}

/// A mark that packets are met by: a number, `%unique` or `%unique-dir`, and the bits that count behind a slash. `Some(None)` = no mark:
/// without bits that count, or 0 alone.
#[must_use]
pub fn mark(text: &str) -> Option<Option<MarkConfig>> {
    parse(text, word)
}

/// A mark to set: a number or `%same`, and the bits that are set behind a slash.
#[must_use]
pub fn set_mark(text: &str) -> Option<Option<MarkConfig>> {
    parse(text, |text| text.eq_ignore_ascii_case("%same").then_some(TagValue::Same))
}

fn word(text: &str) -> Option<TagValue> {
    if text.eq_ignore_ascii_case("%unique") {
        Some(TagValue::Unique)
    } else if text.eq_ignore_ascii_case("%unique-dir") {
        Some(TagValue::UniqueByDirection)
    } else {
        None
    }
}

fn parse(text: &str, word: impl Fn(&str) -> Option<TagValue>) -> Option<Option<MarkConfig>> {
    if text.len() > LONGEST {
        return None;
    }
    let (value, mask) = match text.split_once('/') {
        Some((_, "")) => return None,
        Some((value, mask)) => (value, Some(units::u32(mask)?)),
        None => (text, None),
    };
    let value = word(value).or_else(|| units::u32(value).map(TagValue::Fixed))?;
    Some(match (value, mask) {
        (_, Some(0)) | (TagValue::Fixed(0), None) => None,
        (TagValue::Fixed(number), mask) => {
            let mask = mask.unwrap_or(u32::MAX);
            Some(MarkConfig { value: TagValue::Fixed(number & mask), mask })
        }
        (value, mask) => Some(MarkConfig { value, mask: mask.unwrap_or(u32::MAX) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(value: u32, mask: u32) -> Option<MarkConfig> {
        Some(MarkConfig { value: TagValue::Fixed(value), mask })
    }

    #[test]
    fn marks() {
        let all = u32::MAX;
        for (text, expected) in [
            ("42", Some(fixed(42, all))),
            ("0x2a/0xff", Some(fixed(0x2a, 0xff))),
            ("0x12a/0xff", Some(fixed(0x2a, 0xff))),
            ("0/0xff", Some(fixed(0, 0xff))),
            ("0/0", Some(None)),
            ("7/0", Some(None)),
            ("0", Some(None)),
            ("", Some(None)),
            ("%unique", Some(Some(MarkConfig { value: TagValue::Unique, mask: all }))),
            ("%Unique-Dir/0xffff", Some(Some(MarkConfig { value: TagValue::UniqueByDirection, mask: 0xffff }))),
            ("%same", None),
            ("%any", None),
            ("1/", None),
            ("1/2/3", None),
            ("-1", None),
            ("0x100000000", None),
        ] {
            assert_eq!(mark(text), expected, "{text:?}");
        }
    }

    #[test]
    fn marks_to_set() {
        assert_eq!(set_mark("%same"), Some(Some(MarkConfig { value: TagValue::Same, mask: u32::MAX })));
        assert_eq!(set_mark("5/0xf"), Some(fixed(5, 0xf)));
        assert_eq!(set_mark("%unique"), None);
    }

    #[test]
    fn interface_ids() {
        for (text, expected) in [
            ("0", Some(TagValue::Fixed(0))),
            ("0x10", Some(TagValue::Fixed(16))),
            ("%unique", Some(TagValue::Unique)),
            ("%unique-dir", Some(TagValue::UniqueByDirection)),
            ("%same", None),
            ("5/1", None),
            ("ipsec0", None),
        ] {
            assert_eq!(interface_id(text), expected, "{text:?}");
        }
    }
}
