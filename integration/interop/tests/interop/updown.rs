//! Scripts that are told of CHILD SAs: what charon tells the same script about the same life, and what becomes of scripts that do not behave.

mod alike;
mod trouble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lab::process::wait_until;
use libtest_mimic::Trial;

use crate::harness::SOON;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = alike::trials();
    trials.extend(trouble::trials());
    trials
}

/// A script that writes down what it is told.
struct Record {
    script: PathBuf,
    calls: PathBuf,
}

/// What it was told once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    /// The script's argument.
    argument: String,
    environment: BTreeMap<String, String>,
}

impl Call {
    fn value(&self, name: &str) -> &str {
        self.environment.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl Record {
    fn new(directory: &Path) -> Result<Self> {
        let (script, calls) = (directory.join("record"), directory.join("calls"));
        let text = format!("{{ echo \"= $1\"; env | grep -v ^PWD= | sort; echo .; }} >> {}\nexit 0\n", calls.display());
        std::fs::write(&script, text)?;
        Ok(Self { script, calls })
    }

    /// As a key of a child.
    fn option(&self, argument: &str) -> String {
        format!("updown = /bin/sh {} {argument}", self.script.display())
    }

    /// Calls that are complete.
    fn calls(&self) -> Vec<Call> {
        let text = std::fs::read_to_string(&self.calls).unwrap_or_default();
        let complete = text.split_inclusive("\n.\n").filter_map(|one| one.strip_suffix("\n.\n"));
        complete
            .map(|one| {
                let mut lines = one.lines();
                let argument = lines.next().and_then(|line| line.strip_prefix("= ")).unwrap_or_default();
                let pairs = lines.filter_map(|line| line.split_once('='));
                let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                Call { argument: argument.to_owned(), environment }
            })
            .collect()
    }

    /// Waits until it was called so often.
    fn wait_for(&self, count: usize, after: &str) -> Result<()> {
        wait_until(SOON, || self.calls().len() >= count);
        let calls = self.calls();
        ensure!(calls.len() == count, "{} calls instead of {count} after {after}: {:#?}", calls.len(), verbs(&calls));
        Ok(())
    }
}

/// Calls in short.
fn verbs(calls: &[Call]) -> Vec<String> {
    let names = ["PLUTO_VERB", "PLUTO_CONNECTION", "PLUTO_UNIQUEID", "PLUTO_MY_CLIENT", "PLUTO_MY_PROTOCOL"];
    calls.iter().map(|call| names.map(|name| call.value(name).to_owned()).join(" ") + " " + &call.argument).collect()
}
