//! The daemon as telemetry sees it.

use std::sync::Arc;
use std::time::Duration;

use ike_model::history::{Backlog, Database, Keeping, KeepingFigures};
use ike_model::{CounterScope, Counters, Outbox, Timeline};
use ike_sa::{Dropped, Tallied};
use telemetry::view::{Asked, Messages, Webhook};
use telemetry::{Condition, Daemon, View};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::backend::Nature;
use crate::clock;
use crate::core::{Core, Phase};
use crate::history::Past;

/// How long a shard, the backend or the database may take until what is shown goes without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// By then a thread that turns has answered.
const ALIVE: Duration = Duration::from_secs(4);
/// How old the numbers may be that the database counts.
const COUNTED: Duration = Duration::from_secs(10);

pub(super) struct Seen {
    core: Arc<Core>,
    outbox: Option<Arc<dyn Outbox>>,
    keeping: Option<Arc<dyn Keeping>>,
    backlog: Mutex<Option<(Instant, Vec<Backlog>)>>,
}

impl Seen {
    pub(super) fn new(core: &Arc<Core>, past: &Past) -> Self {
        let (outbox, keeping) = (past.outbox.clone(), past.keeping.clone());
        Self { core: Arc::clone(core), outbox, keeping, backlog: Mutex::default() }
    }

    /// Reads the file that waits longest; the caller is no thread of IKE.
    fn history(&self) -> Option<KeepingFigures> {
        self.keeping.as_ref().map(|keeping| keeping.figures())
    }

    /// What waits for webhooks; as it was last known where the database does not say.
    async fn backlog(&self) -> Option<Vec<Backlog>> {
        let outbox = self.outbox.as_ref()?;
        let mut known = self.backlog.lock().await;
        if let Some((_, backlog)) = known.as_ref().filter(|(counted, _)| counted.elapsed() < COUNTED) {
            return Some(backlog.clone());
        }
        if let Ok(Ok(backlog)) = timeout(PATIENCE, outbox.backlog()).await {
            *known = Some((Instant::now(), backlog));
        }
        known.as_ref().map(|(_, backlog)| backlog.clone())
    }

    fn messages(&self, global: &[(String, Counters)], each: Vec<(String, Counters)>) -> Messages {
        let shared = &self.core.shared;
        let tally = shared.admission.tally();
        let mut dropped: Vec<_> =
            Dropped::ALL.iter().map(|reason| (reason.name(), tally.so_far(Tallied::Dropped(*reason)))).collect();
        let full = shared.router.inboxes().map(|inbox| inbox.dropped()).sum::<u64>() + shared.router.firsts().dropped();
        dropped.push(("queue-full", full));
        Messages {
            received: tally.so_far(Tallied::Received),
            requests_repeated: tally.so_far(Tallied::RequestRepeated),
            responses_repeated: tally.so_far(Tallied::ResponseRepeated),
            cookies: tally.so_far(Tallied::CookieDemanded),
            dropped,
            counters: global.first().map(|(_, counters)| *counters).unwrap_or_default(),
            by_connection: each.into_iter().collect(),
        }
    }
}

impl Daemon for Seen {
    fn view(&self) -> Asked<'_, View> {
        Box::pin(async {
            let core = &*self.core;
            let taken_ms = milliseconds(clock::wall());
            let loaded = match core.phase() {
                Phase::Starting => false,
                Phase::Running | Phase::Stopping => true,
            };
            let (sas, configured, policies, counts, global, each, backlog) = tokio::join!(
                core.ike_sas_within(PATIENCE),
                core.configured_within(PATIENCE),
                core.policies_within(PATIENCE),
                core.counts_within(PATIENCE),
                core.counters_within(PATIENCE, &CounterScope::Global),
                core.counters_within(PATIENCE, &CounterScope::Each),
                self.backlog(),
            );
            let (threads, idle) = core.shared.workers.load();
            let waiting = core.shared.router.inboxes().map(|inbox| inbox.waiting());
            let (clients, lost) = core.subscribers.figures();
            View {
                taken_ms,
                loaded,
                complete: loaded && sas.1 && configured.1 && policies.1 && counts.1 && global.1 && each.1,
                gateway: core.shared.events.gateway().to_owned(),
                boot_id: core.shared.events.boot_id().to_owned(),
                version: env!("CARGO_PKG_VERSION"),
                started_ms: milliseconds(core.started.1),
                backend: core.nature.kind.name(),
                ike_sas: sas.0,
                configured: configured.0,
                policies: policies.0,
                devices: core.shared.backend.devices(),
                drops: crate::why::drops(core),
                half_open: counts.0.iter().map(|counts| counts.half_open as u64).sum(),
                messages: self.messages(&global.0, each.0),
                workers: (threads.saturating_sub(idle) as u64, idle as u64),
                queues: waiting.map(|(control, datagrams)| (control as u64, datagrams as u64)).collect(),
                vici: (clients as u64, lost),
                history: self.history(),
                webhooks: webhooks(core.webhooks.seen(), backlog),
            }
        })
    }

    fn readiness(&self) -> Asked<'_, Vec<Condition>> {
        Box::pin(async {
            let core = &*self.core;
            let shards = match core.shared.router.alive(PATIENCE).await {
                Ok(()) => Condition::met("shards"),
                Err(who) => Condition::unmet("shards", who),
            };
            let (configuration, running) = match core.phase() {
                Phase::Starting => (Some("what is configured is still being loaded"), true),
                Phase::Running => (None, true),
                Phase::Stopping => (None, false),
            };
            let configuration = configuration
                .map_or_else(|| Condition::met("configuration"), |why| Condition::unmet("configuration", why));
            let mut conditions = vec![
                // They are open from the start until the end, or there is no daemon.
                Condition::met("sockets"),
                backend(&core.nature),
                shards,
                configuration,
                Condition::of("running", running, "the daemon is stopping"),
            ];
            conditions.extend(self.history().into_iter().flat_map(|figures| history(&figures)));
            conditions
        })
    }

    fn alive(&self) -> Asked<'_, Result<(), String>> {
        Box::pin(self.core.shared.router.alive(ALIVE))
    }

    fn timeline(&self) -> Option<Arc<dyn Timeline>> {
        self.core.timeline.clone()
    }

    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        self.outbox.clone()
    }
}

fn backend(nature: &Nature) -> Condition {
    match &nature.lacks {
        None => Condition::met("backend"),
        Some(lacks) => Condition::unmet("backend", lacks.clone()),
    }
}

/// While events can be taken down, a database that is away is nothing that traffic has to care about.
fn history(figures: &KeepingFigures) -> [Condition; 2] {
    let room =
        Condition::of("spool", figures.has_room, "the history's spool takes no events of new IKE SAs: none is begun");
    let database = match &figures.database {
        Database::Open => Condition::met("history"),
        Database::Opening => Condition::degraded("history", "the history database is being opened"),
        Database::Away { error, .. } => {
            Condition::degraded("history", format!("the history database is away: {error}"))
        }
        Database::TooNew { error } => Condition::degraded("history", error.clone()),
    };
    [room, database]
}

/// What workers and the database know of each webhook. One that is configured no more may still have a backlog.
fn webhooks(mut known: Vec<Webhook>, backlog: Option<Vec<Backlog>>) -> Vec<Webhook> {
    let Some(backlog) = backlog else { return known };
    // Of one that nothing waits for and nothing was given up of, the database has no row.
    known.iter_mut().for_each(|webhook| webhook.backlog = Some((0, 0)));
    for Backlog { endpoint, waiting, dead } in backlog {
        let count = Some((waiting, dead));
        match known.iter_mut().find(|webhook| webhook.name == endpoint) {
            Some(webhook) => webhook.backlog = count,
            None => known.push(Webhook { name: endpoint, backlog: count, ..Webhook::default() }),
        }
    }
    known
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
