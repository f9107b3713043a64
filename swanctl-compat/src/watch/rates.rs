//! What is carried per second, from counters at two moments.

use std::collections::BTreeMap;

use super::number;
use crate::vici::Message;

/// What is carried per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Octets received.
    pub bytes_in: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Octets sent.
    pub bytes_out: u64,
    /// Packets sent.
    pub packets_out: u64,
}

impl Rate {
    /// Octets both ways.
    pub(super) fn octets(self) -> u64 {
        self.bytes_in.saturating_add(self.bytes_out)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            bytes_in: join(self.bytes_in, other.bytes_in),
            packets_in: join(self.packets_in, other.packets_in),
            bytes_out: join(self.bytes_out, other.bytes_out),
            packets_out: join(self.packets_out, other.packets_out),
        }
    }
}

/// Sums of a CHILD SA and of its predecessors: with a rekeying the counters of an SA begin at nothing, and these go on.
#[derive(Clone, Copy, Debug)]
struct Total {
    generation: u64,
    sum: Rate,
}

/// Sums at the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    at_ms: Option<u64>,
    /// By `CONNECTION/CHILD` and the unique id of the CHILD SA.
    totals: BTreeMap<String, BTreeMap<u64, Total>>,
}

impl Counted {
    /// What each child has carried per second since the last look; nothing at the first look, and nothing where that cannot be known.
    pub(super) fn advance(
        &mut self,
        now: u64,
        below: &BTreeMap<String, Vec<&Message>>,
    ) -> BTreeMap<String, Option<Rate>> {
        let elapsed = self.at_ms.map(|before| now.saturating_sub(before)).filter(|elapsed| *elapsed > 0);
        let nothing = BTreeMap::new();
        let (mut rates, mut totals) = (BTreeMap::new(), BTreeMap::new());
        for (name, sas) in below {
            let known = self.totals.get(name).unwrap_or(&nothing);
            let rate = elapsed.and_then(|elapsed| {
                let mut carried = sas.iter().map(|sa| carried(sa, known, elapsed));
                let sum = carried.try_fold(Rate::default(), |sum, one| Some(sum.plus(one?)))?;
                Some(sum.with(Rate::default(), |count, _| per_second(count, elapsed)))
            });
            rates.insert(name.clone(), rate);
            totals.insert(
                name.clone(),
                sas.iter().filter_map(|sa| Some((number(sa, "uniqueid")?, total(sa)?))).collect(),
            );
        }
        *self = Self { at_ms: Some(now), totals };
        rates
    }
}

fn per_second(count: u64, elapsed_ms: u64) -> u64 {
    let rate = u128::from(count) * 1_000 / u128::from(elapsed_ms.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn total(sa: &Message) -> Option<Total> {
    let sum = Rate {
        bytes_in: number(sa, "bytes-total-in")?,
        packets_in: number(sa, "packets-total-in")?,
        bytes_out: number(sa, "bytes-total-out")?,
        packets_out: number(sa, "packets-total-out")?,
    };
    Some(Total { generation: number(sa, "generation").unwrap_or(0), sum })
}

/// What one CHILD SA has carried since the last look, with what its predecessors have: `None` where it is not known how much they had by then.
fn carried(sa: &Message, known: &BTreeMap<u64, Total>, elapsed_ms: u64) -> Option<Rate> {
    let now = total(sa)?;
    let since = |before: &Total| now.sum.with(before.sum, u64::saturating_sub);
    if let Some(before) = number(sa, "uniqueid").and_then(|id: u64| known.get(&id)) {
        return Some(since(before));
    }
    // Rekeyed since then, perhaps more than once: its chain is the one that had come nearest to it.
    if let Some(before) =
        known.values().filter(|before| before.generation < now.generation).max_by_key(|b| b.generation)
    {
        return Some(since(before));
    }
    // It was made since then: all of it was carried since then.
    let age = number::<u64>(sa, "install-time")?;
    (now.generation == 0 && age.saturating_mul(1_000) <= elapsed_ms).then_some(now.sum)
}
