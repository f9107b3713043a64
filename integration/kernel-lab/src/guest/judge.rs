//! The judge before the judged: Debian 13's strongSwan, unmodified, with `hw_offload = packet` over the test NIC against a strongSwan whose ESP is
//! the kernel's. What the NIC gets wrong shows here before our own daemon is held against it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::classify::{Class, Counts};
use lab::life;
use lab::pair::{Pair, SOON};
use lab::peer::Daemon;
use lab::peer::charon::KernelCharon;
use lab::peer::conf::Tunnel;
use lab::topology::{Family, Lab, Side};
use lab::traffic::ping::{answers_within, ping};
use lab::traffic::stream::{self, Load};
use libtest_mimic::Trial;

use crate::bench::trial;
use crate::esp_keys::Keys;
use crate::ground::{Ground, Rung, child};
use crate::libreswan::Libreswan;
use crate::peers;

const CHARON: KernelCharon = KernelCharon { settings: "" };

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for outer in [Family::V4, Family::V6] {
        let name = if outer == Family::V4 { "v4" } else { "v6" };
        trials.push(trial(&format!("judge::charon_offloads_a_tunnel_over_{name}"), move || tunnel(outer)));
    }
    trials.extend([
        trial("judge::charon_offloads_transport_mode", transport),
        trial("judge::charon_rekeys_at_a_soft_limit_of_packets", soft_limit),
        trial("judge::charon_acquires_from_a_trap", acquire),
        trial("judge::charon_on_both_ends_with_extended_sequence_numbers", both_ends),
        trial("judge::libreswan_offloads_transport_mode", libreswan),
        trial("judge::a_leaking_nic_fails_the_leak_test", leaking_nic),
    ]);
    trials
}

/// Side A offloads, side B does not; both with one child of a family.
fn offloads_at_a(ground: &Ground, outer: Family) -> impl Fn(Side) -> Tunnel + '_ {
    move |side| {
        let mut tunnel = match side {
            Side::A => ground.tunnel(side, outer),
            Side::B => Tunnel::between(&ground.lab, side, outer),
        };
        tunnel.children.retain(|found| found.name == child(outer));
        tunnel
    }
}

/// Runs a test with both daemons.
fn judged(
    outer: Family,
    change: impl Fn(Side, Tunnel) -> Tunnel,
    test: impl FnOnce(&Ground, &mut Pair<'_>) -> Result<()>,
) -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    let tunnel = offloads_at_a(&ground, outer);
    let mut pair = Pair::start(&ground.lab, [&CHARON, &CHARON], |side| change(side, tunnel(side)))?;
    pair.check(|pair| test(&ground, pair).map_err(|error| error.context(ground.tables())))
}

/// The kernel and the device of A have the pair of SAs in packet offload, and the kernel of B in software.
fn is_offloaded(ground: &Ground) -> Result<()> {
    let states = ground.lab.a.gateway.ip(&["xfrm", "state"])?;
    ensure!(states.matches("mode packet").count() >= 2, "A's SAs are not in packet offload:\n{states}");
    let tables = ground.nic()?.tables(Side::A)?;
    for line in ["sa in offload=packet", "sa out offload=packet", "policy in ", "policy out "] {
        ensure!(tables.contains(line), "A's device has no `{line}`:\n{tables}");
    }
    let states = ground.lab.b.gateway.ip(&["xfrm", "state"])?;
    ensure!(states.contains("proto esp") && !states.contains("offload"), "B's SAs are not in software:\n{states}");
    Ok(())
}

/// Runs something under the tap.
fn captured(ground: &Ground, act: impl FnOnce() -> Result<()>) -> Result<Captured> {
    let nic = ground.nic()?;
    let capture = nic.capture(&ground.lab.protected(), 4_000)?;
    act()?;
    let captured = capture.finish(nic.tap(), &nic.wire())?;
    ensure!(captured.missed() == 0, "the tap missed {} frames", captured.missed());
    Ok(captured)
}

/// The leak test: hosts on both sides talk, and the wire carries their packets in ESP only.
fn nothing_leaks(lab: &Lab, family: Family, counts: &Counts) -> Result<()> {
    ensure!(counts.clear == 0, "{} packets of {} were on the wire in clear: {counts}", counts.clear, {
        lab.a.lan(family)
    });
    ensure!(counts.esp > 0 && counts.udp_esp == 0 && counts.other == 0, "the wire carried {counts}");
    Ok(())
}

/// Up, traffic both ways, rekeyed from each side without loss, and down. What was on the wire is kept with its keys: the lab has it decrypted by
/// another program.
fn tunnel(outer: Family) -> Result<()> {
    judged(
        outer,
        |_, tunnel| tunnel,
        |ground, pair| {
            let name = child(outer);
            life::establish_all(pair, Side::A, &[name])?;
            is_offloaded(ground)?;
            let mut keys = Keys::default();
            let captured = captured(ground, || {
                keys.look(&ground.lab.b.gateway)?;
                peers::carries(&ground.lab, &[outer])?;
                let load = Load { octets: 300, rate: 50.0, family: outer };
                let streams = stream::start_both_ways(&ground.lab.a, &ground.lab.b, &[load])?;
                for side in [Side::A, Side::B] {
                    life::rekey_child(pair, side, name)?;
                    keys.look(&ground.lab.b.gateway)?;
                }
                life::all_arrived(streams).map(drop)
            })?;
            nothing_leaks(&ground.lab, outer, &captured.counts)?;
            let version = if outer == Family::V4 { "v4" } else { "v6" };
            keys.keep(&format!("judge-tunnel-{version}"), &captured)?;
            is_offloaded(ground)?;
            life::delete_ike(pair, Side::B)?;
            let tables = ground.nic()?.tables(Side::A)?;
            ensure!(!tables.contains("sa "), "A's device still has SAs:\n{tables}");
            Ok(())
        },
    )
}

/// Transport mode between the gateways.
fn transport() -> Result<()> {
    let hosts = |_, tunnel: Tunnel| {
        let mut tunnel = tunnel.with_child_option("mode = transport");
        for child in &mut tunnel.children {
            (child.local_ts, child.remote_ts) = ("dynamic".into(), "dynamic".into());
        }
        tunnel
    };
    judged(Family::V4, hosts, |ground, pair| {
        life::establish_all(pair, Side::A, &[child(Family::V4)])?;
        is_offloaded(ground)?;
        let (from, to) = (ground.lab.a.outer_address(Family::V4), ground.lab.b.outer_address(Family::V4));
        let mut keys = Keys::default();
        keys.look(&ground.lab.b.gateway)?;
        let captured = captured(ground, || {
            let answered = ping(&ground.lab.a.gateway, from, to, 10, Duration::from_secs(1))?;
            ensure!(answered == 10, "{answered} of 10 echo requests answered");
            Ok(())
        })?;
        ensure!(captured.counts.esp == 20 && captured.counts.other == 0, "the wire carried {}", captured.counts);
        keys.keep("judge-transport", &captured)
    })
}

/// The device counts packets, the kernel tells, charon rekeys: again and again under a stream that loses nothing.
fn soft_limit() -> Result<()> {
    let limited = |side, tunnel| {
        let limits = ["rekey_packets = 100", "life_packets = 2000", "rand_packets = 0"];
        if side == Side::B { tunnel } else { limits.into_iter().fold(tunnel, Tunnel::with_child_option) }
    };
    judged(Family::V4, limited, |ground, pair| {
        let name = child(Family::V4);
        life::establish_all(pair, Side::A, &[name])?;
        is_offloaded(ground)?;
        let before = ground.lab.a.gateway.ip(&["xfrm", "state"])?;
        ensure!(
            before.contains("limit: soft 100(packets), hard 2000(packets)") || before.contains("proto esp"),
            "{before}"
        );
        let captured = captured(ground, || {
            let load = Load { octets: 200, rate: 100.0, family: Family::V4 };
            let streams = stream::start_both_ways(&ground.lab.a, &ground.lab.b, &[load])?;
            std::thread::sleep(Duration::from_secs(4));
            life::all_arrived(streams).map(drop)
        })?;
        nothing_leaks(&ground.lab, Family::V4, &captured.counts)?;
        // Each generation brings an SPI for each direction.
        let spis: BTreeSet<u32> = captured.frames.iter().filter_map(|frame| spi(frame.class)).collect();
        ensure!(spis.len() >= 6, "only {} SPIs were used: {}", spis.len(), captured.counts);
        let most = captured.counts.by_spi.values().max().copied().unwrap_or_default();
        ensure!(most < 200, "an SA carried {most} packets with a soft limit of 100");
        Ok(())
    })
}

fn spi(class: Class) -> Option<u32> {
    match class {
        Class::Esp(spi) | Class::UdpEsp(spi) => Some(spi),
        Class::Ike | Class::Keepalive | Class::Housekeeping | Class::Clear | Class::Other => None,
    }
}

/// A trap is an offloaded policy without an SA: the first packet is lost, asks for the tunnel, and nothing leaves in clear.
fn acquire() -> Result<()> {
    let trapped = |side, tunnel: Tunnel| match side {
        Side::A => tunnel.with_child_option("start_action = trap"),
        Side::B => tunnel,
    };
    judged(Family::V4, trapped, |ground, pair| {
        let tables = ground.nic()?.tables(Side::A)?;
        ensure!(tables.contains("action=protect"), "A's device has no trap:\n{tables}");
        let (from, to) = (ground.lab.a.host_address(Family::V4), ground.lab.b.host_address(Family::V4));
        let captured = captured(ground, || {
            let first = ping(&ground.lab.a.host, from, to, 1, Duration::from_secs(3))?;
            ensure!(first == 0, "the packet of an acquire is kept by nobody, and yet it was answered");
            pair.a.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&[child(Family::V4)])))?;
            ensure!(answers_within(&ground.lab.a.host, from, to, SOON)?, "the tunnel does not carry");
            Ok(())
        })?;
        nothing_leaks(&ground.lab, Family::V4, &captured.counts)?;
        ensure!(ground.nic()?.counter(Side::A, "acquires")? > 0, "the device saw no larval SA");
        is_offloaded(ground)
    })
}

/// Both ends offload, with ESN.
fn both_ends() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    let tunnel = |side| {
        let mut tunnel = ground.tunnel(side, Family::V4);
        for child in &mut tunnel.children {
            child.esp_proposals = "aes256gcm16-x25519-esn".into();
        }
        tunnel
    };
    let mut pair = Pair::start(&ground.lab, [&CHARON, &CHARON], tunnel)?;
    pair.check(|pair| {
        life::establish_all(pair, Side::A, &[child(Family::V4)])?;
        let mut keys = Keys::default();
        keys.look(&ground.lab.b.gateway)?;
        let captured = captured(&ground, || peers::carries(&ground.lab, &[Family::V4]))?;
        nothing_leaks(&ground.lab, Family::V4, &captured.counts)?;
        for side in [Side::A, Side::B] {
            let tables = ground.nic()?.tables(side)?;
            ensure!(tables.matches(" esn=1 ").count() == 2, "{side:?} has not two SAs with ESN:\n{tables}");
        }
        Ok(())
    })
}

/// Another daemon that drives packet offload, in the one mode in which it does: its exceptions for IKE and its order of installing are its own.
fn libreswan() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    let lab = &ground.lab;
    // It asks for limits of octets always, and has no inbound exception for IKE once all traffic with the peer is protected. The mlx5 driver takes
    // the one and does not mind the other.
    ground.nic()?.turn(Side::A, "byte_limits", "Y")?;
    ground.nic()?.turn(Side::A, "accept_clear", "Y")?;
    let hosts = |side| {
        let mut tunnel = Tunnel::between(lab, side, Family::V4).with_child_option("mode = transport");
        tunnel.children.truncate(1);
        for child in &mut tunnel.children {
            child.local_ts = format!("{}/32", lab.site(side).outer_address(Family::V4));
            child.remote_ts = format!("{}/32", lab.site(side.other()).outer_address(Family::V4));
        }
        tunnel
    };
    let charon = Daemon::start(&CHARON, &lab.b.gateway, &lab.directory().join("b"), &[hosts(Side::B)])?;
    let offload = "\ttype=transport\n\tnic-offload=packet\n\treplay-window=32\n";
    let pluto = Libreswan::start(&lab.a.gateway, &lab.directory().join("a"), &hosts(Side::A), offload)?;
    let test = || -> Result<()> {
        pluto.initiate()?;
        let name = child(Family::V4);
        charon.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&[name])))?;
        is_offloaded(&ground)?;
        let (from, to) = (lab.a.outer_address(Family::V4), lab.b.outer_address(Family::V4));
        let captured = captured(&ground, || {
            let answered = ping(&lab.a.gateway, from, to, 5, Duration::from_secs(1))?;
            ensure!(answered == 5, "{answered} of 5 echo requests answered");
            pluto.rekey_child().map(drop)
        })?;
        ensure!(captured.counts.esp >= 10 && captured.counts.other == 0, "the wire carried {}", captured.counts);
        let answered = ping(&lab.a.gateway, from, to, 5, Duration::from_secs(1))?;
        ensure!(answered == 5, "after a rekey {answered} of 5 echo requests answered");
        pluto.terminate().map(drop)
    };
    test().map_err(|error| error.context(format!("{}\nlog of libreswan:\n{}", ground.tables(), pluto.log())))
}

/// The same leak test passes with a good device and fails with one that sends in clear: a test that cannot fail is none.
fn leaking_nic() -> Result<()> {
    judged(
        Family::V4,
        |_, tunnel| tunnel,
        |ground, pair| {
            life::establish_all(pair, Side::A, &[child(Family::V4)])?;
            let leak_test = || -> Result<()> {
                let (from, to) = (ground.lab.a.host_address(Family::V4), ground.lab.b.host_address(Family::V4));
                let captured =
                    captured(ground, || ping(&ground.lab.a.host, from, to, 5, Duration::from_millis(300)).map(drop))?;
                nothing_leaks(&ground.lab, Family::V4, &captured.counts)
            };
            leak_test().context("a good device")?;
            ground.nic()?.turn(Side::A, "leak", "Y")?;
            let said = match leak_test() {
                Ok(()) => anyhow::bail!("the leak test passes with a device that leaks"),
                Err(error) => error.to_string(),
            };
            ensure!(said.contains("in clear"), "the leak test fails for another reason: {said}");
            ground.nic()?.turn(Side::A, "leak", "N")?;
            leak_test().context("the device mended")
        },
    )
}
