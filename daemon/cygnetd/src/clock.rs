//! The clocks: CLOCK_BOOTTIME for everything that is timed, the wall clock for what is shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipsec::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that goes on while the machine sleeps.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Instant::new(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Wall-clock time since the epoch.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
