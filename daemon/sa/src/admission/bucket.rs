//! A token bucket: so many at once, so many per second over time.

use std::time::Duration;

use ipsec::Instant;

/// The bucket. Rate and burst come with each call, so that settings may change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// When it is full again.
    full_at: Instant,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { full_at: Instant::START }
    }
}

impl Bucket {
    /// Takes a token. False when there is none; a rate of 0 is no limit.
    pub(crate) fn take(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        let has = self.has(now, rate, burst);
        if has && rate != 0 {
            self.full_at = self.full_at.max(now) + interval(rate);
        }
        has
    }

    /// Whether there is a token.
    pub(crate) fn has(&self, now: Instant, rate: u32, burst: u32) -> bool {
        rate == 0 || self.full_at.saturating_since(now) <= interval(rate).saturating_mul(burst.saturating_sub(1))
    }

    /// Whether no token is missing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

fn interval(rate: u32) -> Duration {
    Duration::from_secs(1).checked_div(rate).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now, 10, 5)).count();
        assert_eq!(taken(&mut bucket, at(1_000)), 5);
        assert_eq!(taken(&mut bucket, at(1_099)), 0);
        assert_eq!(taken(&mut bucket, at(1_100)), 1);
        assert_eq!(taken(&mut bucket, at(1_450)), 3);
        assert!(!bucket.is_full(at(1_600)) && bucket.is_full(at(9_000)));
        assert_eq!(taken(&mut bucket, at(9_000)), 5, "never more than the burst");
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..10_000).all(|_| bucket.take(at(0), 0, 1)));
        assert!(bucket.is_full(at(0)));
    }
}
