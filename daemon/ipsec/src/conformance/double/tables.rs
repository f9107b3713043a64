//! Books of the double, and the operations that change them.

use std::collections::{BTreeMap, BTreeSet};

use super::datapath::State;
use super::fault::Fault;
use super::sad::Sa;
use crate::algorithm::EspAlgorithm;
use crate::backend::{Applied, Installed, OffloadError, Op, PolicyStatus, SaStatus, Scope};
use crate::capability::{Capabilities, Device, DeviceState, Rung, SelectorSupport};
use crate::handle::{DeviceId, PolicyHandle, SaHandle, Spi};
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::{Direction, ModeInUse, OffloadMode, OuterAddresses, SaMode, SaSpec, UdpEncapsulation};
use crate::selector::TrafficSelector;
use crate::tags::Tags;

/// SAD and SPD.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) sas: BTreeMap<SaHandle, Sa>,
    pub(super) policies: BTreeMap<PolicyHandle, Policy>,
}

/// An SPD entry.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) spec: PolicySpec,
    pub(super) mode: ModeInUse,
    /// Outbound SA in use.
    pub(super) sa: Option<SaHandle>,
    /// One that is used after the next packet: a mistake.
    pub(super) late: Option<SaHandle>,
    /// Counts installs, updates and activations.
    pub(super) order: u64,
    /// Changes when the entry is touched, which arms a trap again.
    pub(super) serial: u64,
}

impl State {
    /// All or nothing.
    pub(super) fn apply(&mut self, ops: &[Op]) -> Result<Applied, OffloadError> {
        let ops = self.misread(ops);
        let before = (self.books.clone(), self.guards.clone());
        let mut applied = Applied::default();
        for op in &ops {
            if let Err(error) = self.step(op, &mut applied) {
                self.undo(before, &ops);
                let swallowed = self.is(Fault::SwallowsRefusal) && matches!(error, OffloadError::System { .. });
                return if swallowed { Ok(applied) } else { Err(error) };
            }
        }
        let kept: BTreeSet<Spi> = self.inbound_spis();
        let gone = before.0.sas.into_values().filter(|sa| sa.spec.direction == Direction::Inbound);
        gone.filter(|sa| !kept.contains(&sa.spec.spi)).for_each(|sa| self.spis.release(sa.spec.spi));
        Ok(applied)
    }

    /// Goes back to what was there before these operations.
    fn undo(&mut self, before: (Books, BTreeSet<GuardSpec>), ops: &[Op]) {
        let after = std::mem::take(&mut self.books);
        (self.books, self.guards) = before;
        if self.is(Fault::HalfUndone) {
            self.books.policies = after.policies;
        }
        if self.is(Fault::HalfMoved) {
            for (handle, sa) in &mut self.books.sas {
                sa.spec.outer = after.sas.get(handle).map_or(sa.spec.outer, |sa| sa.spec.outer);
            }
        }
        for op in ops {
            if let Op::InstallSa(spec) = op
                && spec.direction == Direction::Inbound
            {
                self.spis.refused(spec.spi);
            }
        }
    }

    fn inbound_spis(&self) -> BTreeSet<Spi> {
        let inbound = self.books.sas.values().filter(|sa| sa.spec.direction == Direction::Inbound);
        inbound.map(|sa| sa.spec.spi).collect()
    }

    fn step(&mut self, op: &Op, applied: &mut Applied) -> Result<(), OffloadError> {
        self.refuses_wrongly(op)?;
        match op {
            Op::InstallSa(spec) => {
                let mode = self.install_sa(spec)?;
                applied.modes.push((spec.handle, mode));
            }
            Op::UpdateSa { sa, outer, encapsulation } => self.update_sa(*sa, *outer, *encapsulation)?,
            Op::RemoveSa(sa) => applied.removed.extend(self.remove_sa(*sa)),
            Op::InstallPolicy(spec) => {
                if self.books.policies.contains_key(&spec.handle) && !self.is(Fault::AcceptsTwins) {
                    return Err(OffloadError::Exists(format!("policy {}", spec.selectors)));
                }
                self.put_policy(spec)?;
            }
            Op::UpdatePolicy(spec) => {
                if self.books.policies.remove(&spec.handle).is_none() {
                    return Err(OffloadError::Missing(format!("policy {}", spec.selectors)));
                }
                self.put_policy(spec)?;
            }
            Op::RemovePolicy(policy) => {
                self.books.policies.remove(policy);
            }
            Op::Activate { .. } if self.is(Fault::ActivatesAnything) => self.try_activate(op),
            Op::Activate { policy, sa } => self.activate(*policy, *sa)?,
            Op::InstallGuard(guard) => {
                self.guards.insert(guard.clone());
            }
            Op::RemoveGuard(guard) => {
                self.guards.remove(guard);
            }
            Op::Flush if self.is(Fault::FlushesPoliciesOnly) => self.books.policies.clear(),
            Op::Flush => self.books = Books::default(),
        }
        Ok(())
    }

    fn device(&self, id: DeviceId) -> Result<&Device, OffloadError> {
        let first = self.devices.devices.first().filter(|_| self.is(Fault::TakesAnyDevice));
        let found = self.devices.get(id).or(first);
        let device = found.ok_or_else(|| OffloadError::Missing(format!("device {}", id.0)))?;
        match device.state {
            DeviceState::Up => Ok(device),
            DeviceState::Down | DeviceState::Gone => Err(OffloadError::Unavailable(device.name.clone())),
        }
    }

    /// The rung of what `check` lets pass.
    fn rung(
        &self,
        id: DeviceId,
        wanted: OffloadMode,
        check: impl Fn(&Capabilities) -> Result<(), (String, &'static str)>,
    ) -> Result<Rung, OffloadError> {
        let device = self.device(id)?;
        if wanted == OffloadMode::Auto && !self.is(Fault::TakesAuto) {
            return Err(OffloadError::Invalid("auto is no rung: it is chosen before".into()));
        }
        let wanted = if wanted == OffloadMode::Auto { OffloadMode::No } else { wanted };
        let refused = |(what, reason): (String, &str)| OffloadError::Unsupported {
            device: device.name.clone(),
            what,
            reason: reason.into(),
        };
        let missing = || refused((format!("hw_offload = {wanted:?}"), "the device has no such rung"));
        let found = device.rung(wanted).ok_or_else(missing).and_then(|rung| {
            check(&rung.capabilities).map_err(refused)?;
            Ok(rung.clone())
        });
        match (found, device.rung(OffloadMode::No)) {
            (Err(_), Some(software)) if self.is(Fault::SilentSoftwareFallback) => Ok(software.clone()),
            (found, _) => found,
        }
    }

    fn install_sa(&mut self, spec: &SaSpec) -> Result<ModeInUse, OffloadError> {
        check_shape(spec)?;
        if !spec.key.fits(spec.algorithm) && !self.is(Fault::TakesAnyKey) {
            return Err(OffloadError::Invalid("the key does not fit the algorithm".into()));
        }
        let rung = self.rung(spec.device, spec.offload, |rung| check_sa(rung, spec))?;
        let same = |other: &Sa| {
            let remote = spec.direction == Direction::Inbound || other.spec.outer.remote == spec.outer.remote;
            other.spec.direction == spec.direction && other.spec.spi == spec.spi && remote
        };
        let taken = self.books.sas.contains_key(&spec.handle) || self.books.sas.values().any(same);
        if taken && !self.is(Fault::AcceptsTwins) {
            return Err(OffloadError::Exists(format!("{:?} SA {}", spec.direction, spec.spi)));
        }
        let held = self.books.sas.values().filter(|sa| sa.spec.device == spec.device && sa.mode == rung.mode).count();
        self.has_room(spec.device, "SAD", rung.capabilities.sa_table, held)?;
        if std::mem::take(&mut self.refuse_next) {
            let action = format!("give the device SA {}", spec.spi);
            return Err(OffloadError::System { action, reason: "refused on request".into() });
        }
        if self.is(Fault::OneInboundOnly) && spec.direction == Direction::Inbound {
            self.books.sas.retain(|_, sa| sa.spec.direction != Direction::Inbound);
        }
        self.books
            .sas
            .insert(spec.handle, Sa::new(spec.clone(), rung.mode.clone(), rung.capabilities.limits, self.now));
        Ok(rung.mode)
    }

    fn has_room(
        &self,
        device: DeviceId,
        table: &'static str,
        size: Option<u32>,
        held: usize,
    ) -> Result<(), OffloadError> {
        match size {
            Some(size) if held >= size as usize && !self.is(Fault::OverfullTable) => {
                Err(OffloadError::Full { device: self.device(device)?.name.clone(), table, size })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn update_sa(
        &mut self,
        handle: SaHandle,
        outer: OuterAddresses,
        encapsulation: Option<UdpEncapsulation>,
    ) -> Result<(), OffloadError> {
        let missing = || OffloadError::Missing(format!("SA {:x}", handle.raw()));
        let sa = self.books.sas.get(&handle).ok_or_else(missing)?;
        let moved = SaSpec { outer, encapsulation, ..sa.spec.clone() };
        check_shape(&moved)?;
        if moved.mode == SaMode::Transport && sa.spec.outer != outer {
            return Err(OffloadError::Invalid("an SA in transport mode is bound to its addresses".into()));
        }
        self.rung(moved.device, sa.mode.mode, |rung| match rung.in_place_move {
            true => check_sa(rung, &moved),
            false => Err(("a move of an SA".into(), "its addresses are fixed once it is installed")),
        })?;
        let start_over = self.is(Fault::MoveStartsOver);
        if let Some(sa) = self.books.sas.get_mut(&handle) {
            (sa.spec, sa.form_told, sa.remote_told) = (moved, false, None);
            if start_over {
                sa.start_over();
            }
        }
        Ok(())
    }

    /// Gives its last state.
    fn remove_sa(&mut self, handle: SaHandle) -> Option<SaStatus> {
        let gone = self.books.sas.remove(&handle).map(|sa| sa.status(self.now));
        for policy in self.books.policies.values_mut() {
            policy.sa = policy.sa.filter(|sa| *sa != handle);
            policy.late = policy.late.filter(|sa| *sa != handle);
        }
        gone
    }

    fn put_policy(&mut self, spec: &PolicySpec) -> Result<(), OffloadError> {
        if spec.selectors.local.addresses.is_ipv4() != spec.selectors.remote.addresses.is_ipv4() {
            return Err(OffloadError::Invalid(format!("{} mixes address families", spec.selectors)));
        }
        if let PolicyAction::Protect { mode: SaMode::Transport, outer, .. } = spec.action
            && !spec.selectors.is_between(outer)
        {
            return Err(OffloadError::Invalid(format!("transport mode cannot carry {}", spec.selectors)));
        }
        let rung = self.rung(spec.device, spec.offload, |rung| check_policy(rung, spec))?;
        let same = |other: &&Policy| other.spec.device == spec.device && other.mode == rung.mode;
        let held = self.books.policies.values().filter(same).count();
        self.has_room(spec.device, "SPD", rung.capabilities.policy_table, held)?;
        let sa = match spec.action {
            PolicyAction::Protect { sa, .. } => sa,
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
        };
        if let Some(sa) = sa {
            self.check_use(sa, spec.device, &rung.mode)?;
        }
        self.order += 1;
        let (order, serial) = (self.order, self.order);
        let policy = Policy { spec: spec.clone(), mode: rung.mode, sa, late: None, order, serial };
        self.books.policies.insert(spec.handle, policy);
        Ok(())
    }

    /// Whether a policy of this device and mode may use an SA.
    fn check_use(&self, handle: SaHandle, device: DeviceId, mode: &ModeInUse) -> Result<(), OffloadError> {
        let outbound = self.books.sas.get(&handle).filter(|sa| sa.spec.direction == Direction::Outbound);
        let sa = outbound.ok_or_else(|| OffloadError::Missing(format!("outbound SA {:x}", handle.raw())))?;
        if (sa.spec.device, &sa.mode) == (device, mode) || self.is(Fault::WrongDevice) {
            return Ok(());
        }
        Err(OffloadError::Invalid(format!("SA {} and its policy are in different tables", sa.spec.spi)))
    }

    /// Activates where that is possible, and says nothing where it is not: a mistake.
    fn try_activate(&mut self, op: &Op) {
        if let Op::Activate { policy, sa } = op {
            let _ = self.activate(*policy, *sa);
        }
    }

    fn activate(&mut self, handle: PolicyHandle, sa: SaHandle) -> Result<(), OffloadError> {
        let missing = || OffloadError::Missing(format!("policy {:x}", handle.raw()));
        let policy = self.books.policies.get(&handle).ok_or_else(missing)?;
        let protects = matches!(policy.spec.action, PolicyAction::Protect { .. });
        if !protects || policy.spec.direction != Direction::Outbound {
            return Err(OffloadError::Invalid("activation of a policy that does not protect what is sent".into()));
        }
        self.check_use(sa, policy.spec.device, &policy.mode)?;
        self.order += 1;
        let late = self.is(Fault::LateActivate);
        if let Some(policy) = self.books.policies.get_mut(&handle) {
            policy.order = self.order;
            if late && policy.sa.is_some() {
                policy.late = Some(sa);
            } else {
                policy.sa = Some(sa);
            }
        }
        Ok(())
    }

    pub(super) fn installed(&self, scope: Scope) -> Installed {
        let scope = if self.is(Fault::ListsEverything) { Scope::All } else { scope };
        let sas = self.books.sas.values().filter(|sa| scope.covers(sa.spec.handle.shard()));
        let policies = self.books.policies.values().filter(|policy| scope.covers(policy.spec.handle.shard()));
        let policy = |policy: &Policy| PolicyStatus {
            policy: policy.spec.handle,
            device: policy.spec.device,
            sa: policy.sa,
            mode: policy.mode.clone(),
        };
        Installed { sas: sas.map(|sa| sa.status(self.now)).collect(), policies: policies.map(policy).collect() }
    }

    /// Guards whose selectors match, as `matches` says.
    pub(super) fn is_guarded(&self, matches: impl Fn(&GuardSpec) -> bool) -> bool {
        self.guards.iter().any(matches)
    }
}

/// What no device can do.
fn check_shape(spec: &SaSpec) -> Result<(), OffloadError> {
    let invalid = |why: &str| Err(OffloadError::Invalid(why.into()));
    if spec.direction == Direction::Forward {
        return invalid("an SA is inbound or outbound");
    }
    if spec.outer.local.is_ipv4() != spec.outer.remote.is_ipv4() {
        return invalid("outer addresses of two families");
    }
    if spec.mode == SaMode::Transport && !spec.selectors.iter().all(|pair| pair.is_between(spec.outer)) {
        return invalid("transport mode between other hosts");
    }
    Ok(())
}

type Check = Result<(), (String, &'static str)>;

fn check_sa(rung: &Capabilities, spec: &SaSpec) -> Check {
    claimed(rung.algorithms.contains(&spec.algorithm), || name(spec.algorithm))?;
    match spec.mode {
        SaMode::Tunnel => claimed(rung.tunnel, || "tunnel mode".into())?,
        SaMode::Transport => claimed(rung.transport, || "transport mode".into())?,
    }
    claimed(rung.esn || !spec.esn, || "extended sequence numbers (ESN)".into())?;
    let window = spec.replay_window;
    let inbound = spec.direction == Direction::Inbound;
    claimed(!inbound || rung.replay_windows.allow(window), || format!("replay window of {window}"))?;
    claimed(rung.udp_encapsulation || spec.encapsulation.is_none(), || "UDP encapsulation".into())?;
    check_tags(rung, spec.tags)
}

fn check_policy(rung: &Capabilities, spec: &PolicySpec) -> Check {
    let protects = matches!(spec.action, PolicyAction::Protect { .. });
    claimed(rung.all_policy_kinds || protects, || "a policy that does not protect".into())?;
    for selector in [&spec.selectors.local, &spec.selectors.remote] {
        check_selector(&rung.selectors, selector)?;
    }
    check_tags(rung, spec.tags)
}

fn check_selector(support: &SelectorSupport, selector: &TrafficSelector) -> Check {
    let is_prefix = selector.addresses.prefix_length().is_some();
    claimed(support.ranges || is_prefix, || format!("the address range {}", selector.addresses))?;
    claimed(support.ports || !selector.needs_ports(), || "selectors with ports".into())?;
    let known = support.protocols.as_ref().is_none_or(|known| known.contains(&selector.protocol));
    claimed(known || selector.protocol == 0, || format!("selectors of protocol {}", selector.protocol))
}

fn check_tags(rung: &Capabilities, tags: Tags) -> Check {
    claimed(rung.marks || (tags.mark, tags.set_mark) == (None, None), || "packet marks".into())?;
    claimed(rung.interface_ids || tags.if_id == 0, || "an interface id".into())
}

fn claimed(is: bool, what: impl FnOnce() -> String) -> Check {
    if is { Ok(()) } else { Err((what(), "the device does not have it")) }
}

fn name(algorithm: EspAlgorithm) -> String {
    match algorithm.integrity {
        None => format!("{:?}", algorithm.encryption),
        Some(integrity) => format!("{:?} with {integrity:?}", algorithm.encryption),
    }
}
