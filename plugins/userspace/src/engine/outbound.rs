//! From the protected side to the outer one: SPD lookup, fit, encapsulation (RFC 4301 §5.1, RFC 4303 §3.3).

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use ipsec::{Event, Instant, SaMode, Tap};

use super::hold::Hold;
use super::reassembly::{Piece, Reassembly};
use super::show;
use super::transport::{self, Cut};
use super::{Batch, Looks, Shared, Sink, Tables, TapCache};
use crate::drops::Reason;
use crate::esp::{self, MAX_OVERHEAD, next_header};
use crate::icmp::{self, Errors};
use crate::mss;
use crate::packet::{self, Packet};
use crate::sad::{Once, Sa};
use crate::spd::{Action, FlowCache, Policy};
use offload_host::icmp::Complaint;

const IPV6_MINIMUM_MTU: usize = 1280;

/// The transmitting half of the datapath. The only one that takes sequence numbers, so it exists once.
pub struct Outbound {
    shared: Arc<Shared>,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    flows: FlowCache,
    hold: Hold,
    held_generation: u64,
    errors: Errors,
    scratch: Box<[u8]>,
    reassembly: Reassembly,
    /// The packet at hand was put together of fragments.
    reassembled: bool,
    taps: TapCache,
    /// Who is shown the packets of this batch.
    tap: Option<Arc<Arc<dyn Tap>>>,
}

impl Outbound {
    /// The transmitting half for `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            tables: Cache::new(Arc::clone(&shared.tables)),
            flows: FlowCache::new(shared.seeds),
            hold: Hold::default(),
            held_generation: 0,
            errors: Errors::default(),
            scratch: vec![0; usize::from(u16::MAX)].into_boxed_slice(),
            reassembly: Reassembly::new(),
            reassembled: false,
            taps: Cache::new(Arc::clone(&shared.tap)),
            tap: None,
            shared,
        }
    }

    /// Takes packets of the protected side. `batch` is handed to `sink` whenever it is full; what is left in it at the end is the caller's to send.
    pub fn process<'a>(
        &mut self,
        packets: impl IntoIterator<Item = &'a [u8]>,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let tables = self.load();
        if !self.hold.is_empty() && tables.generation != self.held_generation {
            // What has waited goes first.
            self.settle_by(&tables, now, batch, sink);
        }
        for packet in packets {
            self.one(&tables, packet, now, now, batch, sink);
        }
    }

    /// To be called after a publication and about once a second: sends held packets whose SA stands, drops aged ones.
    pub fn settle(&mut self, now: Instant, batch: &mut Batch, sink: &mut impl Sink) {
        let tables = self.load();
        self.settle_by(&tables, now, batch, sink);
    }

    fn settle_by(&mut self, tables: &Tables, now: Instant, batch: &mut Batch, sink: &mut impl Sink) {
        self.held_generation = tables.generation;
        if self.hold.is_empty() {
            return;
        }
        let (packets, aged) = self.hold.take(now);
        for _ in 0..aged {
            self.shared.count(Reason::HoldAged);
        }
        for (since, packet) in packets {
            self.one(tables, &packet, since, now, batch, sink);
        }
        self.hold.sweep(now);
    }

    /// Whether held packets may have become sendable since [`Self::settle`] ran last.
    pub fn is_unsettled(&mut self) -> bool {
        !self.hold.is_empty() && self.tables.load().generation != self.held_generation
    }

    fn load(&mut self) -> Arc<Tables> {
        let tables = Arc::clone(self.tables.load());
        self.tap.clone_from(self.taps.load());
        self.flows.renew(tables.generation);
        tables
    }

    fn one(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        since: Instant,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let Ok(parsed) = packet::parse(packet) else { return self.shared.count(Reason::MalformedInner) };
        let Some(packet) = packet.get(..parsed.length) else { return };
        let Some(policy) = self.flows.find(&tables.outbound, &parsed.selectors).cloned() else {
            let multicast = match parsed.selectors.destination {
                IpAddr::V4(to) => to.is_multicast() || to.is_broadcast(),
                IpAddr::V6(to) => to.is_multicast(),
            };
            if multicast {
                return self.shared.count(Reason::NoPolicyMulticast);
            }
            self.shared.count(Reason::NoPolicy);
            let own = icmp::own_address(&tables.addresses, &parsed);
            return self.answer(packet, Complaint::Prohibited, own, now, batch, sink);
        };
        match &policy.action {
            Action::Protect(Some(sa)) => match sa.encloses {
                SaMode::Tunnel => self.protect(&policy, sa, packet, &parsed, now, batch, sink),
                //= RFC 4303 §3.3.4: transport mode is applied to whole packets, never to fragments
                SaMode::Transport if parsed.fragment => self.whole(tables, packet, &parsed, now, batch, sink),
                SaMode::Transport => self.transport(&policy, sa, packet, &parsed, now, batch, sink),
            },
            Action::Protect(None) => self.shared.count(Reason::NoOutboundSa),
            Action::Bypass => self.shared.count(Reason::BypassInTunnel),
            Action::Discard => self.shared.count(Reason::Discard),
            Action::Trap => self.trap(&policy, packet, &parsed, since, now),
        }
    }

    fn trap(&mut self, policy: &Policy, packet: &[u8], parsed: &Packet, since: Instant, now: Instant) {
        let held = self.hold.keep(policy.handle, policy.serial, packet, since, now);
        if held.raise {
            self.shared.reports.event(Event::Acquire { policy: policy.handle, packet: parsed.selectors });
        }
        if !held.kept {
            self.shared.count(Reason::HoldFull);
        }
    }

    #[allow(clippy::too_many_arguments)] // one packet's whole context, used by its two callers only
    fn protect(
        &mut self,
        policy: &Policy,
        sa: &Sa,
        packet: &[u8],
        parsed: &Packet,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        // IPv6 links carry 1280 octets (RFC 8200 §5); if need be the outer packet is fragmented.
        let is_v4 = parsed.selectors.source.is_ipv4();
        let mtu = if is_v4 { sa.hot.mtu() } else { sa.hot.mtu().max(IPV6_MINIMUM_MTU) };
        if mss::opens_connection(packet, parsed) && parsed.length <= mtu {
            return self.clamped(sa, packet, parsed, mtu, now, batch, sink);
        }
        if parsed.length <= mtu {
            return self.encapsulate(sa, packet, parsed, now, batch, sink);
        }
        if parsed.dont_fragment {
            self.dropped(sa, packet, Reason::TooBig);
            let complaint = Complaint::TooBig { mtu: u32::try_from(mtu).unwrap_or(u32::MAX) };
            return self.answer(packet, complaint, policy.gateway, now, batch, sink);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        packet::fragment_v4(packet, parsed, mtu, &mut scratch, |fragment| {
            self.encapsulate(sa, fragment, parsed, now, batch, sink);
        });
        self.scratch = scratch;
    }

    #[allow(clippy::too_many_arguments)] // as above
    fn clamped(
        &mut self,
        sa: &Sa,
        packet: &[u8],
        parsed: &Packet,
        mtu: usize,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(copy) = scratch.get_mut(..packet.len()) {
            copy.copy_from_slice(packet);
            mss::clamp(copy, parsed, mtu.min(self.shared.device_mtu));
            self.encapsulate(sa, copy, parsed, now, batch, sink);
        }
        self.scratch = scratch;
    }

    /// Puts fragments together; the whole packet has its own look at the SPD, because now it shows its ports.
    fn whole(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        parsed: &Packet,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let mut reassembly = std::mem::take(&mut self.reassembly);
        match reassembly.take(packet, parsed) {
            Piece::Kept => {}
            Piece::Refused => self.shared.count(Reason::FragmentInTransport),
            Piece::Whole(whole) => {
                self.reassembled = true;
                self.one(tables, whole, now, now, batch, sink);
                self.reassembled = false;
            }
        }
        self.reassembly = reassembly;
    }

    //= RFC 3948 §3.2: ESP header and trailer as without NAT, UDP in front
    /// Transport mode: the packet keeps its header. What is too large and may be fragmented is, but on the outside: ESP takes whole packets.
    #[allow(clippy::too_many_arguments)] // as above
    fn transport(
        &mut self,
        policy: &Policy,
        sa: &Sa,
        packet: &[u8],
        parsed: &Packet,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let cut = match transport::cut(packet, parsed) {
            Ok(cut) => cut,
            Err(reason) => return self.shared.count(reason),
        };
        let largest = sa.largest(cut.outside(parsed));
        let fits = parsed.length <= largest;
        // What our host has fragmented is fragmented again, on the outside.
        if !fits && parsed.dont_fragment && !self.reassembled {
            self.dropped(sa, packet, Reason::TooBig);
            let complaint = Complaint::TooBig { mtu: u32::try_from(largest).unwrap_or(u32::MAX) };
            return self.answer(packet, complaint, policy.gateway, now, batch, sink);
        }
        let looks =
            Looks { class: parsed.traffic_class, dont_fragment: fits && parsed.dont_fragment, hops: Some(cut.hops) };
        if !fits || !mss::opens_connection(packet, parsed) {
            return self.seal(sa, &cut, looks, now, batch, sink);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(copy) = scratch.get_mut(..packet.len()) {
            copy.copy_from_slice(packet);
            mss::clamp(copy, parsed, largest.min(self.shared.device_mtu));
            if let Ok(cut) = transport::cut(copy, parsed) {
                self.seal(sa, &cut, looks, now, batch, sink);
            }
        }
        self.scratch = scratch;
    }

    //= RFC 3948 §3.4: an ordinary tunnel packet, UDP in front
    fn encapsulate(
        &mut self,
        sa: &Sa,
        packet: &[u8],
        parsed: &Packet,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        let next_header = if parsed.selectors.source.is_ipv4() { next_header::IPV4 } else { next_header::IPV6 };
        let looks = Looks {
            class: packet::outer_class(parsed.traffic_class, sa.copy.dscp, sa.copy.ecn),
            // RFC 4301 §8.1: the outer bit is the inner one's copy, or clear.
            dont_fragment: sa.copy.df && parsed.dont_fragment,
            hops: None,
        };
        let whole = Cut { whole: packet, options: &[], payload: packet, next_header, hops: 0 };
        self.seal(sa, &whole, looks, now, batch, sink);
    }

    fn seal(&mut self, sa: &Sa, cut: &Cut<'_>, looks: Looks, now: Instant, batch: &mut Batch, sink: &mut impl Sink) {
        let reports = &*self.shared.reports;
        if !sa.passes(now, reports) {
            let expired = sa.hot.is(Once::Hard);
            return self.dropped(sa, cut.whole, if expired { Reason::Expired } else { Reason::WrongDevice });
        }
        make_room(batch, sink, cut.options.len() + cut.payload.len() + MAX_OVERHEAD);
        let Some(sequence) = sa.next_sequence(reports) else { return self.dropped(sa, cut.whole, Reason::Expired) };
        batch.put_options(cut.options);
        let room = batch.free();
        let sealed = esp::seal(&*sa.key, sa.spi.get(), sequence, sa.esn, cut.next_header, cut.payload, room);
        let Some(length) = sealed else { return self.dropped(sa, cut.whole, Reason::TooBig) };
        batch.push_datagram(sa.path, looks, cut.options.len(), length);
        sa.book(cut.payload.len(), now, reports);
        if let Some(tap) = &self.tap {
            show::sealed(&***tap, sa, sequence, cut, batch);
        }
    }

    /// Counts a packet that its SA does not carry.
    fn dropped(&self, sa: &Sa, packet: &[u8], reason: Reason) {
        if let Some(tap) = &self.tap {
            show::refused(&***tap, sa, packet, reason);
        }
        self.shared.count(reason);
    }

    /// Adds an ICMP error to the batch, if one may be sent.
    fn answer(
        &self,
        packet: &[u8],
        complaint: Complaint,
        source: Option<IpAddr>,
        now: Instant,
        batch: &mut Batch,
        sink: &mut impl Sink,
    ) {
        make_room(batch, sink, icmp::MAX_ERROR);
        if let Some(length) = self.errors.write(packet, complaint, source, now, batch.free()) {
            batch.push_reply(length);
        }
    }
}

fn make_room(batch: &mut Batch, sink: &mut impl Sink, octets: usize) {
    if !batch.has_room(octets) {
        sink.transmit(batch);
        batch.clear();
    }
}
