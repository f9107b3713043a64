//! Installing what was agreed on, and letting traffic take it.
//!
//! Waiting for the backend is one state for all exchanges: whoever waits is found by the unique id of the CHILD SA.

use std::sync::Arc;

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, Child, EventBody};
use ike_wire::ids::NotifyType;
use ike_wire::{Notify, Payload};
use ipsec::preflight::words;
use ipsec::{Answer, Direction, ModeInUse, OffloadError};

use crate::children::{Agreement, ChildKeys, ChildSa, Outbound};
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::error::Error;
use crate::established::{Active, Authenticated, Incoming, Intent, Pending};
use crate::exchange::create_child;
use crate::notice::Notice;
use crate::say::say;
use crate::switch;
use crate::turn::{Purpose, Turn};

impl Authenticated {
    /// Installs the first CHILD SA as initiator.
    pub(crate) fn install_first(&mut self, core: &mut Core, turn: &mut Turn<'_>, agreed: Agreement, keys: ChildKeys) {
        let unique_id = self.install(core, turn, agreed, keys, None);
        self.active = Some(Active::First(unique_id));
    }

    /// Installs a CHILD SA and answers the peer when the backend has answered us.
    pub(crate) fn install_then_answer(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        agreed: Agreement,
        keys: ChildKeys,
        pending: Pending,
    ) -> u32 {
        let unique_id = self.install(core, turn, agreed, keys, pending.rekeys);
        self.incoming = Some(Incoming::Install(unique_id, pending));
        unique_id
    }

    /// Has a CHILD SA installed, with its outbound SA reserved.
    pub(crate) fn install(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        agreed: Agreement,
        keys: ChildKeys,
        replaces: Option<u32>,
    ) -> u32 {
        // What it has carried is told with the switch; the answer comes before that of the install.
        if let Some(old) = replaces {
            self.count(turn, old);
        }
        let old = replaces.and_then(|id| self.children.iter().find(|child| child.unique_id == id));
        let mut child = ChildSa::new(turn, core, agreed, old);
        child.say_installing(core);
        let ops = child.install_ops(turn, keys, old);
        let unique_id = child.unique_id;
        self.children.push(child);
        turn.apply(ops, Purpose::Install(unique_id));
        unique_id
    }

    /// The backend has answered an install.
    pub(crate) fn on_install(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        result: Result<Answer, OffloadError>,
    ) {
        let result = result.and_then(|answer| self.read_back(turn, unique_id, &answer));
        let result = match result {
            Err(error) if error.is_refusal() => match self.step_down(turn, unique_id, &error) {
                true => return,
                false => Err(error),
            },
            done => done,
        };
        match result {
            Ok(mode) if self.takes_traffic_first(turn, unique_id) => {
                self.activate_for(turn, unique_id, Purpose::First(unique_id, mode));
            }
            result => self.installed(core, turn, unique_id, result),
        }
    }

    /// Whether traffic is to take a CHILD SA before anybody is told that it is there: who is told may send at once, and the answer to that must not
    /// find an SA that nothing takes yet. A successor takes the traffic over in the course of its exchange, and see [`Self::activate_later`].
    fn takes_traffic_first(&self, turn: &Turn<'_>, unique_id: u32) -> bool {
        let answers = matches!(&self.incoming, Some(Incoming::Install(id, _)) if *id == unique_id);
        self.child(unique_id).is_some_and(|child| {
            let is_new = child.state == ChildSaState::Installing && child.replaces.is_none() && !child.taken_back;
            let stays_with_equal = answers && turn.registry.switches.in_use(&child.name, &child.pairs).is_some();
            is_new && !child.policies.is_empty() && !stays_with_equal
        })
    }

    /// A CHILD SA is there in this mode, or it could not be made: whoever waits for it goes on.
    pub(crate) fn installed(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        result: Result<ModeInUse, OffloadError>,
    ) {
        let mut degraded = false;
        if let Err(error) = &result {
            self.install_failed(core, turn, unique_id, error);
        } else if let (Ok(mode), Some(child)) = (&result, self.child_mut(unique_id))
            && child.state == ChildSaState::Installing
        {
            let before = child.shortfall.take().map(|shortfall| shortfall.kind);
            child.installed(turn, mode.clone());
            child.say_installed(core);
            let now = child.shortfall.as_ref().map(|shortfall| &shortfall.kind);
            degraded = now.is_some_and(|kind| Some(kind) != before.as_ref());
        }
        match (self.active.take(), self.incoming.take()) {
            (Some(Active::First(id)), incoming) if id == unique_id => {
                self.incoming = incoming;
                if result.is_ok() {
                    self.first_installed(core, turn, unique_id);
                }
            }
            (Some(Active::Child(exchange)), incoming) if exchange.installs(unique_id) => {
                self.incoming = incoming;
                create_child::installed(self, core, turn, *exchange, result.is_ok());
            }
            (active, Some(Incoming::Install(id, pending))) if id == unique_id => {
                self.active = active;
                self.answer_installed(core, turn, unique_id, pending, result.is_ok());
            }
            (active, incoming) => (self.active, self.incoming) = (active, incoming),
        }
        if degraded {
            self.tell_degraded(core, turn, unique_id);
        }
        if self.child(unique_id).is_some_and(|child| child.is_up() && child.cause.is_some()) {
            self.intents.push_back(Intent::DeleteChild(unique_id));
        }
        self.advance(core, turn);
    }

    /// The mode in which the device says that it runs both SAs. Another one than was asked for counts as a refusal.
    fn read_back(&mut self, turn: &Turn<'_>, unique_id: u32, answer: &Answer) -> Result<ModeInUse, OffloadError> {
        let modes = [Direction::Inbound, Direction::Outbound].map(|way| mode_of(answer, turn.ids.sa(unique_id, way)));
        let [inbound, outbound] = modes;
        let Some(child) = self.child_mut(unique_id) else { return Ok(inbound) };
        let asked = child.rung();
        let Some(other) = [&inbound, &outbound].into_iter().find(|found| found.mode != asked) else {
            return Ok(inbound);
        };
        child.disown(turn.ids);
        Err(OffloadError::Unsupported {
            device: turn.context.devices.get(child.device).map(|device| device.name.clone()).unwrap_or_default(),
            what: format!("a CHILD SA with {}", words::rung(asked)),
            reason: format!("it reads back as {}", words::rung(other.mode)),
        })
    }

    /// The device refuses a rung: the next one is tried, if the configuration leaves one. Gives whether it is.
    fn step_down(&mut self, turn: &mut Turn<'_>, unique_id: u32, error: &OffloadError) -> bool {
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return false };
        let mut child = self.children.swap_remove(at);
        let next = child.step_down(error).map(|keys| {
            tracing::info!(child = &*child.name, "{error}; {} is tried", words::rung(child.rung()));
            let old = child.replaces.and_then(|id| self.children.iter().find(|child| child.unique_id == id));
            child.install_ops(turn, keys, old)
        });
        self.children.push(child);
        let stepped = next.is_some();
        turn.apply(next.unwrap_or_default(), Purpose::Install(unique_id));
        stepped
    }

    fn first_installed(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        match self.child(unique_id).filter(|child| child.taken_back).map(|child| child.config.clone()) {
            None => self.child_up(core, turn, unique_id),
            Some(config) => {
                self.remove_child(core, turn, unique_id, None);
                self.child_failed(
                    core,
                    turn,
                    &config,
                    &Cause::new(CauseKind::PeerDeleted, "deleted again by the peer"),
                );
            }
        }
    }

    fn install_failed(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, error: &OffloadError) {
        let cause = Error::Offload(error.clone()).cause();
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        let mut child = self.children.remove(at);
        tracing::warn!(
            conn = core.connection.name,
            child = child.config.name,
            ike = core.unique_id,
            "backend refused CHILD SA: {error}"
        );
        // Where traffic could not take it, it is installed nevertheless.
        let ops = match child.outbound {
            Outbound::Active | Outbound::Removed => child.remove_ops(turn.ids),
            Outbound::Reserved => child.disowned(),
        };
        match ops {
            ops if ops.is_empty() => turn.context.spis.release_spi(child.device, child.spi_in),
            ops => turn.apply(ops, Purpose::Remove),
        }
        turn.registry.home.remove(&unique_id);
        turn.deadlines.clear_child(unique_id);
        let ike = Box::new(self.snapshot_due(core, turn));
        turn.event(EventBody::ChildSaInstallFailed { ike, child: child.config.name.clone(), cause: cause.clone() });
        if child.replaces.is_none() {
            self.child_failed(core, turn, &child.config, &cause);
        }
        turn.notices.push_back(Notice::ChildGone { unique_id });
        // An initiator has agreed with the peer already, which must not go on sending to an SA that is not there.
        if matches!(&self.active, Some(Active::First(id)) if *id == unique_id)
            || matches!(&self.active, Some(Active::Child(exchange)) if exchange.installs(unique_id))
        {
            self.intents.push_back(Intent::DeleteSpi(child.spi_in));
        }
    }

    /// A CHILD SA that is asked for is refused here, before anything is agreed on. That our device cannot carry it is told like what it refuses
    /// at the install.
    pub(crate) fn tell_refused(&self, core: &Core, turn: &mut Turn<'_>, error: &Error) {
        if let Error::Unfit { child, .. } = error {
            let ike = Box::new(self.snapshot_due(core, turn));
            turn.event(EventBody::ChildSaInstallFailed { ike, child: child.clone(), cause: error.cause() });
        } else if error.is_mismatch() {
            self.tell_failed(core, turn, None, &error.cause());
        }
    }

    /// Tells that nothing came of negotiating a CHILD SA.
    pub(crate) fn tell_failed(&self, core: &Core, turn: &mut Turn<'_>, child: Option<&Child>, cause: &Cause) {
        let ike = Box::new(self.snapshot_due(core, turn));
        let child = child.map(|child| child.name.clone());
        turn.event(EventBody::ChildSaFailed { ike, child, cause: cause.clone() });
    }

    fn answer_installed(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, pending: Pending, ok: bool) {
        let mut payloads = pending.payloads;
        let closing = |old| self.child(old).is_none_or(ChildSa::is_closing);
        let refusal = match pending.rekeys {
            _ if !ok => Some(NotifyType::NO_ADDITIONAL_SAS),
            //= RFC 7296 §2.25.1: no rekeying of a CHILD SA that is being closed, be it since the install began
            Some(old) if closing(old) => Some(NotifyType::TEMPORARY_FAILURE),
            Some(_) | None => None,
        };
        if let Some(kind) = refusal {
            payloads.truncate(pending.always);
            payloads.push(Payload::Notify(Notify::plain(kind)));
        }
        if let Err(error) = core.respond(turn, pending.exchange, &payloads) {
            tracing::warn!(conn = core.connection.name, ike = core.unique_id, "{error}");
        }
        if refusal.is_some() {
            self.remove_child(core, turn, unique_id, None);
            return pending
                .rekeys
                .into_iter()
                .for_each(|old| create_child::refused_rekey(self, core, turn, unique_id, old));
        }
        match pending.rekeys {
            None => {
                self.activate_later(turn, unique_id);
                self.child_up(core, turn, unique_id);
            }
            Some(old) => {
                self.tell_prepared(core, turn, unique_id, old);
                create_child::answered_rekey(self, turn, old);
            }
        }
    }

    /// From our answer on the peer may use the successor of a CHILD SA, long before it says that it has switched.
    fn tell_prepared(&mut self, core: &Core, turn: &mut Turn<'_>, new: u32, replaces: u32) {
        let (now, shard) = (turn.now(), turn.ids.shard());
        let Some(child) = self.child_mut(new) else { return };
        child.prepared = true;
        let child = Box::new(child.snapshot(now, shard));
        let ike = Box::new(self.snapshot_due(core, turn));
        turn.event(EventBody::ChildSaPrepared { ike, child, replaces });
    }

    /// A CHILD SA without predecessor is installed: use it.
    pub(crate) fn child_up(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        self.activate(turn, unique_id);
        if let Some(child) = self.child_mut(unique_id) {
            child.told_up = true;
        }
        let Some(child) = self.child(unique_id) else { return };
        say!(INFO, "IKE 0", core, "CHILD_SA {}", child.established());
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let ike = Box::new(self.snapshot_due(core, turn));
        let config = child.config.clone();
        turn.event(EventBody::ChildSaInstalled { ike, child: snapshot });
        turn.notices.push_back(Notice::ChildUp { connection: core.connection.clone(), child: config });
    }

    /// A CHILD SA that may run on any rung has not got the best one of its device.
    fn tell_degraded(&self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child(unique_id) else { return };
        let Some(shortfall) = &child.shortfall else { return };
        let cause = Cause::new(CauseKind::OffloadFailed, &*shortfall.text);
        tracing::warn!(
            conn = core.connection.name,
            child = child.config.name,
            ike = core.unique_id,
            "CHILD SA runs with {} only: {cause}",
            words::rung(child.rung())
        );
        let ike = Box::new(self.snapshot_due(core, turn));
        let child = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        turn.event(EventBody::Degraded { ike, child, cause });
    }

    /// Lets traffic take the outbound SA of a CHILD SA, away from the one it replaces.
    pub(crate) fn activate(&mut self, turn: &mut Turn<'_>, unique_id: u32) {
        self.activate_for(turn, unique_id, Purpose::Activate(unique_id));
    }

    fn activate_for(&mut self, turn: &mut Turn<'_>, unique_id: u32, purpose: Purpose) {
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        let mut child = self.children.swap_remove(at);
        if child.outbound == Outbound::Reserved {
            let old = child.replaces.and_then(|id| self.children.iter_mut().find(|other| other.unique_id == id));
            let (ops, obsolete) = child.activate_ops(turn.ids, old);
            turn.apply(ops, purpose);
            turn.registry.switches.takes(turn.ids.sa(unique_id, Direction::Outbound), &child.name, &child.pairs);
            turn.apply(obsolete, Purpose::Remove);
        }
        self.children.push(child);
    }

    //= RFC 7296 §2.8: the initiator may not be able to receive on a new SA yet when the responder has answered
    /// Where traffic has an equal CHILD SA of another IKE SA it stays there until the peer is known to have the new one.
    fn activate_later(&mut self, turn: &mut Turn<'_>, unique_id: u32) {
        let sa = turn.ids.sa(unique_id, Direction::Outbound);
        let Some(child) = self.child_mut(unique_id).filter(|child| child.outbound == Outbound::Reserved) else {
            return;
        };
        let Some(other) = turn.registry.switches.in_use(&child.name, &child.pairs) else { return };
        let (ops, _) = child.activate_ops(turn.ids, None);
        turn.registry.switches.takes(sa, &child.name, &child.pairs);
        turn.registry.switches.defer(sa, other, ops);
        let at = turn.after(switch::LONGEST);
        turn.deadlines.set(child.timer(ChildTimer::Switch), at);
    }

    /// A child that was asked for does not come up.
    pub(crate) fn child_failed(&self, core: &Core, turn: &mut Turn<'_>, child: &Arc<Child>, cause: &Cause) {
        tracing::warn!(conn = core.connection.name, child = child.name, ike = core.unique_id, peer = %core.path.remote, "CHILD SA failed: {cause}");
        turn.notices.push_back(Notice::ChildFailed {
            connection: core.connection.clone(),
            child: Some(child.clone()),
            cause: cause.clone(),
        });
    }
}

/// The mode of one SA in an answer; what is not told of is not offloaded.
fn mode_of(answer: &Answer, sa: ipsec::SaHandle) -> ModeInUse {
    match answer {
        Answer::Applied(applied) => {
            applied.modes.iter().find(|(handle, _)| *handle == sa).map_or(ModeInUse::SOFTWARE, |(_, mode)| mode.clone())
        }
        Answer::Status(_) | Answer::Installed(_) => ModeInUse::SOFTWARE,
    }
}
