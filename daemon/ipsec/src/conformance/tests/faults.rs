//! Deliberately wrong backends: each fails exactly the behaviours that its mistake breaks, and no other.

use std::collections::BTreeMap;

use super::*;
use crate::conformance::double::Fault;

/// A mistake and what it breaks, in the order of the list of behaviours, on a rung that claims everything.
type Broken = (Fault, &'static [&'static str]);

const FAULTS: &[Broken] = &[
    (Fault::DoubleDone, &["a_request_is_answered_exactly_once", "after_shut_down_everything_is_refused_and_answered"]),
    (Fault::SilentAfterDeath, &["after_shut_down_everything_is_refused_and_answered"]),
    (Fault::HalfUndone, &["a_refused_request_leaves_nothing_behind", "a_refused_request_leaves_the_traffic_alone"]),
    (Fault::ReusesSpi, &["an_inner_fragment_passes_only_without_ports"]),
    (Fault::SilentSoftwareFallback, &["a_wish_for_a_missing_rung_is_refused"]),
    (Fault::LiesInReadBack, &["the_mode_in_use_is_read_back"]),
    (Fault::TakesAuto, &["auto_is_no_rung"]),
    (
        Fault::LostSoftExpire,
        &[
            "transport_mode_limits_count_payloads",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "time_limits_are_told_once_and_end_the_sa",
            "an_inbound_sa_ends_at_its_own_limit",
            "a_limit_inside_a_batch_counts_exactly",
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
            "sequence_numbers_never_wrap",
        ],
    ),
    (
        Fault::UnboundedAcquires,
        &["a_trap_asks_once_and_delivers_what_it_held", "a_trap_asks_again_when_it_is_touched_or_the_acquire_aged"],
    ),
    (
        Fault::PassesAfterHardLimit,
        &[
            "transport_mode_limits_count_payloads",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "time_limits_are_told_once_and_end_the_sa",
            "an_inbound_sa_ends_at_its_own_limit",
            "a_limit_inside_a_batch_counts_exactly",
        ],
    ),
    (Fault::LateActivate, &["activation_switches_at_once_and_loses_nothing"]),
    (
        Fault::FrozenCounters,
        &[
            "an_outbound_sa_carries_nothing_before_activation",
            "a_trap_asks_once_and_delivers_what_it_held",
            "counters_are_exact",
            "a_replayed_packet_is_rejected",
            "an_altered_packet_is_rejected",
            "an_inner_packet_outside_the_selectors_is_dropped",
            "transport_mode_carries_payloads_between_two_hosts",
            "transport_mode_carries_ipv6",
            "packet_limits_are_told_once_and_end_the_sa",
            "byte_limits_are_told_once_and_end_the_sa",
            "a_limit_inside_a_batch_counts_exactly",
        ],
    ),
    (
        Fault::CountsRefused,
        &[
            "a_replayed_packet_is_rejected",
            "an_inner_packet_outside_the_selectors_is_dropped",
            "packet_limits_are_told_once_and_end_the_sa",
            "a_limit_inside_a_batch_counts_exactly",
        ],
    ),
    (
        Fault::PlaintextWithoutSa,
        &["an_outbound_sa_carries_nothing_before_activation", "a_missing_sa_drops_and_never_sends_in_clear"],
    ),
    (Fault::WrapsSequence, &["sequence_numbers_never_wrap"]),
    (Fault::NoReplayCheck, &["a_replayed_packet_is_rejected", "a_moved_sa_keeps_sequence_window_and_counters"]),
    (Fault::MoveStartsOver, &["a_moved_sa_sends_to_its_new_address", "a_moved_sa_keeps_sequence_window_and_counters"]),
    (
        Fault::IgnoresSelectors,
        &[
            "an_inner_packet_outside_the_selectors_is_dropped",
            "an_inner_fragment_passes_only_without_ports",
            "transport_mode_is_bound_to_its_hosts_and_selectors",
        ],
    ),
    (Fault::PassesFragments, &["an_inner_fragment_passes_only_without_ports"]),
    (
        Fault::SilentOversize,
        &["an_oversize_packet_is_answered_or_fragmented", "transport_mode_seals_whole_packets_only"],
    ),
];

/// The same on both rungs: none of the mistakes is one of offload alone.
#[test]
fn each_fault_breaks_exactly_its_rules() {
    for rung in [OffloadMode::No, OffloadMode::Packet] {
        let failed = |fault: Fault| -> Vec<&str> {
            run(|| Double::new(able(), Some(fault)), rung).iter().map(|(name, _)| *name).collect()
        };
        let found: BTreeMap<Fault, Vec<&str>> = FAULTS.iter().map(|(fault, _)| (*fault, failed(*fault))).collect();
        if std::env::var_os("SHOW_FAULTS").is_some() {
            found.iter().for_each(|(fault, names)| println!("    (Fault::{fault:?}, &{names:?}),"));
        }
        for (fault, expected) in FAULTS {
            assert!(!expected.is_empty(), "{fault:?} breaks nothing");
            assert_eq!(found.get(fault).map(Vec::as_slice), Some(*expected), "{fault:?} on {rung:?}");
        }
    }
}
