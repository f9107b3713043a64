//! Counters of one SA as they were read, and when to read them again.
//!
//! A limit that the device does not raise is found by reading its counters. They are read so often that at most [`TOLERANCE`] of a hard limit
//! passes beyond it: the more is left and the slower it goes, the later the next reading, so that an SA is read some hundred times in its
//! life whether that is an hour or ten seconds. What is left must last
//!
//! - when traffic grows a hundredfold ([`RISE`]) right after the reading, but not beyond what a link can carry, and never less than what this
//!   SA has carried at its fastest;
//! - when it jumps from anything to the speed of the fastest link ([`Gauge::LINK`]); only for this one the interval has a lower bound of the
//!   caller's choice, about a second, or an idle SA with a small limit would be read without a pause;
//! - and as long as an SA has lived, because at first nothing is known of its speed.
//!
//! So the promise is kept for limits that last 0.7 s at a speed that was reached in steps of no more than a hundred, and for those that last
//! two minutes whatever happens. When what is left goes in less time than there is between two readings, the SA is ended early rather than
//! late.
//!
//! Of limits that the device raises itself an event may be lost. Those are looked at slowly: after half of the time that is left until the
//! middle between the soft and the hard limit, so that the rekeying that was not asked for still comes before the end.

use std::time::Duration;

use ipsec::{Instant, LimitUnit, Limits};

/// This part of a limit may pass beyond it: one in 128, which leaves time for the request that ends the SA within one percent.
const TOLERANCE: u64 = 128;
/// Traffic may become so many times faster between two readings.
const RISE: u64 = 100;
/// Counters are not read more often.
pub(crate) const SHORTEST: Duration = Duration::from_millis(5);
/// The first reading, of an SA of whose traffic nothing is known.
const FIRST: Duration = Duration::from_millis(20);
/// Counters of an SA with any limit are not read less often.
const LONGEST: Duration = Duration::from_secs(300);
/// Counters are not read more often where the device raises the limit itself.
const SLOW: Duration = Duration::from_secs(1);

/// Octets and packets, or something for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Each<T> {
    /// For octets.
    pub(crate) bytes: T,
    /// For packets.
    pub(crate) packets: T,
}

impl<T> Each<T> {
    fn of(self, unit: LimitUnit) -> Option<T> {
        match unit {
            LimitUnit::Time => None,
            LimitUnit::Bytes => Some(self.bytes),
            LimitUnit::Packets => Some(self.packets),
        }
    }
}

/// Counters of one SA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauge {
    /// As last read.
    pub(crate) count: Each<u64>,
    /// Since when it counts.
    begun: Instant,
    /// Since when speed is being measured, and what had been counted then.
    since: Option<(Instant, Each<u64>)>,
    /// In a second, as last measured.
    rate: Each<u64>,
    /// In a second, at its fastest.
    peak: Each<u64>,
}

/// The units that are counted.
const UNITS: [LimitUnit; 2] = [LimitUnit::Packets, LimitUnit::Bytes];

impl Gauge {
    /// What the fastest link carries in a second: 400 Gbit/s, in packets of 64 octets with preamble and gap.
    const LINK: Each<u64> = Each { bytes: 50_000_000_000, packets: 595_238_095 };

    /// Nothing was counted yet.
    pub(crate) fn starting(now: Instant) -> Self {
        Self { begun: now, since: Some((now, Each::default())), ..Self::default() }
    }

    /// Traffic takes it as it took another one.
    pub(crate) fn as_fast_as(self, other: &Self) -> Self {
        Self { rate: other.rate, peak: other.peak, ..self }
    }

    /// How long it had been counting at the last reading.
    fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |(at, _)| at.saturating_since(self.begun))
    }

    /// Takes a reading. Gives what has been added since the last one.
    pub(crate) fn read(&mut self, count: Each<u64>, now: Instant) -> Each<u64> {
        let before = std::mem::replace(&mut self.count, count);
        let (at, base) = *self.since.get_or_insert((now, count));
        let span = now.saturating_since(at);
        // Two readings in a row say nothing about speed.
        if span >= SHORTEST {
            let rate = |count: u64, base: u64| per_second(count.saturating_sub(base), span);
            let bytes = rate(count.bytes, base.bytes);
            let packets = rate(count.packets, base.packets);
            self.rate = Each { bytes, packets };
            self.peak = Each { bytes: self.peak.bytes.max(bytes), packets: self.peak.packets.max(packets) };
            self.since = Some((now, count));
        }
        Each { bytes: count.bytes.saturating_sub(before.bytes), packets: count.packets.saturating_sub(before.packets) }
    }

    /// The soft limit that is reached.
    pub(crate) fn soft(&self, limits: &Limits) -> Option<LimitUnit> {
        UNITS.into_iter().find(|unit| {
            let reached = |limit: u64| self.count.of(*unit).is_some_and(|count| count >= limit);
            limits.asks(*unit) && soft_of(limits, *unit).is_some_and(reached)
        })
    }

    /// The hard limit that is reached, or will be before the next reading where the device does not stop there by itself.
    pub(crate) fn hard(&self, limits: &Limits, raised: Each<bool>) -> Option<LimitUnit> {
        UNITS.into_iter().find(|unit| {
            let (Some(limit), Some(count)) = (hard_of(limits, *unit), self.count.of(*unit)) else { return false };
            let soon = self.rate.of(*unit).map_or(0, |rate| in_time(rate, SHORTEST));
            let left = limit.saturating_sub(count).saturating_add(limit / TOLERANCE);
            let near = count >= limit - limit / 10 && left < soon;
            count >= limit || (near && raised.of(*unit) == Some(false))
        })
    }

    /// When to read again; `sudden` bounds the interval from below as far as nothing was seen that is faster. `None` without any limit.
    pub(crate) fn next(&self, limits: &Limits, raised: Each<bool>, sudden: Duration) -> Option<Duration> {
        let each = UNITS.into_iter().filter_map(|unit| {
            let (soft, hard) = (soft_of(limits, unit), hard_of(limits, unit));
            let end = hard.or(soft)?;
            match raised.of(unit)? {
                true => self.slowly(unit, soft.unwrap_or(end), end),
                false => self.closely(unit, soft.filter(|soft| *soft < end), end, sudden),
            }
        });
        each.min()
    }

    /// For a limit that the device does not raise.
    fn closely(&self, unit: LimitUnit, soft: Option<u64>, end: u64, sudden: Duration) -> Option<Duration> {
        let (link, peak, count) = (Self::LINK.of(unit)?, self.peak.of(unit)?, self.count.of(unit)?);
        let left = end.saturating_sub(count).saturating_add(end / TOLERANCE);
        let rising = span_of(left, self.rate.of(unit)?.saturating_mul(RISE).min(link));
        // At a speed that is known or can be had, a rekeying needs three quarters of the way between both limits.
        let soft = soft.filter(|soft| count < *soft).map(|soft| soft.saturating_add((end - soft) / 4));
        let left = soft.map_or(left, |soft| soft.saturating_sub(count));
        // Of an SA that is younger nothing is known, not even that it is no faster than a link.
        let (least, most) = (sudden.min(self.age().max(FIRST)), sudden.max(self.age()));
        let any = span_of(left, link.max(peak)).min(most).max(least);
        Some(rising.min(any).min(span_of(left, peak)).clamp(SHORTEST, LONGEST))
    }

    /// For a limit that the device raises.
    fn slowly(&self, unit: LimitUnit, soft: u64, hard: u64) -> Option<Duration> {
        let (rate, count) = (self.rate.of(unit)?, self.count.of(unit)?);
        let between = hard.saturating_sub(soft);
        // Once the soft limit is reached all that may still be missed is the hard one.
        let aim = if count < soft { soft.saturating_add(between / 2) } else { hard.saturating_add(hard / 10) };
        let left = aim.saturating_sub(count).div_ceil(2).max(between / 4);
        let any = span_of(left, Self::LINK.of(unit)?).max(self.age());
        Some(span_of(left, rate).min(any).clamp(SLOW, LONGEST))
    }
}

fn soft_of(limits: &Limits, unit: LimitUnit) -> Option<u64> {
    Each { bytes: limits.soft.bytes, packets: limits.soft.packets }.of(unit)?
}

fn hard_of(limits: &Limits, unit: LimitUnit) -> Option<u64> {
    Each { bytes: limits.hard.bytes, packets: limits.hard.packets }.of(unit)?
}

fn per_second(count: u64, span: Duration) -> u64 {
    let nanoseconds = span.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// What comes in a time at so many in a second.
fn in_time(rate: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(rate) * span.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

/// How long `count` lasts at so many in a second.
fn span_of(count: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(count) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(nanoseconds).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests;
