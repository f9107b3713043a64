//! Starting and stopping everything in the right order.
//!
//! Start: what takes privileges that are given up then ([`crate::beforehand`]), a look at the VICI socket, the HTTP and UDP sockets, backend, shards, receiver, first load, then clients are served. What fails first is
//! what costs least to undo, and every failure is one sentence. Stop: the shards close their SAs and are waited for, for a few seconds, then what
//! peers did not answer is ended without them; then the other way round.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ike_model::{Command, ConfigSnapshot};
use ike_sa::Admission;
use ipsec::{NatReader, OffloadBackend, Reports, Shard};
use swanctl_compat::render;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};

use crate::backend::{Nature, Started};
use crate::beforehand::Beforehand;
use crate::commands::Commands;
use crate::config::Config;
use crate::core::{Core, Phase};
use crate::events::{self, Hub, Origin};
use crate::history::Past;
use crate::net::{Options, Receiver, Screen, Sockets};
use crate::router::{Message, Router};
use crate::shard::{self, Shared};
use crate::store::Store;
use crate::subscribers::Subscribers;
use crate::surroundings::Surroundings;
use crate::telemetry::Telemetry;
use crate::updown::Updown;
use crate::updown::helper::Helper;
use crate::users::Account;
use crate::vici::{Listener, Places, read_settings_again};
use crate::webhooks::Webhooks;
use crate::workers::Workers;
use crate::{backend, clock, load, log, service};

/// How long peers may take to answer our deletes when we stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long scripts that are told of the end of CHILD SAs may take then.
const SCRIPTS_TIMEOUT: Duration = Duration::from_secs(8);
/// How long VICI clients may take to be sent their last events.
const LAST_EVENTS: Duration = Duration::from_millis(500);
/// How long the backend may take to take everything out.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What kept it from starting.
pub(crate) fn run(config: Config, settings_file: Option<PathBuf>) -> anyhow::Result<()> {
    // Before there is another thread, and with all the privileges that there will ever be.
    let helper = Helper::start()?;
    let beforehand = Beforehand::with_privileges(&config, settings_file.as_deref(), &helper)?;
    let updown = Arc::new(Updown::new(helper, beforehand.successor()));
    let subscribers = Arc::new(Subscribers::default());
    let logging = log::start(&config.log, &subscribers)?;
    beforehand.tell();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let parts = Parts {
        settings_file,
        subscribers,
        updown,
        levels: Arc::clone(&logging.levels),
        account: beforehand.account.clone(),
    };
    let outcome = runtime.block_on(run_until_stopped(config, parts, beforehand));
    // A client in the middle of a request does not hold up the end.
    runtime.shutdown_background();
    logging.settle();
    outcome
}

/// What is there before the runtime is.
struct Parts {
    settings_file: Option<PathBuf>,
    subscribers: Arc<Subscribers>,
    updown: Arc<Updown>,
    levels: Arc<log::Levels>,
    account: Option<Account>,
}

async fn run_until_stopped(config: Config, parts: Parts, beforehand: Beforehand) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let places = match beforehand.places {
        Some(places) => places,
        None => Places::check(&config.vici)?,
    };
    let daemon = Daemon::start(&config, parts)?;
    if config.swanctl.load {
        match beforehand.connections {
            Some(files) => files.load(&daemon.core.store),
            None => load::directory(&daemon.core.store, &config.swanctl.directory).await,
        }
        daemon.core.store.settled().await;
    }
    if config.ike.settings.key_export.is_some() {
        tracing::warn!(
            "debug.export_keys is on: keys of all SAs are kept, and whoever may use the VICI socket can have them"
        );
    }
    daemon.core.phase.send_replace(Phase::Running);
    let leftovers = Arc::clone(&daemon.core);
    tokio::spawn(async move { leftovers.tell_leftovers().await });
    // Whoever can connect finds everything loaded.
    let listener = match Listener::bind(&config.vici, places) {
        Ok(listener) => listener,
        Err(error) => {
            daemon.stop(&config);
            return Err(error);
        }
    };
    service::ready();
    let informing = tokio::spawn(service::keep_informed(Arc::clone(&daemon.core)));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards = config.ike.shards,
        backend = daemon.core.nature.kind.name(),
        "cygnetd is ready"
    );
    {
        let serving = listener.serve(Arc::clone(&daemon.core));
        tokio::pin!(serving);
        loop {
            tokio::select! {
                () = &mut serving => break,
                _ = terminate.recv() => {
                    daemon.core.subscribers.emit("alert", &render::shutdown_alert());
                    break;
                }
                _ = interrupt.recv() => {
                    daemon.core.subscribers.emit("alert", &render::shutdown_alert());
                    break;
                }
                _ = hang_up.recv() => {
                    service::reloading();
                    if let Err(wrong) = read_settings_again(&daemon.core).await {
                        tracing::error!("cygnetd.toml is not applied, everything stays as it was: {wrong}");
                    }
                    if config.swanctl.load {
                        load::directory(&daemon.core.store, &config.swanctl.directory).await;
                        daemon.core.store.settled().await;
                    }
                    service::ready();
                }
            }
        }
    }
    informing.abort();
    service::stopping();
    daemon.core.phase.send_replace(Phase::Stopping);
    tracing::info!("cygnetd is stopping");
    tokio::select! {
        () = daemon.close_all() => {}
        // Whoever asks twice does not want to wait.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    daemon.end_all().await;
    tokio::select! {
        () = daemon.last_scripts() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Who listens hears of the end; one that does not read is not waited for.
    let _ = tokio::time::timeout(LAST_EVENTS, daemon.core.subscribers.written()).await;
    // While there is somebody who may remove its files.
    drop(listener);
    daemon.stop(&config);
    tracing::info!("cygnetd has stopped");
    Ok(())
}

struct Daemon {
    core: Arc<Core>,
    receiver: Receiver,
    surroundings: Surroundings,
    shards: Vec<JoinHandle<()>>,
    past: Past,
    telemetry: Telemetry,
}

impl Daemon {
    fn start(config: &Config, parts: Parts) -> anyhow::Result<Self> {
        let Parts { settings_file, subscribers, updown, levels, account } = parts;
        let started = (clock::now(), clock::wall());
        let mut telemetry = Telemetry::bind(&config.http, &gateway_name(config))?;
        let provider = ike_crypto::ring_provider();
        let admission = Arc::new(Admission::new());
        let router = Arc::new(Router::new(config.ike.shards).context("cannot make the shards' inboxes")?);
        let kind = backend::choose(&config.backend);
        let exempt = backend::exemption(&Nature::of(kind, &config.backend));
        let settings = &config.ike.settings;
        let sockets = Arc::new(Sockets::open(&Options {
            port: settings.port,
            nat_port: settings.nat_port,
            listen: &config.ike.listen,
            exempt: &*exempt,
        })?);
        let reports = Arc::<Router>::clone(&router) as Arc<dyn Reports>;
        let Started { backend, simulator, nature } = backend::start(kind, config, Arc::clone(&reports))?;
        let nat_reader = adopt(&*backend, &sockets)?;
        let workers = Workers::start(provider, exempt, Arc::clone(&router)).context("cannot start worker threads")?;
        let origin = Origin {
            gateway: gateway_name(config),
            boot_id: boot_id(provider)?,
            backend: kind.name(),
            random: provider.random,
        };
        let past = Past::start(config, &origin)?;
        let webhooks = Webhooks::start(config, past.outbox.clone(), &origin.gateway)?;
        let hub = Hub::new(origin, past.recorder.clone(), events::sinks(&subscribers, &telemetry, &updown));
        let hub = Arc::new(hub);
        updown.start(config.updown, Arc::clone(&hub))?;
        let shared = Arc::new(Shared {
            config: ArcSwap::from_pointee(ConfigSnapshot { settings: settings.clone(), ..ConfigSnapshot::default() }),
            backend,
            provider,
            admission: Arc::clone(&admission),
            job_limit: usize::try_from(settings.job_limit).unwrap_or(usize::MAX),
            sockets: Arc::clone(&sockets),
            commands: Arc::new(Commands::new(Arc::clone(&router))),
            router,
            workers,
            events: hub,
            captures: Arc::default(),
        });
        let numbers = (0..shared.router.shards()).map(Shard);
        let shards = numbers.map(|number| shard::start(number, Arc::clone(&shared))).collect::<Result<_, _>>();
        let shards = shards.context("cannot start the shards' threads")?;
        let screen = Screen {
            admission,
            provider,
            settings: settings.clone(),
            router: Arc::clone(&shared.router),
            events: Arc::clone(&shared.events),
        };
        let receiver = Receiver::start(sockets, nat_reader == NatReader::Daemon, reports, screen)
            .context("cannot start the receiving threads")?;
        let surroundings =
            Surroundings::start(nature.tunnel.as_deref(), &config.ike.listen, Arc::clone(&shared.router))?;
        let store = Store::new(Arc::clone(&shared), settings.clone(), backend::expected_devices(Some(kind), config));
        let config = config.clone();
        let timeline = past.timeline.clone();
        let phase = watch::Sender::new(Phase::Starting);
        let core = Core {
            shared,
            store,
            subscribers,
            updown,
            levels,
            timeline,
            webhooks,
            simulator,
            nature,
            config,
            settings_file,
            account,
            started,
            phase,
            reloading: Mutex::default(),
        };
        let core = Arc::new(core);
        telemetry.serve(&core, &past)?;
        Ok(Self { core, receiver, surroundings, shards, past, telemetry })
    }

    /// Closes all SAs in good order; the wait for peers is bounded.
    async fn close_all(&self) {
        let done = self.core.shared.commands.submit(Command::Shutdown);
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, done).await.is_err() {
            tracing::warn!("some peers did not answer in time that their SAs are closed");
        }
    }

    /// Ends what is left without a peer's word, so that its end and what it has carried are told.
    async fn end_all(&self) {
        let done = self.core.shared.commands.submit(Command::Shutdown);
        if tokio::time::timeout(END_TIMEOUT, done).await.is_err() {
            tracing::warn!("the backend did not answer in time: the last counters of some SAs are not known");
        }
    }

    /// Waits for the scripts that are told of all this.
    async fn last_scripts(&self) {
        if tokio::time::timeout(SCRIPTS_TIMEOUT, self.core.updown.settled()).await.is_err() {
            tracing::warn!("updown scripts have not ended in time and are killed");
        }
    }

    fn stop(self, config: &Config) {
        let Self { core, receiver, surroundings, shards, past, telemetry } = self;
        telemetry.stop();
        drop(surroundings);
        core.shared.router.tell_all(|| Message::Stop);
        for shard in shards {
            if shard.join().is_err() {
                tracing::error!("the thread of a shard ended in a panic");
            }
        }
        drop(receiver);
        core.updown.stop();
        core.webhooks.stop();
        past.stop();
        core.shared.backend.shut_down(config.backend.on_stop);
    }
}

fn adopt(backend: &dyn OffloadBackend, sockets: &Sockets) -> anyhow::Result<NatReader> {
    let duplicates = sockets.nat_duplicates().context("cannot duplicate the NAT-T sockets")?;
    backend.adopt_nat_sockets(duplicates).context("the backend refused the NAT-T sockets")
}

fn gateway_name(config: &Config) -> String {
    if config.gateway.name.is_empty() {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    config.gateway.name.clone()
}

/// New at each start, so that numbers of events never repeat.
fn boot_id(provider: &ike_crypto::CryptoProvider) -> anyhow::Result<String> {
    let mut octets = [0; 16];
    provider.random.fill(&mut octets).context("the system gives no random octets")?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}
