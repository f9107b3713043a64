//! Limits that make a CHILD SA be rekeyed about once a second, from what it carries.
//!
//! Both ends get the same numbers and draw their own limit below them (`rand_*`), so that most of the time one of them is first and now and
//! then both ask within one trip. Hard limits are far away: they are not what is looked at here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::peer::Daemon;
use lab::peer::sas::ChildSa;

/// The soft limit before its jitter, in seconds of traffic. With [`JITTER`] and the rekeying itself this makes 0.9 s between two rekeys.
const SOFT: f64 = 1.05;
/// What is taken off at most. Both ends are within one trip of the path, 20 ms, in one of eight cases.
const JITTER: f64 = 0.3;
/// The hard limit, in seconds of traffic.
const HARD: f64 = 60.0;

/// What makes both ends rekey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum By {
    /// Packet limits
    Packets,
    /// Octet limits
    Bytes,
    /// Time limits
    Time,
    /// `swanctl --rekey`
    Command,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Packets => "packets",
            By::Bytes => "bytes",
            By::Time => "time",
            By::Command => "command",
        })
    }
}

impl By {
    /// Options of each child.
    pub(super) fn options(self, children: &[&str], counters: &Counters) -> Result<Vec<Vec<String>>> {
        children
            .iter()
            .map(|child| Ok(self.keys(counters.rate(child).context("a child that carries nothing")?)))
            .collect()
    }

    fn keys(self, carried: Carried) -> Vec<String> {
        let volume = |unit: &str, rate: f64| {
            let key = |key: &str, seconds: f64| format!("{key}_{unit} = {:.0}", seconds * rate);
            vec![key("rekey", SOFT), key("rand", JITTER), key("life", HARD), "rekey_time = 0".into()]
        };
        match self {
            By::Packets => volume("packets", carried.packets),
            By::Bytes => volume("bytes", carried.bytes),
            // A second is the least there is, and is not divided.
            By::Time => vec!["rekey_time = 1s".into(), "rand_time = 0s".into(), format!("life_time = {HARD:.0}s")],
            By::Command => Vec::new(),
        }
    }
}

/// What a CHILD SA carries, in its busier direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Carried {
    packets: f64,
    bytes: f64,
}

/// Counters of the installed CHILD SAs of a daemon, by name.
#[derive(Debug)]
pub(super) struct Counters {
    seconds: f64,
    at: Instant,
    /// Packets in and out, octets in and out.
    by_child: BTreeMap<String, [u64; 4]>,
}

impl Counters {
    pub(super) fn read(daemon: &Daemon<'_>) -> Result<Self> {
        let sas = daemon.sas_at_once()?;
        let installed = sas.iter().flat_map(|sa| &sa.children).filter(|child| child.state == "INSTALLED");
        let counters = |child: &ChildSa| [child.packets_in, child.packets_out, child.bytes_in, child.bytes_out];
        let by_child = installed.map(|child| (child.name.clone(), counters(child))).collect();
        Ok(Counters { seconds: 0.0, at: Instant::now(), by_child })
    }

    /// What came since an earlier look, over the time between.
    pub(super) fn since(mut self, earlier: &Counters) -> Self {
        self.seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        for (name, counters) in &mut self.by_child {
            for (now, before) in counters.iter_mut().zip(earlier.by_child.get(name).copied().unwrap_or_default()) {
                *now = now.saturating_sub(before);
            }
        }
        self
    }

    /// What a child carries in a second, unless it is nothing.
    fn rate(&self, child: &str) -> Option<Carried> {
        let [packets_in, packets_out, bytes_in, bytes_out] = *self.by_child.get(child)?;
        let busier = |one: u64, other: u64| one.max(other) as f64 / self.seconds;
        let carried = Carried { packets: busier(packets_in, packets_out), bytes: busier(bytes_in, bytes_out) };
        (carried.packets >= 1.0).then_some(carried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_what_the_busier_direction_carries() {
        let at = Instant::now();
        let counters =
            |seconds, numbers: [u64; 4]| Counters { seconds, at, by_child: [("net4".into(), numbers)].into() };
        let begin = counters(0.0, [100, 100, 1_000, 1_000]);
        let mut end = counters(0.0, [2_100, 1_100, 501_000, 1_001_000]).since(&begin);
        end.seconds = 2.0;
        assert_eq!(end.rate("net4"), Some(Carried { packets: 1_000.0, bytes: 500_000.0 }));
        assert_eq!(end.rate("net6"), None);
        let of = |by: By| by.options(&["net4"], &end).unwrap().concat();
        assert_eq!(
            of(By::Packets),
            ["rekey_packets = 1050", "rand_packets = 300", "life_packets = 60000", "rekey_time = 0"]
        );
        assert_eq!(
            of(By::Bytes),
            ["rekey_bytes = 525000", "rand_bytes = 150000", "life_bytes = 30000000", "rekey_time = 0"]
        );
        assert_eq!(of(By::Time), ["rekey_time = 1s", "rand_time = 0s", "life_time = 60s"]);
        assert!(By::Packets.options(&["net6"], &end).is_err());
    }
}
