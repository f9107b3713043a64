//! The one table of everything that happens at a time.

use std::collections::{BTreeMap, BTreeSet};

use ipsec::Instant;

/// What a deadline is for. Each has at most one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Of an IKE SA, by our SPI.
    Ike(u64, IkeTimer),
    /// Of a CHILD SA, by its unique id.
    Child(u32, ChildTimer),
    /// Of a configured child, by the number of its keeper.
    Keeper(u32),
    /// Of the trap of a configured child, by the number of its keeper.
    Trap(u32),
    /// What the backend holds is compared with what it should.
    Check,
}

/// Deadlines of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IkeTimer {
    /// Repeat the request that waits.
    Retransmit,
    /// The peer must have authenticated itself.
    HalfOpen,
    /// Nothing was heard for long enough to ask.
    Liveness,
    /// A NAT keepalive is due.
    Keepalive,
    /// Soft lifetime.
    Rekey,
    /// Time to authenticate afresh.
    Reauth,
    /// Hard lifetime.
    Expire,
    /// Start what was put off after TEMPORARY_FAILURE.
    Resume,
    /// Another IKE SA of the same peer has taken its place.
    Superseded,
    /// A replaced IKE SA that nobody deleted goes.
    Reap,
}

/// Deadlines of a CHILD SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChildTimer {
    /// Soft lifetime.
    Soft,
    /// Hard lifetime.
    Hard,
    /// The inbound SA has lingered.
    Linger,
    /// Look whether the SA was used.
    Inactivity,
    /// Traffic passes to it from an equal one of another IKE SA.
    Switch,
    /// Read the counters.
    Count,
    /// Rekey again after TEMPORARY_FAILURE.
    Retry,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    at: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Deadlines {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.clear(timer);
        self.at.insert(timer, at);
        self.order.insert((at, timer));
    }

    /// Takes a deadline out.
    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    /// Takes all deadlines of an IKE SA out.
    pub(crate) fn clear_ike(&mut self, spi: u64) {
        self.clear_range(Timer::Ike(spi, IkeTimer::Retransmit), Timer::Ike(spi, IkeTimer::Reap));
    }

    /// Takes all deadlines of a CHILD SA out.
    pub(crate) fn clear_child(&mut self, unique_id: u32) {
        self.clear_range(Timer::Child(unique_id, ChildTimer::Soft), Timer::Child(unique_id, ChildTimer::Retry));
    }

    fn clear_range(&mut self, first: Timer, last: Timer) {
        let found: Vec<_> = self.at.range(first..=last).map(|(timer, _)| *timer).collect();
        found.into_iter().for_each(|timer| self.clear(timer));
    }

    /// When a deadline is.
    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.at.get(&timer).copied()
    }

    /// Those that are due, without taking them.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<Timer> {
        self.order.iter().take_while(|(at, _)| *at <= now).map(|(_, timer)| *timer).collect()
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the earliest one that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.order.first()?;
        (at <= now).then(|| {
            self.clear(timer);
            timer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::new(Duration::from_secs(seconds))
    }

    #[test]
    fn deadlines_come_in_order_and_once() {
        let mut table = Deadlines::default();
        table.set(Timer::Keeper(1), at(5));
        table.set(Timer::Child(1, ChildTimer::Soft), at(3));
        table.set(Timer::Keeper(1), at(2));
        assert_eq!(table.next(), Some(at(2)));
        assert_eq!(table.due(at(1)), None);
        assert_eq!(table.due(at(9)), Some(Timer::Keeper(1)));
        assert_eq!(table.due(at(9)), Some(Timer::Child(1, ChildTimer::Soft)));
        assert_eq!((table.due(at(9)), table.next()), (None, None));
    }

    #[test]
    fn clearing_one_owner_leaves_the_others() {
        let mut table = Deadlines::default();
        for timer in [IkeTimer::Retransmit, IkeTimer::Rekey, IkeTimer::Reap] {
            table.set(Timer::Ike(7, timer), at(1));
            table.set(Timer::Ike(8, timer), at(1));
        }
        table.clear_ike(7);
        assert_eq!(table.get(Timer::Ike(7, IkeTimer::Rekey)), None);
        assert_eq!((0..).map_while(|_| table.due(at(1))).count(), 3);
    }
}
