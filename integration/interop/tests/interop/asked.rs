//! What `cygnet history` and `cygnet events` answer to who wants to know why a tunnel was down, and who was told; and who follows.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ike_model::Rfc3339;
use lab::busy;
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Pair, trial, with_pair};
use crate::life;

const CHILD: &str = "net4";
/// Where the webhook's receiver listens.
const RECEIVER: &str = "127.0.0.1:8080";

pub(crate) fn trials() -> Vec<Trial> {
    let hook = "[[webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:8080/hook\"\n\
                secret = \"whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rLTAx\"\nevents = [\"child-sa.closed\"]\n";
    let told = Cygnet { extra: hook.into(), log: String::new() };
    vec![
        trial("asked::why_was_it_down_and_who_was_told", move || {
            with_pair(&Middle::Direct, [&told, &Cygnet::default()], one_child, why_down)
        }),
        trial("asked::webhooks_change_while_the_daemon_runs", || {
            with_pair(&Middle::Direct, [&Cygnet::default(), &Cygnet::default()], one_child, change)
        }),
        trial("asked::who_follows_misses_nothing_over_restarts", || {
            with_pair(&Middle::Direct, [&Cygnet::default(), &Cygnet::default()], one_child, follows)
        }),
    ]
}

fn one_child(_: Side, mut tunnel: Tunnel) -> Tunnel {
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

fn initiate(daemon: &Daemon<'_>) -> Result<()> {
    daemon.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"]).map(drop)
}

fn text(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<String> {
    let output = daemon.cygnet(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// This moment, as the command line takes it.
fn now() -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Rfc3339(u64::try_from(now.as_millis())?).to_string())
}

fn why_down(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let received = receive(lab)?;
    let before = now()?;
    thread::sleep(Duration::from_millis(5));
    initiate(&pair.a)?;
    life::rekey_child(pair, Side::A, CHILD)?;
    thread::sleep(Duration::from_millis(5));
    let up = now()?;
    thread::sleep(Duration::from_millis(5));
    pair.b.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    life::settle("the webhook is told", || Ok(received.load(Ordering::Relaxed) == 1))?;
    let down = now()?;
    life::settle("the end and who was told of it are known", || {
        let view = text(&pair.a, &["history", "--at", &down, "--around", "1m"])?;
        let (head, events) = view.split_once("\nfrom ").context("no events")?;
        ensure!(head.contains("not up; what was last:") && !head.contains("\nup:"), "{view}");
        ensure!(head.contains("site/net4{") && head.contains("#1") && head.contains("peer-deleted: "), "{view}");
        let lines: Vec<&str> = events.lines().collect();
        let end = lines.iter().position(|line| line.contains("child-sa.closed")).context("no end")?;
        let told = lines.get(end + 1).context("nobody is told")?;
        ensure!(told.contains("told to ops at ") && told.contains("(1 attempt)"), "{view}");
        Ok(true)
    })?;
    let view = text(&pair.a, &["history", "--at", &up, "--child", CHILD])?;
    ensure!(view.contains("\nup:\n") && !view.contains("not up") && view.contains("IKE SAs:"), "{view}");
    let view = text(&pair.a, &["history", "--at", &before, "--around", "1s"])?;
    ensure!(view.contains("no child was up then, nor before"), "{view}");
    let view: Json = serde_json::from_str(&text(&pair.a, &["history", "--at", &down, "--around", "1m", "--json"])?)?;
    ensure!(view["up"].as_array().map(Vec::len) == Some(0) && view["down"][0]["cause"] == "peer-deleted", "{view:#}");
    let closed =
        view["events"].as_array().into_iter().flatten().find(|event| event["record"]["type"] == "child-sa.closed");
    let delivery = &closed.context("no end")?["deliveries"][0];
    ensure!(delivery["name"] == "ops" && delivery["state"] == "delivered", "{view:#}");
    pages(&pair.a)
}

/// Webhooks are added, changed and taken away by `--reload-settings` and SIGHUP; a file with a mistake changes nothing.
fn change(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    const HOOK: &str =
        "\n[[webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:8080/hook\"\nevents = [\"child-sa.installed\"]\n";
    const SECRET: &str = "secret = \"whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rLTAx\"\n";
    let received = receive(lab)?;
    let told = |count| life::settle("the webhook is told", || Ok(received.load(Ordering::Relaxed) == count));
    let file = pair.a.directory().join("cygnetd.toml");
    let before = std::fs::read_to_string(&file)?;
    let reload = |daemon: &Daemon<'_>, more: &str| {
        std::fs::write(&file, format!("{before}{more}"))?;
        daemon.swanctl(&["--reload-settings", "--raw"])
    };
    let answer = reload(&pair.a, &format!("{HOOK}{SECRET}"))?;
    ensure!(answer.contains("ops is served") && !answer.contains("restart-needed"), "{answer}");
    initiate(&pair.a)?;
    told(1)?;
    // Mistakes: in the file, and in one that it names.
    for (wrong, said) in
        [(HOOK.to_owned(), "[[webhook]] needs `secret`"), (format!("{HOOK}secret_file = \"/none\"\n"), "/none")]
    {
        let refused = reload(&pair.a, &wrong)?;
        ensure!(refused.contains("success=no") && refused.contains(said), "{refused}");
    }
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    initiate(&pair.a)?;
    told(2)?;
    // Other events, by a signal.
    std::fs::write(&file, format!("{before}{}{SECRET}", HOOK.replace("installed", "closed")))?;
    pair.a.process().signal(Signal::HUP)?;
    life::settle("other events are chosen", || Ok(pair.a.log().contains("webhook ops is told of other events")))?;
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    told(3)?;
    let answer = reload(&pair.a, "")?;
    ensure!(answer.contains("ops is served no more: nothing waits for it"), "{answer}");
    initiate(&pair.a)?;
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    let webhooks: Json = serde_json::from_str(&text(&pair.a, &["webhook", "--json"])?)?;
    ensure!(
        webhooks.as_array().is_some_and(Vec::is_empty),
        "nothing waits for a webhook that is there no more: {webhooks}"
    );
    told(3)
}

/// More rows than are given at once come page by page, each once.
fn pages(daemon: &Daemon<'_>) -> Result<()> {
    let all = text(daemon, &["events", "--json", "--limit", "0"])?;
    let count = all.lines().count();
    for limit in [1, 2, count - 1, count, count + 1] {
        let some = text(daemon, &["events", "--json", "--limit", &limit.to_string()])?;
        let newest: Vec<&str> = all.lines().skip(count.saturating_sub(limit)).collect();
        ensure!(some.lines().eq(newest.iter().copied()), "the newest {limit} of {count} are\n{some}");
    }
    Ok(())
}

/// A receiver that takes everything, and counts.
fn receive(lab: &Lab) -> Result<Arc<AtomicU32>> {
    let listener = lab.a.gateway.run(|| TcpListener::bind(RECEIVER))??;
    let count = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&count);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(match stream.try_clone() {
                Ok(stream) => stream,
                Err(_) => continue,
            });
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            if reader.read_exact(&mut vec![0; length]).is_ok()
                && stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").is_ok()
            {
                counting.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(count)
}

fn follows(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let path = pair.a.directory().join("followed");
    let mut command = Command::new(lab::peer::binary("cygnet")?);
    command.args(["--uri", &pair.a.uri(), "events", "--follow", "--json", "--since", "1h"]).stdin(Stdio::null());
    let said = std::fs::File::create(pair.a.directory().join("follower.log"))?;
    let mut follower = command.stdout(std::fs::File::create(&path)?).stderr(said).spawn().context("cygnet events")?;
    let outcome = follow_restarts(pair, &path);
    follower.kill()?;
    follower.wait()?;
    outcome
}

fn follow_restarts(pair: &mut Pair<'_>, path: &std::path::Path) -> Result<()> {
    initiate(&pair.a)?;
    life::rekey_child(pair, Side::A, CHILD)?;
    pair.a.process().kill()?;
    pair.a.restart()?;
    // At once, before anybody can have come back.
    initiate(&pair.a)?;
    life::rekey_child(pair, Side::A, CHILD)?;
    pair.a.process().terminate()?;
    thread::sleep(Duration::from_millis(600));
    pair.a.restart()?;
    initiate(&pair.a)?;
    life::rekey_child(pair, Side::B, CHILD)?;
    life::settle("everything was shown once and in order", || {
        let shown = std::fs::read_to_string(path)?;
        let ulid = |line: &str| Some(line.split_once("\"ulid\":\"")?.1.split_once('"')?.0.to_owned());
        let shown: Vec<String> = shown.lines().filter_map(ulid).collect();
        let kept: Vec<String> = busy::kept(&pair.a)?.into_values().collect();
        let first = shown.first().context("nothing was shown")?;
        let mut expected: Vec<String> = kept.into_iter().filter(|ulid| ulid >= first).collect();
        expected.sort_unstable();
        ensure!(shown == expected, "shown {} of {} events: {shown:?}\n{expected:?}", shown.len(), expected.len());
        Ok(shown.len() > 12)
    })
}
