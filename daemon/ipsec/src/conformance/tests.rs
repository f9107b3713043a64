//! The kit against the doubles: that each rule can be kept, and that each can be broken.

use std::collections::BTreeSet;

use super::double::{Double, able, modest};
use super::*;
use crate::sa::OffloadMode;

mod faults;

#[test]
fn the_double_keeps_every_rule() {
    assert_eq!(run(|| Double::new(able(), None), OffloadMode::Packet), []);
    assert_eq!(run(|| Double::new(able(), None), OffloadMode::No), IN_SOFTWARE.map(|name| (name, Verdict::NotClaimed)));
}

/// What software has no tables of its own for.
const IN_SOFTWARE: [&str; 6] = [
    "a_policy_uses_no_sa_of_another_device",
    "an_offloaded_policy_is_looked_up_first",
    "a_device_that_goes_down_is_told_and_carries_nothing",
    "a_request_to_a_dead_device_is_answered",
    "a_device_that_returns_holds_what_the_list_shows",
    "a_lost_sa_is_told_and_carries_nothing",
];

/// A rung that carries little keeps what it claims. What it does not claim is named here, so that nothing is left out by accident.
#[test]
fn a_modest_rung_keeps_what_it_claims() {
    let ended = run(|| Double::new(modest(), None), OffloadMode::Packet);
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| *verdict != Verdict::NotClaimed).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let names: Vec<&str> = ended.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NOT_CLAIMED);
    assert_eq!(
        run(|| Double::new(modest(), None), OffloadMode::No),
        IN_SOFTWARE.map(|name| (name, Verdict::NotClaimed))
    );
}

const NOT_CLAIMED: &[&str] = &[
    "a_refused_move_changes_nothing",
    "a_policy_uses_no_sa_of_another_device",
    "a_bypass_covers_its_selectors_only",
    "an_inbound_discard_is_obeyed",
    "a_missing_sa_drops_and_never_sends_in_clear",
    "the_lower_priority_number_wins",
    "a_trap_asks_once_and_delivers_what_it_held",
    "a_trap_asks_again_when_it_is_touched_or_the_acquire_aged",
    "an_acquire_tells_its_packet",
    "a_storm_is_one_acquire_for_each_policy",
    "a_drop_is_told_once_for_each_reason",
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
    "an_sa_expires_once_whatever_the_units",
    "a_gcm_key_protects_no_more_than_it_may",
    "extended_sequence_numbers_cross_the_low_half",
    "extended_sequence_numbers_never_wrap",
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

/// It goes on recording after shut down, counts its SPIs up, and installs what its rung does not claim.
const RECORDER_BREAKS: &[&str] = &[
    "after_shut_down_everything_is_refused_and_answered",
    "spis_cannot_be_predicted",
    "activation_needs_an_outbound_sa_and_a_protecting_policy",
    "algorithms_are_as_claimed",
    "replay_windows_are_as_claimed",
];
const RECORDER_KEEPS: &[&str] = &[
    "a_request_is_answered_exactly_once",
    "a_refused_request_leaves_nothing_behind",
    "removing_what_is_missing_is_no_error",
    "an_spi_is_unique_and_never_reserved_by_the_protocol",
    "an_spi_passes_to_another_sa_in_one_request",
    "two_entries_of_one_name_are_refused",
    "an_sa_that_does_not_fit_its_keys_is_refused",
    "a_stop_answers_what_is_outstanding",
    "an_install_in_its_order_is_taken",
    "the_mode_in_use_is_read_back",
    "a_wish_for_a_missing_rung_is_refused",
    "auto_is_no_rung",
    "a_refused_install_keeps_its_spi",
    "a_refusal_at_any_step_is_undone",
    "operations_take_effect_in_order",
    "two_inbound_sas_of_one_spi_are_refused",
    "query_and_list_agree",
    "a_query_for_a_missing_sa_is_refused",
    "a_list_covers_its_scope",
    "modes_are_as_claimed",
    "extended_sequence_numbers_are_as_claimed",
    "udp_encapsulation_is_as_claimed",
    "moves_are_as_claimed",
    "selectors_are_as_claimed",
    "policy_kinds_are_as_claimed",
    "marks_and_interface_ids_are_as_claimed",
    "the_sad_holds_what_is_claimed",
    "the_spd_holds_what_is_claimed",
    "every_rung_shows_its_own_mode",
    "devices_are_described_rung_by_rung",
    "an_unknown_device_is_refused",
];

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).collect();
    assert_eq!(names.len(), BEHAVIOURS.len());
}
