//! Times of certificates, and how far away they are.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What time it is, and where.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Seconds since 1970.
    pub now: i64,
    /// Local time, or UTC.
    pub zone: TimeZone,
    /// Whether times are to be said to be UTC.
    pub utc: bool,
}

impl Clock {
    /// A moment as `Nov 26 06:42:17 2026`.
    pub(super) fn show(&self, seconds: i64) -> String {
        let form = if self.utc { "%b %d %H:%M:%S UTC %Y" } else { "%b %d %H:%M:%S %Y" };
        match Timestamp::from_second(seconds) {
            Ok(moment) => moment.to_zoned(self.zone.clone()).strftime(form).to_string(),
            Err(_) => beyond(seconds).strftime(form).to_string(),
        }
    }

    /// A begin of validity and what that means now.
    pub(super) fn begin(&self, seconds: i64) -> String {
        let moment = self.show(seconds);
        if self.now < seconds {
            format!("{moment}, not valid yet (valid in {})", distance(seconds - self.now))
        } else {
            format!("{moment}, ok")
        }
    }

    /// An end of validity and what that means now.
    pub(super) fn end(&self, seconds: i64) -> String {
        let moment = self.show(seconds);
        if self.now > seconds {
            format!("{moment}, expired ({} ago)", distance(self.now - seconds))
        } else {
            format!("{moment}, ok (expires in {})", distance(seconds - self.now))
        }
    }
}

/// A moment as RFC 3339 has it.
pub(super) fn rfc3339(seconds: i64) -> String {
    let form = "%Y-%m-%dT%H:%M:%SZ";
    Timestamp::from_second(seconds)
        .map_or_else(|_| beyond(seconds).strftime(form).to_string(), |moment| moment.to_string())
}

/// A moment so far away that no time zone can move it: RFC 5280 §4.1.2.5 has one for certificates that never end.
fn beyond(seconds: i64) -> DateTime {
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(if seconds < 0 { DateTime::MIN } else { DateTime::MAX })
}

/// Whole units of the largest kind of which there are more than two.
fn distance(seconds: i64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds > 2 * length).unwrap_or((1, "second"));
    let count = seconds / length;
    if count == 1 { format!("{count} {unit}") } else { format!("{count} {unit}s") }
}
