//! Machines whose addresses change, which sleep, and ESP on its way between them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipsec::{Direction, Event, OuterAddresses, SaHandle, Shard, UdpEncapsulation};

use super::text::letter;
use super::{Due, World};
use crate::Who;
use crate::gateway::Message;
use crate::packets::Packet;

impl World {
    /// A gateway has these addresses from now on, the one that its system prefers first, and is told so.
    pub fn set_addresses(&mut self, who: Who, addresses: &[IpAddr]) {
        self.gateways[who].addresses = addresses.to_vec();
        self.network_changed(who);
    }

    /// A gateway is told that addresses or routes have changed.
    pub fn network_changed(&mut self, who: Who) {
        let addresses = self.gateways[who].addresses.clone();
        self.note(format!("{} <- addresses {addresses:?}", letter(who)));
        for shard in (0..self.gateways[who].shard_count()).map(Shard) {
            self.gateways[who].inbox.push_back((shard, Message::Network(addresses.clone())));
        }
        self.settle(who);
    }

    /// A gateway's machine sleeps: it hears and does nothing, and everything timed is due when it wakes.
    pub fn suspend(&mut self, who: Who, span: Duration) {
        self.note(format!("{} falls asleep", letter(who)));
        self.gateways[who].asleep = true;
        self.oracle.borrow_mut().unsettled(who);
        self.schedule(self.now + span, Due::Wake(who, span));
    }

    pub(super) fn wake(&mut self, who: Who, asleep: Duration) {
        self.note(format!("{} wakes", letter(who)));
        self.gateways[who].asleep = false;
        for shard in (0..self.gateways[who].shard_count()).map(Shard) {
            self.gateways[who].inbox.push_back((shard, Message::Resumed(asleep)));
        }
        self.settle(who);
    }

    /// Where a packet of an SA with these outer addresses arrives, and what it looks like there; `None` when it is lost.
    pub(super) fn route_packet(
        &mut self,
        who: Who,
        outer: OuterAddresses,
        encapsulation: Option<UdpEncapsulation>,
        mut packet: Packet,
    ) -> Option<(Who, Packet)> {
        let sender = &mut self.gateways[who];
        if !sender.addresses.contains(&outer.local) || self.link.dead.contains(&(outer.local, outer.remote)) {
            return None;
        }
        let translated = sender.nat.as_ref().is_some_and(|nat| nat.translates(outer.local));
        let to = match encapsulation {
            Some(udp) => {
                let source = SocketAddr::new(outer.local, udp.local_port);
                packet.source = Some(sender.nat.as_mut().map_or(source, |nat| nat.outward(source)));
                let destination = SocketAddr::new(outer.remote, udp.remote_port);
                self.gateways.iter().position(|gateway| gateway.arrival(destination).is_some())
            }
            // A translator knows ports only.
            None if translated => None,
            None => {
                self.gateways.iter().position(|gateway| gateway.arrival(SocketAddr::new(outer.remote, 0)).is_some())
            }
        };
        to.filter(|to| !self.link.cut.contains(&(who, *to))).map(|to| (to, packet))
    }

    /// As a backend does: tells once of each other source that an authentic packet came from.
    pub(super) fn notice_mapping(&mut self, to: Who, sa: SaHandle, packet: &Packet) {
        let Some(source) = packet.source else { return };
        let known = self.gateways[to].with_tables(|tables| {
            let spec = tables.sas.get(&sa).filter(|spec| spec.direction == Direction::Inbound)?;
            Some(SocketAddr::new(spec.outer.remote, spec.encapsulation?.remote_port))
        });
        if known.is_none_or(|known| known == source) {
            self.mappings.remove(&(to, sa));
        } else if self.mappings.insert((to, sa), source) != Some(source) {
            self.backend_event(to, Event::MappingChange { sa, remote: source });
        }
    }
}
