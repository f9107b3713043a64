//! One shard: all its IKE SAs, half-open ones included, and the way of each input to the one it belongs to.
//!
//! # What is bounded, and what happens at the bound
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | half-open IKE SAs, all and of one peer | see [`crate::admission`] | COOKIE, then silence |
//! | IKE SAs that have ended and still answer | 256 for 30 s | the next one answers no more |
//! | CHILD SAs of an IKE SA | 1024, besides 16 that linger | NO_ADDITIONAL_SAS; the oldest lingering one goes |
//! | intents and what was put off | one of a kind for each configured child and CHILD SA | the same wish twice is one |
//! | exchanges under way | one of ours, one of the peer's (window of one) | ours wait as intents, the peer's are ignored |
//! | requests of an established peer | see `pace` | TEMPORARY_FAILURE, then silence |
//! | DELETEs that came before what they delete | 8 of an exchange | forgotten: the SA is deleted again |
//! | fragments of a message | see `reassembly` | dropped |
//! | children that wait for an IKE SA | one for each configured child | the same child twice is one |
//! | configured children, traps, retries | one for each configured child | - |
//! | commands that wait | 4096 | refused with a reason |
//! | jobs under way | 2 of an IKE SA, see `init_limit_job_load` | first requests wait in the driver |
//! | requests to the backend | one for each install, switch or query of a CHILD SA | - |
//! | deadlines | a fixed number for each IKE SA, CHILD SA and configured child | - |
//! | refusals in the log | 10 in 10 s | counted, not logged |

mod acquire;
mod command;
mod configured;
mod counters;
mod first;
mod ikes;
mod initiate;
mod look;
mod notices;
mod reauth;
mod reconcile;
mod reload;
mod specs;
mod surroundings;
mod traps;
pub(crate) mod unique;

pub use self::look::Sender;
pub use self::specs::configured_pairs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ike_model::snapshot::PolicySnapshot;
use ike_model::{ConfigSnapshot, ConfiguredChildStatus, Connection, IkeSaSnapshot};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Header, IkeSpi, Message, Notify, ParseError, Payload};
use ipsec::{Answer, Instant, OffloadError, Path, Shard, Tag};

use crate::admission::Admission;
use crate::core::Core;
use crate::deadline::{Deadlines, Timer};
use crate::directory::DirectoryMessage;
use crate::endpoint::command::Watch;
use crate::endpoint::configured::Keepers;
use crate::endpoint::first::Firsts;
use crate::endpoint::ikes::Ikes;
use crate::endpoint::reauth::Comeback;
use crate::error::Error;
use crate::established::{Authenticated, SnapshotContext};
use crate::exchange::ike_sa_init::stateless;
use crate::exchange::liveness;
use crate::farewell;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Input, Output};
use crate::notice::Notice;
use crate::registry::Registry;
use crate::shaper::Shaper;
use crate::tally::{Dropped, Tallied};
use crate::turn::{Ids, Purpose, Turn, child_of, direction_of};
use crate::work::{Outcome, WorkId};

/// How many SAs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IKE SAs in any state.
    pub ike_sas: usize,
    /// IKE SAs that are not yet authenticated and that a peer initiated.
    pub half_open: usize,
    /// IKE SAs that are authenticated.
    pub established: usize,
    /// CHILD SAs.
    pub children: usize,
}

/// One shard.
///
/// | kind | methods |
/// |---|---|
/// | input | [`handle`](Self::handle) |
/// | output | [`poll_output`](Self::poll_output), [`poll_deadline`](Self::poll_deadline) |
/// | state | [`ike_sas`](Self::ike_sas), [`configured`](Self::configured), [`policies`](Self::policies), [`counts`](Self::counts) |
pub struct Endpoint {
    shared: Shared,
    ikes: Ikes,
    /// IKE SAs that have ended, kept for a while to answer a repeated DELETE.
    departed: BTreeMap<u64, IkeSa>,
    firsts: Firsts,
    admission: Arc<Admission>,
    keepers: Keepers,
    watches: Vec<Watch>,
    /// Connections as they were last applied.
    applied: BTreeMap<String, Arc<Connection>>,
    /// Those of which SAs may be up that were made as they were configured before. What comes up looks for such only then: a connection may have
    /// very many.
    mixed: BTreeSet<String>,
    /// IKE SAs that are to replace another one by full authentication.
    reauthenticating: BTreeSet<u64>,
    /// By our SPI of an IKE SA that is being closed: what is made when it is gone.
    comebacks: BTreeMap<u64, Comeback>,
    /// When the next IKE SA may be begun that nobody waits for.
    shaper: Shaper,
    /// Connections whose peer stopped answering.
    unreachable: BTreeSet<String>,
    stopping: bool,
}

/// What every IKE SA may use.
struct Shared {
    ids: Ids,
    deadlines: Deadlines,
    registry: Registry,
    outputs: VecDeque<Output>,
    notices: VecDeque<Notice>,
}

impl Shared {
    fn turn<'t>(&'t mut self, context: &'t Context<'t>) -> Turn<'t> {
        Turn {
            context,
            ids: &mut self.ids,
            deadlines: &mut self.deadlines,
            registry: &mut self.registry,
            outputs: &mut self.outputs,
            notices: &mut self.notices,
        }
    }
}

impl Endpoint {
    /// Shard number `shard` of `shards` that decides alone who may begin an IKE SA.
    pub fn new(shard: Shard, shards: u8) -> Self {
        Self::sharing(shard, shards, Arc::default())
    }

    /// Shard number `shard` of `shards`, all of which share one [`Admission`].
    pub fn sharing(shard: Shard, shards: u8, admission: Arc<Admission>) -> Self {
        Self {
            shared: Shared {
                ids: Ids::new(shard, shards),
                deadlines: Deadlines::default(),
                registry: Registry {
                    tables: Arc::clone(admission.tables()),
                    tally: Arc::clone(admission.tally()),
                    ..Registry::default()
                },
                outputs: VecDeque::new(),
                notices: VecDeque::new(),
            },
            ikes: Ikes::default(),
            departed: BTreeMap::new(),
            firsts: Firsts::default(),
            admission,
            keepers: Keepers::default(),
            watches: Vec::new(),
            applied: BTreeMap::new(),
            mixed: BTreeSet::new(),
            reauthenticating: BTreeSet::new(),
            comebacks: BTreeMap::new(),
            shaper: Shaper::default(),
            unreachable: BTreeSet::new(),
            stopping: false,
        }
    }

    /// Advances by one input. Drain [`Self::poll_output`] before the next call. Whatever a peer sends ends in outputs and log lines, never
    /// in a panic.
    pub fn handle(&mut self, context: &Context<'_>, input: Input<'_>) {
        match input {
            Input::Datagram { path, octets } => self.on_datagram(context, path, octets),
            Input::Deadline => self.on_deadline(context),
            Input::Command(id, command) => self.on_command(context, id, command),
            Input::Report(tag, result) => self.on_report(context, tag, result),
            Input::Backend(event) => self.on_backend(context, event),
            Input::Work(id, outcome) => self.on_work(context, id, outcome),
            Input::Directory(message) => self.on_directory(context, message),
            Input::Network(addresses) => self.on_network(context, addresses),
            Input::Resumed { asleep } => self.on_resumed(context, asleep),
        }
        self.settle(context);
        self.check_later(context);
    }

    /// What is to be done next; `None` when all is handed out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// When to hand in [`Input::Deadline`] at the latest.
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.shared.deadlines.next()
    }

    /// All IKE SAs with their CHILD SAs, by unique id. Traffic counters are left zero: the backend has them.
    pub fn ike_sas(&self, now: Instant) -> Vec<IkeSaSnapshot> {
        let context = SnapshotContext { now, shard: self.shared.ids.shard(), deadlines: &self.shared.deadlines };
        let mut snapshots: Vec<_> = self.ikes.values().map(|ike| ike.snapshot(&context)).collect();
        snapshots.sort_by_key(|ike| ike.unique_id);
        snapshots
    }

    /// One status for each configured child whose connection has its home here.
    pub fn configured(&self, config: &ConfigSnapshot, now: Instant) -> Vec<ConfiguredChildStatus> {
        self.configured_children(config, now)
    }

    /// Traps and shunts installed by this shard.
    pub fn policies(&self) -> Vec<PolicySnapshot> {
        self.keepers.policies()
    }

    /// How many SAs there are.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { ike_sas: self.ikes.len(), ..Counts::default() };
        for ike in self.ikes.values() {
            match &ike.phase {
                Phase::Responding(_) => counts.half_open += 1,
                Phase::Authenticated(authenticated) => {
                    counts.established += 1;
                    counts.children += authenticated.children.len();
                }
                Phase::Initiating(_) | Phase::Closed => {}
            }
        }
        counts
    }

    /// Runs something of the IKE SA with our SPI `spi`.
    fn with_ike<R>(
        &mut self,
        context: &Context<'_>,
        spi: u64,
        run: impl FnOnce(&mut IkeSa, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let ike = self.ikes.get_mut(spi)?;
        Some(run(ike, &mut self.shared.turn(context)))
    }

    /// Runs something of the IKE SA that owns a CHILD SA.
    fn with_child(
        &mut self,
        context: &Context<'_>,
        child: u32,
        run: impl FnOnce(&mut Authenticated, &mut Core, &mut Turn<'_>),
    ) {
        if let Some(spi) = self.shared.registry.home.get(&child).copied() {
            self.with_ike(context, spi, |ike, turn| ike.with_authenticated(turn, run));
        }
    }

    /// A message came to nothing.
    fn dropped(&self, reason: Dropped) {
        self.admission.tally().count(Tallied::Dropped(reason));
    }

    fn on_datagram(&mut self, context: &Context<'_>, path: Path, octets: &[u8]) {
        self.admission.tally().count(Tallied::Received);
        let message = match Message::parse(octets) {
            Ok(message) => message,
            Err(ParseError::MajorVersion(header)) => return self.refuse_version(context, path, &header),
            Err(ParseError::Malformed(error)) => {
                self.dropped(Dropped::Malformed);
                self.count_malformed(octets);
                return tracing::debug!(peer = %path.remote, "datagram ignored: {error}");
            }
        };
        let header = &message.header;
        let ours = our_spi(header);
        let first = header.exchange == ExchangeType::IKE_SA_INIT && header.flags.initiator && !header.flags.response;
        if first && ours.is_zero() {
            return self.on_first_request(context, path, &message);
        }
        let Some(ike) = self.ikes.get_mut(ours.0).or_else(|| self.departed.get_mut(&ours.0)) else {
            return self.refuse_spi(context, path, &message, ours);
        };
        ike.on_message(&mut self.shared.turn(context), path, &message);
    }

    //= RFC 7296 §2.5, §1.5: a request of a higher major version is answered INVALID_MAJOR_VERSION in version 2
    fn refuse_version(&mut self, context: &Context<'_>, path: Path, header: &Header) {
        self.dropped(Dropped::Version);
        if !header.flags.response {
            self.tell_stranger(context, path, header, NotifyType::INVALID_MAJOR_VERSION);
        }
    }

    //= RFC 7296 §1.5, §2.21.4: an encrypted request with an unknown SPI may be answered INVALID_IKE_SPI in clear, a response never
    fn refuse_spi(&mut self, context: &Context<'_>, path: Path, message: &Message<'_>, ours: IkeSpi) {
        let header = &message.header;
        self.dropped(Dropped::UnknownSpi);
        self.count_stranger(message.octets());
        tracing::debug!(peer = %path.remote, spi = %ours, exchange = %header.exchange, "message for an unknown IKE SA");
        if !header.flags.response && !ours.is_zero() && message.encrypted().is_some() {
            self.tell_stranger(context, path, header, NotifyType::INVALID_IKE_SPI);
        }
    }

    //= RFC 7296 §1.5, §2.21: errors outside of an IKE SA are told at a limited rate, as answers to requests only
    fn tell_stranger(&mut self, context: &Context<'_>, path: Path, request: &Header, kind: NotifyType) {
        if !self.admission.may_tell_error(&context.gate()) {
            return tracing::debug!(peer = %path.remote, %kind, "not told: too many errors");
        }
        if let Some(octets) = stateless(request, &[Payload::Notify(Notify::plain(kind))]) {
            self.shared.outputs.push_back(Output::Transmit(crate::io::Transmit { path, octets, dscp: 0 }));
        }
    }

    fn on_deadline(&mut self, context: &Context<'_>) {
        while let Some(timer) = self.shared.deadlines.due(context.now) {
            match timer {
                Timer::Ike(spi, _) if self.departed.remove(&spi).is_some() => {}
                Timer::Ike(spi, timer) => {
                    self.with_ike(context, spi, |ike, turn| ike.on_timer(turn, timer));
                }
                Timer::Child(child, timer) => {
                    if let Some(spi) = self.shared.registry.home.get(&child).copied() {
                        self.with_ike(context, spi, |ike, turn| ike.on_child_timer(turn, child, timer));
                    }
                }
                Timer::Keeper(number) => self.on_retry(context, number),
                Timer::Trap(number) => self.arm_trap(context, number),
                Timer::Check => self.list(context),
            }
            self.settle(context);
        }
    }

    fn on_work(&mut self, context: &Context<'_>, id: WorkId, outcome: Outcome) {
        match self.shared.registry.working.remove(&id) {
            Some(spi) => {
                self.with_ike(context, spi, |ike, turn| ike.on_work(turn, id, outcome));
            }
            None => tracing::debug!(work = %id, "late outcome ignored"),
        }
    }

    fn on_report(&mut self, context: &Context<'_>, tag: Tag, result: Result<Answer, OffloadError>) {
        self.last_counters(context, tag, &result);
        let Some(purpose) = self.shared.registry.waiting.remove(&tag) else { return };
        match purpose {
            Purpose::Install(child) => {
                if let Some(spi) = self.shared.registry.home.get(&child).copied() {
                    self.with_ike(context, spi, |ike, turn| ike.on_install(turn, child, result));
                }
            }
            Purpose::First(child, mode) => {
                let result = result.map(|_| mode);
                self.with_child(context, child, |ike, core, turn| ike.installed(core, turn, child, result));
            }
            Purpose::Linger(child) => {
                self.with_child(context, child, |ike, core, turn| ike.on_linger(core, turn, child, result));
            }
            Purpose::Inactivity(child, direction) => {
                self.with_child(context, child, |ike, core, turn| {
                    ike.on_inactivity(core, turn, (child, direction), &result);
                });
            }
            Purpose::Count(child, direction) => {
                self.with_child(context, child, |ike, core, turn| {
                    ike.on_count(core, turn, (child, direction), &result)
                });
            }
            Purpose::Keepalive(child) => {
                self.with_child(context, child, |ike, core, turn| liveness::on_idle(ike, core, turn, child, &result));
            }
            Purpose::Move(child) => {
                if let Err(error) = result {
                    tracing::warn!(child, "the backend could not move a CHILD SA: {error}");
                    self.with_child(context, child, |ike, core, turn| ike.move_failed(core, turn, child));
                }
            }
            Purpose::Trap(number) => self.on_trap_installed(context, number, result),
            Purpose::List => self.on_list(context, result),
            Purpose::Repair(child) => self.on_repaired(context, child, result),
            Purpose::Activate(child) => {
                if let Err(error) = result {
                    // It would receive and never send.
                    let cause = Error::Offload(error).cause();
                    self.with_child(context, child, |ike, core, turn| ike.close_child(core, turn, child, cause));
                }
            }
            Purpose::Remove => {
                if let Err(error) = result {
                    tracing::warn!(?purpose, "backend: {error}");
                }
            }
        }
    }

    /// A request may have taken SAs out: what they have carried is known now, and told where nothing else of their CHILD SA is left.
    fn last_counters(&mut self, context: &Context<'_>, tag: Tag, result: &Result<Answer, OffloadError>) {
        for sa in self.shared.registry.farewells.answered(tag) {
            let last = farewell::last_of(result, sa);
            if let Some(last) = last {
                self.with_child(context, child_of(sa), |ike, _, turn| {
                    if let Some(child) = ike.child_mut(child_of(sa)) {
                        child.count_last(last, turn.now());
                    }
                });
            }
            let told = self.shared.registry.farewells.left(sa, last, context.now, self.shared.ids.shard());
            self.shared.outputs.extend(told.map(Output::Event));
        }
        self.watch_told();
    }

    fn on_backend(&mut self, context: &Context<'_>, event: ipsec::Event) {
        use ipsec::Event;
        match event {
            Event::Acquire { policy, packet } => self.on_acquire(context, policy, packet),
            Event::InboundFirstUse { sa } => {
                let child = child_of(sa);
                self.with_child(context, child, |ike, core, turn| ike.first_use(core, turn, child));
            }
            Event::SoftExpire { sa, unit } => {
                let child = child_of(sa);
                self.with_child(context, child, |ike, core, turn| ike.soft_expired(core, turn, child, unit));
            }
            Event::HardExpire { sa, unit } => {
                let child = (child_of(sa), Some(direction_of(sa)));
                self.with_child(context, child.0, |ike, core, turn| ike.hard_expired(core, turn, child, unit));
            }
            Event::MappingChange { sa, remote } => {
                self.with_child(context, child_of(sa), |ike, core, turn| ike.on_mapping_change(core, turn, remote));
            }
            Event::PeerForm { sa, encapsulation } => {
                let child = child_of(sa);
                self.with_child(context, child, |ike, _, turn| ike.follow_form(turn, child, encapsulation));
            }
            Event::StateLost { sa } => {
                let child = child_of(sa);
                self.with_child(context, child, |ike, core, turn| ike.state_lost(core, turn, child));
            }
            Event::DeviceDown(device) => self.device_down(context, device),
            Event::DeviceUp(device) => self.device_up(context, device),
            Event::DeviceGone(device) => self.device_gone(context, device),
            Event::Resync => self.list(context),
            Event::Drops { reason, packets } => tracing::debug!(reason, packets, "packets dropped"),
        }
    }

    fn on_directory(&mut self, context: &Context<'_>, message: DirectoryMessage) {
        match message {
            DirectoryMessage::Established(entry) => {
                self.shared.registry.connecting.remove(&entry.unique_id);
                self.peer_is_back(context, &entry.connection);
                self.shared.registry.established.insert(entry);
            }
            DirectoryMessage::Connecting { unique_id, local_id, remote_id } => {
                self.shared.registry.connecting.insert(unique_id, (local_id, remote_id));
            }
            DirectoryMessage::Gone { unique_id } => {
                self.shared.registry.connecting.remove(&unique_id);
                self.shared.registry.established.remove(unique_id);
            }
            DirectoryMessage::Yield { connection } => self.yield_attempts(context, &connection),
            DirectoryMessage::Supersede { unique_id, delay } => self.supersede(context, unique_id, delay),
            DirectoryMessage::Initiate { unique_id, connection, child, wish } => {
                self.initiate_below(context, unique_id, &connection, &child, wish);
            }
            DirectoryMessage::ChildUp { connection, child, from } => {
                self.watch_up(&connection, Some(&child));
                self.kept_up(context, &connection, &child, from);
            }
            DirectoryMessage::ChildThere { connection, child, command } => {
                self.watch_vain(command, &child);
                self.watch_up(&connection, Some(&child));
                self.kept_there(&connection, &child);
            }
            DirectoryMessage::ChildDown { connection, child, from, cause } => {
                self.kept_down(context, &connection, &child, from, cause);
            }
            DirectoryMessage::ChildFailed { connection, child, cause } => {
                self.watch_failed(&connection, child.as_deref(), &cause);
                self.kept_failed(context, &connection, child.as_deref(), &cause);
            }
            DirectoryMessage::Replace { unique_id, silently } => self.replace(context, unique_id, silently),
        }
    }

    /// Our SPI of the IKE SA with this unique id.
    fn by_unique_id(&self, unique_id: u32) -> Option<u64> {
        self.ikes.by_unique_id(unique_id)
    }
}

/// Which of both SPIs in a message to us is ours.
fn our_spi(header: &Header) -> IkeSpi {
    if header.flags.initiator { header.responder_spi } else { header.initiator_spi }
}
