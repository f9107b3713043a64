//! The fail-closed guard: block policies in the kernel that outlive the process, and the exemptions beside them.
//!
//! Every policy is counted by those who want it (see [`super::ledger`]), so guards and shunts share. What an earlier run left behind is taken
//! over in place, and [`Guard::drop_unclaimed`] removes what nobody claimed. Policies of others stand beside ours where the selectors are
//! equal: ours carry a `user` of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipsec::{GuardSpec, SelectorPair};

use super::error::HostError;
use super::ledger::{Installed, Ledger};
use super::links::LOOPBACK;
use super::policy::{self, Item, Surroundings};
use super::xfrm::{PRIORITIES, PolicyKey, Verdict};

/// Our policies in the kernel's SPD.
#[derive(Debug)]
pub(super) struct Guard {
    ledger: Ledger,
    surroundings: Surroundings,
    guards: BTreeMap<SelectorPair, Guarded>,
    passes: BTreeMap<SelectorPair, usize>,
}

#[derive(Debug)]
struct Guarded {
    names: BTreeSet<Arc<str>>,
    items: Vec<Item>,
}

impl Guard {
    /// Adopts what is there, or returns `None` where the kernel has no XFRM.
    ///
    /// Policies that let traffic into a TUN device of a former process go at once: its index may come back on another device. So do pass
    /// shunts, which the configuration may not have any more; the blocks behind them hold until it says so again. Policies that protect, and the
    /// exemptions beside them, are of the kernel backend: `protects` says whether this is it. Otherwise they go too, for the kernel would go on
    /// taking what is led elsewhere now.
    pub(super) fn open(protects: bool) -> Result<Option<Self>, HostError> {
        let Some(mut ledger) = Ledger::open()? else { return Ok(None) };
        if !protects {
            let removed = ledger.remove_protecting()?;
            if removed > 0 {
                tracing::warn!(removed, "the kernel backend of an earlier run has left policies: they are taken out");
            }
        }
        ledger.remove_where(|key, there| {
            let beside = !protects && there.verdict == Verdict::Allow && !PRIORITIES.contains(&there.priority);
            beside || is_of_device(key, there) || policy::is_pass(there.verdict, there.priority)
        })?;
        Ok(Some(Self {
            ledger,
            surroundings: Surroundings::default(),
            guards: BTreeMap::new(),
            passes: BTreeMap::new(),
        }))
    }

    /// What all of it is counted in.
    pub(super) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Puts up the guard of one connection; again for the same name changes nothing.
    pub(super) fn guard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        if let Some(guarded) = self.guards.get_mut(&spec.selectors) {
            guarded.names.insert(Arc::clone(&spec.name));
            return Ok(());
        }
        let items = policy::guard(&spec.selectors, &self.surroundings);
        self.ledger.want_all(&items)?;
        let names = BTreeSet::from([Arc::clone(&spec.name)]);
        self.guards.insert(spec.selectors, Guarded { names, items });
        Ok(())
    }

    /// Drops what an earlier run with a tunnel device has put up for these selectors: the same blocks, link by link.
    pub(super) fn drop_links_of(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        policy::keys(pair).into_iter().try_for_each(|key| self.ledger.drop_links_of(&key.owned(None)))
    }

    /// Takes the guard of one connection down; the policies go with the last name.
    pub(super) fn unguard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        let Some(guarded) = self.guards.get_mut(&spec.selectors) else { return Ok(()) };
        guarded.names.remove(&spec.name);
        if !guarded.names.is_empty() {
            return Ok(());
        }
        let items = self.guards.remove(&spec.selectors).map(|guarded| guarded.items).unwrap_or_default();
        self.ledger.unwant_all(&items)
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
        self.ledger.want_all(&policy::pass(pair))?;
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
        self.ledger.unwant_all(&policy::pass(pair))
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
        adapted.and(self.ledger.unwant_all(&obsolete))
    }

    fn adapt(&mut self, pair: &SelectorPair, obsolete: &mut Vec<Item>) -> Result<(), HostError> {
        let items = policy::guard(pair, &self.surroundings);
        self.ledger.want_all(&items)?;
        if let Some(guarded) = self.guards.get_mut(pair) {
            obsolete.append(&mut std::mem::replace(&mut guarded.items, items));
        }
        Ok(())
    }

    /// Puts back what somebody else has removed or changed. Gives how many policies that were.
    pub(super) fn restore(&mut self) -> Result<usize, HostError> {
        self.ledger.restore()
    }

    /// Blocks of an earlier run that nobody has claimed since the start.
    pub(super) fn unclaimed(&self) -> Vec<String> {
        let blocks = self.ledger.unclaimed().filter(|(_, there)| there.verdict == Verdict::Block);
        blocks.map(|(key, _)| key.to_string()).collect()
    }

    /// Removes adopted policies that nobody has claimed since the start.
    pub(super) fn drop_unclaimed(&mut self) -> Result<(), HostError> {
        self.ledger.drop_unclaimed(|_, _| true)
    }

    /// Removes what let traffic into the TUN device; blocks and the other exemptions stay.
    pub(super) fn remove_device_policies(&mut self) -> Result<(), HostError> {
        self.ledger.remove_where(is_of_device)
    }

    /// Removes everything of ours.
    pub(super) fn remove_all(&mut self) -> Result<(), HostError> {
        self.guards.clear();
        self.passes.clear();
        self.ledger.remove_all()
    }
}

/// Whether it lets traffic into the TUN device.
fn is_of_device(key: &PolicyKey, there: &Installed) -> bool {
    let first = there.verdict == Verdict::Allow && there.priority == *PRIORITIES.start();
    first && (key.link > LOOPBACK || key.mark.is_some())
}
