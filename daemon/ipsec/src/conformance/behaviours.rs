//! The list of behaviours, with the rule each stands for.

use super::setup::Bench;
use super::{Kept, Subject, Verdict, limits, packets, policies, requests, transport};
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
    requests::two_entries_of_one_name_are_refused = "A handle names one entry.",
    requests::an_sa_that_does_not_fit_its_keys_is_refused = "Key material has exactly the length its algorithm needs.",
    requests::after_shut_down_everything_is_refused_and_answered = "After shut down each request is answered as unavailable.",
    requests::the_mode_in_use_is_read_back = "The answer to an install tells the mode really in use.",
    requests::a_wish_for_a_missing_rung_is_refused = "No offload is replaced by another, or by software, without being asked.",
    requests::auto_is_no_rung = "An operation names the rung it means; auto is refused as invalid.",
    policies::an_outbound_sa_carries_nothing_before_activation = "Installing an outbound SA reserves its place and carries nothing.",
    policies::activation_switches_at_once_and_loses_nothing = "From the next packet on an activated SA is used, and none is lost.",
    policies::a_missing_sa_drops_and_never_sends_in_clear = "A protecting policy without an SA drops.",
    policies::no_matching_entry_drops_and_never_sends_in_clear = "A packet that matches no policy is dropped and counted (RFC 4301 §5.1).",
    policies::the_lower_priority_number_wins = "Among policies that match the lowest priority number decides.",
    policies::of_equal_selectors_the_last_activated_owns_and_the_next_takes_over = "Of equal policies the last activated one is used, after it the next that has an SA.",
    policies::a_trap_asks_once_and_delivers_what_it_held = "A trap raises one acquire and sends what it held once the SA stands.",
    policies::a_trap_asks_again_when_it_is_touched_or_the_acquire_aged = "A trap asks again only when it was touched or its acquire aged.",
    policies::a_refused_request_leaves_the_traffic_alone = "A refused request changes nothing about the packets.",
    policies::a_flush_ends_all_traffic = "A flush removes every SA and policy of this process.",
    packets::counters_are_exact = "Packets, octets, sequence number and idle time are those of the packets carried.",
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
    limits::sequence_numbers_never_wrap = "Without extended numbers an SA ends before its numbers do (RFC 4303 §3.3.3).",
    limits::extended_sequence_numbers_cross_the_low_half = "Extended numbers cross 2^32 with loss and reordering (RFC 4303 §2.2.1).",
}
