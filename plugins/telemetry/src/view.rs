//! The daemon as telemetry sees it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ike_model::device::DeviceTable;
use ike_model::history::KeepingFigures;
use ike_model::snapshot::PolicySnapshot;
use ike_model::{ConfiguredChildStatus, Counters, IkeSaSnapshot, Outbox, Timeline};
use serde::Serialize;

/// An answer of the daemon.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the daemon can be asked. Answers come in bounded time, incomplete rather than late.
pub trait Daemon: Send + Sync {
    /// Its state now.
    fn view(&self) -> Asked<'_, View>;

    /// What readiness depends on, everything that is so and everything that is not.
    fn readiness(&self) -> Asked<'_, Vec<Condition>>;

    /// Whether its threads still turn.
    ///
    /// # Errors
    /// Who does not.
    fn alive(&self) -> Asked<'_, Result<(), String>>;

    /// Whom to ask about the past, where one is kept.
    fn timeline(&self) -> Option<Arc<dyn Timeline>>;

    /// Deliveries to webhooks, where there is a history.
    fn outbox(&self) -> Option<Arc<dyn Outbox>>;
}

/// State of the daemon at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// When it was taken, milliseconds since the epoch.
    pub taken_ms: u64,
    /// Every shard and the data path answered in time, and what is configured had been loaded.
    pub complete: bool,
    /// What is configured had been loaded when this was taken; until then, the daemon is starting.
    pub loaded: bool,
    /// Name of the gateway.
    pub gateway: String,
    /// Changes at every start.
    pub boot_id: String,
    /// Release of the daemon.
    pub version: &'static str,
    /// When the daemon was started, milliseconds since the epoch.
    pub started_ms: u64,
    /// `userspace` or `kernel`.
    pub backend: &'static str,
    /// IKE SAs by number, with fresh counters.
    pub ike_sas: Vec<IkeSaSnapshot>,
    /// Every configured child, refused ones included, by connection and name.
    pub configured: Vec<ConfiguredChildStatus>,
    /// Traps and shunts.
    pub policies: Vec<PolicySnapshot>,
    /// Devices and what they can do.
    pub devices: Arc<DeviceTable>,
    /// Packets that the data path has dropped, by reason.
    pub drops: Vec<(String, u64)>,
    /// IKE SAs that peers have begun and not yet authenticated.
    pub half_open: u64,
    /// IKE messages.
    pub messages: Messages,
    /// Worker threads: busy, idle.
    pub workers: (u64, u64),
    /// What waits in the inbox of each shard: control messages, datagrams.
    pub queues: Vec<(u64, u64)>,
    /// VICI clients that are connected, and how many events they have lost because they did not read them.
    pub vici: (u64, u64),
    /// The history, where one is kept.
    pub history: Option<KeepingFigures>,
    /// Webhooks.
    pub webhooks: Vec<Webhook>,
}

/// What has become of IKE messages since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Received.
    pub received: u64,
    /// Requests sent again.
    pub requests_repeated: u64,
    /// Responses sent again.
    pub responses_repeated: u64,
    /// Times that a COOKIE was asked for.
    pub cookies: u64,
    /// Messages that came to nothing, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Counters of messages that were made or could be read.
    pub counters: Counters,
    /// Those of each connection that anything was counted of.
    pub by_connection: BTreeMap<String, Counters>,
}

/// How a webhook is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// `untried`, `up`, `down` or `disabled`; empty where it is configured no more.
    pub state: &'static str,
    /// Deliveries that are due or wait for their next attempt, and those that were given up; `None` when the database does not say.
    pub backlog: Option<(u64, u64)>,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Messages that have arrived.
    pub delivered: u64,
    /// Attempts that failed, by what went wrong.
    pub failures: Vec<(&'static str, u64)>,
    /// Seconds that all attempts together have taken.
    pub seconds: f64,
    /// When a message arrived last, milliseconds since the epoch.
    pub last_success_ms: Option<u64>,
}

/// How a condition of readiness stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As it should be.
    Met,
    /// Not as it should be, and yet no reason to send traffic elsewhere.
    Degraded,
    /// The daemon is not ready.
    Unmet,
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its stable name.
    pub name: &'static str,
    /// How it stands.
    pub state: Standing,
    /// Why it does not stand better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Condition {
    /// As it should be.
    pub fn met(name: &'static str) -> Self {
        Self { name, state: Standing::Met, reason: None }
    }

    /// Not as it should be.
    pub fn degraded(name: &'static str, reason: impl Into<String>) -> Self {
        Self { name, state: Standing::Degraded, reason: Some(reason.into()) }
    }

    /// A reason not to be ready.
    pub fn unmet(name: &'static str, reason: impl Into<String>) -> Self {
        Self { name, state: Standing::Unmet, reason: Some(reason.into()) }
    }

    /// Met, or not for a reason.
    pub fn of(name: &'static str, met: bool, reason: impl Into<String>) -> Self {
        if met { Self::met(name) } else { Self::unmet(name, reason) }
    }
}
