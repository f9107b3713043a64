//! Devices of the gateways of a world: down, up, removed, tampered with, and which one the ways lead through.

use std::time::Duration;

use ipsec::recording::Tables;
use ipsec::{DeviceId, DeviceState, Event, Shard};

use super::World;
use crate::Who;
use crate::gateway::Message;

impl World {
    /// A device of a gateway goes down, comes up or is removed; its backend tells so. What it held is lost without a word.
    pub fn set_device(&mut self, who: Who, device: DeviceId, to: DeviceState) {
        self.oracle.borrow_mut().unsettled(who);
        self.oracle.borrow_mut().shaken(who);
        self.gateways[who].backend.set_device(device, to);
        let event = match to {
            DeviceState::Up => Event::DeviceUp(device),
            DeviceState::Down => Event::DeviceDown(device),
            DeviceState::Gone => Event::DeviceGone(device),
        };
        self.backend_event(who, event);
    }

    /// Ways of a gateway lead through another device, or through none; it is told that routes have changed.
    pub fn lead_through(&mut self, who: Who, device: Option<DeviceId>) {
        self.gateways[who].backend.lead_through(device);
        self.oracle.borrow_mut().commanded(who);
        let addresses = self.gateways[who].addresses.clone();
        for shard in (0..self.gateways[who].shard_count()).map(Shard) {
            self.gateways[who].inbox.push_back((shard, Message::Network(addresses.clone())));
        }
        self.settle(who);
    }

    /// Somebody else changes the tables of a gateway's backend. Nobody is told.
    pub fn tamper(&mut self, who: Who, change: impl FnOnce(&mut Tables)) {
        self.oracle.borrow_mut().unsettled(who);
        self.oracle.borrow_mut().shaken(who);
        self.gateways[who].backend.tamper(change);
    }

    /// From now on a gateway compares so often what its backend holds with what it should.
    pub fn check_regularly(&mut self, who: Who, every: Duration) {
        self.gateways[who].config.settings.check_interval = every;
        self.reload(who, &[], &[]);
    }
}
