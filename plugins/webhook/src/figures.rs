//! What has become of messages since the daemon started, by endpoint.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::failure::{Class, Failure};

/// How an endpoint is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing has been sent yet.
    #[default]
    Untried,
    /// Messages arrive.
    Up,
    /// They do not: it is tried now and then.
    Down,
    /// Nothing is sent until somebody enables it.
    Disabled,
}

impl Health {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Up => "up",
            Self::Down => "down",
            Self::Disabled => "disabled",
        }
    }
}

/// The figures of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Name of the endpoint.
    pub endpoint: String,
    /// How it is doing.
    pub health: Health,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Messages that have arrived.
    pub delivered: u64,
    /// Attempts that failed, by what went wrong.
    pub failures: BTreeMap<Class, u64>,
    /// Messages given up.
    pub given_up: u64,
    /// Messages under way now.
    pub in_flight: u64,
    /// Time that all attempts together have taken.
    pub time_spent: Duration,
    /// Time that the last success took.
    pub last_latency: Option<Duration>,
    /// When the last message arrived.
    pub last_success_ms: Option<u64>,
    /// When an attempt failed last, and why.
    pub last_failure: Option<(u64, String)>,
}

/// Figures in the making.
#[derive(Debug)]
pub(crate) struct Board(Mutex<Figures>);

impl Board {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self(Mutex::new(Figures { endpoint: endpoint.into(), ..Figures::default() }))
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> Figures {
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
                *figures.failures.entry(failure.class).or_default() += 1;
                figures.last_failure = Some((now_ms, failure.text.clone()));
            }
        }
    }

    pub(crate) fn gave_up(&self) {
        self.figures().given_up += 1;
    }

    pub(crate) fn is(&self, health: Health) {
        self.figures().health = health;
    }
}
