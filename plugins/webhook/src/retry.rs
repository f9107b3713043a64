//! When a message that its receiver did not take is tried again.

use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};

/// Waits before the second and each further attempt, where nothing else is configured: ten attempts over a little more than three days.
pub const SCHEDULE: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];

/// The longest wait that a receiver can ask for. One that wants more is asked again after this, which does no harm.
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// By how much of itself a wait is made longer or shorter at random, in percent.
const JITTER: u32 = 20;

/// A wait with jitter: what failed together shall not come back together.
pub(crate) fn jittered(wait: Duration) -> Duration {
    let mut octets = [0; 4];
    // Without random octets, all wait equally long.
    let random = match SystemRandom::new().fill(&mut octets) {
        Ok(()) => u32::from_be_bytes(octets),
        Err(_) => u32::MAX / 2,
    };
    scaled(wait, random)
}

/// Between `100 - JITTER` and `100 + JITTER` percent of `wait`, by `random`.
fn scaled(wait: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    let percent = f64::from(100 - JITTER) + share * f64::from(2 * JITTER);
    wait.mul_f64(percent / 100.0)
}

/// How long a receiver asks to be left alone: seconds, or a date (RFC 9110 §10.2.3). Nothing that cannot be understood, and nothing in the past.
pub(crate) fn asked(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    let wait = if !header.is_empty() && header.bytes().all(|octet| octet.is_ascii_digit()) {
        header.parse().map_or(ASKED_MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(header).ok()?.duration_since(now).ok()?
    };
    Some(wait.min(ASKED_MAX)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_the_documented_one() {
        let hours = SCHEDULE.iter().sum::<Duration>().as_secs() as f64 / 3600.0;
        assert!((75.5..75.7).contains(&hours), "{hours}");
    }

    #[test]
    fn jitter_is_a_fifth_either_way() {
        let wait = Duration::from_secs(100);
        let near = |a: Duration, b: u64| a.abs_diff(Duration::from_secs(b)) < Duration::from_millis(1);
        assert!(
            near(scaled(wait, 0), 80) && near(scaled(wait, u32::MAX), 120) && near(scaled(wait, u32::MAX / 2), 100)
        );
        for _ in 0..1000 {
            assert!((80..=120).contains(&jittered(wait).as_secs()));
        }
    }

    #[test]
    fn what_a_receiver_asks_for_is_understood_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let cases = [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", None),
            ("86400", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:49:38 1994", Some(1)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("Fri, 06 Nov 2093 08:49:37 GMT", Some(3600)),
        ];
        for (header, expected) in cases {
            assert_eq!(asked(header, now), expected.map(Duration::from_secs), "{header:?}");
        }
    }
}
