//! What goes wrong around tunnels of ours on the kernel backend: the daemon is killed, links flap, tables are full, clocks step, others' SAs are there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::life;
use lab::netns::command;
use lab::pair::{Pair, SOON};
use lab::peer::conf::Tunnel;
use lab::topology::{Family, OUTER, Side};
use lab::traffic::ping;
use lab::traffic::stream::{self, Load, Report};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::ground::{Ground, RUNGS, Rung, ours, rung_of};
use crate::nic::{Mode, Nic};
use crate::peers;
use crate::tunnel::only_esp;

const NET4: &str = "net4";
/// Packets in a second of each stream.
const RATE: f64 = 100.0;
/// An SA that is nobody's business here.
const FOREIGN: &str = "src 203.0.113.1 dst 203.0.113.2 proto esp spi 0xf0f0";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for rung in RUNGS {
        trials.push(trial(&format!("trouble::{}::kill_9_under_traffic", rung.name()), move || kill_9(rung)));
    }
    for rung in [Rung::Software, Rung::Packet] {
        trials.push(trial(&format!("trouble::{}::clocks_step_by_hours", rung.name()), move || clocks_step(rung)));
    }
    for rung in [Rung::Crypto, Rung::Packet] {
        trials.push(trial(&format!("trouble::{}::the_link_goes_down_and_up", rung.name()), move || flap(rung)));
    }
    trials.extend([
        trial("trouble::packet::a_device_that_leaks_is_seen", a_device_that_leaks_is_seen),
        trial("trouble::packet::sas_that_somebody_flushes_are_made_anew", sas_that_somebody_flushes_are_made_anew),
        trial("trouble::packet::the_device_is_full", the_device_is_full),
        trial("trouble::packet::sas_and_policies_are_on_one_device", sas_and_policies_are_on_one_device),
        trial("trouble::packet::each_device_has_its_own_tunnel", each_device_has_its_own_tunnel),
        trial("trouble::software::foreign_sas_survive", foreign_sas_survive),
    ]);
    for (name, mode, esp, listed) in AUTO {
        trials.push(trial(&format!("trouble::auto::{name}"), move || auto(mode, esp, listed)));
    }
    trials
}

/// IPv4 only.
fn only(mut tunnel: Tunnel) -> Tunnel {
    tunnel.children.retain(|child| child.name == NET4);
    tunnel
}

fn both_ways(ground: &Ground) -> Result<Vec<stream::Stream>> {
    stream::start_both_ways(&ground.lab.a, &ground.lab.b, &[Load { octets: 200, rate: RATE, family: Family::V4 }])
}

/// The longest time in which nothing arrived.
fn longest_gap(report: &Report) -> Duration {
    let most = report.gaps.iter().map(|gap| gap.count).max().unwrap_or(0);
    Duration::from_secs_f64(most as f64 / RATE)
}

fn spis(pair: &Pair<'_>, side: Side) -> Result<[String; 2]> {
    let child = life::installed(pair, side, NET4)?;
    Ok([child.spi_in, child.spi_out])
}

fn ping_answers_within(ground: &Ground, limit: Duration) -> Result<bool> {
    let (from, to) = (ground.lab.a.host_address(Family::V4), ground.lab.b.host_address(Family::V4));
    ping::answers_within(&ground.lab.a.host, from, to, limit)
}

/// The daemon of A is killed and starts again while packets flow. Its SAs go on carrying them until new ones are there, and then they go.
fn kill_9(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let started = |side, tunnel| {
        let tunnel = only(tunnel);
        if side == Side::A { tunnel.with_child_option("start_action = start") } else { tunnel }
    };
    ground.with_pair([&ours(), &ours()], started, |ground, pair| {
        life::settle("the child", || Ok(spis(pair, Side::A).is_ok() && spis(pair, Side::B).is_ok()))?;
        let before = spis(pair, Side::A)?;
        let wire = ground.wire()?;
        let streams = both_ways(ground)?;
        thread::sleep(Duration::from_millis(500));
        pair.a.process().kill()?;
        thread::sleep(Duration::from_millis(1_500));
        pair.a.restart()?;
        life::settle(
            "another SA",
            || Ok(spis(pair, Side::A)?[1] != before[1] && spis(pair, Side::B)?[0] != before[1]),
        )?;
        thread::sleep(Duration::from_millis(500));
        let report = stream::finish_all(streams)?;
        ensure!(longest_gap(&report) <= Duration::from_secs(1), "{report}");
        only_esp(&wire.finish()?)?;
        peers::carries(&ground.lab, &[Family::V4])?;
        life::settle_within(Duration::from_secs(30), "the SAs of the first run gone", || {
            let states = ground.lab.a.gateway.ip(&["xfrm", "state"])?;
            Ok(before.iter().all(|spi| !states.contains(&format!("0x{spi}"))))
        })
    })
}

/// The wall clock jumps ahead and back by two hours, past every lifetime: no SA is lost, and rekeying goes on at its own pace.
fn clocks_step(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            let before = [spis(pair, Side::A)?, spis(pair, Side::B)?];
            // A second after its install the kernel looks at an SA's age for the first time; a clock that has stepped before that ends it.
            thread::sleep(Duration::from_millis(1_500));
            let stays = |hours: i64| -> Result<()> {
                step_clock(hours * 3_600)?;
                // The kernel looks at its SAs when it is asked for them, too.
                for _ in 0..4 {
                    for site in [&ground.lab.a, &ground.lab.b] {
                        site.gateway.ip(&["-s", "xfrm", "state"])?;
                    }
                    peers::carries(&ground.lab, &[Family::V4])?;
                    thread::sleep(Duration::from_millis(500));
                }
                let now = [spis(pair, Side::A)?, spis(pair, Side::B)?];
                ensure!(now == before, "other SAs after a step by {hours} h");
                Ok(())
            };
            for hours in [2, -2, -2, 2] {
                stays(hours)?;
            }
            life::rekey_child(pair, Side::A, NET4)?;
            peers::carries(&ground.lab, &[Family::V4])
        },
    )
}

fn step_clock(seconds: i64) -> Result<()> {
    let now: i64 = command("date", &["+%s"])?.trim().parse()?;
    command("date", &["-s", &format!("@{}", now + seconds)]).map(drop)
}

/// The device goes down under traffic, and with it all that it holds. Nothing leaves in clear, and soon after it is up again so is the tunnel.
fn flap(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    let started = |side, tunnel| {
        let tunnel = only(tunnel);
        if side == Side::A { tunnel.with_child_option("start_action = trap|start") } else { tunnel }
    };
    ground.with_pair([&ours(), &ours()], started, |ground, pair| {
        life::settle("the child", || Ok(spis(pair, Side::A).is_ok() && spis(pair, Side::B).is_ok()))?;
        let before = spis(pair, Side::A)?;
        let wire = ground.wire()?;
        let streams = both_ways(ground)?;
        thread::sleep(Duration::from_millis(300));
        let gateway = &ground.lab.a.gateway;
        gateway.ip(&["link", "set", OUTER, "down"])?;
        thread::sleep(Duration::from_millis(700));
        gateway.ip(&["link", "set", OUTER, "up"])?;
        // What an administrator's network configuration does: the kernel took the routes away with the link.
        let peer = ground.lab.b.outer_address(Family::V4).to_string();
        gateway.ip(&["route", "replace", "default", "via", &peer, "onlink", "dev", OUTER])?;
        let up = Instant::now();
        let back = ping_answers_within(ground, SOON)?;
        let took = up.elapsed();
        let report = stream::finish_all(streams)?;
        ensure!(back, "the tunnel did not come back: {report}");
        ensure!(took <= Duration::from_secs(2), "the tunnel came back {:.1} s after the link", took.as_secs_f64());
        only_esp(&wire.finish()?)?;
        let after = spis(pair, Side::A)?;
        ensure!(rung != Rung::Packet || after[1] != before[1], "the same keys again: {after:?}");
        Ok(())
    })
}

/// The test of the tests: a device that sends in clear what it should protect does not go unnoticed.
fn a_device_that_leaks_is_seen() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            ground.nic()?.turn(Side::A, "leak", "Y")?;
            let wire = ground.wire()?;
            // B drops what comes in clear.
            ensure!(!ping_answers_within(ground, Duration::from_secs(1))?, "a packet in clear was taken");
            let counts = wire.finish()?;
            ensure!(counts.clear > 0 && only_esp(&counts).is_err(), "the leak went unnoticed: {counts}");
            ensure!(ground.nic()?.counter(Side::A, "tx_leaked")? > 0, "the device did not leak");
            Ok(())
        },
    )
}

/// Somebody empties the kernel's table of SAs, and with it the device: that is noticed, and the tunnel is made anew with other keys.
fn sas_that_somebody_flushes_are_made_anew() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            let before = spis(pair, Side::A)?;
            ground.lab.a.gateway.ip(&["xfrm", "state", "flush"])?;
            life::settle("another SA", || Ok(spis(pair, Side::A)?[1] != before[1]))?;
            peers::carries(&ground.lab, &[Family::V4])
        },
    )
}

/// A device with room for one pair of SAs: a rekeying finds none and the old SA goes on; `auto` would have gone elsewhere.
fn the_device_is_full() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    ground.nic()?.turn(Side::A, "sa_table_size", "2")?;
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            let before = spis(pair, Side::A)?;
            pair.a.swanctl(&["--rekey", "--child", NET4])?;
            life::settle("told why the child is not rekeyed", || Ok(pair.a.log().contains("device wan0 is full")))?;
            ensure!(spis(pair, Side::A)? == before, "other SAs although the device is full");
            peers::carries(&ground.lab, &[Family::V4])?;
            ground.nic()?.turn(Side::A, "sa_table_size", "4096")?;
            life::rekey_child(pair, Side::A, NET4)?;
            peers::carries(&ground.lab, &[Family::V4])
        },
    )
}

/// Whatever the kernel holds for the child names the device through which its peer is reached.
fn sas_and_policies_are_on_one_device() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            life::rekey_child(pair, Side::B, NET4)?;
            for site in [&ground.lab.a, &ground.lab.b] {
                let states = ip(&site.gateway, "xfrm state")?;
                let policies = ip(&site.gateway, "xfrm policy")?;
                let on = format!("dev {OUTER} ");
                let lines: Vec<&str> =
                    states.lines().chain(policies.lines()).filter(|line| line.contains("offload")).collect();
                ensure!(lines.iter().all(|line| line.contains(&on) && line.contains("packet")), "{lines:#?}");
                for spi in spis(pair, site.side)? {
                    ensure!(rung_of(&states, &spi) == Some(Rung::Packet), "{spi} is in software:\n{states}");
                }
            }
            Ok(())
        },
    )
}

/// The second link between the gateways.
const SECOND: &str = "wan1";

/// Two peers' addresses behind two devices: what belongs to a tunnel is in the device that reaches its peer, SAs and policies alike.
fn each_device_has_its_own_tunnel() -> Result<()> {
    let ground = Ground::new(Rung::Packet)?;
    let mut second = Nic::take(1, Mode::Packet)?;
    for (side, host) in [(Side::A, 1), (Side::B, 2)] {
        let gateway = &ground.lab.site(side).gateway;
        second.put(side, gateway, SECOND)?;
        ip(gateway, &format!("address add 198.51.100.{host}/24 dev {SECOND}"))?;
        ip(gateway, &format!("link set {SECOND} up"))?;
    }
    let other = |side| {
        let mut tunnel = only(ground.tunnel(side, Family::V4));
        let (own, far) = if side == Side::A { (1, 2) } else { (2, 1) };
        (tunnel.local, tunnel.remote) = (format!("198.51.100.{own}"), format!("198.51.100.{far}"));
        tunnel.name = "second".into();
        for child in &mut tunnel.children {
            (child.local_ts, child.remote_ts) = (format!("10.{own}1.0.0/24"), format!("10.{far}1.0.0/24"));
            child.name = "far".into();
        }
        tunnel
    };
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            for side in [Side::A, Side::B] {
                pair.side(side).write_tunnels(&[only(ground.tunnel(side, Family::V4)), other(side)])?;
                pair.side(side).load()?;
            }
            for child in [NET4, "far"] {
                pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "20"])?;
            }
            peers::carries(&ground.lab, &[Family::V4])?;
            for site in [&ground.lab.a, &ground.lab.b] {
                for (peer, device) in [("192.0.2.", OUTER), ("198.51.100.", SECOND)] {
                    is_all_on(&ip(&site.gateway, "xfrm state")?, peer, device, 2)?;
                    is_all_on(&ip(&site.gateway, "xfrm policy")?, peer, device, 2)?;
                }
            }
            Ok(())
        },
    )
}

/// What a table of `ip xfrm` has in devices for the peers of a prefix: at least so many entries, all of them in this device.
fn is_all_on(table: &str, peer: &str, device: &str, least: usize) -> Result<()> {
    let entries = table.split("\nsrc ").filter(|entry| entry.contains("proto esp") && entry.contains("offload"));
    let of_peer: Vec<&str> =
        entries.filter(|entry| entry.lines().any(|line| line.contains("dst ") && line.contains(peer))).collect();
    let on = format!("offload parameters: dev {device} ");
    ensure!(
        of_peer.len() >= least && of_peer.iter().all(|entry| entry.contains(&on)),
        "not all on {device}: {of_peer:#?}"
    );
    Ok(())
}

/// SAs that others made survive everything that ours do: a flush at the end of a connection, the end of the daemon, a start after a crash.
fn foreign_sas_survive() -> Result<()> {
    let ground = Ground::new(Rung::Software)?;
    let gateway = &ground.lab.a.gateway;
    let key = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";
    ip(gateway, &format!("xfrm state add {FOREIGN} reqid 1 mode tunnel {key}"))?;
    let template = "tmpl src 203.0.113.1 dst 203.0.113.2 proto esp reqid 1 mode tunnel";
    let selector = "src 10.77.0.0/24 dst 10.78.0.0/24 dir out";
    ip(gateway, &format!("xfrm policy add {selector} priority 5000 {template}"))?;
    let there = |when: &str| -> Result<()> {
        let (states, policies) = (ip(gateway, "xfrm state")?, ip(gateway, "xfrm policy")?);
        ensure!(states.contains("0x0000f0f0"), "the foreign SA is gone {when}:\n{states}");
        ensure!(policies.contains("10.78.0.0/24"), "the foreign policy is gone {when}:\n{policies}");
        Ok(())
    };
    ground.with_pair(
        [&ours(), &ours()],
        |_, tunnel| only(tunnel),
        |ground, pair| {
            life::establish_all(pair, Side::A, &[NET4])?;
            life::delete_ike(pair, Side::A)?;
            there("after a tunnel's end")?;
            life::establish_all(pair, Side::A, &[NET4])?;
            pair.a.process().kill()?;
            pair.a.restart()?;
            there("after a crash")?;
            life::establish_all(pair, Side::A, &[NET4])?;
            peers::carries(&ground.lab, &[Family::V4])?;
            let status = pair.a.process().terminate()?;
            ensure!(status.success(), "ended with {status}");
            there("after the daemon's end")
        },
    )
}

/// What the device does, the child's proposals, and where `hw_offload = auto` ends.
const AUTO: [(&str, Option<Mode>, &str, &str); 6] = [
    ("packet_offload_where_there_is_a_device", Some(Mode::Packet), "aes128gcm16-x25519", "packet wan0"),
    ("crypto_offload_where_there_is_no_more", Some(Mode::Crypto), "aes128gcm16-x25519", "crypto wan0"),
    ("software_on_a_device_that_does_nothing", Some(Mode::None), "aes128gcm16-x25519", "no"),
    ("software_on_a_plain_link", None, "aes128gcm16-x25519", "no"),
    ("software_for_a_cipher_that_no_device_has", Some(Mode::Packet), "chacha20poly1305-x25519", "no"),
    ("software_for_authentication_apart", Some(Mode::Packet), "aes128-sha256-x25519", "no"),
];

fn auto(mode: Option<Mode>, esp: &'static str, listed: &str) -> Result<()> {
    let ground = match mode {
        Some(mode) => Ground::on_nic(Rung::Packet, mode)?,
        None => Ground::new(Rung::Software)?,
    };
    let wished = |_, tunnel| {
        let mut tunnel = only(tunnel);
        for child in &mut tunnel.children {
            child.esp_proposals = esp.into();
            child.options.retain(|option| !option.starts_with("hw_offload"));
        }
        tunnel.with_child_option("hw_offload = auto")
    };
    ground.with_pair([&ours(), &ours()], wished, |ground, pair| {
        life::establish_all(pair, Side::A, &[NET4])?;
        for side in [Side::A, Side::B] {
            let found = life::installed(pair, side, NET4)?.offload;
            ensure!(found == listed, "{side:?} is on `{found}`");
        }
        let wire = ground.wire()?;
        peers::carries(&ground.lab, &[Family::V4])?;
        life::rekey_child(pair, Side::B, NET4)?;
        peers::carries(&ground.lab, &[Family::V4])?;
        only_esp(&wire.finish()?).context("captured")
    })
}
