//! One gateway: shards of the core, a recording backend, and what they have said so far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ike_crypto::{CryptoError, CryptoProvider, InsecureRandom, SecureRandom, insecure_test_provider};
use ike_model::snapshot::ChildSaState;
use ike_model::{
    ChildSaSnapshot, Command, CommandError, CommandId, CommandOutcome, ConfigSnapshot, Connection, EventBody,
    IkeSaSnapshot, KeyExport, SharedSecret,
};
use ike_sa::{Admission, Context, Counts, DirectoryMessage, Endpoint, ExportedKeys, Input, Outcome, Output, WorkId};
use ike_wire::ids::KeyExchangeId;
use ipsec::recording::{RecordingBackend, Tables};
use ipsec::{
    Answer, Event, Instant, LimitUnits, OffloadBackend, OffloadError, Path, PolicyHandle, Reports, Shard, Tag,
};

use crate::Who;
use crate::config::address;
use crate::link::Nat;

/// Names a command given to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What came of a command.
pub type Done = Result<CommandOutcome, CommandError>;

/// What a shard is told, besides datagrams.
#[derive(Debug)]
pub(crate) enum Message {
    Command(CommandId, Command),
    Report(Tag, Result<Answer, OffloadError>),
    Backend(Event),
    Work(WorkId, Outcome),
    Directory(DirectoryMessage),
    Network(Vec<IpAddr>),
    Resumed(Duration),
}

/// One gateway.
pub struct Gateway {
    /// Its number.
    pub who: Who,
    /// Configuration in force. After changing it, tell the gateway with [`Command::Reload`].
    pub config: ConfigSnapshot,
    /// The data path.
    pub backend: RecordingBackend,
    /// The translator it is behind.
    pub nat: Option<Nat>,
    /// Its addresses, the one that the system prefers first. Changed by [`World::set_addresses`](crate::World::set_addresses).
    pub addresses: Vec<IpAddr>,
    /// Pairs of addresses, its own first, between which it has no route.
    pub unroutable: BTreeSet<(IpAddr, IpAddr)>,
    /// Seconds that its wall clock is off.
    pub wall_off: i64,
    /// Work takes this long; `None` = done at once.
    pub work_delay: Option<Duration>,
    /// Answers of the backend take this long; `None` = handed in at once.
    pub report_delay: Option<Duration>,
    /// Answers to [`Job::Resolve`](ike_sa::Job::Resolve), by name.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Cryptography that it can negotiate.
    pub provider: &'static CryptoProvider,
    /// What its device says about limits does not reach it.
    pub loses_expires: bool,
    /// All events so far.
    pub events: Vec<(Instant, EventBody)>,
    /// All datagrams sent so far.
    pub sent: Vec<(Instant, Path, Vec<u8>)>,
    /// NAT keepalives sent so far.
    pub keepalives: usize,
    /// Acquires that are outstanding: how often the trap had been touched then, and when it was.
    pub(crate) acquires: BTreeMap<PolicyHandle, (u64, Instant)>,
    /// Random octets, with the first octet of coming nonces settable.
    pub random: GatewayRandom,
    /// Who may begin an IKE SA, for all shards.
    pub admission: Arc<Admission>,
    pub(crate) shards: Vec<Endpoint>,
    pub(crate) life: u32,
    pub(crate) first_spi: Option<u32>,
    pub(crate) held: bool,
    pub(crate) asleep: bool,
    /// Its clock is so far ahead of the world's.
    pub(crate) skew: Duration,
    pub(crate) reports: Arc<ReportQueue>,
    pub(crate) inbox: VecDeque<(Shard, Message)>,
    pub(crate) commands: BTreeMap<u64, Pending>,
    pub(crate) next_command: u64,
}

#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) waiting: usize,
    pub(crate) so_far: Vec<Done>,
}

impl Pending {
    /// As the daemon puts outcomes together: numbers add up, a real failure counts, "nothing here" only when it is so everywhere.
    pub(crate) fn outcome(&self) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let failure =
            self.so_far.iter().find(|done| matches!(done, Err(error) if !matches!(error, CommandError::NotFound(_))));
        if let Some(failure) = failure {
            return Some(failure.clone());
        }
        let good: Vec<_> = self.so_far.iter().filter_map(|done| done.as_ref().ok()).collect();
        if good.is_empty() {
            return self.so_far.first().cloned();
        }
        Some(Ok(CommandOutcome {
            matches: good.iter().map(|outcome| outcome.matches).sum(),
            terminated: good.iter().map(|outcome| outcome.terminated).sum(),
        }))
    }
}

/// Reports of the backend that wait to be handed in.
#[derive(Default)]
pub(crate) struct ReportQueue(Mutex<VecDeque<(Tag, Result<Answer, OffloadError>)>>);

impl ReportQueue {
    pub(crate) fn take(&self) -> Option<(Tag, Result<Answer, OffloadError>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Reports for ReportQueue {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((tag, outcome));
    }

    fn event(&self, _event: Event) {}

    fn ike_datagram(&self, _path: Path, _octets: &[u8]) {}
}

/// Octets that follow from a seed; the first octet of nonces can be set, to decide collisions.
#[derive(Debug)]
pub struct GatewayRandom {
    source: InsecureRandom,
    nonces: Mutex<VecDeque<u8>>,
}

/// Octets of the core's nonces.
const NONCE_LEN: usize = 32;

impl GatewayRandom {
    fn new(seed: u64) -> Self {
        Self { source: InsecureRandom::new(seed), nonces: Mutex::default() }
    }

    /// The next nonce starts with `octet`.
    pub fn next_nonce(&self, octet: u8) {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).push_back(octet);
    }
}

impl SecureRandom for GatewayRandom {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        self.source.fill(destination)?;
        if destination.len() == NONCE_LEN
            && let Some(octet) = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
        {
            destination[0] = octet;
        }
        Ok(())
    }
}

/// The provider of all gateways.
pub fn provider() -> &'static CryptoProvider {
    static PROVIDER: OnceLock<&'static CryptoProvider> = OnceLock::new();
    PROVIDER.get_or_init(|| insecure_test_provider(0))
}

/// The same with these key exchange methods alone.
pub fn provider_with(methods: &[KeyExchangeId]) -> &'static CryptoProvider {
    let all = provider().key_exchanges.iter().copied();
    let found: Vec<_> = all.filter(|method| methods.contains(&method.id())).collect();
    Box::leak(Box::new(CryptoProvider { key_exchanges: found.leak(), ..*provider() }))
}

/// The first inbound SPI of a gateway in one of its lives.
fn first_spi(who: Who, life: u32) -> u32 {
    0x1000_0000 * (u32::try_from(who).unwrap() + 0xa) + 0x0100_0000 * life
}

/// Wall-clock time at the start of the virtual clock.
const WALL: u64 = 1_700_000_000;

impl Gateway {
    pub(crate) fn new(who: Who, shards: u8, seed: u64, life: u32) -> Self {
        let reports = Arc::new(ReportQueue::default());
        let admission = Arc::new(Admission::new());
        let mut config = ConfigSnapshot::default();
        // A clock that ticks for ever would let nothing come to rest; what is about these comparisons asks for them.
        config.settings.check_interval = Duration::ZERO;
        Self {
            who,
            config,
            backend: RecordingBackend::new(reports.clone(), first_spi(who, life)),
            nat: None,
            addresses: vec![address(who)],
            unroutable: BTreeSet::new(),
            wall_off: 0,
            work_delay: None,
            report_delay: None,
            names: BTreeMap::new(),
            provider: provider(),
            loses_expires: false,
            events: Vec::new(),
            sent: Vec::new(),
            keepalives: 0,
            acquires: BTreeMap::new(),
            random: GatewayRandom::new(seed.wrapping_mul(16).wrapping_add(who as u64)),
            shards: (0..shards).map(|shard| Endpoint::sharing(Shard(shard), shards, Arc::clone(&admission))).collect(),
            admission,
            life,
            first_spi: None,
            held: false,
            asleep: false,
            skew: Duration::ZERO,
            reports,
            inbox: VecDeque::new(),
            commands: BTreeMap::new(),
            next_command: 1,
        }
    }

    /// Keys of the SAs of a connection, as far as they were kept.
    pub fn export_keys(&self, leave: KeyExport, connection: &str) -> ExportedKeys {
        let mut all = ExportedKeys::default();
        for shard in &self.shards {
            let some = shard.export_keys(leave, connection);
            all.ike.extend(some.ike);
            all.esp.extend(some.esp);
        }
        all
    }

    /// Adds a connection to the configuration, or puts it in the place of the one with its name.
    pub fn load(&mut self, connection: Connection) {
        self.config.connections.insert(connection.name.clone(), Arc::new(connection));
    }

    /// Adds a secret.
    pub fn load_secret(&mut self, secret: SharedSecret) {
        self.config.secrets.push(Arc::new(secret));
    }

    /// From now on it gives out the SPIs that another gateway begins with.
    pub fn number_spis_like(&mut self, other: Who) {
        self.backend = RecordingBackend::new(self.reports.clone(), first_spi(other, 0));
    }

    /// From now on this is its device. Nothing may be installed yet.
    pub fn use_device(&mut self, device: ipsec::Device) {
        self.backend = RecordingBackend::with_device(self.reports.clone(), first_spi(self.who, self.life), device);
    }

    /// From now on its device holds so many SAs. Nothing may be installed yet.
    pub fn bound_sa_table(&mut self, size: u32) {
        self.backend = RecordingBackend::with_sa_table(self.reports.clone(), first_spi(self.who, self.life), size);
    }

    /// From now on its device raises limits of these units only.
    pub fn raise_only(&mut self, units: LimitUnits) {
        self.backend.change_device(|device| {
            device.rungs.iter_mut().for_each(|rung| rung.capabilities.limits = units);
        });
    }

    /// Its backend, still empty, counts its SPIs from this number.
    pub(crate) fn count_spis_from(&mut self, first: u32) {
        self.backend = RecordingBackend::new(self.reports.clone(), first + (self.life << 20));
        self.first_spi = Some(first);
    }

    /// How many shards it has.
    pub fn shard_count(&self) -> u8 {
        u8::try_from(self.shards.len()).unwrap()
    }

    /// Its address as others see it.
    pub fn public_address(&self) -> IpAddr {
        self.nat.as_ref().map_or(address(self.who), |nat| nat.public)
    }

    /// Whether a datagram to `to` reaches it, and where it arrives.
    pub(crate) fn arrival(&self, to: SocketAddr) -> Option<SocketAddr> {
        let hidden = self.nat.as_ref().is_some_and(|nat| nat.translates(to.ip()));
        if !hidden && self.addresses.contains(&to.ip()) {
            return Some(to);
        }
        self.nat.as_ref()?.inward(to).filter(|inside| self.addresses.contains(&inside.ip()))
    }

    /// Whether it can be reached at an address, be it through its translator.
    pub(crate) fn answers_at(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.nat.as_ref().is_some_and(|nat| nat.public == address)
    }

    /// What the system says about ways between addresses.
    pub(crate) fn routes(&self, locals: &[IpAddr], remotes: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
        let all = remotes.iter().flat_map(|remote| self.addresses.iter().map(|local| (*local, *remote)));
        let leads = |pair: &(IpAddr, IpAddr)| {
            pair.0.is_ipv4() == pair.1.is_ipv4() && locals.contains(&pair.0) && !self.unroutable.contains(pair)
        };
        all.filter(leads).collect()
    }

    /// Its own address on the way to another.
    pub(crate) fn source_for(&self, remote: IpAddr) -> Result<IpAddr, String> {
        let found = self.addresses.iter().find(|local| local.is_ipv4() == remote.is_ipv4());
        found.copied().ok_or_else(|| format!("no route to {remote}"))
    }

    pub(crate) fn handle(&mut self, now: Instant, shard: Shard, input: Input<'_>) {
        let devices = self.backend.devices();
        let now = now + self.skew;
        let context = Context {
            now,
            wall: (WALL + now.since_start().as_secs()).saturating_add_signed(self.wall_off),
            rng: &self.random,
            provider: self.provider,
            spis: &self.backend,
            devices: &devices,
            config: &self.config,
        };
        self.shards[usize::from(shard.0)].handle(&context, input);
    }

    pub(crate) fn poll_output(&mut self, shard: Shard) -> Option<Output> {
        self.shards[usize::from(shard.0)].poll_output()
    }

    /// The earliest deadline of all shards.
    pub(crate) fn deadline(&self) -> Option<(Instant, Shard)> {
        let each =
            self.shards.iter().zip(0..).filter_map(|(endpoint, shard)| Some((endpoint.poll_deadline()?, Shard(shard))));
        let (at, shard) = each.min()?;
        let at = Instant::new(at.since_start().saturating_sub(self.skew));
        Some((at, shard))
    }

    /// When it wants to be woken next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline().map(|(at, _)| at)
    }

    /// All its IKE SAs with their children, of all shards, by unique id.
    pub fn ike_sas(&self, now: Instant) -> Vec<IkeSaSnapshot> {
        let mut all: Vec<_> = self.shards.iter().flat_map(|endpoint| endpoint.ike_sas(now)).collect();
        all.sort_by_key(|ike| ike.unique_id);
        all
    }

    /// Traps and shunts of all shards.
    pub fn policies(&self) -> Vec<ike_model::snapshot::PolicySnapshot> {
        self.shards.iter().flat_map(Endpoint::policies).collect()
    }

    /// What becomes of its configured children, of all shards.
    pub fn configured(&self, now: Instant) -> Vec<ike_model::ConfiguredChildStatus> {
        self.shards.iter().flat_map(|endpoint| endpoint.configured(&self.config, now)).collect()
    }

    /// All its CHILD SAs.
    pub fn children(&self, now: Instant) -> Vec<ChildSaSnapshot> {
        self.ike_sas(now).into_iter().flat_map(|ike| ike.children).collect()
    }

    /// Its CHILD SAs that may carry traffic in both directions.
    pub fn live_children(&self, now: Instant) -> Vec<ChildSaSnapshot> {
        let live = |child: &ChildSaSnapshot| matches!(child.state, ChildSaState::Installed | ChildSaState::Rekeying);
        self.children(now).into_iter().filter(live).collect()
    }

    /// Numbers of SAs, of all shards together.
    pub fn counts(&self) -> Counts {
        self.shards.iter().map(Endpoint::counts).fold(Counts::default(), |sum, one| Counts {
            ike_sas: sum.ike_sas + one.ike_sas,
            half_open: sum.half_open + one.half_open,
            established: sum.established + one.established,
            children: sum.children + one.children,
        })
    }

    /// What its backend holds.
    pub fn tables(&self) -> Tables {
        self.backend.tables()
    }

    /// Looks at what its backend holds.
    pub fn with_tables<R>(&self, look: impl FnOnce(&Tables) -> R) -> R {
        self.backend.with_tables(look)
    }

    /// Names of the events so far, as they appear on the wire of webhooks.
    pub fn event_names(&self) -> Vec<&'static str> {
        self.events.iter().map(|(_, body)| body.name()).collect()
    }

    /// How many events of this name there were.
    pub fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|(_, body)| body.name() == event).count()
    }

    /// The last cause that an event told.
    pub fn last_cause(&self) -> Option<ike_model::Cause> {
        self.events.iter().rev().find_map(|(_, body)| cause(body).cloned())
    }
}

/// The cause that an event tells.
pub fn cause(body: &EventBody) -> Option<&ike_model::Cause> {
    match body {
        EventBody::IkeSaClosed { cause, .. }
        | EventBody::IkeSaAuthFailed { cause, .. }
        | EventBody::IkeSaFailed { cause, .. }
        | EventBody::IkeSaRekeyFailed { cause, .. }
        | EventBody::ChildSaClosed { cause, .. }
        | EventBody::ChildSaWithdrawn { cause, .. }
        | EventBody::ChildSaRekeyFailed { cause, .. }
        | EventBody::ChildSaInstallFailed { cause, .. }
        | EventBody::ChildSaFailed { cause, .. }
        | EventBody::PeerUnreachable { cause, .. }
        | EventBody::Degraded { cause, .. }
        | EventBody::Repaired { cause, .. }
        | EventBody::UpdownFailed { cause, .. }
        | EventBody::ConfigRejected { cause, .. }
        | EventBody::EventsGap { cause, .. } => Some(cause),
        EventBody::KeysExported { .. }
        | EventBody::IkeSaEstablished { .. }
        | EventBody::IkeSaRekeyed { .. }
        | EventBody::IkeSaUpdated { .. }
        | EventBody::IkeSaDuplicate { .. }
        | EventBody::ChildSaInstalled { .. }
        | EventBody::ChildSaPrepared { .. }
        | EventBody::ChildSaRekeyed { .. }
        | EventBody::ChildSaRemoved { .. }
        | EventBody::ChildSaSoftExpired { .. }
        | EventBody::ChildSaHardExpired { .. }
        | EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::StateLost { .. }
        | EventBody::PeerReachable { .. }
        | EventBody::ConfigLoaded { .. } => None,
    }
}
