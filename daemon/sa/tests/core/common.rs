//! Two endpoints on one virtual clock, with a link that can lose datagrams and backends that record.
#![allow(dead_code, reason = "each test target uses a part")]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ike_crypto::{CryptoError, SecureRandom, ring_provider};
use ike_model::config::HostSpec;
use ike_model::{
    Actions, AuthMethod, AuthRound, Child, ChildMode, Command, CommandError, CommandId, CommandOutcome, ConfigSnapshot,
    ConfiguredSelector, Connection, Encryption, EspProposal, EventBody, Fragmentation, Identity, IkeProposal, Secret,
    SharedSecret, Unique,
};
use ike_sa::{Context, Endpoint, Input, Job, Outcome, Output};
use ike_wire::ids::{EncryptionId, EsnId, KeyExchangeId, PrfId};
use ipsec::recording::RecordingBackend;
use ipsec::{
    Answer, Instant, LifetimeConfig, OffloadBackend, OffloadError, OffloadMode, Path, Reports, Shard, Tag,
    TrafficSelector,
};

/// Collects what a backend reports.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) done: Mutex<VecDeque<(Tag, Result<Answer, OffloadError>)>>,
    pub(crate) events: Mutex<VecDeque<ipsec::Event>>,
}

impl Reports for Queue {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.done.lock().unwrap().push_back((tag, outcome));
    }
    fn event(&self, event: ipsec::Event) {
        self.events.lock().unwrap().push_back(event);
    }
    fn ike_datagram(&self, _: Path, _: &[u8]) {}
}

/// A repeatable source of numbers; `first` overrides the first octet of nonce-sized draws.
#[derive(Debug)]
pub(crate) struct Numbers {
    state: Mutex<u64>,
    pub(crate) first: Mutex<VecDeque<u8>>,
}

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed), first: Mutex::default() }
    }
}

impl SecureRandom for Numbers {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        let mut state = self.state.lock().unwrap();
        for octet in destination.iter_mut() {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *octet = (z ^ (z >> 31)).to_be_bytes()[0];
        }
        if destination.len() == 32
            && let Some(first) = self.first.lock().unwrap().pop_front()
        {
            destination[0] = first;
        }
        Ok(())
    }
}

pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) backend: Arc<RecordingBackend>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) config: ConfigSnapshot,
    pub(crate) address: IpAddr,
    pub(crate) events: Vec<EventBody>,
    pub(crate) replies: BTreeMap<u64, Result<CommandOutcome, CommandError>>,
    pub(crate) sent: usize,
    /// Work is kept here instead of being done at once.
    pub(crate) hold_work: bool,
    pub(crate) works: VecDeque<(ike_sa::WorkId, Job)>,
}

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// A datagram on its way.
pub(crate) struct Flying {
    pub(crate) at: Instant,
    pub(crate) to: usize,
    pub(crate) path: Path,
    pub(crate) octets: Vec<u8>,
}

type Drop = Box<dyn FnMut(usize, usize) -> bool>;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) peers: [Peer; 2],
    pub(crate) link: Vec<Flying>,
    pub(crate) latency: Duration,
    /// Sender and number of its datagram so far -> lost?
    pub(crate) drop: Drop,
    /// Sender -> its datagrams wait here.
    pub(crate) hold: [bool; 2],
    pub(crate) held: [Vec<Flying>; 2],
}

impl World {
    pub(crate) fn new(a: ConfigSnapshot, b: ConfigSnapshot) -> Self {
        let peer = |config: ConfigSnapshot, address: &str, first_spi: u32, seed: u64| {
            let queue = Arc::new(Queue::default());
            let reports: Arc<dyn Reports> = queue.clone();
            Peer {
                endpoint: Endpoint::new(Shard(0), 1),
                backend: Arc::new(RecordingBackend::new(reports, first_spi)),
                queue,
                numbers: Arc::new(Numbers::new(seed)),
                config,
                address: address.parse().unwrap(),
                events: Vec::new(),
                replies: BTreeMap::new(),
                sent: 0,
                hold_work: false,
                works: VecDeque::new(),
            }
        };
        Self {
            now: Instant::START,
            peers: [peer(a, "192.0.2.1", 0xa000_0000, 1), peer(b, "192.0.2.2", 0xb000_0000, 2)],
            link: Vec::new(),
            latency: Duration::from_millis(10),
            drop: Box::new(|_, _| false),
            hold: [false; 2],
            held: [Vec::new(), Vec::new()],
        }
    }

    /// Hands one input to a peer and carries out what comes of it.
    pub(crate) fn input(&mut self, who: usize, input: Input<'_>) {
        let now = self.now;
        let peer = &mut self.peers[who];
        let devices = peer.backend.devices();
        let context = Context {
            now,
            wall: 1_800_000_000 + now.since_start().as_secs(),
            rng: &*peer.numbers,
            provider: ring_provider(),
            spis: &*peer.backend,
            devices: &devices,
            config: &peer.config,
        };
        peer.endpoint.handle(&context, input);
        self.drain(who);
    }

    fn drain(&mut self, who: usize) {
        while let Some(output) = self.peers[who].endpoint.poll_output() {
            let peer = &mut self.peers[who];
            match output {
                Output::Transmit(transmit) => {
                    let number = peer.sent;
                    peer.sent += 1;
                    let path = Path { local: transmit.path.remote, remote: transmit.path.local };
                    let flying = Flying { at: self.now + self.latency, to: 1 - who, path, octets: transmit.octets };
                    if self.hold[who] {
                        self.held[who].push(flying);
                    } else if !(self.drop)(who, number) {
                        self.link.push(flying);
                    }
                }
                Output::Offload(tag, request) => peer.backend.submit(tag, request),
                Output::Work(id, job) if peer.hold_work => peer.works.push_back((id, job)),
                Output::Work(id, job) => {
                    let outcome = work(peer, job);
                    self.input(who, Input::Work(id, outcome));
                }
                Output::CancelWork(_) | Output::Keepalive(_) | Output::Directory(..) => {}
                Output::Event(event) => peer.events.push(event),
                Output::Reply(id, result) => {
                    assert!(peer.replies.insert(id.0, result).is_none(), "one reply for each command");
                }
            }
        }
        self.reports(who);
    }

    /// Hands in what the backend has reported.
    pub(crate) fn reports(&mut self, who: usize) {
        loop {
            let next = self.peers[who].queue.done.lock().unwrap().pop_front();
            let Some((tag, result)) = next else { break };
            self.input(who, Input::Report(tag, result));
        }
        loop {
            let next = self.peers[who].queue.events.lock().unwrap().pop_front();
            let Some(event) = next else { break };
            self.input(who, Input::Backend(event));
        }
    }

    /// Lets the datagrams of a sender go again, in the order they were sent.
    pub(crate) fn release(&mut self, who: usize) {
        self.hold[who] = false;
        for mut flying in std::mem::take(&mut self.held[who]) {
            flying.at = self.now + self.latency;
            self.link.push(flying);
        }
    }

    /// Goes on to the next thing that happens, not beyond `until`. Gives whether there was one.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let datagram = self.link.iter().map(|flying| flying.at).min();
        let deadline = self.peers.iter().filter_map(|peer| peer.endpoint.poll_deadline()).min();
        let Some(at) = datagram.into_iter().chain(deadline).min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        if let Some(index) = self.link.iter().position(|flying| flying.at <= self.now) {
            let flying = self.link.remove(index);
            self.input(flying.to, Input::Datagram { path: flying.path, octets: &flying.octets });
            return true;
        }
        for who in [A, B] {
            if self.peers[who].endpoint.poll_deadline().is_some_and(|at| at <= self.now) {
                self.input(who, Input::Deadline);
            }
        }
        true
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        // Both ends look once a second whether everything is still installed.
        let most = 100_000 + 10 * span.as_secs();
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < most, "something goes round in circles");
        }
    }

    pub(crate) fn command(&mut self, who: usize, id: u64, command: Command) {
        self.input(who, Input::Command(CommandId(id), command));
    }

    /// A has initiated `net` and it is up.
    pub(crate) fn up(a: ConfigSnapshot, b: ConfigSnapshot) -> Self {
        let mut world = Self::new(a, b);
        world.initiate(A, 1);
        world.run(Duration::from_secs(1));
        assert_eq!(world.peers[A].replies.get(&1), Some(&Ok(CommandOutcome { matches: 1, terminated: 0 })));
        world
    }

    pub(crate) fn initiate(&mut self, who: usize, id: u64) {
        let command = Command::Initiate { connection: "gw".into(), child: Some("net".into()) };
        self.command(who, id, command);
    }

    /// SPIs (in, out) of all CHILD SAs that are up.
    pub(crate) fn live(&self, who: usize) -> Vec<(u32, u32)> {
        let sas = self.peers[who].endpoint.ike_sas(self.now);
        let mut live: Vec<_> = sas
            .iter()
            .flat_map(|ike| &ike.children)
            .filter(|child| child.state == ike_model::ChildSaState::Installed)
            .map(|child| (child.spi_in.unwrap().get(), child.spi_out.unwrap().get()))
            .collect();
        live.sort_unstable();
        live
    }

    /// Exactly one CHILD SA on both sides, with each other's SPIs, in use outbound, and nothing else installed.
    pub(crate) fn assert_one_tunnel(&self) {
        let (a, b) = (self.live(A), self.live(B));
        assert_eq!(a.len(), 1, "one CHILD SA at A: {a:x?}");
        assert_eq!(b, [(a[0].1, a[0].0)], "the same at B");
        for who in [A, B] {
            let tables = self.peers[who].backend.tables();
            assert_eq!(tables.sas.len(), 2, "two SAs at {who}: {:#?}", self.peers[who].backend.log());
            let active: Vec<_> = tables
                .policies
                .values()
                .filter_map(|policy| match &policy.action {
                    ipsec::PolicyAction::Protect { sa: Some(sa), .. } => Some(tables.sas[sa].spi.get()),
                    ipsec::PolicyAction::Protect { sa: None, .. }
                    | ipsec::PolicyAction::Bypass
                    | ipsec::PolicyAction::Discard
                    | ipsec::PolicyAction::Trap { .. } => None,
                })
                .collect();
            assert_eq!(
                active,
                [self.live(who)[0].1],
                "outbound policy of {who} uses the live SA: {:#?} {:?}",
                self.peers[who].backend.log(),
                self.types(who)
            );
            assert_eq!(tables.policies.len(), 3);
        }
    }

    /// Everything of a peer's configuration is new.
    pub(crate) fn load(&mut self, who: usize, id: u64) {
        let changed = self.peers[who].config.connections.keys().cloned().collect();
        self.command(who, id, Command::Reload { changed, removed: Vec::new() });
    }

    /// Puts another configuration in place of a peer's.
    pub(crate) fn reload(&mut self, who: usize, id: u64, config: ConfigSnapshot) {
        let removed: Vec<String> = self.peers[who]
            .config
            .connections
            .keys()
            .filter(|name| !config.connections.contains_key(name))
            .cloned()
            .collect();
        self.peers[who].config = config;
        let changed = self.peers[who].config.connections.keys().cloned().collect();
        self.command(who, id, Command::Reload { changed, removed });
    }

    /// What the only configured child of a peer is doing.
    pub(crate) fn configured(&self, who: usize) -> ike_model::ConfiguredChildStatus {
        let peer = &self.peers[who];
        peer.endpoint.configured(&peer.config, self.now).pop().unwrap()
    }

    pub(crate) fn types(&self, who: usize) -> Vec<String> {
        self.peers[who].events.iter().map(name).collect()
    }
}

/// Name of an event.
pub(crate) fn name(event: &EventBody) -> String {
    let text = format!("{event:?}");
    text.split([' ', '{']).next().unwrap().to_owned()
}

fn work(peer: &Peer, job: Job) -> Outcome {
    match job {
        Job::Compute(computation) => computation.run(&*peer.numbers),
        Job::Resolve(name) => Outcome::Resolved(Err(format!("'{name}' does not resolve"))),
        Job::SourceFor(_) => Outcome::Source(Ok(peer.address)),
        Job::Routes { locals, remotes } => {
            let pairs = remotes.into_iter().map(|remote| (peer.address, remote));
            Outcome::Routes(pairs.filter(|(local, _)| locals.contains(local)).collect())
        }
    }
}

pub(crate) fn ts(address: &str, length: u8) -> TrafficSelector {
    TrafficSelector::prefix(address.parse().unwrap(), length).unwrap()
}

pub(crate) fn esp() -> EspProposal {
    EspProposal {
        encryption: vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) }],
        integrity: vec![],
        key_exchange: vec![],
        esn: vec![EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ],
    }
}

pub(crate) fn ike() -> IkeProposal {
    IkeProposal {
        encryption: vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) }],
        integrity: vec![],
        prf: vec![PrfId::PRF_HMAC_SHA2_256],
        key_exchange: vec![KeyExchangeId::CURVE_25519, KeyExchangeId::ECP_256],
    }
}

pub(crate) fn child(local: TrafficSelector, remote: TrafficSelector) -> Child {
    Child {
        name: "net".into(),
        esp_proposals: vec![esp()],
        local_ts: vec![ConfiguredSelector::Fixed(local)],
        remote_ts: vec![ConfiguredSelector::Fixed(remote)],
        lifetime: LifetimeConfig::default(),
        mode: ChildMode::Tunnel,
        start_action: Actions::NONE,
        close_action: Actions::NONE,
        dpd_action: Actions::NONE,
        hw_offload: OffloadMode::No,
        replay_window: None,
        reqid: None,
        priority: None,
        copy: Default::default(),
        updown: None,
        policies: true,
        inactivity: Duration::ZERO,
        tags: ike_model::TagConfig::default(),
    }
}

pub(crate) fn connection(local: &str, remote: &str, local_id: &str, remote_id: &str, child: Child) -> Connection {
    let round = |id: &str| vec![AuthRound { method: AuthMethod::Psk, id: Identity::Fqdn(id.into()) }];
    Connection {
        name: "gw".into(),
        local_addrs: vec![HostSpec::Address(local.parse().unwrap())],
        remote_addrs: vec![HostSpec::Address(remote.parse().unwrap())],
        local_port: 500,
        remote_port: 500,
        proposals: vec![ike()],
        local: round(local_id),
        remote: round(remote_id),
        dscp: 0,
        encap: false,
        mobike: false,
        fragmentation: Fragmentation::Yes,
        dpd_delay: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        childless: ike_model::Childless::Allow,
        interface: ike_model::InterfaceIds::default(),
        reauth_time: Duration::ZERO,
        rekey_time: Duration::from_secs(4 * 3600),
        over_time: Duration::from_secs(1440),
        rand_time: Duration::from_secs(1440),
        children: vec![Arc::new(child)],
    }
}

pub(crate) fn psk(owners: &[&str], secret: &str) -> Arc<SharedSecret> {
    Arc::new(SharedSecret {
        id: owners.join("-"),
        owners: owners.iter().map(|name| Identity::Fqdn((*name).into())).collect(),
        secret: Secret::new(secret.as_bytes()),
    })
}

/// Configurations of A and B, which `change` may alter before use.
pub(crate) fn configs(change: impl Fn(usize, &mut Connection, &mut Child)) -> [ConfigSnapshot; 2] {
    let make = |who: usize| {
        let (local, remote) = if who == A { ("192.0.2.1", "192.0.2.2") } else { ("192.0.2.2", "192.0.2.1") };
        let (lan, far) = if who == A { ("10.1.0.0", "10.2.0.0") } else { ("10.2.0.0", "10.1.0.0") };
        let (me, you) = if who == A { ("a.example", "b.example") } else { ("b.example", "a.example") };
        let mut child = child(ts(lan, 16), ts(far, 16));
        let mut connection = connection(local, remote, me, you, child.clone());
        change(who, &mut connection, &mut child);
        connection.children = vec![Arc::new(child)];
        let mut config = ConfigSnapshot::default();
        config.connections.insert("gw".into(), Arc::new(connection));
        config.secrets.push(psk(&["a.example", "b.example"], "correct horse battery staple"));
        config
    };
    [make(A), make(B)]
}

pub(crate) fn plain() -> [ConfigSnapshot; 2] {
    configs(|_, _, _| {})
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
