//! What the kernel does otherwise than the rules, each with its reason, by name. A test holds each line against what was seen.

use ipsec::OffloadMode::{self, Crypto, No, Packet};
use ipsec::conformance::Verdict;

/// How a behaviour ends instead of well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// Broken; what is said has this in it.
    Broken(&'static str),
    /// Not shown.
    CannotShow,
    /// Not claimed by the rung.
    NotClaimed,
}

/// A rule that is not kept, or not shown.
#[derive(Debug)]
pub(super) struct Difference {
    /// The behaviour.
    pub(super) name: &'static str,
    /// On which rungs.
    pub(super) rungs: &'static [OffloadMode],
    /// What is seen.
    pub(super) seen: Seen,
    /// Why.
    pub(super) reason: &'static str,
}

impl Difference {
    /// Whether a verdict is what this line says.
    pub(super) fn is(&self, verdict: &Verdict) -> bool {
        match (self.seen, verdict) {
            (Seen::Broken(part), Verdict::Broken(said)) => said.contains(part),
            (Seen::CannotShow, Verdict::CannotShow) | (Seen::NotClaimed, Verdict::NotClaimed) => true,
            (Seen::Broken(_) | Seen::CannotShow | Seen::NotClaimed, _) => false,
        }
    }
}

/// The line about a behaviour on a rung.
pub(super) fn of(name: &str, rung: OffloadMode) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.name == name && difference.rungs.contains(&rung))
}

const EVERY: &[OffloadMode] = &[No, Crypto, Packet];
const IN_SOFTWARE: &[OffloadMode] = &[No];
const IN_CORE: &[OffloadMode] = &[No, Crypto];
const OFFLOADED: &[OffloadMode] = &[Crypto, Packet];
const IN_DEVICE: &[OffloadMode] = &[Packet];

const fn broken(
    name: &'static str,
    rungs: &'static [OffloadMode],
    said: &'static str,
    reason: &'static str,
) -> Difference {
    Difference { name, rungs, seen: Seen::Broken(said), reason }
}

const fn not_claimed(name: &'static str, rungs: &'static [OffloadMode], reason: &'static str) -> Difference {
    Difference { name, rungs, seen: Seen::NotClaimed, reason }
}

const fn not_shown(name: &'static str, rungs: &'static [OffloadMode], reason: &'static str) -> Difference {
    Difference { name, rungs, seen: Seen::CannotShow, reason }
}

const NO_MOVE: &str = "The kernel changes addresses or encapsulation of an SA only by making another one of it (XFRM_MSG_MIGRATE), which on Linux \
     6.12 loses the offload and copies the sequence number while packets go on: a move is a rekey here.";
const ONE_TABLE: &str =
    "Software has one table for all devices; what a link does is not felt by what is not in its device.";
const NO_UDP: &str = "Whether a device does ESP in UDP is the driver's to say with each SA, and the kernel tells nothing of new mappings for a device: the \
     rung does not claim it.";
const IN_SILENCE: &str = "It is dropped, in the device: what a device drops the kernel does not count (/proc/net/xfrm_stat), and there is no interface that \
     tells it for every driver.";
const ON_THE_WIRE: &str = "A device with packet offload counts octets of ESP packets behind the outer IP header, and the kernel takes its word (as with mlx5).";
const NO_BYTES: &str =
    "A device counts octets on the wire, not those of inner packets, so the rung does not claim limits in octets.";
const NEXT_PACKET: &str = "The kernel looks at limits of volume before it carries a packet and counts it afterwards: a limit is told with the packet \
     after the one that reaches it, and that packet is the first that does not pass a hard one.";

/// All of them.
pub(super) static DIFFERENCES: &[Difference] = &[
    not_shown(
        "a_refusal_by_the_device_is_told_and_undone",
        IN_SOFTWARE,
        "Without a device there is none that refuses; what software refuses is known before.",
    ),
    not_claimed("a_refused_move_changes_nothing", EVERY, NO_MOVE),
    not_claimed(
        "a_full_table_leaves_its_sas_alone",
        EVERY,
        "The kernel's own tables are bounded by memory only, and it does not tell how much a device holds.",
    ),
    not_claimed("a_policy_uses_no_sa_of_another_device", IN_CORE, ONE_TABLE),
    not_claimed(
        "a_policy_uses_no_sa_of_another_rung",
        IN_CORE,
        "Policies of software use SAs of software and of crypto offload alike, and there is no packet offload beside those here.",
    ),
    not_claimed(
        "an_offloaded_policy_is_looked_up_first",
        IN_CORE,
        "Policies are in a device with packet offload only.",
    ),
    not_claimed("a_device_that_goes_down_is_told_and_carries_nothing", IN_SOFTWARE, ONE_TABLE),
    not_claimed("a_request_to_a_dead_device_is_answered", IN_SOFTWARE, ONE_TABLE),
    not_claimed("a_device_that_returns_holds_what_the_list_shows", IN_SOFTWARE, ONE_TABLE),
    not_claimed("a_lost_sa_is_told_and_carries_nothing", IN_SOFTWARE, ONE_TABLE),
    not_claimed(
        "no_matching_entry_drops_and_never_sends_in_clear",
        EVERY,
        "What no policy matches is the host's own traffic and passes, as it does without IPsec; what must not pass is the guard's.",
    ),
    broken(
        "an_inner_packet_outside_the_selectors_is_dropped",
        EVERY,
        "a dropped packet was counted as carried",
        "It is dropped, but an SA counts what it has decrypted, and policies are looked at after that.",
    ),
    broken(
        "both_forms_are_accepted_and_the_peers_is_told",
        IN_SOFTWARE,
        "0 of 2 packets in the other form arrived",
        "The kernel takes the form that the SA was installed with and drops the other one (XfrmInStateMismatch).",
    ),
    not_claimed("both_forms_are_accepted_and_the_peers_is_told", OFFLOADED, NO_UDP),
    not_claimed("a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet", OFFLOADED, NO_UDP),
    not_claimed("a_moved_sa_sends_to_its_new_address", EVERY, NO_MOVE),
    not_claimed("a_moved_sa_keeps_sequence_window_and_counters", EVERY, NO_MOVE),
    broken(
        "transport_mode_seals_whole_packets_only",
        IN_CORE,
        "packets were made of fragments that are no whole",
        "What a host itself sends in transport mode is whole. Fragments get there by being forwarded, and the kernel seals those as they are.",
    ),
    broken(
        "transport_mode_puts_checksums_right_behind_nat",
        EVERY,
        "protocol 6",
        "The kernel does not mend checksums made before a NAT: it takes them as verified (RFC 3948 §3.1.2 allows that), so that its own sockets \
         accept the packets and the octets stay as they came.",
    ),
    broken("transport_mode_limits_count_payloads", IN_CORE, "the soft limit was told", NEXT_PACKET),
    broken("packet_limits_are_told_once_and_end_the_sa", IN_CORE, "soft, hard and all events", NEXT_PACKET),
    broken("byte_limits_are_told_once_and_end_the_sa", IN_CORE, "soft, hard and all events", NEXT_PACKET),
    broken("a_soft_limit_comes_before_the_numbers_end", IN_CORE, "the soft limit was told 0 times", NEXT_PACKET),
    broken("an_inbound_discard_is_obeyed", IN_DEVICE, "the drop was not told", IN_SILENCE),
    broken("an_inner_fragment_passes_only_without_ports", IN_DEVICE, "reasons for drops were told", IN_SILENCE),
    broken("transport_mode_seals_whole_packets_only", IN_DEVICE, "the drop was not told", IN_SILENCE),
    broken("counters_are_exact", IN_DEVICE, "100 packets of 5800 octets, counters (100, 9200, 100", ON_THE_WIRE),
    broken("a_removal_tells_the_last_counters", IN_DEVICE, "7 packets of 406 octets, their removal told", ON_THE_WIRE),
    broken("transport_mode_carries_payloads_between_two_hosts", IN_DEVICE, "20 payloads of 2890 octets", ON_THE_WIRE),
    broken("transport_mode_carries_ipv6", IN_DEVICE, "a payload of 108 octets was counted as", ON_THE_WIRE),
    not_claimed("transport_mode_limits_count_payloads", IN_DEVICE, NO_BYTES),
    not_claimed("byte_limits_are_told_once_and_end_the_sa", IN_DEVICE, NO_BYTES),
    not_claimed("an_sa_expires_once_whatever_the_units", IN_DEVICE, NO_BYTES),
    not_claimed("a_gcm_key_protects_no_more_than_it_may", IN_DEVICE, NO_BYTES),
    broken(
        "an_oversize_packet_is_answered_or_fragmented",
        IN_DEVICE,
        "0 fragments with 0 octets",
        "What may not be fragmented is answered. With packet offload the kernel drops what may be (XfrmOutError): it hands a packet to the device \
         whole, and the device does not fragment.",
    ),
    broken(
        "transport_mode_is_bound_to_its_hosts_and_selectors",
        IN_DEVICE,
        "1 packets outside the selectors arrived",
        "Nothing outside the selectors is sent. What arrives protected in transport mode and matches no policy the kernel lets pass, and a state in a \
         device has no selector: drivers make different things of it.",
    ),
    not_shown(
        "a_soft_limit_comes_before_the_numbers_end",
        IN_DEVICE,
        "The numbers are the device's own, and nobody can move them.",
    ),
    broken(
        "extended_sequence_numbers_cross_the_low_half",
        IN_DEVICE,
        "the highest number received is",
        "All packets arrive. The kernel is not told the numbers that a device has received; shown is the least that they can be, from the packets.",
    ),
];
