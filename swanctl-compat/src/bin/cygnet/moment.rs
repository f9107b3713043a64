//! Moments as people write and read them: in local time unless they say otherwise.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use ike_model::Rfc3339;

/// What a moment may look like, for messages and help.
pub(crate) const FORMS: &str = "how long ago (90s, 15m, 2h30m, 7d), a time of day (03:12), a date (2026-01-31), both (\"2026-01-31 03:12\"), \
     today, yesterday, now, or a time with its zone (2026-01-31T12:00:00Z)";

/// The zone in which moments are read and shown.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    now: Timestamp,
}

impl Clock {
    /// That of this machine and of `TZ`, or UTC.
    pub(crate) fn new(utc: bool) -> Self {
        let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
        Self { zone, now: Timestamp::now() }
    }

    /// Understands one of [`FORMS`].
    pub(crate) fn parse(&self, text: &str) -> Result<Rfc3339, String> {
        let text = text.trim();
        // A date alone is a local one.
        if let Some(time) = Rfc3339::parse(text).filter(|_| text.len() > 10) {
            return Ok(time);
        }
        self.local(text).ok_or_else(|| format!("'{text}' is no moment: expected {FORMS}"))
    }

    fn local(&self, text: &str) -> Option<Rfc3339> {
        let now = Zoned::new(self.now, self.zone.clone());
        let midnight = |date: Date| date.to_zoned(self.zone.clone()).ok();
        let moment = match text {
            "now" => now,
            "today" => midnight(now.date())?,
            "yesterday" => midnight(now.date().yesterday().ok()?)?,
            _ => {
                if let Some(ago) = ago(text) {
                    let now = u64::try_from(self.now.as_millisecond()).ok()?;
                    return Some(Rfc3339(now.saturating_sub(ago.saturating_mul(1000))));
                }
                if let Some(time) = time(text) {
                    latest(&now, time)?
                } else if text.len() == 10 {
                    midnight(text.parse().ok()?)?
                } else {
                    let (date, time_of_day) = text.split_once(['T', ' '])?;
                    let date: Date = date.parse().ok()?;
                    DateTime::from_parts(date, time(time_of_day)?).to_zoned(self.zone.clone()).ok()?
                }
            }
        };
        u64::try_from(moment.timestamp().as_millisecond()).ok().map(Rfc3339)
    }

    /// A moment as it is shown: `2026-01-31 12:00:00`.
    pub(crate) fn show(&self, ms: u64) -> String {
        self.zoned(ms)
            .map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
            .unwrap_or_else(|| Rfc3339(ms).to_string())
    }

    /// The same to the millisecond, for what happens in quick succession.
    pub(crate) fn show_exactly(&self, ms: u64) -> String {
        format!("{}.{:03}", self.show(ms), ms % 1000)
    }

    /// `12:00:00 CET`.
    pub(crate) fn time_of_day(&self, ms: u64) -> String {
        self.zoned(ms).map(|time| time.strftime("%H:%M:%S %Z").to_string()).unwrap_or_default()
    }

    /// What is shown, for a heading: `CET, UTC+01:00`.
    pub(crate) fn zone(&self, ms: u64) -> String {
        match self.zoned(ms) {
            Some(time) if time.offset().is_zero() => "UTC".into(),
            Some(time) => time.strftime("%Z, UTC%:z").to_string(),
            None => "UTC".into(),
        }
    }

    /// The moment of the question.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.now.as_millisecond()).unwrap_or(0)
    }

    fn zoned(&self, ms: u64) -> Option<Zoned> {
        let time = Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
        Some(Zoned::new(time, self.zone.clone()))
    }
}

/// The last time that the clock showed this.
fn latest(now: &Zoned, time: Time) -> Option<Zoned> {
    let on = |date: Date| date.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
    let today = on(now.date())?;
    if today <= *now { Some(today) } else { on(now.date().yesterday().ok()?) }
}

/// `HH:MM` or `HH:MM:SS`.
fn time(text: &str) -> Option<Time> {
    let parts: Vec<i8> = text
        .split(':')
        .map(|part| {
            if matches!(part.len(), 1 | 2) && part.bytes().all(|c| c.is_ascii_digit()) {
                part.parse().ok()
            } else {
                None
            }
        })
        .collect::<Option<_>>()?;
    match parts.as_slice() {
        [hour, minute] => Time::new(*hour, *minute, 0, 0).ok(),
        [hour, minute, second] => Time::new(*hour, *minute, *second, 0).ok(),
        _ => None,
    }
}

/// Seconds of `2h30m`; each number has its unit.
pub(crate) fn ago(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, units) = rest.split_at_checked(end)?;
        let unit = match units.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = units.get(1..)?;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 02:00:00 in UTC, an hour later in Berlin.
    const NOW: u64 = 1_795_658_400_000;

    fn clock(zone: &str) -> Clock {
        let zone = TimeZone::get(zone).unwrap();
        Clock { zone, now: Timestamp::from_millisecond(NOW as i64).unwrap() }
    }

    fn read(zone: &str, text: &str) -> Option<String> {
        clock(zone).parse(text).ok().map(|time| time.to_string())
    }

    #[test]
    fn moments_are_local() {
        let cases = [
            ("Europe/Berlin", "now", "2026-11-26T02:00:00.000Z"),
            ("Europe/Berlin", "90s", "2026-11-26T01:58:30.000Z"),
            ("Europe/Berlin", "2h30m", "2026-11-25T23:30:00.000Z"),
            ("Europe/Berlin", "1w", "2026-11-19T02:00:00.000Z"),
            ("Europe/Berlin", "02:59", "2026-11-26T01:59:00.000Z"),
            // Not yet today.
            ("Europe/Berlin", "03:12", "2026-11-25T02:12:00.000Z"),
            ("UTC", "03:12", "2026-11-25T03:12:00.000Z"),
            ("UTC", "1:05:09", "2026-11-26T01:05:09.000Z"),
            ("Europe/Berlin", "2026-11-26", "2026-11-25T23:00:00.000Z"),
            ("Europe/Berlin", "today", "2026-11-25T23:00:00.000Z"),
            ("Europe/Berlin", "yesterday", "2026-11-24T23:00:00.000Z"),
            ("Europe/Berlin", "2026-07-01 03:12", "2026-07-01T01:12:00.000Z"),
            ("Europe/Berlin", "2026-07-01T03:12:30", "2026-07-01T01:12:30.000Z"),
            ("Europe/Berlin", "2026-11-26T03:12:00Z", "2026-11-26T03:12:00.000Z"),
            ("UTC", "2026-11-26T03:12:00+01:00", "2026-11-26T02:12:00.000Z"),
        ];
        for (zone, text, expected) in cases {
            assert_eq!(read(zone, text).as_deref(), Some(expected), "{text} in {zone}");
        }
        for wrong in ["", "15", "-5m", "5x", "25:00", "2026-13-01", "2026-02-30 12:00", "soon", "12:00:00:00", "2026"] {
            assert_eq!(read("UTC", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_shown_where_one_is() {
        let berlin = clock("Europe/Berlin");
        assert_eq!(berlin.show(NOW), "2026-11-26 03:00:00");
        assert_eq!(berlin.show_exactly(NOW + 7), "2026-11-26 03:00:00.007");
        assert_eq!(berlin.time_of_day(NOW), "03:00:00 CET");
        assert_eq!(berlin.zone(NOW), "CET, UTC+01:00");
        assert_eq!(berlin.zone(1_782_864_000_000), "CEST, UTC+02:00");
        assert_eq!(clock("UTC").zone(NOW), "UTC");
    }
}
