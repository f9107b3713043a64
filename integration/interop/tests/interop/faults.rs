//! The fault matrix on real links and packets: devices that go down in each phase, vanish or are emptied, somebody who takes away what is ours,
//! no room at each step of an install, lost and repeated reports, a daemon that is killed.
//!
//! In every case both LANs send to each other all the time and both outer links are captured from before to after: nothing may leave in clear.
//! Afterwards the tunnel carries again, both ends list the same SAs, and the data path holds nothing else.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Peer;
use lab::peer::audit;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{FAMILIES, Lab, Middle, OUTER, Side};
use lab::traffic::{ping, stream};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, peers};

/// Until both ends agree again, with room for a busy machine.
const SETTLED: Duration = Duration::from_secs(60);
/// The outer link as a NIC that holds SAs and policies itself, and loses them with the link.
const NICS: &str = "[backend.userspace]\nsimulate_packet_device = true\nsimulated_devices = \"links\"\n";

/// Makes something go wrong at A; the tunnel carries traffic when it begins.
type Fault = fn(&Lab, &mut Pair<'_>) -> Result<()>;

/// One row of the matrix.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    fault: Fault,
    /// What A's log says about it.
    says: &'static str,
    /// A's SAs are lost: both children have others afterwards.
    fresh: bool,
}

const fn row(name: &'static str, fault: Fault, says: &'static str, fresh: bool) -> Row {
    Row { name, fault, says, fresh }
}

/// Somebody else changes the host under the daemon.
const TAMPERED: [Row; 7] = [
    row("tun_set_down", |lab, _| ip(lab, "link set cygnet0 down"), "set the tunnel device down", false),
    row("tun_deleted", |lab, _| ip(lab, "link del cygnet0"), "", false),
    row("guard_flushed", |lab, _| ip(lab, "xfrm policy flush"), "policies of the guard had been removed", false),
    row("routes_flushed", |lab, _| ip(lab, "route flush table 220"), "routes had been removed", false),
    row("routes_flushed_v6", |lab, _| ip(lab, "-6 route flush table 220"), "routes had been removed", false),
    row("rules_deleted", |lab, _| ip(lab, "rule del priority 220"), "routing rules had been removed", false),
    row("outer_link_bounced", |lab, _| bounce(lab), "", false),
];

/// The outer link of A is a NIC with packet offload.
const OFFLOADED: [Row; 17] = [
    row("link_down_idle", |lab, _| bounce(lab), DOWN, true),
    row("link_down_rekeying", rekeying, DOWN, true),
    row("link_down_rekeying_ike", rekeying_ike, DOWN, true),
    row("link_down_deleting", deleting, "offload.device-down", true),
    row("link_down_negotiating", negotiating, "offload.device-down", true),
    row("state_flushed_and_told", |_, pair| simulate(pair, "lose-all --tell lost"), LOST, true),
    row("state_flushed_in_silence", |_, pair| simulate(pair, "lose-all --tell nothing"), LOST, true),
    row("sas_flushed_in_silence", |_, pair| simulate(pair, "lose-sas --tell nothing"), LOST, true),
    row("policies_flushed_in_silence", |_, pair| simulate(pair, "lose-policies --tell nothing"), REPAIRED, false),
    row("policies_flushed_and_hinted", |_, pair| simulate(pair, "lose-policies --tell resync"), REPAIRED, false),
    row("full_at_inbound_policy", |_, pair| refused(pair, "inbound-policy"), "is full", false),
    row("full_at_inbound_sa", |_, pair| refused(pair, "inbound-sa"), "is full", false),
    row("full_at_outbound_sa", |_, pair| refused(pair, "outbound-sa"), "is full", false),
    row("full_at_outbound_policy", |_, pair| refused(pair, "outbound-policy"), "is full", false),
    row("full_at_activation", |_, pair| refused(pair, "activate"), "is full", false),
    row("expire_unheard", expire_unheard, "", true),
    row("expire_heard_twice", expire_heard_twice, "", true),
];
const DOWN: &str = "is down";
const LOST: &str = "does not hold it any more";
const REPAIRED: &str = "had vanished from the device";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = TAMPERED
        .into_iter()
        .map(|row| trial(format!("faults::tampered::{}", row.name), move || run(row, peers::ours()?, "no")))
        .collect();
    trials.extend(OFFLOADED.into_iter().map(|row| {
        trial(format!("faults::offloaded::{}", row.name), move || {
            let nic = Cygnet { extra: NICS.into(), log: "info,ike_sa=debug".into() };
            run(row, [&nic, peers::ours()?[1]], "packet")
        })
    }));
    trials.push(trial("faults::kill_9::guards_of_connections_that_are_gone", guards_outlive_their_connection));
    trials
}

fn run(row: Row, peers: [&dyn Peer; 2], offload: &str) -> Result<()> {
    // One end is to be up always; were both, they would begin at once and have everything twice.
    let configure = |side: Side, tunnel: Tunnel| match side {
        Side::A => {
            tunnel.with_child_option("start_action = start").with_child_option(&format!("hw_offload = {offload}"))
        }
        Side::B => tunnel,
    };
    with_pair(&Middle::Direct, peers, configure, |lab, pair| {
        audit::settle(&pair.a, &pair.b, &life::CHILDREN, SETTLED)?;
        life::settle("the tunnel carries traffic to begin with", || Ok(all_pings(lab)? == 4))?;
        let before = spis(pair)?;
        let loads = FAMILIES.map(|family| stream::Load { octets: 200, rate: 100.0, family });
        let capture = lab.capture()?;
        let streams = stream::start_both_ways(&lab.a, &lab.b, &loads)?;
        sleep(Duration::from_millis(300));
        (row.fault)(lab, pair)?;
        life::settle_within(SETTLED, "the tunnel carries again", || Ok(all_pings(lab)? == 4))?;
        life::settle_within(SETTLED, "both ends agree", || {
            let found = audit::findings(&pair.a, &pair.b, &life::CHILDREN)?;
            ensure!(found.is_empty(), "{}", found.join("; "));
            Ok(true)
        })?;
        // What does not stop the traffic is noticed within a second.
        life::settle_within(SETTLED, &format!("the log says '{}'", row.says), || Ok(pair.a.log().contains(row.says)))?;
        let report = stream::finish_all(streams)?;
        ensure!(report.sent > 100, "nothing was sent meanwhile: {report}");
        for (side, captured) in [Side::A, Side::B].into_iter().zip(capture.finish()?) {
            ensure!(captured.missed() == 0, "the capture of {side:?} missed {} frames", captured.missed());
            ensure!(captured.counts.clear == 0, "{side:?}: {}", captured.counts);
        }
        let after = spis(pair)?;
        let same = before.iter().filter(|spi| after.contains(spi)).count();
        ensure!(!row.fresh || same == 0, "SAs of before are still in use: {before:?}, {after:?}");
        Ok(())
    })
}

/// Inbound SPIs of A's children.
fn spis(pair: &Pair<'_>) -> Result<Vec<String>> {
    life::CHILDREN.into_iter().map(|child| Ok(life::installed(pair, Side::A, child)?.spi_in)).collect()
}

fn all_pings(lab: &Lab) -> Result<u16> {
    let mut answered = 0;
    for (side, family) in [Side::A, Side::B].into_iter().flat_map(|side| FAMILIES.map(|family| (side, family))) {
        let (from, to) = (lab.site(side), lab.site(side.other()));
        let (source, target) = (from.host_address(family), to.host_address(family));
        answered += ping::ping(&from.host, source, target, 1, Duration::from_secs(1))?;
    }
    Ok(answered)
}

fn ip(lab: &Lab, words: &str) -> Result<()> {
    lab.a.gateway.ip(&words.split(' ').collect::<Vec<_>>()).map(drop)
}

/// The outer link of A goes down and comes back with its IPv6 addresses, which the kernel takes away.
fn bounce(lab: &Lab) -> Result<()> {
    let gateway = &lab.a.gateway;
    let shown = gateway.ip(&["-6", "-o", "addr", "show", "dev", OUTER, "scope", "global"])?;
    let routes = gateway.ip(&["-o", "route", "show", "dev", OUTER, "scope", "global"])?;
    gateway.ip(&["link", "set", OUTER, "down"])?;
    sleep(Duration::from_millis(1_500));
    gateway.ip(&["link", "set", OUTER, "up"])?;
    for address in shown.lines().filter_map(|line| line.split_whitespace().nth(3)) {
        gateway.ip(&["addr", "replace", address, "dev", OUTER, "nodad"])?;
    }
    for route in routes.lines().filter(|line| line.contains("via")) {
        let words = ["route", "replace"].into_iter().chain(route.split_whitespace()).chain(["dev", OUTER]);
        gateway.ip(&words.collect::<Vec<_>>())?;
    }
    Ok(())
}

fn rekeying(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    for child in life::CHILDREN {
        pair.a.swanctl(&["--rekey", "--child", child])?;
    }
    bounce(lab)
}

fn rekeying_ike(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.a.swanctl(&["--rekey", "--ike", "site"])?;
    bounce(lab)
}

/// What was being deleted stays deleted; it is asked for again afterwards.
fn deleting(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "-1"])?;
    bounce(lab)?;
    audit::gone(&pair.a, &pair.b, SETTLED).context("after the deletion")?;
    life::establish(pair, Side::A)
}

fn negotiating(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "-1"])?;
    bounce(lab)?;
    for child in life::CHILDREN {
        brought_up(pair, child)?;
    }
    Ok(())
}

/// Brings a child up, unless it has come up meanwhile.
fn brought_up(pair: &Pair<'_>, child: &str) -> Result<()> {
    let said = pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "20"]);
    if life::installed(pair, Side::A, child).is_ok() { Ok(()) } else { said.map(drop) }
}

fn simulate(pair: &Pair<'_>, words: &str) -> Result<()> {
    let mut all = vec!["simulate"];
    all.extend(words.split(' '));
    let output = pair.a.cygnet(&all)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cygnet simulate {words}: {errors}");
    Ok(())
}

/// No room for what a step of a rekeying installs: the old SA goes on, and the next attempt succeeds.
fn refused(pair: &Pair<'_>, step: &str) -> Result<()> {
    simulate(pair, &format!("refuse --step {step} --error full"))?;
    // Policies are installed for new children only.
    if step.ends_with("policy") || step == "activate" {
        pair.a.swanctl(&["--terminate", "--child", "net4", "--timeout", "30"])?;
        let refused = pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"]);
        ensure!(refused.is_err(), "there was room for it");
        return pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "20"]).map(drop);
    }
    let before = life::installed(pair, Side::A, "net4")?;
    pair.a.swanctl(&["--rekey", "--child", "net4"])?;
    life::settle("the refusal is told", || Ok(pair.a.log().contains("is full")))?;
    sleep(Duration::from_millis(500));
    let after = life::installed(pair, Side::A, "net4")?;
    ensure!(before.spi_in == after.spi_in, "the old SA did not stay: {before:?}, {after:?}");
    simulate(pair, "clear")?;
    life::rekey_child(pair, Side::A, "net4")
}

/// The report of a soft limit is lost on its way.
fn expire_unheard(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    simulate(pair, "swallow-soft --count 8")?;
    expire(pair)
}

/// It comes twice.
fn expire_heard_twice(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    simulate(pair, "duplicate-soft --count 8")?;
    expire(pair)
}

fn expire(pair: &Pair<'_>) -> Result<()> {
    let before = spis(pair)?;
    simulate(pair, "soft-expire --unit packets --direction out")?;
    life::settle("rekeyed", || Ok(spis(pair)?.iter().all(|spi| !before.contains(spi))))
}

/// A connection is taken out of the file while its daemon lies dead: its traffic stays blocked, which the next start says, until somebody lets
/// it flow.
fn guards_outlive_their_connection() -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::ours()?,
        |_, tunnel| tunnel.with_child_option("start_action = trap"),
        |lab, pair| {
            life::establish(pair, Side::A)?;
            let capture = lab.capture()?;
            pair.a.process().kill()?;
            pair.a.write_tunnels(&[])?;
            pair.a.restart()?;
            life::settle("the guards are named", || {
                Ok(pair.a.log().contains("guards of an earlier run belong to no child"))
            })?;
            ensure!(all_pings(lab)? == 0, "something passes without a connection");
            let [a, _] = capture.finish()?;
            ensure!(a.counts.clear == 0, "{}", a.counts);
            let guards = |arguments: &[&str]| -> Result<String> {
                let output = pair.a.cygnet(arguments)?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            };
            let listed = guards(&["guards"])?;
            ensure!(listed.contains(&lab.b.lan(FAMILIES[0])), "{listed}");
            guards(&["guards", "--drop-unclaimed"])?;
            ensure!(guards(&["guards"])?.trim().is_empty(), "some are left");
            let capture = lab.capture()?;
            let _ = all_pings(lab)?;
            let [a, _] = capture.finish()?;
            ensure!(a.counts.clear > 0, "still blocked: {}", a.counts);
            Ok(())
        },
    )
}
