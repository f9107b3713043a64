//! How answers and events are printed: raw, pretty, or as a person reads them. Each is flushed at once, so that a reader of a pipe sees it.

use std::io::{self, Write};

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::options::Invocation;

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

/// Prints and flushes.
pub(crate) fn print(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
