//! What happens to a CHILD SA in its life: limits, inactivity, the switch to a successor, loss of its device state.

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ipsec::{Answer, Direction, OffloadError, Request};

use crate::children::{ChildSa, Outbound, inactivity_step};
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::established::{Active, Authenticated, Intent};
use crate::turn::{Purpose, Turn};

impl Authenticated {
    /// A deadline of a CHILD SA has come.
    pub(crate) fn on_child_timer(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, timer: ChildTimer) {
        match timer {
            ChildTimer::Soft => self.soft_expired(core, turn, unique_id, ipsec::LimitUnit::Time),
            ChildTimer::Hard => self.hard_expired(core, turn, unique_id, ipsec::LimitUnit::Time),
            ChildTimer::Retry => self.rekey_child(core, turn, unique_id),
            ChildTimer::Switch => turn.switch(turn.ids.sa(unique_id, Direction::Outbound)),
            ChildTimer::Linger => self.linger_due(core, turn, unique_id),
            ChildTimer::Inactivity => {
                // The answers come in this order; the second one decides.
                for direction in [Direction::Outbound, Direction::Inbound] {
                    let sa = turn.ids.sa(unique_id, direction);
                    turn.submit(Request::Query(sa), Purpose::Inactivity(unique_id, direction));
                }
            }
        }
    }

    /// A counter of a CHILD SA that is to go when it is not used. Packets in either direction keep it.
    pub(crate) fn on_inactivity(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        (unique_id, direction): (u32, Direction),
        result: &Result<Answer, OffloadError>,
    ) {
        let now = turn.now();
        let Some(child) = self.child_mut(unique_id).filter(|child| child.is_up()) else { return };
        let outbound = direction == Direction::Outbound;
        // Without an answer nothing is known, and nothing is closed.
        match result {
            Ok(Answer::Status(status)) => child.counted.count(outbound, status.packets, now),
            Ok(Answer::Applied(_) | Answer::Installed(_)) | Err(_) => child.counted.idle_since = Some(now),
        }
        if outbound {
            return;
        }
        let limit = child.config.inactivity;
        let idle = now.saturating_since(*child.counted.idle_since.get_or_insert(now));
        match limit.checked_sub(idle).filter(|rest| !rest.is_zero()) {
            _ if limit.is_zero() => {}
            Some(rest) => {
                turn.deadlines.set(child.timer(ChildTimer::Inactivity), now + rest.min(inactivity_step(limit)))
            }
            None => {
                let cause = Cause::new(CauseKind::Inactive, format!("no traffic for {} s", idle.as_secs()));
                self.close_child(core, turn, unique_id, cause);
            }
        }
    }

    /// A soft limit was reached.
    pub(crate) fn soft_expired(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        unit: ipsec::LimitUnit,
    ) {
        let Some(child) = self.child_mut(unique_id).filter(|child| child.is_up() && !child.soft_expired) else {
            return;
        };
        child.soft_expired = true;
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        tracing::debug!(
            conn = core.connection.name,
            child = child.config.name,
            ike = core.unique_id,
            ?unit,
            "soft limit reached"
        );
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        turn.event(EventBody::ChildSaSoftExpired { ike, child: snapshot, unit });
        self.rekey_child(core, turn, unique_id);
    }

    /// Rekeys a CHILD SA unless that is under way.
    pub(crate) fn rekey_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        if self.child(unique_id).is_some_and(|child| child.state == ChildSaState::Installed) {
            self.intend(core, turn, Intent::RekeyChild(unique_id));
        }
    }

    /// A hard limit was reached: the SA carries nothing any more. The child is made again.
    pub(crate) fn hard_expired(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        unit: ipsec::LimitUnit,
    ) {
        let Some(child) = self.child(unique_id) else { return };
        if !matches!(child.state, ChildSaState::Installed | ChildSaState::Rekeying | ChildSaState::Rekeyed) {
            return;
        }
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        turn.event(EventBody::ChildSaHardExpired { ike, child: snapshot, unit });
        // One that is still being installed may come to nothing.
        let takes_over =
            |other: &&ChildSa| other.replaces == Some(unique_id) && other.state != ChildSaState::Installing;
        let successor = self.children.iter().find(takes_over).map(|other| other.unique_id);
        // While both ends rekey, the nonces decide which of the two new ones stays.
        let undecided = matches!(&self.active, Some(Active::Child(exchange)) if exchange.rekeys(unique_id));
        if let Some(successor) = successor.filter(|_| !undecided) {
            // The peer rekeyed it and has not said that it is done: it is done now.
            self.activate(turn, successor);
            self.finish_replaced(core, turn, successor, unique_id);
            self.intend(core, turn, Intent::DeleteChild(unique_id));
            return;
        }
        let cause = Cause::new(CauseKind::HardLimit, format!("hard {} limit reached", unit_name(unit)));
        self.close_child(core, turn, unique_id, cause);
    }

    /// The device does not hold a CHILD SA any more: it is made again with fresh keys.
    pub(crate) fn state_lost(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        let lost = || Cause::new(CauseKind::DeviceLost, "the device does not hold it any more");
        let Some(child) = self.child_mut(unique_id) else { return };
        if child.state == ChildSaState::Installing {
            // Nobody knows whether it was lost or comes after the loss: it goes once the backend has answered.
            child.cause.get_or_insert_with(lost);
            return;
        }
        let (snapshot, up) = (Box::new(child.snapshot(turn.now(), turn.ids.shard())), child.is_up());
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        turn.event(EventBody::StateLost { ike, child: snapshot });
        if up {
            self.close_child(core, turn, unique_id, lost());
        }
    }

    /// The first packet came on the inbound SA of a CHILD SA: the peer has switched to it.
    pub(crate) fn first_use(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child_mut(unique_id) else { return };
        child.used = true;
        turn.switch(turn.ids.sa(unique_id, Direction::Outbound));
        if child.outbound != Outbound::Reserved || child.state == ChildSaState::Installing {
            return;
        }
        let Some(old) = child.replaces else { return };
        // While both ends rekey, which of the two new SAs stays is decided by the nonces alone.
        if matches!(&self.active, Some(Active::Child(exchange)) if exchange.rekeys(old)) {
            return;
        }
        self.activate(turn, unique_id);
        self.finish_replaced(core, turn, unique_id, old);
    }

    /// The switch from a rekeyed CHILD SA to its successor is complete: told once.
    pub(crate) fn finish_replaced(&mut self, core: &Core, turn: &mut Turn<'_>, new: u32, old: u32) {
        let now = turn.now();
        let shard = turn.ids.shard();
        let Some(child) = self.child_mut(new) else { return };
        if child.replaces.take().is_none() {
            return;
        }
        let (new_snapshot, name) = (Box::new(child.snapshot(now, shard)), child.config.name.clone());
        let (spi_in, spi_out) = (child.spi_in, child.spi_out);
        let Some(before) = self.child_mut(old) else { return };
        before.replaced = true;
        let old_snapshot = Box::new(before.snapshot(now, shard));
        tracing::info!(
            conn = core.connection.name, child = name, ike = core.unique_id, peer = %core.path.remote,
            %spi_in, %spi_out, "CHILD SA rekeyed: {{{old}}} to {{{new}}}"
        );
        let ike = Box::new(self.snapshot_alone(core, now));
        turn.event(EventBody::ChildSaRekeyed { ike, old: old_snapshot, new: new_snapshot });
    }
}

fn unit_name(unit: ipsec::LimitUnit) -> &'static str {
    match unit {
        ipsec::LimitUnit::Time => "time",
        ipsec::LimitUnit::Bytes => "byte",
        ipsec::LimitUnit::Packets => "packet",
    }
}
