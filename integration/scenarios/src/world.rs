//! Gateways, network and clock together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ike_model::{Command, CommandId, EventBody, Selector};
use ike_sa::{
    CommandRoute, DirectoryMessage, Input, Job, Outcome, Output, Recipient, Transmit, WorkId, command_route, route,
};
use ike_wire::Header;
use ipsec::{
    Direction, Event, Instant, LimitUnit, OffloadBackend, Op, PacketSelectors, Path, PolicyAction, Request, SaHandle,
    Shard,
};

use crate::dice::Dice;
use crate::gateway::{Done, Gateway, Message, Ticket, cause, name};
use crate::link::{Fate, Link, Nat, Sending};
use crate::oracle::{self, Oracle};
use crate::packets::{Packet, Traffic, Way, ways};
use crate::{A, B, Who, config};

mod checks;

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
    trace: Vec<String>,
    oracle: RefCell<Oracle>,
    used: std::collections::BTreeSet<(Who, SaHandle)>,
}

enum Due {
    Datagram(Flying),
    Message(Who, Shard, Message),
    Esp(Who, Packet),
    Traffic,
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
            trace: Vec::new(),
            oracle: RefCell::default(),
            used: std::collections::BTreeSet::new(),
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
        let mut new = Gateway::new(who, old.shard_count(), self.seed.wrapping_add(1_000), old.life + 1);
        new.config = std::mem::take(&mut old.config);
        new.nat = old.nat.take();
        self.gateways[who] = new;
        self.oracle.borrow_mut().restarted(who);
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
        if !self.quiet {
            self.trace.push(format!("{:>12.6} {}", self.elapsed().as_secs_f64(), line.as_ref()));
        }
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

/// Commands.
impl World {
    /// Gives a command to a gateway.
    pub fn command(&mut self, who: Who, command: Command) -> Ticket {
        self.note(format!("{} <- {command:?}", letter(who)));
        let gateway = &mut self.gateways[who];
        let ticket = gateway.next_command;
        gateway.next_command += 1;
        let count = gateway.shard_count();
        let shards: Vec<_> = match command_route(&command, count) {
            CommandRoute::Shard(shard) => vec![shard],
            CommandRoute::All => (0..count).map(Shard).collect(),
        };
        gateway.commands.entry(ticket).or_default().waiting = shards.len();
        for shard in shards {
            gateway.inbox.push_back((shard, Message::Command(CommandId(ticket), command.clone())));
        }
        self.settle(who);
        Ticket(ticket)
    }

    /// What came of a command; `None` while it runs.
    pub fn reply(&self, who: Who, ticket: Ticket) -> Option<Done> {
        self.gateways[who].commands.get(&ticket.0)?.outcome()
    }

    /// Establishes a child.
    pub fn initiate(&mut self, who: Who, connection: &str, child: &str) -> Ticket {
        self.command(who, Command::Initiate { connection: connection.into(), child: Some(child.into()) })
    }

    /// Closes CHILD SAs by name.
    pub fn terminate_child(&mut self, who: Who, child: &str) -> Ticket {
        let selector = Selector { child: Some(child.into()), ..Selector::default() };
        self.command(who, Command::Terminate { selector, force: false })
    }

    /// Closes IKE SAs by connection.
    pub fn terminate_ike(&mut self, who: Who, connection: &str) -> Ticket {
        let selector = Selector { ike: Some(connection.into()), ..Selector::default() };
        self.command(who, Command::Terminate { selector, force: false })
    }

    /// Rekeys CHILD SAs by name.
    pub fn rekey_child(&mut self, who: Who, child: &str) -> Ticket {
        self.command(who, Command::Rekey { selector: Selector { child: Some(child.into()), ..Selector::default() } })
    }

    /// Rekeys IKE SAs by connection.
    pub fn rekey_ike(&mut self, who: Who, connection: &str) -> Ticket {
        self.command(who, Command::Rekey { selector: Selector { ike: Some(connection.into()), ..Selector::default() } })
    }

    /// Tells a gateway that connections were loaded or changed.
    pub fn reload(&mut self, who: Who, changed: &[&str], removed: &[&str]) -> Ticket {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        self.command(who, Command::Reload { changed: names(changed), removed: names(removed) })
    }

    /// Initiates child `net` of connection `gw` at A and runs until both ends are up; then strict checks begin.
    ///
    /// # Panics
    /// When they do not come up within a minute.
    #[track_caller]
    pub fn establish(&mut self) {
        let ticket = self.initiate(A, "gw", "net");
        self.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some());
        let outcome = self.reply(A, ticket);
        self.check(matches!(outcome, Some(Ok(_))), &format!("initiate: {outcome:?}"));
        self.run_for(Duration::from_millis(500));
        self.check_one_tunnel(A, B);
        self.strict(true);
    }
}

/// What the backend tells.
impl World {
    /// The backend of a gateway tells something.
    pub fn backend_event(&mut self, who: Who, event: Event) {
        self.note(format!("{} <- {event:?}", letter(who)));
        let shards: Vec<Shard> = match &event {
            Event::Acquire { policy, .. } => vec![policy.shard()],
            Event::InboundFirstUse { sa }
            | Event::SoftExpire { sa, .. }
            | Event::HardExpire { sa, .. }
            | Event::MappingChange { sa, .. }
            | Event::PeerForm { sa, .. }
            | Event::StateLost { sa } => vec![sa.shard()],
            Event::DeviceDown(_) | Event::DeviceUp(_) | Event::DeviceGone(_) | Event::Drops { .. } => {
                (0..self.gateways[who].shard_count()).map(Shard).collect()
            }
        };
        for shard in shards {
            self.gateways[who].inbox.push_back((shard, Message::Backend(event.clone())));
        }
        self.settle(who);
    }

    /// A packet limit of the outbound SA in use is reached: softly.
    ///
    /// # Panics
    /// Without an SA in use.
    #[track_caller]
    pub fn soft_expire(&mut self, who: Who) {
        let sa = self.sa_in_use(who);
        self.backend_event(who, Event::SoftExpire { sa, unit: LimitUnit::Packets });
    }

    /// The hard packet limit of the outbound SA in use is reached.
    ///
    /// # Panics
    /// Without an SA in use.
    #[track_caller]
    pub fn hard_expire(&mut self, who: Who) {
        let sa = self.sa_in_use(who);
        self.backend_event(who, Event::HardExpire { sa, unit: LimitUnit::Packets });
    }

    #[track_caller]
    fn sa_in_use(&self, who: Who) -> SaHandle {
        let ways = ways(&self.gateways[who].tables());
        match ways.iter().find_map(|way| way.sa) {
            Some(sa) => sa,
            None => self.fail(&format!("{} has no SA in use", letter(who))),
        }
    }

    /// A packet of a host behind a gateway meets a trap. False when there is none.
    pub fn acquire(&mut self, who: Who, packet: PacketSelectors) -> bool {
        let tables = self.gateways[who].tables();
        let trap = tables.policies.values().find(|policy| {
            matches!(policy.action, PolicyAction::Trap { .. }) && policy.selectors.matches_outbound(&packet)
        });
        let Some(trap) = trap else { return false };
        self.backend_event(who, Event::Acquire { policy: trap.handle, packet });
        true
    }

    /// Sends one packet over every tunnel of a gateway.
    pub fn send_packets(&mut self, who: Who) {
        let sending: Vec<_> = self.gateways[who].with_tables(|tables| {
            let sa = |way: Way| way.sa.and_then(|sa| tables.sas.get(&sa));
            ways(tables).into_iter().map(|way| sa(way).map(|sa| (sa.outer.remote, Packet::under(sa)))).collect()
        });
        for sending in sending {
            let Some((remote, packet)) = sending else {
                self.traffic.blocked += 1;
                continue;
            };
            self.traffic.sent += 1;
            let to = self.gateways.iter().position(|gateway| gateway.public_address() == remote);
            let Some(to) = to.filter(|to| !self.link.cut.contains(&(who, *to))) else { continue };
            let at = self.now + self.link.travel(&mut self.dice);
            self.schedule(at, Due::Esp(to, packet));
        }
    }

    fn deliver_packet(&mut self, to: Who, packet: &Packet) {
        let handle = self.gateways[to].with_tables(|tables| packet.receiver(tables).map(|sa| sa.handle));
        let Some(handle) = handle else {
            self.traffic.lost += 1;
            self.note(format!("{} has no SA for ESP {}", letter(to), packet.spi));
            return;
        };
        self.traffic.delivered += 1;
        if self.used.insert((to, handle)) {
            self.backend_event(to, Event::InboundFirstUse { sa: handle });
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
            .filter_map(|who| self.gateways[who].deadline().map(|(at, shard)| (at, who, shard)))
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
                self.settle(who);
            }
            Due::Esp(to, packet) => self.deliver_packet(to, &packet),
            Due::Traffic => {
                (0..self.gateways.len()).for_each(|who| self.send_packets(who));
                if let Some(every) = self.traffic_every {
                    self.schedule(self.now + every, Due::Traffic);
                }
            }
        }
    }
}

/// Datagrams.
impl World {
    fn transmit(&mut self, from: Who, transmit: Transmit) {
        let Transmit { path, octets, .. } = transmit;
        let header = match Header::parse(&octets) {
            Ok(header) => header,
            Err(error) => self.fail(&format!("{} sends a malformed message: {error}", letter(from))),
        };
        if !self.quiet {
            self.insist(self.oracle.borrow_mut().sent(from, &header, &octets));
        }
        let n = self.gateways[from].sent.len();
        self.gateways[from].sent.push((self.now, path, if self.quiet { Vec::new() } else { octets.clone() }));
        let source = self.gateways[from].nat.as_mut().map_or(path.local, |nat| nat.outward(path.local));
        let flying = Flying { from, source, destination: path.remote, octets };
        let to = self.gateways.iter().position(|gateway| gateway.arrival(flying.destination).is_some());
        let sending = Sending { from, n, at: self.now, path, octets: &flying.octets, header };
        let fate = match to {
            Some(to) => self.link.fate(&sending, to, &mut self.dice),
            None => Fate::Lost,
        };
        let line = format!("{} > {} {}", letter(from), path.remote, oracle::describe(&header));
        match fate {
            Fate::Lost => self.note(format!("{line} LOST")),
            Fate::Held => {
                self.note(format!("{line} held"));
                self.held.push(flying);
            }
            Fate::Delivered(times) => {
                self.note(if times.len() > 1 { format!("{line} twice") } else { line });
                for time in times {
                    self.schedule(self.now + time, Due::Datagram(flying.clone()));
                }
            }
        }
    }

    fn deliver(&mut self, flying: &Flying) {
        let to = (0..self.gateways.len()).find_map(|who| Some((who, self.gateways[who].arrival(flying.destination)?)));
        let Some((to, local)) = to else { return };
        self.inject(to, Path { local, remote: flying.source }, &flying.octets);
    }

    /// Hands a datagram to a gateway.
    pub fn inject(&mut self, to: Who, path: Path, octets: &[u8]) {
        if let Ok(header) = Header::parse(octets) {
            self.note(format!("{} < {} {}", letter(to), path.remote, oracle::describe(&header)));
            self.oracle.borrow_mut().arrived(to, &header);
        }
        let shard = route(octets, path.remote, self.gateways[to].shard_count());
        self.turn(to, shard, Input::Datagram { path, octets });
        self.settle(to);
    }

    /// What rules have held, oldest first.
    pub fn held(&self) -> &[Flying] {
        &self.held
    }

    /// Lets the first held datagram that fits arrive now.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn let_go(&mut self, fits: impl Fn(&Flying) -> bool) {
        match self.held.iter().position(fits) {
            Some(at) => {
                let flying = self.held.remove(at);
                self.deliver(&flying);
            }
            None => self.fail("no held datagram fits"),
        }
    }

    /// Lets everything held arrive now, in order.
    pub fn let_all_go(&mut self) {
        for flying in std::mem::take(&mut self.held) {
            self.deliver(&flying);
        }
    }

    /// Forgets everything held.
    pub fn lose_held(&mut self) {
        self.held.clear();
    }
}

/// One gateway's turn.
impl World {
    fn turn(&mut self, who: Who, shard: Shard, input: Input<'_>) {
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
            let text: Vec<_> = ops.iter().map(describe).collect();
            self.note(format!("{} : {}", letter(who), text.join(", ")));
            self.insist(self.oracle.borrow_mut().asked(who, ops));
        }
        self.gateways[who].backend.submit(tag, request);
        self.collect_reports(who);
    }

    fn collect_reports(&mut self, who: Who) {
        while let Some((tag, outcome)) = self.gateways[who].reports.take() {
            if let Err(error) = &outcome {
                self.note(format!("{} : refused: {error}", letter(who)));
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
            Job::SourceFor(_) => Outcome::Source(Ok(config::address(who))),
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
        let why = cause(&body).map(|cause| format!(" ({:?}: {cause})", cause.kind)).unwrap_or_default();
        self.note(format!("{} ! {}{} {why}", letter(who), name(&body), subject(&body)));
        let now = self.now;
        self.gateways[who].events.push((now, body.clone()));
        self.insist(self.oracle.borrow_mut().told(who, &body));
    }

    fn answer(&mut self, who: Who, id: CommandId, done: Done) {
        self.note(format!("{} -> {done:?}", letter(who)));
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

fn letter(who: Who) -> char {
    char::from(b'A' + u8::try_from(who).unwrap_or(25))
}

fn subject(body: &EventBody) -> String {
    match body {
        EventBody::ChildSaInstalled { child, .. } | EventBody::ChildSaClosed { child, .. } => {
            format!(" {}{{{}}} {:?}/{:?}", child.name, child.unique_id, child.spi_in, child.spi_out)
        }
        EventBody::ChildSaRekeyed { old, new, .. } => {
            format!(" {}{{{}}} -> {{{}}} {:?}/{:?}", new.name, old.unique_id, new.unique_id, new.spi_in, new.spi_out)
        }
        EventBody::IkeSaEstablished { ike }
        | EventBody::IkeSaClosed { ike, .. }
        | EventBody::IkeSaFailed { ike, .. }
        | EventBody::IkeSaAuthFailed { ike, .. } => format!(" {}[{}]", ike.connection, ike.unique_id),
        EventBody::IkeSaRekeyed { old, new } => {
            format!(" {}[{}] -> [{}]", new.connection, old.unique_id, new.unique_id)
        }
        EventBody::IkeSaUpdated { .. }
        | EventBody::IkeSaRekeyFailed { .. }
        | EventBody::ChildSaRekeyFailed { .. }
        | EventBody::ChildSaInstallFailed { .. }
        | EventBody::ChildSaSoftExpired { .. }
        | EventBody::ChildSaHardExpired { .. }
        | EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::StateLost { .. }
        | EventBody::PeerUnreachable { .. }
        | EventBody::PeerReachable { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. } => String::new(),
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::InstallSa(sa) => format!("+{} {}", arrow(sa.direction), sa.spi),
        Op::UpdateSa { sa, .. } => format!("move {:x}", sa.raw()),
        Op::RemoveSa(sa) => format!("-sa {:x}", sa.raw()),
        Op::InstallPolicy(policy) => format!("+policy {} {:x}", arrow(policy.direction), policy.handle.raw()),
        Op::UpdatePolicy(policy) => format!("policy {} {:x}", arrow(policy.direction), policy.handle.raw()),
        Op::RemovePolicy(policy) => format!("-policy {:x}", policy.raw()),
        Op::Activate { policy, sa } => format!("policy {:x} => sa {:x}", policy.raw(), sa.raw()),
        Op::InstallGuard(_) => "+guard".into(),
        Op::RemoveGuard(_) => "-guard".into(),
        Op::Flush => "flush".into(),
    }
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
        Direction::Forward => "fwd",
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace_text());
        }
    }
}
