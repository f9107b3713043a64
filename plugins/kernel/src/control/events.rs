//! What the kernel tells by itself.
//!
//! It tells of our own changes too, and of what we delete only after we have forgotten it; so what it says about an entry of ours is held against the
//! kernel as it is then. What somebody else has taken away is told; a policy is put back at once, an SA cannot be: its key is not kept. When the
//! kernel had to drop messages everything is compared.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipsec::{Direction, Event};
use offload_host::xfrm::PolicyKey;

use super::Control;
use crate::xfrm::{KernelEvent, Policy, StateId};

impl Control {
    /// Takes in what the kernel has told.
    pub(crate) fn heard(&mut self, event: KernelEvent) {
        if self.closed {
            return;
        }
        match event {
            KernelEvent::Acquire { index, packet, .. } => self.acquire(index, packet),
            KernelEvent::Expired { id, hard, bytes, packets } => self.expired(&id, hard, bytes, packets),
            KernelEvent::StateAdded(id) => self.state_added(&id),
            KernelEvent::StateDeleted(id) => self.state_deleted(&id),
            KernelEvent::PolicyChanged(key) | KernelEvent::PolicyDeleted(key) => self.policy_changed(&key),
            KernelEvent::StatesFlushed | KernelEvent::PoliciesFlushed | KernelEvent::Lost => self.resynchronise(),
            KernelEvent::Mapping { id, remote } => self.mapping_changed(&id, remote),
        }
    }

    fn expired(&mut self, id: &StateId, hard: bool, bytes: u64, packets: u64) {
        match self.sas.by_id(id) {
            Some(handle) => self.limit_reached(handle, hard, bytes, packets),
            None if hard => self.orphan_gone(id),
            None => {}
        }
    }

    /// Others' SAs at this host take SPIs that ours cannot have then.
    fn state_added(&mut self, id: &StateId) {
        if self.sas.by_id(id).is_none() {
            self.shared.note_foreign(id.spi);
        }
    }

    fn state_deleted(&mut self, id: &StateId) {
        let Some(handle) = self.sas.by_id(id) else { return self.orphan_gone(id) };
        match self.xfrm.state(id) {
            // It is of one that had its name before.
            Ok(Some(_)) => {}
            Ok(None) => self.lost(handle),
            Err(error) => {
                tracing::warn!(%error, "whether an SA is still in the kernel is not known");
                self.reports.event(Event::Resync);
            }
        }
    }

    fn policy_changed(&mut self, key: &PolicyKey) {
        if self.policies.own_change(key) {
            return;
        }
        let Some(ours) = self.policies.installed_for(key).copied() else { return };
        match self.xfrm.policy(key) {
            Ok(found) if found.is_some_and(|found| same(&found, &ours)) => {}
            Ok(_) => {
                tracing::warn!(policy = %key, "somebody else has changed or removed a policy of ours: it is put back");
                self.put_back(&[ours.key]);
                self.reports.event(Event::Resync);
            }
            Err(error) => {
                tracing::warn!(%error, "whether a policy is still in the kernel is not known");
                self.reports.event(Event::Resync);
            }
        }
    }

    fn put_back(&mut self, keys: &[PolicyKey]) {
        for key in keys {
            let Some(ours) = self.policies.installed_for(key).copied() else { continue };
            let there = self.xfrm.policy(key).ok().flatten();
            // What stands in its place is taken over, with its index.
            let policy = Policy { index: there.map_or(ours.index, |there| there.index), ..ours };
            self.policies.forget_key(key);
            if let Some(there) = there {
                self.policies.take_over(there);
            }
            if self.repair([*key]) > 0 {
                tracing::error!(policy = %policy.key, "traffic of this policy meets the guard alone");
            }
        }
    }

    /// Something may have been missed: what is there is held against the books.
    pub(super) fn resynchronise(&mut self) {
        self.policies.expect_nothing();
        if let Err(error) = self.read_all() {
            tracing::warn!(%error, "cannot compare SAs with the kernel");
        }
        match self.xfrm.policies() {
            Ok(found) => self.compare_policies(&found),
            Err(error) => tracing::warn!(%error, "cannot compare policies with the kernel"),
        }
        self.reports.event(Event::Resync);
    }

    fn compare_policies(&mut self, found: &[Policy]) {
        let found: BTreeMap<PolicyKey, &Policy> = found.iter().map(|policy| (policy.key, policy)).collect();
        let stands = |ours: &&Policy| !found.get(&ours.key).is_some_and(|there| same(there, ours));
        let astray: Vec<PolicyKey> = self.policies.installed().filter(stands).map(|ours| ours.key).collect();
        if !astray.is_empty() {
            tracing::warn!(
                policies = astray.len(),
                "somebody else has changed or removed policies of ours: they are put back"
            );
            self.put_back(&astray);
        }
    }

    fn mapping_changed(&mut self, id: &StateId, remote: SocketAddr) {
        let Some(handle) = self.sas.by_id(id) else { return };
        let Some(sa) = self.sas.get_mut(handle).filter(|sa| sa.direction == Direction::Inbound) else { return };
        let remote = SocketAddr::new(unmapped(remote.ip()), remote.port());
        // The kernel tells of each packet until the SA has moved.
        if sa.mapping.replace(remote) != Some(remote) {
            self.reports.event(Event::MappingChange { sa: handle, remote });
        }
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether the kernel has what we gave it.
fn same(found: &Policy, ours: &Policy) -> bool {
    (found.priority, found.verdict, found.template, found.device, found.index)
        == (ours.priority, ours.verdict, ours.template, ours.device, ours.index)
}
