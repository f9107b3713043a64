//! The counters of a CHILD SA: what its two SAs have carried, whether it is in use, and whether it is at a limit.

use std::time::Duration;

use ike_model::snapshot::Traffic;
use ipsec::{Direction, Instant, LimitUnit, LimitUnits, Limits, SaStatus};

use crate::children::{ChildSa, Outbound};
use crate::deadline::ChildTimer;
use crate::gauge::{Each, Gauge, SHORTEST};
use crate::turn::{Turn, direction_of};

/// Bounds the readings of idle SAs from below, see [`Gauge::next`].
const SUDDEN: Duration = Duration::from_secs(1);
/// The same for each CHILD SA of the shard, so that many of them are not read more often together than a thousand times in a second.
const EACH: Duration = Duration::from_millis(1);

/// Counters as last read from the device. A time of last use is a matter of software and stands still where a device does the work, so what
/// tells whether a CHILD SA is in use are these.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    inbound: Gauge,
    outbound: Gauge,
    /// Since when no packet was counted.
    pub(crate) idle_since: Option<Instant>,
    /// The limits that the device raises by itself.
    raised: Each<bool>,
    /// An event came before the answer to the install: it is looked at once more.
    pub(crate) early: bool,
}

impl Meter {
    /// That of a CHILD SA which is not installed yet. Whether a child is in use does not begin anew with a rekeying.
    pub(crate) fn after(predecessor: Option<&Self>) -> Self {
        let Some(old) = predecessor else { return Self::default() };
        let of = |gauge: &Gauge| Gauge::default().as_fast_as(gauge);
        Self { inbound: of(&old.inbound), outbound: of(&old.outbound), idle_since: old.idle_since, ..Self::default() }
    }

    /// Both SAs are installed with these limits.
    pub(crate) fn begin(&mut self, now: Instant, limits: &Limits, raised: LimitUnits) {
        // What is known of the traffic is known from its predecessor.
        self.inbound = Gauge::starting(now).as_fast_as(&self.inbound);
        self.outbound = Gauge::starting(now).as_fast_as(&self.outbound);
        // A unit that the device was not given after all is ours.
        let given = limits.raised(raised);
        self.raised = Each {
            bytes: raised.bytes && given.hard.bytes == limits.hard.bytes,
            packets: raised.packets && given.hard.packets == limits.hard.packets,
        };
    }

    /// Takes a reading. Gives what has been added since the last one.
    pub(crate) fn read(&mut self, direction: Direction, status: &SaStatus, now: Instant) -> Each<u64> {
        let count = Each { bytes: status.bytes, packets: status.packets };
        let gauge = match direction {
            Direction::Inbound | Direction::Forward => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        if gauge.count.packets != count.packets {
            self.idle_since = Some(now);
        }
        gauge.read(count, now)
    }

    /// Counters of one direction.
    pub(crate) fn gauge(&self, direction: Direction) -> &Gauge {
        match direction {
            Direction::Inbound | Direction::Forward => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Counters of one direction for users, as last read.
    pub(crate) fn traffic(&self, direction: Direction) -> Traffic {
        let Each { bytes, packets } = self.gauge(direction).count;
        Traffic { bytes, packets, idle_seconds: None }
    }

    /// The hard limit that one direction has reached.
    pub(crate) fn hard(&self, direction: Direction, limits: &Limits) -> Option<LimitUnit> {
        self.gauge(direction).hard(limits, self.raised)
    }

    /// The soft limit that one direction has reached.
    pub(crate) fn soft(&self, direction: Direction, limits: &Limits) -> Option<LimitUnit> {
        self.gauge(direction).soft(limits)
    }
}

impl ChildSa {
    /// Sets the deadline for the next reading of the counters, where there is a limit on what they count. Whoever was installed at the same
    /// instant is not read at the same one.
    pub(crate) fn schedule_count(&self, turn: &mut Turn<'_>) {
        let children = u32::try_from(turn.registry.home.len()).unwrap_or(u32::MAX);
        let sudden = SUDDEN.max(EACH.saturating_mul(children));
        let installed = self.installed_directions();
        let each = installed.filter_map(|way| self.meter.gauge(way).next(&self.limits, self.meter.raised, sudden));
        let Some(wait) = each.min() else { return };
        let at = if self.meter.early { Duration::ZERO } else { spread(wait, self.unique_id) };
        turn.deadlines.set(self.timer(ChildTimer::Count), turn.after(at));
    }

    /// The last counters of one of its SAs, which the backend has taken out.
    pub(crate) fn count_last(&mut self, last: &SaStatus, now: Instant) {
        let direction = direction_of(last.sa);
        let more = self.meter.read(direction, last, now);
        self.totals.add(direction, more);
    }

    /// The SAs that the backend holds, the outbound one first.
    pub(crate) fn installed_directions(&self) -> impl Iterator<Item = Direction> + use<> {
        let outbound = (self.outbound != Outbound::Removed).then_some(Direction::Outbound);
        let inbound = (!self.deaf).then_some(Direction::Inbound);
        outbound.into_iter().chain(inbound)
    }
}

/// Three quarters of a time to all of it, the same for a CHILD SA each time and different for its neighbours.
fn spread(wait: Duration, unique_id: u32) -> Duration {
    // Multiplying by the golden ratio of 2^32 spreads consecutive numbers evenly.
    let share = unique_id.wrapping_mul(0x9e37_79b9) >> 24;
    (wait - wait / 1024 * share).max(SHORTEST.min(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_at_different_instants() {
        let wait = Duration::from_secs(100);
        let mut seconds: Vec<u64> = (0..100).map(|id| spread(wait, id).as_secs()).collect();
        assert!(seconds.iter().all(|second| (75..=100).contains(second)), "{seconds:?}");
        seconds.sort_unstable();
        let most = seconds.chunk_by(|a, b| a == b).map(<[u64]>::len).max();
        assert!(most <= Some(6), "{most:?} of 100 in one of 25 seconds");
    }
}
