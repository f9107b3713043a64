//! Webhooks of a real daemon at the receiver that the documentation shows, which verifies signatures by somebody else's library.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::cygnet::Cygnet;
use lab::process::Process;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, trial, with_pair};
use crate::life;
use crate::python::interpreter;

const DOCUMENT: &str = include_str!("../../../../plugins/webhook/README.md");
const SECRETS: [&str; 2] = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
const CHILD: &str = "net4";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("webhook::the_documented_receiver_gets_every_event", every_event)]
}

/// The example of the documentation, as it stands there.
fn example() -> Result<&'static str> {
    let after = DOCUMENT.split_once("```python\n").context("no example")?.1;
    Ok(after.split_once("```").context("an example without end")?.0)
}

/// The receiver in the daemon's own gateway; it knows one secret.
struct Receiver {
    process: Process,
}

impl Receiver {
    fn start(lab: &Lab, log: &Path, secret: &str) -> Result<Self> {
        let environment = [("SECRET", Path::new(secret))];
        let arguments = ["-c", example()?];
        Ok(Self { process: Process::start(&lab.a.gateway, &interpreter()?, &arguments, &environment, log)? })
    }

    /// Identity and type of everything that it has verified.
    fn got(log: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let message = |line: &str| {
            let mut words = line.split(' ');
            let id = words.next().filter(|id| id.len() == 26)?.to_owned();
            Some((id, words.next()?.to_owned()))
        };
        text.lines().filter_map(message).collect()
    }
}

fn every_event() -> Result<()> {
    let extra = format!(
        "[[webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:8080/\"\nsecrets = [\"{}\", \"{}\"]\nlongest_pause = \"1s\"\n",
        SECRETS[0], SECRETS[1]
    );
    let ours = Cygnet { extra, log: String::new() };
    let other = Cygnet::default();
    let one_child = |_: Side, mut tunnel: lab::peer::conf::Tunnel| {
        tunnel.children.retain(|child| child.name == CHILD);
        tunnel
    };
    with_pair(&Middle::Direct, [&ours, &other], one_child, |lab, pair| {
        lab.a.gateway.ip(&["link", "set", "lo", "up"])?;
        let log = pair.a.directory().join("receiver.log");
        nobody_is_there(pair)?;
        let mut receiver = Receiver::start(lab, &log, SECRETS[0])?;
        everything_arrives(&pair.a, &log)?;
        ensure!(webhook(&pair.a, &["test", "ops"])?.status.success(), "a test does not arrive");
        life::settle("the test arrives", || Ok(Receiver::got(&log).iter().any(|(_, kind)| kind == "webhook.test")))?;
        killed_in_between(pair, &log)?;
        receiver.process.terminate()?;
        given_up_and_again(lab, pair, &log)
    })
}

/// What happens without a receiver waits, and is said.
fn nobody_is_there(pair: &mut Pair<'_>) -> Result<()> {
    pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    for side in [Side::A, Side::B] {
        life::rekey_child(pair, side, CHILD)?;
    }
    life::settle("the webhook is known to be down", || {
        let output = webhook(&pair.a, &["--json"])?;
        let listed: Json = serde_json::from_slice(&output.stdout)?;
        let waiting = listed[0]["waiting"].as_u64();
        Ok(listed[0]["state"] == "down" && waiting >= Some(5) && output.status.code() == Some(3))
    })?;
    let output = webhook(&pair.a, &["test", "ops"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1) && text.contains("failed at tcp"), "{text}");
    let shown = format!("{}{}", text, String::from_utf8_lossy(&webhook(&pair.a, &[])?.stdout));
    ensure!(!SECRETS.iter().any(|secret| shown.contains(secret) || pair.a.log().contains(secret)), "a secret is shown");
    Ok(())
}

/// Every event that the history knows, and in order.
fn everything_arrives(daemon: &Daemon<'_>, log: &Path) -> Result<()> {
    let mut last = String::new();
    let done = life::settle("every event arrives", || {
        let got: BTreeSet<String> = Receiver::got(log).into_iter().map(|(id, _)| id).collect();
        let missing: Vec<_> = events(daemon)?.into_iter().filter(|id| !got.contains(id)).collect();
        last = format!("{missing:?}");
        Ok(missing.is_empty())
    });
    done.with_context(|| {
        format!("missing: {last}; the receiver:\n{}", std::fs::read_to_string(log).unwrap_or_default())
    })
}

fn killed_in_between(pair: &mut Pair<'_>, log: &Path) -> Result<()> {
    let mut in_order = Vec::new();
    for (id, kind) in Receiver::got(log) {
        if kind != "webhook.test" {
            in_order.push(id);
        }
    }
    ensure!(in_order.is_sorted(), "out of order: {in_order:?}");
    for round in 0..3 {
        life::rekey_child(pair, Side::A, CHILD)?;
        pair.a.swanctl(&["--rekey", "--child", CHILD])?;
        thread::sleep(Duration::from_millis(round * 10));
        pair.a.process().kill()?;
        pair.a.restart()?;
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    }
    everything_arrives(&pair.a, log)
}

/// What was given up is delivered again, and verified by a receiver that knows the other secret only.
fn given_up_and_again(lab: &Lab, pair: &mut Pair<'_>, log: &Path) -> Result<()> {
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    life::settle("the end waits", || Ok(!deliveries(&pair.a, "waiting")?.is_empty()))?;
    // What else belongs to the end may come after the first of it.
    life::settle("all of it is given up", || {
        ensure!(webhook(&pair.a, &["drop", "ops"])?.status.success(), "cannot be given up");
        Ok(deliveries(&pair.a, "waiting")?.is_empty())
    })?;
    let dead = deliveries(&pair.a, "dead")?;
    ensure!(!dead.is_empty(), "none is dead");
    let mut receiver = Receiver::start(lab, log, SECRETS[1])?;
    ensure!(webhook(&pair.a, &["redeliver", "ops"])?.status.success(), "cannot be redelivered");
    everything_arrives(&pair.a, log)?;
    let one = dead.first().context("none is dead")?;
    let times = || Receiver::got(log).iter().filter(|(id, _)| id == one).count();
    let before = times();
    ensure!(webhook(&pair.a, &["redeliver", "--event", one])?.status.success(), "cannot be redelivered");
    life::settle("it arrives once more", || Ok(times() == before + 1))?;
    ensure!(webhook(&pair.a, &[])?.status.success(), "all is well, but not for `cygnet webhook`");
    receiver.process.terminate().map(drop)
}

fn webhook(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<Output> {
    daemon.cygnet(&[&["webhook"], arguments].concat())
}

/// Identities of all events in the history.
fn events(daemon: &Daemon<'_>) -> Result<Vec<String>> {
    let output = daemon.cygnet(&["events", "--json", "--limit", "0"])?;
    let id = |line: &str| -> Result<String> {
        let record: Json = serde_json::from_str(line)?;
        Ok(record["ulid"].as_str().context("no ULID")?.to_owned())
    };
    let events: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(id).collect::<Result<_>>()?;
    ensure!(events.len() >= 5, "{} events only", events.len());
    Ok(events)
}

/// Events whose delivery is in this state.
fn deliveries(daemon: &Daemon<'_>, state: &str) -> Result<Vec<String>> {
    let output = webhook(daemon, &["deliveries", "ops", "--state", state, "--json"])?;
    let listed: Vec<Json> = serde_json::from_slice(&output.stdout)?;
    Ok(listed.iter().filter_map(|one| Some(one["event"].as_str()?.to_owned())).collect())
}
