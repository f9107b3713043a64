//! Scripts that do not behave, a helper that is killed, many scripts at once, and ends of the daemon.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::life;
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::process::wait_until;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use super::Record;
use crate::harness::{Pair, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("updown::scripts_that_fail_are_told_and_hold_up_nothing", scripts_that_fail),
        trial("updown::a_helper_that_is_killed_is_replaced", a_killed_helper),
        trial("updown::two_hundred_children_keep_order_and_limit", two_hundred),
        trial("updown::a_hostile_identity_does_no_harm", a_hostile_identity),
    ]
}

/// Two of ours; the one in gateway A has children with these names and scripts, each for a host of its own.
fn with_scripts(
    extra: &str,
    ids: Option<[&str; 2]>,
    scripts: &dyn Fn(&Lab) -> Vec<(String, String)>,
    test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let scripts = scripts(&lab);
    let tunnel = |side: Side| {
        let mut tunnel = Tunnel::between(&lab, side, Family::V4);
        if let Some([a, b]) = ids {
            let [local, remote] = if side == Side::A { [a, b] } else { [b, a] };
            (tunnel.local_id, tunnel.remote_id) = (local.into(), remote.into());
        }
        let child = |(number, (name, script)): (usize, &(String, String))| {
            let here = format!("10.1.{number}.0/24");
            let there = format!("10.2.{number}.0/24");
            let [local_ts, remote_ts] = if side == Side::A { [here, there] } else { [there, here] };
            let options = if side == Side::A { vec![format!("updown = {script}")] } else { Vec::new() };
            Child { name: name.clone(), local_ts, remote_ts, esp_proposals: "aes128gcm16".into(), options }
        };
        tunnel.children = scripts.iter().enumerate().map(child).collect();
        tunnel
    };
    let ours = Cygnet { extra: extra.into(), log: "info,cygnetd=debug".into() };
    let mut pair = Pair::start(&lab, [&ours, &Cygnet::default()], tunnel)?;
    pair.check(|pair| test(&lab, pair))
}

fn initiate(pair: &Pair<'_>, child: &str) -> Result<Duration> {
    let begun = Instant::now();
    pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
    Ok(begun.elapsed())
}

fn is_logged(pair: &Pair<'_>, words: &str) -> Result<()> {
    ensure!(wait_until(SOON, || pair.a.log().contains(words)), "the log does not say `{words}`");
    Ok(())
}

fn up(pair: &Pair<'_>, children: &[&str]) -> Result<()> {
    pair.a.wait_for("the children are up", SOON, |sas| matches!(sas, [sa] if sa.carries(children)))?;
    Ok(())
}

const UNRULY: [(&str, &str, &str); 6] = [
    ("status", "echo to stdout; echo to stderr >&2; exit 3", "it ended with status 3"),
    ("hangs", "trap '' TERM; sleep 60 & wait", "it took longer than 2 s and was killed"),
    ("floods", "while true; do echo flood; done", "more lines are left out"),
    ("absent", "/nonexistent/script", "it ended with status 127"),
    ("dies", "kill -9 $$", "it was killed by signal 9"),
    ("leaves", "sleep 60 & echo left something", "left something"),
];

fn scripts_that_fail() -> Result<()> {
    let scripts = |_: &Lab| UNRULY.map(|(name, script, _)| (name.to_owned(), format!("\"{script}\""))).to_vec();
    // Long enough for a script that only ends, on a busy machine.
    with_scripts("[updown]\ntime_limit = \"2s\"\n", None, &scripts, |_, pair| {
        let mut children = Vec::new();
        for (name, _, _) in UNRULY {
            let took = initiate(pair, name)?;
            ensure!(took < Duration::from_secs(15), "initiating {name} took {took:?}");
            children.push(name);
        }
        for (_, _, words) in UNRULY {
            is_logged(pair, words)?;
        }
        is_logged(pair, "updown: to stderr")?;
        up(pair, &children)?;
        life::rekey_ike_with(pair, Side::A, &children)?;
        failures_are_shown(pair)?;
        pair.a.swanctl(&["--terminate", "--ike", "site"])?;
        let begun = Instant::now();
        pair.a.process().terminate()?;
        ensure!(begun.elapsed() < Duration::from_secs(20), "it stopped after {:?}", begun.elapsed());
        is_logged(pair, "failed for down-client: updown script, down-client: it ended with status 3")
    })
}

fn failures_are_shown(pair: &Pair<'_>) -> Result<()> {
    let shown = |arguments: &[&str]| -> Result<String> {
        let output = pair.a.cygnet(arguments)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let status = shown(&["status"])?;
    for words in ["site/status", "up-client: it ended with status 3", "up-client: it took longer than 2 s"] {
        ensure!(status.contains(words), "cygnet status does not say `{words}`: {status}");
    }
    let of_events = || shown(&["events", "--json"]).unwrap_or_default();
    for words in [r#""status":3"#, r#""status":127"#, r#""verb":"up-client""#, r#""kind":"script-failed""#] {
        let told = |event: &str| event.contains(r#""type":"updown.failed""#) && event.contains(words);
        ensure!(wait_until(SOON, || of_events().lines().any(told)), "no event with {words}: {}", of_events());
    }
    Ok(())
}

/// The helper of the daemon in gateway A.
fn helper(pair: &mut Pair<'_>) -> Result<Pid> {
    let daemon = pair.a.process().id();
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{daemon}/task"))? {
        let list = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw));
    }
    match children[..] {
        [helper] => Ok(helper),
        _ => bail!("the daemon has the children {children:?}"),
    }
}

fn is_running(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

fn a_killed_helper() -> Result<()> {
    let scripts = |lab: &Lab| {
        // Until it is let go.
        let slow = format!(
            "\"until test -e {}; do sleep 0.1; done; echo $PLUTO_VERB >> {}\"",
            lab.directory().join("go").display(),
            lab.directory().join("slow").display()
        );
        let quick = format!("\"echo $PLUTO_VERB $PLUTO_CONNECTION >> {}\"", lab.directory().join("quick").display());
        vec![("slow".to_owned(), slow), ("quick".to_owned(), quick)]
    };
    with_scripts("", None, &scripts, |lab, pair| {
        let quick = || std::fs::read_to_string(lab.directory().join("quick")).unwrap_or_default();
        let first = helper(pair)?;
        let name = std::fs::read_to_string(format!("/proc/{}/comm", first.as_raw_nonzero()))?;
        ensure!(name.trim() == "cygnetd-updown", "it is called {name}");
        let environment = std::fs::read(format!("/proc/{}/environ", first.as_raw_nonzero()))?;
        ensure!(environment.is_empty(), "it has an environment");
        // What is meant for the daemon is not for it.
        kill_process(first, Signal::TERM)?;
        initiate(pair, "slow")?;
        is_logged(pair, "running the updown script")?;
        initiate(pair, "quick")?;
        ensure!(is_running(first) && quick().is_empty(), "the second script does not wait for the first");
        kill_process(first, Signal::KILL)?;
        is_logged(pair, "the helper that runs updown scripts is gone")?;
        is_logged(pair, "the helper was lost while it ran")?;
        ensure!(wait_until(SOON, || quick() == "up-client quick\n"), "what waited is not run: {}", quick());
        up(pair, &["slow", "quick"])?;
        let second = helper(pair)?;
        ensure!(second != first, "the same process");
        // A script that runs while the daemon dies may end in its own time, and then the helper goes too.
        pair.a.swanctl(&["--terminate", "--child", "slow"])?;
        let slow = || std::fs::read_to_string(lab.directory().join("slow")).unwrap_or_default();
        ensure!(wait_until(SOON, || pair.a.log().matches("running the updown script").count() >= 3), "no third script");
        pair.a.process().kill()?;
        ensure!(slow().is_empty(), "a script has gone on by itself: {}", slow());
        std::fs::write(lab.directory().join("go"), "")?;
        ensure!(wait_until(SOON, || slow().contains("down-client")), "the script was cut off");
        ensure!(wait_until(SOON, || !is_running(second)), "the helper lives on");
        Ok(())
    })
}

/// Connections of children each.
const MANY: (usize, usize) = (10, 20);

fn two_hundred() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let record = lab.directory().join("calls");
    let line =
        |when: &str| format!("echo {when} $PLUTO_VERB $CYGNET_CONNECTION $PLUTO_CONNECTION >> {}", record.display());
    let script = format!("\"{}; sleep 0.02; {}\"", line("begin"), line("end"));
    let tunnels = |side: Side| -> Vec<Tunnel> {
        (0..MANY.0)
            .map(|number| {
                let mut tunnel = Tunnel::between(&lab, side, Family::V4);
                tunnel.name = format!("c{number}");
                let ids = [Side::A, Side::B].map(|end| format!("gw-{}-{number}.example", end.letter()));
                [tunnel.local_id, tunnel.remote_id] =
                    if side == Side::A { ids } else { [ids[1].clone(), ids[0].clone()] };
                let child = |index: usize| {
                    let nets = [format!("10.1.{number}.{index}/32"), format!("10.2.{number}.{index}/32")];
                    let [local_ts, remote_ts] = if side == Side::A { nets } else { [nets[1].clone(), nets[0].clone()] };
                    let told = [format!("updown = {script}"), "start_action = start".into()];
                    let options = if side == Side::A { told.to_vec() } else { Vec::new() };
                    let name = format!("n{number}-{index}");
                    Child { name, local_ts, remote_ts, esp_proposals: "aes128gcm16".into(), options }
                };
                tunnel.children = (0..MANY.1).map(child).collect();
                tunnel
            })
            .collect()
    };
    let limited = Cygnet { extra: "[updown]\nat_once = 4\n".into(), log: String::new() };
    let start = |peer: &Cygnet, side: Side| {
        let directory = lab.directory().join(side.letter());
        lab::peer::Daemon::start(peer, &lab.site(side).gateway, &directory, &tunnels(side))
    };
    let mut pair = Pair { b: start(&Cygnet::default(), Side::B)?, a: start(&limited, Side::A)? };
    pair.check(|pair| {
        let lines = || std::fs::read_to_string(&record).unwrap_or_default();
        let all = MANY.0 * MANY.1;
        let patience = SOON * 3;
        ensure!(wait_until(patience, || lines().lines().count() == 2 * all), "{} lines", lines().lines().count());
        pair.a.process().terminate()?;
        ensure!(lines().lines().count() == 4 * all, "{} lines at the end", lines().lines().count());
        in_order(&lines())
    })
}

/// Never more than four at once, never two of one peer, every beginning before its end and every `up` before its `down`.
fn in_order(lines: &str) -> Result<()> {
    let (mut running, mut up): (Vec<(&str, &str)>, Vec<&str>) = Default::default();
    let mut most = 0;
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [when, verb, connection, child] = words[..] else { bail!("no line: {line}") };
        if when == "end" {
            let at = running.iter().position(|one| *one == (connection, child)).context("an end without beginning")?;
            running.remove(at);
            continue;
        }
        ensure!(running.iter().all(|(busy, _)| *busy != connection), "{line}: another one of its peer runs");
        running.push((connection, child));
        most = most.max(running.len());
        match verb {
            "up-client" => up.push(child),
            _ => ensure!(up.contains(&child), "{line}: it was never up"),
        }
    }
    ensure!(most <= 4 && most > 1 && running.is_empty(), "{most} at once, {running:?} at the end");
    Ok(())
}

/// Where a careless script would leave a file.
fn harmed(lab: &Lab) -> PathBuf {
    lab.directory().join("harmed")
}

fn a_hostile_identity() -> Result<()> {
    let scripts = |lab: &Lab| {
        let record = Record::new(lab.directory());
        let script = record.map(|record| record.script.display().to_string()).unwrap_or_default();
        // As no script should be written.
        let careless = format!("cd {}; eval \\\"/bin/sh {script} $PLUTO_PEER_ID\\\"", lab.directory().display());
        vec![("net".to_owned(), format!("\"{careless}\""))]
    };
    let hostile = "\"x;touch harmed;$(touch harmed)`touch harmed`&touch harmed|touch harmed\"";
    with_scripts("", Some(["moon.example", hostile]), &scripts, |lab, pair| {
        initiate(pair, "net")?;
        let record = Record { script: PathBuf::new(), calls: lab.directory().join("calls") };
        record.wait_for(1, "initiating")?;
        let calls = record.calls();
        let call = calls.first().context("no call")?;
        let identity = "x_touch harmed___touch harmed__touch harmed__touch harmed_touch harmed";
        ensure!(call.value("PLUTO_PEER_ID") == identity, "{call:#?}");
        ensure!(call.value("CYGNET_PEER_ID_HEX").starts_with("783b746f756368"), "{call:#?}");
        ensure!(!harmed(lab).exists(), "the identity was taken for a command");
        Ok(())
    })
}
