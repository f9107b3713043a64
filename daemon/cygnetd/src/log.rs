//! Logging: lines on standard error as text or JSON, and the same lines as VICI's `log` and `control-log` events.

mod vici_layer;

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{Log, LogFormat};
use crate::subscribers::Subscribers;

/// What the history says once of its database, its library would say at each attempt.
const QUIET: &str = "sqlx_core=off";

/// Sends everything that is logged from now on to standard error and to VICI clients.
///
/// # Errors
/// When the level is no filter.
pub(crate) fn start(log: &Log, subscribers: &Arc<Subscribers>) -> anyhow::Result<()> {
    let level = if log.level.contains("sqlx") { log.level.clone() } else { format!("{},{QUIET}", log.level) };
    let filter = || EnvFilter::builder().parse(&level);
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let lines = match log.format {
        LogFormat::Text => lines.with_filter(filter()?).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter()?).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(vici_layer::layer(Arc::clone(subscribers))).try_init()?;
    Ok(())
}
