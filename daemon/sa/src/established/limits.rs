//! What happens to a CHILD SA in its life: limits, inactivity, the switch to a successor.
//!
//! Time limits are driven here. Limits on octets and packets are raised by the device where it can; where it cannot, and where its event was
//! lost, they are found in its counters, which are read on purpose (see [`crate::gauge`]) and whenever they come for another reason.

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, Counter, EventBody};
use ipsec::{Answer, Direction, OffloadError, Request, SaStatus};

use crate::children::{ChildSa, Outbound, inactivity_step};
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::established::{Active, Authenticated, Intent};
use crate::retry;
use crate::say::say;
use crate::turn::{Purpose, Turn};

impl Authenticated {
    /// A deadline of a CHILD SA has come.
    pub(crate) fn on_child_timer(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, timer: ChildTimer) {
        match timer {
            ChildTimer::Soft => self.soft_expired(core, turn, unique_id, ipsec::LimitUnit::Time),
            ChildTimer::Hard => self.hard_expired(core, turn, (unique_id, None), ipsec::LimitUnit::Time),
            ChildTimer::Retry => self.rekey_child(core, turn, unique_id),
            ChildTimer::Switch => turn.switch(turn.ids.sa(unique_id, Direction::Outbound)),
            ChildTimer::Count => self.count(turn, unique_id),
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
        match result {
            Ok(Answer::Status(status)) => self.on_status(core, turn, (unique_id, direction), status),
            // Without an answer nothing is known, and nothing is closed.
            Ok(Answer::Applied(_) | Answer::Installed(_)) | Err(_) => {
                if let Some(child) = self.child_mut(unique_id) {
                    child.meter.idle_since = Some(now);
                }
            }
        }
        let Some(child) = self.child_mut(unique_id).filter(|child| child.is_up() && child.cause.is_none()) else {
            return;
        };
        if direction == Direction::Outbound {
            return;
        }
        let limit = child.config.inactivity;
        let idle = now.saturating_since(*child.meter.idle_since.get_or_insert(now));
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

    /// Reads the counters of a CHILD SA.
    pub(crate) fn count(&self, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child(unique_id) else { return };
        for direction in child.installed_directions() {
            turn.submit(Request::Query(turn.ids.sa(unique_id, direction)), Purpose::Count(unique_id, direction));
        }
    }

    /// The counters of a CHILD SA in one direction, and when to read them next.
    pub(crate) fn on_count(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        child: (u32, Direction),
        result: &Result<Answer, OffloadError>,
    ) {
        match result {
            Ok(Answer::Status(status)) => self.on_status(core, turn, child, status),
            Ok(Answer::Applied(_) | Answer::Installed(_)) => {}
            // Should the device have lost the SA, that is found by comparing what it holds with what it should.
            Err(error) => tracing::debug!(child = child.0, "no counters: {error}"),
        }
        if let Some(child) = self.child_mut(child.0).filter(|child| child.is_watched()) {
            child.meter.early = false;
            child.schedule_count(turn);
        }
    }

    /// What the device says about one SA of a CHILD SA, for whatever reason it was asked: an event that was lost is made up for here.
    pub(crate) fn on_status(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        (unique_id, direction): (u32, Direction),
        status: &SaStatus,
    ) {
        let Some(child) = self.child_mut(unique_id) else { return };
        let more = child.meter.read(direction, status, turn.now());
        child.totals.add(direction, more);
        // One that is replaced receives for a while, and its end is near anyway; but as long as traffic takes it, its limits hold.
        let carries = child.is_up() || (direction == Direction::Outbound && child.outbound == Outbound::Active);
        if !carries || !child.is_watched() || !child.installed_directions().any(|way| way == direction) {
            return;
        }
        if let Some(unit) = status.hard_expired.or_else(|| child.meter.hard(direction, &child.limits)) {
            return self.hard_expired(core, turn, (unique_id, Some(direction)), unit);
        }
        if let Some(unit) = status.soft_expired.or_else(|| child.meter.soft(direction, &child.limits)) {
            self.soft_expired(core, turn, unique_id, unit);
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
        let Some(child) = self.child_mut(unique_id) else { return };
        child.meter.early |= child.state == ChildSaState::Installing;
        // Told twice, or after the hard one, or by a device that wants a soft limit before each hard one: nothing follows from it.
        let news = child.is_up() && !child.soft_expired && !child.hard_expired && child.limits.asks(unit);
        if !news {
            return;
        }
        child.soft_expired = true;
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let (spi, peer, reached) = (child.spi_in, child.outer.remote, unit_name(unit));
        say!(DEBUG, "KNL 1", core, "creating rekey job for CHILD_SA ESP/0x{spi}/{peer}: soft {reached} limit reached");
        let ike = Box::new(self.snapshot_due(core, turn));
        turn.event(EventBody::ChildSaSoftExpired { ike, child: snapshot, unit });
        self.rekey_child(core, turn, unique_id);
    }

    /// Rekeys a CHILD SA unless that is under way.
    pub(crate) fn rekey_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        if self.child(unique_id).is_some_and(|child| child.state == ChildSaState::Installed) {
            self.intend(core, turn, Intent::RekeyChild(unique_id));
        }
    }

    /// The peer's rekeying of a CHILD SA has come to nothing before the switch: the old one goes on, and is rekeyed when its time comes, or after
    /// a while when that has passed.
    pub(crate) fn go_on(&mut self, turn: &mut Turn<'_>, old: u32) {
        let now = turn.now();
        let given_up = |child: &&mut ChildSa| child.state == ChildSaState::Rekeyed && child.successor.is_none();
        let Some(child) = self.child_mut(old).filter(given_up) else { return };
        child.state = ChildSaState::Installed;
        let due = child.installed_at.zip(child.limits.soft.time).map(|(since, time)| since + time);
        if child.soft_expired {
            let wait = retry::rekeying(child.rekey_failures, child.time_left(now), turn.random());
            turn.deadlines.set(child.timer(ChildTimer::Retry), now + wait);
        } else if let Some(due) = due {
            turn.deadlines.set(child.timer(ChildTimer::Soft), due);
        }
        // A limit that its device has raised meanwhile was of no interest then.
        self.count(turn, old);
    }

    /// A hard limit was reached, in one direction or by time in both: the SA carries nothing any more. The child is made again.
    pub(crate) fn hard_expired(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        (unique_id, direction): (u32, Option<Direction>),
        unit: ipsec::LimitUnit,
    ) {
        let Some(child) = self.child_mut(unique_id) else { return };
        child.meter.early |= child.state == ChildSaState::Installing;
        if !child.is_watched() {
            return;
        }
        child.hard_expired = true;
        let (spi, peer, reached) = (child.spi_in, child.outer.remote, unit_name(unit));
        say!(DEBUG, "KNL 1", core, "creating delete job for CHILD_SA ESP/0x{spi}/{peer}: hard {reached} limit reached");
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let ike = Box::new(self.snapshot_due(core, turn));
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
            self.take_out(turn, unique_id, direction);
            self.intend(core, turn, Intent::DeleteChild(unique_id));
            return;
        }
        // What the peer is told may have to wait for the window; what passes here may not.
        self.take_out(turn, unique_id, direction);
        let cause = Cause::new(CauseKind::HardLimit, format!("hard {} limit reached", unit_name(unit)));
        self.close_child(core, turn, unique_id, cause);
    }

    /// Takes the SA of one direction out, or both, while the policies stay: what would take it is held back, not sent in clear.
    fn take_out(&mut self, turn: &mut Turn<'_>, unique_id: u32, direction: Option<Direction>) {
        // What it has carried is told with its end.
        self.count(turn, unique_id);
        let ids = &*turn.ids;
        let Some(child) = self.children.iter_mut().find(|child| child.unique_id == unique_id) else { return };
        let mut ops = Vec::new();
        if direction != Some(Direction::Inbound) {
            ops.extend(child.remove_outbound_ops(ids));
        }
        if direction != Some(Direction::Outbound) {
            ops.extend(child.remove_inbound_ops(ids));
        }
        turn.apply(ops, Purpose::Remove);
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
        // One that was rekeyed before its own switch was told of has come up nevertheless: generations are told in order.
        if let Some(older) = self.child(old).and_then(|child| child.replaces) {
            self.finish_replaced(core, turn, old, older);
        }
        let now = turn.now();
        let shard = turn.ids.shard();
        let Some(child) = self.child_mut(new) else { return };
        if child.replaces.take().is_none() {
            return;
        }
        child.told_up = true;
        child.prepared = false;
        let (new_snapshot, name) = (Box::new(child.snapshot(now, shard)), child.config.name.clone());
        let (spi_in, spi_out) = (child.spi_in, child.spi_out);
        let Some(before) = self.child_mut(old) else { return };
        before.successor = Some(new);
        let old_snapshot = Box::new(before.snapshot(now, shard));
        let (old_in, old_out) = (before.spi_in, before.spi_out);
        say!(
            INFO,
            "IKE 0",
            core,
            "rekeyed CHILD_SA {name}{{{old}}} with SPIs {old_in}_i {old_out}_o with {name}{{{new}}} with SPIs {spi_in}_i {spi_out}_o"
        );
        let ike = Box::new(self.snapshot_due(core, turn));
        core.count(turn, Counter::ChildRekey);
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
