//! Many schedules on all cores, counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::classes::Class;
use super::run::{Outcome, Planted, run_seed};

/// How many, and which.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Seeds count up from this one.
    pub seed: u64,
    /// Schedules.
    pub schedules: u64,
    /// No further one is begun after this long.
    pub time: Option<Duration>,
    /// Threads.
    pub threads: usize,
    /// Violations after which no further schedule is begun.
    pub violations: usize,
}

/// What came of them.
#[derive(Default)]
pub struct Sum {
    /// Schedules carried out.
    pub schedules: u64,
    /// Inputs handled.
    pub steps: u64,
    /// Operations done.
    pub operations: u64,
    /// Rekeys that both ends have told.
    pub rekeys: u64,
    /// The smallest number of steps, and of rekeys, of one schedule that came to its end.
    pub least: Option<(u64, u64)>,
    /// Schedules that have met each situation.
    pub classes: BTreeMap<Class, u64>,
    /// Those that failed.
    pub failed: Vec<Outcome>,
}

/// Runs them.
pub fn soak(extent: Extent, planted: Planted, progress: impl Fn(&Sum) + Sync) -> Sum {
    let (next, stop, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..extent.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && extent.time.is_none_or(|time| started.elapsed() < time) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= extent.schedules {
                        return;
                    }
                    let outcome = run_seed(extent.seed.wrapping_add(at), planted);
                    let mut sum = sum.lock().unwrap();
                    sum.add(outcome);
                    stop.fetch_or(sum.failed.len() >= extent.violations, Ordering::Relaxed);
                    progress(&sum);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.schedules += 1;
        self.steps += outcome.steps;
        self.rekeys += outcome.rekeys;
        self.operations += outcome.schedule.actions.len() as u64;
        for class in &outcome.classes {
            *self.classes.entry(class).or_default() += 1;
        }
        if outcome.violation.is_some() {
            self.failed.push(outcome);
        } else {
            let (steps, rekeys) = self.least.unwrap_or((u64::MAX, u64::MAX));
            self.least = Some((steps.min(outcome.steps), rekeys.min(outcome.rekeys)));
        }
    }
}
