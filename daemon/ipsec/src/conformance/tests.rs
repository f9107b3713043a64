//! The kit against the doubles: that each rule can be kept, and that each can be broken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::double::{Double, able, modest};
use super::*;
use crate::recording::RecordingBackend;
use crate::sa::OffloadMode;

struct Recorder {
    log: Arc<Log>,
    backend: RecordingBackend,
}

impl Recorder {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        Self { log, backend: RecordingBackend::new(reports, 0x1000) }
    }
}

impl Subject for Recorder {
    fn backend(&self) -> &dyn OffloadBackend {
        &self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn settle(&mut self) {}

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        None
    }
}

mod faults;

#[test]
fn the_double_keeps_every_rule() {
    for rung in [OffloadMode::No, OffloadMode::Packet] {
        assert_eq!(run(|| Double::new(able(), None), rung), [], "{rung:?}");
    }
}

/// A rung that carries little keeps what it claims. What it does not claim is named here, so that nothing is left out by accident.
#[test]
fn a_modest_rung_keeps_what_it_claims() {
    let ended = run(|| Double::new(modest(), None), OffloadMode::Packet);
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| *verdict != Verdict::NotClaimed).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let names: Vec<&str> = ended.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NOT_CLAIMED);
    assert_eq!(run(|| Double::new(modest(), None), OffloadMode::No), []);
}

const NOT_CLAIMED: &[&str] = &[
    "a_missing_sa_drops_and_never_sends_in_clear",
    "the_lower_priority_number_wins",
    "a_trap_asks_once_and_delivers_what_it_held",
    "a_trap_asks_again_when_it_is_touched_or_the_acquire_aged",
    "an_inner_fragment_passes_only_without_ports",
    "both_forms_are_accepted_and_the_peers_is_told",
    "a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet",
    "a_moved_sa_sends_to_its_new_address",
    "a_moved_sa_keeps_sequence_window_and_counters",
    "transport_mode_carries_payloads_between_two_hosts",
    "transport_mode_carries_ipv6",
    "transport_mode_is_bound_to_its_hosts_and_selectors",
    "transport_mode_seals_whole_packets_only",
    "transport_mode_puts_checksums_right_behind_nat",
    "transport_mode_limits_count_payloads",
    "byte_limits_are_told_once_and_end_the_sa",
    "time_limits_are_told_once_and_end_the_sa",
    "extended_sequence_numbers_cross_the_low_half",
];

#[test]
fn a_missing_rung_is_no_pass() {
    let ended = run(|| Double::new(able(), None), OffloadMode::Crypto);
    assert_eq!(ended.len(), BEHAVIOURS.len());
    assert!(ended.iter().all(|(_, verdict)| matches!(verdict, Verdict::Broken(_))), "{ended:?}");
}

/// It carries no packets: all but these end as something that it cannot show, or break.
#[test]
fn the_recorder_keeps_what_needs_no_packets() {
    let ended: Vec<(&str, Verdict)> = run(Recorder::new, OffloadMode::No);
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).collect();
    let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, RECORDER_BREAKS, "{broken:#?}");
    let kept = |name: &&str| ended.iter().all(|(other, _)| other != name);
    let kept: Vec<&str> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).filter(kept).collect();
    assert_eq!(kept, RECORDER_KEEPS);
}

/// It goes on recording after shut down, and installs whatever offload it is asked for as software.
const RECORDER_BREAKS: &[&str] =
    &["after_shut_down_everything_is_refused_and_answered", "a_wish_for_a_missing_rung_is_refused", "auto_is_no_rung"];
const RECORDER_KEEPS: &[&str] = &[
    "a_request_is_answered_exactly_once",
    "a_refused_request_leaves_nothing_behind",
    "removing_what_is_missing_is_no_error",
    "an_spi_is_unique_and_never_reserved_by_the_protocol",
    "two_entries_of_one_name_are_refused",
    "an_sa_that_does_not_fit_its_keys_is_refused",
    "the_mode_in_use_is_read_back",
];

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).collect();
    assert_eq!(names.len(), BEHAVIOURS.len());
}
