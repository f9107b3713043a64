//! Handshakes come in storms, as after an outage, and want the same processors as the database. While events pour in, the database waits: they are
//! in the spool, and what many of them say is taken over together once they pause. It waits for some seconds at most, and where there are webhooks
//! for no more than about one; whoever asks for the past has what waits taken over first. So a storm that goes on is paid for while it does, and does
//! not fill the spool.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked whether they still do.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// So many since the last look are a storm: a hundred thousand SAs that are rekeyed every hour are none.
const STORM: u64 = 8;
/// The database waits no longer than this, and what it took over before has made it rest for [`super::LONGEST_REST`] at most.
const LONGEST: Duration = Duration::from_millis(4800);
/// The same where webhooks are to be told.
const LONGEST_OF_WEBHOOKS: Duration = Duration::from_millis(800);
/// Nor once the spool is filled to one part in so many.
const PART: u64 = 2;

/// How many events wait in the spool, how full it is, and whether webhooks wait for what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) waiting: u64,
    pub(super) used: u64,
    pub(super) size: u64,
    pub(super) webhooks: bool,
}

/// Events that may be pouring in.
#[derive(Debug)]
pub(super) struct Storm {
    began: Instant,
    waiting: u64,
}

impl Storm {
    /// A first look; `None` when so few events wait that they are taken over at once.
    pub(super) fn seen(level: Level, now: Instant) -> Option<Self> {
        let storm = Self { began: now, waiting: 0 };
        storm.goes_on(level, now).then_some(Self { waiting: level.waiting, ..storm })
    }

    /// Looks again; `false` once the database's turn has come.
    pub(super) fn lasts(&mut self, level: Level, now: Instant) -> bool {
        let lasts = self.goes_on(level, now);
        self.waiting = level.waiting;
        lasts
    }

    fn goes_on(&self, level: Level, now: Instant) -> bool {
        let longest = if level.webhooks { LONGEST_OF_WEBHOOKS } else { LONGEST };
        level.waiting.saturating_sub(self.waiting) >= STORM
            && now.saturating_duration_since(self.began) < longest
            && level.used < level.size / PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Level = Level { waiting: 0, used: 100, size: 1000, webhooks: false };

    fn level(waiting: u64) -> Level {
        Level { waiting, ..QUIET }
    }

    #[test]
    fn few_events_do_not_wait() {
        let now = Instant::now();
        assert!(Storm::seen(QUIET, now).is_none());
        assert!(Storm::seen(level(STORM - 1), now).is_none());
        assert!(Storm::seen(level(STORM), now).is_some());
    }

    #[test]
    fn the_database_waits_until_the_storm_pauses() {
        let now = Instant::now();
        let mut storm = Storm::seen(level(100), now).unwrap();
        assert!(storm.lasts(level(100 + STORM), now + LOOK));
        assert!(storm.lasts(level(100 + 2 * STORM), now + LOOK * 2));
        assert!(!storm.lasts(level(100 + 3 * STORM - 1), now + LOOK * 3));
    }

    #[test]
    fn it_does_not_wait_for_long_however_many_come() {
        let now = Instant::now();
        for (webhooks, longest) in [(false, LONGEST), (true, LONGEST_OF_WEBHOOKS)] {
            let level = |waiting| Level { webhooks, ..level(waiting) };
            let mut storm = Storm::seen(level(100), now).unwrap();
            assert!(storm.lasts(level(10_000), now + longest - LOOK));
            assert!(!storm.lasts(level(20_000), now + longest));
        }
    }

    #[test]
    fn a_spool_that_fills_does_not_wait() {
        let now = Instant::now();
        let filled = |used| Level { used, ..level(1000) };
        assert!(Storm::seen(filled(499), now).is_some());
        assert!(Storm::seen(filled(500), now).is_none());
        let mut storm = Storm::seen(filled(0), now).unwrap();
        assert!(!storm.lasts(Level { waiting: 2000, ..filled(500) }, now + LOOK));
    }
}
