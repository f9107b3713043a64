//! The kernel's setting for packets that wait for an SA.
//!
//! With `net.core.xfrm_larval_drop = 0` the kernel queues what meets a policy whose SA is missing (a hundred packets for each policy, a minute at
//! most) and sends it once the policy finds one; by default it drops it. The setting is of the network namespace. It is put back when the backend
//! stops; a run that is killed leaves it to the next one, which finds in the journal what it was.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::journal::Journal;

/// The kernel's default.
const ACQUIRE_AGE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Settings {
    directory: Option<PathBuf>,
    before: Option<String>,
    acquire_age: Duration,
}

impl Settings {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        let path = directory.as_ref().map(|directory| directory.join("xfrm_acq_expires"));
        let seconds = path.and_then(|path| fs::read_to_string(path).ok()).and_then(|text| text.trim().parse().ok());
        Self { directory, before: None, acquire_age: seconds.map_or(ACQUIRE_AGE, Duration::from_secs) }
    }

    fn path(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join("xfrm_larval_drop"))
    }

    /// Has the kernel hold packets. `earlier` is what an earlier run found the setting at.
    pub(crate) fn hold_packets(&mut self, earlier: Option<&str>, journal: &mut Journal) {
        let Some(path) = self.path() else { return };
        let found = match fs::read_to_string(&path) {
            Ok(found) => found.trim().to_owned(),
            Err(error) => return tracing::info!(%error, "the kernel drops packets that wait for an SA"),
        };
        let before = earlier.map_or(found, str::to_owned);
        if before == "0" {
            return;
        }
        journal.note_larval_drop(&before);
        match fs::write(&path, "0") {
            Ok(()) => self.before = Some(before),
            Err(error) => tracing::info!(%error, "the kernel drops packets that wait for an SA"),
        }
    }

    /// How long the kernel waits for an SA that it has asked for before it asks again (`net.core.xfrm_acq_expires`).
    pub(crate) fn acquire_age(&self) -> Duration {
        self.acquire_age
    }

    /// Puts the setting back.
    pub(crate) fn restore(&mut self) {
        let (Some(path), Some(before)) = (self.path(), self.before.take()) else { return };
        if let Err(error) = fs::write(path, before) {
            tracing::warn!(%error, "cannot put net.core.xfrm_larval_drop back");
        }
    }
}
