//! The devices there are, how full each of their rungs is, and which of them is up.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipsec::{
    Device, DeviceId, DeviceState, DeviceTable, Direction, ModeInUse, OffloadError, OffloadMode, PolicySpec, SaSpec,
};

use super::{NicLimits, Simulation};
use ipsec::carry::Holder;

/// How much a rung holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    sas: u32,
    policies: u32,
}

/// What a device is or poses as.
#[derive(Debug)]
struct Link {
    name: Arc<str>,
    /// Its number, of a link of the machine.
    index: Option<u32>,
}

/// All devices with their books.
#[derive(Debug)]
pub(crate) struct Devices {
    table: DeviceTable,
    /// The link that each is or poses as.
    links: Vec<Link>,
    /// Rungs that hold something.
    held: BTreeMap<(DeviceId, OffloadMode), Held>,
}

impl Devices {
    /// The tunnel device called `link`, which poses as a NIC unless the machine's links do.
    pub(crate) fn new(link: &Arc<str>, simulation: Option<&Simulation>) -> Self {
        let mut devices = Self { table: DeviceTable::default(), links: Vec::new(), held: BTreeMap::new() };
        let nic = simulation.filter(|simulation| !simulation.each_link).map(|simulation| &simulation.limits);
        devices.add(link, None, nic);
        devices
    }

    /// A further device. Numbers are not used again: what is gone stays listed.
    pub(crate) fn add(&mut self, link: &Arc<str>, index: Option<u32>, nic: Option<&NicLimits>) -> DeviceId {
        let id = DeviceId(u16::try_from(self.links.len()).unwrap_or(u16::MAX));
        self.table.devices.push(super::device(id, link, nic));
        self.links.push(Link { name: Arc::clone(link), index });
        id
    }

    /// The link of a simulated NIC is called otherwise now.
    pub(crate) fn rename(&mut self, id: DeviceId, name: &Arc<str>, nic: &NicLimits) {
        let place = usize::from(id.0);
        if let (Some(link), Some(device)) = (self.links.get_mut(place), self.table.devices.get_mut(place)) {
            link.name = Arc::clone(name);
            *device = Device { state: device.state, ..super::device(id, name, Some(nic)) };
        }
    }

    /// Devices that are not gone, by the number of their link.
    pub(crate) fn by_index(&self) -> BTreeMap<u32, DeviceId> {
        let present = self.table.devices.iter().filter(|device| device.state != DeviceState::Gone);
        present.filter_map(|device| Some((self.links.get(usize::from(device.id.0))?.index?, device.id))).collect()
    }

    /// Number of the link that a device poses as.
    pub(crate) fn index(&self, id: DeviceId) -> Option<u32> {
        self.links.get(usize::from(id.0)).and_then(|link| link.index)
    }

    /// What is there, as others see it.
    pub(crate) fn table(&self) -> &DeviceTable {
        &self.table
    }

    /// A device by its number.
    pub(crate) fn get(&self, id: DeviceId) -> Result<&Device, OffloadError> {
        self.table.get(id).ok_or_else(|| OffloadError::Missing(format!("device {}", id.0)))
    }

    /// Name of the link that a device is or poses as.
    pub(crate) fn link(&self, id: DeviceId) -> Option<&str> {
        self.links.get(usize::from(id.0)).map(|link| &*link.name)
    }

    /// Notes whether a device is up; says whether that is news.
    pub(crate) fn set_state(&mut self, id: DeviceId, state: DeviceState) -> bool {
        let Some(device) = self.table.devices.iter_mut().find(|device| device.id == id) else { return false };
        std::mem::replace(&mut device.state, state) != state
    }

    /// The rung of a device that holds what is in `mode`.
    pub(crate) fn holder(&self, id: DeviceId, mode: OffloadMode) -> Result<Holder<'_>, OffloadError> {
        let device = self.get(id)?;
        if mode == OffloadMode::Auto {
            return Err(OffloadError::Invalid("which offload is tried first is not for a device to say".into()));
        }
        let held = self.held.get(&(id, mode)).copied().unwrap_or_default();
        match device.rung(mode) {
            Some(rung) => Ok(Holder { device, rung, software: "the datapath", sas: held.sas, policies: held.policies }),
            None => Err(lacking(device, mode)),
        }
    }

    /// The rung that takes an SA.
    pub(crate) fn place_sa(&self, spec: &SaSpec) -> Result<Holder<'_>, OffloadError> {
        let holder = self.holder(spec.device, spec.offload)?;
        holder.take_sa(spec)?;
        Ok(holder)
    }

    /// The mode in which a policy will be held. `old` is the one that it takes the place of.
    pub(crate) fn place_policy(
        &self,
        spec: &PolicySpec,
        old: Option<&PolicySpec>,
    ) -> Result<OffloadMode, OffloadError> {
        let mut holder = self.holder(spec.device, spec.offload)?;
        let replaced = old.is_some_and(|old| (old.device, old.offload) == (spec.device, spec.offload));
        holder.policies = holder.policies.saturating_sub(u32::from(replaced));
        holder.take_policy(spec)?;
        // Only packet offload looks policies up in the device, and no device those of what is forwarded.
        let in_device = spec.offload == OffloadMode::Packet && spec.direction != Direction::Forward;
        Ok(if in_device { OffloadMode::Packet } else { OffloadMode::No })
    }

    /// How a policy that is held in `mode` is told.
    pub(crate) fn mode_of_policy(&self, id: DeviceId, mode: OffloadMode) -> ModeInUse {
        self.table.get(id).and_then(|device| device.rung(mode)).map_or(ModeInUse::SOFTWARE, |rung| rung.mode.clone())
    }

    /// An SA came, or went.
    pub(crate) fn count_sa(&mut self, id: DeviceId, mode: OffloadMode, came: bool) {
        let held = self.held.entry((id, mode)).or_default();
        held.sas = if came { held.sas.saturating_add(1) } else { held.sas.saturating_sub(1) };
    }

    /// A policy came, or went.
    pub(crate) fn count_policy(&mut self, id: DeviceId, mode: OffloadMode, came: bool) {
        let held = self.held.entry((id, mode)).or_default();
        held.policies = if came { held.policies.saturating_add(1) } else { held.policies.saturating_sub(1) };
    }
}

/// Why a device without the rung that is asked for does not do.
fn lacking(device: &Device, wanted: OffloadMode) -> OffloadError {
    let what = match wanted {
        OffloadMode::Packet => "packet offload",
        OffloadMode::Crypto => "crypto offload",
        OffloadMode::No | OffloadMode::Auto => "an SA",
    };
    let has = |mode| device.rung(mode).is_some();
    let reason = match (has(OffloadMode::Packet), has(OffloadMode::Crypto)) {
        (false, false) => "it is no NIC: the datapath does everything in software",
        (true, _) => "it does packet offload, or nothing",
        (false, true) => "it does crypto offload, or nothing",
    };
    OffloadError::Unsupported { device: Arc::clone(&device.name), what: what.into(), reason: reason.into() }
}
