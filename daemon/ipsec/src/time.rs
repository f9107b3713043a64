//! The clock value every part of the daemon is driven by.
//!
//! Protocol crates read no clock. Whoever drives them passes an [`Instant`]: the daemon takes it from CLOCK_BOOTTIME, so that time spent
//! suspended counts against lifetimes; scenarios make it up.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the driver's clock, as time since its start. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The start of the driver's clock.
    pub const START: Self = Self(Duration::ZERO);

    /// The instant `since_start` after the start of the driver's clock.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time since the start of the driver's clock.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}
