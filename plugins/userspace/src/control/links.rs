//! Links of the machine that pose as devices, and the routes that choose among them.
//!
//! An SA that a NIC holds works for packets that leave by that NIC. Where the route to the peer leads out of another one, they are dropped and counted
//! (`wrong-device`) until the SA is replaced or the route comes back; the flag that says so is set here, so that packets look at nothing more
//! than whether their SA has ended.

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::{DeviceId, DeviceState, Direction, Event, OffloadMode};
use offload_host::devices::{Link, LinkChange, LinkKind};

use super::{Control, Egress, State};
use crate::sad::Sa;

/// Number of the loopback link in every network namespace.
const LOOPBACK: u32 = 1;
/// Kinds of links that pose as NICs: hardware, and what tests have instead.
const KINDS: [&str; 3] = ["", "veth", "dummy"];

impl Control {
    /// From now on links that are told to [`Self::link_changed`] pose as devices, chosen by `egress`.
    pub fn follow_links(&self, egress: Egress) {
        if self.egress.set(egress).is_err() {
            tracing::error!("links are followed already");
        }
    }

    /// The device that carries what is between two outer addresses: the link that packets leave by, or our own, which carries everything in software.
    pub fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId> {
        match self.egress.get() {
            Some(egress) => {
                let link = egress(local, remote).and_then(|index| self.by_index.load().get(&index).copied());
                Some(link.unwrap_or_default())
            }
            None => {
                let devices = self.devices.load();
                devices.devices.iter().rev().find(|device| device.state != DeviceState::Gone).map(|device| device.id)
            }
        }
    }

    /// Takes in what became of a link. `report` is false for those that are there from the start.
    pub fn link_changed(&self, change: &LinkChange, report: bool) {
        match change {
            LinkChange::Added(link) => self.link_added(link, report),
            LinkChange::Up(link) => self.link_state(link, DeviceState::Up),
            LinkChange::Down(link) => self.link_state(link, DeviceState::Down),
            LinkChange::Gone { link, .. } => self.link_state(link, DeviceState::Gone),
            // What a NIC holds stays while its medium is away.
            LinkChange::Carrier(_) => {}
            LinkChange::Renamed { link, .. } => self.link_renamed(link),
            // See below.
            LinkChange::Rerouted => {}
            LinkChange::Resynchronised => self.shared.reports.event(Event::Resync),
        }
        self.follow_routes(&self.lock());
    }

    fn link_added(&self, link: &Link, report: bool) {
        let poses = link.kind == LinkKind::End && link.index != LOOPBACK && KINDS.contains(&&*link.kind_name);
        if !poses || *link.name == *self.identity.device || self.by_index.load().contains_key(&link.index) {
            return;
        }
        let state = if link.up { DeviceState::Up } else { DeviceState::Down };
        self.add_nic(&link.name, Some(link.index), state, report);
    }

    fn link_state(&self, link: &Link, state: DeviceState) {
        let device = self.by_index.load().get(&link.index).copied();
        match device {
            Some(device) => {
                self.set_device(device, state);
            }
            None if state != DeviceState::Gone => self.link_added(link, true),
            None => {}
        }
    }

    fn link_renamed(&self, link: &Link) {
        let device = self.by_index.load().get(&link.index).copied();
        if let (Some(device), Some(simulation)) = (device, &self.identity.simulation) {
            let mut state = self.lock();
            state.devices.rename(device, &link.name, &simulation.limits);
            self.publish_devices(&state);
        }
    }

    pub(super) fn publish_devices(&self, state: &State) {
        self.devices.store(Arc::new(state.devices.table().clone()));
        self.by_index.store(Arc::new(state.devices.by_index()));
    }

    /// Looks for each SA in a NIC whether the route to its peer leads out of that NIC.
    pub(super) fn follow_routes(&self, state: &State) {
        if self.egress.get().is_some() {
            state.sas.values().for_each(|sa| self.follow_route(sa));
        }
    }

    pub(super) fn follow_route(&self, sa: &Sa) {
        let in_nic = sa.direction == Direction::Outbound && sa.mode.mode == OffloadMode::Packet;
        if !in_nic || self.egress.get().is_none() {
            return;
        }
        let astray = self.device_for(sa.path.local, sa.path.remote) != Some(sa.device);
        if sa.hot.set_astray(astray) {
            tracing::warn!(child = %sa.name, spi = %sa.spi, astray, "the route to the peer of an SA in a device has changed");
        }
    }
}
