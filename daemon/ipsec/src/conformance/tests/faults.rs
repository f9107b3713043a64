//! Deliberately wrong backends: each fails exactly the behaviours that its mistake breaks, and no other.

use std::collections::BTreeMap;

use super::*;
use crate::conformance::double::Fault;

/// A mistake and what it breaks, in the order of the list of behaviours, on a rung that claims everything.
type Broken = (Fault, &'static [&'static str]);

const FAULTS: &[Broken] = &[
    (
        Fault::DoubleDone,
        &[
            "a_request_is_answered_exactly_once",
            "after_shut_down_everything_is_refused_and_answered",
            "a_stop_answers_what_is_outstanding",
            "a_request_to_a_dead_device_is_answered",
        ],
    ),
    (
        Fault::SilentAfterDeath,
        &["after_shut_down_everything_is_refused_and_answered", "a_request_to_a_dead_device_is_answered"],
    ),
    (
        Fault::HalfUndone,
        &[
            "a_refused_request_leaves_nothing_behind",
            "a_refusal_at_any_step_is_undone",
            "a_refusal_at_any_step_leaves_the_traffic_alone",
            "a_refused_request_leaves_the_traffic_alone",
        ],
    ),
    (
        Fault::ReusesSpi,
        &["an_spi_is_not_used_again_while_its_packets_may_come", "an_inner_fragment_passes_only_without_ports"],
    ),
    (Fault::CountsSpisUp, &["spis_cannot_be_predicted"]),
    (Fault::ListsEverything, &["a_list_covers_its_scope"]),
    (
        Fault::SilentSoftwareFallback,
        &[
            "a_wish_for_a_missing_rung_is_refused",
            "algorithms_are_as_claimed",
            "replay_windows_are_as_claimed",
            "marks_and_interface_ids_are_as_claimed",
        ],
    ),
    (Fault::LiesInReadBack, &["the_mode_in_use_is_read_back"]),
    (Fault::TakesAuto, &["auto_is_no_rung"]),
    (
        Fault::OverfullTable,
        &["the_sad_holds_what_is_claimed", "the_spd_holds_what_is_claimed", "a_full_table_leaves_its_sas_alone"],
    ),
    (Fault::WrongDevice, &["a_policy_uses_no_sa_of_another_device", "a_policy_uses_no_sa_of_another_rung"]),
    (
        Fault::LostSoftExpire,
        &[
            "limits_are_raised_in_the_units_claimed_only",
            "transport_mode_limits_count_payloads",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "time_limits_are_told_once_and_end_the_sa",
            "an_inbound_sa_ends_at_its_own_limit",
            "a_limit_inside_a_batch_counts_exactly",
            "an_sa_expires_once_whatever_the_units",
            "an_sa_that_ended_stays_ended",
            "a_soft_limit_comes_before_the_numbers_end",
            "a_gcm_key_protects_no_more_than_it_may",
        ],
    ),
    (
        Fault::DoubleHardExpire,
        &[
            "transport_mode_limits_count_payloads",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "time_limits_are_told_once_and_end_the_sa",
            "an_inbound_sa_ends_at_its_own_limit",
            "a_limit_inside_a_batch_counts_exactly",
            "an_sa_expires_once_whatever_the_units",
            "an_sa_that_ended_stays_ended",
            "a_gcm_key_protects_no_more_than_it_may",
            "sequence_numbers_never_wrap",
            "extended_sequence_numbers_never_wrap",
        ],
    ),
    (
        Fault::UnboundedAcquires,
        &[
            "a_trap_asks_once_and_delivers_what_it_held",
            "a_trap_asks_again_when_it_is_touched_or_the_acquire_aged",
            "an_acquire_tells_its_packet",
            "a_storm_is_one_acquire_for_each_policy",
        ],
    ),
    (Fault::SilentDeviceLoss, &["a_device_that_goes_down_is_told_and_carries_nothing"]),
    (
        Fault::PassesAfterHardLimit,
        &[
            "transport_mode_limits_count_payloads",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "time_limits_are_told_once_and_end_the_sa",
            "an_inbound_sa_ends_at_its_own_limit",
            "a_limit_inside_a_batch_counts_exactly",
            "an_sa_that_ended_stays_ended",
            "a_gcm_key_protects_no_more_than_it_may",
        ],
    ),
    (Fault::ForgetsRemoved, &["a_removal_tells_the_last_counters"]),
    (Fault::LateActivate, &["activation_switches_at_once_and_loses_nothing"]),
    (
        Fault::FrozenCounters,
        &[
            "limits_are_raised_in_the_units_claimed_only",
            "an_outbound_sa_carries_nothing_before_activation",
            "a_trap_asks_once_and_delivers_what_it_held",
            "counters_are_exact",
            "a_removal_tells_the_last_counters",
            "a_replayed_packet_is_rejected",
            "an_altered_packet_is_rejected",
            "an_inner_packet_outside_the_selectors_is_dropped",
            "transport_mode_carries_payloads_between_two_hosts",
            "transport_mode_carries_ipv6",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "a_limit_inside_a_batch_counts_exactly",
            "an_sa_that_ended_stays_ended",
        ],
    ),
    (
        Fault::CountsRefused,
        &[
            "counters_stand_still_for_refused_packets",
            "a_replayed_packet_is_rejected",
            "an_inner_packet_outside_the_selectors_is_dropped",
            "packet_limits_are_told_once_and_end_the_sa",
            "a_limit_inside_a_batch_counts_exactly",
            "an_sa_that_ended_stays_ended",
        ],
    ),
    (
        Fault::PlaintextWithoutSa,
        &[
            "a_lost_sa_is_told_and_carries_nothing",
            "an_outbound_sa_carries_nothing_before_activation",
            "a_missing_sa_drops_and_never_sends_in_clear",
        ],
    ),
    (Fault::WrapsSequence, &["sequence_numbers_never_wrap", "extended_sequence_numbers_never_wrap"]),
    (
        Fault::NoReplayCheck,
        &[
            "counters_stand_still_for_refused_packets",
            "a_replayed_packet_is_rejected",
            "a_moved_sa_keeps_sequence_window_and_counters",
        ],
    ),
    (Fault::ComparesLowSpi, &["the_whole_spi_is_compared"]),
    (
        Fault::MoveStartsOver,
        &[
            "a_moved_sa_sends_to_its_new_address",
            "a_moved_sa_keeps_sequence_window_and_counters",
            "an_sa_that_ended_stays_ended",
        ],
    ),
    (
        Fault::IgnoresSelectors,
        &[
            "an_inner_packet_outside_the_selectors_is_dropped",
            "an_inner_fragment_passes_only_without_ports",
            "transport_mode_is_bound_to_its_hosts_and_selectors",
        ],
    ),
    (Fault::PassesFragments, &["an_inner_fragment_passes_only_without_ports"]),
    (Fault::MixesRungs, &["an_offloaded_policy_is_looked_up_first"]),
    (
        Fault::SilentOversize,
        &[
            "an_oversize_packet_is_answered_or_fragmented",
            "an_oversize_ipv6_packet_is_answered",
            "transport_mode_seals_whole_packets_only",
        ],
    ),
    (
        Fault::AcceptsClear,
        &[
            "a_guard_blocks_both_ways_before_the_first_policy",
            "a_guard_yields_to_policies_and_outlives_them",
            "a_guard_stands_until_its_last_owner_removes_it",
            "a_guard_outlives_a_stop_that_blocks",
            "ike_passes_whatever_is_protected",
            "a_forged_packet_in_clear_is_not_delivered",
        ],
    ),
    (Fault::ForgetsGuard, &["a_guard_outlives_a_stop_that_blocks"]),
    (Fault::KeepsGuard, &["a_guard_goes_with_a_stop_that_opens"]),
    (Fault::WideBypass, &["ike_of_a_host_behind_us_is_protected", "a_storm_is_one_acquire_for_each_policy"]),
    (Fault::NoBypass, &["ike_passes_whatever_is_protected"]),
    (Fault::RefusesMissing, &["removing_what_is_missing_is_no_error"]),
    (Fault::RepeatsSpi, &["an_spi_is_unique_and_never_reserved_by_the_protocol"]),
    (Fault::FreesRefusedSpi, &["a_refused_install_keeps_its_spi"]),
    (Fault::AcceptsTwins, &["two_entries_of_one_name_are_refused", "two_inbound_sas_of_one_spi_are_refused"]),
    (Fault::TakesAnyKey, &["an_sa_that_does_not_fit_its_keys_is_refused", "a_refused_install_keeps_its_spi"]),
    (Fault::SwallowsRefusal, &["a_refusal_by_the_device_is_told_and_undone"]),
    (
        Fault::Reorders,
        &[
            "an_spi_passes_to_another_sa_in_one_request",
            "operations_take_effect_in_order",
            "the_sad_holds_what_is_claimed",
        ],
    ),
    (
        Fault::ActivatesAnything,
        &[
            "a_refused_request_leaves_nothing_behind",
            "operations_take_effect_in_order",
            "activation_needs_an_outbound_sa_and_a_protecting_policy",
        ],
    ),
    (Fault::HalfMoved, &["a_refusal_at_any_step_leaves_the_traffic_alone", "a_refused_move_changes_nothing"]),
    (
        Fault::IgnoresUpdates,
        &["an_updated_policy_takes_effect_at_once", "a_trap_asks_again_when_it_is_touched_or_the_acquire_aged"],
    ),
    (Fault::ListsNoOwner, &["operations_take_effect_in_order", "query_and_list_agree"]),
    (Fault::RemembersRemoved, &["a_query_for_a_missing_sa_is_refused"]),
    (Fault::HidesExpiry, &["a_list_shows_what_expired"]),
    (Fault::LiesInStatus, &["the_mode_in_use_is_read_back", "every_rung_shows_its_own_mode"]),
    (Fault::GarblesOthers, &["every_algorithm_carries_packets"]),
    (Fault::WorstFirst, &["devices_are_described_rung_by_rung"]),
    (Fault::TakesAnyDevice, &["an_unknown_device_is_refused"]),
    (Fault::ReturnsStale, &["a_device_that_returns_holds_what_the_list_shows"]),
    (Fault::WidensBypass, &["a_bypass_covers_its_selectors_only"]),
    (Fault::IgnoresInboundPolicies, &["an_inbound_discard_is_obeyed"]),
    (
        Fault::ClearWithoutPolicy,
        &[
            "an_updated_policy_takes_effect_at_once",
            "counters_stand_still_for_refused_packets",
            "a_device_that_goes_down_is_told_and_carries_nothing",
            "a_device_that_returns_holds_what_the_list_shows",
            "no_matching_entry_drops_and_never_sends_in_clear",
            "a_flush_ends_all_traffic",
            "a_drop_is_told_once_for_each_reason",
            "sequence_numbers_go_up_by_one",
            "ipv6_is_carried_like_ipv4",
            "transport_mode_is_bound_to_its_hosts_and_selectors",
        ],
    ),
    (
        Fault::HighestNumberFirst,
        &[
            "a_bypass_covers_its_selectors_only",
            "a_missing_sa_drops_and_never_sends_in_clear",
            "the_lower_priority_number_wins",
            "a_trap_asks_once_and_delivers_what_it_held",
            "a_storm_is_one_acquire_for_each_policy",
        ],
    ),
    (
        Fault::FirstOwnerStays,
        &[
            "of_equal_selectors_the_last_activated_owns_and_the_next_takes_over",
            "an_inner_fragment_passes_only_without_ports",
            "time_limits_are_told_once_and_end_the_sa",
        ],
    ),
    (Fault::FlushesPoliciesOnly, &["a_flush_ends_all_traffic"]),
    (
        Fault::TellsEveryDrop,
        &[
            "a_drop_is_told_once_for_each_reason",
            "a_replayed_packet_is_rejected",
            "the_whole_spi_is_compared",
            "transport_mode_seals_whole_packets_only",
        ],
    ),
    (
        Fault::SkipsNumbers,
        &[
            "an_outbound_sa_carries_nothing_before_activation",
            "counters_are_exact",
            "sequence_numbers_go_up_by_one",
            "a_replayed_packet_is_rejected",
            "a_moved_sa_sends_to_its_new_address",
            "a_moved_sa_keeps_sequence_window_and_counters",
            "a_limit_inside_a_batch_counts_exactly",
            "sequence_numbers_never_wrap",
            "extended_sequence_numbers_cross_the_low_half",
            "extended_sequence_numbers_never_wrap",
        ],
    ),
    (
        Fault::OneInboundOnly,
        &[
            "query_and_list_agree",
            "a_list_covers_its_scope",
            "the_sad_holds_what_is_claimed",
            "a_full_table_leaves_its_sas_alone",
            "activation_switches_at_once_and_loses_nothing",
            "old_and_new_inbound_sas_work_side_by_side",
        ],
    ),
    (Fault::SilentForm, &["both_forms_are_accepted_and_the_peers_is_told"]),
    (
        Fault::BelievesAnyone,
        &["a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet", "the_first_inbound_packet_is_told_once"],
    ),
    (Fault::TellsEveryUse, &["the_first_inbound_packet_is_told_once"]),
    (Fault::SilentStateLoss, &["a_lost_sa_is_told_and_carries_nothing"]),
    (
        Fault::NoIpv6,
        &["an_oversize_ipv6_packet_is_answered", "ipv6_is_carried_like_ipv4", "transport_mode_carries_ipv6"],
    ),
    (Fault::LeavesChecksums, &["transport_mode_puts_checksums_right_behind_nat"]),
    (Fault::GuessesHighHalf, &["extended_sequence_numbers_cross_the_low_half"]),
    (Fault::ForgetsOutstanding, &["a_stop_answers_what_is_outstanding"]),
    (Fault::RefusesForward, &["an_install_in_its_order_is_taken", "an_inbound_discard_is_obeyed"]),
    (Fault::HidesWithReserved, &["a_reserved_policy_hides_no_live_one"]),
];

fn failed(fault: Fault, rung: OffloadMode) -> Vec<&'static str> {
    let ended = run(|| Double::new(able(), Some(fault)), rung);
    ended.iter().filter(|(_, verdict)| *verdict != Verdict::NotClaimed).map(|(name, _)| *name).collect()
}

#[test]
fn each_fault_breaks_exactly_its_rules() {
    let found: BTreeMap<Fault, Vec<&str>> =
        FAULTS.iter().map(|(fault, _)| (*fault, failed(*fault, OffloadMode::Packet))).collect();
    if std::env::var_os("SHOW_FAULTS").is_some() {
        found.iter().for_each(|(fault, names)| println!("    (Fault::{fault:?}, &{names:?}),"));
    }
    for (fault, expected) in FAULTS {
        assert!(!expected.is_empty(), "{fault:?} breaks nothing");
        assert_eq!(found.get(fault).map(Vec::as_slice), Some(*expected), "{fault:?}");
    }
}

/// None of the mistakes is one of offload alone.
#[test]
fn a_fault_breaks_the_same_rules_in_software() {
    for (fault, expected) in FAULTS {
        let expected: Vec<&str> = expected.iter().copied().filter(|name| !IN_SOFTWARE.contains(name)).collect();
        assert_eq!(failed(*fault, OffloadMode::No), expected, "{fault:?}");
    }
}

/// What a rung that claims everything has no occasion for: to refuse what it does not claim.
const ON_A_MODEST_RUNG: Broken = (
    Fault::SilentSoftwareFallback,
    &[
        "a_wish_for_a_missing_rung_is_refused",
        "algorithms_are_as_claimed",
        "modes_are_as_claimed",
        "extended_sequence_numbers_are_as_claimed",
        "replay_windows_are_as_claimed",
        "udp_encapsulation_is_as_claimed",
        "moves_are_as_claimed",
        "selectors_are_as_claimed",
        "policy_kinds_are_as_claimed",
        "marks_and_interface_ids_are_as_claimed",
    ],
);

#[test]
fn a_modest_rung_that_falls_back_breaks_what_it_does_not_claim() {
    let (fault, expected) = ON_A_MODEST_RUNG;
    let ended = run(|| Double::new(modest(), Some(fault)), OffloadMode::Packet);
    let broken: Vec<&str> =
        ended.iter().filter(|(_, verdict)| *verdict != Verdict::NotClaimed).map(|(name, _)| *name).collect();
    assert_eq!(broken, expected);
}

/// A rule that no mistake breaks might be one that cannot be broken.
#[test]
fn every_behaviour_can_fail() {
    let broken: BTreeSet<&str> =
        FAULTS.iter().chain([&ON_A_MODEST_RUNG]).flat_map(|(_, names)| names.iter().copied()).collect();
    let never: Vec<&str> =
        BEHAVIOURS.iter().map(|behaviour| behaviour.name).filter(|name| !broken.contains(name)).collect();
    assert!(never.is_empty(), "{never:#?}");
}
