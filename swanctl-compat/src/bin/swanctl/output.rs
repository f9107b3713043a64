//! How answers and events are printed: raw, pretty, or as a person reads them. Each is flushed at once, so that a reader of a pipe sees it.

use std::io::{self, Write};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::options::Invocation;
use crate::stdio::stdout;

/// The form asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Human,
    Raw,
    Pretty,
    Json,
}

impl Form {
    pub(crate) fn of(invocation: &Invocation) -> Self {
        if invocation.has("json") {
            Self::Json
        } else if invocation.has("pretty") {
            Self::Pretty
        } else if invocation.has("raw") {
            Self::Raw
        } else {
            Self::Human
        }
    }

    /// Prints `message` under `label` in raw or pretty form; false when another form is asked for.
    pub(crate) fn dump(self, label: &str, message: &Message) -> Result<bool, ClientError> {
        match self {
            Self::Raw => print(&text::labelled(label, message))?,
            Self::Pretty => print(&text::pretty(label, message))?,
            Self::Human | Self::Json => return Ok(false),
        }
        Ok(true)
    }
}

/// Prints and flushes. When nobody reads any more, the program ends.
pub(crate) fn print(text: &str) -> Result<(), ClientError> {
    let mut out = stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Lets SIGINT and SIGTERM end the program well, between two events.
pub(crate) fn end_at_signal() -> Result<(), ClientError> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Whoever prints holds this until a whole event is out.
            let _between = io::stdout().lock();
            std::process::exit(0);
        }
    });
    Ok(())
}
