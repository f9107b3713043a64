//! From the outer side to the protected one.

use std::net::SocketAddr;

use super::datapath::State;
use super::esp;
use super::fault::Fault;
use super::ip::{self, Packet};
use super::sad::Sa;
use crate::backend::Event;
use crate::conformance::{Fate, OuterContent, OuterPacket};
use crate::handle::SaHandle;
use crate::policy::PolicyAction;
use crate::sa::{Direction, SaMode, UdpEncapsulation};

impl State {
    /// A packet of the outer side.
    pub(super) fn take_outer(&mut self, packet: &OuterPacket) {
        let came = match &packet.content {
            OuterContent::Esp(octets) | OuterContent::EspInUdp(octets) => self.esp(packet, octets),
            OuterContent::Clear(octets) => self.clear(octets),
        };
        match came {
            Ok(Some(inner)) => self.delivered.push(inner),
            Ok(None) => {}
            Err(reason) => self.drop_packet(reason),
        }
    }

    fn clear(&self, octets: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let parsed = ip::parse(octets).ok_or("malformed")?;
        match self.arriving(&parsed) {
            Fate::Clear => Ok(Some(octets.to_vec())),
            Fate::Datapath | Fate::Blocked => Err("clear"),
        }
    }

    fn esp(&mut self, arrival: &OuterPacket, octets: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let (spi, low) = esp::header(octets).ok_or("malformed-esp")?;
        let handle = self.inbound_sa(spi).ok_or("unknown-spi")?;
        let sa = self.books.sas.get(&handle).ok_or("unknown-spi")?;
        if sa.hard.is_some() && !self.is(Fault::PassesAfterHardLimit) {
            self.count_refused(handle);
            return Err("expired");
        }
        if self.is(Fault::BelievesAnyone) {
            self.note(handle, arrival);
        }
        let sa = self.books.sas.get(&handle).ok_or("unknown-spi")?;
        let extended = if self.is(Fault::GuessesHighHalf) { sa.extend_badly(low) } else { sa.extend(low) };
        let number = extended.filter(|number| sa.accepts(*number) || self.is(Fault::NoReplayCheck));
        let Some(number) = number else {
            self.count_refused(handle);
            return Err("replay");
        };
        let (next, payload) = esp::open(&sa.spec.key, number, octets).ok_or("integrity")?;
        if self.books.sas.get_mut(&handle).is_some_and(|sa| sa.advance(number)) {
            self.note(handle, arrival);
        }
        let counted = payload.len();
        let sa = self.books.sas.get(&handle).ok_or("unknown-spi")?;
        let translates = !self.is(Fault::LeavesChecksums);
        let (parsed, inner) = decapsulate(sa, arrival, next, payload, translates).ok_or("malformed-payload")?;
        if let Err(reason) = self.check(sa, &parsed) {
            self.count_refused(handle);
            return Err(reason);
        }
        let now = self.now;
        let events = self.books.sas.get_mut(&handle).map(|sa| sa.book(counted, now)).unwrap_or_default();
        events.into_iter().for_each(|event| self.report(event));
        Ok(Some(inner))
    }

    /// Tells what an authentic packet that advanced the window says about the peer.
    fn note(&mut self, handle: SaHandle, arrival: &OuterPacket) {
        let again = self.is(Fault::TellsEveryUse);
        let Some(sa) = self.books.sas.get_mut(&handle) else { return };
        sa.used &= !again;
        let events = note(sa, arrival);
        events.into_iter().for_each(|event| self.report(event));
    }

    fn count_refused(&mut self, sa: SaHandle) {
        if self.is(Fault::CountsRefused)
            && let Some(sa) = self.books.sas.get_mut(&sa)
        {
            sa.packets += 1;
        }
    }

    /// The inbound SA of a whole SPI.
    fn inbound_sa(&self, spi: u32) -> Option<SaHandle> {
        let mask = if self.is(Fault::ComparesLowSpi) { 0x00ff_ffff } else { u32::MAX };
        let same = |sa: &&Sa| sa.spec.direction == Direction::Inbound && (sa.spec.spi.get() ^ spi) & mask == 0;
        self.books.sas.values().find(same).map(|sa| sa.spec.handle)
    }

    // RFC 4301 §5.2: step 4, the packet is held against the selectors of its SA
    fn check(&self, sa: &Sa, packet: &Packet) -> Result<(), &'static str> {
        let selectors = packet.selectors;
        let ports = sa.spec.selectors.iter().any(|pair| pair.local.needs_ports() || pair.remote.needs_ports());
        if packet.is_fragment() && ports && self.is(Fault::PassesFragments) {
            return Ok(());
        }
        let inside = sa.spec.selectors.iter().any(|pair| pair.matches_inbound(&selectors));
        if !inside && !self.is(Fault::IgnoresSelectors) {
            return Err(if packet.is_fragment() && ports { "fragment-with-ports" } else { "selector-mismatch" });
        }
        if self.is(Fault::IgnoresInboundPolicies) {
            return Ok(());
        }
        let decides = self.decides(Direction::Inbound, |policy| policy.spec.selectors.matches_inbound(&selectors));
        match decides.map(|policy| &policy.spec.action) {
            Some(PolicyAction::Discard) => Err("discard"),
            Some(PolicyAction::Protect { .. } | PolicyAction::Bypass | PolicyAction::Trap { .. }) | None => Ok(()),
        }
    }
}

/// What an authentic packet that advanced the window tells about the peer.
fn note(sa: &mut Sa, arrival: &OuterPacket) -> Vec<Event> {
    let handle = sa.spec.handle;
    let first = !std::mem::replace(&mut sa.used, true);
    let mut events: Vec<Event> = first.then_some(Event::InboundFirstUse { sa: handle }).into_iter().collect();
    let form = match arrival.content {
        OuterContent::EspInUdp(_) => {
            Some(UdpEncapsulation { local_port: arrival.destination.port(), remote_port: arrival.source.port() })
        }
        OuterContent::Esp(_) | OuterContent::Clear(_) => None,
    };
    match (form, sa.spec.encapsulation) {
        (None, None) => {}
        (Some(_), Some(udp)) => {
            let known = SocketAddr::new(sa.spec.outer.remote, udp.remote_port);
            if arrival.source != known && sa.remote_told.replace(arrival.source) != Some(arrival.source) {
                events.push(Event::MappingChange { sa: handle, remote: arrival.source });
            }
        }
        (Some(_), None) | (None, Some(_)) => {
            if !std::mem::replace(&mut sa.form_told, true) {
                events.push(Event::PeerForm { sa: handle, encapsulation: form });
            }
        }
    }
    events
}

/// The packet that ESP enclosed.
fn decapsulate(
    sa: &Sa,
    arrival: &OuterPacket,
    next: u8,
    mut payload: Vec<u8>,
    translates: bool,
) -> Option<(Packet, Vec<u8>)> {
    let inner = match sa.spec.mode {
        SaMode::Tunnel => payload,
        SaMode::Transport => {
            let now = [arrival.source.ip(), arrival.destination.ip()];
            if let Some(view) = sa.spec.peer_view.filter(|_| translates) {
                ip::translate(next, &mut payload, [view.remote, view.local], now);
            }
            let [source, destination] = now;
            ip::whole(source, destination, next, &payload)
        }
    };
    let parsed = ip::parse(&inner)?;
    let expected = if parsed.is_v4() { esp::IPV4 } else { esp::IPV6 };
    (sa.spec.mode == SaMode::Transport || next == expected).then_some((parsed, inner))
}
