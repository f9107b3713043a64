//! The rules every offload backend keeps, each a named behaviour that can be run.
//!
//! A backend's tests wrap it in a [`Subject`] and call [`run`]. Whatever lies below the trait is the subject's business: a device, a namespace, or
//! a datapath that is fed by hand. A subject that carries no packets (the recording double) cannot show the rules about packets; those end as
//! [`Verdict::CannotShow`], which its test has to expect by name, so that nothing is skipped in silence.
//!
//! Traffic is made without any cipher here: a behaviour installs an outbound SA and an inbound one with the same SPI and key, and hands what the
//! first sent to the second.

mod limits;
mod packets;
mod policies;
mod requests;
mod setup;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Answer, Event, OffloadBackend, OffloadError, Path, Reports};
use crate::handle::Tag;

pub use packets::{destination, udp_v4, udp_v6};

/// A backend under test with everything around it.
pub trait Subject {
    /// The backend; it reports to [`Self::log`].
    fn backend(&self) -> &dyn OffloadBackend;
    /// What the backend reported.
    fn log(&self) -> &Log;
    /// Returns when everything submitted and injected so far has been dealt with.
    fn settle(&mut self);
    /// Both sides of the datapath, where they can be seen.
    fn wire(&mut self) -> Option<&mut dyn Wire>;
}

/// The packets of a subject.
pub trait Wire {
    /// Hands IP packets of the protected side to the datapath, as one batch where it knows batches.
    fn inject_inner(&mut self, packets: &[Vec<u8>]);
    /// Hands packets of the outer side to the datapath.
    fn inject_outer(&mut self, packets: &[OuterPacket]);
    /// What the datapath sent on the outer side since the last call, in order.
    fn captured_outer(&mut self) -> Vec<OuterPacket>;
    /// What the datapath delivered to the protected side since the last call, in order; ICMP errors count.
    fn captured_inner(&mut self) -> Vec<Vec<u8>>;
    /// Lets time pass.
    fn pass_time(&mut self, span: Duration);
}

/// A packet on the outer side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterPacket {
    /// Sender; the port is 0 without UDP.
    pub source: SocketAddr,
    /// Receiver; the port is 0 without UDP.
    pub destination: SocketAddr,
    /// What it carries.
    pub content: OuterContent,
}

/// What an outer packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OuterContent {
    /// ESP by itself, SPI first.
    Esp(Vec<u8>),
    /// ESP in UDP, SPI first.
    EspInUdp(Vec<u8>),
    /// An IP packet in clear.
    Clear(Vec<u8>),
}

impl OuterPacket {
    /// The ESP packet, SPI first.
    pub fn esp(&self) -> Option<&[u8]> {
        match &self.content {
            OuterContent::Esp(octets) | OuterContent::EspInUdp(octets) => Some(octets),
            OuterContent::Clear(_) => None,
        }
    }

    /// SPI of the ESP packet.
    pub fn spi(&self) -> Option<u32> {
        self.esp()?.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
    }
}

/// Everything a backend reported, in order.
#[derive(Debug, Default)]
pub struct Log {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    done: Vec<(Tag, Result<Answer, OffloadError>)>,
    events: Vec<Event>,
}

impl Log {
    /// Outcomes reported for a tag.
    pub fn outcomes(&self, tag: Tag) -> Vec<Result<Answer, OffloadError>> {
        self.lock().done.iter().filter(|(done, _)| *done == tag).map(|(_, outcome)| outcome.clone()).collect()
    }

    /// Events so far.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports for Log {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.lock().done.push((tag, outcome));
    }

    fn event(&self, event: Event) {
        self.lock().events.push(event);
    }

    fn ike_datagram(&self, _path: Path, _octets: &[u8]) {}
}

/// How a behaviour ended other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rule is broken; what was seen.
    Broken(String),
    /// The subject carries no packets, so the rule cannot be seen.
    CannotShow,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => f.write_str(what),
            Self::CannotShow => f.write_str("the subject carries no packets"),
        }
    }
}

/// What a behaviour returns.
pub type Kept = Result<(), Verdict>;

/// One rule.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// Name, stable: tests of subjects list those they cannot show.
    pub name: &'static str,
    /// Exercises a fresh subject.
    pub check: fn(&mut dyn Subject) -> Kept,
}

macro_rules! behaviours {
    ($($module:ident::$name:ident,)*) => {
        /// Every rule.
        pub const BEHAVIOURS: &[Behaviour] = &[$(Behaviour { name: stringify!($name), check: $module::$name },)*];
    };
}

behaviours! {
    requests::a_request_is_answered_exactly_once,
    requests::a_refused_request_leaves_nothing_behind,
    requests::removing_what_is_missing_is_no_error,
    requests::an_spi_is_unique_and_never_reserved_by_the_protocol,
    requests::two_entries_of_one_name_are_refused,
    requests::an_sa_that_does_not_fit_its_keys_is_refused,
    requests::after_shut_down_everything_is_refused_and_answered,
    requests::the_mode_in_use_is_read_back,
    policies::an_outbound_sa_carries_nothing_before_activation,
    policies::activation_switches_at_once_and_loses_nothing,
    policies::a_missing_sa_drops_and_never_sends_in_clear,
    policies::no_matching_entry_drops_and_never_sends_in_clear,
    policies::the_lower_priority_number_wins,
    policies::of_equal_selectors_the_last_activated_owns_and_the_next_takes_over,
    policies::a_trap_asks_once_and_delivers_what_it_held,
    policies::a_trap_asks_again_when_it_is_touched_or_the_acquire_aged,
    policies::a_refused_request_leaves_the_traffic_alone,
    policies::a_flush_ends_all_traffic,
    packets::counters_are_exact,
    packets::a_replayed_packet_is_rejected,
    packets::an_altered_packet_is_rejected,
    packets::the_whole_spi_is_compared,
    packets::an_inner_packet_outside_the_selectors_is_dropped,
    packets::an_inner_fragment_passes_only_without_ports,
    packets::both_forms_are_accepted_and_the_peers_is_told,
    packets::a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet,
    packets::the_first_inbound_packet_is_told_once,
    packets::a_moved_sa_sends_to_its_new_address,
    packets::a_moved_sa_keeps_sequence_window_and_counters,
    packets::an_oversize_packet_is_answered_or_fragmented,
    packets::ipv6_is_carried_like_ipv4,
    transport::transport_mode_carries_payloads_between_two_hosts,
    transport::transport_mode_carries_ipv6,
    transport::transport_mode_is_bound_to_its_hosts_and_selectors,
    transport::transport_mode_seals_whole_packets_only,
    transport::transport_mode_puts_checksums_right_behind_nat,
    transport::transport_mode_limits_count_payloads,
    limits::packet_limits_are_told_once_and_end_the_sa,
    limits::byte_limits_are_told_once_and_end_the_sa,
    limits::time_limits_are_told_once_and_end_the_sa,
    limits::an_inbound_sa_ends_at_its_own_limit,
    limits::a_limit_inside_a_batch_counts_exactly,
    limits::sequence_numbers_never_wrap,
    limits::extended_sequence_numbers_cross_the_low_half,
}

/// Runs every behaviour on a fresh subject and returns those that did not end well.
pub fn run<S: Subject>(mut fresh: impl FnMut() -> S) -> Vec<(&'static str, Verdict)> {
    BEHAVIOURS
        .iter()
        .filter_map(|behaviour| (behaviour.check)(&mut fresh()).err().map(|verdict| (behaviour.name, verdict)))
        .collect()
}

/// Breaks the rule with a message unless `kept`.
fn ensure(kept: bool, what: impl FnOnce() -> String) -> Kept {
    if kept { Ok(()) } else { Err(Verdict::Broken(what())) }
}

#[cfg(test)]
mod tests;
