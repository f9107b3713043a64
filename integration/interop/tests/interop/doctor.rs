//! `cygnet doctor`: a sound gateway has no doubts, and what is wrong with one is found and says what to do.

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, peers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("doctor::finds_what_is_wrong", || {
            with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, finds_what_is_wrong)
        }),
        trial("doctor::holds_children_against_devices", holds_children_against_devices),
    ]
}

/// Exit code and what was said.
fn doctor(daemon: &Daemon<'_>) -> Result<(Option<i32>, Value, String)> {
    let output = daemon.cygnet(&["doctor", "--json"])?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {errors}"))?;
    let text = daemon.cygnet(&["doctor"])?;
    ensure!(text.status.code() == output.status.code(), "text and JSON end differently");
    Ok((output.status.code(), json, String::from_utf8_lossy(&text.stdout).into_owned()))
}

fn is_sound(daemon: &Daemon<'_>) -> Result<()> {
    let (code, _, text) = doctor(daemon)?;
    ensure!(code == Some(0) && text.ends_with("0 errors, 0 warnings\n"), "{code:?}:\n{text}");
    Ok(())
}

/// One doubt, of this level, with these words.
fn says(daemon: &Daemon<'_>, code: i32, area: &str, words: &str) -> Result<()> {
    let (ended, json, text) = doctor(daemon)?;
    ensure!(ended == Some(code), "ends with {ended:?}:\n{text}");
    let level = if code == 1 { "warning" } else { "error" };
    let field = |check: &Value, key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let checks = json.get("checks").and_then(Value::as_array).context("no checks")?;
    let found = checks.iter().any(|check| {
        (field(check, "area"), field(check, "level")) == (area.into(), level.into())
            && field(check, "text").contains(words)
            && !field(check, "fix").is_empty()
    });
    ensure!(found, "no {level} about {area} with '{words}':\n{text}");
    Ok(())
}

fn finds_what_is_wrong(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let gateway = &lab.a.gateway;
    let ip = |line: &str| gateway.ip(&line.split_whitespace().collect::<Vec<_>>()).map(drop);
    life::establish(pair, Side::A)?;
    is_sound(&pair.a)?;
    gateway.sysctl("net/ipv4/ip_forward", "0")?;
    says(&pair.a, 1, "host", "IPv4 is not forwarded")?;
    gateway.sysctl("net/ipv4/ip_forward", "1")?;
    ip("rule add to 10.9.0.0/16 lookup 99 priority 220")?;
    says(&pair.a, 2, "route", "at our priority 220")?;
    ip("rule del to 10.9.0.0/16 lookup 99 priority 220")?;
    ip("rule add lookup 99 priority 50")?;
    says(&pair.a, 1, "route", "before ours leads everything elsewhere")?;
    ip("rule del lookup 99 priority 50")?;
    ip("xfrm policy add src 10.7.0.0/16 dst 10.8.0.0/16 dir out action block priority 7")?;
    says(&pair.a, 1, "guard", "not ours: src 10.7.0.0/16 dst 10.8.0.0/16 dir out")?;
    ip("xfrm policy del src 10.7.0.0/16 dst 10.8.0.0/16 dir out")?;
    is_sound(&pair.a)?;
    let mut wrong = Tunnel::between(lab, Side::A, Family::V4);
    wrong.name = "wrong".into();
    wrong.children.iter_mut().for_each(|child| child.options.push("hw_offload = packet".into()));
    pair.a.write_tunnels(&[Tunnel::between(lab, Side::A, Family::V4), wrong])?;
    ensure!(pair.a.load().is_err(), "offload without a device was loaded");
    says(&pair.a, 2, "file", "hw_offload")?;
    // Killed, and started again with another connection: the guard of the first one stands.
    pair.a.process().kill()?;
    let mut other = Tunnel::between(lab, Side::A, Family::V4);
    other.children.truncate(1);
    other.children.iter_mut().for_each(|child| child.remote_ts = "10.9.0.0/16".into());
    pair.a.write_tunnels(&[other])?;
    pair.a.restart()?;
    says(&pair.a, 1, "guard", "no loaded connection claims")?;
    let orphans = Daemon::cygnet(&pair.a, &["--uri", "unix:///nonexistent", "doctor"]);
    ensure!(orphans?.status.code() == Some(2), "nobody listens, and it does not end with 2");
    Ok(())
}

fn holds_children_against_devices() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let extra = "[backend.userspace]\nsimulate_packet_device = true\n[backend.userspace.limits]\nesn = false\n";
    let cygnet = Cygnet { extra: extra.into(), log: String::new() };
    let mut pair = Pair::start(&lab, [&cygnet, &cygnet], |side| {
        let mut tunnel = Tunnel::between(&lab, side, Family::V4).with_child_option("hw_offload = auto");
        for child in tunnel.children.iter_mut().take(1) {
            child.esp_proposals = "aes128gcm16-x25519-esn".into();
        }
        tunnel
    })?;
    pair.check(|pair| {
        let (code, json, text) = doctor(&pair.a)?;
        ensure!(code == Some(1), "ends with {code:?}:\n{text}");
        let devices = json.get("devices").and_then(Value::as_array).context("no devices")?;
        let rung = |mode: &str| devices.iter().find(|rung| rung.get("mode").and_then(Value::as_str) == Some(mode));
        let packet = rung("packet").with_context(|| format!("no packet rung:\n{text}"))?;
        ensure!(packet.get("esn") == Some(&Value::Bool(false)) && packet.get("simulated").is_some(), "{packet:#}");
        ensure!(rung("software").and_then(|rung| rung.get("esn")) == Some(&Value::Bool(true)), "{json:#}");
        ensure!(text.contains("packet (simulated)"), "{text}");
        says(&pair.a, 1, "child", "site/net4 (hw_offload = auto) runs in software")?;
        ensure!(text.contains("site/net6 (hw_offload = auto) fits on cygnet0"), "{text}");
        Ok(())
    })
}
