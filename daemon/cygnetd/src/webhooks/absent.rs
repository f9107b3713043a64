//! A build without webhooks: their settings are refused where they are read.

use std::sync::Arc;

use ike_model::history::{HistoryError, Redelivery};
use ike_model::{Outbox, WebhookSnapshot, WebhookTried};

use crate::config::Config;

/// None.
pub(crate) struct Webhooks;

impl Webhooks {
    #[cfg(feature = "history")]
    pub(crate) fn subscriptions(_: &Config) -> Vec<ike_model::history::Subscription> {
        Vec::new()
    }

    pub(crate) fn start(_: &Config, _: Option<Arc<dyn Outbox>>, _: &str) -> anyhow::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn check(&self, _: &Config) -> Result<(), String> {
        Ok(())
    }

    pub(crate) async fn change(&self, _: &Config) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn seen(&self) -> Vec<telemetry::view::Webhook> {
        Vec::new()
    }

    pub(crate) fn stop(&self) {}

    pub(crate) fn outbox(&self) -> Result<&dyn Outbox, HistoryError> {
        Err(none())
    }

    pub(crate) async fn snapshot(&self) -> Vec<WebhookSnapshot> {
        Vec::new()
    }

    pub(crate) async fn test(&self, _: &str) -> Option<WebhookTried> {
        None
    }

    pub(crate) async fn redeliver(&self, _: &Redelivery) -> Result<u64, HistoryError> {
        Err(none())
    }

    pub(crate) async fn enable(&self, _: &str, _: bool) -> Result<bool, HistoryError> {
        Err(none())
    }

    pub(crate) async fn drop_waiting(&self, _: &str) -> Result<u64, HistoryError> {
        Err(none())
    }

    pub(crate) fn has(&self, _: &str) -> bool {
        false
    }
}

fn none() -> HistoryError {
    HistoryError::Failed("this build does not have webhooks".into())
}
