//! The entries of a CHILD SA in SAD and SPD as operations: installing, activating, moving and removing them, their limits and priorities.

use std::net::IpAddr;

use ike_model::config::FailClosed;
use ike_model::{Child, DrawnTags};
use ipsec::preflight::Entries;
use ipsec::{
    DeviceId, Direction, KeyMaterial, LimitUnits, Limits, OffloadError, OffloadMode, Op, OuterAddresses, PolicyAction,
    PolicyHandle, PolicySpec, SaHandle, SaSpec, SelectorPair, Tags, TrafficSelector, UdpEncapsulation, Volume,
};

use super::{ChildKeys, ChildSa, Outbound, PairPolicies};
use crate::transport;
use crate::turn::{Ids, Turn};

impl ChildSa {
    /// What the guard covers: all that is configured, of which the agreed selectors are a part. A guard stays until it is unloaded, so a peer
    /// that narrows in ever new ways must not leave one each time.
    pub(super) fn guarded_pairs(&self) -> Vec<SelectorPair> {
        let (local, remote) = transport::allowed(&self.config, self.mode, self.outer);
        SelectorPair::product(&local, &remote)
    }

    /// Operations that install both SAs, and the policies unless `predecessor` has the same ones, with the outbound half reserved: all that it takes
    /// of the device it takes now, or nothing.
    ///
    /// SAs and policies of one child are on one rung: a packet that meets a policy of the device finds only SAs of the device, and the other way
    /// round. So a successor on another rung brings policies of its own.
    pub(crate) fn install_ops(&mut self, turn: &mut Turn<'_>, keys: ChildKeys, predecessor: Option<&Self>) -> Vec<Op> {
        let mut ops = Vec::new();
        self.kept = turn.context.config.settings.key_export.map(|_| Box::new(keys.clone()));
        if let Some(trial) = &mut self.trial {
            trial.keys = trial.ladder.has_more().then(|| keys.clone());
            ops.clone_from(&trial.disowned);
        }
        if turn.context.config.settings.fail_closed != FailClosed::Off {
            ops.extend(turn.registry.missing_guards(&self.name, &self.guarded_pairs()));
        }
        let inherits = predecessor
            .is_some_and(|old| old.pairs == self.pairs && (old.device, old.rung()) == (self.device, self.rung()));
        let policies = if self.config.policies && !inherits { self.pairs.len().saturating_mul(2) } else { 0 };
        self.claim.set(Entries { sas: 2, policies: u32::try_from(policies).unwrap_or(u32::MAX) });
        if self.config.policies && !inherits {
            for pair in self.pairs.clone().iter() {
                let [inbound, forward, outbound] = [(); 3].map(|()| turn.ids.policy());
                self.policies.push(PairPolicies { inbound, forward, outbound });
                ops.push(Op::InstallPolicy(self.policy(inbound, Direction::Inbound, *pair)));
                ops.push(Op::InstallPolicy(self.policy(forward, Direction::Forward, *pair)));
            }
        }
        let window = turn.context.config.settings.replay_window;
        self.raised = raised_by(turn, self.device, self.rung());
        ops.push(Op::InstallSa(Box::new(self.sa(turn.ids, window, Direction::Inbound, keys.inbound))));
        ops.push(Op::InstallSa(Box::new(self.sa(turn.ids, window, Direction::Outbound, keys.outbound))));
        // Behind whatever else there is for this traffic: a trap, or the child that has it now.
        let reserved = self.policies.iter().zip(self.pairs.iter());
        ops.extend(reserved.map(|(entry, pair)| Op::InstallPolicy(self.outbound_policy(entry.outbound, *pair, None))));
        ops
    }

    /// Operations that let traffic take the outbound SA, away from `predecessor`, and those that then take its outbound SA out. Two requests:
    /// a refusal of the first, because the device has lost the new SA, must not leave the old one behind.
    pub(crate) fn activate_ops(&mut self, ids: &mut Ids, predecessor: Option<&mut Self>) -> (Vec<Op>, Vec<Op>) {
        let mut ops = Vec::new();
        let sa = ids.sa(self.unique_id, Direction::Outbound);
        let mut obsolete = Vec::new();
        let reserved = !self.policies.is_empty();
        if let Some(old) = predecessor {
            if !reserved {
                self.policies = std::mem::take(&mut old.policies);
            }
            obsolete = old.remove_policies_ops();
            if old.outbound != Outbound::Removed {
                old.outbound = Outbound::Removed;
                obsolete.push(Op::RemoveSa(ids.sa(old.unique_id, Direction::Outbound)));
            }
            old.recount();
        }
        for (entry, pair) in self.policies.iter().zip(self.pairs.iter()) {
            if reserved {
                ops.push(Op::UpdatePolicy(self.outbound_policy(entry.outbound, *pair, Some(sa))));
            }
            ops.push(Op::Activate { policy: entry.outbound, sa });
        }
        self.outbound = Outbound::Active;
        self.recount();
        (ops, obsolete)
    }

    fn remove_policies_ops(&mut self) -> Vec<Op> {
        let policies = std::mem::take(&mut self.policies);
        let outbound = policies.iter().map(|entry| entry.outbound).map(Op::RemovePolicy);
        let inbound = policies.iter().flat_map(|entry| [entry.forward, entry.inbound]).map(Op::RemovePolicy);
        outbound.chain(inbound).collect()
    }

    /// Operations that take the outbound half out: nothing is sent any more, stragglers are still received.
    pub(crate) fn remove_outbound_ops(&mut self, ids: &Ids) -> Vec<Op> {
        if self.outbound == Outbound::Removed {
            return Vec::new();
        }
        self.outbound = Outbound::Removed;
        self.recount();
        vec![Op::RemoveSa(ids.sa(self.unique_id, Direction::Outbound))]
    }

    /// Operations that take the inbound half out: nothing is received any more.
    pub(crate) fn remove_inbound_ops(&mut self, ids: &Ids) -> Vec<Op> {
        if std::mem::replace(&mut self.deaf, true) {
            return Vec::new();
        }
        self.recount();
        vec![Op::RemoveSa(ids.sa(self.unique_id, Direction::Inbound))]
    }

    /// Operations that take everything out.
    pub(crate) fn remove_ops(&mut self, ids: &Ids) -> Vec<Op> {
        let mut ops = self.remove_policies_ops();
        ops.extend(self.remove_outbound_ops(ids));
        ops.extend(self.remove_inbound_ops(ids));
        self.claim.set(Entries::default());
        ops
    }

    /// What the device has installed is not what was asked for: it is taken out together with the next attempt, or alone. Its keys have carried
    /// nothing, for the outbound SA was never activated.
    pub(crate) fn disown(&mut self, ids: &Ids) {
        let mut ops = self.remove_policies_ops();
        ops.extend([Direction::Outbound, Direction::Inbound].map(|way| Op::RemoveSa(ids.sa(self.unique_id, way))));
        if let Some(trial) = &mut self.trial {
            trial.disowned = ops;
        }
    }

    /// Operations that take out what was disowned and may still be installed.
    pub(crate) fn disowned(&mut self) -> Vec<Op> {
        self.trial.as_mut().map(|trial| std::mem::take(&mut trial.disowned)).unwrap_or_default()
    }

    /// Passes to the next rung after the device has refused this one. Gives the keys to install it with; nothing when there is no other.
    pub(crate) fn step_down(&mut self, error: &OffloadError) -> Option<ChildKeys> {
        let trial = self.trial.as_mut()?;
        trial.ladder.refused(self.claim.mode(), error);
        let next = trial.ladder.step()?;
        let keys = trial.keys.take()?;
        self.policies.clear();
        self.claim.move_to(next);
        Some(keys)
    }

    /// Operations that move it to other outer addresses.
    pub(crate) fn move_ops(
        &mut self,
        ids: &Ids,
        outer: OuterAddresses,
        encapsulation: Option<UdpEncapsulation>,
    ) -> Vec<Op> {
        (self.outer, self.encapsulation) = (outer, encapsulation);
        let mut ops = Vec::new();
        if !self.deaf {
            ops.push(Op::UpdateSa { sa: ids.sa(self.unique_id, Direction::Inbound), outer, encapsulation });
        }
        if self.outbound != Outbound::Removed {
            ops.push(Op::UpdateSa { sa: ids.sa(self.unique_id, Direction::Outbound), outer, encapsulation });
        }
        let sa = (self.outbound == Outbound::Active).then(|| ids.sa(self.unique_id, Direction::Outbound));
        ops.extend(self.installed_policies(sa).into_iter().map(Op::UpdatePolicy));
        ops
    }

    /// Its policies as they are, the outbound ones with `sa` in use.
    pub(crate) fn installed_policies(&self, sa: Option<SaHandle>) -> Vec<PolicySpec> {
        let mut policies = Vec::new();
        for (entry, pair) in self.policies.iter().zip(self.pairs.iter()) {
            policies.push(self.policy(entry.inbound, Direction::Inbound, *pair));
            policies.push(self.policy(entry.forward, Direction::Forward, *pair));
            policies.push(self.outbound_policy(entry.outbound, *pair, sa));
        }
        policies
    }

    /// The outbound policy, which stands behind all others until its SA is activated.
    pub(super) fn outbound_policy(
        &self,
        handle: PolicyHandle,
        selectors: SelectorPair,
        sa: Option<SaHandle>,
    ) -> PolicySpec {
        let mut spec = self.policy(handle, Direction::Outbound, selectors);
        if let PolicyAction::Protect { sa: active, .. } = &mut spec.action {
            *active = sa;
        }
        if sa.is_none() && self.outbound == Outbound::Reserved {
            spec.priority = RESERVED;
        }
        spec
    }

    pub(super) fn policy(&self, handle: PolicyHandle, direction: Direction, selectors: SelectorPair) -> PolicySpec {
        PolicySpec {
            handle,
            device: self.device,
            direction,
            selectors,
            priority: priority(&self.config, Class::Protect, &selectors),
            action: PolicyAction::Protect { reqid: self.reqid, sa: None, mode: self.mode, outer: self.outer },
            offload: self.rung(),
            tags: policy_tags(self.tags(), direction),
            name: self.name.clone(),
        }
    }

    /// One of its SAs; `window` is the replay window where the configuration of the child has none.
    pub(crate) fn sa(&self, ids: &Ids, window: u32, direction: Direction, key: KeyMaterial) -> SaSpec {
        let spi = if direction == Direction::Outbound { self.spi_out } else { self.spi_in };
        SaSpec {
            handle: ids.sa(self.unique_id, direction),
            device: self.device,
            direction,
            spi,
            mode: self.mode,
            outer: self.outer,
            peer_view: self.peer_view,
            encapsulation: self.encapsulation,
            algorithm: self.suite.algorithm,
            key,
            esn: self.suite.esn,
            replay_window: self.config.replay_window.unwrap_or(window),
            selectors: self.pairs.clone(),
            limits: backend_limits(self.limits, self.raised),
            reqid: self.reqid,
            copy: self.config.copy,
            offload: self.rung(),
            tags: sa_tags(self.tags(), direction, self.config.tags.mark_in_sa),
            initial_sequence: 0,
            name: self.name.clone(),
        }
    }
}

/// What a policy is bound to.
pub(crate) fn policy_tags(drawn: DrawnTags, direction: Direction) -> Tags {
    let (mark, if_id) = match direction {
        Direction::Inbound | Direction::Forward => (drawn.mark_in, drawn.if_id_in),
        Direction::Outbound => (drawn.mark_out, drawn.if_id_out),
    };
    Tags { mark, set_mark: None, if_id }
}

/// What an SA is bound to, and sets. Packets arrive unmarked, so an inbound SA is bound to the mark only where the configuration says so.
fn sa_tags(drawn: DrawnTags, direction: Direction, mark_in_sa: bool) -> Tags {
    let bound = policy_tags(drawn, direction);
    match direction {
        Direction::Inbound | Direction::Forward => {
            Tags { mark: bound.mark.filter(|_| mark_in_sa), set_mark: drawn.set_mark_in, ..bound }
        }
        Direction::Outbound => Tags { set_mark: drawn.set_mark_out, ..bound },
    }
}

/// What the backend watches: of the volumes those that it raises; of the times only the hard one and later than ours, as a backstop, because
/// the core drives time limits itself on a clock that counts suspension and never steps.
pub(crate) fn backend_limits(limits: Limits, raised: LimitUnits) -> Limits {
    let backstop = limits.hard.time.map(|time| time + time / 10);
    let limits = Limits { soft: Volume { time: None, ..limits.soft }, hard: Volume { time: backstop, ..limits.hard } };
    limits.raised(raised)
}

/// The limits that a device raises by itself in this mode.
pub(super) fn raised_by(turn: &Turn<'_>, device: DeviceId, mode: OffloadMode) -> LimitUnits {
    let device = turn.context.devices.get(device);
    device.and_then(|device| device.rung(mode)).map_or(LimitUnits::NONE, |rung| rung.capabilities.limits)
}

/// Priority of an outbound policy whose SA nothing takes yet. One more is what some devices refuse.
const RESERVED: u32 = u32::MAX - 1;

/// Kinds of policies, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Pass and drop shunts.
    Shunt,
    /// Of a CHILD SA.
    Protect,
    /// Traps.
    Trap,
}

/// Priority of a policy: shunts before CHILD SAs before traps, and within each the more specific one first.
pub(crate) fn priority(config: &Child, class: Class, pair: &SelectorPair) -> u32 {
    let class_offset = |step: u32| match class {
        Class::Shunt => step,
        Class::Protect => step * 2,
        Class::Trap => step * 3,
    };
    if let Some(fixed) = config.priority {
        // A trap beside a CHILD SA of the same fixed priority must stay behind it.
        return fixed.saturating_add(u32::from(class == Class::Trap));
    }
    let side = |selector: &TrafficSelector| {
        let ports = u32::from(!selector.ports.is_any()) * 2;
        let protocol = u32::from(selector.protocol != 0);
        prefix_bits(selector.addresses.start(), selector.addresses.end()) * 4 + ports + protocol
    };
    class_offset(100_000).saturating_add(2_000).saturating_sub(side(&pair.local) + side(&pair.remote))
}

/// Leading bits in common.
fn prefix_bits(start: IpAddr, end: IpAddr) -> u32 {
    match (start, end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (start.to_bits() ^ end.to_bits()).leading_zeros(),
        (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits() ^ end.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}
