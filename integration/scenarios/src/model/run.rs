//! One schedule, made or read, from beginning to end.

use std::collections::BTreeSet;

use super::classes::{Class, classes};
use super::execute::Run;
use super::generate::{begin, generate};
use super::quiet;
use super::schedule::{Action, Op, Schedule};
use crate::sabotage::Sabotage;

/// What came of a schedule.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The schedule.
    pub schedule: Schedule,
    /// Inputs handled by the cores.
    pub steps: u64,
    /// Rekeys that both ends have told.
    pub rekeys: u64,
    /// The situations it has met.
    pub classes: BTreeSet<Class>,
    /// The first invariant that did not hold.
    pub violation: Option<String>,
    /// What happened, if that was wanted.
    pub trace: Option<String>,
}

/// What is planted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// A fault of the harness.
    pub sabotage: Option<Sabotage>,
    /// Keep a trace.
    pub traced: bool,
}

/// Makes the schedule of a seed and carries it out.
pub fn run_seed(seed: u64, planted: Planted) -> Outcome {
    let (mut schedule, mut dice) = begin(seed);
    let setup = schedule.setup.clone();
    let actions = &mut schedule.actions;
    let mut outcome = carried_out(&Schedule { setup, actions: Vec::new() }, planted, |run| {
        generate(run, &mut dice, actions);
    });
    outcome.schedule = schedule;
    outcome
}

/// Carries out a schedule.
pub fn run_schedule(schedule: &Schedule, planted: Planted) -> Outcome {
    carried_out(schedule, planted, |run| schedule.actions.iter().for_each(|action| run.act(action)))
}

fn carried_out(schedule: &Schedule, planted: Planted, act: impl FnOnce(&mut Run)) -> Outcome {
    let mut run = None;
    let result = quiet::catch(|| {
        let run = run.insert(Run::new(&schedule.setup));
        if !planted.traced {
            run.world.untraced();
        }
        planted.sabotage.into_iter().for_each(|sabotage| run.world.sabotage(sabotage));
        act(run);
        run.finish();
    });
    let (mut steps, mut rekeys, mut classes, mut trace) = (0, 0, BTreeSet::new(), None);
    if let Some(run) = &mut run {
        (steps, rekeys) = (run.world.steps(), run.rekeys());
        classes = self::classes(&run.world);
        trace = planted.traced.then(|| run.world.trace_text());
    }
    Outcome { schedule: schedule.clone(), steps, rekeys, classes, violation: result.err(), trace }
}

/// An action that changes nothing, to put in the place of one that is left out.
pub(super) fn is_idle(action: &Action) -> bool {
    action.op == Op::Wait && action.pause == 0
}
