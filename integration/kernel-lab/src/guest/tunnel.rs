//! Tunnels between two of ours on the kernel backend, on each rung: their life, transport mode, ESN, limits, traps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::classify::Counts;
use lab::life;
use lab::pair::{Pair, SOON};
use lab::peer::audit;
use lab::peer::conf::Tunnel;
use lab::topology::{Family, Side};
use lab::traffic::ping;
use lab::traffic::stream::{self, Load, Stream};
use libtest_mimic::Trial;

use crate::bench::trial;
use crate::ground::{Ground, RUNGS, Rung, child, ours};
use crate::peers;

const NET4: &str = "net4";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for rung in RUNGS {
        let mut add = |name: &str, test: fn(Rung) -> Result<()>| {
            trials.push(trial(&format!("tunnel::{}::{name}", rung.name()), move || test(rung)));
        };
        add("life_over_v4", |rung| site_to_site(rung, Family::V4));
        add("transport_between_the_gateways", transport);
        add("soft_limits_of_packets_under_load", soft_limits);
        // With crypto offload these are the kernel's business, as in software.
        if rung != Rung::Crypto {
            add("life_over_v6", |rung| site_to_site(rung, Family::V6));
            add("extended_sequence_numbers", extended_sequence_numbers);
            add("hard_limit_of_packets_drops_and_comes_back", hard_limit);
            add("a_trap_brings_the_tunnel_up", trap);
            add("everything_is_protected_but_ike", everything_is_protected_but_ike);
        }
    }
    trials
}

/// A child of one family in a tunnel over IPv4.
fn only(mut tunnel: Tunnel, name: &str) -> Tunnel {
    tunnel.children.retain(|child| child.name == name);
    tunnel
}

/// The link carried ESP, IKE and what links need, and nothing in clear.
pub(crate) fn only_esp(counts: &Counts) -> Result<()> {
    let ok = counts.esp > 0 && counts.udp_esp == 0 && counts.clear == 0 && counts.other == 0;
    ensure!(ok, "the link carried {counts}");
    Ok(())
}

fn is_on(pair: &Pair<'_>, rung: Rung, children: &[&str]) -> Result<()> {
    for side in [Side::A, Side::B] {
        for name in children {
            let listed = life::installed(pair, side, name)?.offload;
            ensure!(listed == rung.listed(), "{name} of {side:?} is on `{listed}`");
        }
    }
    Ok(())
}

/// Established, rekeyed by each side (the children and the IKE SA) under streams that lose nothing, ended; nothing is left.
fn site_to_site(rung: Rung, outer: Family) -> Result<()> {
    let ground = Ground::new(rung)?;
    let families = rung.inside(outer);
    let children: Vec<&str> = families.iter().copied().map(child).collect();
    let mut pair = Pair::start(&ground.lab, [&ours(), &ours()], |side| ground.tunnel(side, outer))?;
    pair.check(|pair| {
        let wire = ground.wire()?;
        life::establish_all(pair, Side::A, &children)?;
        is_on(pair, rung, &children)?;
        peers::carries(&ground.lab, &families)?;
        let loads: Vec<Load> = families
            .iter()
            .flat_map(|family| [64, 1_300].map(|octets| Load { octets, rate: 40.0, family: *family }))
            .collect();
        let streams = stream::start_both_ways(&ground.lab.a, &ground.lab.b, &loads)?;
        for name in &children {
            life::rekey_child(pair, Side::A, name)?;
            life::rekey_child(pair, Side::B, name)?;
        }
        life::rekey_ike_with(pair, Side::B, &children)?;
        life::rekey_ike_with(pair, Side::A, &children)?;
        life::all_arrived(streams)?;
        is_on(pair, rung, &children)?;
        life::delete_ike(pair, Side::B)?;
        audit::gone(&pair.a, &pair.b, SOON)?;
        nothing_is_left(&ground)?;
        only_esp(&wire.finish()?)
    })
}

/// No SA in either kernel, nor in either device.
fn nothing_is_left(ground: &Ground) -> Result<()> {
    for site in [&ground.lab.a, &ground.lab.b] {
        let states = site.gateway.ip(&["xfrm", "state"])?;
        ensure!(states.trim().is_empty(), "the kernel of {:?} still has\n{states}", site.side);
        if ground.rung != Rung::Software {
            let tables = ground.nic()?.tables(site.side)?;
            ensure!(!tables.contains("sa "), "the device of {:?} still has\n{tables}", site.side);
        }
    }
    Ok(())
}

//= RFC 7296 §1.3.1: transport mode between the gateways themselves, both families
fn transport(rung: Rung) -> Result<()> {
    for outer in [Family::V4, Family::V6] {
        let ground = Ground::new(rung)?;
        let configured = |side| {
            let mut tunnel = ground.tunnel(side, outer).with_child_option("mode = transport");
            tunnel.children.truncate(1);
            for child in &mut tunnel.children {
                (child.name, child.local_ts, child.remote_ts) = ("hosts".into(), "dynamic".into(), "dynamic".into());
            }
            tunnel
        };
        let mut pair = Pair::start(&ground.lab, [&ours(), &ours()], configured)?;
        pair.check(|pair| {
            life::establish_all(pair, Side::A, &["hosts"])?;
            is_on(pair, rung, &["hosts"])?;
            let wire = ground.wire()?;
            let (from, to) = (ground.lab.a.outer_address(outer), ground.lab.b.outer_address(outer));
            for rekeyed_by in [None, Some(Side::A), Some(Side::B)] {
                if let Some(side) = rekeyed_by {
                    life::rekey_child(pair, side, "hosts")?;
                }
                let load = Load { octets: 200, rate: 100.0, family: outer };
                let bind = |place: &lab::netns::Namespace, address| {
                    place.run(|| std::net::UdpSocket::bind((address, 0)))?.map_err(anyhow::Error::from)
                };
                let stream =
                    Stream::between(bind(&ground.lab.a.gateway, from)?, bind(&ground.lab.b.gateway, to)?, load)?;
                std::thread::sleep(Duration::from_millis(300));
                let report = stream.finish()?;
                ensure!(report.is_clean(), "{outer:?}, rekeyed by {rekeyed_by:?}: {report}");
            }
            only_esp(&wire.finish()?)?;
            life::delete_ike(pair, Side::B)
        })?;
    }
    Ok(())
}

//= RFC 4303 §2.2.1
fn extended_sequence_numbers(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let esn = |_, mut tunnel: Tunnel| {
        for child in &mut tunnel.children {
            child.esp_proposals = "aes128gcm16-x25519-esn".into();
        }
        only(tunnel, NET4)
    };
    ground.with_pair([&ours(), &ours()], esn, |ground, pair| {
        life::establish_all(pair, Side::A, &[NET4])?;
        is_on(pair, rung, &[NET4])?;
        peers::carries(&ground.lab, &[Family::V4])?;
        for site in [&ground.lab.a, &ground.lab.b] {
            let states = site.gateway.ip(&["-d", "xfrm", "state"])?;
            ensure!(states.matches("flag af-unspec esn").count() + states.matches(" esn").count() >= 2, "{states}");
        }
        life::rekey_child(pair, Side::B, NET4)?;
        peers::carries(&ground.lab, &[Family::V4])
    })
}

/// Soft limits counted by the data path make A rekey again and again; the streams lose nothing.
fn soft_limits(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let limited = |side, tunnel| {
        let tunnel = only(tunnel, NET4);
        let limits = ["rekey_packets = 200", "life_packets = 2000", "rand_packets = 0"];
        if side == Side::B { tunnel } else { limits.into_iter().fold(tunnel, Tunnel::with_child_option) }
    };
    ground.with_pair([&ours(), &ours()], limited, |ground, pair| {
        life::establish_all(pair, Side::A, &[NET4])?;
        let wire = ground.wire()?;
        let load = Load { octets: 200, rate: 200.0, family: Family::V4 };
        let streams = stream::start_both_ways(&ground.lab.a, &ground.lab.b, &[load])?;
        let rekeyed = pair.a.wait_for("three generations", Duration::from_secs(30), |sas| {
            sas.iter().flat_map(|sa| &sa.children).any(|child| child.generation.is_some_and(|number| number >= 3))
        });
        life::all_arrived(streams)?;
        rekeyed?;
        is_on(pair, rung, &[NET4])?;
        only_esp(&wire.finish()?)
    })
}

/// Packets that an SA may carry.
const LIMIT: u64 = 300;

/// Without a soft limit the hard one ends the SA at exactly that packet; nothing in clear, and the tunnel comes back with other keys.
fn hard_limit(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let limited = |side, tunnel| {
        let tunnel = only(tunnel, NET4);
        let limits = ["life_packets = 300", "rekey_packets = 0", "rekey_bytes = 0"];
        if side == Side::B { tunnel } else { limits.into_iter().fold(tunnel, Tunnel::with_child_option) }
    };
    ground.with_pair([&ours(), &ours()], limited, |ground, pair| {
        life::establish_all(pair, Side::A, &[NET4])?;
        let before = life::installed(pair, Side::A, NET4)?;
        let wire = ground.wire()?;
        let load = Load { octets: 200, rate: 200.0, family: Family::V4 };
        let stream = Stream::start(&ground.lab.a, &ground.lab.b, load)?;
        std::thread::sleep(Duration::from_secs_f64(LIMIT as f64 / load.rate + 1.5));
        let report = stream.finish()?;
        ensure!(report.sent > LIMIT + 100, "only {} packets were sent", report.sent);
        life::settle("another SA", || Ok(life::installed(pair, Side::A, NET4)?.spi_out != before.spi_out))?;
        peers::carries(&ground.lab, &[Family::V4])?;
        let counts = wire.finish()?;
        only_esp(&counts)?;
        let spi = u32::from_str_radix(&before.spi_out, 16).context("its SPI is no number")?;
        let passed = counts.by_spi.get(&spi).copied().unwrap_or_default();
        ensure!(passed == LIMIT, "{passed} packets passed an SA for {LIMIT}");
        Ok(())
    })
}

/// The first packet asks for the tunnel. The kernel's own ESP keeps it until the SA is there; with packet offload the kernel drops it.
fn trap(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let trapped = |side, tunnel| {
        let tunnel = only(tunnel, NET4);
        if side == Side::A { tunnel.with_child_option("start_action = trap") } else { tunnel }
    };
    ground.with_pair([&ours(), &ours()], trapped, |ground, pair| {
        let wire = ground.wire()?;
        let (from, to) = (ground.lab.a.host_address(Family::V4), ground.lab.b.host_address(Family::V4));
        ensure!(pair.a.sas()?.is_empty(), "there is an SA before the first packet");
        let first = ping::ping(&ground.lab.a.host, from, to, 1, Duration::from_secs(5))?;
        pair.a.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&[NET4])))?;
        ensure!(rung == Rung::Packet || first == 1, "the first packet was lost");
        peers::carries(&ground.lab, &[Family::V4])?;
        is_on(pair, rung, &[NET4])?;
        // The trap stays when the tunnel goes, and asks again.
        life::delete_ike(pair, Side::A)?;
        ensure!(ping::answers_within(&ground.lab.a.host, from, to, SOON)?, "the trap does not ask again");
        only_esp(&wire.finish()?)
    })
}

/// Selectors of everything to everything take in the gateways' own addresses and IKE: it keeps working on its bypasses, and through the
/// device's policies, too. What is forwarded into such a tunnel meets the kernel's policy for what is forwarded out of it and is dropped, so
/// the gateways themselves talk through it.
fn everything_is_protected_but_ike(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let everything = |_, mut tunnel: Tunnel| {
        for child in &mut tunnel.children {
            (child.local_ts, child.remote_ts) = ("0.0.0.0/0".into(), "0.0.0.0/0".into());
        }
        only(tunnel, NET4)
    };
    ground.with_pair([&ours(), &ours()], everything, |ground, pair| {
        let (a, b) = (&ground.lab.a, &ground.lab.b);
        let talks = || {
            let (from, to) = (a.gateway_address(Family::V4), b.gateway_address(Family::V4));
            let answered = ping::ping(&a.gateway, from, to, 4, Duration::from_secs(1))?;
            ensure!(answered == 4, "{answered} of 4 echo requests between the gateways answered");
            Ok(())
        };
        life::establish_all(pair, Side::A, &[NET4])?;
        is_on(pair, rung, &[NET4])?;
        let wire = ground.wire()?;
        talks()?;
        life::rekey_child(pair, Side::A, NET4)?;
        life::rekey_ike_with(pair, Side::B, &[NET4])?;
        talks()?;
        let counts = wire.finish()?;
        ensure!(counts.ike > 0, "no IKE was seen: {counts}");
        only_esp(&counts)?;
        life::delete_ike(pair, Side::B)
    })
}
