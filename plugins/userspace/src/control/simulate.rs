//! Devices that come and go, and the faults that simulated ones are told to have.

use std::sync::Arc;

use ipsec::fault::{Fault, Simulate, Target, Tell};
use ipsec::{Device, DeviceId, DeviceState, Event, Instant, OffloadMode, PolicyHandle, SaHandle};

use super::apply::Work;
use super::{Control, State};
use crate::sad::Sa;

/// Name and number of the link that a new device has to pose as.
type Reborn = (Arc<str>, Option<u32>);

impl Control {
    /// The tunnel device is gone: nothing passes until [`Self::tunnel_back`].
    pub fn tunnel_lost(&self) {
        self.lock().device_up = false;
        self.set_device(DeviceId(0), DeviceState::Down);
    }

    /// The tunnel device is there again.
    pub fn tunnel_back(&self) {
        self.lock().device_up = true;
        self.set_device(DeviceId(0), DeviceState::Up);
    }

    /// Notes and reports that a device is up, down or gone; says whether that is news. What was offloaded to it goes with it, as in a kernel: only the event about the
    /// device tells of that. What is held in software stays.
    pub(crate) fn set_device(&self, device: DeviceId, new: DeviceState) -> bool {
        let now = self.now();
        {
            let mut state = self.lock();
            if !state.devices.set_state(device, new) {
                return false;
            }
            if new != DeviceState::Up {
                self.flush_device(&mut state, device, now);
            }
            self.publish_devices(&state);
        }
        self.shared.reports.event(match new {
            DeviceState::Up => Event::DeviceUp(device),
            DeviceState::Down => Event::DeviceDown(device),
            DeviceState::Gone => Event::DeviceGone(device),
        });
        true
    }

    /// Adds a simulated NIC for a link, and reports it unless nobody can know of devices yet.
    pub(super) fn add_nic(&self, link: &Arc<str>, index: Option<u32>, state: DeviceState, report: bool) {
        let Some(simulation) = &self.identity.simulation else { return };
        let device = {
            let mut books = self.lock();
            let device = books.devices.add(link, index, Some(&simulation.limits));
            books.devices.set_state(device, state);
            self.publish_devices(&books);
            device
        };
        if report && state == DeviceState::Up {
            self.shared.reports.event(Event::DeviceUp(device));
        }
    }

    fn flush_device(&self, state: &mut State, device: DeviceId, now: Instant) {
        let policies =
            state.policies.values().filter(|(spec, _)| spec.device == device && spec.offload == OffloadMode::Packet);
        let policies: Vec<PolicyHandle> = policies.map(|(spec, _)| spec.handle).collect();
        let sas = state.sas.values().filter(|sa| sa.device == device && sa.mode.mode != OffloadMode::No);
        let sas: Vec<SaHandle> = sas.map(|sa| sa.handle).collect();
        self.forget(state, &sas, &policies, now);
    }

    fn forget(&self, state: &mut State, sas: &[SaHandle], policies: &[PolicyHandle], now: Instant) {
        let mut work = Work::default();
        policies.iter().for_each(|policy| state.remove_policy(*policy, &mut work));
        sas.iter().for_each(|sa| self.remove_sa(state, *sa, &mut work));
        self.finish(state, work, now);
    }

    /// Has a simulated device go wrong; tells how many SAs, policies, devices or reports to come it is about.
    ///
    /// # Errors
    /// One sentence: no device is simulated, or nothing is there that the order could be about.
    pub fn simulate(&self, order: &Simulate) -> Result<u32, String> {
        let reporter = self.reporter.as_ref().ok_or("no device is simulated: set simulate_packet_device = true")?;
        match &order.fault {
            Fault::Refuse(refuse) => {
                self.lock().faults.refuse(*refuse);
                Ok(refuse.count)
            }
            Fault::LoseSas(tell) => self.lose(&order.target, *tell, true, false),
            Fault::LosePolicies(tell) => self.lose(&order.target, *tell, false, true),
            Fault::LoseAll(tell) => self.lose(&order.target, *tell, true, true),
            Fault::DeviceDown => self.change_device(&order.target, DeviceState::Down),
            Fault::DeviceUp => self.change_device(&order.target, DeviceState::Up),
            Fault::DeviceGone => self.change_device(&order.target, DeviceState::Gone),
            Fault::Swallow(told, count) => {
                reporter.swallow(*told, *count);
                Ok(*count)
            }
            Fault::Duplicate(told, count) => {
                reporter.duplicate(*told, *count);
                Ok(*count)
            }
            Fault::FreezeCounters => {
                let now = self.now();
                let mut state = self.lock();
                let sas = state.meant(&order.target)?;
                state.frozen.extend(sas.iter().map(|sa| (sa.handle, sa.status(now))));
                Ok(count(sas.len()))
            }
            Fault::ThawCounters => {
                let mut state = self.lock();
                let sas = state.meant(&order.target)?;
                let thawed = sas.iter().filter(|sa| state.frozen.remove(&sa.handle).is_some()).count();
                Ok(count(thawed))
            }
            Fault::Carried { packets, bytes } => self.each(&order.target, |sa| sa.pretend(*packets, *bytes)),
            Fault::SoftExpire(unit) => self.each(&order.target, |sa| sa.soften(*unit, &*self.shared.reports)),
            Fault::HardExpire(unit) => self.each(&order.target, |sa| sa.expire(*unit, &*self.shared.reports)),
            Fault::Clear => {
                self.lock().faults.clear();
                reporter.clear();
                Ok(0)
            }
        }
    }

    fn each(&self, target: &Target, then: impl Fn(&Sa)) -> Result<u32, String> {
        let sas = self.lock().meant(target)?;
        sas.iter().for_each(|sa| then(sa));
        Ok(count(sas.len()))
    }

    fn lose(&self, target: &Target, tell: Tell, sas: bool, policies: bool) -> Result<u32, String> {
        let now = self.now();
        let (lost, others) = {
            let mut state = self.lock();
            let lost: Vec<SaHandle> =
                if sas { state.meant(target)?.iter().map(|sa| sa.handle).collect() } else { Vec::new() };
            let others = if policies { state.meant_policies(target)? } else { Vec::new() };
            self.forget(&mut state, &lost, &others, now);
            (lost, others)
        };
        if lost.is_empty() && others.is_empty() {
            return Err("nothing is there that could be lost".into());
        }
        match tell {
            Tell::Lost => lost.iter().for_each(|sa| self.shared.reports.event(Event::StateLost { sa: *sa })),
            Tell::Resync => self.shared.reports.event(Event::Resync),
            Tell::Nothing => {}
        }
        Ok(count(lost.len() + others.len()))
    }

    fn change_device(&self, target: &Target, new: DeviceState) -> Result<u32, String> {
        let (device, reborn) = self.lock().nic(target, new)?;
        let Some((link, index)) = reborn else { return Ok(u32::from(self.set_device(device, new))) };
        // What is gone stays gone; what appears under its name is another device.
        self.add_nic(&link, index, DeviceState::Up, true);
        Ok(1)
    }
}

impl State {
    /// The SAs that a fault is about.
    fn meant(&self, target: &Target) -> Result<Vec<Arc<Sa>>, String> {
        let devices = self.named_devices(target)?;
        let meant = |sa: &&Arc<Sa>| {
            devices.contains(&sa.device)
                && target.names(&sa.name, sa.direction)
                && target.spi.is_none_or(|spi| spi == sa.spi)
        };
        let sas: Vec<Arc<Sa>> = self.sas.values().filter(meant).cloned().collect();
        if sas.is_empty() && *target != Target::default() {
            return Err("no SA is like that".into());
        }
        Ok(sas)
    }

    fn meant_policies(&self, target: &Target) -> Result<Vec<PolicyHandle>, String> {
        let devices = self.named_devices(target)?;
        let entries = self.policies.values().filter(|(spec, _)| {
            devices.contains(&spec.device) && target.spi.is_none() && target.names(&spec.name, spec.direction)
        });
        Ok(entries.map(|(spec, _)| spec.handle).collect())
    }

    fn named_devices(&self, target: &Target) -> Result<Vec<DeviceId>, String> {
        let devices = self.devices.table().devices.iter().filter(|device| self.is_called(device, target));
        let devices: Vec<DeviceId> = devices.map(|device| device.id).collect();
        if devices.is_empty() { Err(self.no_such(target)) } else { Ok(devices) }
    }

    fn is_called(&self, device: &Device, target: &Target) -> bool {
        let called = |name: &String| *name == *device.name || self.devices.link(device.id) == Some(name);
        target.device.as_ref().is_none_or(called)
    }

    /// The one simulated NIC that is meant and can become `new`; with its link where a new one has to appear.
    fn nic(&self, target: &Target, new: DeviceState) -> Result<(DeviceId, Option<Reborn>), String> {
        let table = self.devices.table();
        let nics = |device: &&Device| device.rungs.len() > 1 && self.is_called(device, target);
        let present: Vec<&Device> =
            table.devices.iter().filter(nics).filter(|device| device.state != DeviceState::Gone).collect();
        match (present.as_slice(), new) {
            ([device], _) => Ok((device.id, None)),
            ([], DeviceState::Up) => {
                let gone = table.devices.iter().rfind(nics).ok_or_else(|| self.no_such(target))?;
                Ok((gone.id, self.devices.link(gone.id).map(|link| (link.into(), self.devices.index(gone.id)))))
            }
            ([], DeviceState::Down | DeviceState::Gone) => Err(self.no_such(target)),
            (several, _) => {
                let names: Vec<&str> = several.iter().filter_map(|device| self.devices.link(device.id)).collect();
                Err(format!("say which device: {}", names.join(", ")))
            }
        }
    }

    fn no_such(&self, target: &Target) -> String {
        match &target.device {
            Some(name) => format!("no simulated device is called {name}"),
            None => "there is no simulated device".into(),
        }
    }
}

fn count(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}
