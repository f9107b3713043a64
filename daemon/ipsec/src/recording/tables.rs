//! What the recording backend holds, and what an operation changes of it, by the rules that every device keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::backend::{OffloadError, Op};
use crate::capability::{Device, DeviceState, DeviceTable, Rung};
use crate::handle::{DeviceId, PolicyHandle, SaHandle};
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::{Direction, OffloadMode, SaMode, SaSpec};
use crate::selector::SelectorPair;

/// What the double holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// SAD.
    pub sas: BTreeMap<SaHandle, SaSpec>,
    /// SPD.
    pub policies: BTreeMap<PolicyHandle, PolicySpec>,
    /// Guards.
    pub guards: BTreeSet<GuardSpec>,
    /// How often each policy was installed or updated: a trap that is touched may ask again.
    pub touched: BTreeMap<PolicyHandle, u64>,
}

/// A device that is not up takes nothing on.
pub(super) fn unavailable(op: &Op, devices: &DeviceTable) -> Option<OffloadError> {
    let device = match op {
        Op::InstallSa(sa) => sa.device,
        Op::InstallPolicy(policy) | Op::UpdatePolicy(policy) => policy.device,
        Op::UpdateSa { .. }
        | Op::RemoveSa(_)
        | Op::RemovePolicy(_)
        | Op::Activate { .. }
        | Op::InstallGuard(_)
        | Op::RemoveGuard(_)
        | Op::Flush => return None,
    };
    let found = devices.get(device).filter(|device| device.state != DeviceState::Up)?;
    Some(OffloadError::Unavailable(found.name.clone()))
}

/// The rung that an operation names, which is never a choice of several.
fn rung(devices: &DeviceTable, device: DeviceId, mode: OffloadMode) -> Result<(&Device, &Rung), OffloadError> {
    if mode == OffloadMode::Auto {
        return Err(OffloadError::Invalid("auto is a choice among rungs, and an operation names one".into()));
    }
    let found = devices.get(device).ok_or_else(|| OffloadError::Missing(format!("device {}", device.0)))?;
    let rung = found.rung(mode).ok_or_else(|| OffloadError::Unsupported {
        device: Arc::clone(&found.name),
        what: format!("{mode:?} offload"),
        reason: "it has no such rung".into(),
    })?;
    Ok((found, rung))
}

/// Whether one more entry fits.
fn fits(device: &Device, table: &'static str, size: Option<u32>, held: usize) -> Result<(), OffloadError> {
    match size {
        Some(size) if held >= usize::try_from(size).unwrap_or(usize::MAX) => {
            Err(OffloadError::Full { device: Arc::clone(&device.name), table, size })
        }
        Some(_) | None => Ok(()),
    }
}

impl Tables {
    pub(super) fn apply(&mut self, op: &Op, devices: &DeviceTable) -> Result<(), OffloadError> {
        match op {
            Op::InstallSa(sa) => {
                let (device, rung) = rung(devices, sa.device, sa.offload)?;
                let held = self.sas.values().filter(|other| other.offload == sa.offload).count();
                fits(device, "SAD", rung.capabilities.sa_table, held)?;
                let taken =
                    |other: &SaSpec| other.direction == sa.direction && other.spi == sa.spi && other.outer == sa.outer;
                if self.sas.contains_key(&sa.handle) || self.sas.values().any(taken) {
                    return Err(OffloadError::Exists(format!("SA {}", sa.spi)));
                }
                if !sa.key.fits(sa.algorithm) {
                    return Err(OffloadError::Invalid("key length does not fit the algorithm".into()));
                }
                let bound = |pair: &SelectorPair| pair.is_between(sa.outer);
                if sa.mode == SaMode::Transport && !sa.selectors.iter().all(bound) {
                    return Err(OffloadError::Invalid("transport mode between other hosts".into()));
                }
                self.sas.insert(sa.handle, (**sa).clone());
            }
            Op::UpdateSa { sa, outer, encapsulation } => {
                let entry = self.sas.get_mut(sa).ok_or_else(|| OffloadError::Missing("SA".into()))?;
                if entry.mode == SaMode::Transport && entry.outer != *outer {
                    return Err(OffloadError::Invalid("an SA in transport mode is bound to its addresses".into()));
                }
                entry.outer = *outer;
                entry.encapsulation = *encapsulation;
            }
            Op::RemoveSa(sa) => {
                self.sas.remove(sa);
                for policy in self.policies.values_mut() {
                    if let PolicyAction::Protect { sa: active, .. } = &mut policy.action
                        && *active == Some(*sa)
                    {
                        *active = None;
                    }
                }
            }
            Op::InstallPolicy(policy) => {
                let (device, rung) = rung(devices, policy.device, policy.offload)?;
                if policy.direction != Direction::Forward {
                    let alike =
                        |other: &&PolicySpec| other.offload == policy.offload && other.direction != Direction::Forward;
                    let held = self.policies.values().filter(alike).count();
                    fits(device, "SPD", rung.capabilities.policy_table, held)?;
                }
                *self.touched.entry(policy.handle).or_default() += 1;
                if self.policies.insert(policy.handle, policy.clone()).is_some() {
                    return Err(OffloadError::Exists("policy".into()));
                }
            }
            Op::UpdatePolicy(policy) => {
                rung(devices, policy.device, policy.offload)?;
                *self.touched.entry(policy.handle).or_default() += 1;
                if self.policies.insert(policy.handle, policy.clone()).is_none() {
                    return Err(OffloadError::Missing("policy".into()));
                }
            }
            Op::RemovePolicy(policy) => {
                self.policies.remove(policy);
                self.touched.remove(policy);
            }
            Op::Activate { policy, sa } => self.activate(*policy, *sa)?,
            Op::InstallGuard(guard) => {
                self.guards.insert(guard.clone());
            }
            Op::RemoveGuard(guard) => {
                self.guards.remove(guard);
            }
            Op::Flush => {
                self.sas.clear();
                self.policies.clear();
                self.touched.clear();
            }
        }
        Ok(())
    }

    fn activate(&mut self, policy: PolicyHandle, sa: SaHandle) -> Result<(), OffloadError> {
        let outbound = self.sas.get(&sa).filter(|entry| entry.direction == Direction::Outbound);
        let place = outbound.map(|entry| (entry.device, entry.offload));
        let place = place.ok_or_else(|| OffloadError::Missing("outbound SA".into()))?;
        let entry = self.policies.get_mut(&policy).ok_or_else(|| OffloadError::Missing("policy".into()))?;
        if place != (entry.device, entry.offload) {
            return Err(OffloadError::Invalid("a policy finds no SA of another device or rung".into()));
        }
        match &mut entry.action {
            PolicyAction::Protect { sa: active, .. } => {
                *active = Some(sa);
                Ok(())
            }
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => {
                Err(OffloadError::Invalid("activation of a policy that does not protect".into()))
            }
        }
    }
}

/// An operation as it is logged.
pub(super) fn describe(op: &Op) -> String {
    match op {
        Op::InstallSa(sa) => format!("install {:?} SA {}", sa.direction, sa.spi),
        Op::UpdateSa { sa, outer, .. } => format!("update SA {:x} to {}-{}", sa.raw(), outer.local, outer.remote),
        Op::RemoveSa(sa) => format!("remove SA {:x}", sa.raw()),
        Op::InstallPolicy(policy) => format!("install {:?} policy {}", policy.direction, policy.selectors),
        Op::UpdatePolicy(policy) => format!("update {:?} policy {}", policy.direction, policy.selectors),
        Op::RemovePolicy(policy) => format!("remove policy {:x}", policy.raw()),
        Op::Activate { policy, sa } => format!("activate SA {:x} on policy {:x}", sa.raw(), policy.raw()),
        Op::InstallGuard(guard) => format!("guard {}", guard.selectors),
        Op::RemoveGuard(guard) => format!("unguard {}", guard.selectors),
        Op::Flush => "flush".into(),
    }
}
