//! CHILD SAs that are gone, until the backend has told what they carried last.
//!
//! A backend takes SAs out when it is asked to, and its answer has their last counters. The SAs of one CHILD SA may go at different times: the
//! outbound one when traffic has passed to a successor, the inbound one when no straggler is waited for any more. When both answers have come,
//! and the CHILD SA is forgotten, what it has carried is told for the last time.

use std::collections::BTreeMap;

use ike_model::snapshot::ChildSaState;
use ike_model::{EventBody, IkeSaSnapshot};
use ipsec::{Answer, Instant, OffloadError, Op, SaHandle, SaStatus, Shard, Tag};

use crate::children::ChildSa;
use crate::turn::{Turn, child_of};

/// Removals that are not answered, and the CHILD SAs that wait for that.
#[derive(Debug, Default)]
pub(crate) struct Farewells {
    /// SAs that a request takes out.
    requests: BTreeMap<Tag, Vec<SaHandle>>,
    /// How many SAs of a CHILD SA are being taken out.
    leaving: BTreeMap<u32, u8>,
    gone: BTreeMap<u32, Box<Gone>>,
}

/// A CHILD SA that is forgotten already.
#[derive(Debug)]
struct Gone {
    ike: Box<IkeSaSnapshot>,
    child: ChildSa,
}

impl Farewells {
    /// This is asked of the backend.
    pub(crate) fn asked(&mut self, tag: Tag, ops: &[Op]) {
        let removed = ops.iter().filter_map(|op| if let Op::RemoveSa(sa) = op { Some(*sa) } else { None });
        let removed: Vec<SaHandle> = removed.collect();
        for sa in &removed {
            let leaving = self.leaving.entry(child_of(*sa)).or_default();
            *leaving = leaving.saturating_add(1);
        }
        if !removed.is_empty() {
            self.requests.insert(tag, removed);
        }
    }

    /// The SAs that a request has taken out.
    pub(crate) fn answered(&mut self, tag: Tag) -> Vec<SaHandle> {
        self.requests.remove(&tag).unwrap_or_default()
    }

    /// The last counters of one SA, if they could be had. What there is to tell when nothing more of its CHILD SA is waited for.
    pub(crate) fn left(
        &mut self,
        sa: SaHandle,
        last: Option<&SaStatus>,
        now: Instant,
        shard: Shard,
    ) -> Option<EventBody> {
        let unique_id = child_of(sa);
        if let Some((gone, last)) = self.gone.get_mut(&unique_id).zip(last) {
            gone.child.count_last(last, now);
        }
        let leaving = self.leaving.get_mut(&unique_id)?;
        *leaving = leaving.saturating_sub(1);
        if *leaving > 0 {
            return None;
        }
        self.leaving.remove(&unique_id);
        self.gone.remove(&unique_id).map(|gone| gone.told(now, shard))
    }

    /// Whether all has been told.
    pub(crate) fn is_over(&self) -> bool {
        self.gone.is_empty()
    }
}

impl Gone {
    fn told(self, now: Instant, shard: Shard) -> EventBody {
        let mut child = Box::new(self.child.snapshot(now, shard));
        child.state = ChildSaState::Deleted;
        EventBody::ChildSaRemoved { ike: self.ike, child, successor: self.child.successor }
    }
}

impl Turn<'_> {
    /// A CHILD SA is forgotten, and nothing of it is left that the backend was not asked to take out.
    pub(crate) fn farewell(&mut self, ike: impl FnOnce() -> IkeSaSnapshot, child: ChildSa) {
        if !child.told_up {
            return;
        }
        let gone = Gone { ike: Box::new(ike()), child };
        if self.registry.farewells.leaving.contains_key(&gone.child.unique_id) {
            self.registry.farewells.gone.insert(gone.child.unique_id, Box::new(gone));
        } else {
            self.event(gone.told(self.now(), self.ids.shard()));
        }
    }
}

/// The last state of an SA, where an answer has it.
pub(crate) fn last_of(result: &Result<Answer, OffloadError>, sa: SaHandle) -> Option<&SaStatus> {
    match result {
        Ok(Answer::Applied(applied)) => applied.removed.iter().find(|status| status.sa == sa),
        Ok(Answer::Status(_) | Answer::Installed(_)) | Err(_) => None,
    }
}
