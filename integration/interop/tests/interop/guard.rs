//! No packet of a protected subnet leaves in clear, and none from outside gets in, whatever happens to the daemon.
//!
//! In each situation both LANs send packets of both families to the other one, and forged clear packets are thrown at both
//! gateways. Both outer links are captured from before the situation arises; the hosts' packets are counted on the LAN side, so a
//! test in which nothing was sent fails.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::peer::conf::Tunnel;
use lab::topology::{FAMILIES, LAN, Lab, Middle, Side};
use lab::traffic::{inject, ping, stream};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

/// The name of our TUN.
const DEVICE: &str = "cygnet0";
const SIDES: [Side; 2] = [Side::A, Side::B];

/// Brings a situation about; the tunnel carries traffic when it begins.
type Situation = fn(&Lab, &mut Pair<'_>) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let situations: [(&'static str, Situation, bool); 8] = [
        ("while_up", |_, _| Ok(()), true),
        ("before_the_tunnel_is_up", |_, _| Ok(()), false),
        ("peer_down", peer_down, false),
        ("after_kill_9", after_kill_9, false),
        ("after_sigterm", after_sigterm, false),
        ("tun_deleted", tun_deleted, false),
        ("across_a_restart", across_a_restart, true),
        ("across_a_restart_after_kill_9", across_a_restart_after_kill_9, true),
    ];
    let run = |name: &'static str, situation: Situation, carries: bool| move || check(name, situation, carries);
    situations
        .into_iter()
        .map(|(name, situation, carries)| trial(format!("guard::{name}"), run(name, situation, carries)))
        .collect()
}

fn check(name: &str, situation: Situation, carries: bool) -> Result<()> {
    // Before the tunnel is up the peer must not answer the trap's acquire: its secret differs.
    let is_down = name == "before_the_tunnel_is_up";
    let configure = |side: Side, tunnel: Tunnel| {
        let mut tunnel = tunnel.with_child_option("start_action = trap");
        if is_down && side == Side::B {
            tunnel.secret = "another secret".into();
        }
        tunnel
    };
    with_pair(&Middle::Direct, peers::ours()?, configure, |lab, pair| {
        let capture = lab.capture()?;
        if !is_down {
            life::establish(pair, Side::A)?;
            ensure!(all_pings(lab, ping::PATIENCE)? == 4, "the tunnel does not carry traffic to begin with");
        }
        let before = lan_frames(lab)?;
        situation(lab, pair)?;
        let answered = attempts(lab, if carries { ping::PATIENCE } else { Duration::from_secs(1) })?;
        let sent = lan_frames(lab)? - before;
        ensure!(sent >= 200, "only {sent} packets went from the hosts to the gateways");
        if carries {
            ensure!(answered == 4, "{answered} of 4 pings were answered");
        }
        forged_packets_stay_out(lab)?;
        for (side, captured) in SIDES.into_iter().zip(capture.finish()?) {
            ensure!(captured.missed() == 0, "the capture of {side:?} missed {} frames", captured.missed());
            ensure!(captured.counts.clear <= FORGED, "{side:?}: {}", captured.counts);
            let clear = captured.counts.clear;
            // What we forged ourselves crosses both links; anything beyond leaked.
            ensure!(clear == FORGED, "{side:?}: {clear} clear packets where {FORGED} were forged; {}", captured.counts);
        }
        Ok(())
    })
}

/// Forged packets per direction and family.
const FORGED_EACH: usize = 10;
/// By then they have come, if they do.
const FORGED_WAIT: Duration = Duration::from_millis(300);
/// All of them.
const FORGED: u64 = 4 * FORGED_EACH as u64;

fn forged_packets_stay_out(lab: &Lab) -> Result<()> {
    for (side, family) in SIDES.into_iter().flat_map(|side| FAMILIES.map(|family| (side, family))) {
        let received =
            inject::forged_packets_received(lab.site(side.other()), lab.site(side), family, FORGED_EACH, FORGED_WAIT)?;
        ensure!(received == 0, "host {side:?} received {received} forged packets, {family:?}");
    }
    Ok(())
}

/// Pings and streams between the LANs, both ways and families; returns how many of four pings were answered.
fn attempts(lab: &Lab, patience: Duration) -> Result<u16> {
    let loads = FAMILIES.map(|family| stream::Load { octets: 600, rate: 100.0, family });
    let streams = stream::start_both_ways(&lab.a, &lab.b, &loads)?;
    let answered = all_pings(lab, patience);
    thread::sleep(Duration::from_secs(1));
    stream::finish_all(streams)?;
    answered
}

fn all_pings(lab: &Lab, patience: Duration) -> Result<u16> {
    let mut answered = 0;
    for (side, family) in SIDES.into_iter().flat_map(|side| FAMILIES.map(|family| (side, family))) {
        let (from, to) = (lab.site(side), lab.site(side.other()));
        answered += ping::ping(&from.host, from.host_address(family), to.host_address(family), 1, patience)?;
    }
    Ok(answered)
}

fn lan_frames(lab: &Lab) -> Result<u64> {
    let of = |gateway: &Namespace| gateway.frame_counts(LAN).map(|(received, sent)| received + sent);
    Ok(of(&lab.a.gateway)? + of(&lab.b.gateway)?)
}

fn peer_down(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.b.process().kill()
}

fn after_kill_9(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.a.process().kill()?;
    pair.b.process().kill()
}

fn after_sigterm(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    for daemon in [&mut pair.a, &mut pair.b] {
        let status = daemon.process().terminate()?;
        ensure!(status.success(), "ended with {status}");
    }
    Ok(())
}

fn tun_deleted(lab: &Lab, _: &mut Pair<'_>) -> Result<()> {
    for side in SIDES {
        lab.site(side).gateway.ip(&["link", "del", DEVICE])?;
    }
    Ok(())
}

fn across_a_restart(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    restart(lab, pair, Signal::TERM)
}

fn across_a_restart_after_kill_9(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    restart(lab, pair, Signal::KILL)
}

/// Gateway A's daemon ends and starts again under traffic; the tunnel comes back by itself.
fn restart(lab: &Lab, pair: &mut Pair<'_>, signal: Signal) -> Result<()> {
    let loads = FAMILIES.map(|family| stream::Load { octets: 200, rate: 200.0, family });
    let streams = stream::start_both_ways(&lab.a, &lab.b, &loads)?;
    if signal == Signal::KILL {
        pair.a.process().kill()?;
    } else {
        pair.a.process().terminate()?;
    }
    thread::sleep(Duration::from_millis(500));
    pair.a.restart()?;
    let (source, target) = (lab.a.host_address(FAMILIES[0]), lab.b.host_address(FAMILIES[0]));
    let is_back = ping::answers_within(&lab.a.host, source, target, SOON)?;
    stream::finish_all(streams)?;
    ensure!(is_back, "the tunnel did not come back");
    life::settle("both families after the restart", || Ok(all_pings(lab, Duration::from_secs(1))? == 4))
        .context("after the restart")
}
