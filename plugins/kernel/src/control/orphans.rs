//! What an earlier run left in the kernel when it was killed.
//!
//! Its SAs carry traffic on: the peer knows nothing of the crash. They are found by the journal, its policies by their indexes. A policy is taken over in
//! place by the new run's of the same selector, without a gap: an outbound one once the new SA is activated, or at once by a trap, for if the peer
//! is gone too nothing else would ever ask for a new one. From then on the SAs it pointed at, and those of their group, have a last while for
//! what is still on its way. SAs that nobody replaces end at their hard limit, which the kernel watches; policies go with them, and the guard behind
//! them holds. Bypasses go at once, for the configuration may not have them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipsec::{Direction, SaMode};
use offload_host::xfrm::{Verdict, Way};

use super::policies::is_ours;
use super::{Control, Due};
use crate::config::StartError;
use crate::journal::Left;
use crate::xfrm::{Policy, StateId};

/// How long an SA that was replaced still hears what is on its way: the peer switches when it has the new one, and old packets may be late.
const LINGER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    sas: BTreeMap<StateId, Orphan>,
    /// Groups whose SAs are about to go, by number.
    parting: BTreeMap<u64, u32>,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Orphan {
    direction: Direction,
    reqid: u32,
}

impl Control {
    /// Finds what is left of an earlier run.
    ///
    /// # Errors
    /// The kernel's refusal to tell.
    pub(super) fn adopt(&mut self, left: &Left) -> Result<(), StartError> {
        for state in self.xfrm.states()? {
            self.shared.note_foreign(state.id.spi);
            let Some((direction, reqid)) = left.sas.get(&state.id).copied() else { continue };
            if state.reqid == reqid {
                self.orphans.sas.insert(state.id, Orphan { direction, reqid });
            }
        }
        let gone: Vec<StateId> = left.sas.keys().filter(|id| !self.orphans.sas.contains_key(id)).copied().collect();
        gone.iter().for_each(|id| self.journal.removed(id));
        for policy in self.xfrm.policies()?.into_iter().filter(is_ours) {
            if policy.template.is_none() && policy.verdict == Verdict::Allow {
                self.xfrm.delete_policy(&policy.key, policy.index)?;
            } else {
                self.policies.adopt(policy);
            }
        }
        let policies = self.policies.left().count();
        if policies + self.orphans.sas.len() > 0 {
            tracing::warn!(
                sas = self.orphans.sas.len(),
                policies,
                "an earlier run left SAs and policies in the kernel: they carry traffic until they are replaced"
            );
        }
        Ok(())
    }

    /// The groups of earlier SAs that no policy of an earlier run uses any more have been replaced.
    pub(super) fn after_activation(&mut self) {
        if !self.policies.left_has_changed() || self.orphans.sas.is_empty() {
            return;
        }
        let used: BTreeSet<u32> =
            self.policies.left().filter(|left| left.key.way == Way::Out).filter_map(group).collect();
        let parting: BTreeSet<u32> = self.orphans.parting.values().copied().collect();
        let replaced: BTreeSet<u32> = self.orphans.sas.values().map(|orphan| orphan.reqid).collect();
        let at = self.now() + LINGER;
        for group in replaced.difference(&used).filter(|group| !parting.contains(group)) {
            self.orphans.count += 1;
            self.orphans.parting.insert(self.orphans.count, *group);
            self.schedule(at, Due::Orphan(self.orphans.count));
        }
    }

    /// The last while of a group is over.
    pub(super) fn drop_orphan(&mut self, number: u64) {
        if let Some(group) = self.orphans.parting.remove(&number) {
            self.drop_orphans(|orphan| orphan == group);
        }
    }

    fn drop_orphans(&mut self, goes: impl Fn(u32) -> bool) {
        let gone: Vec<StateId> =
            self.orphans.sas.iter().filter(|(_, orphan)| goes(orphan.reqid)).map(|(id, _)| *id).collect();
        let keys = self.policies.forget_left(|left| group(left).is_some_and(&goes));
        self.repair(keys);
        for id in gone {
            self.orphans.sas.remove(&id);
            match self.xfrm.delete_state(&id) {
                Ok(_) => self.journal.removed(&id),
                Err(error) => tracing::error!(spi = %id.spi, %error, "cannot delete an SA of an earlier run"),
            }
        }
    }

    /// An SA of an earlier run has reached its end, or somebody has deleted it. With the last outbound one of its group go their policies.
    pub(super) fn orphan_gone(&mut self, id: &StateId) {
        let Some(gone) = self.orphans.sas.remove(id) else { return };
        self.journal.removed(id);
        let serves = |orphan: &&Orphan| orphan.reqid == gone.reqid && orphan.direction == Direction::Outbound;
        if self.orphans.sas.values().any(|orphan| serves(&orphan)) {
            return;
        }
        let keys = self.policies.forget_left(|left| group(left) == Some(gone.reqid));
        self.repair(keys);
    }

    /// What nobody has claimed, in words.
    pub(super) fn unclaimed(&self) -> Vec<String> {
        let sas = self.orphans.sas.keys().map(|id| format!("SA {} to {}", id.spi, id.destination));
        self.policies.left().map(|left| left.key.to_string()).chain(sas).collect()
    }

    /// Takes it out.
    pub(super) fn drop_unclaimed(&mut self) {
        let keys = self.policies.forget_left(|_| true);
        self.repair(keys);
        self.orphans.parting.clear();
        self.drop_orphans(|_| true);
    }
}

/// The group of the SAs that a policy of an earlier run uses.
fn group(left: &Policy) -> Option<u32> {
    left.template
        .filter(|template| matches!(template.mode, SaMode::Tunnel | SaMode::Transport))
        .map(|template| template.reqid.0)
}
