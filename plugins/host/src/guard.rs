//! The fail-closed guard: block policies in the kernel that outlive the process, and the exemptions beside them.
//!
//! Every policy is counted by those who want it, so guards and shunts share. What a crashed process left behind is adopted: a policy that
//! is wanted again is taken over in place without a gap, and [`Guard::drop_unclaimed`] removes what nobody claimed. Policies of others are never
//! touched, and stand beside ours where the selectors are equal: ours carry a `user` of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipsec::{GuardSpec, SelectorPair};
use netlink_sys::protocols::NETLINK_XFRM;

use super::error::HostError;
use super::links::LOOPBACK;
use super::netlink::Netlink;
use super::policy::{self, Item, Surroundings};
use super::xfrm::{self, PolicyKey, Verdict};

/// Our policies in the kernel's SPD.
#[derive(Debug)]
pub(super) struct Guard {
    xfrm: Netlink,
    surroundings: Surroundings,
    guards: BTreeMap<SelectorPair, Guarded>,
    passes: BTreeMap<SelectorPair, usize>,
    wanted: BTreeMap<PolicyKey, BTreeMap<(u32, Verdict), usize>>,
    installed: BTreeMap<PolicyKey, Installed>,
    indexes: BTreeSet<u32>,
    next: u32,
}

#[derive(Debug)]
struct Guarded {
    names: BTreeSet<Arc<str>>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
struct Installed {
    priority: u32,
    verdict: Verdict,
    index: u32,
}

impl Guard {
    /// Adopts what is there, or returns `None` where the kernel has no XFRM.
    ///
    /// Policies that let traffic into a TUN device of a former process go at once: its index may come back on another device. So do pass
    /// shunts, which the configuration may not have any more; the blocks behind them hold until it says so again.
    pub(super) fn open() -> Result<Option<Self>, HostError> {
        let mut xfrm = match Netlink::open("xfrm", NETLINK_XFRM) {
            Err(HostError::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
                return Ok(None);
            }
            opened => opened?,
        };
        let found = xfrm::ours(&mut xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let passes: Vec<_> = found.iter().filter(|found| policy::is_pass(found)).map(|found| found.key).collect();
        let mut guard = Self {
            xfrm,
            surroundings: Surroundings::default(),
            guards: BTreeMap::new(),
            passes: BTreeMap::new(),
            wanted: BTreeMap::new(),
            installed: BTreeMap::new(),
            indexes: found.iter().map(|found| found.index).collect(),
            next: 0,
        };
        for found in found {
            let installed = Installed { priority: found.priority, verdict: found.verdict, index: found.index };
            guard.installed.insert(found.key, installed);
        }
        guard.remove_device_policies()?;
        passes.iter().try_for_each(|key| guard.remove(key))?;
        Ok(Some(guard))
    }

    /// Puts up the guard of one connection; again for the same name changes nothing.
    pub(super) fn guard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        if let Some(guarded) = self.guards.get_mut(&spec.selectors) {
            guarded.names.insert(Arc::clone(&spec.name));
            return Ok(());
        }
        let items = policy::guard(&spec.selectors, &self.surroundings);
        self.want_all(&items)?;
        let names = BTreeSet::from([Arc::clone(&spec.name)]);
        self.guards.insert(spec.selectors, Guarded { names, items });
        Ok(())
    }

    /// Takes the guard of one connection down; the policies go with the last name.
    pub(super) fn unguard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        let Some(guarded) = self.guards.get_mut(&spec.selectors) else { return Ok(()) };
        guarded.names.remove(&spec.name);
        if !guarded.names.is_empty() {
            return Ok(());
        }
        let items = self.guards.remove(&spec.selectors).map(|guarded| guarded.items).unwrap_or_default();
        self.unwant_all(&items)
    }

    /// Whether a guard stands for these selectors.
    pub(super) fn is_guarded(&self, pair: &SelectorPair) -> bool {
        self.guards.contains_key(pair)
    }

    /// Lets traffic of a pass shunt through guards that are not more specific.
    pub(super) fn pass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        if let Some(count) = self.passes.get_mut(pair) {
            *count += 1;
            return Ok(());
        }
        self.want_all(&policy::pass(pair))?;
        self.passes.insert(*pair, 1);
        Ok(())
    }

    /// Takes back one [`Self::pass`].
    pub(super) fn unpass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let Some(count) = self.passes.get_mut(pair) else { return Ok(()) };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.passes.remove(pair);
        self.unwant_all(&policy::pass(pair))
    }

    /// Adapts the exemptions of all guards; new ones come before old ones go.
    pub(super) fn surround(&mut self, surroundings: Surroundings) -> Result<(), HostError> {
        if self.surroundings == surroundings {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.surroundings, surroundings);
        let pairs: Vec<_> = self.guards.keys().copied().collect();
        let mut obsolete = Vec::new();
        let adapted = pairs.iter().try_for_each(|pair| self.adapt(pair, &mut obsolete));
        if adapted.is_err() {
            self.surroundings = before; // so that the next call tries again
        }
        adapted.and(self.unwant_all(&obsolete))
    }

    fn adapt(&mut self, pair: &SelectorPair, obsolete: &mut Vec<Item>) -> Result<(), HostError> {
        let items = policy::guard(pair, &self.surroundings);
        self.want_all(&items)?;
        if let Some(guarded) = self.guards.get_mut(pair) {
            obsolete.append(&mut std::mem::replace(&mut guarded.items, items));
        }
        Ok(())
    }

    /// Puts back what somebody else has removed or changed. Gives how many policies that were.
    pub(super) fn restore(&mut self) -> Result<usize, HostError> {
        let found = xfrm::ours(&mut self.xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let found: BTreeMap<_, _> = found.into_iter().map(|found| (found.key, found)).collect();
        let stands = |key: &PolicyKey| {
            let (there, found) = (self.installed.get(key)?, found.get(key)?);
            let same = (there.priority, there.verdict, there.index) == (found.priority, found.verdict, found.index);
            same.then_some(())
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

    /// Blocks of an earlier run that nobody has claimed since the start.
    pub(super) fn unclaimed(&self) -> Vec<String> {
        let blocks = self.installed.iter().filter(|(_, installed)| installed.verdict == Verdict::Block);
        blocks.filter(|(key, _)| !self.wanted.contains_key(key)).map(|(key, _)| key.to_string()).collect()
    }

    /// Removes adopted policies that nobody has claimed since the start.
    pub(super) fn drop_unclaimed(&mut self) -> Result<(), HostError> {
        let unclaimed: Vec<_> = self.installed.keys().filter(|key| !self.wanted.contains_key(key)).copied().collect();
        unclaimed.iter().try_for_each(|key| self.sync(key))
    }

    /// Removes what let traffic into the TUN device; blocks and the other exemptions stay.
    pub(super) fn remove_device_policies(&mut self) -> Result<(), HostError> {
        let of_device = |(key, installed): (&PolicyKey, &Installed)| {
            let first = installed.verdict == Verdict::Allow && installed.priority == *xfrm::PRIORITIES.start();
            (first && (key.link > LOOPBACK || key.mark.is_some())).then_some(*key)
        };
        let keys: Vec<_> = self.installed.iter().filter_map(of_device).collect();
        keys.iter().try_for_each(|key| self.remove(key))
    }

    /// Removes everything of ours.
    pub(super) fn remove_all(&mut self) -> Result<(), HostError> {
        self.wanted.clear();
        self.guards.clear();
        self.passes.clear();
        let keys: Vec<_> = self.installed.keys().copied().collect();
        keys.iter().try_for_each(|key| self.remove(key))
    }

    /// All or nothing.
    fn want_all(&mut self, items: &[Item]) -> Result<(), HostError> {
        for (done, item) in items.iter().enumerate() {
            *self.wanted.entry(item.key).or_default().entry((item.priority, item.verdict)).or_default() += 1;
            if let Err(error) = self.sync(&item.key) {
                // What undoing meets is of less interest than what made it necessary.
                let _ = self.unwant_all(items.get(..=done).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }

    fn unwant_all(&mut self, items: &[Item]) -> Result<(), HostError> {
        let mut outcome = Ok(());
        for item in items {
            if let Some(wishes) = self.wanted.get_mut(&item.key) {
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
            outcome = outcome.and(self.sync(&item.key));
        }
        outcome
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
            (Some((priority, verdict)), Some(there)) => self.install(key, verdict, priority, there.index, true),
            (Some((priority, verdict)), None) => {
                let index = self.free_index(key);
                self.install(key, verdict, priority, index, false)
            }
        }
    }

    fn install(
        &mut self,
        key: &PolicyKey,
        verdict: Verdict,
        priority: u32,
        index: u32,
        replace: bool,
    ) -> Result<(), HostError> {
        xfrm::install(&mut self.xfrm, key, verdict, priority, index, replace).map_err(|refusal| {
            if refusal.is_any(&[libc::EEXIST]) {
                HostError::ForeignPolicy { policy: key.to_string() }
            } else {
                refusal.on("add kernel policy", key)
            }
        })?;
        self.indexes.insert(index);
        self.installed.insert(*key, Installed { priority, verdict, index });
        Ok(())
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
