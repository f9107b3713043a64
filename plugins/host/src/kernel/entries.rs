//! What stands beside policies that take traffic: counted, and made anew when the addresses of the host change.

use std::net::IpAddr;

use super::super::error::HostError;
use super::super::policy::Item;
use super::super::policy::beside::{exact_ike, exemptions, ike, in_device};
use super::{Entry, Held, KernelHost, Taking};

/// What a policy needs beside it.
#[derive(Debug, Default)]
struct Needs {
    /// Without this the policy must not stand.
    all: Vec<Item>,
    /// Exemptions in a device, which not every device can hold.
    wished: Vec<Item>,
}

impl KernelHost {
    /// Puts up what has to stand before a policy that takes traffic: exemptions, IKE through the device that holds it, the route. Counted.
    ///
    /// # Errors
    /// The refusal of kernel or device; nothing is changed then, and the policy must not be put up.
    pub fn protect(&mut self, taking: &Taking) -> Result<(), HostError> {
        if let Some(entry) = self.entries.get_mut(taking) {
            entry.count += 1;
            return Ok(());
        }
        if let Some(device) = taking.device {
            self.enter(device)?;
        }
        let outcome = self.put_up(taking);
        if outcome.is_err() {
            let _ = self.leave(taking); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::protect`], after the policy has gone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unprotect(&mut self, taking: &Taking) -> Result<(), HostError> {
        let Some(entry) = self.entries.get_mut(taking) else { return Ok(()) };
        entry.count -= 1;
        if entry.count > 0 {
            return Ok(());
        }
        let items = self.entries.remove(taking).map(|entry| entry.items).unwrap_or_default();
        let routed = match &mut self.routing {
            Some(routing) => routing.unlead(&taking.pair, taking.routed),
            None => Ok(()),
        };
        routed.and(self.guard.ledger().unwant_all(&items)).and(self.leave(taking))
    }

    /// Lets IKE pass through a device before anything is put into it, until [`Self::close_device`].
    ///
    /// # Errors
    /// The refusal of kernel or driver: the device does no packet offload.
    pub fn open_device(&mut self, device: u32) -> Result<(), HostError> {
        self.enter(device)?;
        let held = self.devices.entry(device).or_default();
        held.entries -= 1;
        held.open = true;
        Ok(())
    }

    /// Takes [`Self::open_device`] back; what is still in the device keeps its exemptions.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn close_device(&mut self, device: u32) -> Result<(), HostError> {
        if let Some(held) = self.devices.get_mut(&device) {
            held.open = false;
        }
        self.release(device)
    }

    /// A device went down, or was taken away: the kernel has silently taken out of it what it held. Nothing is asked of it until
    /// [`Self::device_back`].
    pub fn device_lost(&mut self, device: u32) {
        self.guard.ledger().forget_device(device);
        if let Some(held) = self.devices.get_mut(&device) {
            held.lost = true;
            held.ike.clear();
        }
        for (_, entry) in self.entries.iter_mut().filter(|(taking, _)| taking.device == Some(device)) {
            entry.items.retain(|item| item.key.device() != Some(device));
        }
    }

    /// A device carries again: IKE through it, and the exemptions beside what it is to hold again.
    ///
    /// # Errors
    /// The refusal of kernel or device; it must not be used then.
    pub fn device_back(&mut self, device: u32) -> Result<(), HostError> {
        let Some(held) = self.devices.get_mut(&device) else { return Ok(()) };
        if !std::mem::take(&mut held.lost) {
            // It may have been down and up again before anybody looked.
            return self.guard.restore().map(|_| ());
        }
        let outcome = self.adapt(Some(device));
        if outcome.is_err() {
            self.device_lost(device);
        }
        outcome
    }

    /// Whether IKE passes through the device.
    pub fn passes_ike(&self, device: u32) -> bool {
        self.devices.get(&device).is_some_and(|held| !held.lost && !held.ike.is_empty())
    }

    /// One more policy is in the device.
    fn enter(&mut self, device: u32) -> Result<(), HostError> {
        let known = self.devices.get(&device).is_some_and(|held| !held.lost);
        if !known {
            let items = ike(&self.ike_addresses(), &self.config.ike_ports, device);
            self.guard.ledger().want_all(&items)?;
            let held = self.devices.entry(device).or_default();
            (held.lost, held.ike) = (false, items);
        }
        self.devices.entry(device).or_default().entries += 1;
        Ok(())
    }

    fn leave(&mut self, taking: &Taking) -> Result<(), HostError> {
        let Some(device) = taking.device else { return Ok(()) };
        if let Some(held) = self.devices.get_mut(&device) {
            held.entries = held.entries.saturating_sub(1);
        }
        self.release(device)
    }

    fn release(&mut self, device: u32) -> Result<(), HostError> {
        let unused = |held: &&Held| !held.open && held.entries == 0;
        if self.devices.get(&device).filter(unused).is_none() {
            return Ok(());
        }
        let items = self.devices.remove(&device).map(|held| held.ike).unwrap_or_default();
        self.guard.ledger().unwant_all(&items)
    }

    fn put_up(&mut self, taking: &Taking) -> Result<(), HostError> {
        let items = self.want(taking, true)?;
        if let Some(routing) = &mut self.routing
            && let Err(error) = routing.lead(&taking.pair, taking.routed)
        {
            let _ = self.guard.ledger().unwant_all(&items); // the first error is the one to tell
            return Err(error);
        }
        self.entries.insert(*taking, Entry { count: 1, items });
        Ok(())
    }

    /// Wants what a policy needs; gives what was got.
    fn want(&mut self, taking: &Taking, new: bool) -> Result<Vec<Item>, HostError> {
        let Needs { all: mut items, wished } = self.needs(taking);
        let ledger = self.guard.ledger();
        ledger.want_all(&items)?;
        let refused = ledger.want_possible(&wished);
        // Once for each device: it is the same for every child of the same shape.
        let told = taking.device.and_then(|device| self.devices.get_mut(&device)).map(|held| &mut held.told);
        if let Some((item, error)) = refused.first()
            && let Some(told) = told.filter(|_| new)
            && !std::mem::replace(told, true)
        {
            tracing::warn!(
                refused = refused.len(), first = %item.key, %error, pair = %taking.pair,
                "the device cannot hold exemptions beside what it protects: neighbour discovery and connected subnets may be cut off"
            );
        }
        items.extend(wished.into_iter().filter(|item| !refused.iter().any(|(one, _)| one == item)));
        Ok(items)
    }

    fn needs(&self, taking: &Taking) -> Needs {
        let Taking { pair, priority, device, .. } = taking;
        let mut all = exemptions(pair, *priority, &self.surroundings());
        let device = device.filter(|device| self.devices.get(device).is_some_and(|held| !held.lost));
        let Some(device) = device else { return Needs { all, wished: Vec::new() } };
        let wished = in_device(&all, device);
        all.extend(exact_ike(pair, &self.ike_addresses(), &self.config.ike_ports, device));
        Needs { all, wished }
    }

    /// Makes everything, or what is about one device, anew for the addresses as they are now; new items come before old ones go.
    pub(super) fn adapt(&mut self, only: Option<u32>) -> Result<(), HostError> {
        let mut obsolete = Vec::new();
        let adapted = self.adapt_each(only, &mut obsolete);
        adapted.and(self.guard.ledger().unwant_all(&obsolete))
    }

    fn adapt_each(&mut self, only: Option<u32>, obsolete: &mut Vec<Item>) -> Result<(), HostError> {
        let (own, ports) = (self.ike_addresses(), self.config.ike_ports);
        let concerned = |device: Option<u32>| only.is_none() || only == device;
        for (device, held) in self.devices.iter_mut().filter(|(device, held)| !held.lost && concerned(Some(**device))) {
            let items = ike(&own, &ports, *device);
            self.guard.ledger().want_all(&items)?;
            obsolete.append(&mut std::mem::replace(&mut held.ike, items));
        }
        let all: Vec<Taking> = self.entries.keys().filter(|taking| concerned(taking.device)).copied().collect();
        for taking in all {
            let items = self.want(&taking, false)?;
            if let Some(entry) = self.entries.get_mut(&taking) {
                obsolete.append(&mut std::mem::replace(&mut entry.items, items));
            }
        }
        Ok(())
    }

    /// Takes everything back.
    pub(super) fn clear(&mut self) -> Result<(), HostError> {
        let entries = std::mem::take(&mut self.entries).into_values().map(|entry| entry.items);
        let devices = std::mem::take(&mut self.devices).into_values().map(|held| held.ike);
        let items: Vec<Item> = entries.chain(devices).flatten().collect();
        let outcome = self.guard.ledger().unwant_all(&items);
        // Also what an earlier run left.
        outcome.and(self.settle())
    }

    fn ike_addresses(&self) -> Vec<IpAddr> {
        let listen = &self.config.listen;
        let own = self.interfaces.addresses.iter().map(|own| own.address);
        own.filter(|own| listen.is_empty() || listen.contains(own)).collect()
    }
}
