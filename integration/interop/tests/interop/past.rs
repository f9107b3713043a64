//! The history against what charon knows: every generation of a CHILD SA is in it once, with charon's SPIs and the packets that were sent; `kill -9`
//! loses none, and no key ever gets there.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::charon::TalkativeCharon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::process::wait_until;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };
const CHILD: &str = "net4";
/// Rekeys in a test.
const REKEYS: u16 = 4;
/// Packets each way in each generation.
const PINGS: u16 = 3;

/// What a test does with the tunnel.
type Story = fn(&Lab, &mut Pair<'_>) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let stories: [(&str, Story); 2] = [
        ("generations_and_totals_are_those_of_charon", adds_up),
        ("kill_9_in_a_storm_of_rekeys_loses_nothing", survives),
    ];
    let run = |story: Story| move || with_pair(&Middle::Direct, [&CYGNET, &TalkativeCharon], one_child, story);
    stories.into_iter().map(|(name, story)| trial(format!("past::{name}"), run(story))).collect()
}

fn one_child(_: Side, mut tunnel: Tunnel) -> Tunnel {
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

/// A pair of SPIs: ours, the peer's.
type Spis = (String, String);

fn adds_up(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let follower = follow(&pair.a)?;
    pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    let mut known = vec![at_charon(pair)?];
    ping_all(lab)?;
    for rekey in 0..REKEYS {
        life::rekey_child(pair, if rekey % 2 == 0 { Side::A } else { Side::B }, CHILD)?;
        known.push(at_charon(pair)?);
        ping_all(lab)?;
    }
    known.reverse();
    let expected = u64::from(PINGS) * u64::from(REKEYS + 1);
    // What the data path has counted may be told a moment later.
    life::settle("the history has all generations and their packets", || {
        let history = history(&pair.a, &[])?;
        let totals = &history["totals"][0];
        let packets = ["packets-in", "packets-out"].map(|key| totals[key].as_u64());
        ensure!(spis(&history) == known, "charon knew {known:?}, the history has {history:#}");
        ensure!(packets == [Some(expected); 2], "{expected} packets went each way, the history has {totals:#}");
        Ok(totals["generations"] == u64::from(REKEYS) + 1 && totals["up"] == true)
    })?;
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    life::settle("the end is in the history", || {
        let history = history(&pair.a, &["--child", CHILD, "--since", "1h"])?;
        let cause = |at: usize| history["generations"][at]["cause"].as_str().map(str::to_owned);
        ensure!(spis(&history) == known, "{history:#}");
        Ok(cause(0).as_deref() == Some("operator") && cause(1).as_deref() == Some("rekeyed"))
    })?;
    as_text(&pair.a)?;
    let outside = history(&pair.a, &["--until", "1h"])?;
    ensure!(spis(&outside).is_empty(), "an hour ago: {outside:#}");
    followed(&pair.a, follower)?;
    no_key_is_kept(pair)
}

fn survives(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    const ROUNDS: u64 = 3;
    for round in 0..ROUNDS {
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
        ping_all(lab)?;
        for _ in 0..4 {
            life::rekey_child(pair, Side::A, CHILD)?;
        }
        pair.a.swanctl(&["--rekey", "--child", CHILD])?;
        // The moment differs, from before the exchange has begun to after it has ended.
        thread::sleep(Duration::from_millis(round * 15));
        pair.a.process().kill()?;
        pair.a.restart()?;
    }
    life::settle("all of them are in the history, once", || {
        let history = history(&pair.a, &["--limit", "0"])?;
        let rows = spis(&history);
        let kept: BTreeSet<Spis> = rows.iter().cloned().collect();
        ensure!(kept.len() == rows.len(), "some twice: {history:#}");
        let told = told_by_charon(&pair.b.log());
        let invented: Vec<_> = kept.difference(&told).collect();
        ensure!(invented.is_empty(), "charon does not know {invented:?}");
        // Charon has its side of the last exchange before our end when it answers; whether the answer came in time nobody knows.
        let missing: Vec<_> = told.difference(&kept).collect();
        let sure = usize::try_from(5 * ROUNDS)?;
        ensure!(rows.len() >= sure && missing.len() as u64 <= ROUNDS, "missing: {missing:?} in {history:#}");
        let generations = history["generations"].as_array().context("no list")?;
        let died = generations.iter().filter(|row| row["cause"] == "daemon-died").count();
        Ok(died as u64 == ROUNDS && generations.iter().all(|row| row["removed"].is_u64()))
    })?;
    one_event_each(&pair.a)
}

/// What people see, and what they are shown when there is nothing.
fn as_text(daemon: &Daemon<'_>) -> Result<()> {
    let text = |arguments: &[&str]| -> Result<String> {
        Ok(String::from_utf8_lossy(&daemon.cygnet(arguments)?.stdout).into_owned())
    };
    let past = text(&["history"])?;
    let lines: Vec<&str> = past.lines().collect();
    let tables = lines.iter().filter(|line| line.starts_with("CHILD ") || line.starts_with("INSTALLED ")).count();
    ensure!(lines.len() == 11 && tables == 2 && past.starts_with("times are "), "{past}");
    ensure!(past.contains("site/net4  down   5 ") && !past.contains('\x1b'), "{past}");
    let ikes = text(&["history", "--ike-sas", "--color", "always"])?;
    ensure!(ikes.lines().count() == 4 && ikes.contains("gw-b.example") && ikes.contains("operator: "), "{ikes}");
    ensure!(ikes.contains("\x1b[1mESTABLISHED"), "{ikes}");
    let events = text(&["events", "--event", "child-sa.c*", "--connection", "site", "--cause", "operator"])?;
    ensure!(events.lines().count() == 1 && events.contains("site/net4 {"), "{events}");
    let wrong = daemon.cygnet(&["history", "--since", "soon"])?;
    let said = String::from_utf8_lossy(&wrong.stderr);
    ensure!(wrong.status.code() == Some(2) && said.contains("'soon' is no moment"), "{} {said}", wrong.status);
    let nothing = text(&["history", "--child", "elsewhere"])?;
    ensure!(nothing == "nothing of that is in the history\n", "{nothing}");
    Ok(())
}

/// In the past that `cygnet events` tells, the events of each run are numbered without a gap, and none comes twice.
fn one_event_each(daemon: &Daemon<'_>) -> Result<()> {
    let output = daemon.cygnet(&["events", "--json", "--limit", "0"])?;
    let mut seen = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record: Json = serde_json::from_str(line)?;
        let number = record["seq"].as_u64().context("no number")?;
        ensure!(seen.insert((record["boot_id"].as_str().map(str::to_owned), number)), "twice: {line}");
    }
    let runs: BTreeSet<_> = seen.iter().map(|(run, _)| run.clone()).collect();
    ensure!(runs.len() == 4, "{} runs have told something", runs.len());
    for run in runs {
        let numbers: Vec<u64> = seen.iter().filter(|(of, _)| *of == run).map(|(_, number)| *number).collect();
        ensure!(numbers.iter().copied().eq(1..=numbers.len() as u64), "a gap in {numbers:?} of {run:?}");
    }
    Ok(())
}

fn ping_all(lab: &Lab) -> Result<()> {
    let (from, to) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    let answered = ping::ping(&lab.a.host, from, to, PINGS, ping::PATIENCE)?;
    ensure!(answered == PINGS, "{answered} of {PINGS} pings came back");
    Ok(())
}

fn history(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<Json> {
    let output = daemon.cygnet(&[&["history", "--json"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{} {text} {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// The SPIs of all generations, the newest first.
fn spis(history: &Json) -> Vec<Spis> {
    let text = |row: &Json, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = history["generations"].as_array().into_iter().flatten();
    rows.map(|row| (text(row, "spi-in"), text(row, "spi-out"))).collect()
}

/// The SPIs that charon has installed, from our side.
fn at_charon(pair: &Pair<'_>) -> Result<Spis> {
    let sa = life::installed(pair, Side::B, CHILD)?;
    Ok((sa.spi_out, sa.spi_in))
}

/// Every pair of SPIs that charon has logged, from our side. Of a rekey, charon logs both directions apart and then together.
fn told_by_charon(log: &str) -> BTreeSet<Spis> {
    let pair = |line: &str| {
        let (_, rest) = line.split_once("established with SPIs ")?;
        let mut words = rest.split(' ');
        let inbound = words.next()?.strip_suffix("_i")?.to_owned();
        Some((words.next()?.strip_suffix("_o")?.to_owned(), inbound))
    };
    log.lines().filter_map(pair).collect()
}

/// `cygnet events --follow`, writing into a file.
fn follow(daemon: &Daemon<'_>) -> Result<Child> {
    let out = std::fs::File::create(daemon.directory().join("followed"))?;
    let mut command = Command::new(lab::peer::binary("cygnet")?);
    // From a moment before it begins, so that it misses nothing however slowly it does.
    let what = ["events", "--follow", "--json", "--type", "child-sa.rekeyed", "--since", "1h"];
    command.args(["--uri", &daemon.uri()]).args(what);
    command.stdin(Stdio::null()).stdout(out).spawn().context("cygnet events")
}

fn followed(daemon: &Daemon<'_>, mut follower: Child) -> Result<()> {
    let text = || std::fs::read_to_string(daemon.directory().join("followed")).unwrap_or_default();
    wait_until(SOON, || text().lines().count() >= usize::from(REKEYS));
    follower.kill()?;
    follower.wait()?;
    let text = text();
    let events = text.lines().count();
    ensure!(events == usize::from(REKEYS), "{events} events of {REKEYS} rekeys were followed:\n{text}");
    Ok(())
}

/// Neither the keys that charon has logged nor the pre-shared key are in any file of the history.
fn no_key_is_kept(pair: &Pair<'_>) -> Result<()> {
    let mut needles: Vec<Vec<u8>> = keys(&pair.b.log());
    ensure!(needles.len() > usize::from(REKEYS) * 2, "charon has logged {} keys only", needles.len());
    needles.push(secret(&pair.a)?);
    let mut kept = Vec::new();
    collect(&pair.a.directory().join("history"), &mut kept)?;
    ensure!(kept.len() > 10_000, "the history takes {} octets only", kept.len());
    let holds = |needle: &[u8]| kept.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
    for needle in &needles {
        let hex: String = needle.iter().map(|octet| format!("{octet:02x}")).collect();
        let numbers = needle.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        for form in [needle.as_slice(), hex.as_bytes(), numbers.as_bytes()] {
            ensure!(!holds(form), "a key is in the history: {hex}");
        }
    }
    Ok(())
}

/// The first 16 octets of each key in charon's log.
fn keys(log: &str) -> Vec<Vec<u8>> {
    let dump = |line: &str| {
        let (_, octets) = line.split_once("[CHD]    0: ")?;
        let octets =
            octets.split(' ').map_while(|octet| u8::from_str_radix(octet, 16).ok()).take(16).collect::<Vec<_>>();
        (octets.len() == 16).then_some(octets)
    };
    log.lines().filter_map(dump).collect()
}

fn secret(daemon: &Daemon<'_>) -> Result<Vec<u8>> {
    let text = std::fs::read_to_string(daemon.directory().join("swanctl/swanctl.conf"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("secret =")).context("no secret")?;
    Ok(line.trim().trim_matches('"').as_bytes().to_vec())
}

fn collect(directory: &Path, into: &mut Vec<u8>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.extend(std::fs::read(&path)?);
        }
    }
    Ok(())
}
