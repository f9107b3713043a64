//! CHILD SAs: their entries in SAD and SPD, and the order in which these come and go.
//!
//! A CHILD SA owns two SAs and, per pair of selectors, an inbound, a forward and an outbound policy. Over a rekey with unchanged selectors
//! the policies pass from the old CHILD SA to the new one, so that switching is one [`Op::Activate`] per pair. A CHILD SA with policies of its own
//! has all of them installed before it is used, the outbound ones behind all others.

mod compare;

use std::net::IpAddr;
use std::sync::Arc;

use ike_model::config::FailClosed;
use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, Child, ChildSaSnapshot, DrawnTags};
use ipsec::preflight::Entries;
use ipsec::{
    DeviceId, Direction, Instant, KeyMaterial, LimitUnits, Limits, ModeInUse, OffloadError, OffloadMode, Op,
    OuterAddresses, PolicyAction, PolicyHandle, PolicySpec, Reqid, SaHandle, SaMode, SaSpec, SelectorPair, Spi, Tags,
    TrafficSelector, UdpEncapsulation, Volume,
};

use crate::admission::Claim;
use crate::core::{Core, seconds_until};
use crate::deadline::{ChildTimer, Timer};
use crate::ladder::{Ladder, Shortfall};
use crate::meter::Meter;
use crate::suite::EspSuite;
use crate::totals::Totals;
use crate::transport;
use crate::turn::{Ids, Turn};

pub(crate) use self::compare::{Finding, in_words};

/// What both ends have agreed on.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// Configuration.
    pub(crate) child: Arc<Child>,
    /// Group.
    pub(crate) reqid: Reqid,
    /// Where it is installed.
    pub(crate) device: DeviceId,
    /// Our SPI.
    pub(crate) spi_in: Spi,
    /// The peer's SPI.
    pub(crate) spi_out: Spi,
    /// Algorithms.
    pub(crate) suite: EspSuite,
    /// Our side.
    pub(crate) local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Tunnel or transport.
    pub(crate) mode: SaMode,
    /// The addresses in the peer's view, in transport mode through NAT.
    pub(crate) peer_view: Option<OuterAddresses>,
    /// Marks and interface ids drawn before, for its trap.
    pub(crate) tags: Option<DrawnTags>,
    /// Rungs of the device that can carry it.
    pub(crate) ladder: Ladder,
    /// Table entries that it takes.
    pub(crate) claim: Claim,
}

/// The policies of one pair of selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairPolicies {
    inbound: PolicyHandle,
    forward: PolicyHandle,
    outbound: PolicyHandle,
}

/// Whether the outbound SA is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outbound {
    /// It waits for the peer to be ready.
    Reserved,
    /// Traffic takes it.
    Active,
    /// It was removed.
    Removed,
}

/// A CHILD SA.
#[derive(Debug)]
pub(crate) struct ChildSa {
    /// Number shown to users; names both SAs too.
    pub(crate) unique_id: u32,
    /// Configuration.
    pub(crate) config: Arc<Child>,
    /// Connection and child, as the backend is told.
    pub(crate) name: Arc<str>,
    /// State.
    pub(crate) state: ChildSaState,
    /// Group.
    pub(crate) reqid: Reqid,
    /// Rekeys before this one.
    pub(crate) generation: u32,
    /// Where it is installed.
    pub(crate) device: DeviceId,
    /// Our SPI.
    pub(crate) spi_in: Spi,
    /// The peer's SPI.
    pub(crate) spi_out: Spi,
    /// Algorithms.
    pub(crate) suite: EspSuite,
    /// Tunnel or transport.
    pub(crate) mode: SaMode,
    /// Outer addresses.
    pub(crate) outer: OuterAddresses,
    /// The addresses in the peer's view, in transport mode through NAT.
    pub(crate) peer_view: Option<OuterAddresses>,
    /// ESP in UDP.
    pub(crate) encapsulation: Option<UdpEncapsulation>,
    /// Our side.
    pub(crate) local_ts: Box<[TrafficSelector]>,
    /// The peer's side.
    pub(crate) remote_ts: Box<[TrafficSelector]>,
    /// Both sides combined.
    pub(crate) pairs: Arc<[SelectorPair]>,
    /// Our policies; empty while a predecessor has them.
    pub(crate) policies: Vec<PairPolicies>,
    /// The outbound SA.
    pub(crate) outbound: Outbound,
    /// Since when the backend holds it.
    pub(crate) installed_at: Option<Instant>,
    /// Offload really in use.
    pub(crate) offload: ModeInUse,
    /// Limits it was installed with.
    pub(crate) limits: Limits,
    /// The CHILD SA that it replaces once activated.
    pub(crate) replaces: Option<u32>,
    /// Why it goes; kept until it is gone.
    pub(crate) cause: Option<Cause>,
    /// A soft limit was reached and told.
    pub(crate) soft_expired: bool,
    /// A hard limit was reached and told.
    pub(crate) hard_expired: bool,
    /// Its inbound SA was taken out before it.
    pub(crate) deaf: bool,
    /// A packet came on the inbound SA.
    pub(crate) used: bool,
    /// The device does not hold it any more, and that is told.
    pub(crate) lost: bool,
    /// It lost a collision; whoever made it deletes it.
    pub(crate) redundant: bool,
    /// That its successor took over is told: it has no end of its own.
    pub(crate) replaced: bool,
    /// The peer deleted it while our backend was still at it.
    pub(crate) taken_back: bool,
    /// Attempts of ours to rekey it that have come to nothing.
    pub(crate) rekey_failures: u8,
    /// Since when it only receives.
    pub(crate) lingers_since: Option<Instant>,
    /// Counters of both SAs as last read.
    pub(crate) meter: Meter,
    /// What all generations have carried.
    pub(crate) totals: Arc<Totals>,
    /// Marks and interface ids; over a rekey they stay.
    pub(crate) tags: Option<Box<DrawnTags>>,
    /// Its rung of the device, and the table entries that it holds there.
    claim: Claim,
    /// Limits that its device raises by itself; none are known before it is installed.
    raised: LimitUnits,
    /// What is needed to try another rung, until the backend has installed it.
    pub(crate) trial: Option<Box<Trial>>,
    /// What keeps it from the best rung of its device.
    pub(crate) shortfall: Option<Box<Shortfall>>,
}

/// An install under way.
#[derive(Debug)]
pub(crate) struct Trial {
    /// Rungs that are left, and why others are out.
    pub(crate) ladder: Ladder,
    /// Keys for the next rung; kept only while there is one.
    keys: Option<ChildKeys>,
    /// Operations that take out what was installed and then read back as something else.
    disowned: Vec<Op>,
}

/// Keys of both SAs.
#[derive(Clone, Debug)]
pub(crate) struct ChildKeys {
    /// Ours to receive with.
    pub(crate) inbound: KeyMaterial,
    /// Ours to send with.
    pub(crate) outbound: KeyMaterial,
}

impl ChildSa {
    /// Makes a CHILD SA of what was agreed on; nothing is installed.
    pub(crate) fn new(turn: &mut Turn<'_>, core: &Core, mut agreed: Agreement, replaces: Option<&Self>) -> Self {
        let lifetime = agreed.child.lifetime.bounded(agreed.suite.algorithm, agreed.suite.esn);
        let limits = lifetime.roll(|| turn.random());
        let pairs = SelectorPair::product(&agreed.local_ts, &agreed.remote_ts).into();
        let outer = transport::outer(core.path);
        let unique_id = turn.ids.child();
        let kept = replaces.map(|old| old.tags()).or(agreed.tags);
        let tags = kept.unwrap_or_else(|| agreed.child.tags.draw(core.interface, || turn.ids.tag_value()));
        turn.registry.home.insert(unique_id, core.spi().0);
        if let Some(best) = agreed.ladder.step() {
            agreed.claim.move_to(best);
        }
        Self {
            unique_id,
            name: core.child_name(&agreed.child.name),
            config: agreed.child,
            state: ChildSaState::Installing,
            reqid: agreed.reqid,
            generation: replaces.map_or(0, |old| old.generation.saturating_add(1)),
            device: agreed.device,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            suite: agreed.suite,
            mode: agreed.mode,
            outer,
            peer_view: agreed.peer_view,
            encapsulation: core.nat.encapsulation(core.path),
            local_ts: agreed.local_ts.into(),
            remote_ts: agreed.remote_ts.into(),
            pairs,
            policies: Vec::new(),
            outbound: Outbound::Reserved,
            installed_at: None,
            offload: ModeInUse::SOFTWARE,
            limits,
            replaces: replaces.map(|old| old.unique_id),
            cause: None,
            soft_expired: false,
            hard_expired: false,
            deaf: false,
            used: false,
            lost: false,
            redundant: false,
            replaced: false,
            taken_back: false,
            rekey_failures: 0,
            lingers_since: None,
            meter: Meter::after(replaces.map(|old| &old.meter)),
            totals: replaces.map(|old| old.totals.clone()).unwrap_or_default(),
            tags: (!tags.is_none()).then(|| Box::new(tags)),
            claim: agreed.claim,
            raised: LimitUnits::NONE,
            trial: Some(Box::new(Trial { ladder: agreed.ladder, keys: None, disowned: Vec::new() })),
            shortfall: replaces.and_then(|old| old.shortfall.clone()),
        }
    }

    /// The rung of its device: of both its SAs and all its policies.
    pub(crate) fn rung(&self) -> OffloadMode {
        self.claim.mode()
    }

    /// Counts the table entries that it holds now.
    fn recount(&mut self) {
        let sas = u32::from(!self.deaf) + u32::from(self.outbound != Outbound::Removed);
        let policies = u32::try_from(self.policies.len()).unwrap_or(u32::MAX).saturating_mul(2);
        self.claim.set(Entries { sas, policies });
    }

    /// Its marks and interface ids.
    fn tags(&self) -> DrawnTags {
        self.tags.as_deref().copied().unwrap_or_default()
    }

    /// Whether it may carry traffic or be rekeyed.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, ChildSaState::Installed | ChildSaState::Rekeying) && !self.redundant
    }

    /// Whether its limits still matter: it may carry traffic, and none of the hard ones was reached yet.
    pub(crate) fn is_watched(&self) -> bool {
        let carries = matches!(self.state, ChildSaState::Installed | ChildSaState::Rekeying | ChildSaState::Rekeyed);
        carries && !self.hard_expired
    }

    /// Whether it ends, or is to end as soon as the window is free.
    pub(crate) fn is_closing(&self) -> bool {
        self.cause.is_some() || matches!(self.state, ChildSaState::Deleting | ChildSaState::Deleted)
    }

    /// Time until its hard limit, where it has one.
    pub(crate) fn time_left(&self, now: Instant) -> Option<std::time::Duration> {
        Some((self.installed_at? + self.limits.hard.time?).saturating_since(now))
    }

    /// One of its deadlines.
    pub(crate) fn timer(&self, timer: ChildTimer) -> Timer {
        Timer::Child(self.unique_id, timer)
    }

    /// What the guard covers: all that is configured, of which the agreed selectors are a part. A guard stays until it is unloaded, so a peer
    /// that narrows in ever new ways must not leave one each time.
    fn guarded_pairs(&self) -> Vec<SelectorPair> {
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
    fn outbound_policy(&self, handle: PolicyHandle, selectors: SelectorPair, sa: Option<SaHandle>) -> PolicySpec {
        let mut spec = self.policy(handle, Direction::Outbound, selectors);
        if let PolicyAction::Protect { sa: active, .. } = &mut spec.action {
            *active = sa;
        }
        if sa.is_none() && self.outbound == Outbound::Reserved {
            spec.priority = RESERVED;
        }
        spec
    }

    fn policy(&self, handle: PolicyHandle, direction: Direction, selectors: SelectorPair) -> PolicySpec {
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

    /// The backend holds it: lifetimes begin.
    pub(crate) fn installed(&mut self, turn: &mut Turn<'_>, offload: ModeInUse) {
        let now = turn.now();
        self.state = ChildSaState::Installed;
        self.installed_at = Some(now);
        self.offload = offload;
        let shortfall = self.trial.take().and_then(|trial| trial.ladder.shortfall(self.rung()));
        self.shortfall = shortfall.map(Box::new);
        turn.registry.guarded(&self.name, &self.guarded_pairs());
        for (timer, span) in [(ChildTimer::Soft, self.limits.soft.time), (ChildTimer::Hard, self.limits.hard.time)] {
            if let Some(span) = span {
                turn.deadlines.set(self.timer(timer), now + span);
            }
        }
        self.meter.begin(now, &self.limits, raised_by(turn, self.device, self.offload.mode));
        self.schedule_count(turn);
        if !self.config.inactivity.is_zero() {
            self.meter.idle_since.get_or_insert(now);
            turn.deadlines.set(self.timer(ChildTimer::Inactivity), now + inactivity_step(self.config.inactivity));
        }
    }

    /// Only stragglers may still come: no limit matters any more.
    pub(crate) fn retire(&mut self, turn: &mut Turn<'_>, state: ChildSaState) {
        self.state = state;
        turn.deadlines.clear_child(self.unique_id);
    }

    /// State for users.
    pub(crate) fn snapshot(&self, turn_now: Instant, shard: ipsec::Shard) -> ChildSaSnapshot {
        let ids = Ids::new(shard, 1);
        let until = |span: Option<std::time::Duration>| {
            let at = self.installed_at? + span?;
            Some(seconds_until(turn_now, at))
        };
        ChildSaSnapshot {
            name: self.config.name.as_str().into(),
            unique_id: self.unique_id,
            reqid: self.reqid,
            state: self.state,
            mode: self.mode,
            encap: self.encapsulation.is_some(),
            spi_in: Some(self.spi_in),
            spi_out: Some(self.spi_out),
            algorithms: Some(self.suite.shown()),
            sa_in: self.installed_at.filter(|_| !self.deaf).map(|_| ids.sa(self.unique_id, Direction::Inbound)),
            sa_out: self
                .installed_at
                .filter(|_| self.outbound != Outbound::Removed)
                .map(|_| ids.sa(self.unique_id, Direction::Outbound)),
            traffic_in: self.meter.traffic(Direction::Inbound),
            traffic_out: self.meter.traffic(Direction::Outbound),
            total_in: self.totals.carried(Direction::Inbound),
            total_out: self.totals.carried(Direction::Outbound),
            limits: self.limits,
            rekey_seconds: until(self.limits.soft.time),
            life_seconds: until(self.limits.hard.time),
            installed_seconds: self.installed_at.map(|at| turn_now.saturating_since(at).as_secs()),
            local_ts: self.local_ts.to_vec(),
            remote_ts: self.remote_ts.to_vec(),
            backend: "",
            generation: self.generation,
            offload: self.offload.clone(),
            tags: self.tags(),
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

/// Counters are looked at this often: an idle CHILD SA goes at most a quarter of its time too late.
pub(crate) fn inactivity_step(inactivity: std::time::Duration) -> std::time::Duration {
    (inactivity / 4).max(std::time::Duration::from_secs(1))
}

/// What the backend watches: of the volumes those that it raises; of the times only the hard one and later than ours, as a backstop, because
/// the core drives time limits itself on a clock that counts suspension and never steps.
pub(crate) fn backend_limits(limits: Limits, raised: LimitUnits) -> Limits {
    let backstop = limits.hard.time.map(|time| time + time / 10);
    let limits = Limits { soft: Volume { time: None, ..limits.soft }, hard: Volume { time: backstop, ..limits.hard } };
    limits.raised(raised)
}

/// The limits that a device raises by itself in this mode.
fn raised_by(turn: &Turn<'_>, device: DeviceId, mode: OffloadMode) -> LimitUnits {
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
