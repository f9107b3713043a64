//! Rekeyed CHILD SAs that only receive: how long, and how many of them (RFC 7296 §2.8: packets of the old SA may still be under way).

use std::time::Duration;

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind};
use ipsec::{Answer, Direction, Instant, OffloadError, Request};

use crate::children::ChildSa;
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::established::{Authenticated, Intent};
use crate::ladder::SPARE;
use crate::turn::{Purpose, Turn};

/// Lingering inbound SAs of one child at most.
const MOST: usize = 16;
/// None goes sooner than two round trips and this after it was replaced, however many there are.
const SOONEST: Duration = Duration::from_millis(100);
/// The DELETE of a rekeyed CHILD SA whose successor has ended is waited for so long.
const OVERDUE: Duration = Duration::from_secs(10);
/// A round trip to a peer that was never asked anything.
const FAR: Duration = Duration::from_secs(1);

impl Authenticated {
    //= RFC 7296 §2.8: the old SA is still received on after it was replaced
    /// The last packets of a rekeyed CHILD SA may still arrive for a while.
    pub(crate) fn linger(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        let delay = turn.context.config.settings.delete_rekeyed_delay;
        let ids = &*turn.ids;
        let Some(child) = self.children.iter_mut().find(|child| child.unique_id == unique_id) else { return };
        let ops = child.remove_outbound_ops(ids);
        child.retire(turn, ChildSaState::Deleted);
        child.lingers_since = Some(turn.now());
        let at = turn.after(delay);
        turn.deadlines.set(child.timer(ChildTimer::Linger), at);
        turn.apply(ops, Purpose::Remove);
        self.bound_lingering(core, turn, unique_id);
    }

    /// A successor ends before the peer has deleted the predecessor. It may never do so, if its own half of the successor came to nothing, and
    /// goes on with a predecessor that we only wait for: after a while, or at once when the device has lost it, we delete it.
    pub(crate) fn predecessor_overdue(&mut self, turn: &mut Turn<'_>, new: u32, old: u32) {
        let lost = |cause: &Cause| cause.kind == CauseKind::DeviceLost;
        if self.child(new).and_then(|child| child.cause.as_ref()).is_some_and(lost) {
            self.intents.push_back(Intent::DeleteChild(old));
        } else if let Some(child) = self.child(old) {
            turn.deadlines.set(child.timer(ChildTimer::Linger), turn.after(OVERDUE));
        }
    }

    /// Time to look whether a lingering CHILD SA is still needed.
    pub(crate) fn linger_due(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        if self.child(unique_id).is_some_and(|child| child.state == ChildSaState::Rekeyed) {
            return self.intend(core, turn, Intent::DeleteChild(unique_id));
        }
        self.bound_lingering(core, turn, unique_id);
        if self.child(unique_id).is_some() {
            turn.submit(Request::Query(turn.ids.sa(unique_id, Direction::Inbound)), Purpose::Linger(unique_id));
        }
    }

    /// Keeps the lingering CHILD SAs of the child that this one belongs to few: the oldest go first.
    fn bound_lingering(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(like) = self.child(unique_id) else { return };
        let same = self.children.iter().filter(|child| child.config.name == like.config.name);
        let mut lingering: Vec<(Instant, u32)> =
            same.filter_map(|child| Some((child.lingers_since?, child.unique_id))).collect();
        lingering.sort_unstable();
        let excess = lingering.len().saturating_sub(room(turn, like, lingering.len()));
        let wait = core.round_trip.unwrap_or(FAR).saturating_mul(2).saturating_add(SOONEST);
        for (since, unique_id) in lingering.into_iter().take(excess) {
            if since + wait <= turn.now() {
                self.remove_child(core, turn, unique_id, None);
            } else if let Some(child) = self.child(unique_id) {
                turn.deadlines.set(child.timer(ChildTimer::Linger), since + wait);
            }
        }
    }

    /// A lingering inbound SA: gone when it was idle for long enough.
    pub(crate) fn on_linger(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        result: Result<Answer, OffloadError>,
    ) {
        if let Ok(Answer::Status(status)) = &result {
            self.on_status(core, turn, (unique_id, Direction::Inbound), status);
        }
        let delay = turn.context.config.settings.delete_rekeyed_delay;
        let Some(child) = self.child(unique_id).filter(|child| child.state == ChildSaState::Deleted) else { return };
        let idle = match result {
            Ok(Answer::Status(status)) => status.idle_seconds.map(Duration::from_secs),
            Ok(Answer::Applied(_) | Answer::Installed(_)) | Err(_) => None,
        };
        match idle.and_then(|idle| delay.checked_sub(idle)).filter(|rest| !rest.is_zero()) {
            Some(rest) => {
                let at = turn.after(rest);
                turn.deadlines.set(child.timer(ChildTimer::Linger), at);
            }
            None => self.remove_child(core, turn, unique_id, None),
        }
    }
}

/// How many CHILD SAs like this one may linger: what all shards together leave of the device's table, where that is bounded.
fn room(turn: &Turn<'_>, like: &ChildSa, lingering: usize) -> usize {
    let device = turn.context.devices.get(like.device);
    let table = device.and_then(|device| device.rung(like.rung())).and_then(|rung| rung.capabilities.sa_table);
    let Some(table) = table else { return MOST };
    let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let held = number(turn.registry.tables.held(like.device, like.rung()).sas);
    MOST.min(number(table).saturating_add(lingering).saturating_sub(held.saturating_add(number(SPARE))))
}
