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

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(running) = &self.running {
            running.stop();
        }
    }
}
