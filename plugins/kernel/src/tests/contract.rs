//! The rules of the backend contract, on a kernel in memory: all that the backend decides.

use ipsec::OffloadMode;
use ipsec::conformance::{Verdict, run};

use super::memory::Driver;
use super::subject::{InMemory, able};

/// Rules about what the kernel itself does to packets. The one in memory has no counters of refused packets, no UDP, no fragments and no MTU.
const OF_THE_DATAPATH: [&str; 13] = [
    "an_inbound_discard_is_obeyed",
    "a_drop_is_told_once_for_each_reason",
    "a_replayed_packet_is_rejected",
    "the_whole_spi_is_compared",
    // Linux counts a packet before it looks at what is inside.
    "an_inner_packet_outside_the_selectors_is_dropped",
    "an_inner_fragment_passes_only_without_ports",
    "both_forms_are_accepted_and_the_peers_is_told",
    "a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet",
    "an_oversize_packet_is_answered_or_fragmented",
    "an_oversize_ipv6_packet_is_answered",
    "transport_mode_is_bound_to_its_hosts_and_selectors",
    "transport_mode_seals_whole_packets_only",
    "transport_mode_puts_checksums_right_behind_nat",
];

/// The host around the kernel is tried on real ones.
const OF_THE_HOST: [&str; 6] = [
    "a_guard_blocks_both_ways_before_the_first_policy",
    "a_guard_yields_to_policies_and_outlives_them",
    "a_guard_stands_until_its_last_owner_removes_it",
    "a_guard_outlives_a_stop_that_blocks",
    "a_guard_goes_with_a_stop_that_opens",
    "ike_passes_whatever_is_protected",
];

#[test]
fn the_rules_of_the_contract_are_kept() {
    for rung in [OffloadMode::No, OffloadMode::Crypto, OffloadMode::Packet] {
        expect(rung, || InMemory::new(Some(able())));
    }
}

/// A driver that takes little is described as such, and what it does not take is refused before the kernel is asked.
#[test]
fn the_rules_are_kept_by_a_driver_that_takes_little() {
    let little = Driver {
        algorithms: vec![ipsec::EspAlgorithm::AES_128_GCM, ipsec::EspAlgorithm::AES_256_GCM],
        windows: vec![32, 64, 128, 256],
        no_esn: true,
        ..able()
    };
    for rung in [OffloadMode::No, OffloadMode::Crypto, OffloadMode::Packet] {
        expect(rung, || InMemory::new(Some(little.clone())));
    }
}

fn expect(rung: OffloadMode, fresh: impl FnMut() -> InMemory) {
    let ended = run(fresh, rung);
    let named = |wanted: fn(&Verdict) -> bool| -> Vec<&str> {
        ended.iter().filter(|(_, verdict)| wanted(verdict)).map(|(name, _)| *name).collect()
    };
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).collect();
    let mut unexpected = named(|verdict| matches!(verdict, Verdict::Broken(_)));
    unexpected.retain(|name| !OF_THE_DATAPATH.contains(name));
    assert!(unexpected.is_empty(), "{rung:?}: {broken:#?}");
    assert_eq!(named(|verdict| *verdict == Verdict::CannotShow), OF_THE_HOST, "{rung:?}");
}
