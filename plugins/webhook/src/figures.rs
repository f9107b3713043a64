//! What has become of messages since the daemon started, in the making.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

    /// An attempt is under way until what this gives is dropped, whether it comes to an end or not.
    pub(crate) fn began(self: &Arc<Self>) -> UnderWay {
        self.figures().in_flight += 1;
        UnderWay(Arc::clone(self))
    }

    /// An attempt ended at `now_ms`, after `took`.
    pub(crate) fn ended(&self, now_ms: u64, took: Duration, failure: Option<&Failure>) {
        let mut figures = self.figures();
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

/// An attempt that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Board>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut figures = self.0.figures();
        figures.in_flight = figures.in_flight.saturating_sub(1);
    }
}
