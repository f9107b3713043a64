//! Webhooks as they stand: what is configured, what waits, what has become of messages.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::history::Disabled;

/// How a webhook is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookHealth {
    /// Nothing has been sent yet.
    #[default]
    Untried,
    /// Messages arrive.
    Up,
    /// They do not: it is tried now and then.
    Down,
    /// Nothing is sent until somebody enables it.
    Disabled,
    /// It is configured no more: what waits for it waits on.
    Unconfigured,
}

impl WebhookHealth {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Up => "up",
            Self::Down => "down",
            Self::Disabled => "disabled",
            Self::Unconfigured => "unconfigured",
        }
    }
}

/// What has become of the messages to one webhook since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebhookFigures {
    /// How it is doing.
    pub health: WebhookHealth,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Messages that have arrived.
    pub delivered: u64,
    /// Attempts that failed, by what went wrong.
    pub failures: BTreeMap<&'static str, u64>,
    /// Messages given up.
    pub given_up: u64,
    /// Messages under way now.
    pub in_flight: u64,
    /// Time that all attempts together have taken.
    pub time_spent: Duration,
    /// Time that the last success took.
    pub last_latency: Option<Duration>,
    /// When the last message arrived, in milliseconds since the epoch.
    pub last_success_ms: Option<u64>,
    /// When an attempt failed last.
    pub last_failure_ms: Option<u64>,
    /// Why.
    pub last_error: Option<String>,
}

/// One webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebhookSnapshot {
    /// Its name.
    pub name: String,
    /// Where messages go, without what may be secret; `None` when it is configured no more.
    pub url: Option<String>,
    /// Which events; empty = all.
    pub events: Vec<String>,
    /// Of which connections; empty = all.
    pub connections: Vec<String>,
    /// Messages that wait; `None` when the database does not say.
    pub waiting: Option<u64>,
    /// Messages that were given up.
    pub dead: Option<u64>,
    /// Since when and why nothing is sent.
    pub disabled: Option<Disabled>,
    /// What has become of messages.
    pub figures: WebhookFigures,
}

/// What became of a message that was only sent to see whether it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTried {
    /// Its identity.
    pub id: String,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// What went wrong, as figures count it, and in words.
    pub failure: Option<(&'static str, String)>,
    /// How long it took.
    pub took: Duration,
}
