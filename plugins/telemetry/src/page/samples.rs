//! Throughput of the last minutes, kept in memory for the curves of the page.

use std::collections::{HashMap, VecDeque};

use ike_model::snapshot::Carried;
use serde::{Serialize, Serializer};

use super::limits::{limits, nearest};
use super::lines::{Both, Key, Lines};

/// How far samples are apart at least.
pub(super) const APART_MS: u64 = 5_000;
/// Samples of one tunnel: ten minutes.
const KEPT: usize = 120;
/// With more tunnels than these, samples are taken only while somebody looks.
pub(super) const ALWAYS: usize = 1_000;
/// With more than these, no samples are kept at all; present rates are.
const MOST: usize = 20_000;

/// One moment of a tunnel; in JSON `[ms, received bit/s, sent bit/s, used part of the nearest limit or null]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) at_ms: u64,
    pub(super) rates: Both<u64>,
    pub(super) used: Option<f64>,
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.at_ms, self.rates.inbound, self.rates.outbound, self.used).serialize(serializer)
    }
}

/// What is known of all tunnels.
#[derive(Debug, Default)]
pub(super) struct Samples {
    tracks: HashMap<Key, Track>,
}

/// A count of both directions at one moment.
type Reading = (u64, Both<Carried>);

#[derive(Debug)]
struct Track {
    /// In the last view.
    last: Reading,
    /// At the last sample.
    sampled: Reading,
    rates: Both<u64>,
    ring: VecDeque<Sample>,
}

impl Samples {
    /// Reads the counters of a view. Views come in order.
    pub(super) fn read(&mut self, lines: &Lines) {
        let at_ms = lines.view.taken_ms;
        let keep = lines.lines.len() <= MOST;
        let mut seen = HashMap::with_capacity(lines.lines.len());
        for line in &lines.lines {
            let Some(total) = lines.total(line) else { continue };
            let now = (at_ms, total);
            let mut track = self.tracks.remove(&line.key).unwrap_or_else(|| Track::begin(now));
            track.rates = rates(track.last, now);
            track.last = now;
            if keep && at_ms.saturating_sub(track.sampled.0) >= APART_MS {
                let used =
                    lines.newest(line).and_then(|(_, child)| nearest(&limits(child))).map(|nearest| nearest.used);
                track.sample(now, used);
            }
            seen.insert(line.key.clone(), track);
        }
        // A tunnel that comes back begins anew: so do its counters.
        self.tracks = seen;
    }

    /// Bits per second between the last two views.
    pub(super) fn rates(&self, key: &Key) -> Option<Both<u64>> {
        self.tracks.get(key).map(|track| track.rates)
    }

    /// Samples taken after a moment, oldest first.
    pub(super) fn after(&self, key: &Key, ms: u64) -> Vec<Sample> {
        let ring = self.tracks.get(key).map(|track| &track.ring);
        ring.into_iter().flatten().filter(|sample| sample.at_ms > ms).copied().collect()
    }

    /// Nobody looks at so many any more.
    pub(super) fn forget(&mut self) {
        self.tracks = HashMap::new();
    }
}

impl Track {
    fn begin(now: Reading) -> Self {
        Self { last: now, sampled: now, rates: Both::default(), ring: VecDeque::new() }
    }

    fn sample(&mut self, now: Reading, used: Option<f64>) {
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(Sample { at_ms: now.0, rates: rates(self.sampled, now), used });
        self.sampled = now;
    }
}

/// Counters that went back have begun anew: what they show is what came since.
fn rates((then_ms, then): Reading, (now_ms, now): Reading) -> Both<u64> {
    let ms = now_ms.saturating_sub(then_ms).max(1);
    let rate = |then: u64, now: u64| {
        let octets = if now >= then { now - then } else { now };
        u64::try_from(u128::from(octets) * 8_000 / u128::from(ms)).unwrap_or(u64::MAX)
    };
    Both {
        inbound: rate(then.inbound.bytes, now.inbound.bytes),
        outbound: rate(then.outbound.bytes, now.outbound.bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::page::fixture::{child, up, view};

    fn at(ms: u64, bytes_in: u64, bytes_out: u64) -> Lines {
        let mut sa = child("net", 7);
        (sa.total_in.bytes, sa.total_out.bytes) = (bytes_in, bytes_out);
        let mut view = view(vec![up("site", "net")], vec![("site", vec![sa])]);
        view.taken_ms = ms;
        Lines::of(Arc::new(view))
    }

    #[test]
    fn rates_are_bits_per_second_of_the_time_between() {
        let key = ("site".to_owned(), "net".to_owned());
        let mut samples = Samples::default();
        samples.read(&at(10_000, 1_000, 0));
        assert_eq!(samples.rates(&key), Some(Both { inbound: 0, outbound: 0 }));
        samples.read(&at(12_000, 2_000, 500));
        assert_eq!(samples.rates(&key), Some(Both { inbound: 4_000, outbound: 2_000 }));
        assert!(samples.after(&key, 0).is_empty(), "too soon for a sample");
        samples.read(&at(15_000, 3_500, 500));
        let [sample] = samples.after(&key, 0)[..] else { panic!() };
        assert_eq!((sample.at_ms, sample.rates), (15_000, Both { inbound: 4_000, outbound: 800 }));
        assert!(samples.after(&key, 15_000).is_empty());
        samples.read(&at(16_000, 100, 500));
        assert_eq!(samples.rates(&key).unwrap().inbound, 800, "counters that begin anew are no flood");
    }

    #[test]
    fn the_ring_is_bounded_and_ends_with_the_tunnel() {
        let key = ("site".to_owned(), "net".to_owned());
        let mut samples = Samples::default();
        for tick in 0..500 {
            samples.read(&at(tick * APART_MS, tick, tick));
        }
        let kept = samples.after(&key, 0);
        assert_eq!((kept.len(), kept[KEPT - 1].at_ms), (KEPT, 499 * APART_MS));
        samples.read(&Lines::of(Arc::new(view(vec![up("site", "net")], vec![]))));
        assert!(samples.after(&key, 0).is_empty() && samples.rates(&key).is_none());
    }
}
