//! How full the tables of devices are: what the CHILD SAs and traps of all shards hold of each rung.
//!
//! A device that is full refuses by itself; what is counted here is what tells it before anything is negotiated, so that the rekeying of what is
//! up always finds room. An entry counts from the moment it is planned until it is taken out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipsec::preflight::Entries;
use ipsec::{DeviceId, OffloadMode};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TableSpace(Mutex<BTreeMap<(DeviceId, OffloadMode), Entries>>);

impl TableSpace {
    /// What a rung of a device holds.
    pub(crate) fn held(&self, device: DeviceId, mode: OffloadMode) -> Entries {
        self.lock().get(&(device, mode)).copied().unwrap_or_default()
    }

    /// Counts entries of a rung until the claim is dropped.
    pub(crate) fn claim(self: &Arc<Self>, device: DeviceId, mode: OffloadMode, entries: Entries) -> Claim {
        let mut claim = Claim { space: Arc::clone(self), device, mode, entries: Entries::default() };
        claim.set(entries);
        claim
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(DeviceId, OffloadMode), Entries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that somebody holds or is going to.
#[derive(Debug)]
pub(crate) struct Claim {
    space: Arc<TableSpace>,
    device: DeviceId,
    mode: OffloadMode,
    entries: Entries,
}

impl Claim {
    /// The rung.
    pub(crate) fn mode(&self) -> OffloadMode {
        self.mode
    }

    /// What it counts.
    pub(crate) fn entries(&self) -> Entries {
        self.entries
    }

    /// From now on it counts so many.
    pub(crate) fn set(&mut self, entries: Entries) {
        let key = (self.device, self.mode);
        let mut table = self.space.lock();
        let total = table.entry(key).or_default();
        total.sas = total.sas.saturating_sub(self.entries.sas).saturating_add(entries.sas);
        total.policies = total.policies.saturating_sub(self.entries.policies).saturating_add(entries.policies);
        if *total == Entries::default() {
            table.remove(&key);
        }
        drop(table);
        self.entries = entries;
    }

    /// The same entries on another rung of the device.
    pub(crate) fn move_to(&mut self, mode: OffloadMode) {
        let entries = self.entries;
        self.set(Entries::default());
        self.mode = mode;
        self.set(entries);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(Entries::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_add_up_move_and_go() {
        let space = Arc::new(TableSpace::default());
        let device = DeviceId(3);
        let held = |mode| space.held(device, mode);
        let pair = Entries { sas: 2, policies: 2 };
        let mut one = space.claim(device, OffloadMode::Packet, pair);
        let other = space.claim(device, OffloadMode::Packet, pair);
        assert_eq!(held(OffloadMode::Packet), Entries { sas: 4, policies: 4 });
        one.set(Entries { sas: 1, policies: 0 });
        assert_eq!(held(OffloadMode::Packet), Entries { sas: 3, policies: 2 });
        one.move_to(OffloadMode::No);
        assert_eq!((held(OffloadMode::Packet), held(OffloadMode::No)), (pair, Entries { sas: 1, policies: 0 }));
        drop((one, other));
        assert_eq!((held(OffloadMode::Packet), held(OffloadMode::No)), Default::default());
        assert!(space.lock().is_empty());
    }
}
