//! The live view of `cygnet status --watch`, without a terminal and without a clock: what two looks at a daemon say together, and how that is shown.
//!
//! A look is what `cygnet-status` and `list-sas` answer ([`Look`]). [`View`] joins them by child and finds from two looks what was carried in
//! between. It is shown as a screen ([`Screen`]), as lines for a pipe ([`lines`]) or as JSON ([`json`]).

mod cells;
mod rates;
mod screen;
mod written;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

pub use cells::{cut, width};
pub use rates::Rate;
pub use screen::{Frame, Screen, Shade};
pub use written::{json, lines, unreachable_json, unreachable_line};

use self::rates::Counted;
use crate::vici::Message;

/// What a daemon has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// `cygnet-child` events of `cygnet-status`.
    pub children: Vec<Message>,
    /// `list-sa` events of `list-sas`.
    pub ike_sas: Vec<Message>,
    /// When, in milliseconds of a clock that never goes back.
    pub at_ms: u64,
    /// The wall clock then, in seconds since the epoch.
    pub wall: u64,
}

/// A configured child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `CONNECTION/CHILD`.
    pub name: String,
    /// `up connecting trapped shunt retry down refused`.
    pub state: String,
    /// Seconds until the next attempt, in state `retry`.
    pub retry_in: Option<u64>,
    /// CHILD SAs that carry traffic.
    pub sas: usize,
    /// What it carries now; unknown at the first look and where counters began anew.
    pub rate: Option<Rate>,
    /// Until the next rekeying.
    pub left: Left,
    /// Offload really in use and where: `no`, `packet eth0`.
    pub mode: String,
    /// What went wrong last, and seconds since then.
    pub trouble: Option<(String, Option<u64>)>,
}

/// What is left until the next rekeying; what has no limit is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Seconds; negative when it is overdue.
    pub seconds: Option<i64>,
    /// Octets of the direction that has fewer left.
    pub bytes: Option<u64>,
    /// Packets of the direction that has fewer left.
    pub packets: Option<u64>,
}

/// In which order children stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// Those that carry most first.
    Throughput,
    /// Those in trouble first.
    State,
}

impl Sort {
    /// The name of the option.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Throughput => "throughput",
            Self::State => "state",
        }
    }

    /// The next one, by a key.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Name => Self::Throughput,
            Self::Throughput => Self::State,
            Self::State => Self::Name,
        }
    }
}

/// Which children are shown, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The order.
    pub sort: Sort,
    /// Only those that are not up.
    pub down: bool,
}

/// All children as they are, and how they were at the last look.
#[derive(Clone, Debug, Default)]
pub struct View {
    rows: Vec<Row>,
    counted: Counted,
    wall: u64,
}

impl View {
    /// Takes in another look.
    pub fn look(&mut self, look: &Look) {
        let below = by_child(&look.ike_sas);
        let rates = self.counted.advance(look.at_ms, &below);
        let rows = look.children.iter().filter_map(|event| event.sections().next());
        self.rows = rows
            .map(|(name, child)| {
                let sas: &[&Message] = below.get(name).map_or(&[], Vec::as_slice);
                row(name, child, sas, rates.get(name).copied().flatten(), look.wall)
            })
            .collect();
        self.wall = look.wall;
    }

    /// The daemon has gone: what it counts begins anew.
    pub fn forget(&mut self) {
        self.counted = Counted::default();
        for row in &mut self.rows {
            row.rate = None;
        }
    }

    /// The wall clock at the last look.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.wall
    }

    /// All children.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The children that are shown, in their order.
    #[must_use]
    pub fn chosen(&self, choice: Choice) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| !choice.down || !row.is_up()).collect();
        match choice.sort {
            Sort::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Throughput => rows.sort_by_key(|row| (Reverse(row.rate.map_or(0, Rate::octets)), &row.name)),
            Sort::State => rows.sort_by_key(|row| (row.rank(), &row.name)),
        }
        rows
    }

    /// What all of them carry together, as far as it is known.
    #[must_use]
    pub fn sum(&self) -> Rate {
        self.rows.iter().filter_map(|row| row.rate).fold(Rate::default(), Rate::plus)
    }

    /// How many children are in each state, those in trouble first.
    #[must_use]
    pub fn states(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<(u8, &str), usize> = BTreeMap::new();
        for row in &self.rows {
            *counts.entry((row.rank(), &row.state)).or_default() += 1;
        }
        counts.into_iter().map(|((_, state), count)| (state.to_owned(), count)).collect()
    }
}

impl Row {
    /// It carries traffic, or would as soon as there is any.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// What is in trouble comes first.
    fn rank(&self) -> u8 {
        match self.state.as_str() {
            "refused" => 0,
            "retry" => 1,
            "down" => 2,
            "connecting" => 3,
            "trapped" => 5,
            "shunt" => 6,
            "up" => 7,
            _ => 4,
        }
    }
}

/// CHILD SAs that are in use, by `CONNECTION/CHILD`.
fn by_child(ike_sas: &[Message]) -> BTreeMap<String, Vec<&Message>> {
    let mut below: BTreeMap<String, Vec<&Message>> = BTreeMap::new();
    for (connection, ike) in ike_sas.iter().filter_map(|event| event.sections().next()) {
        let Some(children) = ike.get_section("child-sas") else { continue };
        for (_, child) in children.sections().filter(|(_, child)| in_use(child)) {
            if let Some(name) = child.get_str("name") {
                below.entry(format!("{connection}/{name}")).or_default().push(child);
            }
        }
    }
    below
}

/// A CHILD SA that was replaced only lingers: what it still carries is in the sums of its successor.
fn in_use(child: &Message) -> bool {
    matches!(child.get_str("state"), Some("INSTALLED" | "REKEYING" | "UPDATING"))
}

fn number<T: std::str::FromStr>(message: &Message, key: &str) -> Option<T> {
    message.get_str(key).and_then(|text| text.parse().ok())
}

fn row(name: &str, child: &Message, sas: &[&Message], rate: Option<Rate>, wall: u64) -> Row {
    let state = child.get_str("state").unwrap_or("?").to_owned();
    Row {
        name: name.to_owned(),
        retry_in: number(child, "retry-in"),
        sas: sas.len(),
        rate: if sas.is_empty() { None } else { rate },
        left: left(sas),
        mode: mode(child),
        trouble: trouble(child, wall),
        state,
    }
}

fn mode(child: &Message) -> String {
    let Some(mode) = child.get_str("hw-offload") else { return String::new() };
    let simulated = if child.is_yes("simulated") { " (simulated)" } else { "" };
    match child.get_str("offload-dev") {
        Some(device) => format!("{mode} {device}{simulated}"),
        None => mode.to_owned(),
    }
}

fn trouble(child: &Message, wall: u64) -> Option<(String, Option<u64>)> {
    if let Some(reason) = child.get_str("reason") {
        return Some((reason.to_owned(), None));
    }
    let cause = child.get_section("last-cause")?;
    let age = number(cause, "time").map(|time: u64| wall.saturating_sub(time));
    Some((cause.get_str("text").unwrap_or_default().to_owned(), age))
}

/// What is left of the CHILD SA that will be rekeyed first.
fn left(sas: &[&Message]) -> Left {
    let least = |limit: &str, inbound: &str, outbound: &str| {
        let of = |sa: &&&Message| {
            let most = number::<u64>(sa, inbound).max(number(sa, outbound)).unwrap_or(0);
            number::<u64>(sa, limit).map(|limit| limit.saturating_sub(most))
        };
        sas.iter().filter_map(|sa| of(&sa)).min()
    };
    Left {
        seconds: sas.iter().filter_map(|sa| number(sa, "rekey-time")).min(),
        bytes: least("rekey-bytes", "bytes-in", "bytes-out"),
        packets: least("rekey-packets", "packets-in", "packets-out"),
    }
}
