//! Logging: lines on standard error as text or JSON, or entries of the systemd journal; and the same lines as VICI's `log` and `control-log` events.

mod class;
mod fields;
mod levels;
mod vici_layer;

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use anyhow::Context as _;
use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use self::levels::Shown;
pub(crate) use self::levels::{Levels, Raised};
use crate::config::{Log, LogFormat};
use crate::subscribers::Subscribers;

/// What the journal's fields begin with: `CYGNET_CONN`, `CYGNET_CODE`.
const PREFIX: &str = "CYGNET";

/// What the history says once of its database, its library would say at each attempt.
const QUIET: &str = "sqlx_core=off";

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

/// Sends everything that is logged from now on to standard error or the journal, and to VICI clients.
///
/// # Errors
/// When the level is no filter, or the journal is asked for and is not there.
pub(crate) fn start(log: &Log, subscribers: &Arc<Subscribers>) -> anyhow::Result<Arc<Levels>> {
    let (lines, trouble) = match log.format {
        LogFormat::Text => (text(), None),
        LogFormat::Json => (json(), None),
        LogFormat::Journald => (journal().context("log.format: the journal cannot be reached")?, None),
        LogFormat::Auto if leads_to_journal() => match journal() {
            Ok(lines) => (lines, None),
            Err(error) => (text(), Some(error)),
        },
        LogFormat::Auto => (text(), None),
    };
    let levels = Arc::new(Levels::new(usual(&log.level)?));
    let lines = lines.with_filter(Shown(Arc::clone(&levels)));
    tracing_subscriber::registry().with(lines).with(vici_layer::layer(Arc::clone(subscribers))).try_init()?;
    if let Some(error) = trouble {
        tracing::warn!("the journal cannot be reached, lines go to standard error: {error:#}");
    }
    Ok(levels)
}

/// Lines as the settings now say.
///
/// # Errors
/// When the level is no filter.
pub(crate) fn set(levels: &Levels, log: &Log) -> anyhow::Result<()> {
    levels.set_usual(usual(&log.level)?);
    Ok(())
}

fn usual(level: &str) -> anyhow::Result<EnvFilter> {
    let level = if level.contains("sqlx") { level.to_owned() } else { format!("{level},{QUIET}") };
    Ok(EnvFilter::builder().parse(level)?)
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>() -> Boxed<S> {
    fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).boxed()
}

fn json<S: Subscriber + for<'a> LookupSpan<'a>>() -> Boxed<S> {
    fmt::layer().with_writer(std::io::stderr).with_ansi(false).json().flatten_event(true).boxed()
}

fn journal<S: Subscriber + for<'a> LookupSpan<'a>>() -> anyhow::Result<Boxed<S>> {
    let levels =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::default() };
    let layer = tracing_journald::layer()?
        .with_field_prefix(Some(PREFIX.into()))
        .with_syslog_identifier("cygnetd".into())
        .with_priority_mappings(levels);
    Ok(layer.boxed())
}

/// Whether standard error is the stream that the service manager has made into the journal: systemd.exec(5), `JOURNAL_STREAM`.
fn leads_to_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let is = |stream: &str| {
        let error = std::fs::metadata("/proc/self/fd/2").ok()?;
        Some(stream == format!("{}:{}", error.dev(), error.ino()))
    };
    stream.as_deref().and_then(is).unwrap_or(false)
}
