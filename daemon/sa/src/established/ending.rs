//! The ways in which CHILD SAs and the IKE SA end.

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ipsec::Op;

use crate::children::ChildSa;
use crate::core::Core;
use crate::deadline::IkeTimer;
use crate::established::{Active, Authenticated, Incoming, Intent, Standing};
use crate::exchange::rekey_ike;
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::say::say;
use crate::turn::{Purpose, Turn};

impl Authenticated {
    /// Takes a CHILD SA out of the backend and forgets it. `cause` = it was up and ended without a successor.
    pub(crate) fn remove_child(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, cause: Option<&Cause>) {
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        if let Some(cause) = cause {
            self.tell_down(core, turn, unique_id, cause);
        }
        self.tell_withdrawn(core, turn, unique_id, cause);
        let mut child = self.children.swap_remove(at);
        let ops = child.remove_ops(turn.ids);
        turn.apply(ops, Purpose::Remove);
        let now = turn.now();
        turn.farewell(|| self.snapshot_alone(core, now), child);
        turn.deadlines.clear_child(unique_id);
        turn.registry.home.remove(&unique_id);
        turn.notices.push_back(Notice::ChildGone { unique_id });
    }

    /// Tells that a CHILD SA has ended without a successor.
    pub(crate) fn tell_down(&self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, cause: &Cause) {
        let up = |child: &&ChildSa| child.installed_at.is_some() && child.successor.is_none() && !child.redundant;
        let Some(child) = self.child(unique_id).filter(up) else { return };
        say!(INFO, "IKE 1", core, "CHILD_SA closed: {}{{{unique_id}}}: {cause}", child.config.name);
        let ike = Box::new(self.snapshot_due(core, turn));
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        turn.event(EventBody::ChildSaClosed { ike, child: snapshot, cause: cause.clone() });
        turn.notices.push_back(Notice::ChildDown {
            connection: core.connection.clone(),
            child: child.config.clone(),
            unique_id,
            cause: cause.clone(),
        });
    }

    /// Tells that a CHILD SA goes which was prepared for the peer, if it was and was never switched to.
    fn tell_withdrawn(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, cause: Option<&Cause>) {
        let (now, shard) = (turn.now(), turn.ids.shard());
        let Some(child) = self.child_mut(unique_id).filter(|child| child.prepared) else { return };
        child.prepared = false;
        let cause = match cause {
            Some(cause) => cause.clone(),
            None if child.redundant => Cause::new(CauseKind::CollisionLost, "both ends rekeyed at once"),
            None => Cause::new(CauseKind::PeerDeleted, "taken back by the peer"),
        };
        let child = Box::new(child.snapshot(now, shard));
        let ike = Box::new(self.snapshot_due(core, turn));
        turn.event(EventBody::ChildSaWithdrawn { ike, child, cause });
    }

    /// Deletes a CHILD SA with the peer.
    pub(crate) fn close_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, cause: Cause) {
        let Some(child) = self.child_mut(unique_id) else { return };
        child.cause.get_or_insert(cause);
        self.intend(core, turn, Intent::DeleteChild(unique_id));
    }

    /// A child is not wanted any more that only its configuration has asked for, see [`crate::ike_sa::IkeSa::withdraw_wish`].
    pub(crate) fn withdraw_wish(&mut self, core: &mut Core, turn: &mut Turn<'_>, child: &str, closes: Option<&Cause>) {
        let meant = |wish: &ChildRequest| !wish.asked && wish.child.name == child;
        let stays = |intent: &Intent| !intent.wish().is_some_and(meant);
        self.intents.retain(stays);
        self.deferred.retain(stays);
        match self.active.take() {
            Some(Active::Child(exchange)) if exchange.wish().is_some_and(meant) => {
                if let Some(child) = exchange.installing().and_then(|id| self.child_mut(id)) {
                    child.cause = child.cause.take().or_else(|| closes.cloned());
                }
                self.active = exchange.withdraw(turn, closes).map(Active::Child);
            }
            active => self.active = active,
        }
        self.advance(core, turn);
    }

    /// Closes the IKE SA with the peer.
    pub(crate) fn close(&mut self, core: &mut Core, turn: &mut Turn<'_>, cause: Cause) {
        if self.standing != Standing::Deleting && !self.finished {
            self.cause.get_or_insert(cause);
            // The request may have to wait for one that is not answered: nothing else begins meanwhile.
            for timer in [IkeTimer::Rekey, IkeTimer::Reauth] {
                turn.deadlines.clear(core.timer(timer));
            }
            self.intend(core, turn, Intent::DeleteIke);
        }
    }

    /// The peer has closed the IKE SA.
    pub(crate) fn on_peer_closed(&mut self, core: &Core, turn: &mut Turn<'_>) {
        if !rekey_ike::peer_closed(self, core, turn) {
            self.finish(core, turn, Cause::new(CauseKind::PeerDeleted, "closed by the peer"));
        }
    }

    /// The IKE SA has ended: all its CHILD SAs go.
    pub(crate) fn finish(&mut self, core: &Core, turn: &mut Turn<'_>, cause: Cause) {
        if self.finished {
            return;
        }
        self.finished = true;
        let cause = self.cause.clone().unwrap_or(cause);
        self.fail_requests(core, turn, &cause);
        self.finish_half_switched(core, turn);
        let mut ops: Vec<Op> = Vec::new();
        let all: Vec<u32> = self.children.iter().map(|child| child.unique_id).collect();
        let ended = |child: &ChildSa| {
            // One that lingers is told of already, unless its successor was still being installed.
            let up = !matches!(child.state, ChildSaState::Created | ChildSaState::Installing);
            up && child.replaces.is_none() && !child.redundant && child.successor.is_none()
        };
        for unique_id in all {
            let own = self.child(unique_id).filter(|child| ended(child)).map(|child| child.cause.clone());
            if let Some(own) = own {
                self.tell_down(core, turn, unique_id, &own.unwrap_or_else(|| cause.clone()));
            }
            self.tell_withdrawn(core, turn, unique_id, Some(&cause));
            if let Some(child) = self.child_mut(unique_id) {
                ops.extend(child.remove_ops(turn.ids));
            }
            turn.deadlines.clear_child(unique_id);
            turn.registry.home.remove(&unique_id);
            turn.notices.push_back(Notice::ChildGone { unique_id });
        }
        let snapshot = self.snapshot_alone(core, turn.now());
        turn.apply(ops, Purpose::Remove);
        for child in std::mem::take(&mut self.children) {
            turn.farewell(|| snapshot.clone(), child);
        }
        if matches!(self.standing, Standing::Up | Standing::Deleting) {
            say!(INFO, "IKE 0", core, "IKE_SA deleted: {}[{}]: {cause}", core.connection.name, core.unique_id);
            turn.event(EventBody::IkeSaClosed { ike: Box::new(snapshot), cause });
        }
    }

    /// Successors whose peer has not yet said that the switch is done: it is, as far as anybody will ever be told.
    fn finish_half_switched(&mut self, core: &Core, turn: &mut Turn<'_>) {
        let ready = self.children.iter().filter(|child| child.state != ChildSaState::Installing);
        let switching = ready.filter_map(|child| Some((child.unique_id, child.replaces?)));
        let rekeyed = |old: u32| self.child(old).is_some_and(|child| child.state == ChildSaState::Rekeyed);
        let half: Vec<_> = switching.filter(|(_, old)| rekeyed(*old)).collect();
        for (new, old) in half {
            self.finish_replaced(core, turn, new, old);
        }
    }

    /// A CHILD SA that was to be closed while it was rekeyed: that goes for its successor, unless only the old one was at its limit. What a
    /// device has lost may include the policies that the successor takes over.
    pub(crate) fn close_successor(&mut self, old: u32, new: u32) {
        let cause = self.child(old).and_then(|old| old.cause.clone());
        let cause = cause.filter(|cause| cause.kind != CauseKind::HardLimit);
        if let Some(child) = self.child_mut(new).filter(|_| cause.is_some()) {
            child.cause = cause;
            self.intents.push_back(Intent::DeleteChild(new));
        }
    }

    /// What was asked for and will not come.
    fn fail_requests(&mut self, core: &Core, turn: &mut Turn<'_>, cause: &Cause) {
        let asked_for = match self.active.take() {
            Some(Active::Child(exchange)) => exchange.abandon(turn).map(|request| request.child),
            Some(Active::First(unique_id)) => self.child(unique_id).map(|child| child.config.clone()),
            Some(
                Active::RekeyIke(_)
                | Active::DeleteChildren(_)
                | Active::DeleteIke
                | Active::Liveness
                | Active::AuthLifetime
                | Active::Mobike(_),
            )
            | None => None,
        };
        if let Some(child) = asked_for {
            self.child_failed(core, turn, &child, cause);
        }
        let deferred = std::mem::take(&mut self.deferred);
        for intent in std::mem::take(&mut self.intents).into_iter().chain(deferred) {
            if let Intent::CreateChild(request) = intent {
                self.child_failed(core, turn, &request.child, cause);
            }
        }
        match self.incoming.take() {
            Some(Incoming::ChildKeyExchange(pending)) => pending.abandon(turn),
            // Whoever asked here for what the peer was making waits for that.
            Some(Incoming::Install(unique_id, pending)) if pending.rekeys.is_none() => {
                if let Some(child) = self.child(unique_id).map(|child| child.config.clone()) {
                    self.child_failed(core, turn, &child, cause);
                }
            }
            Some(Incoming::Install(..) | Incoming::IkeKeyExchange(_)) | None => {}
        }
    }
}
