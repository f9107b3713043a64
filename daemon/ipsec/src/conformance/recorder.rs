//! The recording double as a subject: it carries no packets, so all it shows is how it answers.

use std::sync::Arc;

use super::{Log, Subject, Wire};
use crate::backend::{OffloadBackend, Reports};
use crate::recording::RecordingBackend;

/// A [`RecordingBackend`] with its reports.
pub struct Recorder {
    log: Arc<Log>,
    backend: RecordingBackend,
}

impl Recorder {
    /// A fresh one.
    pub fn new() -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        Self { log, backend: RecordingBackend::new(reports, 0x1000) }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for Recorder {
    fn backend(&self) -> &dyn OffloadBackend {
        &self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn settle(&mut self) {}

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        None
    }
}
