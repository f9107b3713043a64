//! The devices there are: the kernel itself, which carries in software what leaves by any link, and each link whose driver does ESP.
//!
//! The kernel is device 0 and always up. A link that does no ESP is no device of its own: what leaves by it is carried by the kernel, and goes on when
//! routes lead elsewhere. A link that does has the rungs that trying has shown ([`crate::probe`]), and software below them; it is asked again
//! whenever it comes up, and everything in it is taken as lost when it goes down, as the kernel does (it says nothing about that).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipsec::carry::Holder;
use ipsec::{
    Capabilities, Device, DeviceId, DeviceState, DeviceTable, Direction, Event, ModeInUse, OffloadError, OffloadMode,
    PolicyHandle, PolicySpec, Rung, SaHandle, SaSpec,
};
use offload_host::devices::{Link, LinkChange, LinkKind};

use super::apply::Work;
use super::{Control, Due};
use crate::kernel::NAME;
use crate::probe;

/// Number of the loopback link in every network namespace.
const LOOPBACK: u32 = 1;
/// Shortest time between two looks at where packets leave.
const REROUTE: Duration = Duration::from_millis(50);

/// How much a rung holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    sas: u32,
    policies: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Devices {
    table: DeviceTable,
    /// The link of each.
    links: Vec<Option<Link>>,
    held: BTreeMap<(DeviceId, OffloadMode), Held>,
    /// Links beside whose policies our IKE passes.
    bypassed: BTreeSet<u32>,
}

impl Devices {
    fn add(&mut self, name: Arc<str>, link: Option<Link>, state: DeviceState, rungs: Vec<Rung>) -> DeviceId {
        let id = DeviceId(u16::try_from(self.links.len()).unwrap_or(u16::MAX));
        self.table.devices.push(Device { id, name, state, rungs });
        self.links.push(link);
        id
    }

    /// A device by its number.
    pub(super) fn get(&self, id: DeviceId) -> Result<&Device, OffloadError> {
        self.table.get(id).ok_or_else(|| OffloadError::Missing(format!("device {}", id.0)))
    }

    /// The link that a device is.
    pub(super) fn link(&self, id: DeviceId) -> Option<&Link> {
        self.links.get(usize::from(id.0)).and_then(Option::as_ref)
    }

    /// The device that a link is.
    fn of_link(&self, index: u32) -> Option<DeviceId> {
        let present = self.table.devices.iter().filter(|device| device.state != DeviceState::Gone);
        present.map(|device| device.id).find(|id| self.link(*id).is_some_and(|link| link.index == index))
    }

    /// What the kernel carries in software.
    pub(super) fn software(&self) -> Option<&Capabilities> {
        self.table.devices.first()?.rung(OffloadMode::No).map(|rung| &rung.capabilities)
    }

    /// The rung of a device that holds what is in `mode`.
    pub(super) fn holder(&self, id: DeviceId, mode: OffloadMode) -> Result<Holder<'_>, OffloadError> {
        let device = self.get(id)?;
        if mode == OffloadMode::Auto {
            return Err(OffloadError::Invalid("which offload is tried first is not for a device to say".into()));
        }
        let held = self.held.get(&(id, mode)).copied().unwrap_or_default();
        match device.rung(mode) {
            Some(rung) => Ok(Holder { device, rung, software: "the kernel", sas: held.sas, policies: held.policies }),
            None => Err(lacking(device, mode)),
        }
    }

    /// The rung that takes an SA.
    pub(super) fn place_sa(&self, spec: &SaSpec) -> Result<Holder<'_>, OffloadError> {
        let holder = self.holder(spec.device, spec.offload)?;
        holder.take_sa(spec)?;
        Ok(holder)
    }

    /// Refuses a policy that its rung does not take. `old` is the one that it takes the place of.
    pub(super) fn place_policy(&self, spec: &PolicySpec, old: Option<&PolicySpec>) -> Result<(), OffloadError> {
        let mut holder = self.holder(spec.device, spec.offload)?;
        let replaced = old.is_some_and(|old| (old.device, old.offload) == (spec.device, spec.offload));
        holder.policies = holder.policies.saturating_sub(u32::from(replaced));
        holder.take_policy(spec)
    }

    /// How what is held in `mode` is told.
    pub(super) fn mode_in_use(&self, id: DeviceId, mode: OffloadMode) -> ModeInUse {
        self.table.get(id).and_then(|device| device.rung(mode)).map_or(ModeInUse::SOFTWARE, |rung| rung.mode.clone())
    }

    /// An SA came, or went.
    pub(super) fn count_sa(&mut self, id: DeviceId, mode: OffloadMode, came: bool) {
        let held = self.held.entry((id, mode)).or_default();
        held.sas = if came { held.sas.saturating_add(1) } else { held.sas.saturating_sub(1) };
    }

    /// A policy came, or went.
    pub(super) fn count_policy(&mut self, spec: &PolicySpec, came: bool) {
        // What is forwarded is looked up in software always.
        let rung = if spec.direction == Direction::Forward { OffloadMode::No } else { spec.offload };
        let held = self.held.entry((spec.device, rung)).or_default();
        held.policies = if came { held.policies.saturating_add(1) } else { held.policies.saturating_sub(1) };
    }

    fn publish(&self, shared: &super::Shared) {
        let present = self.table.devices.iter().filter(|device| device.state != DeviceState::Gone);
        let by_link = present.filter_map(|device| Some((self.link(device.id)?.index, device.id))).collect();
        shared.devices.store(Arc::new(self.table.clone()));
        shared.by_link.store(Arc::new(by_link));
    }
}

/// Why a device without the rung that is asked for does not do.
fn lacking(device: &Device, wanted: OffloadMode) -> OffloadError {
    let what = match wanted {
        OffloadMode::Packet => "packet offload",
        OffloadMode::Crypto => "crypto offload",
        OffloadMode::No | OffloadMode::Auto => "an SA",
    };
    let offloads = device.rungs.iter().filter(|rung| rung.mode.mode != OffloadMode::No).map(|rung| rung.mode.mode);
    let reason = match offloads.collect::<Vec<_>>().as_slice() {
        [] => {
            "traffic leaves through a VLAN or a bond, or by a link whose driver does no ESP or has it off (ethtool -k: esp-hw-offload)"
        }
        [OffloadMode::Packet] => "its driver does packet offload, or nothing",
        _ => "its driver does crypto offload, or nothing",
    };
    OffloadError::Unsupported { device: Arc::clone(&device.name), what: what.into(), reason: reason.into() }
}

impl Control {
    /// Finds out what the kernel does in software.
    pub(super) fn find_software(&mut self) {
        let found = probe::software(&mut *self.xfrm);
        if let Some(lacks) = &found.lacks {
            tracing::warn!("no SA can be installed: {lacks}");
        }
        self.shared.lacks.store(Arc::new(found.lacks));
        let rung = Rung { mode: ModeInUse::SOFTWARE, capabilities: found.capabilities };
        self.devices.add(NAME.into(), None, DeviceState::Up, vec![rung]);
        self.devices.publish(&self.shared);
    }

    /// Takes in what became of a link.
    pub(crate) fn link_changed(&mut self, change: &LinkChange) {
        match change {
            LinkChange::Added(link) => self.link_added(link, true),
            LinkChange::Up(link) => match self.devices.of_link(link.index) {
                Some(device) => self.device_up(device, link),
                None => self.link_added(link, true),
            },
            LinkChange::Down(link) => self.device_lost(link, DeviceState::Down),
            LinkChange::Gone { link, .. } => self.device_lost(link, DeviceState::Gone),
            // What a device holds stays while its medium is away.
            LinkChange::Carrier(_) => {}
            LinkChange::Renamed { link, .. } => self.link_renamed(link),
            LinkChange::Rerouted => {}
            LinkChange::Resynchronised => {
                // A device may have lost what it held unseen, bypasses too.
                self.devices.bypassed.clear();
                self.resynchronise();
            }
        }
        self.ways_changed();
    }

    /// Where packets leave is looked at soon, and not more often than that however often routes change.
    fn ways_changed(&mut self) {
        if !std::mem::replace(&mut self.rerouted, true) {
            let at = self.now().max(self.routes_followed + REROUTE);
            self.schedule(at, Due::Routes);
        }
    }

    /// An SA that a device holds works for packets that leave by that device. Some kernels hand packets that leave by another one to it as they
    /// are: in clear. So the policies of an SA whose way leads elsewhere block, until the way comes back or the SA is replaced.
    pub(super) fn follow_routes(&mut self) {
        self.rerouted = false;
        self.routes_followed = self.now();
        for handle in self.sas.offloaded_outbound() {
            let Some(sa) = self.sas.get_mut(handle) else { continue };
            let link = self.devices.link(sa.device).map(|link| link.index);
            let astray = (self.egress)(sa.outer.local, sa.outer.remote) != link;
            if std::mem::replace(&mut sa.astray, astray) != astray {
                tracing::warn!(spi = %sa.id.spi, astray, "the way to the peer of an SA in a device has changed");
                self.refresh_users(handle);
            }
        }
    }

    /// A link that was not known, or whose driver had no offload. `report` is false for those that are there from the start.
    pub(super) fn link_added(&mut self, link: &Link, report: bool) {
        let known = self.devices.of_link(link.index).is_some();
        if known || link.kind != LinkKind::End || link.index == LOOPBACK || !(self.esp_feature)(&link.name) {
            return;
        }
        let rungs = if link.up { self.rungs_of(link) } else { self.software_rung() };
        // A feature flag of which nothing is true makes no device; one that is down is asked when it comes up.
        if link.up && rungs.len() < 2 {
            return;
        }
        let state = if link.up { DeviceState::Up } else { DeviceState::Down };
        let device = self.devices.add(Arc::clone(&link.name), Some(link.clone()), state, rungs);
        self.devices.publish(&self.shared);
        if report && link.up {
            self.reports.event(Event::DeviceUp(device));
        }
    }

    fn software_rung(&self) -> Vec<Rung> {
        let capabilities = self.devices.software().cloned();
        capabilities.map(|capabilities| Rung { mode: ModeInUse::SOFTWARE, capabilities }).into_iter().collect()
    }

    fn rungs_of(&mut self, link: &Link) -> Vec<Rung> {
        let mut rungs = Vec::new();
        for mode in [OffloadMode::Packet, OffloadMode::Crypto] {
            let found = probe::device(&mut *self.xfrm, link.index, mode);
            let in_use = ModeInUse { mode, device: Some(Arc::clone(&link.name)), simulated: false };
            rungs.extend(found.map(|capabilities| Rung { mode: in_use, capabilities }));
        }
        rungs.extend(self.software_rung());
        let modes: Vec<OffloadMode> = rungs.iter().map(|rung| rung.mode.mode).collect();
        tracing::info!(link = %link.name, ?modes, "found out what a link's driver does of ESP");
        rungs
    }

    fn device_up(&mut self, id: DeviceId, link: &Link) {
        let rungs = self.rungs_of(link);
        let place = usize::from(id.0);
        let Some(device) = self.devices.table.devices.get_mut(place) else { return };
        if !rungs.is_empty() {
            device.rungs = rungs;
        }
        let news = std::mem::replace(&mut device.state, DeviceState::Up) != DeviceState::Up;
        if let Some(known) = self.devices.links.get_mut(place) {
            *known = Some(link.clone());
        }
        self.devices.publish(&self.shared);
        if news {
            self.reports.event(Event::DeviceUp(id));
        }
    }

    /// All that was offloaded to a link is gone with it; only the event about the device tells of that. What is in software stays.
    fn device_lost(&mut self, link: &Link, new: DeviceState) {
        let Some(id) = self.devices.of_link(link.index) else { return };
        let Some(device) = self.devices.table.devices.get_mut(usize::from(id.0)) else { return };
        if std::mem::replace(&mut device.state, new) == new {
            return;
        }
        self.devices.bypassed.remove(&link.index);
        self.surroundings.device_lost(link.index);
        self.flush_device(id, link.index);
        self.devices.publish(&self.shared);
        self.reports.event(match new {
            DeviceState::Down => Event::DeviceDown(id),
            DeviceState::Gone => Event::DeviceGone(id),
            DeviceState::Up => Event::DeviceUp(id),
        });
    }

    fn flush_device(&mut self, id: DeviceId, link: u32) {
        let sas: Vec<SaHandle> = self.sas.in_device(id).collect();
        let policies: Vec<PolicyHandle> = self.policies.in_device(id).collect();
        // The kernel has taken them out, unless its driver has no offload any more; what has an entry in software with the same selector needs that
        // one now.
        for gone in self.policies.forget_installed(link) {
            if let Err(error) = self.xfrm.delete_policy(&gone.key, gone.index) {
                tracing::error!(policy = %gone.key, %error, "cannot take a policy out of a lost device");
            }
        }
        let mut work = Work::default();
        policies.into_iter().for_each(|policy| self.remove_policy(policy, &mut work));
        sas.into_iter().for_each(|sa| self.remove_sa(sa, &mut work));
        if let Err(error) = self.finish(work) {
            tracing::error!(%error, "cannot take out what a lost device held");
        }
    }

    fn link_renamed(&mut self, link: &Link) {
        let Some(id) = self.devices.of_link(link.index) else { return };
        let place = usize::from(id.0);
        if let Some(device) = self.devices.table.devices.get_mut(place) {
            device.name = Arc::clone(&link.name);
            for rung in device.rungs.iter_mut().filter(|rung| rung.mode.device.is_some()) {
                rung.mode.device = Some(Arc::clone(&link.name));
            }
        }
        if let Some(known) = self.devices.links.get_mut(place) {
            *known = Some(link.clone());
        }
        self.devices.publish(&self.shared);
    }

    /// Our IKE passes beside the policies of a device before the first of them stands.
    pub(super) fn bypass_ike(&mut self, id: DeviceId) -> Result<(), OffloadError> {
        let Some(link) = self.devices.link(id).cloned() else { return Ok(()) };
        if self.devices.bypassed.insert(link.index)
            && let Err(error) = self.surroundings.bypass_ike(&link)
        {
            self.devices.bypassed.remove(&link.index);
            return Err(error);
        }
        Ok(())
    }
}
