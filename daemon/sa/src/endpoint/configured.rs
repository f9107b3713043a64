//! Configured children: what each is to be, and when the next attempt comes.
//!
//! The home shard of a connection keeps them. A child with `start` is wanted: when it fails or ends it is asked for again, ever more slowly,
//! until an operator closes it; many at once are begun one after another ([`crate::shaper`]). What happens when the peer closes it or dies is said by `close_action` and `dpd_action`.

mod keepers;

use std::time::Duration;

use ike_model::reload::can_initiate;
use ike_model::snapshot::ConfiguredState;
use ike_model::{Actions, Cause, CauseKind, Child, ChildMode, ConfigSnapshot, ConfiguredChildStatus, Selector};
use ipsec::{Instant, ModeInUse, Shard};

use crate::deadline::Timer;
use crate::directory::Wish;
use crate::endpoint::Endpoint;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::Context;
use crate::retry;
use crate::route::home;

pub(super) use keepers::{Keeper, Keepers, Rungs, Trap};

impl Endpoint {
    /// A child that is to be up is asked for, now or when the pace of attempts allows it.
    pub(super) fn on_retry(&mut self, context: &Context<'_>, number: u32) {
        let Some(keeper) = self.keepers.by_number.get_mut(&number).filter(|keeper| keeper.wanted) else { return };
        let (connection, child) = (keeper.connection.clone(), keeper.child.clone());
        let placed = std::mem::take(&mut keeper.placed);
        let begins =
            self.usable_ike(&connection, Some(&child)).is_none() && !self.is_established_elsewhere(&connection.name);
        if begins && !placed {
            let place = self.shaper.place(context.now, context.config.settings.attempts_per_second);
            if let (Some(at), Some(keeper)) = (place, self.keepers.by_number.get_mut(&number)) {
                keeper.placed = true;
                return self.shared.deadlines.set(Timer::Keeper(number), at);
            }
        }
        self.initiate(context, &connection, Some(child), Wish::Configured);
    }

    /// A child came up, in shard `from`.
    pub(super) fn kept_up(&mut self, context: &Context<'_>, connection: &str, child: &str, from: Shard) {
        self.kept_there(connection, child);
        let Some(number) = self.keepers.find(connection, child) else { return };
        let elsewhere = from != self.shared.ids.shard();
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.failures_before = std::mem::take(&mut keeper.failures);
            keeper.up_since = Some(context.now);
            keeper.not_before = None;
            keeper.up_elsewhere = keeper.up_elsewhere.saturating_add(u32::from(elsewhere));
        }
        self.shared.deadlines.clear(Timer::Trap(number));
    }

    /// A child is there: nothing has to be waited for.
    pub(super) fn kept_there(&mut self, connection: &str, child: &str) {
        let Some(number) = self.keepers.find(connection, child) else { return };
        self.shared.deadlines.clear(Timer::Keeper(number));
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.placed = false;
        }
    }

    /// A child that was up has ended.
    pub(super) fn kept_down(
        &mut self,
        context: &Context<'_>,
        connection: &str,
        child: &str,
        from: Shard,
        cause: Cause,
    ) {
        let Some(number) = self.keepers.find(connection, child) else { return };
        let (up_here, own) = (self.is_up_here(connection, child), self.shared.ids.shard());
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        keeper.up_elsewhere = keeper.up_elsewhere.saturating_sub(u32::from(from != own));
        let stays_up = up_here || keeper.up_elsewhere > 0;
        // What comes up and goes again at once is no success: it must not be tried ever faster than what fails.
        let lasted = keeper.up_since.take().is_none_or(|since| context.now.saturating_since(since) >= LASTING);
        if !lasted {
            keeper.failures = keeper.failures_before.saturating_add(1);
        }
        keeper.last_cause = Some((context.wall, cause.clone()));
        let refused = !lasted && is_failure(cause.kind);
        // What is started at load is to be up always: without another word about this end it comes back.
        let or_started = |action: Actions| {
            let always = action == Actions::NONE && keeper.wanted && keeper.child.start_action.start;
            (action.trap, action.start || always)
        };
        let (trap, start) = match cause.kind {
            CauseKind::PeerDeleted => or_started(keeper.child.close_action),
            CauseKind::PeerUnreachable => or_started(keeper.child.dpd_action),
            CauseKind::HardLimit | CauseKind::DeviceLost => (false, true),
            // Its place is taken; if not its own, it is asked for again.
            CauseKind::Replaced => (false, keeper.wanted),
            CauseKind::Operator
            | CauseKind::Reload
            | CauseKind::Shutdown
            | CauseKind::Inactive
            | CauseKind::Rekeyed
            | CauseKind::ScriptFailed
            | CauseKind::CollisionLost => (false, false),
            CauseKind::HistoryFull
            | CauseKind::NoProposal
            | CauseKind::SelectorsUnacceptable
            | CauseKind::AuthenticationFailed
            | CauseKind::NoSecret
            | CauseKind::NoConfiguration
            | CauseKind::PeerError
            | CauseKind::ProtocolViolation
            | CauseKind::OffloadFailed
            | CauseKind::NoAddress
            | CauseKind::Internal => (false, keeper.wanted),
        };
        // What an operator has closed, be it in another shard, is not asked for any more.
        keeper.wanted &= cause.kind != CauseKind::Operator;
        let initiates = can_initiate(&keeper.connection);
        if start && initiates && !stays_up {
            keeper.wanted = true;
            if cause.kind == CauseKind::DeviceLost && lasted {
                self.retry_lost(context, number);
            } else {
                self.retry_later(context, number);
            }
        } else if start && !stays_up {
            self.make_below(context, number);
        }
        if trap {
            self.install_trap(context, number);
        }
        match (stays_up, refused) {
            (true, _) => {}
            (false, true) => self.quiet(context, number),
            (false, false) => self.arm_trap(context, number),
        }
    }

    /// A child that was asked for does not come up.
    pub(super) fn kept_failed(&mut self, context: &Context<'_>, connection: &str, child: Option<&str>, cause: &Cause) {
        let Some(number) = child.and_then(|child| self.keepers.find(connection, child)) else { return };
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        keeper.last_cause = Some((context.wall, cause.clone()));
        keeper.failures = keeper.failures.saturating_add(1);
        let wanted = keeper.wanted;
        self.quiet(context, number);
        if wanted {
            self.retry_later(context, number);
        }
    }

    /// What a device has lost was fine until then, so there is nothing to wait for; but many may have been lost at once. Of the two ends the one
    /// that began the IKE SA goes first, lest both make the child at once and have it twice; the other one does when nothing has come of that.
    fn retry_lost(&mut self, context: &Context<'_>, number: u32) {
        let Some(keeper) = self.keepers.by_number.get(&number).filter(|_| !self.stopping) else { return };
        let name = keeper.connection.name.clone();
        let answers = |ike: &IkeSa| matches!(ike.phase, Phase::Authenticated(_)) && ike.core.authentication.responder;
        let here = self.ikes.of(&name).any(|(_, ike)| answers(ike));
        let second = here || self.shared.registry.established.of(&name).any(|entry| !entry.initiator);
        let share = self.shared.turn(context).share();
        let wait = if second { PEER_FIRST } else { Duration::ZERO };
        self.shared.deadlines.set(Timer::Keeper(number), context.now + wait + AT_ONCE.mul_f64(share));
    }

    /// A child of a peer whose address is not known can be made again only below an IKE SA that is there.
    fn make_below(&mut self, context: &Context<'_>, number: u32) {
        let Some(keeper) = self.keepers.by_number.get(&number) else { return };
        let (connection, child) = (keeper.connection.clone(), keeper.child.clone());
        let there = self.usable_ike(&connection, Some(&child)).is_some();
        if there || self.is_established_elsewhere(&connection.name) {
            self.initiate(context, &connection, Some(child), Wish::Configured);
        }
    }

    fn retry_later(&mut self, context: &Context<'_>, number: u32) {
        if self.stopping {
            return;
        }
        let failures = self.keepers.by_number.get(&number).map_or(0, |keeper| keeper.failures);
        let random = self.shared.turn(context).random();
        self.shared.deadlines.set(Timer::Keeper(number), context.now + retry::reattempt(failures, random));
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.placed = false;
        }
    }

    /// What an operator closes is not brought up again by itself.
    pub(super) fn unwant(&mut self, selector: &Selector) {
        if selector.ike_id.is_some() || selector.child_id.is_some() {
            return self.unwant_numbered(selector);
        }
        for (number, keeper) in &mut self.keepers.by_number {
            let connection = selector.ike.as_ref().is_none_or(|name| *name == keeper.connection.name);
            let child = selector.child.as_ref().is_none_or(|name| *name == keeper.child.name);
            if connection && child {
                keeper.wanted = false;
                self.shared.deadlines.clear(Timer::Keeper(*number));
            }
        }
    }

    fn unwant_numbered(&mut self, selector: &Selector) {
        let ikes = self.ikes.values().filter(|ike| selector.ike_id.is_none_or(|id| id == ike.core.unique_id));
        let mut named: Vec<(String, String)> = Vec::new();
        for ike in ikes {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let children = authenticated.children.iter();
            let chosen = children.filter(|child| selector.child_id.is_none_or(|id| id == child.unique_id));
            named.extend(chosen.map(|child| (ike.core.connection.name.clone(), child.config.name.clone())));
        }
        for (connection, child) in named {
            if let Some(number) = self.keepers.find(&connection, &child) {
                self.shared.deadlines.clear(Timer::Keeper(number));
                if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
                    keeper.wanted = false;
                }
            }
        }
    }

    pub(super) fn is_up_here(&self, connection: &str, child: &str) -> bool {
        self.mode_of(connection, child).is_some()
    }

    fn mode_of(&self, connection: &str, child: &str) -> Option<ModeInUse> {
        self.ikes.of(connection).find_map(|(_, ike)| match &ike.phase {
            Phase::Authenticated(authenticated) => authenticated
                .children
                .iter()
                .find(|sa| sa.is_up() && sa.config.name == child)
                .map(|sa| sa.offload.clone()),
            Phase::Initiating(_) | Phase::Responding(_) | Phase::Closed => None,
        })
    }

    pub(super) fn is_coming(&self, connection: &str, child: &Child) -> bool {
        self.ikes.of(connection).any(|(_, ike)| match &ike.phase {
            Phase::Initiating(init) => {
                init.requests.iter().any(|request| request.child.name == child.name)
                    || init.offer.as_ref().is_some_and(|offer| offer.request.child.name == child.name)
            }
            Phase::Authenticated(authenticated) => authenticated.is_coming(child),
            Phase::Responding(_) | Phase::Closed => false,
        })
    }

    pub(super) fn configured_children(&self, config: &ConfigSnapshot, now: Instant) -> Vec<ConfiguredChildStatus> {
        let here = |name: &str| -> bool {
            let shard: Shard = home(name, self.shared.ids.shards());
            shard == self.shared.ids.shard()
        };
        let mut out = Vec::new();
        for connection in config.connections.values().filter(|connection| here(&connection.name)) {
            for child in &connection.children {
                let keeper = self.keepers.find(&connection.name, &child.name);
                let keeper = keeper.and_then(|number| Some((number, self.keepers.by_number.get(&number)?)));
                out.push(ConfiguredChildStatus {
                    connection: connection.name.clone(),
                    child: child.name.clone(),
                    state: self.configured_state(&connection.name, child, keeper, now),
                    offload: self.mode_of(&connection.name, &child.name),
                    failures: keeper.map_or(0, |(_, keeper)| keeper.failures),
                    last_cause: keeper.and_then(|(_, keeper)| keeper.last_cause.clone()),
                });
            }
        }
        out
    }

    fn configured_state(
        &self,
        connection: &str,
        child: &Child,
        keeper: Option<(u32, &Keeper)>,
        now: Instant,
    ) -> ConfiguredState {
        if self.is_up_here(connection, &child.name) || keeper.is_some_and(|(_, keeper)| keeper.up_elsewhere > 0) {
            return ConfiguredState::Up;
        }
        if self.is_coming(connection, child) {
            return ConfiguredState::Connecting;
        }
        let Some((number, keeper)) = keeper else { return ConfiguredState::Down };
        let waits = |timer| self.shared.deadlines.get(timer);
        if let Some(at) = waits(Timer::Keeper(number)).or_else(|| waits(Timer::Trap(number))) {
            return ConfiguredState::RetryIn(at.saturating_since(now).as_secs());
        }
        match (&keeper.trap, child.mode) {
            (Trap::Refused(reason) | Trap::Waiting(reason), _) => ConfiguredState::Refused(reason.clone()),
            (Trap::Present { .. }, ChildMode::Pass | ChildMode::Drop) => ConfiguredState::Shunt,
            (Trap::Present { .. }, ChildMode::Tunnel | ChildMode::Transport) => ConfiguredState::Trapped,
            (Trap::Absent, _) => ConfiguredState::Down,
        }
    }
}

/// A child that ends sooner than this after it came up counts as one that failed.
const LASTING: Duration = Duration::from_secs(10);
/// Children that a device has lost are asked for again within this.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The end that answered for the IKE SA waits so long for the other one to do so: a peer that is to be up tries again after about a second.
const PEER_FIRST: Duration = Duration::from_millis(2_500);

/// Whether an end of this kind, soon after the child came up, counts as an attempt that failed.
fn is_failure(kind: CauseKind) -> bool {
    match kind {
        CauseKind::Operator
        | CauseKind::Reload
        | CauseKind::Rekeyed
        | CauseKind::CollisionLost
        | CauseKind::Replaced
        | CauseKind::Inactive
        | CauseKind::ScriptFailed
        | CauseKind::Shutdown => false,
        CauseKind::PeerDeleted
        | CauseKind::HistoryFull
        | CauseKind::HardLimit
        | CauseKind::PeerUnreachable
        | CauseKind::NoProposal
        | CauseKind::SelectorsUnacceptable
        | CauseKind::AuthenticationFailed
        | CauseKind::NoSecret
        | CauseKind::NoConfiguration
        | CauseKind::PeerError
        | CauseKind::ProtocolViolation
        | CauseKind::OffloadFailed
        | CauseKind::DeviceLost
        | CauseKind::NoAddress
        | CauseKind::Internal => true,
    }
}
