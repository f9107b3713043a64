//! An authenticated IKE SA: its CHILD SAs, what it is doing, and what it is going to do.
//!
//! Only this type has CREATE_CHILD_SA, so nothing can be made or rekeyed before both ends are authenticated. Exchanges are in
//! [`crate::exchange`]; here is what they share: the queue of intents, the one exchange under way in each direction, installs, and the ways in
//! which a CHILD SA ends.

use std::collections::VecDeque;
use std::sync::Arc;

use ike_model::snapshot::{ChildSaState, IkeSaState};
use ike_model::{Cause, CauseKind, Child, ChildSaSnapshot, EventBody, IkeSaSnapshot};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Notify, Payload};
use ipsec::{Answer, Direction, Instant, ModeInUse, OffloadError, Op, OuterAddresses, Path, Request, Spi};

use crate::children::{Agreement, ChildKeys, ChildSa, Outbound};
use crate::core::{Core, log_down, seconds_until};
use crate::deadline::{ChildTimer, IkeTimer};
use crate::directory::{DirectoryEntry, DirectoryMessage};
use crate::error::Error;
use crate::exchange::{create_child, delete, liveness, rekey_ike};
use crate::io::{Output, Recipient};
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::turn::{Purpose, Turn};

/// What is to be done as soon as the window is free.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    /// Make a child.
    CreateChild(ChildRequest),
    /// Rekey a CHILD SA.
    RekeyChild(u32),
    /// Delete a CHILD SA.
    DeleteChild(u32),
    /// Delete a CHILD SA that was agreed on but never installed, by our SPI.
    DeleteSpi(Spi),
    /// Rekey this IKE SA.
    RekeyIke,
    /// Delete this IKE SA.
    DeleteIke,
    /// Ask whether the peer is there.
    Liveness,
}

/// An exchange of ours under way.
#[derive(Debug)]
pub(crate) enum Active {
    /// The first CHILD SA is being installed.
    First(u32),
    /// CREATE_CHILD_SA for a CHILD SA, new or rekeyed.
    Child(Box<create_child::Exchange>),
    /// CREATE_CHILD_SA for this IKE SA.
    RekeyIke(Box<rekey_ike::Exchange>),
    /// INFORMATIONAL with the deletes of these CHILD SAs.
    DeleteChildren(Vec<u32>),
    /// INFORMATIONAL with the delete of this IKE SA.
    DeleteIke,
    /// Empty INFORMATIONAL.
    Liveness,
}

/// A request of the peer whose answer has to wait.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// For an install.
    Install(u32, Pending),
    /// For the key exchange of a CHILD SA.
    ChildKeyExchange(Box<create_child::KeyExchangePending>),
    /// For the key exchange of a new IKE SA.
    IkeKeyExchange(Box<rekey_ike::KeyExchangePending>),
}

/// An answer that waits for the install of a CHILD SA.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Exchange.
    pub(crate) exchange: ExchangeType,
    /// The whole answer.
    pub(crate) payloads: Vec<Payload<'static>>,
    /// How many of the payloads are sent even if the install fails.
    pub(crate) always: usize,
    /// The CHILD SA that is being rekeyed.
    pub(crate) rekeys: Option<u32>,
}

/// Where an authenticated IKE SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In use.
    Up,
    /// Made by the peer's rekeying while ours is under way; which one stays is not decided.
    Undecided,
    /// A successor has taken over.
    Replaced,
    /// Its delete is queued or sent.
    Deleting,
}

/// See the module.
pub(crate) struct Authenticated {
    /// CHILD SAs, also those that only linger.
    pub(crate) children: Vec<ChildSa>,
    /// What is to be done.
    pub(crate) intents: VecDeque<Intent>,
    /// Our exchange.
    pub(crate) active: Option<Active>,
    /// The peer's exchange.
    pub(crate) incoming: Option<Incoming>,
    /// Where it is.
    pub(crate) standing: Standing,
    /// Why it ends.
    pub(crate) cause: Option<Cause>,
    /// The peer's rekeying of this IKE SA while ours is under way.
    pub(crate) rival: Option<rekey_ike::Rival>,
    /// TEMPORARY_FAILURE answers in a row.
    pub(crate) refusals: u8,
    /// Intents put off after TEMPORARY_FAILURE.
    pub(crate) deferred: Vec<Intent>,
    /// It is to be removed now.
    pub(crate) finished: bool,
}

impl Authenticated {
    /// Begins after IKE_AUTH.
    pub(crate) fn begin(core: &mut Core, turn: &mut Turn<'_>) -> Self {
        let this = Self::new();
        this.enter(core, turn);
        turn.registry.connecting.remove(&core.unique_id);
        tracing::info!(
            conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote,
            "IKE SA up: {}[{}]...{}[{}]", core.path.local, core.local_id, core.path.remote, core.remote_id
        );
        turn.event(EventBody::IkeSaEstablished { ike: Box::new(this.snapshot_alone(core, turn.now())) });
        turn.notices.push_back(Notice::Established { spi: core.spi().0 });
        this
    }

    pub(crate) fn new() -> Self {
        Self {
            children: Vec::new(),
            intents: VecDeque::new(),
            active: None,
            incoming: None,
            standing: Standing::Up,
            cause: None,
            rival: None,
            refusals: 0,
            deferred: Vec::new(),
            finished: false,
        }
    }

    /// Enters the tables of established IKE SAs and starts its deadlines.
    pub(crate) fn enter(&self, core: &mut Core, turn: &mut Turn<'_>) {
        let now = turn.now();
        core.established_at = Some(now);
        core.heard_at = now;
        turn.deadlines.clear(core.timer(IkeTimer::HalfOpen));
        turn.deadlines.clear(core.timer(IkeTimer::Reap));
        let entry = DirectoryEntry {
            shard: turn.ids.shard(),
            unique_id: core.unique_id,
            connection: core.connection.name.clone(),
            local_id: core.local_id.clone(),
            remote_id: core.remote_id.clone(),
        };
        if turn.ids.shards() > 1 {
            let message = DirectoryMessage::Established(entry.clone());
            turn.outputs.push_back(Output::Directory(Recipient::Others, message));
        }
        turn.registry.established.insert(core.unique_id, entry);
        liveness::schedule(core, turn);
        schedule_lifetime(core, turn);
    }

    /// Children that waited for the IKE SA.
    pub(crate) fn take_requests(&mut self, requests: &mut VecDeque<ChildRequest>) {
        self.intents.extend(requests.drain(..).map(Intent::CreateChild));
    }

    /// Takes a child that is wanted; nothing new when it is there or on its way.
    pub(crate) fn want_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, request: ChildRequest) {
        if !self.has_child(&request.child.name) {
            self.intents.push_back(Intent::CreateChild(request));
            self.advance(core, turn);
        }
    }

    /// Whether a child of this name is up or on its way.
    pub(crate) fn has_child(&self, name: &str) -> bool {
        self.is_up(name) || self.is_coming(name)
    }

    /// Whether a child of this name is up.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.children.iter().any(|child| child.is_up() && child.config.name == name)
    }

    /// Whether a child of this name is being made.
    pub(crate) fn is_coming(&self, name: &str) -> bool {
        let installing =
            |c: &ChildSa| c.state == ChildSaState::Installing && c.replaces.is_none() && c.config.name == name;
        let queued = |i: &Intent| matches!(i, Intent::CreateChild(request) if request.child.name == name);
        self.children.iter().any(installing)
            || self.intents.iter().chain(&self.deferred).any(queued)
            || matches!(&self.active, Some(Active::Child(exchange)) if exchange.makes(name))
    }

    /// A CHILD SA by its unique id.
    pub(crate) fn child(&self, unique_id: u32) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.unique_id == unique_id)
    }

    /// A CHILD SA by its unique id.
    pub(crate) fn child_mut(&mut self, unique_id: u32) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.unique_id == unique_id)
    }

    /// A CHILD SA by the SPI that the peer receives on, which is how the peer names it.
    pub(crate) fn by_peer_spi(&self, spi: u32) -> Option<u32> {
        let live = |child: &&ChildSa| child.spi_out.get() == spi && child.state != ChildSaState::Deleted;
        self.children.iter().find(live).map(|child| child.unique_id)
    }

    /// Queues an intent unless an equal one waits already, and starts it if nothing else is under way.
    pub(crate) fn intend(&mut self, core: &mut Core, turn: &mut Turn<'_>, intent: Intent) {
        let queued = self.intents.iter().any(|other| match (other, &intent) {
            (Intent::RekeyChild(a), Intent::RekeyChild(b)) | (Intent::DeleteChild(a), Intent::DeleteChild(b)) => a == b,
            (Intent::RekeyIke, Intent::RekeyIke)
            | (Intent::DeleteIke, Intent::DeleteIke)
            | (Intent::Liveness, Intent::Liveness) => true,
            _ => false,
        });
        if !queued {
            match intent {
                // Nothing that waits matters once the IKE SA goes.
                Intent::DeleteIke => self.intents.push_front(intent),
                Intent::CreateChild(_)
                | Intent::RekeyChild(_)
                | Intent::DeleteChild(_)
                | Intent::DeleteSpi(_)
                | Intent::RekeyIke
                | Intent::Liveness => self.intents.push_back(intent),
            }
        }
        self.advance(core, turn);
    }

    /// Starts the next exchange when nothing is under way.
    pub(crate) fn advance(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        while self.active.is_none() && !core.window.is_waiting() && !self.finished {
            let Some(intent) = self.next_intent() else { return };
            let started = match intent {
                Intent::CreateChild(request) => create_child::start(self, core, turn, request),
                Intent::RekeyChild(child) => create_child::start_rekey(self, core, turn, child),
                Intent::DeleteChild(child) => delete::start_child(self, core, turn, child),
                Intent::DeleteSpi(spi) => delete::start_spi(self, core, turn, spi),
                Intent::RekeyIke => rekey_ike::start(self, core, turn),
                Intent::DeleteIke => delete::start_ike(self, core, turn),
                Intent::Liveness => liveness::start(self, core, turn),
            };
            if let Err(error) = started {
                tracing::warn!(conn = core.connection.name, ike = core.unique_id, "{error}");
            }
        }
    }

    fn next_intent(&mut self) -> Option<Intent> {
        let allowed = |intent: &Intent, standing: Standing| match standing {
            Standing::Up => true,
            Standing::Undecided => matches!(intent, Intent::Liveness | Intent::DeleteIke),
            Standing::Replaced | Standing::Deleting => matches!(intent, Intent::DeleteIke),
        };
        let at = self.intents.iter().position(|intent| allowed(intent, self.standing))?;
        self.intents.remove(at)
    }

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
        let old = replaces.and_then(|id| self.children.iter().find(|child| child.unique_id == id));
        let mut child = ChildSa::new(turn, core, agreed, old);
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
        let result = result.map(|answer| mode_of(&answer, turn.ids.sa(unique_id, Direction::Inbound)));
        if let Err(error) = &result {
            self.install_failed(core, turn, unique_id, error);
        } else if let (Ok(mode), Some(child)) = (&result, self.child_mut(unique_id))
            && child.state == ChildSaState::Installing
        {
            child.installed(turn, mode.clone());
        }
        match (self.active.take(), self.incoming.take()) {
            (Some(Active::First(id)), incoming) if id == unique_id => {
                self.incoming = incoming;
                if result.is_ok() {
                    self.child_up(core, turn, unique_id);
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
        self.advance(core, turn);
    }

    fn install_failed(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, error: &OffloadError) {
        let cause = Error::Offload(error.clone()).cause();
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        let child = self.children.remove(at);
        tracing::warn!(
            conn = core.connection.name,
            child = child.config.name,
            ike = core.unique_id,
            "backend refused CHILD SA: {error}"
        );
        turn.context.spis.release_spi(child.device, child.spi_in);
        turn.registry.home.remove(&unique_id);
        turn.deadlines.clear_child(unique_id);
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
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

    fn answer_installed(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, pending: Pending, ok: bool) {
        let mut payloads = pending.payloads;
        if !ok {
            payloads.truncate(pending.always);
            payloads.push(Payload::Notify(Notify::plain(NotifyType::NO_ADDITIONAL_SAS)));
        }
        if let Err(error) = core.respond(turn, pending.exchange, &payloads) {
            tracing::warn!(conn = core.connection.name, ike = core.unique_id, "{error}");
        }
        if !ok {
            return;
        }
        match pending.rekeys {
            None => self.child_up(core, turn, unique_id),
            Some(old) => create_child::answered_rekey(self, turn, old),
        }
    }

    /// A CHILD SA without predecessor is installed: use it.
    pub(crate) fn child_up(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        self.activate(turn, unique_id);
        let Some(child) = self.child(unique_id) else { return };
        tracing::info!(
            conn = core.connection.name, child = child.config.name, ike = core.unique_id, peer = %core.path.remote,
            spi_in = %child.spi_in, spi_out = %child.spi_out,
            "CHILD SA up: {} === {}", crate::selectors::describe(&child.local_ts), crate::selectors::describe(&child.remote_ts)
        );
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        let config = child.config.clone();
        turn.event(EventBody::ChildSaInstalled { ike, child: snapshot });
        turn.notices.push_back(Notice::ChildUp { connection: core.connection.clone(), child: config });
    }

    /// Lets traffic take the outbound SA of a CHILD SA, away from the one it replaces.
    pub(crate) fn activate(&mut self, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        let mut child = self.children.swap_remove(at);
        if child.outbound == Outbound::Reserved {
            let old = child.replaces.and_then(|id| self.children.iter_mut().find(|other| other.unique_id == id));
            let ops = child.activate_ops(turn.ids, old);
            turn.apply(ops, Purpose::Activate(unique_id));
        }
        self.children.push(child);
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

    /// Takes a CHILD SA out of the backend and forgets it. `cause` = it was up and ended without a successor.
    pub(crate) fn remove_child(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, cause: Option<&Cause>) {
        let Some(at) = self.children.iter().position(|child| child.unique_id == unique_id) else { return };
        if let Some(cause) = cause {
            self.tell_down(core, turn, unique_id, cause);
        }
        let mut child = self.children.swap_remove(at);
        let ops = child.remove_ops(turn.ids);
        turn.apply(ops, Purpose::Remove);
        turn.deadlines.clear_child(unique_id);
        turn.registry.home.remove(&unique_id);
        turn.notices.push_back(Notice::ChildGone { unique_id });
    }

    /// Tells that a CHILD SA has ended without a successor.
    pub(crate) fn tell_down(&self, core: &Core, turn: &mut Turn<'_>, unique_id: u32, cause: &Cause) {
        let told_up = |child: &&ChildSa| child.installed_at.is_some() && !child.replaced && !child.redundant;
        let Some(child) = self.child(unique_id).filter(told_up) else { return };
        log_down(core, &format!("CHILD SA {}{{{unique_id}}}", child.config.name), cause);
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        turn.event(EventBody::ChildSaClosed { ike, child: snapshot, cause: cause.clone() });
        turn.notices.push_back(Notice::ChildDown {
            connection: core.connection.clone(),
            child: child.config.clone(),
            unique_id,
            cause: cause.clone(),
        });
    }

    /// The last packets of a rekeyed CHILD SA may still arrive for a while.
    pub(crate) fn linger(&mut self, core: &Core, turn: &mut Turn<'_>, unique_id: u32) {
        let delay = turn.context.config.settings.delete_rekeyed_delay;
        let ids = &*turn.ids;
        let Some(child) = self.children.iter_mut().find(|child| child.unique_id == unique_id) else { return };
        let ops = child.remove_outbound_ops(ids);
        child.retire(turn, ChildSaState::Deleted);
        let at = turn.after(delay);
        turn.deadlines.set(child.timer(ChildTimer::Linger), at);
        turn.apply(ops, Purpose::Remove);
        self.bound_lingering(core, turn);
    }

    /// Keeps the number of lingering CHILD SAs small: the oldest go first.
    fn bound_lingering(&mut self, core: &Core, turn: &mut Turn<'_>) {
        let mut lingering: Vec<u32> = self
            .children
            .iter()
            .filter(|child| child.state == ChildSaState::Deleted)
            .map(|child| child.unique_id)
            .collect();
        lingering.sort_unstable();
        let excess = lingering.len().saturating_sub(LINGERING);
        for unique_id in lingering.into_iter().take(excess) {
            self.remove_child(core, turn, unique_id, None);
        }
    }

    /// A lingering inbound SA: gone when it was idle for long enough.
    pub(crate) fn on_linger(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        result: Result<Answer, OffloadError>,
    ) {
        let delay = turn.context.config.settings.delete_rekeyed_delay;
        let Some(child) = self.child(unique_id).filter(|child| child.state == ChildSaState::Deleted) else { return };
        let idle = match result {
            Ok(Answer::Status(status)) => status.idle_seconds.map(std::time::Duration::from_secs),
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

    /// A deadline of a CHILD SA has come.
    pub(crate) fn on_child_timer(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, timer: ChildTimer) {
        match timer {
            ChildTimer::Soft => self.soft_expired(core, turn, unique_id, ipsec::LimitUnit::Time),
            ChildTimer::Hard => self.hard_expired(core, turn, unique_id, ipsec::LimitUnit::Time),
            ChildTimer::Retry => self.rekey_child(core, turn, unique_id),
            ChildTimer::Linger => {
                let sa = turn.ids.sa(unique_id, Direction::Inbound);
                turn.submit(Request::Query(sa), Purpose::Linger(unique_id));
            }
            ChildTimer::Inactivity => {
                let sa = turn.ids.sa(unique_id, Direction::Inbound);
                turn.submit(Request::Query(sa), Purpose::Inactivity(unique_id));
            }
        }
    }

    /// Whether a CHILD SA was used within its inactivity time. The inbound SA decides: a peer that only receives keeps nothing alive.
    pub(crate) fn on_inactivity(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        unique_id: u32,
        result: &Result<Answer, OffloadError>,
    ) {
        let Some(child) = self.child(unique_id).filter(|child| child.is_up()) else { return };
        let Ok(Answer::Status(status)) = result else { return };
        let since = child.installed_at.map(|at| turn.now().saturating_since(at)).unwrap_or_default();
        let idle = status.idle_seconds.map_or(since, std::time::Duration::from_secs);
        match child.config.inactivity.checked_sub(idle).filter(|rest| !rest.is_zero()) {
            Some(rest) => {
                let at = turn.after(rest);
                turn.deadlines.set(child.timer(ChildTimer::Inactivity), at);
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
        let successor =
            self.children.iter().find(|other| other.replaces == Some(unique_id)).map(|other| other.unique_id);
        if let Some(successor) = successor {
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
        let Some(child) = self.child(unique_id) else { return };
        let snapshot = Box::new(child.snapshot(turn.now(), turn.ids.shard()));
        let (up, installing) = (child.is_up(), child.state == ChildSaState::Installing);
        if installing {
            return;
        }
        let ike = Box::new(self.snapshot_alone(core, turn.now()));
        turn.event(EventBody::StateLost { ike, child: snapshot });
        if up {
            let cause = Cause::new(CauseKind::DeviceLost, "the device does not hold it any more");
            self.close_child(core, turn, unique_id, cause);
        }
    }

    /// Deletes a CHILD SA with the peer.
    pub(crate) fn close_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32, cause: Cause) {
        let Some(child) = self.child_mut(unique_id) else { return };
        child.cause.get_or_insert(cause);
        self.intend(core, turn, Intent::DeleteChild(unique_id));
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

    /// The first packet came on the inbound SA of a CHILD SA: the peer has switched to it.
    pub(crate) fn first_use(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child_mut(unique_id) else { return };
        child.used = true;
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

    /// Closes the IKE SA with the peer.
    pub(crate) fn close(&mut self, core: &mut Core, turn: &mut Turn<'_>, cause: Cause) {
        if self.standing != Standing::Deleting && !self.finished {
            self.cause.get_or_insert(cause);
            self.intend(core, turn, Intent::DeleteIke);
        }
    }

    /// The peer has closed the IKE SA.
    pub(crate) fn on_peer_closed(&mut self, core: &Core, turn: &mut Turn<'_>) {
        rekey_ike::peer_closed(self, core, turn);
        self.finish(core, turn, Cause::new(CauseKind::PeerDeleted, "closed by the peer"));
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
            let live = matches!(child.state, ChildSaState::Installed | ChildSaState::Rekeying | ChildSaState::Deleting);
            live && child.replaces.is_none() && !child.redundant && !child.replaced
        };
        for unique_id in all {
            let own = self.child(unique_id).filter(|child| ended(child)).map(|child| child.cause.clone());
            if let Some(own) = own {
                self.tell_down(core, turn, unique_id, &own.unwrap_or_else(|| cause.clone()));
            }
            if let Some(child) = self.child_mut(unique_id) {
                ops.extend(child.remove_ops(turn.ids));
            }
            turn.deadlines.clear_child(unique_id);
            turn.registry.home.remove(&unique_id);
            turn.notices.push_back(Notice::ChildGone { unique_id });
        }
        let snapshot = self.snapshot_alone(core, turn.now());
        turn.apply(ops, Purpose::Remove);
        self.children.clear();
        if self.standing != Standing::Replaced && self.standing != Standing::Undecided {
            log_down(core, "IKE SA", &cause);
            turn.event(EventBody::IkeSaClosed { ike: Box::new(snapshot), cause });
        }
    }

    /// Successors whose peer has not yet said that the switch is done: it is, as far as anybody will ever be told.
    fn finish_half_switched(&mut self, core: &Core, turn: &mut Turn<'_>) {
        let switching = self.children.iter().filter_map(|child| Some((child.unique_id, child.replaces?)));
        let rekeyed = |old: u32| self.child(old).is_some_and(|child| child.state == ChildSaState::Rekeyed);
        let half: Vec<_> = switching.filter(|(_, old)| rekeyed(*old)).collect();
        for (new, old) in half {
            self.finish_replaced(core, turn, new, old);
        }
    }

    /// What was asked for and will not come.
    fn fail_requests(&mut self, core: &Core, turn: &mut Turn<'_>, cause: &Cause) {
        if let Some(Active::Child(exchange)) = self.active.take()
            && let Some(request) = exchange.abandon(turn)
        {
            self.child_failed(core, turn, &request.child, cause);
        }
        let deferred = std::mem::take(&mut self.deferred);
        for intent in std::mem::take(&mut self.intents).into_iter().chain(deferred) {
            if let Intent::CreateChild(request) = intent {
                self.child_failed(core, turn, &request.child, cause);
            }
        }
        if let Some(Incoming::ChildKeyExchange(pending)) = self.incoming.take() {
            pending.abandon(turn);
        }
    }

    /// Moves all CHILD SAs to another way to the peer.
    pub(crate) fn move_children(&mut self, core: &Core, turn: &mut Turn<'_>, path: Path) {
        let outer = OuterAddresses { local: path.local.ip(), remote: path.remote.ip() };
        let encapsulation = core.nat.encapsulation(path);
        for child in &mut self.children {
            let ops = child.move_ops(turn.ids, outer, encapsulation);
            turn.apply(ops, Purpose::Remove);
        }
    }

    /// State for events: without children.
    pub(crate) fn snapshot_alone(&self, core: &Core, now: Instant) -> IkeSaSnapshot {
        let state = match (self.standing, &self.active) {
            (Standing::Up | Standing::Undecided, Some(Active::RekeyIke(_))) => IkeSaState::Rekeying,
            (Standing::Up | Standing::Undecided, _) => IkeSaState::Established,
            (Standing::Replaced, _) => IkeSaState::Rekeyed,
            (Standing::Deleting, _) => IkeSaState::Deleting,
        };
        core.snapshot(now, state)
    }

    /// State for users.
    pub(crate) fn snapshot(&self, core: &Core, turn: &SnapshotContext<'_>) -> IkeSaSnapshot {
        let mut ike = self.snapshot_alone(core, turn.now);
        let rekey = turn.deadlines.get(core.timer(IkeTimer::Rekey));
        ike.rekey_seconds = rekey.map(|at| seconds_until(turn.now, at));
        ike.tasks_queued = self.intents.iter().map(intent_name).collect();
        ike.tasks_active = self.active.iter().map(active_name).collect();
        let mut children: Vec<ChildSaSnapshot> =
            self.children.iter().map(|child| child.snapshot(turn.now, turn.shard)).collect();
        children.sort_by_key(|child| child.unique_id);
        ike.children = children;
        ike
    }
}

/// What snapshots need.
pub(crate) struct SnapshotContext<'a> {
    /// Now.
    pub(crate) now: Instant,
    /// The shard.
    pub(crate) shard: ipsec::Shard,
    /// Deadlines.
    pub(crate) deadlines: &'a crate::deadline::Deadlines,
}

/// Lingering CHILD SAs per IKE SA at most.
const LINGERING: usize = 16;

fn mode_of(answer: &Answer, sa: ipsec::SaHandle) -> ModeInUse {
    match answer {
        Answer::Applied(modes) => {
            modes.iter().find(|(handle, _)| *handle == sa).map_or(ModeInUse::SOFTWARE, |(_, mode)| mode.clone())
        }
        Answer::Status(_) | Answer::Installed(_) => ModeInUse::SOFTWARE,
    }
}

fn unit_name(unit: ipsec::LimitUnit) -> &'static str {
    match unit {
        ipsec::LimitUnit::Time => "time",
        ipsec::LimitUnit::Bytes => "byte",
        ipsec::LimitUnit::Packets => "packet",
    }
}

fn intent_name(intent: &Intent) -> &'static str {
    match intent {
        Intent::CreateChild(_) => "CHILD_CREATE",
        Intent::RekeyChild(_) => "CHILD_REKEY",
        Intent::DeleteChild(_) | Intent::DeleteSpi(_) => "CHILD_DELETE",
        Intent::RekeyIke => "IKE_REKEY",
        Intent::DeleteIke => "IKE_DELETE",
        Intent::Liveness => "IKE_DPD",
    }
}

fn active_name(active: &Active) -> &'static str {
    match active {
        Active::First(_) => "CHILD_CREATE",
        Active::Child(exchange) if exchange.is_rekey() => "CHILD_REKEY",
        Active::Child(_) => "CHILD_CREATE",
        Active::RekeyIke(_) => "IKE_REKEY",
        Active::DeleteChildren(_) => "CHILD_DELETE",
        Active::DeleteIke => "IKE_DELETE",
        Active::Liveness => "IKE_DPD",
    }
}

/// Starts the soft and the hard lifetime of the IKE SA.
pub(crate) fn schedule_lifetime(core: &Core, turn: &mut Turn<'_>) {
    let connection = core.connection.clone();
    let base = [connection.rekey_time, connection.reauth_time].into_iter().filter(|time| !time.is_zero()).min();
    for timer in [IkeTimer::Rekey, IkeTimer::Expire] {
        turn.deadlines.clear(core.timer(timer));
    }
    let Some(base) = base else { return };
    let share = f64::from(turn.random()) / f64::from(u32::MAX);
    let soft = base.saturating_sub(connection.rand_time.mul_f64(share));
    let begun = core.established_at.unwrap_or(turn.now());
    turn.deadlines.set(core.timer(IkeTimer::Rekey), begun + soft);
    turn.deadlines.set(core.timer(IkeTimer::Expire), begun + soft + connection.over_time);
}
