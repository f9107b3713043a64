//! Identifiers that sort by the time at which they were made (ULIDs): 48 bits of milliseconds, then 80 bits that nobody guesses.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// An identifier of an event, the same in every sink.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ulid(u128);

/// Crockford's base 32: no I, L, O and U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS: u32 = 80;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

impl Ulid {
    /// Milliseconds since the epoch at which it was made.
    pub fn time_ms(self) -> u64 {
        u64::try_from(self.0 >> RANDOM_BITS).unwrap_or(u64::MAX)
    }

    /// The first one of a millisecond: everything made earlier sorts before it.
    pub fn first_of(time_ms: u64) -> Self {
        Self(u128::from(time_ms.min((1 << 48) - 1)) << RANDOM_BITS)
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 26];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            let digit = usize::try_from(rest & 31).unwrap_or_default();
            *place = DIGITS.get(digit).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

/// A text is no ULID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 26 digits of a ULID")]
pub struct NoUlid;

impl FromStr for Ulid {
    type Err = NoUlid;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, NoUlid> {
        let digit = |sign: char| {
            DIGITS.iter().position(|digit| char::from(*digit) == sign).and_then(|value| u128::try_from(value).ok())
        };
        // 26 digits have 130 bits: the first stands for three only.
        if text.len() != 26 || text.chars().next().and_then(digit).is_none_or(|first| first > 7) {
            return Err(NoUlid);
        }
        text.chars().try_fold(0, |value, sign| Some(value << 5 | digit(sign)?)).map(Self).ok_or(NoUlid)
    }
}

impl fmt::Debug for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Ulid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Makes identifiers, each greater than the one before, also within a millisecond and while the wall clock goes back.
#[derive(Debug, Default)]
pub struct Ulids(u128);

impl Ulids {
    /// The next one. `random` is used when a new millisecond has begun.
    pub fn next(&mut self, time_ms: u64, random: impl FnOnce() -> [u8; 10]) -> Ulid {
        let first = Ulid::first_of(time_ms).0;
        if first > self.0 {
            let octets = random().iter().fold(0, |sum: u128, octet| sum << 8 | u128::from(*octet));
            // The topmost bit is left free, so that a whole millisecond of increments stays within it.
            self.0 = first | (octets & RANDOM_MASK >> 1);
        } else {
            self.0 = self.0.wrapping_add(1);
        }
        Ulid(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_back() {
        let ulid = Ulids::default().next(1_767_000_000_000, || [0xa5; 10]);
        assert_eq!(ulid.to_string().parse(), Ok(ulid));
        for wrong in
            ["", "01J", "80000000000000000000000000", "0000000000000000000000000U", "0000000000000000000000000é"]
        {
            assert_eq!(wrong.parse::<Ulid>(), Err(NoUlid), "{wrong}");
        }
        assert_eq!("7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse(), Ok(Ulid(u128::MAX)));
    }

    #[test]
    fn they_grow_whatever_the_clock_does() {
        let mut ulids = Ulids::default();
        let made: Vec<Ulid> = [5, 5, 5, 6, 4, 6, 7].iter().map(|ms| ulids.next(*ms, || [0xFF; 10])).collect();
        assert!(made.is_sorted_by(|a, b| a < b && a.to_string() < b.to_string()), "{made:?}");
        assert_eq!(made.last().map(|ulid| ulid.time_ms()), Some(7));
    }

    #[test]
    fn the_text_is_that_of_the_specification() {
        assert_eq!(Ulid(u128::MAX).to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(Ulid(0).to_string(), "00000000000000000000000000");
        // The time part of the specification's example.
        assert!(Ulid::first_of(1_469_918_176_385).to_string().starts_with("01ARYZ6S41"));
    }
}
