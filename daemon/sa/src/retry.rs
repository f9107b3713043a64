//! How long to wait: for a response before the request is repeated, and before a failed attempt is made again.

use std::time::Duration;

use ike_model::IkeSettings;

/// Wait before repetition number `repeats` (counted from 0), or nothing when the peer counts as unreachable after it.
///
/// `timeout * base ^ repeats`, shortened by a random share of up to `jitter` percent. After the last repetition there is one more wait.
pub(crate) fn retransmission(settings: &IkeSettings, repeats: u32, random: u32) -> Option<Duration> {
    if repeats > settings.retransmit_tries {
        return None;
    }
    let exponent = i32::try_from(repeats).unwrap_or(i32::MAX);
    let seconds = settings.retransmit_timeout.as_secs_f64() * settings.retransmit_base.powi(exponent);
    let share = f64::from(settings.retransmit_jitter.min(100)) / 100.0 * f64::from(random) / f64::from(u32::MAX);
    let wait = Duration::try_from_secs_f64(seconds * (1.0 - share)).unwrap_or(LONGEST_WAIT);
    Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

/// No repetition comes sooner, whatever the settings say.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// No repetition comes later.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Wait before attempt number `failures + 1` at a child that is to be up: 1 s doubled up to 5 minutes, of which a random quarter is taken off
/// so that many tunnels do not come back in step.
pub(crate) fn reattempt(failures: u32, random: u32) -> Duration {
    let seconds = 1_u64.checked_shl(failures.min(16)).unwrap_or(u64::MAX).min(300);
    jittered(Duration::from_secs(seconds), random)
}

/// Wait after TEMPORARY_FAILURE: 6 to 15 s (RFC 7296 §2.25 asks for a wait, not for how long).
pub(crate) fn temporary_failure(random: u32) -> Duration {
    Duration::from_millis(6_000 + u64::from(random) * 9_000 / u64::from(u32::MAX))
}

/// Wait before a CHILD SA is rekeyed again after `failures` attempts have come to nothing: as after TEMPORARY_FAILURE, doubled each time up to 5
/// minutes, but never more than a quarter of what is left of its life.
pub(crate) fn rekeying(failures: u8, left: Option<Duration>, random: u32) -> Duration {
    let first = temporary_failure(random);
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(8));
    let most = jittered(Duration::from_secs(300), random);
    let soon = left.map_or(most, |left| left / 4).max(first);
    doubled.min(most).min(soon)
}

/// TEMPORARY_FAILURE answers after which the SA counts as out of step and is closed.
pub(crate) const TEMPORARY_FAILURES: u8 = 20;

fn jittered(wait: Duration, random: u32) -> Duration {
    wait.saturating_sub(wait / 4 * (random >> 24) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_the_documented_one() {
        let settings = IkeSettings::default();
        let seconds: Vec<_> =
            (0..7).map_while(|n| retransmission(&settings, n, 7)).map(|wait| wait.as_millis() / 100).collect();
        assert_eq!(seconds, [40, 72, 129, 233, 419, 755]);
        let total: Duration = (0..6).filter_map(|n| retransmission(&settings, n, 0)).sum();
        assert_eq!(total.as_secs(), 165);
    }

    #[test]
    fn jitter_only_shortens() {
        let settings = IkeSettings { retransmit_jitter: 20, ..IkeSettings::default() };
        assert_eq!(retransmission(&settings, 0, 0), Some(Duration::from_secs(4)));
        assert_eq!(retransmission(&settings, 0, u32::MAX), Some(Duration::from_millis(3200)));
    }

    #[test]
    fn silly_settings_do_not_flood() {
        let settings =
            IkeSettings { retransmit_timeout: Duration::ZERO, retransmit_base: 0.0, ..IkeSettings::default() };
        assert_eq!(retransmission(&settings, 3, 0), Some(SHORTEST_WAIT));
        let settings = IkeSettings { retransmit_base: 1e300, ..IkeSettings::default() };
        assert_eq!(retransmission(&settings, 5, 0), Some(LONGEST_WAIT));
    }

    #[test]
    fn rekeying_slows_down_while_there_is_time() {
        let waits = |left| (1..=9).map(|failures| rekeying(failures, left, 0).as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(None), [6, 12, 24, 48, 96, 192, 300, 300, 300]);
        assert_eq!(waits(Some(Duration::from_secs(100))), [6, 12, 24, 25, 25, 25, 25, 25, 25]);
        assert_eq!(waits(Some(Duration::ZERO)), [6; 9]);
        assert!(rekeying(200, None, u32::MAX) >= Duration::from_secs(225));
    }

    #[test]
    fn attempts_slow_down_to_five_minutes() {
        assert_eq!(reattempt(0, 0), Duration::from_secs(1));
        assert_eq!(reattempt(3, 0), Duration::from_secs(8));
        assert_eq!(reattempt(50, 0), Duration::from_secs(300));
        assert_eq!(reattempt(50, u32::MAX), Duration::from_secs(225));
    }
}
