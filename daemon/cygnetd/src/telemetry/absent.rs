//! A build without the HTTP server: its settings are refused where they are read.

use std::sync::Arc;

use crate::config;
use crate::core::Core;
use crate::events::EventSink;
use crate::history::Past;

/// Nothing.
pub(crate) struct Telemetry;

impl Telemetry {
    pub(crate) fn bind(_: &config::Http, _: &str) -> anyhow::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn sink(&self) -> Option<Box<dyn EventSink>> {
        None
    }

    pub(crate) fn serve(&mut self, _: &Arc<Core>, _: &Past) -> anyhow::Result<()> {
        Ok(())
    }

    pub(crate) fn stop(self) {}
}
