//! Their workers, and what is asked and ordered about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use ike_model::history::{Backlog, HistoryError, Redelivery, Subscription};
use ike_model::{Outbox, WebhookHealth, WebhookSnapshot, WebhookTried};

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
    configured: Vec<Webhook>,
    running: Option<event_webhook::Webhooks>,
    outbox: Option<Arc<dyn Outbox>>,
}

impl Webhooks {
    /// What is to be delivered where.
    pub(crate) fn subscriptions(config: &Config) -> Vec<Subscription> {
        config.webhooks.iter().map(Webhook::subscription).collect()
    }

    /// Begins to deliver.
    pub(crate) fn start(config: &Config, outbox: Option<Arc<dyn Outbox>>, gateway: &str) -> anyhow::Result<Self> {
        let configured = config.webhooks.clone();
        let running = match &outbox {
            Some(outbox) if !configured.is_empty() => {
                let endpoints = configured.iter().map(|webhook| webhook.endpoint.clone()).collect();
                Some(
                    event_webhook::Webhooks::start(endpoints, outbox, gateway, AGENT)
                        .context("cannot serve webhooks")?,
                )
            }
            Some(_) | None => None,
        };
        Ok(Self { configured, running, outbox })
    }

    /// How each of them is doing, as far as its worker knows.
    #[cfg(feature = "telemetry")]
    pub(crate) fn seen(&self) -> Vec<telemetry::view::Webhook> {
        let seen = |webhook: &Webhook| {
            let name = webhook.endpoint.name.clone();
            let figures = self.running.as_ref()?.figures(&name)?;
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
        self.configured.iter().filter_map(seen).collect()
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(running) = &self.running {
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
        for webhook in &self.configured {
            let backlog = backlogs.remove(&webhook.endpoint.name);
            let count = |of: fn(&Backlog) -> u64| known.then(|| backlog.as_ref().map_or(0, of));
            let name = &webhook.endpoint.name;
            let figures = self.running.as_ref().and_then(|running| running.figures(name)).unwrap_or_default();
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
        self.running.as_ref()?.test(name).await
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
        self.configured.iter().any(|webhook| webhook.endpoint.name == name)
    }

    fn look_again(&self, name: Option<&str>) {
        if let Some(running) = &self.running {
            running.look_again(name);
        }
    }
}

/// A webhook that is configured no more.
fn forgotten(backlog: Backlog) -> WebhookSnapshot {
    let mut snapshot = WebhookSnapshot { name: backlog.endpoint, ..WebhookSnapshot::default() };
    (snapshot.waiting, snapshot.dead) = (Some(backlog.waiting), Some(backlog.dead));
    snapshot.figures.health = WebhookHealth::Unconfigured;
    snapshot
}
