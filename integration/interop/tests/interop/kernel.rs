//! Our daemon on the IPsec of this machine's kernel. Where that has no ESP, everything but the SAs themselves works, and says so; where it has
//! it, gateway A's tunnel is carried by it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::{Cygnet, CygnetOn};
use lab::topology::{FAMILIES, Family, Lab, Middle, Side};
use lab::traffic::{inject, ping};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

const KERNEL: CygnetOn = CygnetOn { backend: "kernel", extra: String::new(), log: String::new() };
const AUTO: CygnetOn = CygnetOn { backend: "auto", extra: String::new(), log: String::new() };
const PLAIN: Cygnet = Cygnet { extra: String::new(), log: String::new() };
/// Host A to host B.
const OUT: [&str; 2] = ["10.1.0.10", "10.2.0.10"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel::a_trap_asks_and_the_guard_holds", || trapped(a_trap_asks_and_the_guard_holds)),
        trial("kernel::what_is_missing_is_said_everywhere", || trapped(what_is_missing_is_said_everywhere)),
        trial("kernel::guards_outlive_a_killed_daemon", || trapped(guards_outlive_a_killed_daemon)),
        trial("kernel::why_looks_into_its_tables", || trapped(why_looks_into_its_tables)),
        trial("kernel::auto_takes_what_there_is", auto_takes_what_there_is),
    ]
}

/// Gateway A on the kernel, with traps; gateway B on our own datapath.
fn trapped(test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>) -> Result<()> {
    let configure = |side: Side, tunnel: Tunnel| {
        if side == Side::A { tunnel.with_child_option("start_action = trap") } else { tunnel }
    };
    with_pair(&Middle::Direct, [&KERNEL, &PLAIN], configure, test)
}

/// What this kernel lacks for ESP; nothing where it has it.
fn lacks(lab: &Lab) -> Result<Option<String>> {
    lab.a.gateway.run(offload_kernel::lacks)
}

fn pings(lab: &Lab, family: Family) -> Result<u16> {
    let (from, to) = (lab.a.host_address(family), lab.b.host_address(family));
    ping::ping(&lab.a.host, from, to, 3, Duration::from_millis(500))
}

fn a_trap_asks_and_the_guard_holds(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let lacking = lacks(lab)?;
    let capture = lab.capture()?;
    let policies = lab.a.gateway.ip(&["xfrm", "policy"])?;
    for piece in ["src 10.1.0.0/24 dst 10.2.0.0/24", "dir out", "action block", "proto esp reqid"] {
        ensure!(policies.contains(piece), "no '{piece}' in:\n{policies}");
    }
    let routes = lab.a.gateway.ip(&["route", "show", "table", "220"])?;
    ensure!(routes.contains("10.2.0.0/24 ") && routes.contains("src 10.1.0."), "table 220:\n{routes}");
    let answered = FAMILIES.map(|family| pings(lab, family)).into_iter().sum::<Result<u16>>()?;
    life::settle("the trap has had IKE begin", || {
        Ok(pair.b.log().contains("IKE_SA_INIT") || !pair.b.sas()?.is_empty())
    })?;
    match &lacking {
        None => ensure!(answered > 0, "the kernel has ESP, and nothing came through"),
        Some(_) => {
            ensure!(answered == 0, "{answered} echo requests answered without ESP");
            let failed = || Ok(pair.a.log().contains("CONFIG_INET_ESP"));
            life::settle("the SA was refused with what the kernel lacks", failed)?;
        }
    }
    for family in FAMILIES {
        let received = inject::forged_packets_received(
            lab.site(Side::B),
            lab.site(Side::A),
            family,
            5,
            Duration::from_millis(300),
        )?;
        ensure!(received == 0, "host A received {received} forged packets, {family:?}");
    }
    let [captured, _] = capture.finish()?;
    // What we forged crosses the link; anything beyond leaked.
    ensure!(captured.counts.clear == 10, "{}", captured.counts);
    Ok(())
}

/// Area, level and text.
type Row = (String, String, String);

fn checks(daemon: &Daemon<'_>) -> Result<(Option<i32>, Vec<Row>)> {
    let output = daemon.cygnet(&["doctor", "--json"])?;
    let json: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    let field = |check: &Value, key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = json.get("checks").and_then(Value::as_array).context("no checks")?;
    let row = |check: &Value| (field(check, "area"), field(check, "level"), field(check, "text"));
    Ok((output.status.code(), all.iter().map(row).collect()))
}

fn what_is_missing_is_said_everywhere(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let lacking = lacks(lab)?;
    let (code, all) = checks(&pair.a)?;
    let has = |area: &str, level: &str, piece: &str| {
        all.iter().any(|(a, l, text)| (a.as_str(), l.as_str()) == (area, level) && text.contains(piece))
    };
    ensure!(!all.iter().any(|(.., text)| text.contains("tunnel device")), "there is no tunnel device: {all:#?}");
    ensure!(has("host", "ok", "net.core.xfrm_larval_drop = 0"), "{all:#?}");
    ensure!(has("guard", "ok", "belongs to a connection"), "{all:#?}");
    let explained = pair.a.cygnet(&["explain", "site"])?;
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    for piece in ["send from inside the local selector", "table 220", "action block", "tmpl", "sport 500"] {
        ensure!(explained.contains(piece), "no '{piece}' in:\n{explained}");
    }
    ensure!(!explained.contains("tunnel device") && !explained.contains("userspace"), "{explained}");
    ensure!(has("device", "ok", "kernel is up: software"), "{all:#?}");
    let simulate = pair.a.cygnet(&["simulate", "device-down"])?;
    let said = String::from_utf8_lossy(&simulate.stderr).into_owned();
    ensure!(simulate.status.code() == Some(2) && said.contains("the kernel backend has real devices"), "{said}");
    let Some(lacks) = lacking else {
        ensure!(has("device", "ok", "the kernel has ESP") && code == Some(0), "{code:?}: {all:#?}");
        return Ok(());
    };
    ensure!(code == Some(2) && has("device", "error", &lacks), "{code:?}: {all:#?}");
    ensure!(pair.a.log().contains(&lacks), "not in the log: {lacks}");
    for piece in ["CONFIG_INET_ESP", "esp4", "backend.kind = \"userspace\""] {
        ensure!(lacks.contains(piece), "no {piece} in: {lacks}");
    }
    let refused = pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "5"]);
    let words = format!("{:#}", refused.err().context("a child came up without ESP")?);
    ensure!(words.contains("CONFIG_INET_ESP"), "{words}");
    let status = pair.a.cygnet(&["status"])?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(text.contains("CONFIG_INET_ESP"), "{text}");
    Ok(())
}

fn guards_outlive_a_killed_daemon(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let capture = lab.capture()?;
    pair.a.process().kill()?;
    FAMILIES.iter().try_for_each(|family| pings(lab, *family).map(drop))?;
    // Started again with another tunnel only: what the first one blocked stays blocked until somebody says otherwise.
    let mut other = Tunnel::between(lab, Side::A, Family::V4);
    other.children.truncate(1);
    other.children.iter_mut().for_each(|child| child.remote_ts = "10.9.0.0/16".into());
    pair.a.write_tunnels(&[other])?;
    pair.a.restart()?;
    FAMILIES.iter().try_for_each(|family| pings(lab, *family).map(drop))?;
    let guards = |more: &[&str]| -> Result<String> {
        let output = pair.a.cygnet(&[&["guards"], more].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = guards(&[])?;
    ensure!(listed.contains("10.2.0.0/24"), "not told of: {listed}");
    let [captured, _] = capture.finish()?;
    ensure!(captured.counts.clear == 0, "{}", captured.counts);
    guards(&["--drop-unclaimed"])?;
    ensure!(!guards(&[])?.contains("10.2.0.0/24"), "{}", guards(&[])?);
    let policies = lab.a.gateway.ip(&["xfrm", "policy"])?;
    ensure!(!policies.contains("dst 10.2.0.0/24"), "{policies}");
    Ok(())
}

fn why(daemon: &Daemon<'_>) -> Result<Value> {
    let output = daemon.cygnet(&["why", OUT[0], OUT[1], "--json"])?;
    serde_json::from_slice(&output.stdout).context("no JSON")
}

fn why_looks_into_its_tables(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let step = |answer: &Value, name: &str| -> Result<(String, String)> {
        let steps = answer.get("steps").and_then(Value::as_array).context("no steps")?;
        let of = |key: &str, step: &Value| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = steps.iter().find(|step| of("step", step) == name);
        let found = found.with_context(|| format!("no {name} in {answer:#}"))?;
        Ok((of("state", found), of("text", found)))
    };
    let (state, text) = step(&why(&pair.a)?, "kernel-policy")?;
    ensure!(state == "ok" && text.contains("src 10.1.0.0/24 dst 10.2.0.0/24"), "{state}: {text}");
    // Somebody takes the entry away: the guard is next, and it is put back.
    lab.a.gateway.ip(&["xfrm", "policy", "delete", "src", "10.1.0.0/24", "dst", "10.2.0.0/24", "dir", "out"])?;
    let (state, text) = step(&why(&pair.a)?, "kernel-policy")?;
    ensure!(
        (state == "broken" && text.contains("the guard takes the packet")) || state == "ok",
        "neither missed nor put back: {state}: {text}"
    );
    life::settle("the entry is back", || Ok(step(&why(&pair.a)?, "kernel-policy")?.0 == "ok"))
}

fn auto_takes_what_there_is() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&AUTO, &PLAIN],
        |_, tunnel| tunnel,
        |lab, pair| {
            let lacking = lacks(lab)?;
            let expected = if lacking.is_some() { "userspace" } else { "kernel" };
            let log = pair.a.log();
            let line =
                log.lines().find(|line| line.contains("backend.kind = \"auto\"")).context("nothing about auto")?;
            ensure!(line.contains(&format!("using the {expected} backend")), "{line}");
            ensure!(lacking.is_none_or(|lacks| line.contains(&lacks)), "{line}");
            life::establish(pair, Side::A)?;
            let shown = pair.a.swanctl(&["--list-sas", "--raw"])?;
            ensure!(shown.contains(&format!("backend={expected}")), "{shown}");
            let answered = ping::answers_within(
                &lab.a.host,
                lab.a.host_address(Family::V4),
                lab.b.host_address(Family::V4),
                SOON,
            )?;
            ensure!(answered, "no echo through the tunnel");
            Ok(())
        },
    )
}
