//! A build without webhooks: their settings are refused where they are read.

use std::sync::Arc;

use ike_model::Outbox;
use ike_model::history::Subscription;

use crate::config::Config;

/// None.
pub(crate) struct Webhooks;

impl Webhooks {
    #[cfg(feature = "history")]
    pub(crate) fn subscriptions(_: &Config) -> Vec<Subscription> {
        Vec::new()
    }

    pub(crate) fn start(_: &Config, _: Option<Arc<dyn Outbox>>, _: &str) -> anyhow::Result<Self> {
        Ok(Self)
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn seen(&self) -> Vec<telemetry::view::Webhook> {
        Vec::new()
    }

    pub(crate) fn stop(&self) {}
}
