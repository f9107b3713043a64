//! Wall-clock time as text (RFC 3339), in UTC.

use std::fmt;

const DAY_MS: u64 = 86_400_000;

/// Milliseconds since the epoch, written as `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rfc3339(pub u64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / DAY_MS);
        let rest = self.0 % DAY_MS;
        let (hour, minute, second, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
        if year > 9999 {
            return write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
        }
        // Each event has one, and the thread that writes it has handshakes to make.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let parts =
            [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, hour), (14, 2, minute), (17, 2, second), (20, 3, ms)];
        for (at, length, number) in parts {
            write_number(text.get_mut(at..at + length).unwrap_or_default(), number);
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

/// Its last digits, in decimal.
fn write_number(places: &mut [u8], mut number: u64) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

impl Rfc3339 {
    /// Reads what RFC 3339 §5.6 allows, a date alone included, which is its first moment; nothing for other text and for times before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let days = days(number(text, 0, 4)?, number(text, 5, 2)?, number(text, 8, 2)?)?;
        if text.get(4..5)? != "-" || text.get(7..8)? != "-" {
            return None;
        }
        let midnight = days.checked_mul(DAY_MS)?;
        let Some(separator) = text.get(10..11) else { return Some(Self(midnight)) };
        if !matches!(separator, "T" | "t" | " ") {
            return None;
        }
        let (hour, minute) = (number(text, 11, 2)?, number(text, 14, 2)?);
        let second = number(text, 17, 2)?;
        if hour > 23 || minute > 59 || second > 60 || text.get(13..14)? != ":" || text.get(16..17)? != ":" {
            return None;
        }
        let (ms, zone) = fraction(text.get(19..)?)?;
        let local = midnight + hour * 3_600_000 + minute * 60_000 + second * 1000 + ms;
        Some(Self(local.checked_add_signed(-offset(zone)?)?))
    }
}

/// A number of exactly `length` digits at `at`.
fn number(text: &str, at: usize, length: usize) -> Option<u64> {
    let digits = text.get(at..at + length)?;
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Milliseconds of a fraction of a second, where there is one, and what follows.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, zone) = rest.split_at_checked(end)?;
    if digits.is_empty() {
        return None;
    }
    let thousandths: String = digits.chars().chain("00".chars()).take(3).collect();
    Some((thousandths.parse().ok()?, zone))
}

/// How far local time is ahead of UTC, in milliseconds.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
    if zone.len() != 6 || zone.get(3..4)? != ":" || hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * i64::try_from(hours * 3_600_000 + minutes * 60_000).ok()?)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before the first of January, counted from year 0.
fn days_before(year: u64) -> u64 {
    let past = year.saturating_sub(1);
    let leap = if year == 0 { 0 } else { past / 4 - past / 100 + past / 400 + 1 };
    year * 365 + leap
}

/// Days since the epoch.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=month_length(year, month)).contains(&day) {
        return None;
    }
    let in_year: u64 = (1..month).map(|month| month_length(year, month)).sum();
    (days_before(year) + in_year + day - 1).checked_sub(days_before(1970))
}

/// Year, month and day, of days since the epoch.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + days_before(1970);
    // At most one too high.
    let guess = days / 365;
    let mut year = (guess.saturating_sub(guess / 1460 + 1)..=guess).rev().find(|year| days_before(*year) <= days);
    let year = year.get_or_insert(1970);
    let mut rest = days.saturating_sub(days_before(*year));
    let mut month = 1;
    while rest >= month_length(*year, month) && month < 12 {
        rest -= month_length(*year, month);
        month += 1;
    }
    (*year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
            (1_795_653_121_500, "2026-11-26T00:32:01.500Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        assert_eq!(Rfc3339(253_402_300_800_000).to_string(), "10000-01-01T00:00:00.000Z");
        for (ms, text) in known {
            assert_eq!(Rfc3339(ms).to_string(), text);
            assert_eq!(Rfc3339::parse(text), Some(Rfc3339(ms)), "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let ms = Rfc3339(day * DAY_MS);
            assert_eq!(Rfc3339::parse(&ms.to_string()), Some(ms));
        }
    }

    #[test]
    fn other_forms_are_read() {
        assert_eq!(Rfc3339::parse("1970-01-02"), Some(Rfc3339(DAY_MS)));
        assert_eq!(Rfc3339::parse("1970-01-01T01:00:00+01:00"), Some(Rfc3339(0)));
        assert_eq!(Rfc3339::parse("1970-01-01 00:00:00.25-00:30"), Some(Rfc3339(1_800_250)));
        assert_eq!(Rfc3339::parse("1970-01-01T00:00:00.1234567Z"), Some(Rfc3339(123)));
        for wrong in [
            "",
            "1970",
            "1970-13-01",
            "1970-02-29",
            "1969-12-31",
            "1970-01-01T",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00é",
            "1970/01/01",
        ] {
            assert_eq!(Rfc3339::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Rfc3339::parse("1970-01-01T00:00:00+01:00"), None, "before the epoch");
    }
}
