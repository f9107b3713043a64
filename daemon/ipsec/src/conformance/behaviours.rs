//! The list of behaviours, with the rule each stands for.

use super::setup::Bench;
use super::{
    Kept, Subject, Verdict, devices, guard, limits, lists, packets, policies, requests, rungs, spis, transactions,
    transport,
};
use crate::sa::OffloadMode;

/// One rule.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// Name, stable: tests of subjects list those they cannot show.
    pub name: &'static str,
    /// The rule in one sentence.
    pub rule: &'static str,
    /// Exercises a fresh subject.
    check: fn(&mut Bench<'_>) -> Kept,
}

impl Behaviour {
    /// Exercises a fresh subject with SAs on `rung`: [`OffloadMode::No`], `Crypto` or `Packet`.
    ///
    /// # Errors
    /// How it ended other than well; also when no device of the subject has the rung.
    pub fn check(&self, subject: &mut dyn Subject, rung: OffloadMode) -> Kept {
        (self.check)(&mut Bench::new(subject, rung)?)
    }
}

/// Runs every behaviour on a fresh subject and returns those that did not end well.
pub fn run<S: Subject>(mut fresh: impl FnMut() -> S, rung: OffloadMode) -> Vec<(&'static str, Verdict)> {
    let ended = |behaviour: &Behaviour| Some((behaviour.name, behaviour.check(&mut fresh(), rung).err()?));
    BEHAVIOURS.iter().filter_map(ended).collect()
}

macro_rules! behaviours {
    ($($module:ident::$name:ident = $rule:literal,)*) => {
        /// Every rule.
        pub const BEHAVIOURS: &[Behaviour] =
            &[$(Behaviour { name: stringify!($name), rule: $rule, check: $module::$name },)*];
    };
}

behaviours! {
    requests::a_request_is_answered_exactly_once = "Each request gets one outcome.",
    requests::a_refused_request_leaves_nothing_behind = "A refused request changes no table, and its names and SPIs are free.",
    requests::removing_what_is_missing_is_no_error = "Removing what is not there succeeds.",
    requests::an_spi_is_unique_and_never_reserved_by_the_protocol = "Reserved SPIs differ and are never below 256 (RFC 4303 §2.1).",
    requests::an_spi_passes_to_another_sa_in_one_request = "An SA removed and another installed with its SPI in one request leave the SPI taken.",
    requests::two_entries_of_one_name_are_refused = "A handle names one entry.",
    requests::an_sa_that_does_not_fit_its_keys_is_refused = "Key material has exactly the length its algorithm needs.",
    requests::after_shut_down_everything_is_refused_and_answered = "After shut down each request is answered as unavailable.",
    requests::a_stop_answers_what_is_outstanding = "A stop answers everything outstanding.",
    requests::an_install_in_its_order_is_taken = "Guard, inbound and forward policies, SAs, outbound policy and activation stand in one request.",
    requests::the_mode_in_use_is_read_back = "The answer to an install tells the mode really in use.",
    requests::a_wish_for_a_missing_rung_is_refused = "No offload is replaced by another, or by software, without being asked.",
    requests::auto_is_no_rung = "An operation names the rung it means; auto is refused as invalid.",
    spis::spis_cannot_be_predicted = "One SPI does not tell the next.",
    spis::an_spi_is_not_used_again_while_its_packets_may_come = "An SPI rests for twice the time that old SAs linger.",
    spis::a_refused_install_keeps_its_spi = "An SPI stays reserved when an install with it is refused.",
    transactions::a_refusal_at_any_step_is_undone = "Wherever a request fails, what was done is undone in reverse.",
    transactions::a_refusal_at_any_step_leaves_the_traffic_alone = "Wherever a request fails, packets go on as before.",
    transactions::a_refusal_by_the_device_is_told_and_undone = "A refusal that only the device knows of is told and undone.",
    transactions::operations_take_effect_in_order = "Operations of a request take effect in their order.",
    transactions::activation_needs_an_outbound_sa_and_a_protecting_policy = "Only an outbound SA is activated, and only on an outbound policy that protects.",
    transactions::a_refused_move_changes_nothing = "An SA moves as a whole or not at all.",
    transactions::an_updated_policy_takes_effect_at_once = "An updated policy decides about the next packet.",
    transactions::two_inbound_sas_of_one_spi_are_refused = "An SPI names one SA of each direction.",
    lists::query_and_list_agree = "A query and a list tell the same, and what is installed.",
    lists::a_query_for_a_missing_sa_is_refused = "A query for an SA that is not there is refused.",
    lists::a_list_covers_its_scope = "A list of a shard shows that shard's entries and no others.",
    lists::a_list_shows_what_expired = "Soft and hard limits that were reached stay visible.",
    lists::counters_stand_still_for_refused_packets = "Packets that are refused move no counter of an SA.",
    rungs::algorithms_are_as_claimed = "Algorithms that are claimed are accepted, all others refused by name.",
    rungs::every_algorithm_carries_packets = "Every algorithm that is claimed carries packets.",
    rungs::modes_are_as_claimed = "The same for tunnel and transport mode.",
    rungs::extended_sequence_numbers_are_as_claimed = "The same for extended sequence numbers.",
    rungs::replay_windows_are_as_claimed = "The same for replay windows.",
    rungs::udp_encapsulation_is_as_claimed = "The same for ESP in UDP.",
    rungs::moves_are_as_claimed = "The same for moves of an SA in place.",
    rungs::selectors_are_as_claimed = "The same for address ranges, protocols and ports of policies.",
    rungs::policy_kinds_are_as_claimed = "The same for policies that do not protect.",
    rungs::marks_and_interface_ids_are_as_claimed = "The same for marks and interface ids.",
    rungs::limits_are_raised_in_the_units_claimed_only = "Limits in other units are left to whoever watches the counters.",
    rungs::the_sad_holds_what_is_claimed = "The SAD holds as many SAs as claimed, and then says that it is full.",
    rungs::the_spd_holds_what_is_claimed = "The SPD holds as many policies as claimed, and then says that it is full.",
    rungs::a_full_table_leaves_its_sas_alone = "A full table refuses and carries on.",
    rungs::every_rung_shows_its_own_mode = "Each rung shows as what it is.",
    devices::devices_are_described_rung_by_rung = "Each device has a number, and rungs of different modes, best first.",
    devices::an_unknown_device_is_refused = "A device that is not there is refused.",
    devices::a_policy_uses_no_sa_of_another_device = "SA and policy are on the same device.",
    devices::a_policy_uses_no_sa_of_another_rung = "A policy in a device uses SAs in the device, one in software uses those in software.",
    devices::an_offloaded_policy_is_looked_up_first = "Policies in the device are looked up before those in software, and a hit ends the search.",
    devices::a_device_that_goes_down_is_told_and_carries_nothing = "A device that goes down is told; nothing passes, and nothing in clear.",
    devices::a_request_to_a_dead_device_is_answered = "Requests are answered also when the device has died.",
    devices::a_device_that_returns_holds_what_the_list_shows = "After a device is back, what is listed works on and nothing else does.",
    devices::a_lost_sa_is_told_and_carries_nothing = "An SA that the device lost is told.",
    guard::a_guard_blocks_both_ways_before_the_first_policy = "A guard blocks both directions of its selectors, in both families, with no policy there.",
    guard::a_guard_yields_to_policies_and_outlives_them = "A guard stands behind policies, and stays after them and after a flush.",
    guard::a_guard_stands_until_its_last_owner_removes_it = "A guard goes with the last of its owners.",
    guard::a_guard_outlives_a_stop_that_blocks = "A guard outlives the process.",
    guard::a_guard_goes_with_a_stop_that_opens = "A guard goes where a stop is to leave traffic in clear.",
    guard::ike_passes_whatever_is_protected = "Our own IKE passes beside every policy, in both directions and families, on every port in use.",
    guard::ike_of_a_host_behind_us_is_protected = "IKE of others is protected like all their traffic.",
    guard::a_bypass_covers_its_selectors_only = "A bypass is no wider than its selectors.",
    guard::a_forged_packet_in_clear_is_not_delivered = "A packet in clear whose traffic is protected is not delivered (RFC 4301 §5.2).",
    guard::an_inbound_discard_is_obeyed = "What an inbound policy discards is not delivered.",
    policies::an_outbound_sa_carries_nothing_before_activation = "Installing an outbound SA reserves its place and carries nothing.",
    policies::activation_switches_at_once_and_loses_nothing = "From the next packet on an activated SA is used, and none is lost.",
    policies::a_missing_sa_drops_and_never_sends_in_clear = "A protecting policy without an SA drops.",
    policies::no_matching_entry_drops_and_never_sends_in_clear = "A packet that matches no policy is dropped and counted (RFC 4301 §5.1).",
    policies::the_lower_priority_number_wins = "Among policies that match the lowest priority number decides.",
    policies::of_equal_selectors_the_last_activated_owns_and_the_next_takes_over = "Of equal policies the last activated one is used, after it the next that has an SA.",
    policies::a_reserved_policy_hides_no_live_one = "A policy without an SA yields to an equal one that has one, on whichever rung.",
    policies::a_trap_asks_once_and_delivers_what_it_held = "A trap raises one acquire and sends what it held once the SA stands.",
    policies::a_trap_asks_again_when_it_is_touched_or_the_acquire_aged = "A trap asks again only when it was touched or its acquire aged.",
    policies::a_refused_request_leaves_the_traffic_alone = "A refused request changes nothing about the packets.",
    policies::a_flush_ends_all_traffic = "A flush removes every SA and policy of this process.",
    policies::an_acquire_tells_its_packet = "An acquire tells addresses, protocol and ports of its packet (RFC 7296 §2.9).",
    policies::a_storm_is_one_acquire_for_each_policy = "However many packets come, each policy has one acquire outstanding, and holds few.",
    policies::a_drop_is_told_once_for_each_reason = "A reason for drops is told when its counter leaves zero.",
    packets::counters_are_exact = "Packets, octets, sequence number and idle time are those of the packets carried.",
    packets::a_removal_tells_the_last_counters = "The answer to a removal tells what the SA has carried, to the last packet.",
    packets::sequence_numbers_go_up_by_one = "Sequence numbers start at one and leave none out (RFC 4303 §2.2).",
    packets::old_and_new_inbound_sas_work_side_by_side = "Old and new inbound SAs work side by side until the old one is removed.",
    packets::a_replayed_packet_is_rejected = "A number left of the window or in it twice is rejected (RFC 4303 §3.4.3).",
    packets::an_altered_packet_is_rejected = "A packet whose integrity check fails changes nothing (RFC 4303 §3.4.4).",
    packets::the_whole_spi_is_compared = "Every bit of the SPI counts.",
    packets::an_inner_packet_outside_the_selectors_is_dropped = "A decapsulated packet outside the SA's selectors is dropped (RFC 4301 §5.2).",
    packets::an_inner_fragment_passes_only_without_ports = "A fragment passes only where the selectors have no ports.",
    packets::both_forms_are_accepted_and_the_peers_is_told = "Native ESP and ESP in UDP are both accepted, and the peer's form is told (RFC 3948).",
    packets::a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet = "Only an authentic packet that advances the window tells of a new NAT mapping.",
    packets::the_first_inbound_packet_is_told_once = "The first authentic packet of an inbound SA is told, once.",
    packets::a_moved_sa_sends_to_its_new_address = "A moved SA sends to its new address in its new form.",
    packets::a_moved_sa_keeps_sequence_window_and_counters = "Moving an SA starts nothing over.",
    packets::an_oversize_packet_is_answered_or_fragmented = "A packet too large is answered with the MTU, or fragmented where it may be (RFC 4301 §8).",
    packets::an_oversize_ipv6_packet_is_answered = "The same for IPv6, which is never fragmented on the way.",
    packets::ipv6_is_carried_like_ipv4 = "IPv6 packets are carried like IPv4 ones.",
    transport::transport_mode_carries_payloads_between_two_hosts = "Transport mode encloses what follows the IP header (RFC 4303 §3.1.1).",
    transport::transport_mode_carries_ipv6 = "The same for IPv6.",
    transport::transport_mode_is_bound_to_its_hosts_and_selectors = "Transport mode carries traffic of its two hosts inside the selectors, nothing else.",
    transport::transport_mode_seals_whole_packets_only = "Transport mode takes whole packets, never fragments (RFC 4303 §3.3.4).",
    transport::transport_mode_puts_checksums_right_behind_nat = "Checksums made before a NAT are right after decapsulation (RFC 3948 §3.1.2).",
    transport::transport_mode_limits_count_payloads = "In transport mode octets are those of payloads.",
    limits::packet_limits_are_told_once_and_end_the_sa = "Soft and hard packet limits are told once, and nothing passes after the hard one.",
    limits::byte_limits_are_told_once_and_end_the_sa = "The same for octets.",
    limits::time_limits_are_told_once_and_end_the_sa = "The same for time since install.",
    limits::an_inbound_sa_ends_at_its_own_limit = "Each direction has limits of its own.",
    limits::a_limit_inside_a_batch_counts_exactly = "A limit holds in the middle of a batch.",
    limits::an_sa_expires_once_whatever_the_units = "One soft and one hard event for each SA, told in the unit that was reached first.",
    limits::an_sa_that_ended_stays_ended = "Nothing passes in either direction after a hard limit, whatever is done to SA and policy.",
    limits::a_soft_limit_comes_before_the_numbers_end = "Without extended numbers a soft limit is told at three quarters of them at the latest.",
    limits::a_gcm_key_protects_no_more_than_it_may = "An AES-GCM key protects at most 2^40 blocks.",
    limits::sequence_numbers_never_wrap = "Without extended numbers an SA ends before its numbers do (RFC 4303 §3.3.3).",
    limits::extended_sequence_numbers_cross_the_low_half = "Extended numbers cross 2^32 with loss and reordering (RFC 4303 §2.2.1).",
    limits::extended_sequence_numbers_never_wrap = "Nor do extended numbers wrap at 2^64.",
}
