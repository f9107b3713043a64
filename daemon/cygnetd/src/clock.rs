//! The clocks: CLOCK_BOOTTIME for everything that is timed, the wall clock for what is shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipsec::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that goes on while the machine sleeps.
pub(crate) fn now() -> Instant {
    Instant::new(read(ClockId::Boottime))
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Finds out that the machine was asleep: CLOCK_BOOTTIME counts that, CLOCK_MONOTONIC does not. Steps of the wall clock are in neither.
#[derive(Debug)]
pub(crate) struct Naps {
    /// Time asleep since the machine was started, as last seen.
    known: Duration,
}

/// Shorter naps are not worth asking every peer.
const NAP: Duration = Duration::from_secs(1);

impl Default for Naps {
    fn default() -> Self {
        Self { known: read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic)) }
    }
}

impl Naps {
    /// How long the machine slept since the last call, if it did.
    pub(crate) fn slept(&mut self) -> Option<Duration> {
        // The slower clock first: being interrupted between the two looks like waking, never like going back.
        let monotonic = read(ClockId::Monotonic);
        let boottime = read(ClockId::Boottime);
        self.grown(boottime.saturating_sub(monotonic), read(ClockId::Monotonic).saturating_sub(monotonic))
    }

    /// `asleep` = difference of the clocks, `doubt` = how much of it may come from reading one after the other.
    fn grown(&mut self, asleep: Duration, doubt: Duration) -> Option<Duration> {
        let slept = asleep.checked_sub(self.known)?;
        if slept < NAP + doubt {
            return None;
        }
        self.known = asleep;
        Some(slept)
    }
}

/// How long the machine was asleep since it was started.
pub(crate) fn asleep() -> Duration {
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// Wall-clock time since the epoch.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time since the epoch in the zone of this machine.
pub(crate) fn local(since_epoch: Duration) -> jiff::Zoned {
    let second = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_told_once() {
        let mut naps = Naps { known: Duration::from_secs(100) };
        let none = Duration::ZERO;
        assert_eq!(naps.grown(Duration::from_millis(100_400), none), None);
        assert_eq!(naps.grown(Duration::from_secs(160), none), Some(Duration::from_secs(60)));
        assert_eq!(naps.grown(Duration::from_secs(160), none), None);
        // A thread that stood still between the two readings has not slept.
        assert_eq!(naps.grown(Duration::from_secs(163), Duration::from_secs(3)), None);
        assert_eq!(naps.grown(Duration::from_secs(90), none), None);
    }

    #[test]
    fn nobody_slept_while_the_test_ran() {
        let mut naps = Naps::default();
        assert!((0..1_000).all(|_| naps.slept().is_none()));
    }
}
