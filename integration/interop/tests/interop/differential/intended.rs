//! What may differ, and why. A row that nothing needs any more fails the test, and so does a difference without a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::compare::{Difference, Kind};
use super::listing;

/// What kind of difference a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Missing,
    Extra,
    Value,
    Order,
}

/// A version of charon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Debian 12's.
    V5_9_8,
    /// Debian 13's.
    V6_0_1,
}

/// One kind of difference that is meant.
pub(super) struct Intended {
    /// The version that answers otherwise; none stands for both.
    pub(super) only: Option<Version>,
    /// The command: words with `*` for any text.
    pub(super) step: &'static str,
    /// The place, likewise.
    pub(super) path: &'static str,
    pub(super) way: Way,
    pub(super) reason: &'static str,
}

const fn row(step: &'static str, path: &'static str, way: Way, reason: &'static str) -> Intended {
    Intended { only: None, step, path, way, reason }
}

/// The same where 5.9.8 alone answers otherwise.
const fn old(step: &'static str, path: &'static str, way: Way, reason: &'static str) -> Intended {
    Intended { only: Some(Version::V5_9_8), step, path, way, reason }
}

/// The same where 6.0.1 alone does.
const fn new(step: &'static str, path: &'static str, way: Way, reason: &'static str) -> Intended {
    Intended { only: Some(Version::V6_0_1), step, path, way, reason }
}

const FLOATING: &str = "a soft limit is the hard one divided by 1.1; charon loses one in a floating point number";

/// A text that stands for any place where both versions lack what later ones have.
const LATER: &str = "strongSwan says this since a version after 6.0.1";
const READ_BACK: &str = "everything that is loaded can be read back; clients skip keys that they do not know";
const NO_KEYS: &str =
    "certificates and private keys are not supported, which the answer says instead of looking into them";
const OWN: &str = "it is another daemon with other parts";

pub(super) const INTENDED: &[Intended] = &[
    row("load-conn*", "answer/errpath", Way::Extra, "the place of the mistake, for clients that show it in the file"),
    row("load-conn*", "answer/errhelp", Way::Extra, "what to do about it"),
    row("list-conns", "list-conn/*/local_port", Way::Extra, LATER),
    row("list-conns", "list-conn/*/remote_port", Way::Extra, LATER),
    row("list-conns", "list-conn/*/version", Way::Value, "there is no IKEv1: `version = 0` means IKEv2 alone"),
    row("list-conns", "list-conn/*/remote-1/id", Way::Missing, "`%any` and no identity at all are the same here"),
    row(
        "list-conns",
        "list-conn/a/remote-1/id",
        Way::Value,
        "an address behind `ipv4:` is one; charon takes its text for the octets of one",
    ),
    old(
        "list-conns",
        "list-conn/a/children/c/rekey_bytes",
        Way::Value,
        "a soft limit follows from `life_bytes` alone, as in strongSwan 6.0",
    ),
    new("list-conns", "list-conn/a/children/c/rekey_time", Way::Value, FLOATING),
    new("list-conns", "list-conn/a/children/c/rekey_bytes", Way::Value, FLOATING),
    row("list-conns", "list-conn/*/proposals", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/mobike", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/encap", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/fragmentation", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/childless", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/dscp", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/keyingtries", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/over_time", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/rand_time", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/esp_proposals", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/life_*", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/rand_*", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/start_action", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/hw_offload", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/replay_window", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/reqid", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/updown", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/hostaccess", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/policies", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/inactivity", Way::Extra, READ_BACK),
    row("list-conns", "list-conn/*/children/*/copy_*", Way::Extra, READ_BACK),
    row(
        "get-shared",
        "answer/keys",
        Way::Value,
        "secrets are listed as they were loaded, not as they fall into a hash table",
    ),
    row("sequence", "*", Way::Order, "what is gone from the files is unloaded in the order of that listing"),
    row("list-policies of all kinds", "*", Way::Order, "policies are listed in the order of the files"),
    row("get-conns", "answer/refused", Way::Extra, "connections that are listed as refused, until they are unloaded"),
    row("version", "answer/daemon", Way::Value, OWN),
    row("version", "answer/version", Way::Value, OWN),
    row("stats", "answer/uptime/*", Way::Value, OWN),
    row("stats", "answer/workers/*", Way::Value, OWN),
    row("stats", "answer/mallinfo/*", Way::Value, OWN),
    row("stats", "answer/plugins", Way::Value, OWN),
    row("get-algorithms", "answer/*/*", Way::Missing, OWN),
    row("get-algorithms", "answer/*/*", Way::Value, OWN),
    new("get-algorithms", "answer/ke/*", Way::Order, OWN),
    old("get-algorithms", "answer/dh", Way::Missing, "key exchanges are called `ke` since strongSwan 6.0"),
    old("get-algorithms", "answer/ke", Way::Extra, "key exchanges are called `ke` since strongSwan 6.0"),
    row("load-cert unreadable", "answer/errmsg", Way::Value, NO_KEYS),
    row("load-key unreadable", "answer/errmsg", Way::Value, NO_KEYS),
];

impl Intended {
    fn covers(&self, difference: &Difference) -> bool {
        let way = match difference.kind {
            Kind::Missing(_) => Way::Missing,
            Kind::Extra(_) => Way::Extra,
            Kind::Value(..) => Way::Value,
            Kind::Order(..) => Way::Order,
        };
        self.way == way && fits(self.step, &difference.step) && fits(self.path, &difference.path)
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).filter_map(|at| rest.get(at..)).any(|rest| fits(tail, rest))),
    }
}

/// What a configuration that only we refuse makes differ: the answer, and what follows from there being one connection less.
pub(super) fn is_about_refusal(difference: &Difference) -> bool {
    difference.step.starts_with("load-") || difference.step == "sequence"
}

/// What may differ between two tunnels.
pub(super) const TUNNEL: &[Intended] = &[
    row("*", "*/backend", Way::Extra, TOLD),
    row("*", "*/generation", Way::Extra, TOLD),
    row("*", "*-total-in", Way::Extra, TOLD),
    row("*", "*-total-out", Way::Extra, TOLD),
    row("*", "*/rekey-bytes", Way::Extra, TOLD),
    row("*", "*/life-bytes", Way::Extra, TOLD),
    row("*", "*/rekey-packets", Way::Extra, TOLD),
    row("*", "*/life-packets", Way::Extra, TOLD),
    row("*", "*/hw-offload", Way::Extra, TOLD),
    new(
        "events",
        "*/child-sas/net4/old/state",
        Way::Value,
        "the old CHILD SA has been replaced when this is told, as 5.9.8 has it",
    ),
    row(
        "events",
        "*",
        Way::Order,
        "CHILD SAs are told to be down before their IKE SA, each with its own cause; charon tells first of the IKE SA, whose CHILD SAs are still \
         installed then",
    ),
    row(
        "events",
        "*/tasks-active",
        Way::Missing,
        "an event is told once its exchange is over; charon's task is still there then",
    ),
];

/// What may differ about commands on SAs.
pub(super) const LIVE: &[Intended] = &[
    old("initiate an ike that is up", "answer/errmsg", Way::Missing, AT_ONCE),
    old("initiate an ike that is up", "answer/success", Way::Value, AT_ONCE),
    row("initiate *", "answer/errmsg", Way::Value, "the words of charon, and behind them why"),
    row("terminate a number that is none", "answer/errmsg", Way::Value, "what is no number is said to be none"),
    row("redirect without a place to go", "answer/errmsg", Way::Value, "an empty value is the same as none"),
    row("rekey it while it is on its way", "answer/errmsg", Way::Extra, NOT_UP),
    row("rekey it while it is on its way", "answer/success", Way::Value, NOT_UP),
    row("rekey it while it is on its way", "answer/matches", Way::Value, NOT_UP),
    row("flush-certs of no type", "answer/errmsg", Way::Missing, NO_CACHE),
    row("flush-certs of no type", "answer/success", Way::Value, NO_CACHE),
    row(
        "get-shared",
        "answer/keys",
        Way::Value,
        "secrets are listed as they were loaded, and those with an empty id not at all",
    ),
    row("unload-shared of an empty id", "answer/errmsg", Way::Extra, NO_ID),
    row("unload-shared of an empty id", "answer/success", Way::Value, NO_ID),
    row(
        "initiate a child that was changed",
        "afterwards/there is",
        Way::Value,
        "the CHILD SA as it is configured now takes the place of the one from before",
    ),
    row(
        "load-conn without a start action",
        "afterwards/there is",
        Way::Value,
        "the CHILD SA that was started is closed, its IKE SA stays for the next one",
    ),
];

const AT_ONCE: &str = "what is up is up at once, as in 6.0.1; 5.9.8 waits for it until the timeout";
const NOT_UP: &str = "only an IKE SA that is up can be rekeyed";
const NO_CACHE: &str = "there is no cache of certificates, of whatever type";
const NO_ID: &str = "an empty id is none";

const TOLD: &str = "what the data path really does, and sums over all rekeys; clients skip keys that they do not know";

/// Holds differences against a table.
pub(super) struct Judge {
    table: &'static [Intended],
    version: Version,
    unexpected: Vec<(String, Difference)>,
    /// Cases that show each row.
    shown: BTreeMap<usize, BTreeSet<String>>,
    refusals: BTreeMap<String, String>,
}

impl Judge {
    pub(super) fn of(table: &'static [Intended], version: Version) -> Self {
        Self { table, version, unexpected: Vec::new(), shown: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    pub(super) fn take(&mut self, case: &str, differences: &[Difference]) {
        for difference in differences {
            match self.table.iter().position(|row| self.concerns(row) && row.covers(difference)) {
                Some(row) => {
                    self.shown.entry(row).or_default().insert(case.to_owned());
                }
                None => self.unexpected.push((case.to_owned(), difference.clone())),
            }
        }
    }

    fn concerns(&self, row: &Intended) -> bool {
        row.only.is_none_or(|only| only == self.version)
    }

    pub(super) fn note_refusal(&mut self, case: &str, errmsg: &str) {
        self.refusals.insert(case.to_owned(), errmsg.to_owned());
    }

    /// Every difference has its row, and every row its difference.
    pub(super) fn finish(&self) -> Result<()> {
        ensure!(
            self.unexpected.is_empty(),
            "{} differences that nobody intended:\n{}",
            self.unexpected.len(),
            listing(&self.unexpected)
        );
        let idle: Vec<String> = self
            .table
            .iter()
            .enumerate()
            // Figures may be equal by chance.
            .filter(|(number, row)| self.concerns(row) && row.step != "stats" && !self.shown.contains_key(number))
            .map(|(_, row)| format!("{} {}", row.step, row.path))
            .collect();
        ensure!(idle.is_empty(), "rows that nothing needs any more:\n  {}", idle.join("\n  "));
        Ok(())
    }

    /// The same, and the document says so.
    pub(super) fn verdict(&self, cases: usize) -> Result<()> {
        ensure!(cases >= 40, "only {cases} configurations");
        self.finish()?;
        let document = self.document(cases);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/DIFFERENCES.md");
        if std::env::var_os("UPDATE_DIFFERENCES").is_some() {
            std::fs::write(path, &document)?;
        }
        ensure!(
            std::fs::read_to_string(path).unwrap_or_default() == document,
            "DIFFERENCES.md is not what was found; run this test with UPDATE_DIFFERENCES=1"
        );
        Ok(())
    }

    fn document(&self, cases: usize) -> String {
        let mut text = format!(
            "# Where Cygnet answers otherwise than charon\n\nGenerated by the test `differential::configurations_and_commands`, which loads {cases} \
             configurations with Debian's\n`swanctl` into charon 5.9.8 or 6.0.1 and into Cygnet, gives both the same commands, and compares what they answer key by key,\n\
             order included. Everything that differs is here; `*` stands for any text.\n\n| Command | Key | Difference | Why |\n|---|---|---|---|\n"
        );
        for row in INTENDED.iter().chain(LIVE).chain(TUNNEL) {
            let way = match row.way {
                Way::Missing => "charon alone says it",
                Way::Extra => "Cygnet alone says it",
                Way::Value => "another value",
                Way::Order => "another order",
            };
            let of = match row.only {
                None => "",
                Some(Version::V5_9_8) => " (5.9.8)",
                Some(Version::V6_0_1) => " (6.0.1)",
            };
            let place = row.path.strip_prefix("answer/").unwrap_or(row.path);
            let _ = writeln!(text, "| {} | `{place}` | {way}{of} | {} |", row.step.replace('*', "\\*"), row.reason);
        }
        text.push_str("\n## What charon takes and Cygnet refuses\n\n| Configuration | Answer |\n|---|---|\n");
        for (case, errmsg) in &self.refusals {
            let _ = writeln!(text, "| {case} | {} |", errmsg.replace('|', "\\|"));
        }
        text
    }
}
