//! From the outer side to the protected one: SAD lookup, anti-replay, decapsulation, policy check (RFC 4301 §5.2, RFC 4303 §3.4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::RandomState;
use arc_swap::{ArcSwap, Cache};
use ipsec::{Event, Instant, PacketSelectors, SaMode, UdpEncapsulation};

use super::show::Opening;
use super::transport::{self, Came};
use super::{Shared, Tables, TapCache};
use crate::drops::Reason;
use crate::esp::{self, OpenError, next_header};
use crate::mss;
use crate::packet::{self, Packet};
use crate::sad::{Once, Sa};
use crate::spd::Action;

/// How an ESP packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// IP protocol 50.
    Native,
    /// In UDP to this local port.
    Udp {
        /// Our port.
        local_port: u16,
    },
}

/// Where an ESP packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Source address; the port counts for [`Form::Udp`] only.
    pub remote: SocketAddr,
    /// Native or UDP.
    pub form: Form,
    /// Our address that it was sent to, where that is known.
    pub local: Option<IpAddr>,
    /// Outer TOS or traffic class.
    pub class: u8,
    /// Outer TTL or hop limit.
    pub hops: u8,
}

/// Octets of `spare` that a packet of transport mode takes beyond its ESP packet, at most.
pub const HEADER_ROOM: usize = 40;

/// A receiving half of the datapath. An SA's packets must all go through the same one.
pub struct Inbound {
    shared: Arc<Shared>,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    hasher: RandomState,
    taps: TapCache,
    /// Where packets are kept that are shown, while they are opened in place; of a size only while they are.
    copy: Vec<u8>,
}

impl Inbound {
    /// A receiving half for `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        let [a, b, c, d] = shared.seeds;
        Self {
            tables: Cache::new(Arc::clone(&shared.tables)),
            hasher: RandomState::with_seeds(a, b, c, d),
            taps: Cache::new(Arc::clone(&shared.tap)),
            copy: Vec::new(),
            shared,
        }
    }

    /// Lets go of an old published state, and with it of removed SAs and their keys. To be called when no packets come.
    pub fn renew(&mut self) {
        self.tables.load();
    }

    /// Takes ESP packets (SPI first), opens them in place and hands inner packets to `deliver` in order. Packets of transport mode get their
    /// headers back in `spare`, which needs as many octets as all packets together and [`HEADER_ROOM`] for each.
    pub fn process<'a>(
        &mut self,
        packets: impl IntoIterator<Item = (Arrival, &'a mut [u8])>,
        mut spare: &'a mut [u8],
        now: Instant,
        mut deliver: impl FnMut(&'a mut [u8]),
    ) {
        let tables = Arc::clone(self.tables.load());
        let tap = self.taps.load().clone();
        let mut copy = std::mem::take(&mut self.copy);
        for (arrival, packet) in packets {
            let opening = tap.as_ref().and_then(|tap| {
                let sa = self.sa(&tables, esp::header(packet)?.0)?;
                Opening::of(&***tap, sa, &arrival, packet, &mut copy)
            });
            let outcome = self.one(&tables, &arrival, packet, &mut spare, now);
            if let Some(opening) = opening {
                opening.show(&outcome);
            }
            match outcome {
                Ok(Some(inner)) => deliver(inner),
                Ok(None) => {}
                Err(reason) => self.shared.count(reason),
            }
        }
        if tap.is_some() {
            self.copy = copy;
        }
    }

    fn sa<'t>(&self, tables: &'t Tables, spi: u32) -> Option<&'t Arc<Sa>> {
        tables.inbound.get(self.shared.permutation.slot(spi)).filter(|sa| sa.spi.get() == spi)
    }

    //= RFC 3948 §3.3: after ESP the payload goes up with the checksum put right
    fn one<'a>(
        &self,
        tables: &Tables,
        arrival: &Arrival,
        packet: &'a mut [u8],
        spare: &mut &'a mut [u8],
        now: Instant,
    ) -> Result<Option<&'a mut [u8]>, Reason> {
        let (spi, low) = esp::header(packet).ok_or(Reason::MalformedEsp)?;
        let sa = self.sa(tables, spi).ok_or(Reason::UnknownSpi)?;
        if !sa.passes(now, &*self.shared.reports) {
            return Err(Reason::Expired);
        }
        let window = &sa.hot.window;
        let sequence = if sa.esn {
            // Without a window the high half still has to be guessed.
            let reach = if sa.window == 0 { esp::MAX_WINDOW } else { sa.window };
            esp::extend(low, window.top(), reach).ok_or(Reason::Replay)?
        } else {
            u64::from(low)
        };
        if !window.accepts(sequence, sa.window) {
            return Err(Reason::Replay);
        }
        let opened = esp::open(&*sa.key, sequence, sa.esn, packet).map_err(|error| match error {
            OpenError::Truncated => Reason::MalformedEsp,
            OpenError::Integrity => Reason::Integrity,
            OpenError::Padding => Reason::MalformedPayload,
        })?;
        // Authentic from here on.
        if window.advance(sequence) {
            self.note(sa, arrival);
        }
        if opened.next_header == next_header::DUMMY {
            return Ok(None);
        }
        let carried = opened.payload.len();
        let (parsed, inner, counted) = match sa.encloses {
            SaMode::Tunnel => {
                let (parsed, inner) = inner_packet(opened.payload, opened.next_header)?;
                check(tables, sa, &parsed)?;
                let class = packet::inner_class(parsed.traffic_class, arrival.class, sa.copy.dscp, sa.copy.ecn)
                    .ok_or(Reason::CongestionExperienced)?;
                if class != parsed.traffic_class {
                    packet::set_traffic_class(inner, class);
                }
                let counted = inner.len();
                (parsed, inner, counted)
            }
            SaMode::Transport => {
                let (parsed, inner) = whole_packet(sa, arrival, opened.payload, opened.next_header, spare)?;
                check(tables, sa, &parsed)?;
                (parsed, inner, carried)
            }
        };
        if mss::opens_connection(inner, &parsed) {
            self.clamp(tables, &parsed, inner);
        }
        sa.book(counted, now, &*self.shared.reports);
        Ok(Some(inner))
    }

    /// Lets a host of ours know from the start what fits on the way back.
    fn clamp(&self, tables: &Tables, parsed: &Packet, inner: &mut [u8]) {
        let forward = parsed.selectors;
        let back = PacketSelectors {
            source: forward.destination,
            destination: forward.source,
            protocol: forward.protocol,
            ports: forward.ports.map(|(source, destination)| (destination, source)),
        };
        let fits = match tables.outbound.find_outbound(&back).map(|policy| &policy.action) {
            Some(Action::Protect(Some(sa))) => sa.largest(parsed.header),
            Some(Action::Protect(None) | Action::Bypass | Action::Discard | Action::Trap) | None => usize::MAX,
        };
        mss::clamp(inner, parsed, fits.min(self.shared.device_mtu));
    }

    /// What an authentic packet that advanced the window tells about the peer.
    fn note(&self, sa: &Sa, arrival: &Arrival) {
        if !sa.hot.is(Once::FirstUse) && sa.hot.first(Once::FirstUse) {
            self.shared.reports.event(Event::InboundFirstUse { sa: sa.handle });
        }
        match (arrival.form, sa.path.encapsulation) {
            (Form::Native, None) => {}
            (Form::Udp { .. }, Some(ports)) => {
                let known = arrival.remote.ip() == sa.path.remote && arrival.remote.port() == ports.remote_port;
                if !known && sa.hot.remote_changed(self.hasher.hash_one(arrival.remote)) {
                    self.shared.reports.event(Event::MappingChange { sa: sa.handle, remote: arrival.remote });
                }
            }
            (Form::Native, Some(_)) | (Form::Udp { .. }, None) => {
                if sa.hot.first(Once::Form) {
                    let encapsulation = match arrival.form {
                        Form::Native => None,
                        Form::Udp { local_port } => {
                            Some(UdpEncapsulation { local_port, remote_port: arrival.remote.port() })
                        }
                    };
                    self.shared.reports.event(Event::PeerForm { sa: sa.handle, encapsulation });
                }
            }
        }
    }
}

/// The inner packet without traffic flow confidentiality padding (RFC 4303 §2.7).
fn inner_packet(payload: &mut [u8], next: u8) -> Result<(Packet, &mut [u8]), Reason> {
    let parsed = packet::parse(payload).map_err(|_| Reason::MalformedPayload)?;
    let expected = if parsed.selectors.source.is_ipv4() { next_header::IPV4 } else { next_header::IPV6 };
    if next != expected {
        return Err(Reason::MalformedPayload);
    }
    let inner = payload.get_mut(..parsed.length).ok_or(Reason::MalformedPayload)?;
    Ok((parsed, inner))
}

//= RFC 3948 §3.1.1: the inner source must be one that the SPD allows on this SA
/// The packet of transport mode with its header again, in the first octets of `spare`.
fn whole_packet<'a>(
    sa: &Sa,
    arrival: &Arrival,
    payload: &[u8],
    next: u8,
    spare: &mut &'a mut [u8],
) -> Result<(Packet, &'a mut [u8]), Reason> {
    let came = Came {
        source: arrival.remote.ip(),
        destination: arrival.local.unwrap_or(sa.path.local),
        hops: arrival.hops,
        class: arrival.class,
    };
    let length = transport::rebuild(&came, next, payload, spare).ok_or(Reason::MalformedPayload)?;
    let (inner, rest) = std::mem::take(spare).split_at_mut_checked(length).ok_or(Reason::MalformedPayload)?;
    *spare = rest;
    let parsed = packet::parse(inner).map_err(|_| Reason::MalformedPayload)?;
    // ESP encloses whole packets (RFC 4303 §3.3.4): a fragment inside is nothing that a sender makes.
    if parsed.fragment {
        return Err(Reason::MalformedPayload);
    }
    if let Some(view) = &sa.peer_view {
        transport::translate(inner, &parsed, &came, view);
    }
    Ok((parsed, inner))
}

/// Whether the packet is one the SA was negotiated for (RFC 4301 §5.2 step 4).
fn check(tables: &Tables, sa: &Sa, parsed: &Packet) -> Result<(), Reason> {
    if !sa.selectors.iter().any(|selectors| selectors.matches_inbound(&parsed.selectors)) {
        let ports = |pair: &ipsec::SelectorPair| pair.local.needs_ports() || pair.remote.needs_ports();
        return Err(if parsed.fragment && sa.selectors.iter().any(ports) {
            Reason::FragmentWithPorts
        } else {
            Reason::SelectorMismatch
        });
    }
    let discarded = tables.inbound_discards
        && tables
            .inbound_policies
            .find_inbound(&parsed.selectors)
            .is_some_and(|policy| matches!(policy.action, Action::Discard));
    if discarded { Err(Reason::Discard) } else { Ok(()) }
}
