//! Whether who holds the lock of our gateway's name is a rival, or what is left of a daemon that has died.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Life, Rival};

/// How often we look, and so show that we live.
const EVERY: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };
/// The same while it is not clear.
const SOON: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };
/// A server has noticed by then that a machine has vanished: what holds the lock for longer lives, whatever it shows.
const NOTICED: Duration = Duration::from_secs(180);

/// What is known of others.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    rival: Rival,
    first: Instant,
    /// It lives, and that was told.
    told: bool,
}

/// What a look has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that was not known.
    None,
    /// A rival, which lives.
    Rival(Rival),
    /// Nobody any more; whether a rival was told of.
    Gone(bool),
}

impl Lookout {
    /// Takes in what a look has shown.
    pub(super) fn look(&mut self, found: Option<Rival>, now: Instant) -> News {
        let Some(rival) = found else {
            return self.seen.take().map_or(News::None, |seen| News::Gone(seen.told));
        };
        let seen = match &mut self.seen {
            Some(seen) if seen.rival.boot_id == rival.boot_id => seen,
            other => other.insert(Seen { rival: rival.clone(), first: now, told: false }),
        };
        let lives = match (seen.rival.life, rival.life) {
            (_, Life::Certain) => true,
            (Life::Spoke(first), Life::Spoke(last)) if last > first => true,
            (_, Life::Spoke(_) | Life::Unknown) => now.saturating_duration_since(seen.first) >= NOTICED,
        };
        if seen.told || !lives {
            return News::None;
        }
        seen.told = true;
        // What is known of it may have come later.
        seen.rival = rival.clone();
        News::Rival(rival)
    }

    /// When to look again.
    pub(super) fn next(&self) -> Duration {
        if self.seen.as_ref().is_some_and(|seen| !seen.told) { SOON } else { EVERY }
    }

    /// A rival, if there is one.
    pub(super) fn rival(&self) -> Option<&Rival> {
        self.seen.as_ref().filter(|seen| seen.told).map(|seen| &seen.rival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(boot_id: &str, life: Life) -> Rival {
        Rival { boot_id: boot_id.into(), life, ..Rival::default() }
    }

    #[test]
    fn who_speaks_lives_and_who_is_silent_may_be_dead() {
        let mut lookout = Lookout::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let spoke = |moment| Some(run("b1", Life::Spoke(moment)));
        assert_eq!(lookout.look(None, at(0)), News::None);
        // A predecessor that has vanished: the server lets go of its lock after a while.
        assert_eq!(lookout.look(spoke(7), at(1)), News::None);
        assert_eq!((lookout.look(spoke(7), at(120)), lookout.next(), lookout.rival()), (News::None, SOON, None));
        assert_eq!(lookout.look(None, at(121)), News::Gone(false));
        // One that lives.
        assert_eq!(lookout.look(spoke(7), at(200)), News::None);
        assert_eq!(lookout.look(spoke(8), at(205)), News::Rival(run("b1", Life::Spoke(8))));
        assert_eq!((lookout.look(spoke(9), at(210)), lookout.next()), (News::None, EVERY));
        assert!(lookout.rival().is_some());
        // Its place is taken by a third.
        assert_eq!(lookout.look(Some(run("b3", Life::Certain)), at(215)), News::Rival(run("b3", Life::Certain)));
        assert_eq!(lookout.look(None, at(220)), News::Gone(true));
    }

    #[test]
    fn who_holds_the_lock_for_longer_than_any_dead_one_lives() {
        let mut lookout = Lookout::default();
        let begin = Instant::now();
        let silent = || Some(run("b1", Life::Unknown));
        assert_eq!(lookout.look(silent(), begin), News::None);
        assert_eq!(lookout.look(silent(), begin + NOTICED - Duration::from_secs(1)), News::None);
        assert_eq!(lookout.look(silent(), begin + NOTICED), News::Rival(run("b1", Life::Unknown)));
    }
}
