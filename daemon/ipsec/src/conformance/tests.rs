//! The kit against the recording double, which carries no packets: it keeps every rule about requests and cannot show the others.

use std::sync::Arc;

use super::*;
use crate::recording::RecordingBackend;

struct Double {
    log: Arc<Log>,
    backend: RecordingBackend,
}

impl Double {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        Self { log, backend: RecordingBackend::new(reports, 0x1000) }
    }
}

impl Subject for Double {
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

#[test]
fn the_double_keeps_what_needs_no_packets() {
    let ended: Vec<(&str, Verdict)> = run(Double::new);
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| *verdict != Verdict::CannotShow).collect();
    // It goes on recording after shut down, and installs whatever offload it is asked for as software.
    let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["after_shut_down_everything_is_refused_and_answered", "the_mode_in_use_is_read_back"],
        "{broken:?}"
    );
    assert_eq!(ended.len() - broken.len(), BEHAVIOURS.len() - 8);
}

#[test]
fn names_are_unique() {
    let names: std::collections::BTreeSet<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).collect();
    assert_eq!(names.len(), BEHAVIOURS.len());
}
