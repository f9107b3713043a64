//! One thread per shard: takes from its inbox, drives its [`Endpoint`], carries out what comes out of it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use ike_crypto::{Cost, CryptoProvider};
use ike_model::ConfigSnapshot;
use ike_sa::{Admission, Context, Endpoint, Input, Job, Outcome, Output, Sender, SpiSource, Transmit, WorkId};
use ipsec::{DeviceId, Direction, Instant, OffloadBackend, Path, Shard, Spi, TableFull};

use crate::capture::{Captures, IkeMessage};
use crate::clock;
use crate::commands::Commands;
use crate::events::Hub;
use crate::inbox::Inbox;
use crate::net::Sockets;
use crate::router::{Message, Question, Router};
use crate::workers::Workers;

/// Pause before deadlines are tried again after one panicked.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
/// At least this long between two log lines about dropped datagrams.
const FLOOD_PAUSE: Duration = Duration::from_secs(10);

/// What all shards use.
pub(crate) struct Shared {
    /// Configuration in force.
    pub(crate) config: ArcSwap<ConfigSnapshot>,
    /// The data path.
    pub(crate) backend: Arc<dyn OffloadBackend>,
    /// Cryptography.
    pub(crate) provider: &'static CryptoProvider,
    /// Who may begin an IKE SA.
    pub(crate) admission: Arc<Admission>,
    /// Work under way for one shard from which on it takes no first requests: with handshakes coming in faster than the processor can do
    /// their arithmetic, it is the flood that waits and gets dropped, not the established SAs.
    pub(crate) job_limit: usize,
    /// UDP.
    pub(crate) sockets: Arc<Sockets>,
    /// The way to other shards.
    pub(crate) router: Arc<Router>,
    /// Slow work.
    pub(crate) workers: Workers,
    /// Where events go.
    pub(crate) events: Arc<Hub>,
    /// Where outcomes of commands go.
    pub(crate) commands: Arc<Commands>,
    /// Who looks at packets.
    pub(crate) captures: Arc<Captures>,
}

/// Starts the thread of one shard.
pub(crate) fn start(shard: Shard, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let inbox = shared.router.inbox(shard).cloned().ok_or(io::ErrorKind::NotFound)?;
    thread::Builder::new().name(format!("shard-{}", shard.0)).spawn(move || {
        let endpoint = Endpoint::sharing(shard, shared.router.shards(), Arc::clone(&shared.admission));
        let spis = Spis(Arc::clone(&shared.backend));
        let flood = Flood { reported: 0, at: clock::now() };
        Driver {
            shard,
            endpoint,
            shared,
            spis,
            outputs: VecDeque::new(),
            finished: VecDeque::new(),
            working: 0,
            not_before: Instant::START,
            flood,
            naps: clock::Naps::default(),
            looked_at: None,
        }
        .run(&inbox);
    })
}

/// The backend as the core's source of SPIs.
struct Spis(Arc<dyn OffloadBackend>);

impl SpiSource for Spis {
    fn device_for(&self, local: std::net::IpAddr, remote: std::net::IpAddr) -> Option<DeviceId> {
        self.0.device_for(local, remote)
    }

    fn reserve_spi(&self, device: DeviceId) -> Result<Spi, TableFull> {
        self.0.reserve_spi(device)
    }

    fn release_spi(&self, device: DeviceId, spi: Spi) {
        self.0.release_spi(device, spi);
    }
}

struct Driver {
    shard: Shard,
    endpoint: Endpoint,
    shared: Arc<Shared>,
    spis: Spis,
    /// What came out of the core, besides events, and is to be carried out.
    outputs: VecDeque<Output>,
    /// Outcomes of work done on the spot, to be handed in after the current outputs.
    finished: VecDeque<(WorkId, Outcome)>,
    /// Jobs given to the workers and not yet back.
    working: usize,
    /// Deadlines wait for this after a panic.
    not_before: Instant,
    flood: Flood,
    naps: clock::Naps,
    /// Connection of the message at hand, while somebody looks at messages.
    looked_at: Option<String>,
}

/// Datagrams that were dropped before the core saw them, as far as told.
struct Flood {
    reported: u64,
    at: Instant,
}

impl Driver {
    fn run(&mut self, inbox: &Inbox<Message>) {
        loop {
            let deadline = self.endpoint.poll_deadline().map(|deadline| deadline.max(self.not_before));
            let turn = inbox.turn(deadline, self.working < self.shared.job_limit);
            if let Some(asleep) = self.naps.slept() {
                self.advance(Input::Resumed { asleep });
            }
            for message in turn.control {
                if let Message::Stop = message {
                    return;
                }
                self.message(message);
            }
            for datagram in turn.datagrams {
                self.advance(Input::Datagram { path: datagram.path, octets: &datagram.octets });
            }
            self.pass_deadline();
            self.tell_of_flood(inbox);
        }
    }

    fn pass_deadline(&mut self) {
        let now = clock::now();
        let is_due = |deadline: Instant| deadline.max(self.not_before) <= now;
        if self.endpoint.poll_deadline().is_some_and(is_due) && !self.advance(Input::Deadline) {
            // The deadline that panicked may still be the next one: without a pause nothing else would be done any more.
            self.not_before = now + PANIC_PAUSE;
        }
    }

    fn tell_of_flood(&mut self, inbox: &Inbox<Message>) {
        let dropped = inbox.dropped();
        if dropped > self.flood.reported && clock::now().saturating_since(self.flood.at) >= FLOOD_PAUSE {
            let since = dropped - self.flood.reported;
            tracing::warn!(shard = self.shard.0, since, dropped, "IKE datagrams come faster than they can be handled");
            self.flood = Flood { reported: dropped, at: clock::now() };
        }
    }

    fn message(&mut self, message: Message) {
        let input = match message {
            Message::Command(id, command) => Input::Command(id, command),
            Message::Report(tag, outcome) => Input::Report(tag, outcome),
            Message::Backend(event) => Input::Backend(event),
            Message::Work(id, outcome) => {
                self.working = self.working.saturating_sub(1);
                Input::Work(id, outcome)
            }
            Message::Directory(message) => Input::Directory(message),
            Message::Network(addresses) => {
                self.advance(Input::Network(&addresses));
                return;
            }
            // What it is for has been done before it was taken.
            Message::Awake => return,
            Message::Ask(question) => {
                self.guarded(|driver| driver.answer(question));
                return;
            }
            Message::Stop => return,
        };
        self.advance(input);
    }

    /// Whoever asked may have gone; then the answer goes nowhere.
    fn answer(&mut self, question: Question) {
        match question {
            Question::IkeSas(to) => drop(to.send(self.endpoint.ike_sas(clock::now()))),
            Question::Configured(to) => {
                drop(to.send(self.endpoint.configured(&self.shared.config.load(), clock::now())));
            }
            Question::Policies(to) => drop(to.send(self.endpoint.policies())),
            Question::Specs(to) => {
                drop(to.send(self.endpoint.specs(&self.shared.config.load())));
            }
            Question::Keys(leave, connection, to) => drop(to.send(self.endpoint.export_keys(leave, &connection))),
            Question::Counts(to) => drop(to.send(self.endpoint.counts())),
            Question::Counters(scope, to) => drop(to.send(self.endpoint.counters(&scope))),
            Question::ResetCounters(scope, to) => {
                self.endpoint.reset_counters(&scope);
                let _ = to.send(());
            }
        }
    }

    /// Hands in one input and does everything that comes of it; `false` after a panic.
    fn advance(&mut self, input: Input<'_>) -> bool {
        self.guarded(|driver| {
            driver.handle(input);
            // Work that was done on the spot.
            while let Some((id, outcome)) = driver.finished.pop_front() {
                driver.handle(Input::Work(id, outcome));
            }
        })
    }

    /// A panic is a defect: it is reported and the shard goes on. The SA that was being worked on may be left half-changed and then ends by its own
    /// time-outs; the others are untouched, since an input changes one SA only. `false` after a panic.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let went_well = catch_unwind(AssertUnwindSafe(|| work(self))).is_ok();
        if !went_well {
            tracing::error!(shard = self.shard.0, "a shard panicked on an input; please report the lines above");
        }
        went_well
    }

    fn handle(&mut self, input: Input<'_>) {
        let config = self.shared.config.load_full();
        let devices = self.shared.backend.devices();
        let context = Context {
            now: clock::now(),
            wall: clock::wall().as_secs(),
            rng: self.shared.provider.random,
            provider: self.shared.provider,
            spis: &self.spis,
            devices: &devices,
            config: &config,
        };
        self.shared.admission.hold(!self.shared.events.has_room());
        let message = match &input {
            Input::Datagram { path, octets } if self.shared.captures.wants_ike() => Some((*path, *octets)),
            Input::Datagram { .. }
            | Input::Deadline
            | Input::Command(..)
            | Input::Report(..)
            | Input::Backend(_)
            | Input::Work(..)
            | Input::Directory(_)
            | Input::Network(_)
            | Input::Resumed { .. } => None,
        };
        // The IKE SA may be gone afterwards, or only be there then.
        self.looked_at = message.and_then(|(_, octets)| self.connection_of(octets, Sender::Peer));
        self.endpoint.handle(&context, input);
        if let Some((path, octets)) = message {
            self.looked_at = self.connection_of(octets, Sender::Peer).or(self.looked_at.take());
            self.look(self.looked_at.as_deref(), path, Direction::Inbound, (octets, 0));
        }
        let mut events = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            if let Output::Event(body) = output {
                events.push(body);
            } else {
                self.outputs.push_back(output);
            }
        }
        // What has happened is taken down before anybody outside can learn of it: nothing is lost when the process dies in between.
        self.shared.events.publish_all(events);
        while let Some(output) = self.outputs.pop_front() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit(transmit) => self.transmit(&transmit),
            Output::Keepalive(path) => {
                if let Err(error) = self.shared.sockets.keepalive(&path) {
                    tracing::debug!(local = %path.local, remote = %path.remote, %error, "NAT keepalive not sent");
                }
            }
            Output::Offload(tag, request) => self.shared.backend.submit(tag, request),
            Output::Work(id, job) => self.work(id, job),
            // A late outcome is ignored by the core; taking a job out of a queue is not worth a lock.
            Output::CancelWork(_) => {}
            Output::Event(body) => self.shared.events.publish(body),
            Output::Reply(id, outcome) => self.shared.commands.reply(id, outcome),
            Output::Directory(recipient, message) => self.shared.router.directory(self.shard, recipient, message),
        }
    }

    /// Losing a datagram is the network's everyday business: the core sends again.
    fn transmit(&self, transmit: &Transmit) {
        let Transmit { path, octets, dscp } = transmit;
        if self.shared.captures.wants_ike() {
            let connection = self.connection_of(octets, Sender::Us);
            self.look(
                connection.as_ref().or(self.looked_at.as_ref()).map(String::as_str),
                *path,
                Direction::Outbound,
                (octets, *dscp),
            );
        }
        if let Err(error) = self.shared.sockets.send(path, octets, *dscp) {
            tracing::warn!(local = %path.local, peer = %path.remote, %error, "IKE message not sent");
        }
    }

    fn connection_of(&self, octets: &[u8], sender: Sender) -> Option<String> {
        self.endpoint.connection_of(octets, sender).map(str::to_owned)
    }

    /// Shows a message to those who look, with its DSCP.
    fn look(&self, connection: Option<&str>, path: Path, direction: Direction, (octets, dscp): (&[u8], u8)) {
        let Some(connection) = connection else { return };
        let nat = path.local.port() == self.shared.config.load().settings.nat_port;
        self.shared.captures.ike(&IkeMessage { connection, path, direction, nat, dscp, octets });
    }

    fn work(&mut self, id: WorkId, job: Job) {
        match job {
            Job::Compute(computation) if computation.cost() == Cost::Cheap => {
                self.finished.push_back((id, computation.run(self.shared.provider.random)));
            }
            Job::Compute(_) | Job::Resolve(_) | Job::SourceFor(_) | Job::Routes { .. } => {
                self.working += 1;
                self.shared.workers.submit(id, job);
            }
        }
    }
}
