//! Their workers, and what is asked and ordered about them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use event_webhook::Changes;
use ike_model::history::{Backlog, HistoryError, Redelivery, Subscription};
use ike_model::{Outbox, WebhookHealth, WebhookSnapshot, WebhookTried};
use swanctl_compat::settings::Severity;
use tokio::sync::Mutex;

use crate::config::Config;
use crate::config::webhook::Webhook;

/// How messages say who sent them.
const AGENT: &str = concat!("cygnet/", env!("CARGO_PKG_VERSION"));
/// What is said of an endpoint that somebody has disabled.
const BY_COMMAND: &str = "disabled by command";
/// What is said of messages that somebody has given up.
const DROPPED: &str = "given up by command";

/// The webhooks; without any, nothing runs.
#[derive(Default)]
pub(crate) struct Webhooks {
    configured: RwLock<Arc<[Webhook]>>,
    running: RwLock<Option<Arc<event_webhook::Webhooks>>>,
    /// One change at a time.
    changing: Mutex<()>,
    outbox: Option<Arc<dyn Outbox>>,
    gateway: String,
}

impl Webhooks {
    /// What is to be delivered where.
    pub(crate) fn subscriptions(config: &Config) -> Vec<Subscription> {
        config.webhooks.iter().map(Webhook::subscription).collect()
    }

    /// Begins to deliver.
    pub(crate) fn start(config: &Config, outbox: Option<Arc<dyn Outbox>>, gateway: &str) -> anyhow::Result<Self> {
        let configured = config.webhooks.clone().into();
        let running = match &outbox {
            Some(outbox) if !config.webhooks.is_empty() => Some(Arc::new(begin(&config.webhooks, outbox, gateway)?)),
            Some(_) | None => None,
        };
        let (configured, running) = (RwLock::new(configured), RwLock::new(running));
        Ok(Self { configured, running, changing: Mutex::default(), outbox, gateway: gateway.into() })
    }

    /// What keeps webhooks of these settings from being served, where they are others than those that are.
    pub(crate) async fn check(&self, config: &Config) -> Result<(), String> {
        let now = self.configured();
        let new: Vec<_> = config.webhooks.iter().filter(|webhook| !now.contains(webhook)).cloned().collect();
        if !new.is_empty() && self.outbox.is_none() {
            return Err("webhooks need a history, and none is kept: see the log of the start".into());
        }
        // Their files are read.
        let look = move || new.iter().flat_map(|webhook| webhook.doubts(&[])).collect::<Vec<_>>();
        let doubts = tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?.into_iter();
        let wrong: Vec<_> = doubts.filter(|(severity, _)| *severity == Severity::Error).map(|(_, what)| what).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Serves the webhooks of these settings from now on; tells in words what that changes.
    pub(crate) async fn change(&self, config: &Config) -> Result<Vec<String>, String> {
        let _one = self.changing.lock().await;
        let before = self.configured();
        let Some(outbox) = &self.outbox else { return Ok(Vec::new()) };
        let wanted = &config.webhooks;
        let changes = match self.running() {
            Some(running) => running.change(wanted.iter().map(|webhook| webhook.endpoint.clone()).collect()).await,
            None if wanted.is_empty() => return Ok(Vec::new()),
            None => {
                let running = begin(wanted, outbox, &self.gateway).map_err(|error| format!("{error:#}"))?;
                *self.running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
                let added = wanted.iter().map(|webhook| webhook.endpoint.name.clone()).collect();
                Changes { added, ..Changes::default() }
            }
        };
        // Whoever serves what is added is there before it is, and whoever served what is removed is not.
        if let Err(error) = outbox.subscribe(Self::subscriptions(config)).await {
            tracing::debug!(%error, "names of webhooks are taken down when the database is opened");
        }
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = wanted.clone().into();
        let others = |name: &String| {
            let filters = |all: &[Webhook]| {
                let found = all.iter().find(|webhook| webhook.endpoint.name == *name);
                found.map(|webhook| (webhook.events.clone(), webhook.connections.clone()))
            };
            filters(&before).is_some() && filters(&before) != filters(wanted)
        };
        let names = wanted.iter().map(|webhook| &webhook.endpoint.name);
        let filtered: Vec<_> = names.filter(|name| !changes.changed.contains(name) && others(name)).cloned().collect();
        Ok(self.words(&changes, &filtered).await)
    }

    /// What has changed, in words.
    async fn words(&self, changes: &Changes, filtered: &[String]) -> Vec<String> {
        let mut words: Vec<String> = changes.added.iter().map(|name| format!("{name} is served")).collect();
        words.extend(changes.changed.iter().map(|name| format!("{name} is served otherwise")));
        words.extend(filtered.iter().map(|name| format!("{name} is told of other events")));
        let backlogs = match &self.outbox {
            Some(outbox) if !changes.removed.is_empty() => outbox.backlog().await.ok(),
            Some(_) | None => None,
        };
        for name in &changes.removed {
            let waiting = backlogs.as_ref().map(|all| all.iter().find(|backlog| backlog.endpoint == *name));
            let kept = match waiting {
                None => "what waits for it is kept".to_owned(),
                Some(backlog) => match backlog.map_or(0, |backlog| backlog.waiting) {
                    0 => "nothing waits for it".to_owned(),
                    waiting => format!(
                        "{waiting} messages that wait for it are kept until a webhook has that name again, or `cygnet webhook drop {name}`"
                    ),
                },
            };
            words.push(format!("{name} is served no more: {kept}"));
        }
        words
    }

    fn configured(&self) -> Arc<[Webhook]> {
        Arc::clone(&self.configured.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn running(&self) -> Option<Arc<event_webhook::Webhooks>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How each of them is doing, as far as its worker knows.
    #[cfg(feature = "telemetry")]
    pub(crate) fn seen(&self) -> Vec<telemetry::view::Webhook> {
        let running = self.running();
        let seen = |webhook: &Webhook| {
            let name = webhook.endpoint.name.clone();
            let figures = running.as_ref()?.figures(&name)?;
            Some(telemetry::view::Webhook {
                name,
                state: figures.health.name(),
                backlog: None,
                attempts: figures.attempts,
                delivered: figures.delivered,
                failures: figures.failures.into_iter().collect(),
                seconds: figures.time_spent.as_secs_f64(),
                last_success_ms: figures.last_success_ms,
            })
        };
        self.configured().iter().filter_map(seen).collect()
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.running() {
            running.stop();
        }
    }

    /// Where deliveries are kept.
    pub(crate) fn outbox(&self) -> Result<&dyn Outbox, HistoryError> {
        let none = || HistoryError::Unreachable("no history is kept, and so no deliveries".into());
        self.outbox.as_deref().ok_or_else(none)
    }

    /// Every webhook that is configured, then those that messages still wait for.
    pub(crate) async fn snapshot(&self) -> Vec<WebhookSnapshot> {
        let backlogs = match &self.outbox {
            Some(outbox) => outbox.backlog().await.ok(),
            None => None,
        };
        let known = backlogs.is_some();
        let mut backlogs: BTreeMap<String, Backlog> =
            backlogs.into_iter().flatten().map(|backlog| (backlog.endpoint.clone(), backlog)).collect();
        let mut all: Vec<WebhookSnapshot> = Vec::new();
        let running = self.running();
        for webhook in self.configured().iter() {
            let backlog = backlogs.remove(&webhook.endpoint.name);
            let count = |of: fn(&Backlog) -> u64| known.then(|| backlog.as_ref().map_or(0, of));
            let name = &webhook.endpoint.name;
            let figures = running.as_ref().and_then(|running| running.figures(name)).unwrap_or_default();
            all.push(WebhookSnapshot {
                name: name.clone(),
                url: Some(webhook.endpoint.address.to_string()),
                events: webhook.events.clone(),
                connections: webhook.connections.clone(),
                waiting: count(|backlog| backlog.waiting),
                dead: count(|backlog| backlog.dead),
                disabled: None,
                figures,
            });
        }
        all.extend(backlogs.into_values().map(forgotten));
        if let Some(outbox) = self.outbox.as_ref().filter(|_| known) {
            for webhook in &mut all {
                webhook.disabled = outbox.disabled(&webhook.name).await.unwrap_or_default();
            }
        }
        all
    }

    /// Sends a message that tells of nothing. `None` without such a webhook.
    pub(crate) async fn test(&self, name: &str) -> Option<WebhookTried> {
        self.running()?.test(name).await
    }

    /// Makes deliveries due again and has them tried at once; tells how many.
    pub(crate) async fn redeliver(&self, which: &Redelivery) -> Result<u64, HistoryError> {
        let due = self.outbox()?.redeliver(which).await?;
        self.look_again(which.endpoint.as_deref());
        tracing::info!(webhook = which.endpoint, ulid = which.ulid, due, "deliveries are due again, by command");
        Ok(due)
    }

    /// Sends to a disabled webhook again, or no more; tells whether that changes anything.
    pub(crate) async fn enable(&self, name: &str, enable: bool) -> Result<bool, HistoryError> {
        let outbox = self.outbox()?;
        let changed = if enable {
            outbox.enable(name).await?
        } else {
            let was_enabled = outbox.disabled(name).await?.is_none();
            outbox.disable(name, BY_COMMAND).await?;
            was_enabled
        };
        self.look_again(Some(name));
        tracing::info!(webhook = name, enable, changed, "a webhook is enabled or disabled, by command");
        Ok(changed)
    }

    /// Gives up what waits for a webhook; tells how many.
    pub(crate) async fn drop_waiting(&self, name: &str) -> Result<u64, HistoryError> {
        let dropped = self.outbox()?.give_up(name, DROPPED).await?;
        tracing::warn!(webhook = name, dropped, "waiting messages are given up, by command");
        Ok(dropped)
    }

    /// A webhook of this name is configured.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.configured().iter().any(|webhook| webhook.endpoint.name == name)
    }

    fn look_again(&self, name: Option<&str>) {
        if let Some(running) = self.running() {
            running.look_again(name);
        }
    }
}

fn begin(webhooks: &[Webhook], outbox: &Arc<dyn Outbox>, gateway: &str) -> anyhow::Result<event_webhook::Webhooks> {
    let endpoints = webhooks.iter().map(|webhook| webhook.endpoint.clone()).collect();
    event_webhook::Webhooks::start(endpoints, outbox, gateway, AGENT).context("cannot serve webhooks")
}

/// A webhook that is configured no more.
fn forgotten(backlog: Backlog) -> WebhookSnapshot {
    let mut snapshot = WebhookSnapshot { name: backlog.endpoint, ..WebhookSnapshot::default() };
    (snapshot.waiting, snapshot.dead) = (Some(backlog.waiting), Some(backlog.dead));
    snapshot.figures.health = WebhookHealth::Unconfigured;
    snapshot
}
