//! Our policies in the kernel's SPD, counted by those who want them.
//!
//! Several may want a policy of the same selector, with different ranks: the kernel holds the one that ranks first, and the next when that
//! wish is taken back, replaced in one step. What a crashed process left behind is adopted: a policy that is wanted again is taken over in
//! place without a gap. Policies of others are never touched.

use std::collections::{BTreeMap, BTreeSet};

use netlink_sys::protocols::NETLINK_XFRM;

use super::error::{HostError, KernelError};
use super::netlink::Netlink;
use super::policy::Item;
use super::xfrm::{self, Found, PolicyKey, Verdict};

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    xfrm: Netlink,
    wanted: BTreeMap<PolicyKey, BTreeMap<(u32, Verdict), usize>>,
    installed: BTreeMap<PolicyKey, Installed>,
    indexes: BTreeSet<u32>,
    next: u32,
}

/// A policy that the kernel holds for us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installed {
    pub(super) priority: u32,
    pub(super) verdict: Verdict,
    index: u32,
}

impl Ledger {
    /// Adopts what is there, or returns `None` where the kernel has no XFRM.
    pub(super) fn open() -> Result<Option<Self>, HostError> {
        let mut xfrm = match Netlink::open("xfrm", NETLINK_XFRM) {
            Err(HostError::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
                return Ok(None);
            }
            opened => opened?,
        };
        let found = xfrm::ours(&mut xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let mut ledger = Self {
            xfrm,
            wanted: BTreeMap::new(),
            installed: BTreeMap::new(),
            indexes: found.iter().map(|found| found.index).collect(),
            next: 0,
        };
        for Found { key, verdict, priority, index, .. } in found {
            ledger.installed.insert(key, Installed { priority, verdict, index });
        }
        Ok(Some(ledger))
    }

    /// What it holds and nobody wants.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = (&PolicyKey, &Installed)> {
        self.installed.iter().filter(|(key, _)| !self.wanted.contains_key(key))
    }

    /// Removes of that what `which` says.
    pub(super) fn drop_unclaimed(&mut self, which: impl Fn(&PolicyKey, &Installed) -> bool) -> Result<(), HostError> {
        let unclaimed: Vec<_> =
            self.unclaimed().filter(|(key, there)| which(key, there)).map(|(key, _)| *key).collect();
        self.remove_all_of(&unclaimed)
    }

    /// Removes of that the blocks that differ from `key` in their link only.
    pub(super) fn drop_links_of(&mut self, key: &PolicyKey) -> Result<(), HostError> {
        // Links come behind addresses, protocol and ports in the order of keys, so these are neighbours.
        let (first, last) = (PolicyKey { link: 1, user: 0, ..*key }, PolicyKey { link: u32::MAX, ..*key });
        let near = self.installed.range(first..=last);
        let same = near.filter(|(one, there)| {
            PolicyKey { link: 0, ..**one } == *key && there.verdict == Verdict::Block && !self.wanted.contains_key(one)
        });
        let keys: Vec<_> = same.map(|(one, _)| *one).collect();
        self.remove_all_of(&keys)
    }

    /// Removes what `which` says, wanted or not.
    pub(super) fn remove_where(&mut self, which: impl Fn(&PolicyKey, &Installed) -> bool) -> Result<(), HostError> {
        let keys: Vec<_> =
            self.installed.iter().filter(|(key, there)| which(key, there)).map(|(key, _)| *key).collect();
        self.remove_all_of(&keys)
    }

    /// Takes out the policies by which a kernel backend has protected traffic. Gives how many those were.
    pub(super) fn remove_protecting(&mut self) -> Result<usize, HostError> {
        let all = xfrm::all(&mut self.xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let theirs: Vec<Found> = all.into_iter().map(|(found, _)| found).collect();
        let theirs = theirs.iter().filter(|found| xfrm::PROTECTING.contains(&found.index));
        let mut removed = 0;
        for Found { key, index, .. } in theirs {
            xfrm::delete(&mut self.xfrm, key, *index).map_err(|refusal| refusal.on("delete kernel policy", key))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes everything of ours.
    pub(super) fn remove_all(&mut self) -> Result<(), HostError> {
        self.wanted.clear();
        self.remove_where(|_, _| true)
    }

    /// Takes note that a device has lost what it held, and wants nothing of it any more; nobody is asked.
    pub(super) fn forget_device(&mut self, device: u32) {
        self.wanted.retain(|key, _| key.device() != Some(device));
        let indexes = &mut self.indexes;
        self.installed.retain(|key, there| {
            let lost = key.device() == Some(device);
            if lost {
                indexes.remove(&there.index);
            }
            !lost
        });
    }

    /// Puts up all or nothing.
    pub(super) fn want_all(&mut self, items: &[Item]) -> Result<(), HostError> {
        for (done, item) in items.iter().enumerate() {
            self.count_up(item);
            if let Err(error) = self.sync(&item.key) {
                // What undoing meets is of less interest than what made it necessary.
                let _ = self.unwant_all(items.get(..=done).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts up what can be put up; gives what cannot, which is not wanted then.
    pub(super) fn want_possible(&mut self, items: &[Item]) -> Vec<(Item, HostError)> {
        let mut refused = Vec::new();
        for item in items {
            if let Err(error) = self.want_all(std::slice::from_ref(item)) {
                refused.push((*item, error));
            }
        }
        refused
    }

    /// Takes wishes back.
    pub(super) fn unwant_all(&mut self, items: &[Item]) -> Result<(), HostError> {
        let mut outcome = Ok(());
        for item in items {
            self.count_down(item);
            outcome = outcome.and(self.sync(&item.key));
        }
        outcome
    }

    /// Puts back what somebody else has removed or changed. Gives how many policies that were.
    pub(super) fn restore(&mut self) -> Result<usize, HostError> {
        let found = xfrm::ours(&mut self.xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let found: BTreeMap<_, _> = found.into_iter().map(|found| (found.key, found)).collect();
        let stands = |key: &PolicyKey| {
            let (there, found) = (self.installed.get(key)?, found.get(key)?);
            let same = (there.priority, there.verdict, there.index) == (found.priority, found.verdict, found.index);
            (same && found.device == key.device()).then_some(())
        };
        let known: BTreeSet<_> = self.installed.keys().chain(self.wanted.keys()).copied().collect();
        let astray: Vec<_> = known.into_iter().filter(|key| stands(key).is_none()).collect();
        let mut outcome = Ok(());
        let mut restored = 0;
        for key in &astray {
            self.installed.remove(key);
            outcome = outcome.and(self.sync(key));
            restored += usize::from(self.installed.contains_key(key));
        }
        outcome.map(|()| restored)
    }

    fn count_up(&mut self, item: &Item) {
        *self.wanted.entry(item.key).or_default().entry((item.priority, item.verdict)).or_default() += 1;
    }

    fn count_down(&mut self, item: &Item) {
        let Some(wishes) = self.wanted.get_mut(&item.key) else { return };
        let wish = (item.priority, item.verdict);
        if let Some(count) = wishes.get_mut(&wish) {
            *count -= 1;
            if *count == 0 {
                wishes.remove(&wish);
            }
        }
        if wishes.is_empty() {
            self.wanted.remove(&item.key);
        }
    }

    /// Makes the kernel hold for `key` what ranks first among the wishes.
    fn sync(&mut self, key: &PolicyKey) -> Result<(), HostError> {
        let wish = self.wanted.get(key).and_then(|wishes| wishes.keys().next().copied());
        match (wish, self.installed.get(key).copied()) {
            (None, None) => Ok(()),
            (None, Some(_)) => self.remove(key),
            (Some((priority, verdict)), Some(there)) if (there.priority, there.verdict) == (priority, verdict) => {
                Ok(())
            }
            (Some((priority, verdict)), Some(there)) => {
                self.install(key, Installed { priority, verdict, ..there }, true)
            }
            (Some((priority, verdict)), None) => {
                let index = self.free_index(key);
                self.install(key, Installed { priority, verdict, index }, false)
            }
        }
    }

    fn install(&mut self, key: &PolicyKey, new: Installed, replace: bool) -> Result<(), HostError> {
        let Installed { priority, verdict, index } = new;
        let device = key.device();
        let policy = Found { key: *key, verdict, priority, index, device };
        let action = if device.is_some() { "have a device hold kernel policy" } else { "add kernel policy" };
        xfrm::install(&mut self.xfrm, &policy, replace).map_err(|refusal| {
            if refusal.is_any(&[libc::EEXIST]) {
                HostError::ForeignPolicy { policy: key.to_string() }
            } else {
                refusal.on(action, key)
            }
        })?;
        self.indexes.insert(index);
        self.installed.insert(*key, new);
        if device.is_some() { self.read_back(key, index) } else { Ok(()) }
    }

    /// A kernel without offload takes the request, ignores the device and holds the policy itself.
    fn read_back(&mut self, key: &PolicyKey, index: u32) -> Result<(), HostError> {
        let action = "have a device hold kernel policy";
        let there = xfrm::get(&mut self.xfrm, key, index).map_err(|refusal| refusal.on(action, key))?;
        if there.is_some_and(|there| there.device == key.device()) {
            return Ok(());
        }
        self.remove(key)?;
        let text = Some("the kernel ignores the device: it was built without CONFIG_XFRM_OFFLOAD".to_owned());
        let source = KernelError { errno: libc::EOPNOTSUPP, text };
        Err(HostError::Kernel { action, object: key.to_string(), source })
    }

    fn remove_all_of(&mut self, keys: &[PolicyKey]) -> Result<(), HostError> {
        keys.iter().try_for_each(|key| self.remove(key))
    }

    fn remove(&mut self, key: &PolicyKey) -> Result<(), HostError> {
        let Some(installed) = self.installed.get(key).copied() else { return Ok(()) };
        xfrm::delete(&mut self.xfrm, key, installed.index)
            .map_err(|refusal| refusal.on("delete kernel policy", key))?;
        self.installed.remove(key);
        self.indexes.remove(&installed.index);
        Ok(())
    }

    fn free_index(&mut self, key: &PolicyKey) -> u32 {
        loop {
            let index = key.way.index(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.indexes.contains(&index) {
                return index;
            }
        }
    }
}
