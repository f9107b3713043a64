//! SAs that were taken out, until no packet can count on them any more.
//!
//! Datapath threads work through their packets with the tables that were published when they began. So an SA that is in no table any more may
//! still be in use for a moment, and what it has carried is told only when nobody holds it. A thread that sleeps holds the old tables as well
//! and does nothing with them; nobody waits for one longer than [`LONGEST`].

use std::sync::Arc;
use std::time::Duration;

use ipsec::{Answer, Applied, Instant, ModeInUse, SaHandle, SaStatus};

use crate::sad::Sa;

/// A batch of packets takes a thread a small part of this, also one that has to wait for a processor.
pub const LONGEST: Duration = Duration::from_millis(50);

/// What a request has come to.
pub enum Outcome {
    /// It is answered.
    Answer(Answer),
    /// It stands, and SAs that it took out may still be in use.
    Leaving(Leaving),
}

/// The answer to a request in the making.
pub struct Leaving {
    modes: Vec<(SaHandle, ModeInUse)>,
    removed: Vec<Departed>,
}

/// An SA in no table.
pub(super) struct Departed {
    sa: Arc<Sa>,
    /// What is told of it, where its counters are to seem to stand still.
    frozen: Option<SaStatus>,
}

impl Departed {
    pub(super) fn new(sa: &Arc<Sa>, frozen: Option<SaStatus>) -> Self {
        Self { sa: Arc::clone(sa), frozen }
    }
}

impl Leaving {
    pub(super) fn new(modes: Vec<(SaHandle, ModeInUse)>, removed: Vec<Departed>) -> Self {
        Self { modes, removed }
    }

    /// Whether the answer need not wait: nobody uses what was taken out, or somebody waits for what was installed.
    pub fn is_over(&self) -> bool {
        !self.modes.is_empty() || self.removed.iter().all(|gone| Arc::strong_count(&gone.sa) == 1)
    }

    /// The answer, with what is counted by now.
    pub fn answer(self, now: Instant) -> Answer {
        let removed = self.removed.iter().map(|gone| as_told(gone.sa.status(now), gone.frozen.as_ref())).collect();
        Answer::Applied(Applied { modes: self.modes, removed })
    }
}

/// A status as it is told where counters are to seem to stand still.
pub(super) fn as_told(status: SaStatus, frozen: Option<&SaStatus>) -> SaStatus {
    let Some(frozen) = frozen else { return status };
    SaStatus {
        bytes: frozen.bytes,
        packets: frozen.packets,
        idle_seconds: frozen.idle_seconds,
        sequence: frozen.sequence,
        ..status
    }
}
