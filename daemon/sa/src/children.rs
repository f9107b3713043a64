//! CHILD SAs: their entries in SAD and SPD, and the order in which these come and go.
//!
//! A CHILD SA owns two SAs and, per pair of selectors, an inbound, a forward and an outbound policy. Over a rekey with unchanged selectors
//! the policies pass from the old CHILD SA to the new one, so that switching is one [`Op::Activate`] per pair. A CHILD SA with policies of its own
//! has all of them installed before it is used, the outbound ones behind all others.

mod compare;
mod entries;
mod said;

use std::sync::Arc;

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, Child, ChildSaSnapshot, DrawnTags};
use ipsec::preflight::Entries;
use ipsec::{
    DeviceId, Direction, Instant, KeyMaterial, LimitUnits, Limits, ModeInUse, OffloadMode, Op, OuterAddresses,
    PolicyHandle, Reqid, SaMode, SelectorPair, Spi, TrafficSelector, UdpEncapsulation,
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
use self::entries::raised_by;
pub(crate) use self::entries::{Class, backend_limits, policy_tags, priority};

/// What both ends have agreed on.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// Number of the CHILD SA that is made of it.
    pub(crate) unique_id: u32,
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
    /// That it is installed is told, that it was switched to is not: the peer has asked for it and has our answer.
    pub(crate) prepared: bool,
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
    /// The one that took over, once that is told: it has no end of its own.
    pub(crate) successor: Option<u32>,
    /// That it is up was told.
    pub(crate) told_up: bool,
    /// The peer deleted it while our backend was still at it.
    pub(crate) taken_back: bool,
    /// Attempts of ours to rekey it that have come to nothing.
    pub(crate) rekey_failures: u8,
    /// Since when it only receives.
    pub(crate) lingers_since: Option<Instant>,
    /// Counters of both SAs as last read.
    pub(crate) meter: Meter,
    /// What it and the generations before it have carried.
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
    /// Its keys, with leave to give them out only.
    pub(crate) kept: Option<Box<ChildKeys>>,
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
        let unique_id = agreed.unique_id;
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
            prepared: false,
            cause: None,
            soft_expired: false,
            hard_expired: false,
            deaf: false,
            used: false,
            lost: false,
            redundant: false,
            successor: None,
            told_up: false,
            taken_back: false,
            rekey_failures: 0,
            lingers_since: None,
            meter: Meter::after(replaces.map(|old| &old.meter)),
            totals: replaces.map(|old| old.totals.successor()).unwrap_or_default(),
            tags: (!tags.is_none()).then(|| Box::new(tags)),
            claim: agreed.claim,
            raised: LimitUnits::NONE,
            trial: Some(Box::new(Trial { ladder: agreed.ladder, keys: None, disowned: Vec::new() })),
            shortfall: replaces.and_then(|old| old.shortfall.clone()),
            kept: None,
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
            updown: self.config.updown.clone(),
        }
    }
}

/// Counters are looked at this often: an idle CHILD SA goes at most a quarter of its time too late.
pub(crate) fn inactivity_step(inactivity: std::time::Duration) -> std::time::Duration {
    (inactivity / 4).max(std::time::Duration::from_secs(1))
}
