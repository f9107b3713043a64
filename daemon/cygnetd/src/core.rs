//! The daemon as its clients see it: configuration, commands to the shards, questions about their state.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ike_model::snapshot::{BackendSaOwner, BackendSaSnapshot, Carried, PolicySnapshot, Traffic};
use ike_model::{
    ChildSaSnapshot, ChildSpecs, ConfiguredChildStatus, CounterScope, Counters, IkeSaSnapshot, KeyExport, Timeline,
};
use ike_sa::{Counts, ExportedKeys};
use ipsec::fault::Simulate;
use ipsec::{Answer, Instant, Request, SaHandle, SaStatus, Scope};
use offload_userspace::Userspace;
use swanctl_compat::render::{Algorithms, Heap, Stats};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::timeout_at;

use crate::backend::{Kind, Nature};
use crate::clock;
use crate::config::Config;
use crate::log::Levels;
use crate::router::Question;
use crate::shard::Shared;
use crate::store::Store;
use crate::subscribers::Subscribers;
use crate::updown::Updown;
use crate::users::Account;
use crate::webhooks::Webhooks;

/// How long a shard may take to answer a question.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// By then the guards of everything that was loaded at start are claimed.
const CLAIMS_AFTER: Duration = Duration::from_secs(3);
/// How long a backend may take to list its SAs before they are shown without counters.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything a VICI session needs.
pub(crate) struct Core {
    /// The shards and what they use.
    pub(crate) shared: Arc<Shared>,
    /// What is configured.
    pub(crate) store: Store,
    /// VICI clients.
    pub(crate) subscribers: Arc<Subscribers>,
    /// Scripts.
    pub(crate) updown: Arc<Updown>,
    /// Which lines the log has.
    pub(crate) levels: Arc<Levels>,
    /// Who can be asked about the past.
    pub(crate) timeline: Option<Arc<dyn Timeline>>,
    /// Where events are delivered to.
    pub(crate) webhooks: Webhooks,
    /// The backend where it simulates NICs, for orders to them.
    pub(crate) simulator: Option<Arc<Userspace>>,
    /// What the backend is.
    pub(crate) nature: Nature,
    /// Its settings.
    pub(crate) config: Config,
    /// The file they came from, if one was named.
    pub(crate) settings_file: Option<PathBuf>,
    /// The user as whom it runs, where that is not as it was started.
    pub(crate) account: Option<Account>,
    /// When the daemon started.
    pub(crate) started: (Instant, Duration),
    /// How far it has come.
    pub(crate) phase: watch::Sender<Phase>,
    /// Whose turn it is to read the settings again: in the order of asking, so that what was read last is what holds.
    pub(crate) reloading: Mutex<()>,
}

/// How far the daemon has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// What is configured is being loaded.
    Starting,
    /// Everything is loaded.
    Running,
    /// SAs are being closed.
    Stopping,
}

impl Core {
    /// Has a simulated device go wrong; tells how many entries that is about.
    pub(crate) async fn simulate(&self, order: Simulate) -> Result<u32, String> {
        let simulator = self.simulator.as_ref().ok_or_else(|| self.not_simulated())?;
        tracing::warn!(?order, "a simulated device is told to go wrong");
        let (to, outcome) = oneshot::channel();
        simulator.simulate(
            order,
            Box::new(move |done| {
                // Whoever asked may have gone.
                let _ = to.send(done);
            }),
        );
        outcome.await.unwrap_or_else(|_| Err("the backend is stopping".into()))
    }

    fn not_simulated(&self) -> String {
        match self.nature.kind {
            Kind::Userspace => "no device is simulated: set simulate_packet_device = true".into(),
            #[cfg(feature = "kernel")]
            Kind::Kernel => "the kernel backend has real devices: only the userspace backend simulates them".into(),
        }
    }

    /// What an earlier run left blocked and no child has claimed, after letting it flow if `drop` says so.
    pub(crate) async fn guards(&self, drop: bool) -> Result<Vec<String>, String> {
        let backend = Arc::clone(&self.shared.backend);
        let work = move || {
            if drop {
                let before = backend.leftovers();
                backend.drop_leftovers().map_err(|error| error.to_string())?;
                tracing::warn!(dropped = before.len(), "guards of an earlier run were dropped by command");
            }
            Ok(backend.leftovers())
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the daemon is stopping".into()))
    }

    /// Says what an earlier run left blocked that nobody wants any more. It stays so: a connection that is missing now may be one with a slip in
    /// its file.
    pub(crate) async fn tell_leftovers(&self) {
        tokio::time::sleep(CLAIMS_AFTER).await;
        match self.guards(false).await {
            Ok(unclaimed) if unclaimed.is_empty() => {}
            Ok(unclaimed) => tracing::warn!(
                entries = unclaimed.len(),
                first = unclaimed.first(),
                "guards of an earlier run belong to no child that is trapped, started or up: their traffic stays blocked until it is, or \
                 until `cygnet guards --drop-unclaimed`"
            ),
            Err(reason) => tracing::debug!("cannot list what an earlier run left: {reason}"),
        }
    }

    /// All IKE SAs of all shards by unique id, with counters from the backend.
    pub(crate) async fn ike_sas(&self) -> Vec<IkeSaSnapshot> {
        self.ike_sas_within(ASK_TIMEOUT).await.0
    }

    /// The same, as far as each part of it comes within `limit`; and whether all of it came.
    pub(crate) async fn ike_sas_within(&self, limit: Duration) -> (Vec<IkeSaSnapshot>, bool) {
        let (shards, all_shards) = self.ask_within(limit, Question::IkeSas).await;
        let mut all: Vec<IkeSaSnapshot> = shards.into_iter().flatten().collect();
        all.sort_by_key(|ike| ike.unique_id);
        if all.iter().all(|ike| ike.children.is_empty()) {
            return (all, all_shards);
        }
        let listed = self.list_within(limit.min(LIST_TIMEOUT)).await;
        if let Err(error) = &listed {
            tracing::warn!(%error, "the backend does not say what is installed: counters are shown as zero");
        }
        let has_counters = listed.is_ok();
        let states = listed.unwrap_or_default().into_iter().map(|state| (state.sa, state)).collect();
        for child in all.iter_mut().flat_map(|ike| &mut ike.children) {
            self.complete(child, &states);
        }
        (all, all_shards && has_counters)
    }

    /// Those of a connection, without counters.
    pub(crate) async fn ike_sas_of(&self, connection: &str) -> Vec<IkeSaSnapshot> {
        let all = self.ask(Question::IkeSas).await.into_iter().flatten();
        all.filter(|ike| *ike.connection == *connection).collect()
    }

    /// Keys of the SAs of a connection, with leave to give them out.
    pub(crate) async fn keys_of(&self, leave: KeyExport, connection: &str) -> ExportedKeys {
        let mut all = ExportedKeys::default();
        for shard in self.ask(|to| Question::Keys(leave, connection.to_owned(), to)).await {
            all.ike.extend(shard.ike);
            all.esp.extend(shard.esp);
        }
        all
    }

    /// The state of every configured child, refused ones included.
    pub(crate) async fn configured(&self, connection: Option<&str>) -> Vec<ConfiguredChildStatus> {
        let mut all = self.configured_within(ASK_TIMEOUT).await.0;
        all.retain(|status| connection.is_none_or(|name| name == status.connection));
        all
    }

    /// That of all of them, as far as it comes within `limit`; and whether all of it came.
    pub(crate) async fn configured_within(&self, limit: Duration) -> (Vec<ConfiguredChildStatus>, bool) {
        let (shards, all_shards) = self.ask_within(limit, Question::Configured).await;
        let mut all: Vec<ConfiguredChildStatus> = shards.into_iter().flatten().collect();
        self.updown.complete(&mut all);
        all.extend(self.store.refused(None));
        all.sort_by(|a, b| (&a.connection, &a.child).cmp(&(&b.connection, &b.child)));
        (all, all_shards)
    }

    /// All traps and shunts, each with its shard.
    pub(crate) async fn policies(&self) -> Vec<(usize, PolicySnapshot)> {
        let shards = self.ask(Question::Policies).await.into_iter().enumerate();
        shards.flat_map(|(shard, policies)| policies.into_iter().map(move |policy| (shard, policy))).collect()
    }

    /// The same, as far as it comes within `limit`; and whether all of it came.
    #[cfg(feature = "telemetry")]
    pub(crate) async fn policies_within(&self, limit: Duration) -> (Vec<PolicySnapshot>, bool) {
        let (shards, all_shards) = self.ask_within(limit, Question::Policies).await;
        (shards.into_iter().flatten().collect(), all_shards)
    }

    /// How far the daemon has come.
    #[cfg(feature = "telemetry")]
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// What CHILD SAs, traps and shunts have the backend hold.
    pub(crate) async fn specs(&self) -> Vec<ChildSpecs> {
        self.ask(Question::Specs).await.into_iter().flatten().collect()
    }

    /// Figures about the process.
    pub(crate) async fn stats(&self) -> Stats {
        let counts = self.ask(Question::Counts).await;
        let sum = |of: fn(&Counts) -> usize| counts.iter().map(of).sum::<usize>() as u64;
        let (threads, idle) = self.shared.workers.load();
        let shards = usize::from(self.shared.router.shards());
        let waiting = self.shared.router.inboxes().filter(|inbox| inbox.waiting() == (0, 0)).count();
        let (since_boot, wall) = self.started;
        Stats {
            running_seconds: clock::now().saturating_since(since_boot).as_secs(),
            since: clock::local(wall),
            workers_total: u32::try_from(threads + shards).unwrap_or(u32::MAX),
            workers_idle: u32::try_from(idle + waiting).unwrap_or(u32::MAX),
            scheduled: sum(|counts| counts.ike_sas),
            ike_sas: sum(|counts| counts.ike_sas),
            half_open: sum(|counts| counts.half_open),
            plugins: ["cygnetd", "vici", self.nature.kind.name()].map(str::to_owned).into(),
            heap: heap(),
        }
    }

    /// Counters of messages, of all shards together, by connection; those of everything have no name.
    pub(crate) async fn counters(&self, scope: &CounterScope) -> Vec<(String, Counters)> {
        summed(self.ask(|to| Question::Counters(scope.clone(), to)).await)
    }

    /// The same, as far as it comes within `limit`; and whether all of it came.
    #[cfg(feature = "telemetry")]
    pub(crate) async fn counters_within(
        &self,
        limit: Duration,
        scope: &CounterScope,
    ) -> (Vec<(String, Counters)>, bool) {
        let (shards, all_shards) = self.ask_within(limit, |to| Question::Counters(scope.clone(), to)).await;
        (summed(shards), all_shards)
    }

    /// Has counters of messages begin again at zero.
    pub(crate) async fn reset_counters(&self, scope: &CounterScope) {
        self.ask(|to| Question::ResetCounters(scope.clone(), to)).await;
    }

    /// What the crypto provider can do.
    pub(crate) fn algorithms(&self) -> Algorithms {
        let provider = self.shared.provider;
        let ciphers = |aead: bool| {
            let ciphers = provider.ike_ciphers.iter().filter(|cipher| cipher.is_aead() == aead);
            ciphers.map(|cipher| cipher.id().0).collect()
        };
        Algorithms {
            encryption: ciphers(false),
            integrity: provider.integrity.iter().map(|integrity| integrity.id().0).collect(),
            aead: ciphers(true),
            prf: provider.prfs.iter().map(|prf| prf.id().0).collect(),
            key_exchange: provider.key_exchanges.iter().map(|method| method.id().0).collect(),
            provider: "ike-crypto",
        }
    }

    /// How many SAs each shard has, as far as that comes within `limit`; and whether all of it came.
    #[cfg(feature = "telemetry")]
    pub(crate) async fn counts_within(&self, limit: Duration) -> (Vec<Counts>, bool) {
        self.ask_within(limit, Question::Counts).await
    }

    /// Asks every shard.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Question) -> Vec<T> {
        let (all, complete) = self.ask_within(ASK_TIMEOUT, question).await;
        if !complete {
            tracing::error!("a shard does not answer: what is listed is incomplete");
        }
        all
    }

    /// Asks every shard; tells whether all answered in time.
    async fn ask_within<T>(
        &self,
        limit: Duration,
        question: impl Fn(oneshot::Sender<T>) -> Question,
    ) -> (Vec<T>, bool) {
        let deadline = tokio::time::Instant::now() + limit;
        let mut all = Vec::new();
        let mut complete = true;
        for answer in self.shared.router.ask(question) {
            match timeout_at(deadline, answer).await {
                Ok(answer) => all.extend(answer.ok()),
                Err(_) => complete = false,
            }
        }
        (all, complete)
    }

    /// Every SA that the backend holds, by handle, with the CHILD SA that it belongs to.
    ///
    /// The CHILD SAs are asked for before and after: one that comes or goes meanwhile owns its SAs all the same.
    pub(crate) async fn backend_sas(&self) -> Result<Vec<BackendSaSnapshot>, String> {
        let mut owners = owners(self.ask(Question::IkeSas).await);
        let states = self.list().await?;
        owners.extend(self::owners(self.ask(Question::IkeSas).await));
        let snapshot = |state: SaStatus| BackendSaSnapshot {
            sa: state.sa,
            spi: state.spi,
            traffic: traffic(&state),
            sequence: state.sequence,
            owner: owners.get(&state.sa).cloned(),
        };
        let mut all: Vec<_> = states.into_iter().map(snapshot).collect();
        all.sort_by_key(|sa| sa.sa);
        Ok(all)
    }

    /// What the backend itself says that it holds.
    pub(crate) async fn list(&self) -> Result<Vec<SaStatus>, String> {
        self.list_within(LIST_TIMEOUT).await
    }

    async fn list_within(&self, limit: Duration) -> Result<Vec<SaStatus>, String> {
        let (tag, answer) = self.shared.router.query();
        self.shared.backend.submit(tag, Request::List(Scope::All));
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(Answer::Installed(installed)))) => Ok(installed.sas),
            Ok(Ok(Ok(Answer::Applied(_) | Answer::Status(_)))) => Err("it answered another question".into()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("it has stopped".into()),
            Err(_) => Err(format!("no answer in {} s", limit.as_secs())),
        }
    }

    fn complete(&self, child: &mut ChildSaSnapshot, states: &HashMap<SaHandle, SaStatus>) {
        child.backend = self.nature.kind.name();
        let state = |handle: Option<SaHandle>| handle.and_then(|handle| states.get(&handle));
        if let Some(state) = state(child.sa_in) {
            grow(&mut child.total_in, &mut child.traffic_in, traffic(state));
        }
        if let Some(state) = state(child.sa_out) {
            grow(&mut child.total_out, &mut child.traffic_out, traffic(state));
        }
    }
}

/// Counters of all shards, added up by connection and in the order of their names.
fn summed(shards: Vec<Vec<(String, Counters)>>) -> Vec<(String, Counters)> {
    let mut sums = BTreeMap::<String, Counters>::new();
    for (name, counters) in shards.into_iter().flatten() {
        *sums.entry(name).or_default() += counters;
    }
    sums.into_iter().collect()
}

/// The SAs of all CHILD SAs.
fn owners(shards: Vec<Vec<IkeSaSnapshot>>) -> HashMap<SaHandle, BackendSaOwner> {
    let mut owners = HashMap::new();
    for ike in shards.into_iter().flatten() {
        for child in &ike.children {
            for (handle, inbound) in [(child.sa_in, true), (child.sa_out, false)] {
                let owner = BackendSaOwner {
                    connection: ike.connection.clone(),
                    child: child.name.clone(),
                    unique_id: child.unique_id,
                    state: child.state,
                    inbound,
                };
                owners.extend(handle.map(|handle| (handle, owner)));
            }
        }
    }
    owners
}

/// Puts fresh counters in the place of those that the core has read last, of which the totals know.
fn grow(total: &mut Carried, known: &mut Traffic, fresh: Traffic) {
    total.bytes = total.bytes.saturating_add(fresh.bytes.saturating_sub(known.bytes));
    total.packets = total.packets.saturating_add(fresh.packets.saturating_sub(known.packets));
    *known = fresh;
}

fn traffic(state: &SaStatus) -> Traffic {
    Traffic { bytes: state.bytes, packets: state.packets, idle_seconds: state.idle_seconds }
}

/// What the C library's allocator holds.
#[cfg(target_env = "gnu")]
fn heap() -> Option<Heap> {
    #[allow(unsafe_code)] // no safe interface; it takes nothing and only reads the allocator's own figures
    let figures = unsafe { libc::mallinfo2() };
    Some(Heap { sbrk: figures.arena, mmap: figures.hblkhd, used: figures.uordblks, free: figures.fordblks })
}

/// Other allocators do not tell.
#[cfg(not(target_env = "gnu"))]
fn heap() -> Option<Heap> {
    None
}
