//! The kernel's policies, made what the books say: see [`super::policies`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipsec::{
    Direction, Event, OffloadError, OffloadMode, PacketSelectors, PolicyAction, Reqid, SaHandle, SaMode, SelectorPair,
};
use offload_host::xfrm::{PolicyKey, Verdict};

use super::Control;
use super::apply::{Undo, Work};
use super::policies::Entry;
use super::sas::told;
use crate::refusal::Asked;
use crate::xfrm::{Policy, Template, XfrmError};

/// What the kernel is to have for a key.
enum Wanted {
    Nothing,
    /// What an earlier run left.
    Left,
    Policy(Policy),
}

impl Control {
    /// Has the kernel hold what the books say, for the keys that were touched: what is new or changed in their order, then what goes.
    pub(super) fn sync_dirty(&mut self, work: &mut Work) -> Result<(), OffloadError> {
        let mut seen = BTreeSet::new();
        let dirty: Vec<PolicyKey> = work.dirty.drain(..).filter(|key| seen.insert(*key)).collect();
        let mut obsolete = Vec::new();
        for key in dirty {
            match self.wanted(&key) {
                Wanted::Left => {}
                Wanted::Policy(policy) => self.install(key, policy, work)?,
                Wanted::Nothing => obsolete.push(key),
            }
        }
        obsolete.into_iter().try_for_each(|key| self.uninstall(key, work))
    }

    fn install(&mut self, key: PolicyKey, mut policy: Policy, work: &mut Work) -> Result<(), OffloadError> {
        let there = self.policies.installed_for(&key).copied();
        policy.index = match &there {
            Some(there) => there.index,
            None => self.policies.free_index(key.way),
        };
        let left = self.policies.left_for(&key);
        if there == Some(policy) {
            if left.is_some() {
                work.undo.push(Undo::Kernel(key, there, left));
                self.policies.claim_left(&key);
            }
            return Ok(());
        }
        if policy.device.is_some()
            && let Some(device) = self.policies.owner(&key).map(|owner| owner.spec.device)
        {
            self.bypass_ike(device)?;
        }
        work.undo.push(Undo::Kernel(key, there, left));
        self.put(&policy, there.is_some()).map_err(|error| self.asked(&policy).refused(error))?;
        self.policies.note(key, Some(policy));
        Ok(())
    }

    /// Puts a policy into the kernel. One that is to be in a device is read back: some kernels ignore the device.
    pub(super) fn put(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError> {
        self.xfrm.put_policy(policy, replace)?;
        self.policies.expect_change(policy.key);
        if policy.device.is_none() {
            return Ok(());
        }
        let found = self.xfrm.policy(&policy.key);
        if matches!(&found, Ok(Some(found)) if found.device == policy.device) {
            return Ok(());
        }
        if replace {
            // What was there is gone: whoever goes back has to put it there again.
            self.policies.note(policy.key, Some(Policy { device: None, ..*policy }));
        } else {
            self.delete(&policy.key, policy.index)?;
        }
        found.and(Err(XfrmError::Ignored("the device: it holds the policy in software")))
    }

    fn delete(&mut self, key: &PolicyKey, index: u32) -> Result<(), XfrmError> {
        if self.xfrm.delete_policy(key, index)? {
            self.policies.expect_change(*key);
        }
        Ok(())
    }

    fn asked(&self, policy: &Policy) -> Asked {
        let owner = self.policies.owner(&policy.key).map(|owner| &owner.spec);
        let device = owner.and_then(|spec| self.devices.get(spec.device).ok());
        let rung = if policy.device.is_some() { OffloadMode::Packet } else { OffloadMode::No };
        let there = |there: &&Policy| there.device.is_some() && there.device == policy.device;
        let held = self.policies.installed().filter(there).count();
        Asked {
            device: device.map_or_else(|| crate::kernel::NAME.into(), |device| Arc::clone(&device.name)),
            what: format!("policy {}", policy.key),
            table: "SPD",
            held: u32::try_from(held).unwrap_or(u32::MAX),
            rung,
            v4: policy.key.source.address().is_ipv4(),
        }
    }

    fn uninstall(&mut self, key: PolicyKey, work: &mut Work) -> Result<(), OffloadError> {
        let Some(there) = self.policies.installed_for(&key).copied() else {
            self.policies.note(key, None);
            return Ok(());
        };
        self.delete(&key, there.index).map_err(|error| told(&format!("delete policy {key}"), &error))?;
        work.undo.push(Undo::Kernel(key, Some(there), self.policies.left_for(&key)));
        self.policies.note(key, None);
        Ok(())
    }

    /// Goes back to what the kernel had for a key.
    pub(super) fn restore_kernel(
        &mut self,
        key: PolicyKey,
        before: Option<Policy>,
        left: Option<Policy>,
    ) -> Result<(), XfrmError> {
        let now = self.policies.installed_for(&key).copied();
        match (before, now) {
            (Some(before), now) if now != Some(before) => self.put(&before, now.is_some())?,
            (None, Some(now)) => self.delete(&key, now.index)?,
            (Some(_) | None, _) => {}
        }
        self.policies.note(key, before);
        self.policies.restore_left(key, left);
        Ok(())
    }

    /// Has the policies that use an SA follow what became of it.
    pub(super) fn refresh_users(&mut self, sa: SaHandle) {
        let gone = self.sas.get(sa).is_none();
        let mut work = Work::default();
        for policy in self.policies.users_of(sa) {
            if gone {
                self.set_active(policy, None, &mut work);
            } else if let Some(entry) = self.policies.get(policy) {
                work.dirty.extend(entry.keys.iter().copied());
            }
        }
        if let Err(error) = self.sync_dirty(&mut work) {
            tracing::error!(%error, "cannot block the traffic of an SA that is gone");
        }
    }

    /// Makes the kernel right for keys that were found wrong; gives how many could not be.
    pub(super) fn repair(&mut self, keys: impl IntoIterator<Item = PolicyKey>) -> usize {
        let mut failed = 0;
        for key in keys {
            let mut work = Work { dirty: vec![key], ..Work::default() };
            if let Err(error) = self.sync_dirty(&mut work) {
                tracing::error!(%key, %error, "cannot put a policy back");
                failed += 1;
            }
        }
        failed
    }

    /// What the kernel is to have for a key.
    fn wanted(&self, key: &PolicyKey) -> Wanted {
        let (claims, left) = (self.policies.claims(key), self.policies.left_for(key));
        let pending = |owner: &Entry| owner.protects_outbound() && owner.active.is_none();
        match claims.first() {
            None if left.is_some() => Wanted::Left,
            None => Wanted::Nothing,
            Some(owner) if pending(owner) && left.is_some() => Wanted::Left,
            Some(owner) if pending(owner) && owner.in_device() && self.would_hide(owner) => Wanted::Nothing,
            Some(owner) => Wanted::Policy(self.policy(key, owner, &claims, left.as_ref())),
        }
    }

    /// The form in which the kernel is to have the policy that owns a key.
    fn policy(&self, key: &PolicyKey, owner: &Entry, claims: &[&Entry], left: Option<&Policy>) -> Policy {
        let device = self.link_holding(&owner.spec);
        let policy = |verdict, template| Policy {
            key: *key,
            priority: owner.spec.priority,
            index: 0,
            verdict,
            template,
            device,
            per_cpu: false,
        };
        match &owner.spec.action {
            PolicyAction::Bypass => policy(Verdict::Allow, None),
            PolicyAction::Discard => closed(policy, key, SaMode::Tunnel, owner.group),
            PolicyAction::Trap { mode, .. } => policy(Verdict::Allow, Some(trap_template(key, *mode, owner.group))),
            PolicyAction::Protect { mode, .. } if owner.spec.direction == Direction::Outbound => {
                match owner.active.and_then(|sa| self.sas.get(sa)).filter(|sa| sa.hard.is_none() && !sa.astray) {
                    Some(sa) => {
                        let template = Template {
                            source: sa.outer.local,
                            destination: sa.outer.remote,
                            spi: Some(sa.id.spi),
                            reqid: sa.reqid,
                            mode: sa.encloses,
                            optional: false,
                        };
                        policy(Verdict::Allow, Some(template))
                    }
                    None => closed(policy, key, *mode, owner.group),
                }
            }
            PolicyAction::Protect { .. } => policy(Verdict::Allow, inbound_template(claims, left)),
        }
    }

    /// Whether a blocking policy in a device, whose SA is still to be activated, would stop what a policy in software carries now: those in a device
    /// are looked up first.
    fn would_hide(&self, pending: &Entry) -> bool {
        let carries = |entry: &Entry| entry.is_trap() || entry.active.is_some();
        let hidden = |entry: &Entry| carries(entry) && overlap(&entry.spec.selectors, &pending.spec.selectors);
        self.policies.in_software().any(hidden)
    }

    /// The kernel asks for an SA. Only traps do: what protects points at its SA or blocks.
    pub(super) fn acquire(&mut self, index: u32, packet: PacketSelectors) {
        let Some(owner) = self.policies.key_of(index).and_then(|key| self.policies.owner(&key)) else { return };
        let policy = owner.spec.handle;
        if !owner.is_trap() || !self.policies.ask(policy, self.now(), self.settings.acquire_age()) {
            return;
        }
        self.reports.event(Event::Acquire { policy, packet });
    }
}

/// A policy that lets nothing pass. A device takes none without template for everything of a family (mlx5 wants an address or a protocol): there it
/// asks for an SA that nobody makes.
fn closed(policy: impl Fn(Verdict, Option<Template>) -> Policy, key: &PolicyKey, mode: SaMode, group: u32) -> Policy {
    let blocking = policy(Verdict::Block, None);
    let everything = key.source.length() == 0 && key.destination.length() == 0 && key.protocol == 0;
    if blocking.device.is_none() || !everything {
        return blocking;
    }
    policy(Verdict::Allow, Some(trap_template(key, mode, group)))
}

/// Names no SA and no address, so that what waits for one lies beside no SA, and goes by itself. Without an address the kernel would look for a route.
fn trap_template(key: &PolicyKey, mode: SaMode, group: u32) -> Template {
    let v4 = key.source.address().is_ipv4();
    let (source, destination): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into())
    } else {
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
    };
    Template { source, destination, spi: None, reqid: Reqid(group), mode, optional: false }
}

/// What inbound and forward policies of one key have in common, that of an earlier run included.
fn inbound_template(ranked: &[&Entry], left: Option<&Policy>) -> Option<Template> {
    let of = |entry: &&Entry| match entry.spec.action {
        PolicyAction::Protect { reqid, mode, outer, .. } => {
            Some(Template { source: outer.remote, destination: outer.local, spi: None, reqid, mode, optional: false })
        }
        PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
    };
    let mut all = ranked.iter().filter_map(of).chain(left.and_then(|left| left.template));
    let first = all.next()?;
    Some(all.filter(|other| other.mode == first.mode).fold(first, |one, other| Template {
        source: open_unless_equal(one.source, other.source),
        destination: open_unless_equal(one.destination, other.destination),
        reqid: if one.reqid == other.reqid { one.reqid } else { Reqid(0) },
        ..one
    }))
}

fn open_unless_equal(one: IpAddr, other: IpAddr) -> IpAddr {
    match (one == other, one) {
        (true, _) => one,
        (false, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (false, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn overlap(one: &SelectorPair, other: &SelectorPair) -> bool {
    one.local.intersection(&other.local).is_some() && one.remote.intersection(&other.remote).is_some()
}
