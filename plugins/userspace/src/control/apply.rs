//! Carrying out the operations of one [`Request::Apply`](ipsec::Request::Apply), and undoing them.

use std::cmp::Reverse;
use std::sync::Arc;

use ipsec::{
    Direction, GuardSpec, Instant, ModeInUse, OffloadError, OffloadMode, Op, OuterAddresses, PolicyAction,
    PolicyHandle, PolicySpec, SaHandle, SaMode, SaSpec, Spi, UdpEncapsulation,
};

use super::leaving::{Departed, Leaving};
use super::{Control, Limit, State, inner_mtu, lock};
use crate::crypto;
use crate::engine::Tables;
use crate::nic::{check_outer, effective_limits};
use crate::sad::{OuterPath, Sa};
use crate::spd::{Action, Policy};

/// A policy as asked for and as published.
type PolicyEntry = (PolicySpec, Arc<Policy>);

/// A step back.
enum Undo {
    ForgetSa(SaHandle),
    RestoreSa(Arc<Sa>),
    ForgetPolicy(PolicyHandle),
    RestorePolicy(Box<PolicyEntry>),
    RemoveGuard(GuardSpec),
    RemoveRoute(PolicySpec),
    RemoveOuter(OuterPath),
}

/// What follows a publication.
enum After {
    RemoveRoute(PolicySpec),
    RemoveGuard(GuardSpec),
    RemoveOuter(OuterPath),
    ReleaseSpi(Spi),
}

#[derive(Default)]
pub(super) struct Work {
    undo: Vec<Undo>,
    after: Vec<After>,
    modes: Vec<(SaHandle, ModeInUse)>,
    removed: Vec<Departed>,
}

impl Control {
    pub(super) fn apply(&self, ops: &[Op], now: Instant) -> Result<Leaving, OffloadError> {
        let mut state = self.lock();
        // Without the device nothing new is taken on; what is there can still be changed and removed.
        let installs = ops.iter().any(|op| matches!(op, Op::InstallSa(_)));
        if state.closed || (installs && !state.device_up) {
            return Err(OffloadError::Unavailable(Arc::clone(&self.identity.device)));
        }
        let before = state.tables.clone();
        let mut work = Work::default();
        for op in ops {
            if let Err(error) = self.step(&mut state, op, &mut work, now) {
                state.undo(before, work.undo);
                return Err(error);
            }
        }
        Ok(self.finish(&mut state, work, now))
    }

    /// Publishes what was done and does what follows.
    pub(super) fn finish(&self, state: &mut State, work: Work, now: Instant) -> Leaving {
        self.publish(state);
        for after in work.after {
            self.follow(state, after, now);
        }
        state.trim_deadlines();
        Leaving::new(work.modes, work.removed)
    }

    fn step(&self, state: &mut State, op: &Op, work: &mut Work, now: Instant) -> Result<(), OffloadError> {
        if let Some(error) = state.faults.strikes(op, state.devices.table()) {
            return Err(error);
        }
        match op {
            Op::InstallSa(spec) => self.install_sa(state, spec, work, now),
            Op::UpdateSa { sa, outer, encapsulation } => state.update_sa(*sa, *outer, *encapsulation, work, self),
            Op::RemoveSa(sa) => {
                self.remove_sa(state, *sa, work);
                Ok(())
            }
            Op::InstallPolicy(spec) => {
                if state.policies.contains_key(&spec.handle) {
                    return Err(OffloadError::Exists(format!("policy {}", spec.selectors)));
                }
                self.put_policy(state, spec, work)
            }
            Op::UpdatePolicy(spec) => {
                if !state.policies.contains_key(&spec.handle) {
                    return Err(OffloadError::Missing(format!("policy {}", spec.selectors)));
                }
                self.put_policy(state, spec, work)
            }
            Op::RemovePolicy(policy) => {
                state.remove_policy(*policy, work);
                Ok(())
            }
            Op::Activate { policy, sa } => state.activate(*policy, *sa, work),
            Op::InstallGuard(guard) => {
                state.surroundings.install_guard(guard)?;
                work.undo.push(Undo::RemoveGuard(guard.clone()));
                Ok(())
            }
            Op::RemoveGuard(guard) => {
                work.after.push(After::RemoveGuard(guard.clone()));
                Ok(())
            }
            Op::Flush => {
                let policies: Vec<PolicyHandle> = state.policies.keys().copied().collect();
                policies.into_iter().for_each(|policy| state.remove_policy(policy, work));
                let sas: Vec<SaHandle> = state.sas.keys().copied().collect();
                sas.into_iter().for_each(|sa| self.remove_sa(state, sa, work));
                Ok(())
            }
        }
    }

    fn install_sa(&self, state: &mut State, spec: &SaSpec, work: &mut Work, now: Instant) -> Result<(), OffloadError> {
        let holder = state.devices.place_sa(spec)?;
        let (mode, limits) = (holder.mode().clone(), effective_limits(spec, &holder.rung.capabilities));
        let slot = match spec.direction {
            Direction::Inbound => Some(lock(&self.spis).slot_of(spec.spi).ok_or_else(|| {
                OffloadError::Invalid(format!("SPI {} of an inbound SA is not a reserved one", spec.spi))
            })?),
            Direction::Outbound | Direction::Forward => None,
        };
        let taken = match slot {
            Some(slot) => state.tables.inbound.get(slot).is_some(),
            None => state.outbound_spis.contains(&(spec.spi, spec.outer.remote)),
        };
        if state.sas.contains_key(&spec.handle) || taken {
            return Err(OffloadError::Exists(format!("{:?} SA {}", spec.direction, spec.spi)));
        }
        let key = crypto::key(spec.algorithm, &spec.key)?;
        let spec = SaSpec { limits, ..spec.clone() };
        let path = OuterPath { local: spec.outer.local, remote: spec.outer.remote, encapsulation: spec.encapsulation };
        state.install_outer(path, spec.direction, work)?;
        let mtu = state.mtu_for(&path, spec.direction, spec.mode, &*key);
        let sa = Arc::new(Sa::new(&spec, key, mode.clone(), mtu, now));
        self.follow_route(&sa);
        let (soft, hard) = sa.time_limits();
        state.deadlines.extend(soft.map(|at| Reverse((at, sa.handle, Limit::Soft))));
        state.deadlines.extend(hard.map(|at| Reverse((at, sa.handle, Limit::Hard))));
        if let Some(slot) = slot {
            state.tables.inbound.set(slot, Some(Arc::clone(&sa)));
        }
        state.set_sa(spec.handle, Some(sa));
        work.undo.push(Undo::ForgetSa(spec.handle));
        work.modes.push((spec.handle, mode));
        Ok(())
    }

    pub(super) fn remove_sa(&self, state: &mut State, handle: SaHandle, work: &mut Work) {
        let frozen = state.frozen.get(&handle).cloned();
        let Some(sa) = state.set_sa(handle, None) else { return };
        work.removed.push(Departed::new(&sa, frozen));
        match sa.direction {
            Direction::Inbound => {
                if let Some(slot) = lock(&self.spis).slot_of(sa.spi) {
                    state.tables.inbound.set(slot, None);
                }
                work.after.push(After::ReleaseSpi(sa.spi));
            }
            Direction::Outbound | Direction::Forward => {
                work.after.push(After::RemoveOuter(sa.path));
                let users = state.users_of(handle);
                for user in users {
                    state.replace_action(Policy { action: Action::Protect(None), ..user }, work);
                }
            }
        }
        work.undo.push(Undo::RestoreSa(sa));
    }

    fn put_policy(&self, state: &mut State, spec: &PolicySpec, work: &mut Work) -> Result<(), OffloadError> {
        let old = state.policies.get(&spec.handle).map(|(spec, _)| spec);
        let offload = state.devices.place_policy(spec, old)?;
        let spec = &PolicySpec { offload, ..spec.clone() };
        let action = state.action(spec)?;
        if spec.direction == Direction::Outbound {
            state.surroundings.install_route(spec)?;
            work.undo.push(Undo::RemoveRoute(spec.clone()));
        }
        let old = state.set_policy(spec.handle, None);
        if let Some((old_spec, old_policy)) = &old {
            if let Some(spd) = state.tables.spd(old_spec.direction) {
                spd.remove(old_policy);
            }
            if old_spec.direction == Direction::Outbound {
                work.after.push(After::RemoveRoute(old_spec.clone()));
            }
        }
        state.order += 1;
        let policy = Arc::new(Policy {
            handle: spec.handle,
            name: Arc::clone(&spec.name),
            selectors: spec.selectors,
            in_device: spec.offload == OffloadMode::Packet,
            priority: spec.priority,
            order: state.order,
            serial: state.order,
            action,
            gateway: state.surroundings.address_inside(&spec.selectors),
        });
        if let Some(spd) = state.tables.spd(spec.direction) {
            spd.insert(Arc::clone(&policy));
        }
        state.set_policy(spec.handle, Some((spec.clone(), policy)));
        work.undo.push(match old {
            Some(entry) => Undo::RestorePolicy(Box::new(entry)),
            None => Undo::ForgetPolicy(spec.handle),
        });
        Ok(())
    }

    fn follow(&self, state: &mut State, after: After, now: Instant) {
        let outcome = match after {
            After::RemoveRoute(policy) => state.surroundings.remove_route(&policy),
            After::RemoveGuard(guard) => state.surroundings.remove_guard(&guard),
            After::RemoveOuter(path) => state.surroundings.remove_outer(path.local, path.remote),
            After::ReleaseSpi(spi) => {
                let mut spis = lock(&self.spis);
                // The same request may have put another SA in its place.
                if spis.slot_of(spi).is_none_or(|slot| state.tables.inbound.get(slot).is_none()) {
                    spis.release(spi, now);
                }
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot take back what a removed entry needed");
        }
    }
}

impl State {
    /// Time limits of SAs that are gone stay queued until they come; a peer that makes and ends one SA after the other must not let the queue
    /// grow for as long as lifetimes are. An SA has two at most, so half of a queue that is trimmed is stale.
    fn trim_deadlines(&mut self) {
        if self.deadlines.len() > 4 * self.sas.len() + 64 {
            let sas = &self.sas;
            self.deadlines.retain(|Reverse((_, sa, _))| sas.contains_key(sa));
        }
    }

    fn mtu_for(
        &mut self,
        path: &OuterPath,
        direction: Direction,
        encloses: SaMode,
        key: &dyn ike_crypto::EspKey,
    ) -> usize {
        match direction {
            Direction::Outbound => inner_mtu(path, encloses, key, self.surroundings.path_mtu(path.local, path.remote)),
            Direction::Inbound | Direction::Forward => usize::from(u16::MAX),
        }
    }

    fn install_outer(&mut self, path: OuterPath, direction: Direction, work: &mut Work) -> Result<(), OffloadError> {
        if direction == Direction::Outbound {
            self.surroundings.install_outer(path.local, path.remote)?;
            work.undo.push(Undo::RemoveOuter(path));
        }
        Ok(())
    }

    fn update_sa(
        &mut self,
        handle: SaHandle,
        outer: OuterAddresses,
        encapsulation: Option<UdpEncapsulation>,
        work: &mut Work,
        control: &Control,
    ) -> Result<(), OffloadError> {
        check_outer(outer)?;
        let sa =
            self.sas.get(&handle).cloned().ok_or_else(|| OffloadError::Missing(format!("SA {:x}", handle.raw())))?;
        if sa.encloses == SaMode::Transport && (outer.local, outer.remote) != (sa.path.local, sa.path.remote) {
            return Err(OffloadError::Invalid("an SA in transport mode is bound to its addresses".into()));
        }
        let path = OuterPath { local: outer.local, remote: outer.remote, encapsulation };
        if path != sa.path {
            self.devices.holder(sa.device, sa.mode.mode)?.move_sa(encapsulation.is_some())?;
        }
        self.install_outer(path, sa.direction, work)?;
        let mtu = self.mtu_for(&path, sa.direction, sa.encloses, &*sa.key);
        let moved = Arc::new(sa.moved(path, mtu));
        control.follow_route(&moved);
        match sa.direction {
            Direction::Inbound => {
                if let Some(slot) = lock(&control.spis).slot_of(sa.spi) {
                    self.tables.inbound.set(slot, Some(Arc::clone(&moved)));
                }
            }
            Direction::Outbound | Direction::Forward => {
                work.after.push(After::RemoveOuter(sa.path));
                let users = self.users_of(handle);
                for user in users {
                    self.replace_action(Policy { action: Action::Protect(Some(Arc::clone(&moved))), ..user }, work);
                }
            }
        }
        self.set_sa(handle, Some(moved));
        work.undo.push(Undo::RestoreSa(sa));
        Ok(())
    }

    fn activate(&mut self, handle: PolicyHandle, sa: SaHandle, work: &mut Work) -> Result<(), OffloadError> {
        let sa = self
            .sas
            .get(&sa)
            .filter(|sa| sa.direction == Direction::Outbound)
            .cloned()
            .ok_or_else(|| OffloadError::Missing(format!("outbound SA {:x}", sa.raw())))?;
        let (spec, policy) = self
            .policies
            .get(&handle)
            .filter(|(spec, _)| spec.direction == Direction::Outbound)
            .ok_or_else(|| OffloadError::Missing(format!("outbound policy {:x}", handle.raw())))?;
        let Action::Protect(_) = policy.action else {
            return Err(OffloadError::Invalid("activation of a policy that does not protect".into()));
        };
        self.check_pair(spec, &sa)?;
        self.order += 1;
        let policy = Policy { order: self.order, action: Action::Protect(Some(sa)), ..(**policy).clone() };
        self.replace_action(policy, work);
        Ok(())
    }

    /// Puts a changed version of an outbound policy in place of the old one.
    fn replace_action(&mut self, policy: Policy, work: &mut Work) {
        let Some(old) = self.policies.get(&policy.handle).cloned() else { return };
        let policy = Arc::new(policy);
        self.tables.outbound.remove(&old.1);
        self.tables.outbound.insert(Arc::clone(&policy));
        self.set_policy(policy.handle, Some((old.0.clone(), policy)));
        work.undo.push(Undo::RestorePolicy(Box::new(old)));
    }

    /// A NIC applies to what its own policies match its own SAs only, and software never sees those.
    fn check_pair(&self, policy: &PolicySpec, sa: &Sa) -> Result<(), OffloadError> {
        let in_nic = |mode: OffloadMode| mode == OffloadMode::Packet;
        let fits = match (in_nic(policy.offload), in_nic(sa.mode.mode)) {
            (true, true) => policy.device == sa.device,
            (one, other) => one == other,
        };
        if fits {
            return Ok(());
        }
        let place = |device, in_nic: bool| {
            let name = self.devices.link(device).unwrap_or("no device");
            if in_nic { format!("in {name}") } else { "in software".to_owned() }
        };
        let (policy_at, sa_at) = (place(policy.device, in_nic(policy.offload)), place(sa.device, in_nic(sa.mode.mode)));
        let pair = format!("policy {} is {policy_at}, SA {} {sa_at}", policy.selectors, sa.spi);
        Err(OffloadError::Invalid(format!("{pair}: such a policy finds no such SA")))
    }

    pub(super) fn remove_policy(&mut self, handle: PolicyHandle, work: &mut Work) {
        let Some(entry) = self.set_policy(handle, None) else { return };
        if let Some(spd) = self.tables.spd(entry.0.direction) {
            spd.remove(&entry.1);
        }
        if entry.0.direction == Direction::Outbound {
            work.after.push(After::RemoveRoute(entry.0.clone()));
        }
        work.undo.push(Undo::RestorePolicy(Box::new(entry)));
    }

    fn action(&self, spec: &PolicySpec) -> Result<Action, OffloadError> {
        Ok(match &spec.action {
            PolicyAction::Protect { sa: None, .. } => Action::Protect(None),
            PolicyAction::Protect { sa: Some(sa), .. } => {
                let found = self.sas.get(sa).filter(|sa| sa.direction == Direction::Outbound);
                let missing = || OffloadError::Missing(format!("outbound SA {:x}", sa.raw()));
                let found = found.ok_or_else(missing)?;
                self.check_pair(spec, found)?;
                Action::Protect(Some(Arc::clone(found)))
            }
            PolicyAction::Bypass => Action::Bypass,
            PolicyAction::Discard => Action::Discard,
            PolicyAction::Trap { .. } => Action::Trap,
        })
    }

    /// Puts an SA into the books, or takes it out; returns what was there.
    fn set_sa(&mut self, handle: SaHandle, sa: Option<Arc<Sa>>) -> Option<Arc<Sa>> {
        let name = |sa: &Sa| (sa.direction == Direction::Outbound).then_some((sa.spi, sa.path.remote));
        let inserted = sa.as_deref().and_then(name);
        if let Some(sa) = &sa {
            self.devices.count_sa(sa.device, sa.mode.mode, true);
        }
        let old = match sa {
            Some(sa) => self.sas.insert(handle, sa),
            None => self.sas.remove(&handle),
        };
        if let Some(old) = &old {
            self.devices.count_sa(old.device, old.mode.mode, false);
        }
        if !self.sas.contains_key(&handle) {
            self.frozen.remove(&handle);
        }
        if let Some(gone) = old.as_deref().and_then(name) {
            self.outbound_spis.remove(&gone);
        }
        self.outbound_spis.extend(inserted);
        old
    }

    /// Puts a policy into the books, or takes it out; returns what was there.
    fn set_policy(&mut self, handle: PolicyHandle, entry: Option<PolicyEntry>) -> Option<PolicyEntry> {
        let used = |entry: &PolicyEntry| match &entry.1.action {
            Action::Protect(Some(sa)) => Some(sa.handle),
            Action::Protect(None) | Action::Bypass | Action::Discard | Action::Trap => None,
        };
        let discards = |entry: &PolicyEntry| {
            usize::from(entry.0.direction == Direction::Inbound && matches!(entry.1.action, Action::Discard))
        };
        let (now_used, now_discards) = (entry.as_ref().and_then(used), entry.as_ref().map_or(0, discards));
        if let Some((spec, _)) = &entry {
            self.devices.count_policy(spec.device, spec.offload, true);
        }
        let old = match entry {
            Some(entry) => self.policies.insert(handle, entry),
            None => self.policies.remove(&handle),
        };
        if let Some((spec, _)) = &old {
            self.devices.count_policy(spec.device, spec.offload, false);
        }
        if let Some(sa) = old.as_ref().and_then(used)
            && let Some(users) = self.users.get_mut(&sa)
        {
            users.remove(&handle);
            if users.is_empty() {
                self.users.remove(&sa);
            }
        }
        if let Some(sa) = now_used {
            self.users.entry(sa).or_default().insert(handle);
        }
        self.inbound_discards = self.inbound_discards + now_discards - old.as_ref().map_or(0, discards);
        self.tables.inbound_discards = self.inbound_discards > 0;
        old
    }

    /// The outbound policies that use an SA.
    fn users_of(&self, sa: SaHandle) -> Vec<Policy> {
        let users = self.users.get(&sa).into_iter().flatten();
        users.filter_map(|handle| self.policies.get(handle)).map(|(_, policy)| (**policy).clone()).collect()
    }

    /// Goes back to `tables` and undoes the rest, newest first.
    fn undo(&mut self, tables: Tables, steps: Vec<Undo>) {
        self.tables = tables;
        for step in steps.into_iter().rev() {
            let outcome = match step {
                Undo::ForgetSa(sa) => {
                    self.set_sa(sa, None);
                    Ok(())
                }
                Undo::RestoreSa(sa) => {
                    self.set_sa(sa.handle, Some(sa));
                    Ok(())
                }
                Undo::ForgetPolicy(policy) => {
                    self.set_policy(policy, None);
                    Ok(())
                }
                Undo::RestorePolicy(entry) => {
                    self.set_policy(entry.1.handle, Some(*entry));
                    Ok(())
                }
                Undo::RemoveGuard(guard) => self.surroundings.remove_guard(&guard),
                Undo::RemoveRoute(policy) => self.surroundings.remove_route(&policy),
                Undo::RemoveOuter(path) => self.surroundings.remove_outer(path.local, path.remote),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "cannot undo a step of a refused request");
            }
        }
    }
}

impl Tables {
    fn spd(&mut self, direction: Direction) -> Option<&mut crate::spd::Spd> {
        match direction {
            Direction::Outbound => Some(&mut self.outbound),
            Direction::Inbound => Some(&mut self.inbound_policies),
            // The tunnel device hands forwarded packets to the kernel like any others: the inbound entry covers them.
            Direction::Forward => None,
        }
    }
}
