//! From the protected side to the outer one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::datapath::State;
use super::esp;
use super::fault::Fault;
use super::ip::{self, Packet};
use super::sad::Sa;
use crate::algorithm::EspAlgorithm;
use crate::backend::{Event, LimitUnit};
use crate::conformance::{OuterContent, OuterPacket};
use crate::handle::{PolicyHandle, SaHandle};
use crate::policy::PolicyAction;
use crate::sa::{Direction, OuterAddresses, SaMode};
use crate::time::Instant;

const PATH_MTU: usize = 1500;
const UDP_HEADER: usize = 8;
const IPV6_MINIMUM_MTU: usize = 1280;
/// Packets that wait for one SA.
const HOLD_PACKETS: usize = 64;
/// How long an acquire is outstanding, and a packet waits.
const HOLD_AGE: Duration = Duration::from_secs(30);

/// What waits at a trap.
pub(super) struct Held {
    raised: Instant,
    serial: u64,
    packets: Vec<(Instant, Vec<u8>)>,
}

/// A datagram of which fragments are missing.
pub(super) struct Partial {
    of: (IpAddr, IpAddr, u8, u16),
    octets: Vec<u8>,
    header: usize,
}

impl State {
    /// A packet of the protected side.
    pub(super) fn take_inner(&mut self, octets: &[u8]) {
        self.outbound(octets, self.now, false);
    }

    /// Sends what waits and has an SA now.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        let waiting: Vec<_> = self.holds.values_mut().flat_map(|held| std::mem::take(&mut held.packets)).collect();
        for (since, octets) in waiting {
            if now.saturating_since(since) < HOLD_AGE {
                self.outbound(&octets, since, false);
            } else {
                self.drop_packet("hold-aged");
            }
        }
    }

    fn outbound(&mut self, octets: &[u8], since: Instant, reassembled: bool) {
        let Some(packet) = ip::parse(octets) else { return self.drop_packet("malformed-inner") };
        let octets = octets.get(..packet.length).unwrap_or_default();
        if !packet.is_v4() && self.is(Fault::NoIpv6) {
            return self.drop_packet("ipv6");
        }
        // The host sends its own IKE past the datapath; what comes here anyway gets the same.
        if self.passes_as_ike(&packet, true) {
            return self.send_clear(&packet, octets);
        }
        let selectors = packet.selectors;
        let decides = self.decides(Direction::Outbound, |policy| self.covers(policy, &selectors));
        let Some((policy, sa)) = decides.map(|policy| (policy.spec.handle, policy.sa)) else {
            if self.is(Fault::ClearWithoutPolicy) {
                self.send_clear(&packet, octets);
            }
            return self.drop_packet("no-policy");
        };
        let Some(action) = decides.map(|policy| policy.spec.action.clone()) else { return };
        match (action, sa.and_then(|sa| self.books.sas.get(&sa)).cloned()) {
            (PolicyAction::Protect { .. }, Some(sa)) => {
                self.protect(&sa, &packet, octets, reassembled);
                self.switch_late(policy);
            }
            (PolicyAction::Protect { .. }, None) if self.is(Fault::PlaintextWithoutSa) => {
                self.send_clear(&packet, octets)
            }
            (PolicyAction::Protect { .. }, None) => self.drop_packet("no-outbound-sa"),
            (PolicyAction::Bypass, _) => self.send_clear(&packet, octets),
            (PolicyAction::Discard, _) => self.drop_packet("discard"),
            (PolicyAction::Trap { .. }, _) => self.trap(policy, &packet, octets, since),
        }
    }

    fn switch_late(&mut self, policy: PolicyHandle) {
        if let Some(policy) = self.books.policies.get_mut(&policy) {
            policy.sa = policy.late.take().or(policy.sa);
        }
    }

    fn send_clear(&mut self, packet: &Packet, octets: &[u8]) {
        let [source, destination] =
            [packet.selectors.source, packet.selectors.destination].map(|ip| SocketAddr::new(ip, 0));
        self.sent.push(OuterPacket { source, destination, content: OuterContent::Clear(octets.to_vec()) });
    }

    fn trap(&mut self, policy: PolicyHandle, packet: &Packet, octets: &[u8], since: Instant) {
        let now = self.now;
        let serial = self.books.policies.get(&policy).map_or(0, |policy| policy.serial);
        let mut raise = self.is(Fault::UnboundedAcquires);
        let held = self.holds.entry(policy).or_insert_with(|| {
            raise = true;
            Held { raised: now, serial, packets: Vec::new() }
        });
        if held.serial != serial || now.saturating_since(held.raised) >= HOLD_AGE {
            raise = true;
            (held.raised, held.serial) = (now, serial);
        }
        let kept = held.packets.len() < HOLD_PACKETS;
        if kept {
            held.packets.push((since, octets.to_vec()));
        } else {
            self.drop_packet("hold-full");
        }
        // A packet that already waited raises nothing.
        if raise && since == now {
            self.report(Event::Acquire { policy, packet: packet.selectors });
        }
    }

    fn protect(&mut self, sa: &Sa, packet: &Packet, octets: &[u8], reassembled: bool) {
        match sa.spec.mode {
            SaMode::Tunnel => self.tunnel(sa, packet, octets),
            // RFC 4303 §3.3.4: transport mode is applied to whole packets, never to fragments
            SaMode::Transport if packet.is_fragment() => self.reassemble(packet, octets),
            SaMode::Transport => self.transport(sa, packet, octets, reassembled),
        }
    }

    fn tunnel(&mut self, sa: &Sa, packet: &Packet, octets: &[u8]) {
        let next = if packet.is_v4() { esp::IPV4 } else { esp::IPV6 };
        let fits = esp::room(room_for_esp(sa));
        let mtu = if packet.is_v4() { fits } else { fits.max(IPV6_MINIMUM_MTU) };
        if packet.length <= mtu {
            self.seal(sa.spec.handle, next, octets);
        } else if packet.dont_fragment {
            self.too_big(packet, octets, mtu);
        } else {
            for fragment in ip::fragment(octets, packet, mtu) {
                self.seal(sa.spec.handle, next, &fragment);
            }
        }
    }

    fn transport(&mut self, sa: &Sa, packet: &Packet, octets: &[u8], reassembled: bool) {
        let header = if packet.is_v4() { ip::V4_HEADER } else { ip::V6_HEADER };
        let mtu = header + esp::room(room_for_esp(sa));
        if packet.length > mtu && packet.dont_fragment && !reassembled {
            return self.too_big(packet, octets, mtu);
        }
        self.seal(sa.spec.handle, packet.selectors.protocol, octets.get(packet.header..).unwrap_or_default());
    }

    /// Puts fragments together that come in order.
    fn reassemble(&mut self, packet: &Packet, octets: &[u8]) {
        let selectors = packet.selectors;
        let of = (selectors.source, selectors.destination, selectors.protocol, packet.id);
        let payload = octets.get(packet.header..).unwrap_or_default();
        let mut partial = match self.partial.take() {
            _ if packet.offset == 0 => Partial { of, octets: octets.to_vec(), header: packet.header },
            Some(mut partial) if partial.of == of && partial.octets.len() - partial.header == packet.offset => {
                partial.octets.extend_from_slice(payload);
                partial
            }
            _ => return self.drop_packet("fragment-in-transport"),
        };
        if packet.more {
            self.partial = Some(partial);
        } else {
            let whole = partial.octets.split_off(partial.header);
            let whole = ip::whole(selectors.source, selectors.destination, selectors.protocol, &whole);
            self.outbound(&whole, self.now, true);
        }
    }

    /// Tells the sender, from an address of ours inside the local selector.
    fn too_big(&mut self, packet: &Packet, octets: &[u8], mtu: usize) {
        let decides = self.decides(Direction::Outbound, |policy| self.covers(policy, &packet.selectors));
        let gateway = decides.map(|policy| policy.spec.selectors.local.addresses.start());
        self.drop_packet("too-big");
        if let Some(gateway) = gateway.filter(|_| !self.is(Fault::SilentOversize)) {
            self.delivered.push(ip::too_big(octets, packet, gateway, mtu));
        }
    }

    /// Makes an ESP packet of a payload and sends it.
    fn seal(&mut self, handle: SaHandle, next_header: u8, payload: &[u8]) {
        let (now, fault) = (self.now, self.fault);
        let Some(sa) = self.books.sas.get_mut(&handle) else { return };
        if fault == Some(Fault::WrapsSequence) && sa.sequence >= sa.last_sequence() {
            sa.sequence = 0;
        }
        if fault == Some(Fault::SkipsNumbers) {
            sa.next_sequence();
        }
        let passes = sa.hard.is_none() || fault == Some(Fault::PassesAfterHardLimit);
        let Some(sequence) = passes.then(|| sa.next_sequence()).flatten() else {
            let event = sa.expire(LimitUnit::Packets);
            if fault == Some(Fault::CountsRefused) {
                sa.packets += 1;
            }
            event.into_iter().for_each(|event| self.report(event));
            return self.drop_packet("expired");
        };
        let mut octets = esp::seal(&sa.spec.key, sa.spec.spi.get(), sequence, next_header, payload);
        if fault == Some(Fault::GarblesOthers) && sa.spec.algorithm != EspAlgorithm::AES_256_GCM {
            octets.reverse();
        }
        let events = sa.book(payload.len(), now);
        let OuterAddresses { local, remote } = sa.spec.outer;
        let ports = sa.spec.encapsulation.map(|udp| (udp.local_port, udp.remote_port));
        let (from, to) = ports.unwrap_or((0, 0));
        let content = if ports.is_some() { OuterContent::EspInUdp(octets) } else { OuterContent::Esp(octets) };
        let (source, destination) = (SocketAddr::new(local, from), SocketAddr::new(remote, to));
        self.sent.push(OuterPacket { source, destination, content });
        events.into_iter().for_each(|event| self.report(event));
    }
}

/// Octets of an outer packet that ESP may have.
fn room_for_esp(sa: &Sa) -> usize {
    let header = if sa.spec.outer.remote.is_ipv4() { ip::V4_HEADER } else { ip::V6_HEADER };
    let udp = if sa.spec.encapsulation.is_some() { UDP_HEADER } else { 0 };
    PATH_MTU - header - udp
}
