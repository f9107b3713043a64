//! Counts of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::requests::Purpose;

/// What was sent and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Datagrams changed outside of any encryption.
    pub raw: u64,
    /// Messages changed below SK that went in fragments first.
    pub fragmented: u64,
    /// Messages changed below SK, and IKE_SA_INIT requests changed in what they say, by what they were before.
    pub sent: BTreeMap<Purpose, u64>,
    /// Those of them that the daemon has answered, authentically: a handler had them.
    pub reached: BTreeMap<Purpose, u64>,
    /// Those that changed the daemon's state: it agreed.
    pub agreed: BTreeMap<Purpose, u64>,
    /// IKE SAs established.
    pub established: u64,
    /// IKE SAs that ended by a mutation.
    pub ended: u64,
    /// Mutated messages without an answer.
    pub silent: u64,
    /// Attempts at an IKE SA that came to nothing.
    pub failed: u64,
}

impl Tally {
    /// Mutated messages in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.raw + self.sent.values().sum::<u64>()
    }

    /// Those changed below SK.
    #[must_use]
    pub fn below_sk(&self) -> u64 {
        self.sent.iter().filter(|(purpose, _)| **purpose != Purpose::Init).map(|(_, count)| count).sum()
    }

    /// The fewest messages that reached any handler behind IKE_AUTH, and the handler.
    #[must_use]
    pub fn least_reached(&self) -> Option<(Purpose, u64)> {
        let asked = Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Answer);
        asked.map(|purpose| (purpose, self.reached.get(&purpose).copied().unwrap_or(0))).min_by_key(|(_, count)| *count)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.raw += other.raw;
        self.fragmented += other.fragmented;
        for (to, from) in
            [(&mut self.sent, &other.sent), (&mut self.reached, &other.reached), (&mut self.agreed, &other.agreed)]
        {
            for (purpose, count) in from {
                *to.entry(*purpose).or_default() += count;
            }
        }
        self.established += other.established;
        self.ended += other.ended;
        self.silent += other.silent;
        self.failed += other.failed;
    }

    /// A table: one line per handler.
    #[must_use]
    pub fn table(&self) -> String {
        let of = |map: &BTreeMap<Purpose, u64>, purpose| map.get(&purpose).copied().unwrap_or(0);
        let percent = |count: u64| 100.0 * count as f64 / self.total().max(1) as f64;
        let mut text = format!("{:<34} {:>9} {:>9} {:>7} {:>9}\n", "handler", "sent", "reached", "share", "agreed");
        for purpose in Purpose::ALL {
            let (sent, reached, agreed) =
                (of(&self.sent, purpose), of(&self.reached, purpose), of(&self.agreed, purpose));
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{:<34} {sent:>9} {reached:>9} {:>6.2}% {agreed:>9}", purpose.name(), percent(reached));
        }
        let _ = write!(
            text,
            "datagrams mutated outside of SK: {}; below SK: {} ({:.1} %), {} of them in fragments; IKE SAs established {}, ended by a mutation {}, no answer {}, refused {}",
            self.raw,
            self.below_sk(),
            percent(self.below_sk()),
            self.fragmented,
            self.established,
            self.ended,
            self.silent,
            self.failed
        );
        text
    }
}
