//! How many IKE SAs are begun in a second when many tunnels are down at once. Pure.

use std::time::Duration;

use ipsec::Instant;

/// Attempts that may be made at once before the rate counts.
const BURST: u32 = 10;

/// When the next attempt may be made: a shaper that gives each one its instant.
#[derive(Debug, Default)]
pub(crate) struct Shaper {
    next: Option<Instant>,
}

impl Shaper {
    /// Takes the next place, at most `rate` in a second (0 = no limit). Gives the instant to wait for, or nothing when it is now.
    pub(crate) fn place(&mut self, now: Instant, rate: u32) -> Option<Instant> {
        let interval = Duration::from_secs(1).checked_div(rate)?;
        let due = self.next.map_or(now, |next| next.max(now));
        self.next = Some(due + interval);
        let ahead = due.saturating_since(now).saturating_sub(interval.saturating_mul(BURST.saturating_sub(1)));
        (!ahead.is_zero()).then(|| now + ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_burst_then_one_after_another() {
        let mut shaper = Shaper::default();
        let places: Vec<_> = (0..13).map(|_| shaper.place(at(0), 10)).collect();
        assert_eq!(places[..10], [None; 10]);
        assert_eq!(places[10..], [Some(at(100)), Some(at(200)), Some(at(300))]);
    }

    #[test]
    fn what_was_not_used_does_not_add_up() {
        let mut shaper = Shaper::default();
        (0..10).for_each(|_| assert_eq!(shaper.place(at(0), 10), None));
        let later = (0..12).filter(|_| shaper.place(at(60_000), 10).is_none()).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn no_limit() {
        let mut shaper = Shaper::default();
        assert!((0..1000).all(|_| shaper.place(at(5), 0).is_none()));
    }
}
