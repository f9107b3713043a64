//! Their workers, and what is asked and ordered about them.

use std::sync::Arc;

use anyhow::Context as _;
use ike_model::Outbox;
use ike_model::history::Subscription;

use crate::config::Config;

/// How messages say who sent them.
const AGENT: &str = concat!("cygnet/", env!("CARGO_PKG_VERSION"));

/// The webhooks; without any, nothing runs.
#[derive(Default)]
pub(crate) struct Webhooks {
    running: Option<event_webhook::Webhooks>,
}

impl Webhooks {
    /// What is to be delivered where.
    pub(crate) fn subscriptions(config: &Config) -> Vec<Subscription> {
        config.webhooks.iter().map(|webhook| webhook.subscription()).collect()
    }

    /// Begins to deliver.
    pub(crate) fn start(config: &Config, outbox: Option<Arc<dyn Outbox>>, gateway: &str) -> anyhow::Result<Self> {
        let Some(outbox) = outbox.filter(|_| config.has_webhooks()) else { return Ok(Self::default()) };
        let endpoints = config.webhooks.iter().map(|webhook| webhook.endpoint.clone()).collect();
        let running = event_webhook::Webhooks::start(endpoints, Some(&outbox), gateway, AGENT);
        Ok(Self { running: Some(running.context("cannot serve webhooks")?) })
    }

    /// How each of them is doing, as far as its worker knows.
    #[cfg(feature = "telemetry")]
    pub(crate) fn seen(&self) -> Vec<telemetry::view::Webhook> {
        let figures = self.running.iter().flat_map(event_webhook::Webhooks::figures);
        figures
            .map(|figures| telemetry::view::Webhook {
                name: figures.endpoint,
                state: figures.health.name(),
                backlog: None,
                attempts: figures.attempts,
                delivered: figures.delivered,
                failures: figures.failures.iter().map(|(class, times)| (class.name(), *times)).collect(),
                seconds: figures.time_spent.as_secs_f64(),
                last_success_ms: figures.last_success_ms,
            })
            .collect()
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(running) = &self.running {
            running.stop();
        }
    }
}
