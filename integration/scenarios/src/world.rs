//! Gateways, network and clock together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ike_model::{CommandId, EventBody};
use ike_sa::{DirectoryMessage, Input, Job, Outcome, Output, Recipient, WorkId};
use ike_wire::Header;
use ipsec::{Instant, OffloadBackend, Request, SaHandle, Shard};

use self::text::{describe, letter, subject};
use crate::dice::Dice;
use crate::gateway::{Done, Gateway, Message, cause};
use crate::journal::{Entry, Happening, Sent};
use crate::link::{Link, Nat};
use crate::oracle::Oracle;
use crate::packets::{Packet, Traffic};
use crate::sabotage::Sabotage;
use crate::{A, B, Who, config};

mod checks;
mod devices;
mod faults;
mod network;
pub mod orders;
mod sleep;
mod text;
mod wire;

/// Steps at one instant above which a world counts as going round in circles.
const BUSY: u32 = 20_000;

/// Two or more gateways under one clock.
pub struct World {
    /// Everything random follows from it.
    pub seed: u64,
    /// The network.
    pub link: Link,
    /// Counts of ESP packets.
    pub traffic: Traffic,
    /// Send an ESP packet over every tunnel in both directions this often.
    pub traffic_every: Option<Duration>,
    /// The dice of the network; scenarios may throw them too.
    pub dice: Dice,
    now: Instant,
    gateways: Vec<Gateway>,
    queue: BTreeMap<(Instant, u64), Due>,
    held: Vec<Flying>,
    count: u64,
    busy: u32,
    strict: bool,
    quiet: bool,
    traced: bool,
    watched: bool,
    trace: Vec<String>,
    journal: Option<Vec<Entry>>,
    datagrams: Vec<Sent>,
    sabotage: Option<Sabotage>,
    hurry: Option<Who>,
    steps: u64,
    oracle: RefCell<Oracle>,
    used: std::collections::BTreeSet<(Who, SaHandle)>,
    mappings: BTreeMap<(Who, SaHandle), SocketAddr>,
}

enum Due {
    Datagram(Flying),
    Message(Who, Shard, Message),
    Esp(Who, Packet),
    Traffic,
    Wake(Who, Duration),
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Flying {
    /// By whom.
    pub from: Who,
    /// Source as the receiver sees it.
    source: SocketAddr,
    /// Destination as the sender knows it.
    destination: SocketAddr,
    /// Counted over all that were sent in this world.
    pub number: Option<usize>,
    /// The message.
    pub octets: Vec<u8>,
}

impl Flying {
    /// Its header.
    pub fn header(&self) -> Header {
        Header::parse(&self.octets).expect("the core sends well-formed messages")
    }
}

impl World {
    /// Gateways with so many shards each, nothing configured.
    pub fn with_shards(seed: u64, shards: &[u8]) -> Self {
        Self {
            seed,
            link: Link::default(),
            traffic: Traffic::default(),
            traffic_every: None,
            dice: Dice::new(seed),
            now: Instant::START + Duration::from_secs(1),
            gateways: shards.iter().enumerate().map(|(who, shards)| Gateway::new(who, *shards, seed, 0)).collect(),
            queue: BTreeMap::new(),
            held: Vec::new(),
            count: 0,
            busy: 0,
            strict: false,
            quiet: false,
            traced: true,
            watched: false,
            trace: Vec::new(),
            journal: None,
            datagrams: Vec::new(),
            sabotage: None,
            hurry: None,
            steps: 0,
            oracle: RefCell::default(),
            used: std::collections::BTreeSet::new(),
            mappings: BTreeMap::new(),
        }
    }

    /// Two gateways of one shard with one connection `gw` between them, child `net`, and the right keys.
    pub fn pair(seed: u64) -> Self {
        Self::pair_of(seed, config::connection("gw", A, B), config::connection("gw", B, A))
    }

    /// Two gateways of one shard with these connections and the right keys.
    pub fn pair_of(seed: u64, at_a: ike_model::Connection, at_b: ike_model::Connection) -> Self {
        let mut world = Self::with_shards(seed, &[1, 1]);
        world.configure(A, at_a);
        world.configure(B, at_b);
        world
    }

    /// Puts a connection into a gateway's configuration, with the keys for all gateways, and tells the gateway.
    pub fn configure(&mut self, who: Who, connection: ike_model::Connection) {
        let others = 0..self.gateways.len();
        let name = connection.name.clone();
        let gateway = &mut self.gateways[who];
        gateway.load(connection);
        if gateway.config.secrets.is_empty() {
            others.filter(|other| *other != who).for_each(|other| gateway.load_secret(config::secret(who, other)));
        }
        self.reload(who, &[&name], &[]);
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_since(Instant::START + Duration::from_secs(1))
    }

    /// How many gateways there are.
    pub fn gateway_count(&self) -> usize {
        self.gateways.len()
    }

    /// A gateway.
    pub fn gateway(&self, who: Who) -> &Gateway {
        &self.gateways[who]
    }

    /// A gateway, to change its configuration, nonces or delays.
    pub fn gateway_mut(&mut self, who: Who) -> &mut Gateway {
        &mut self.gateways[who]
    }

    /// A gateway dies and starts again with its configuration, knowing nothing of before.
    pub fn restart(&mut self, who: Who) {
        self.note(format!("{} starts again", letter(who)));
        let old = &mut self.gateways[who];
        let mut new = Gateway::new(
            who,
            old.shard_count(),
            self.seed.wrapping_add(1_000_u64.wrapping_mul(u64::from(old.life) + 1)),
            old.life + 1,
        );
        new.config = std::mem::take(&mut old.config);
        new.nat = old.nat.take();
        new.addresses = std::mem::take(&mut old.addresses);
        new.provider = old.provider;
        new.skew = old.skew;
        if let Some(first) = old.first_spi {
            new.count_spis_from(first);
        }
        (new.work_delay, new.report_delay) = (old.work_delay, old.report_delay);
        // What was being done for it in its life before is not done for it now.
        self.queue.retain(|_, due| !matches!(due, Due::Message(to, _, _) if *to == who));
        self.gateways[who] = new;
        self.oracle.borrow_mut().restarted(who);
        self.record(|| Happening::Restarted(who));
        let names: Vec<_> = self.gateways[who].config.connections.keys().cloned().collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.reload(who, &names, &[]);
    }

    /// Puts an address translator in front of a gateway.
    pub fn behind_nat(&mut self, who: Who, nat: Nat) {
        self.gateways[who].nat = Some(nat);
    }

    /// From now on each end must receive what the other would send, at every step.
    pub fn strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    /// Keeps no trace and looks at no tables: for large numbers of SAs.
    pub fn quiet(&mut self) {
        self.quiet = true;
    }

    /// Writes a line into the trace.
    pub fn note(&mut self, line: impl AsRef<str>) {
        if self.keeps_trace() {
            self.trace.push(format!("{:>12.6} {}", self.elapsed().as_secs_f64(), line.as_ref()));
        }
    }

    fn keeps_trace(&self) -> bool {
        self.traced && !self.quiet
    }

    /// Keeps no trace, but checks everything: for large numbers of worlds.
    pub fn untraced(&mut self) {
        self.traced = false;
    }

    /// Keeps a journal from now on.
    pub fn keep_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    /// The journal so far.
    pub fn journal(&self) -> &[Entry] {
        self.journal.as_deref().unwrap_or_default()
    }

    /// Says in the journal that a situation was met.
    pub fn mark(&mut self, situation: &'static str) {
        self.record(|| Happening::Mark(situation));
    }

    /// All datagrams so far, as the journal numbers them.
    pub fn datagrams(&self) -> &[Sent] {
        &self.datagrams
    }

    fn record(&mut self, what: impl FnOnce() -> Happening) {
        if let Some(journal) = &mut self.journal {
            journal.push(Entry { at: self.now, what: what() });
        }
    }

    /// Inputs handled so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The trace, with the seed.
    pub fn trace_text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for line in &self.trace {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Ends the test. The trace is printed while the world is dropped.
    ///
    /// # Panics
    /// Always.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        panic!("seed {}, at {:.3} s: {why}", self.seed, self.elapsed().as_secs_f64());
    }

    /// Ends the test unless `condition` holds.
    ///
    /// # Panics
    /// Unless `condition` holds.
    #[track_caller]
    pub fn check(&self, condition: bool, why: &str) {
        if !condition {
            self.fail(why);
        }
    }

    #[track_caller]
    fn insist(&self, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.fail(&why);
        }
    }
}

/// The clock.
impl World {
    /// Jumps to the next delivery or deadline and handles it. False when nothing is left to happen.
    pub fn step(&mut self) -> bool {
        self.step_before(Instant::new(Duration::MAX))
    }

    /// The same, unless that would be after `limit`.
    fn step_before(&mut self, limit: Instant) -> bool {
        let deadline = (0..self.gateways.len())
            .filter(|who| !self.gateways[*who].asleep)
            .filter_map(|who| self.gateways[who].deadline().map(|(at, shard)| (at.max(self.now), who, shard)))
            .min();
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let next = [deadline.map(|(at, _, _)| at), queued].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= limit) else { return false };
        self.advance_to(next);
        match deadline {
            Some((at, who, shard)) if queued.is_none_or(|queued| at < queued) => {
                self.turn(who, shard, Input::Deadline);
                self.settle(who);
            }
            _ => {
                if let Some((_, due)) = self.queue.pop_first() {
                    self.happen(due);
                }
            }
        }
        true
    }

    fn advance_to(&mut self, at: Instant) {
        if at > self.now {
            self.busy = 0;
            self.now = at;
        }
        self.busy += 1;
        self.check(self.busy < BUSY, "the gateways do not come to rest");
    }

    /// Runs for `span`.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.keep_traffic_going();
        while self.step_before(end) {}
        self.now = end;
        self.busy = 0;
    }

    /// Runs until `condition` holds, at most for `limit`. The answer is whether it holds.
    pub fn run_until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.keep_traffic_going();
        loop {
            if condition(self) {
                return true;
            }
            if !self.step_before(end) {
                self.now = end;
                self.busy = 0;
                return condition(self);
            }
        }
    }

    fn keep_traffic_going(&mut self) {
        if self.traffic_every.is_some() && !self.queue.values().any(|due| matches!(due, Due::Traffic)) {
            self.schedule(self.now, Due::Traffic);
        }
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.queue.insert((at, self.count), due);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Datagram(flying) => self.deliver(&flying),
            Due::Message(who, shard, message) => {
                self.gateways[who].inbox.push_back((shard, message));
                // What sleeps finds it when it wakes.
                if !self.sleeps(who) {
                    self.settle(who);
                }
            }
            Due::Esp(to, packet) => self.deliver_packet(to, &packet),
            Due::Wake(who, asleep) if self.sleeps(who) => self.wake(who, asleep),
            Due::Wake(..) => {}
            Due::Traffic => {
                (0..self.gateways.len()).for_each(|who| self.send_packets(who));
                if let Some(every) = self.traffic_every {
                    self.schedule(self.now + every, Due::Traffic);
                }
            }
        }
    }
}

/// One gateway's turn.
impl World {
    fn turn(&mut self, who: Who, shard: Shard, input: Input<'_>) {
        self.steps += 1;
        let now = self.now;
        self.gateways[who].handle(now, shard, input);
        let mut finished = Vec::new();
        while let Some(output) = self.gateways[who].poll_output(shard) {
            self.carry_out(who, shard, output, &mut finished);
        }
        for (id, outcome) in finished {
            self.turn(who, shard, Input::Work(id, outcome));
        }
    }

    fn carry_out(&mut self, who: Who, shard: Shard, output: Output, finished: &mut Vec<(WorkId, Outcome)>) {
        match output {
            Output::Transmit(transmit) => self.transmit(who, transmit),
            Output::Keepalive(_) => self.gateways[who].keepalives += 1,
            Output::Offload(tag, request) => self.offload(who, tag, request),
            Output::Work(id, job) => self.work(who, id, job, finished),
            Output::CancelWork(_) => {}
            Output::Event(body) => self.event(who, body),
            Output::Reply(id, done) => self.answer(who, id, done),
            Output::Directory(recipient, message) => self.directory(who, shard, recipient, &message),
        }
    }

    fn offload(&mut self, who: Who, tag: ipsec::Tag, request: Request) {
        if let (Request::Apply(ops), false) = (&request, self.quiet) {
            if self.keeps_trace() {
                let text: Vec<_> = ops.iter().map(describe).collect();
                self.note(format!("{} : {}", letter(who), text.join(", ")));
            }
            self.insist(self.oracle.borrow_mut().asked(who, ops));
        }
        let request = self.sabotaged_request(who, request);
        self.gateways[who].backend.submit(tag, request);
        self.collect_reports(who);
    }

    fn collect_reports(&mut self, who: Who) {
        while let Some((tag, outcome)) = self.gateways[who].reports.take() {
            if let Err(error) = &outcome {
                self.note(format!("{} : refused: {error}", letter(who)));
                self.record(|| Happening::Refused(who));
            }
            let message = Message::Report(tag, outcome);
            match self.gateways[who].report_delay {
                Some(delay) => self.schedule(self.now + delay, Due::Message(who, tag.shard(), message)),
                None => self.gateways[who].inbox.push_back((tag.shard(), message)),
            }
        }
    }

    /// The backend of a gateway keeps what it is asked until [`Self::release_backend`].
    pub fn hold_backend(&mut self, who: Who) {
        self.gateways[who].held = true;
        self.gateways[who].backend.hold();
    }

    /// Lets the backend carry out what it was told to hold.
    pub fn release_backend(&mut self, who: Who) {
        self.gateways[who].held = false;
        self.gateways[who].backend.release();
        self.collect_reports(who);
        self.settle(who);
    }

    fn work(&mut self, who: Who, id: WorkId, job: Job, finished: &mut Vec<(WorkId, Outcome)>) {
        let gateway = &self.gateways[who];
        let outcome = match job {
            Job::Compute(computation) => computation.run(&gateway.random),
            Job::Resolve(name) => {
                Outcome::Resolved(gateway.names.get(&name).cloned().ok_or_else(|| format!("{name} has no address")))
            }
            Job::SourceFor(remote) => Outcome::Source(gateway.source_for(remote)),
            Job::Routes { locals, remotes } => Outcome::Routes(gateway.routes(&locals, &remotes)),
        };
        match gateway.work_delay {
            Some(delay) => self.schedule(self.now + delay, Due::Message(who, id.shard(), Message::Work(id, outcome))),
            None => finished.push((id, outcome)),
        }
    }

    fn event(&mut self, who: Who, body: EventBody) {
        if self.quiet {
            return;
        }
        if self.keeps_trace() {
            let why = cause(&body).map(|cause| format!(" ({:?}: {cause})", cause.kind)).unwrap_or_default();
            self.note(format!("{} ! {}{} {why}", letter(who), body.name(), subject(&body)));
        }
        self.record(|| Happening::Told(who, body.name()));
        let now = self.now;
        for _ in 0..self.times_told(&body) {
            self.insist(self.oracle.borrow_mut().told(who, &body));
        }
        self.gateways[who].events.push((now, body));
    }

    fn answer(&mut self, who: Who, id: CommandId, done: Done) {
        if self.keeps_trace() {
            self.note(format!("{} -> {done:?}", letter(who)));
        }
        if self.forgets_reply(id) {
            return;
        }
        match self.gateways[who].commands.get_mut(&id.0) {
            Some(pending) if pending.waiting > 0 => {
                pending.waiting -= 1;
                pending.so_far.push(done);
            }
            _ => self.fail(&format!("{} answers command {} twice", letter(who), id.0)),
        }
    }

    fn directory(&mut self, who: Who, from: Shard, to: Recipient, message: &DirectoryMessage) {
        let gateway = &mut self.gateways[who];
        let shards: Vec<_> = match to {
            Recipient::Shard(shard) => vec![shard],
            Recipient::Others => (0..gateway.shard_count()).map(Shard).filter(|shard| *shard != from).collect(),
        };
        for shard in shards {
            gateway.inbox.push_back((shard, Message::Directory(message.clone())));
        }
    }

    /// Hands in everything that waits inside a gateway, then looks whether all is in order.
    fn settle(&mut self, who: Who) {
        while let Some((shard, message)) = self.gateways[who].inbox.pop_front() {
            self.busy += 1;
            self.check(self.busy < BUSY, "the gateway does not come to rest");
            let input = match message {
                Message::Network(addresses) => {
                    self.turn(who, shard, Input::Network(&addresses));
                    continue;
                }
                Message::Resumed(asleep) => Input::Resumed { asleep },
                Message::Command(id, command) => Input::Command(id, command),
                Message::Report(tag, outcome) => Input::Report(tag, outcome),
                Message::Backend(event) => Input::Backend(event),
                Message::Work(id, outcome) => Input::Work(id, outcome),
                Message::Directory(message) => Input::Directory(message),
            };
            self.turn(who, shard, input);
        }
        if !self.quiet {
            self.look(who);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && self.keeps_trace() {
            eprintln!("{}", self.trace_text());
        }
    }
}
