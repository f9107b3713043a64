//! One endpoint of the protocol core that answers an attacker in the same thread, on a virtual clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use ike_crypto::{CryptoProvider, SystemRandom, ring_provider};
use ike_model::{
    Actions, AuthMethod, AuthRound, Child, ChildMode, Command, CommandId, ConfigSnapshot, ConfiguredSelector,
    Connection, Encryption, EspProposal, Fragmentation, HostSpec, Identity, IkeProposal, Secret, Selector,
    SharedSecret, Unique,
};
use ike_sa::{Context, Counts, Endpoint, Input, Job, Output};
use ike_wire::ids::{EncryptionId, EsnId, KeyExchangeId, PrfId};
use ipsec::limits::Lifetime;
use ipsec::recording::RecordingBackend;
use ipsec::sa::HeaderCopy;
use ipsec::{
    Answer, Event, Instant, LifetimeConfig, OffloadBackend, OffloadError, OffloadMode, Path, Reports, Shard, Tag,
    TrafficSelector,
};
use lab::hostile::carrier::Carrier;
use lab::hostile::peer::Profile;

/// The key that the attacker holds.
const SECRET: &[u8] = b"held-by-the-attacker";

/// Answers of the backend that wait to be handed in.
#[derive(Default)]
struct Answers(Mutex<VecDeque<(Tag, Result<Answer, OffloadError>)>>);

impl Reports for Answers {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((tag, outcome));
    }
    fn event(&self, _: Event) {}
    fn ike_datagram(&self, _: Path, _: &[u8]) {}
}

/// The endpoint and all that it needs.
pub(crate) struct Core {
    endpoint: Endpoint,
    backend: RecordingBackend,
    answers: Arc<Answers>,
    config: ConfigSnapshot,
    provider: &'static CryptoProvider,
    now: Duration,
    path: Path,
    towards_peer: VecDeque<Vec<u8>>,
}

/// The endpoint as a carrier; clones reach the same one.
#[derive(Clone)]
pub(crate) struct Loopback(pub(crate) Rc<RefCell<Core>>);

impl Carrier for Loopback {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.0.borrow_mut().datagram(message);
        Ok(())
    }

    fn receive(&mut self, _: Duration) -> Result<Option<Vec<u8>>> {
        Ok(self.0.borrow_mut().towards_peer.pop_front())
    }
}

impl Core {
    pub(crate) fn new() -> Self {
        let answers = Arc::new(Answers::default());
        let socket = |last| std::net::SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 500));
        let mut config = ConfigSnapshot::default();
        config.connections.insert("hostile".into(), Arc::new(connection()));
        // One attacker at one address, who is to reach every handler as often as it can.
        let settings = &mut config.settings;
        (settings.cookie_threshold_ip, settings.block_threshold, settings.init_rate_ip) = (0, 0, 0);
        (settings.peer_request_rate, settings.peer_create_rate, settings.error_rate) = (0, 0, 1_000_000);
        let owners = vec![Identity::Fqdn("attacker.example".into())];
        config.secrets.push(Arc::new(SharedSecret { id: "ike-hostile".into(), owners, secret: Secret::new(SECRET) }));
        Core {
            endpoint: Endpoint::new(Shard(0), 1),
            backend: RecordingBackend::new(answers.clone(), 0x1000),
            answers,
            config,
            provider: ring_provider(),
            now: Duration::from_secs(1),
            path: Path { local: socket(1), remote: socket(66) },
            towards_peer: VecDeque::new(),
        }
    }

    /// The same with another setting for IKE fragmentation.
    pub(crate) fn with_fragmentation(mut self, fragmentation: Fragmentation) -> Self {
        let connection = Connection { fragmentation, ..connection() };
        self.config.connections.insert("hostile".into(), Arc::new(connection));
        self
    }

    /// The same with MOBIKE; `trusting` = the connection names its peer.
    pub(crate) fn mobile(trusting: bool) -> Self {
        let mut core = Self::new();
        let mut connection = Connection { mobike: true, ..connection() };
        if !trusting {
            connection.remote = vec![AuthRound { method: AuthMethod::Psk, id: Identity::Any }];
        }
        core.config.connections.insert("hostile".into(), Arc::new(connection));
        core
    }

    /// From now on the peer sends from here.
    pub(crate) fn peer_at(&mut self, address: std::net::SocketAddr) {
        self.path.remote = address;
    }

    /// Where the outbound SAs send to.
    pub(crate) fn outer_remotes(&self) -> Vec<std::net::IpAddr> {
        let tables = self.backend.tables();
        let outbound = tables.sas.values().filter(|sa| sa.direction == ipsec::Direction::Outbound);
        outbound.map(|sa| sa.outer.remote).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.endpoint.counts()
    }

    /// SAs and policies in the backend.
    pub(crate) fn installed(&self) -> usize {
        let tables = self.backend.tables();
        tables.sas.len() + tables.policies.len()
    }

    /// Guards in the backend.
    pub(crate) fn guards(&self) -> usize {
        self.backend.tables().guards.len()
    }

    fn datagram(&mut self, octets: &[u8]) {
        let path = self.path;
        self.input(Input::Datagram { path, octets });
        self.pass(Duration::from_micros(100));
    }

    /// Has the daemon rekey something, so that it asks the attacker.
    pub(crate) fn rekey(&mut self, child: bool) {
        let mut selector = Selector { ike: Some("hostile".into()), ..Selector::default() };
        if child {
            selector = Selector { child: Some("net".into()), ..Selector::default() };
        }
        self.input(Input::Command(CommandId(1), Command::Rekey { selector }));
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.endpoint.poll_deadline().filter(|at| at.since_start() <= end) {
            self.now = self.now.max(at.since_start());
            self.input(Input::Deadline);
        }
        self.now = end;
    }

    fn input(&mut self, input: Input<'_>) {
        self.handle(input);
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                self.output(output);
            }
            let Some((tag, result)) = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
                return;
            };
            self.handle(Input::Report(tag, result));
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let devices = self.backend.devices();
        let context = Context {
            now: Instant::new(self.now),
            wall: 1_700_000_000,
            rng: &SystemRandom,
            provider: self.provider,
            spis: &self.backend,
            devices: &devices,
            config: &self.config,
        };
        self.endpoint.handle(&context, input);
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Transmit(transmit) => self.towards_peer.push_back(transmit.octets),
            Output::Offload(tag, request) => self.backend.submit(tag, request),
            Output::Work(id, Job::Compute(computation)) => {
                let outcome = computation.run(&SystemRandom);
                self.handle(Input::Work(id, outcome));
            }
            Output::Work(_, Job::Resolve(_) | Job::SourceFor(_) | Job::Routes { .. })
            | Output::Keepalive(_)
            | Output::CancelWork(_)
            | Output::Event(_)
            | Output::Reply(..)
            | Output::Directory(..) => {}
        }
    }
}

/// What the attacker knows.
pub(crate) fn profile() -> Profile {
    Profile {
        id: "attacker.example".into(),
        secret: SECRET.to_vec(),
        local: [Ipv4Addr::new(10, 66, 0, 0), Ipv4Addr::new(10, 66, 255, 255)],
        remote: [Ipv4Addr::new(10, 1, 0, 0), Ipv4Addr::new(10, 1, 0, 255)],
        nat: false,
    }
}

fn connection() -> Connection {
    let round = |name: &str| vec![AuthRound { method: AuthMethod::Psk, id: Identity::Fqdn(name.into()) }];
    let encryption = vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(128) }];
    Connection {
        name: "hostile".into(),
        local_addrs: vec![HostSpec::Any],
        remote_addrs: vec![HostSpec::Any],
        local_port: 500,
        remote_port: 500,
        proposals: vec![IkeProposal {
            encryption,
            integrity: Vec::new(),
            prf: vec![PrfId::PRF_HMAC_SHA2_256],
            key_exchange: vec![KeyExchangeId::CURVE_25519],
        }],
        local: round("gateway.example"),
        remote: round("attacker.example"),
        dscp: 0,
        encap: false,
        mobike: false,
        // The attacker sends fragments and reads none.
        fragmentation: Fragmentation::Accept,
        dpd_delay: Duration::from_secs(30),
        keyingtries: 1,
        unique: Unique::Never,
        childless: ike_model::Childless::Allow,
        interface: ike_model::InterfaceIds::default(),
        reauth_time: Duration::ZERO,
        rekey_time: Duration::from_secs(4 * 3600),
        over_time: Duration::from_secs(1_440),
        rand_time: Duration::from_secs(600),
        children: vec![Arc::new(child())],
    }
}

fn child() -> Child {
    let net = |octet, bits| {
        let prefix = TrafficSelector::prefix(Ipv4Addr::new(10, octet, 0, 0).into(), bits);
        vec![ConfiguredSelector::Fixed(prefix.unwrap_or_else(|| panic!("a prefix")))]
    };
    let encryption = vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(128) }];
    let esn = vec![EsnId::NO_EXT_SEQ];
    let proposal = |key_exchange| EspProposal {
        encryption: encryption.clone(),
        integrity: Vec::new(),
        key_exchange,
        esn: esn.clone(),
    };
    Child {
        name: "net".into(),
        esp_proposals: vec![proposal(vec![KeyExchangeId::CURVE_25519]), proposal(Vec::new())],
        local_ts: net(1, 24),
        remote_ts: net(66, 16),
        lifetime: LifetimeConfig {
            time: Lifetime { soft: 3_600, hard: 3_960, jitter: 360 },
            bytes: Lifetime::default(),
            packets: Lifetime::default(),
        },
        mode: ChildMode::Tunnel,
        start_action: Actions::NONE,
        close_action: Actions::NONE,
        dpd_action: Actions::NONE,
        hw_offload: OffloadMode::No,
        replay_window: None,
        reqid: None,
        priority: None,
        copy: HeaderCopy::default(),
        updown: None,
        policies: true,
        inactivity: Duration::ZERO,
        tags: ike_model::TagConfig::default(),
    }
}
