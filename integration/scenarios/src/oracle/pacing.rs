//! No loops: what was refused with TEMPORARY_FAILURE is not asked for again at once, nor for ever (invariant 8).

use std::collections::BTreeMap;
use std::time::Duration;

use ike_wire::ids::NotifyType;
use ipsec::Instant;

use super::Violation;
use crate::Who;
use crate::journal::Sent;
use crate::meaning::Meaning;

/// A request that was refused comes again no sooner than this.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
/// And not more often than this, unless somebody asks.
const MOST_ATTEMPTS: u32 = 21;

/// What was refused.
#[derive(Default)]
pub(crate) struct Pacing {
    /// Requests under way, by asker, IKE SA and message ID.
    asked: BTreeMap<(Who, (u64, u64), u32), Wish>,
    /// The last refusal of each wish, and how many there were in a row.
    refused: BTreeMap<(Who, Wish), (Instant, u32)>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    NewChild((u64, u64), u64),
    RekeyChild(u32),
    RekeyIke((u64, u64)),
}

impl Pacing {
    pub(super) fn restarted(&mut self, who: Who) {
        self.commanded(who);
        self.asked.retain(|(asker, _, _), _| *asker != who);
    }

    /// An operator or the backend wants something: it may be tried at once.
    pub(super) fn commanded(&mut self, who: Who) {
        self.refused.retain(|(asker, _), _| *asker != who);
    }

    pub(super) fn sent(&mut self, now: Instant, sent: &Sent) -> Violation {
        if sent.is_response() || sent.again {
            return Ok(());
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for three kinds among all")]
        let wish = match &sent.meaning {
            Meaning::NewChild { selectors, .. } => Wish::NewChild(sent.ike(), *selectors),
            Meaning::RekeyChild { old, .. } => Wish::RekeyChild(*old),
            Meaning::RekeyIke { .. } => Wish::RekeyIke(sent.ike()),
            _ => return Ok(()),
        };
        if let Some((at, times)) = self.refused.get(&(sent.from, wish.clone())) {
            let waited = now.saturating_since(*at);
            if waited < SHORTEST_WAIT {
                return Err(format!("{wish:?} again {waited:?} after TEMPORARY_FAILURE"));
            }
            if *times >= MOST_ATTEMPTS {
                return Err(format!("{wish:?} for the {times}th time"));
            }
        }
        self.asked.insert((sent.from, sent.ike(), sent.header.message_id.0), wish);
        Ok(())
    }

    pub(super) fn arrived(&mut self, now: Instant, to: Who, sent: &Sent) {
        if !sent.is_response() {
            return;
        }
        let Some(wish) = self.asked.remove(&(to, sent.ike(), sent.header.message_id.0)) else { return };
        if sent.meaning == Meaning::Refused(NotifyType::TEMPORARY_FAILURE) {
            let entry = self.refused.entry((to, wish)).or_insert((now, 0));
            *entry = (now, entry.1 + 1);
        } else {
            self.refused.remove(&(to, wish));
        }
    }
}
