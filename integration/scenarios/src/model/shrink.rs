//! Makes a failing schedule small: fewer operations, shorter pauses, a simpler world, as long as the same invariant fails.

use super::run::{Outcome, Planted, is_idle, run_schedule};
use super::schedule::{Op, Schedule, Setup};

/// Schedules tried at most.
const ATTEMPTS: usize = 3_000;

/// The smallest schedule found that fails like `outcome`, with what came of it.
pub fn shrink(outcome: &Outcome, planted: Planted) -> Outcome {
    let planted = Planted { traced: false, ..planted };
    let kind = outcome.violation.as_deref().map(kind).unwrap_or_default();
    let mut shrinker = Shrinker { planted, kind, attempts: 0, best: outcome.clone() };
    loop {
        let before = shrinker.best.schedule.clone();
        shrinker.fewer_actions();
        shrinker.simpler_world();
        shrinker.shorter_pauses();
        if shrinker.best.schedule == before || shrinker.attempts >= ATTEMPTS {
            return shrinker.best;
        }
    }
}

/// A violation without its numbers: two of one kind are the same defect.
pub fn kind(violation: &str) -> String {
    let said = violation.split_once(" s: ").map_or(violation, |(_, said)| said);
    let mut kind = String::new();
    for word in said.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit())) {
        kind.push_str(word);
        kind.push(' ');
    }
    kind.truncate(60);
    kind
}

struct Shrinker {
    planted: Planted,
    kind: String,
    attempts: usize,
    best: Outcome,
}

impl Shrinker {
    /// Takes a schedule in place of the best one if it fails alike.
    fn attempt(&mut self, schedule: Schedule) -> bool {
        if self.attempts >= ATTEMPTS || schedule == self.best.schedule {
            return false;
        }
        self.attempts += 1;
        let outcome = run_schedule(&schedule, self.planted);
        let fails = outcome.violation.as_deref().is_some_and(|violation| kind(violation) == self.kind);
        if fails {
            self.best = outcome;
        }
        fails
    }

    /// Leaves out ever smaller pieces.
    fn fewer_actions(&mut self) {
        let mut piece = self.best.schedule.actions.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.schedule.actions.len() {
                let mut schedule = self.best.schedule.clone();
                let to = (from + piece).min(schedule.actions.len());
                // The time that passed stays, at first.
                let pause: u64 = schedule.actions.drain(from..to).map(|action| action.pause).sum();
                let without = schedule.clone();
                if let Some(next) = schedule.actions.get_mut(from) {
                    next.pause += pause;
                }
                if !self.attempt(schedule) && !self.attempt(without) {
                    from += piece;
                }
            }
            if piece == 1 {
                return;
            }
            piece = piece.div_ceil(2);
        }
    }

    fn shorter_pauses(&mut self) {
        for at in 0..self.best.schedule.actions.len() {
            for pause in [0, 1, 10, 100, 1_000, 10_000] {
                let Some(now) = self.best.schedule.actions.get(at) else { return };
                if pause >= now.pause {
                    break;
                }
                let mut schedule = self.best.schedule.clone();
                schedule.actions[at].pause = pause;
                if self.attempt(schedule) {
                    break;
                }
            }
        }
        let mut schedule = self.best.schedule.clone();
        schedule.actions.retain(|action| !is_idle(action));
        self.attempt(schedule);
    }

    fn simpler_world(&mut self) {
        let changes: [fn(&mut Setup); 15] = [
            |setup| setup.loss = 0,
            |setup| setup.duplicates = 0,
            |setup| setup.jitter = 0,
            |setup| setup.latency = 10,
            |setup| setup.work.fill(0),
            |setup| setup.reports.fill(0),
            |setup| setup.shards.fill(1),
            |setup| setup.second = false,
            |setup| setup.nat = false,
            |setup| setup.same_spis = false,
            |setup| setup.pfs = None,
            |setup| setup.ike_methods.fill(false),
            |setup| (setup.ike_rekey, setup.reauth, setup.child_rekey) = (0, 0, 0),
            |setup| setup.shards.truncate(2),
            |setup| (setup.dpd, setup.tries) = (60, 4),
        ];
        for change in changes {
            let mut schedule = self.best.schedule.clone();
            change(&mut schedule.setup);
            let peers = schedule.setup.shards.len();
            let fits = |name: &str| peers > 2 || !name.ends_with('c');
            schedule.actions.retain(|action| connection(&action.op).is_none_or(fits));
            self.attempt(schedule);
        }
    }
}

/// The connection that an operation names.
fn connection(op: &Op) -> Option<&str> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "looks for those with a name")]
    match op {
        Op::Initiate(_, name, _)
        | Op::CloseChild(_, name, _)
        | Op::CloseIke(_, name)
        | Op::RekeyChild(_, name, _)
        | Op::RekeyIke(_, name)
        | Op::Install(_, name, _)
        | Op::Uninstall(_, name, _)
        | Op::Acquire(_, name, _)
        | Op::Reload(_, name, _) => Some(name),
        _ => None,
    }
}
