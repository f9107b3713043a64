//! Logging: lines on standard error as text or JSON, or entries of the systemd journal; and the same lines as VICI's `log` and `control-log` events.

mod class;
mod fields;
mod levels;
mod output;
mod vici_layer;

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use self::levels::Shown;
pub(crate) use self::levels::{Levels, Raised};
use self::output::Output;
use crate::config::{Log, LogFormat};
use crate::subscribers::Subscribers;

/// What the journal's fields begin with: `CYGNET_CONN`, `CYGNET_CODE`.
const PREFIX: &str = "CYGNET";

/// What the history says once of its database, its library would say at each attempt.
const QUIET: &str = "sqlx_core=off";

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Where and how lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As text on standard error.
    Text,
    /// As JSON there.
    Json,
    /// As entries of the journal.
    Journal,
}

/// The log while the daemon runs.
pub(crate) struct Logging {
    /// Which lines it has.
    pub(crate) levels: Arc<Levels>,
    output: Output,
}

impl Logging {
    /// Waits a little for the last lines to be written.
    pub(crate) fn settle(&self) {
        self.output.settle(LAST_LINES);
    }
}

/// Sends everything that is logged from now on to standard error or the journal, and to VICI clients.
///
/// # Errors
/// When the level is no filter, or the journal is asked for and is not there.
pub(crate) fn start(log: &Log, subscribers: &Arc<Subscribers>) -> anyhow::Result<Logging> {
    let tell = |lost| tracing::warn!(lost, "standard error was not read: {lost} lines of the log are lost");
    let output = Output::start(std::io::stderr(), tell).context("cannot start the thread that writes the log")?;
    let levels = Arc::new(Levels::new(usual(&log.level)?));
    let ansi = std::io::stderr().is_terminal();
    let writer = output.clone();
    let layers = layers(&levels, move || writer.clone(), ansi);
    tracing_subscriber::registry().with(layers).with(vici_layer::layer(Arc::clone(subscribers))).try_init()?;
    set(&levels, log)?;
    Ok(Logging { levels, output })
}

/// Lines as the settings now say. What cannot be had leaves everything as it is.
///
/// # Errors
/// When the level is no filter, or the journal is asked for and is not there.
pub(crate) fn set(levels: &Levels, log: &Log) -> anyhow::Result<()> {
    let filter = usual(&log.level).context("log.level")?;
    let (form, trouble) = match log.format {
        LogFormat::Text => (Form::Text, None),
        LogFormat::Json => (Form::Json, None),
        LogFormat::Journald => {
            levels.open_journal(journal).context("log.format: the journal cannot be reached")?;
            (Form::Journal, None)
        }
        LogFormat::Auto if leads_to_journal() => match levels.open_journal(journal) {
            Ok(()) => (Form::Journal, None),
            Err(error) => (Form::Text, Some(error)),
        },
        LogFormat::Auto => (Form::Text, None),
    };
    levels.set_usual(filter, form);
    if let Some(error) = trouble {
        tracing::warn!("the journal cannot be reached, lines go to standard error: {error:#}");
    }
    Ok(())
}

/// One layer for each form, of which one has lines at a time.
fn layers<W>(
    levels: &Arc<Levels>,
    writer: impl Fn() -> W + Clone + Send + Sync + 'static,
    ansi: bool,
) -> Vec<Boxed<Registry>>
where
    W: std::io::Write + 'static,
{
    let text = fmt::layer().with_writer(writer.clone()).with_ansi(ansi);
    let json = fmt::layer().with_writer(writer).with_ansi(false).json().flatten_event(true);
    let (journal, handle) = reload::Layer::new(None::<Boxed<Registry>>);
    levels.keep_journal(handle);
    let shown = |form| Shown(Arc::clone(levels), form);
    vec![
        text.with_filter(shown(Form::Text)).boxed(),
        json.with_filter(shown(Form::Json)).boxed(),
        journal.with_filter(shown(Form::Journal)).boxed(),
    ]
}

fn usual(level: &str) -> anyhow::Result<EnvFilter> {
    let level = if level.contains("sqlx") { level.to_owned() } else { format!("{level},{QUIET}") };
    Ok(EnvFilter::builder().parse(level)?)
}

fn journal() -> anyhow::Result<Boxed<Registry>> {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_form_changes_while_lines_are_written() {
        let kept = Kept::default();
        let writer = kept.clone();
        let levels = Arc::new(Levels::new(usual("info").unwrap()));
        let registry = tracing_subscriber::registry().with(layers(&levels, move || writer.clone(), false));
        let line = || String::from_utf8(std::mem::take(&mut *kept.0.lock().unwrap())).unwrap();
        let log = |level: &str, format| Log { level: level.into(), format };
        tracing::subscriber::with_default(registry, || {
            let span = tracing::info_span!("around");
            let _entered = span.enter();
            tracing::info!(conn = "a", "one");
            assert!(line().contains("one conn=\"a\""));
            set(&levels, &log("info", LogFormat::Json)).unwrap();
            tracing::info!(conn = "a", "two");
            tracing::debug!("not this");
            let json: serde_json::Value = serde_json::from_str(&line()).unwrap();
            assert_eq!((&json["message"], &json["conn"]), (&"two".into(), &"a".into()));
            assert!(set(&levels, &log("nonsense=nonsense", LogFormat::Text)).is_err());
            tracing::info!("three");
            assert!(line().starts_with('{'), "a wrong filter changes nothing");
            set(&levels, &log("debug", LogFormat::Text)).unwrap();
            tracing::debug!("four");
            let text = line();
            assert!(text.contains("four") && text.contains("DEBUG") && text.lines().count() == 1, "{text}");
        });
    }
}
