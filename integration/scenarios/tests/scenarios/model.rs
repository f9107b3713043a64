//! Everything in any order: a small number of random schedules, the same every time, and the faults that such schedules must find.
//!
//! `cargo xtask soak model` runs as many as there is time for.

use scenarios::Sabotage;
use scenarios::model::generate::{REKEYS, STEPS};
use scenarios::model::shrink::shrink;
use scenarios::model::{Outcome, Planted, Schedule, run_schedule, run_seed};

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let outcome = run_seed(seed, Planted::default());
        assert_eq!(outcome.violation, None, "cargo xtask soak model --seed {seed} --schedules 1");
        assert!(outcome.steps >= STEPS && outcome.rekeys >= REKEYS, "{seed}: {} {}", outcome.steps, outcome.rekeys);
    }
}

#[test]
fn ends_in_order() {
    run(0..150);
}

#[test]
fn ends_in_order_too() {
    run(150..300);
}

/// A schedule that was made from a seed does the same when it is carried out again.
#[test]
fn a_schedule_can_be_carried_out_again() {
    for seed in 0..10 {
        let traced = Planted { traced: true, ..Planted::default() };
        let made = run_seed(seed, traced);
        let text = made.schedule.to_string();
        let read = Schedule::parse(&text).unwrap();
        assert_eq!(read, made.schedule, "{text}");
        assert_eq!(run_schedule(&read, traced).trace, made.trace, "seed {seed}");
    }
}

/// Schedules tried until one finds a planted fault.
const TRIED: u64 = 100;
/// Operations that the smallest schedule with a planted fault may have.
const SHORT: usize = 12;

/// A planted fault is found, and the schedule that finds it becomes short.
fn found(sabotage: Sabotage, words: &str) {
    let planted = Planted { sabotage: Some(sabotage), traced: false };
    let found = (0..TRIED).map(|seed| run_seed(seed, planted)).find(|outcome| outcome.violation.is_some());
    let found = found.unwrap_or_else(|| panic!("{sabotage:?} is not found"));
    let small = shrink(&found, planted);
    let violation = |outcome: &Outcome| outcome.violation.clone().unwrap_or_default();
    assert!(small.schedule.actions.len() <= SHORT, "{sabotage:?}:\n{}", small.schedule);
    assert!(violation(&small).contains(words), "{sabotage:?}: {}", violation(&small));
    let again = Schedule::parse(&small.schedule.to_string()).unwrap();
    assert_eq!(violation(&run_schedule(&again, planted)), violation(&small));
    assert_eq!(run_schedule(&again, Planted::default()).violation, None, "{sabotage:?}: not for what was planted");
}

#[test]
fn an_inbound_sa_that_goes_early_is_found() {
    found(Sabotage::DropOldInbound, "was taken away");
}

#[test]
fn an_early_switch_is_found() {
    found(Sabotage::SwitchEarly, "is not there yet");
}

#[test]
fn an_sa_that_stays_is_found() {
    found(Sabotage::KeepRemoved, "nobody owns it");
}

#[test]
fn a_delete_that_is_not_carried_out_is_found() {
    found(Sabotage::IgnoreDelete, "was taken away");
}

#[test]
fn a_repeated_event_is_found() {
    found(Sabotage::RepeatEvent, "told");
}

#[test]
fn a_silent_end_is_found() {
    found(Sabotage::SilentClose, "without an event");
}

#[test]
fn counters_that_are_never_told_are_found() {
    found(Sabotage::SilentRemoval, "without its last counters");
}

#[test]
fn a_retry_without_a_wait_is_found() {
    found(Sabotage::NoWait, "after TEMPORARY_FAILURE");
}

#[test]
fn a_changed_repetition_is_found() {
    found(Sabotage::ChangedRepetition, "with other octets");
}

#[test]
fn a_command_without_an_end_is_found() {
    found(Sabotage::ForgetReply, "never answers");
}
