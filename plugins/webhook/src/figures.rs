//! What has become of messages since the daemon started, in the making.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ike_model::{WebhookFigures, WebhookHealth};

use crate::failure::Failure;

/// The figures of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<WebhookFigures>);

impl Board {
    fn figures(&self) -> MutexGuard<'_, WebhookFigures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> WebhookFigures {
        self.figures().clone()
    }

    pub(crate) fn began(&self) {
        self.figures().in_flight += 1;
    }

    /// An attempt ended at `now_ms`, after `took`.
    pub(crate) fn ended(&self, now_ms: u64, took: Duration, failure: Option<&Failure>) {
        let mut figures = self.figures();
        figures.in_flight = figures.in_flight.saturating_sub(1);
        figures.attempts += 1;
        figures.time_spent += took;
        match failure {
            None => {
                figures.delivered += 1;
                figures.last_latency = Some(took);
                figures.last_success_ms = Some(now_ms);
            }
            Some(failure) => {
                *figures.failures.entry(failure.class.name()).or_default() += 1;
                figures.last_failure_ms = Some(now_ms);
                figures.last_error = Some(failure.text.clone());
            }
        }
    }

    pub(crate) fn gave_up(&self) {
        self.figures().given_up += 1;
    }

    pub(crate) fn is(&self, health: WebhookHealth) {
        self.figures().health = health;
    }
}
