//! An authenticated IKE SA: its CHILD SAs, what it is doing, and what it is going to do.
//!
//! Only this type has CREATE_CHILD_SA, so nothing can be made or rekeyed before both ends are authenticated. Exchanges are in
//! [`crate::exchange`]; here is what they share: the queue of intents, the one exchange under way in each direction, installs, and the ways in
//! which a CHILD SA ends.

mod ending;
mod install;
mod limits;
mod linger;
mod lost;
mod moving;

use std::collections::VecDeque;

use ike_model::reload::same_child_sa;
use ike_model::snapshot::{ChildSaState, IkeSaState};
use ike_model::{Cause, Child, ChildSaSnapshot, EventBody, IkeSaSnapshot};
use ike_wire::Payload;
use ike_wire::ids::ExchangeType;
use ipsec::{Instant, Path, Spi};

use crate::children::ChildSa;
use crate::core::{Core, seconds_until};
use crate::deadline::{Deadlines, IkeTimer};
use crate::directory::{DirectoryEntry, DirectoryMessage};
use crate::exchange::mobike::{self, Errand};
use crate::exchange::{auth_lifetime, create_child, delete, liveness, rekey_ike};
use crate::io::{Output, Recipient};
use crate::negotiation::ChildRequest;
use crate::notice::{Estate, Notice};
use crate::say::{Ends, say};
use crate::turn::Turn;

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
    /// Tell the peer how long the authentication holds.
    AuthLifetime,
    /// Ask whether the peer is there.
    Liveness,
    /// Say or ask something about addresses.
    Mobike(Errand),
}

impl Intent {
    /// The child that is asked for.
    fn wish(&self) -> Option<&ChildRequest> {
        let Self::CreateChild(request) = self else { return None };
        Some(request)
    }

    /// The same, to be changed.
    fn wish_mut(&mut self) -> Option<&mut ChildRequest> {
        let Self::CreateChild(request) = self else { return None };
        Some(request)
    }
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
    /// INFORMATIONAL with AUTH_LIFETIME.
    AuthLifetime,
    /// Empty INFORMATIONAL.
    Liveness,
    /// INFORMATIONAL about addresses.
    Mobike(Box<mobike::Exchange>),
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
    /// The other one stays: both ends rekeyed at once, and this one never was in use. The end that made it deletes it.
    Redundant,
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
    /// The way before the last move, for the exchange that tells of it.
    pub(crate) left: Option<Path>,
    /// Our SPI of the IKE SA that has replaced it.
    pub(crate) successor: Option<u64>,
}

impl Authenticated {
    /// Begins after IKE_AUTH.
    pub(crate) fn begin(core: &mut Core, turn: &mut Turn<'_>) -> Self {
        let this = Self::new();
        auth_lifetime::begin(core, turn);
        core.interface = core.connection.interface.draw(|| turn.ids.tag_value());
        this.enter(core, turn);
        turn.registry.connecting.remove(&core.unique_id);
        let (name, id) = (&core.connection.name, core.unique_id);
        say!(INFO, "IKE 0", core, "IKE_SA {name}[{id}] established between {}", Ends(core));
        say_lifetimes(core, turn);
        turn.event(EventBody::IkeSaEstablished { ike: Box::new(this.snapshot_due(core, turn)) });
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
            left: None,
            successor: None,
        }
    }

    /// Takes over what an IKE SA leaves to its successor. What was put off stays put off (RFC 7296 §2.25).
    pub(crate) fn take_over(&mut self, estate: Estate, core: &Core, turn: &mut Turn<'_>) {
        self.cause = estate.cause;
        self.children.extend(estate.children);
        self.intents.extend(estate.intents.into_iter().filter(|intent| !matches!(intent, Intent::RekeyIke)));
        self.deferred.extend(estate.deferred);
        if let Some(at) = estate.resume {
            turn.deadlines.set(core.timer(IkeTimer::Resume), at);
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
            remote: core.path.remote,
            since: core.authentication.since.unwrap_or(now),
            initiator: !core.authentication.responder,
            initiator_spi: core.spi_i.0,
        };
        if !core.superseded {
            if turn.ids.shards() > 1 {
                let message = DirectoryMessage::Established(entry.clone());
                turn.outputs.push_back(Output::Directory(Recipient::Others, message));
            }
            turn.registry.established.insert(entry);
        }
        liveness::schedule(core, turn);
        schedule_lifetime(core, turn);
    }

    /// Children that waited for the IKE SA.
    pub(crate) fn take_requests(&mut self, requests: &mut VecDeque<ChildRequest>) {
        self.intents.extend(requests.drain(..).map(Intent::CreateChild));
    }

    /// Takes a child that is wanted; nothing new when it is there or on its way.
    pub(crate) fn want_child(&mut self, core: &mut Core, turn: &mut Turn<'_>, request: ChildRequest) {
        if !self.has_child(&request.child) {
            self.intents.push_back(Intent::CreateChild(request));
            self.advance(core, turn);
        } else if request.asked {
            self.wishes().filter(|wish| wish.child.name == request.child.name).for_each(|wish| wish.asked = true);
        }
    }

    /// What is asked for and not there yet.
    fn wishes(&mut self) -> impl Iterator<Item = &mut ChildRequest> {
        let under_way = match &mut self.active {
            Some(Active::Child(exchange)) => exchange.wish_mut(),
            Some(_) | None => None,
        };
        let queued = self.intents.iter_mut().chain(&mut self.deferred).filter_map(Intent::wish_mut);
        queued.chain(under_way)
    }

    /// Whether a child is up or on its way.
    pub(crate) fn has_child(&self, child: &Child) -> bool {
        self.is_up(child) || self.is_coming(child)
    }

    /// Whether a child is up, made as it is configured in `child`.
    pub(crate) fn is_up(&self, child: &Child) -> bool {
        self.children.iter().any(|sa| sa.is_up() && !sa.is_closing() && is_made_as(&sa.config, child))
    }

    /// Whether a child is being made.
    pub(crate) fn is_coming(&self, child: &Child) -> bool {
        let installing = |sa: &ChildSa| {
            let makes = sa.state == ChildSaState::Installing && sa.replaces.is_none() && !sa.is_closing();
            makes && is_made_as(&sa.config, child)
        };
        // What is only queued is made as it is configured then.
        let queued = |intent: &Intent| intent.wish().is_some_and(|wish| wish.child.name == child.name);
        self.children.iter().any(installing)
            || self.intents.iter().chain(&self.deferred).any(queued)
            || matches!(&self.active, Some(Active::Child(exchange)) if exchange.makes(child))
    }

    /// Names of the children that are up or on their way.
    pub(crate) fn names(&self) -> Vec<String> {
        let coming = self.intents.iter().chain(&self.deferred).filter_map(Intent::wish);
        let live = |sa: &&ChildSa| (sa.is_up() || sa.state == ChildSaState::Installing) && !sa.is_closing();
        let mut names: Vec<String> = self.children.iter().filter(live).map(|sa| sa.config.name.clone()).collect();
        names.extend(coming.map(|wish| wish.child.name.clone()));
        names.dedup();
        names
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
            | (Intent::AuthLifetime, Intent::AuthLifetime)
            | (Intent::Liveness, Intent::Liveness) => true,
            (Intent::Mobike(a), Intent::Mobike(b)) => a == b,
            _ => false,
        });
        // One that is under way is as good as a queued one: asked for again after a refusal, it would not wait.
        say!(TRACE, "IKE 2", core, "queueing {} task", intent_name(&intent));
        let under_way = matches!((&self.active, &intent), (Some(Active::RekeyIke(_)), Intent::RekeyIke));
        if !queued && !under_way {
            match intent {
                // Nothing that waits matters once the IKE SA goes.
                Intent::DeleteIke => self.intents.push_front(intent),
                Intent::CreateChild(_)
                | Intent::RekeyChild(_)
                | Intent::DeleteChild(_)
                | Intent::DeleteSpi(_)
                | Intent::RekeyIke
                | Intent::AuthLifetime
                | Intent::Liveness
                | Intent::Mobike(_) => self.intents.push_back(intent),
            }
        }
        self.advance(core, turn);
    }

    /// Starts the next exchange when nothing is under way.
    pub(crate) fn advance(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        while self.active.is_none() && !core.window.is_waiting() && !self.finished {
            let Some(intent) = self.next_intent() else { return };
            say!(TRACE, "IKE 2", core, "activating {} task", intent_name(&intent));
            let started = match intent {
                Intent::CreateChild(request) => create_child::start(self, core, turn, request),
                Intent::RekeyChild(child) => create_child::start_rekey(self, core, turn, child),
                Intent::DeleteChild(child) => delete::start_child(self, core, turn, child),
                Intent::DeleteSpi(spi) => delete::start_spi(self, core, turn, spi),
                Intent::RekeyIke => rekey_ike::start(self, core, turn),
                Intent::DeleteIke => delete::start_ike(self, core, turn),
                Intent::AuthLifetime => auth_lifetime::start(self, core, turn),
                Intent::Liveness => liveness::start(self, core, turn),
                Intent::Mobike(errand) => mobike::start(self, core, turn, errand),
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
            Standing::Redundant | Standing::Replaced | Standing::Deleting => matches!(intent, Intent::DeleteIke),
        };
        let at = self.intents.iter().position(|intent| allowed(intent, self.standing))?;
        self.intents.remove(at)
    }

    /// State without children, and without the times at which something is due.
    pub(crate) fn snapshot_alone(&self, core: &Core, now: Instant) -> IkeSaSnapshot {
        let state = match (self.standing, &self.active) {
            (Standing::Up | Standing::Undecided, Some(Active::RekeyIke(_))) => IkeSaState::Rekeying,
            (Standing::Up | Standing::Undecided, _) => IkeSaState::Established,
            (Standing::Redundant, Some(Active::DeleteIke)) => IkeSaState::Deleting,
            (Standing::Redundant | Standing::Replaced, _) => IkeSaState::Rekeyed,
            (Standing::Deleting, _) => IkeSaState::Deleting,
        };
        core.snapshot(now, state)
    }

    /// State for events: without children.
    pub(crate) fn snapshot_due(&self, core: &Core, turn: &Turn<'_>) -> IkeSaSnapshot {
        let mut ike = self.snapshot_alone(core, turn.now());
        show_due(&mut ike, core, turn.now(), turn.deadlines);
        ike
    }

    /// State for users.
    pub(crate) fn snapshot(&self, core: &Core, turn: &SnapshotContext<'_>) -> IkeSaSnapshot {
        let mut ike = self.snapshot_alone(core, turn.now);
        show_due(&mut ike, core, turn.now, turn.deadlines);
        ike.tasks_queued = self.intents.iter().map(intent_name).collect();
        ike.tasks_active = self.active.iter().map(active_name).collect();
        let mut children: Vec<ChildSaSnapshot> =
            self.children.iter().map(|child| child.snapshot(turn.now, turn.shard)).collect();
        children.sort_by_key(|child| child.unique_id);
        ike.children = children;
        ike
    }
}

/// Puts in when the IKE SA is to be rekeyed and authenticated afresh.
fn show_due(ike: &mut IkeSaSnapshot, core: &Core, now: Instant, deadlines: &Deadlines) {
    let due = |timer| deadlines.get(core.timer(timer)).map(|at| seconds_until(now, at));
    (ike.rekey_seconds, ike.reauth_seconds) = (due(IkeTimer::Rekey), due(IkeTimer::Reauth));
}

/// Whether a CHILD SA made under one configuration is the child that another one means.
pub(crate) fn is_made_as(made: &Child, wanted: &Child) -> bool {
    made.name == wanted.name && same_child_sa(made, wanted)
}

/// What snapshots need.
pub(crate) struct SnapshotContext<'a> {
    /// Now.
    pub(crate) now: Instant,
    /// The shard.
    pub(crate) shard: ipsec::Shard,
    /// Deadlines.
    pub(crate) deadlines: &'a Deadlines,
}

fn intent_name(intent: &Intent) -> &'static str {
    match intent {
        Intent::CreateChild(_) => "CHILD_CREATE",
        Intent::RekeyChild(_) => "CHILD_REKEY",
        Intent::DeleteChild(_) | Intent::DeleteSpi(_) => "CHILD_DELETE",
        Intent::RekeyIke => "IKE_REKEY",
        Intent::DeleteIke => "IKE_DELETE",
        Intent::AuthLifetime => "IKE_AUTH_LIFETIME",
        Intent::Liveness => "IKE_DPD",
        Intent::Mobike(_) => Errand::name(),
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
        Active::AuthLifetime => "IKE_AUTH_LIFETIME",
        Active::Liveness => "IKE_DPD",
        Active::Mobike(_) => Errand::name(),
    }
}

/// When the IKE SA will be replaced, and when it ends should that fail.
pub(crate) fn say_lifetimes(core: &Core, turn: &Turn<'_>) {
    let until = |timer| turn.deadlines.get(core.timer(timer)).map(|at| seconds_until(turn.now(), at));
    if let Some(seconds) = until(IkeTimer::Rekey) {
        say!(DEBUG, "IKE 1", core, "scheduling rekeying in {seconds}s");
    }
    if let Some(seconds) = until(IkeTimer::Reauth) {
        say!(DEBUG, "IKE 1", core, "scheduling reauthentication in {seconds}s");
    }
    if let Some(seconds) = until(IkeTimer::Expire) {
        say!(DEBUG, "IKE 1", core, "maximum IKE_SA lifetime {seconds}s");
    }
}

/// Starts the soft lifetimes, for rekeying and for authenticating afresh, and the hard lifetime of the IKE SA.
pub(crate) fn schedule_lifetime(core: &Core, turn: &mut Turn<'_>) {
    let connection = core.connection.clone();
    let rekey_at = (!connection.rekey_time.is_zero()).then(|| {
        let share = turn.share();
        let begun = core.established_at.unwrap_or(turn.now());
        begun + connection.rekey_time.saturating_sub(connection.rand_time.mul_f64(share))
    });
    let limit = core.authentication.limit();
    let rekeyed_until = rekey_at.map(|at| at + connection.over_time);
    let expire_at = [rekeyed_until, limit.map(|limit| limit.ends_at)].into_iter().flatten().min();
    for (timer, at) in [
        (IkeTimer::Rekey, rekey_at),
        //= RFC 4478 §2: if the IKE SA is rekeyed, the time limit applies to the new one
        (IkeTimer::Reauth, limit.map(|limit| limit.repeat_at)),
        (IkeTimer::Expire, expire_at),
    ] {
        match at {
            Some(at) => turn.deadlines.set(core.timer(timer), at),
            None => turn.deadlines.clear(core.timer(timer)),
        }
    }
}
