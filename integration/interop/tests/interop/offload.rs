//! Simulated NICs with limits, in real daemons: what is refused and in which words, on which rung `auto` ends, and that packets flow there.
//!
//! Gateway A poses as a NIC, gateway B does not: offload is each end's own business.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::charon::Charon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, OUTER, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

/// Packets after which an SA without extended sequence numbers is rekeyed at the latest: three quarters of what 32 bits can count.
const SOFT_WITHOUT_ESN: u64 = 3 << 30;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> =
        LADDER.iter().map(|step| trial(format!("offload::auto_ends_on_{}", step.name), move || ladder(step))).collect();
    trials.extend(
        REFUSALS
            .iter()
            .map(|refusal| trial(format!("offload::packet_is_refused_for_{}", refusal.name), move || refused(refusal))),
    );
    trials.extend([
        trial("offload::a_nic_like_an_mlx5_talks_to_charon", a_nic_like_an_mlx5_talks_to_charon),
        trial("offload::the_second_child_finds_the_tables_full", the_second_child_finds_the_tables_full),
        trial("offload::links_pose_as_devices", links_pose_as_devices),
        trial("offload::without_esn_packets_are_limited_by_themselves", without_esn_packets_are_limited_by_themselves),
        trial("offload::a_running_device_takes_orders", a_running_device_takes_orders),
        trial("offload::a_daemon_without_simulation_takes_no_orders", a_daemon_without_simulation_takes_no_orders),
    ]);
    trials
}

/// A gateway that poses as a NIC with these limits.
fn nic(limits: &str) -> Cygnet {
    let extra = format!("[backend.userspace]\nsimulate_packet_device = true\n[backend.userspace.limits]\n{limits}\n");
    Cygnet { extra, log: String::new() }
}

const PLAIN: Cygnet = Cygnet { extra: String::new(), log: String::new() };

/// The tunnel of a side, where only A wants offload; `esp` on both.
fn wants(side: Side, mut tunnel: Tunnel, offload: &str, esp: &str) -> Tunnel {
    for child in &mut tunnel.children {
        esp.clone_into(&mut child.esp_proposals);
        if side == Side::A {
            child.options.push(format!("hw_offload = {offload}"));
        }
    }
    // A may be behind a NAT, so that B cannot know its address.
    if side == Side::B {
        "%any".clone_into(&mut tunnel.remote);
    }
    tunnel
}

fn initiate(pair: &Pair<'_>, child: &str) -> Result<String> {
    pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "30"])
}

fn pings(lab: &Lab, from: Side) -> Result<u16> {
    let (here, there) = (lab.site(from), lab.site(from.other()));
    ping::ping(&here.host, here.host_address(Family::V4), there.host_address(Family::V4), 5, Duration::from_secs(3))
}

struct Step {
    name: &'static str,
    limits: &'static str,
    middle: Middle,
    esp: &'static str,
    shown: &'static str,
}

const GCM: &str = "aes128gcm16-x25519";

const LADDER: &[Step] = &[
    Step {
        name: "packet",
        limits: "crypto = true",
        middle: Middle::Direct,
        esp: GCM,
        shown: "packet cygnet0 simulated",
    },
    Step {
        name: "crypto_for_a_cipher",
        limits: "crypto = true\nciphers = [\"aes256gcm16\"]",
        middle: Middle::Direct,
        esp: GCM,
        shown: "crypto cygnet0 simulated",
    },
    Step {
        name: "software_for_a_cipher",
        limits: "crypto = true\nciphers = [\"aes256gcm16\"]\ncrypto_ciphers = [\"aes256gcm16\"]",
        middle: Middle::Direct,
        esp: GCM,
        shown: "no",
    },
    Step {
        name: "the_cipher_that_packet_offload_has",
        limits: "crypto = true\nciphers = [\"aes256gcm16\"]",
        middle: Middle::Direct,
        esp: "aes256gcm16-x25519",
        shown: "packet cygnet0 simulated",
    },
    Step {
        name: "crypto_for_extended_sequence_numbers",
        limits: "crypto = true\nesn = false",
        middle: Middle::Direct,
        esp: "aes128gcm16-x25519-esn",
        shown: "crypto cygnet0 simulated",
    },
    Step {
        name: "crypto_where_packet_offload_is_full",
        limits: "crypto = true\nsa_table = 1",
        middle: Middle::Direct,
        esp: GCM,
        shown: "crypto cygnet0 simulated",
    },
    Step {
        name: "software_behind_nat",
        limits: "like = \"mlx5\"\ncrypto = true",
        middle: Middle::NatBeforeA,
        esp: GCM,
        shown: "no",
    },
    Step {
        name: "packet_behind_nat",
        limits: "crypto = true",
        middle: Middle::NatBeforeA,
        esp: GCM,
        shown: "packet cygnet0 simulated",
    },
];

/// The rung is the best that carries what is asked, it is shown everywhere, and packets flow on it both ways.
fn ladder(step: &'static Step) -> Result<()> {
    let configure = |side, tunnel| wants(side, tunnel, "auto", step.esp);
    with_pair(&step.middle, [&nic(step.limits), &PLAIN], configure, |lab, pair| {
        initiate(pair, "net4")?;
        let shown = life::installed(pair, Side::A, "net4")?.offload;
        ensure!(shown == step.shown, "net4 is on \"{shown}\", not on \"{}\"", step.shown);
        ensure!(life::installed(pair, Side::B, "net4")?.offload == "no", "B has no NIC");
        for from in [Side::A, Side::B] {
            let answered = pings(lab, from)?;
            ensure!(answered == 5, "{answered} of 5 pings from {from:?} were answered on \"{shown}\"");
        }
        life::rekey_child(pair, Side::A, "net4")?;
        let shown = life::installed(pair, Side::A, "net4")?.offload;
        ensure!(shown == step.shown, "after rekeying net4 is on \"{shown}\", not on \"{}\"", step.shown);
        ensure!(pings(lab, Side::A)? == 5, "not all pings were answered after rekeying");
        Ok(())
    })
}

struct Refusal {
    name: &'static str,
    limits: &'static str,
    middle: Middle,
    esp: &'static str,
    option: &'static str,
    /// What the refusal has to speak of.
    speaks_of: &'static [&'static str],
}

const fn refusal(
    name: &'static str,
    limits: &'static str,
    option: &'static str,
    speaks_of: &'static [&'static str],
) -> Refusal {
    Refusal { name, limits, middle: Middle::Direct, esp: GCM, option, speaks_of }
}

const REFUSALS: &[Refusal] = &[
    refusal("a_cipher", "ciphers = [\"aes256gcm16\"]", "", &["cygnet0 (simulated)", "256 bits, not 128"]),
    refusal("tunnel_mode", "tunnel = false", "", &["cygnet0 (simulated)", "transport mode only"]),
    refusal("a_window", "replay_windows = [32, 64]", "replay_window = 1024", &["cygnet0 (simulated)", "1024", "64"]),
    refusal("udp_encapsulation_that_is_wanted", "udp_encapsulation = false", "encap", &["cygnet0 (simulated)", "UDP"]),
    refusal("a_full_table", "sa_table = 1", "", &["cygnet0 (simulated)"]),
    Refusal {
        esp: "aes128gcm16-x25519-esn",
        ..refusal("extended_sequence_numbers", "esn = false", "", &["cygnet0 (simulated)", "sequence numbers"])
    },
    Refusal {
        middle: Middle::NatBeforeA,
        ..refusal("nat_on_the_way", "udp_encapsulation = false", "", &["cygnet0 (simulated)", "UDP"])
    },
    refusal("a_nic_without_packet_offload", "packet = false\ncrypto = true", "", &["packet"]),
];

/// Whether at load or when it is to come up: there is one sentence that names the device and what it cannot, and nothing comes up instead.
fn refused(refusal: &'static Refusal) -> Result<()> {
    let configure = |side, tunnel| {
        let mut tunnel = wants(side, tunnel, "packet", refusal.esp);
        match refusal.option {
            "" => {}
            "encap" => tunnel.encap = side == Side::A,
            option => tunnel.children.iter_mut().for_each(|child| child.options.push(option.to_owned())),
        }
        tunnel
    };
    with_pair(&refusal.middle, [&nic(refusal.limits), &PLAIN], configure, |_, pair| {
        let load = pair.a.load();
        let asked = initiate(pair, "net4");
        ensure!(asked.is_err(), "net4 came up with \"{}\"", life::installed(pair, Side::A, "net4")?.offload);
        let status = String::from_utf8_lossy(&pair.a.cygnet(&["status"])?.stdout).into_owned();
        let words = format!("{load:?}\n{asked:?}\n{status}\n{}", pair.a.log_tail(80));
        // One line says it all.
        let said = words.lines().any(|line| refusal.speaks_of.iter().all(|word| line.contains(word)));
        ensure!(said, "no line speaks of {:?}:\n{words}", refusal.speaks_of);
        ensure!(pair.a.sas()?.iter().all(|sa| sa.children.is_empty()), "something came up instead");
        Ok(())
    })
}

/// Whom it talks to does not matter: both ways, and over rekeyings from both ends. charon with its own ESP insists on ESP in UDP.
fn a_nic_like_an_mlx5_talks_to_charon() -> Result<()> {
    let configure = |side, tunnel| match side {
        Side::A => wants(side, tunnel, "packet", GCM),
        Side::B => tunnel,
    };
    with_pair(&Middle::Direct, [&nic("like = \"mlx5\"\nudp_encapsulation = true"), &Charon], configure, |lab, pair| {
        initiate(pair, "net4")?;
        for rekeys in [None, Some(Side::A), Some(Side::B)] {
            rekeys.map(|from| life::rekey_child(pair, from, "net4")).transpose()?;
            let shown = life::installed(pair, Side::A, "net4")?.offload;
            ensure!(shown == "packet cygnet0 simulated", "net4 is on \"{shown}\" after {rekeys:?}");
            for from in [Side::A, Side::B] {
                let answered = pings(lab, from)?;
                ensure!(answered == 5, "{answered} of 5 pings from {from:?} were answered after {rekeys:?}");
            }
        }
        Ok(())
    })
}

/// The device has room for one child with its successor and not for a second one. Where software may do, it does, and also for a successor that is refused
/// nevertheless. Where it may not, the second child is refused, and the first keeps what it has.
fn the_second_child_finds_the_tables_full() -> Result<()> {
    for (offload, other) in [("auto", Some("no")), ("packet", None)] {
        let configure = |side, tunnel| wants(side, tunnel, offload, GCM);
        with_pair(&Middle::Direct, [&nic("sa_table = 4"), &PLAIN], configure, |lab, pair| {
            initiate(pair, "net4")?;
            let first = life::installed(pair, Side::A, "net4")?;
            ensure!(first.offload == "packet cygnet0 simulated", "net4 is on \"{}\"", first.offload);
            let asked = initiate(pair, "net6");
            if let Some(mode) = other {
                let shown = life::installed(pair, Side::A, "net6")?.offload;
                ensure!(shown == mode, "net6 is on \"{shown}\"");
                let refused = ["refuse", "--step", "inbound-sa", "--mode", "packet", "--error", "full"];
                for (order, mode) in [(None, first.offload.as_str()), (Some(refused), mode)] {
                    order.map(|order| simulate(pair, &order)).transpose()?;
                    life::rekey_child(pair, Side::A, "net4")?;
                    // What lingers of the one before leaves room for the next.
                    life::settle("the predecessor is gone", || {
                        let sas = pair.a.sas()?;
                        Ok(sas.iter().flat_map(|sa| &sa.children).filter(|child| child.name == "net4").count() == 1)
                    })?;
                    let shown = life::installed(pair, Side::A, "net4")?.offload;
                    ensure!(shown == mode, "the successor of net4 is on \"{shown}\"");
                }
            } else {
                let words = format!("{asked:?}");
                let said = words.contains("cygnet0 (simulated)") && words.contains("is full");
                ensure!(asked.is_err() && said, "net6 with full tables: {words}");
                simulate(pair, &["refuse", "--step", "inbound-sa", "--error", "full"])?;
                pair.a.swanctl(&["--rekey", "--child", "net4"])?;
                // As long as an exchange takes many times over.
                std::thread::sleep(Duration::from_secs(1));
                let kept = life::installed(pair, Side::A, "net4")?;
                ensure!(
                    (&kept.spi_in, &kept.spi_out) == (&first.spi_in, &first.spi_out),
                    "net4 was replaced: {kept:?}"
                );
                ensure!(life::installed(pair, Side::B, "net4")?.spi_in == first.spi_out, "B has replaced net4");
            }
            ensure!(pings(lab, Side::A)? == 5, "not all pings were answered");
            Ok(())
        })?;
    }
    Ok(())
}

/// Each link is a NIC, and the route to the peer says which one it is.
fn links_pose_as_devices() -> Result<()> {
    let extra = "[backend.userspace]\nsimulate_packet_device = true\nsimulated_devices = \"links\"\n";
    let links = Cygnet { extra: extra.into(), log: String::new() };
    let configure = |side, tunnel| wants(side, tunnel, "packet", GCM);
    with_pair(&Middle::Direct, [&links, &PLAIN], configure, |lab, pair| {
        initiate(pair, "net4")?;
        let shown = life::installed(pair, Side::A, "net4")?.offload;
        ensure!(shown == format!("packet {OUTER} simulated"), "net4 is on \"{shown}\"");
        ensure!(pings(lab, Side::B)? == 5, "not all pings were answered");
        Ok(())
    })
}

/// Three quarters of the sequence numbers and no more: the device raises its packet limit, and the child is rekeyed.
//= RFC 4303 §3.3.3: the sender ensures that the counter does not cycle
fn without_esn_packets_are_limited_by_themselves() -> Result<()> {
    let configure = |side, tunnel| wants(side, tunnel, "packet", GCM);
    with_pair(&Middle::Direct, [&nic("esn = false"), &PLAIN], configure, |lab, pair| {
        initiate(pair, "net4")?;
        let before = life::installed(pair, Side::A, "net4")?;
        simulate(
            pair,
            &["carried", "--child", "net4", "--direction", "out", "--packets", &(SOFT_WITHOUT_ESN / 2).to_string()],
        )?;
        ensure!(pings(lab, Side::A)? == 5, "not all pings were answered");
        // What is taken off at random is at most a third, so that rekeyings spread.
        ensure!(life::installed(pair, Side::A, "net4")?.spi_out == before.spi_out, "rekeyed long before the limit");
        simulate(
            pair,
            &["carried", "--child", "net4", "--direction", "out", "--packets", &(SOFT_WITHOUT_ESN / 2).to_string()],
        )?;
        ensure!(pings(lab, Side::A)? == 5, "not all pings were answered at the limit");
        life::settle("rekeyed at the packet limit", || {
            Ok(life::installed(pair, Side::A, "net4")?.spi_out != before.spi_out)
        })?;
        ensure!(pings(lab, Side::A)? == 5, "not all pings were answered after rekeying");
        Ok(())
    })
}

/// Has a simulated device at A go wrong.
fn simulate(pair: &Pair<'_>, order: &[&str]) -> Result<String> {
    let output = pair.a.cygnet(&[&["simulate"], order].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{order:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn a_running_device_takes_orders() -> Result<()> {
    let configure = |side, tunnel| wants(side, tunnel, "auto", GCM);
    with_pair(&Middle::Direct, [&nic("crypto = true"), &PLAIN], configure, |lab, pair| {
        // A refusal that nobody could foresee: one rung further down.
        simulate(pair, &["refuse", "--step", "outbound-sa", "--mode", "packet", "--error", "unsupported"])?;
        initiate(pair, "net4")?;
        let shown = life::installed(pair, Side::A, "net4")?.offload;
        ensure!(shown == "crypto cygnet0 simulated", "net4 is on \"{shown}\"");
        ensure!(pings(lab, Side::A)? == 5, "not all pings were answered");
        let before = life::installed(pair, Side::A, "net4")?;
        // A limit that is reached now.
        ensure!(simulate(pair, &["soft-expire", "--child", "net4", "--direction", "out"])? == "soft-expire: 1\n");
        life::settle("rekeyed when told that a limit is reached", || {
            Ok(life::installed(pair, Side::A, "net4")?.spi_out != before.spi_out)
        })?;
        pair.a.wait_for("the better rung is taken again", SOON, |sas| {
            sas.iter().any(|sa| sa.installed("net4").is_some_and(|net4| net4.offload == "packet cygnet0 simulated"))
        })?;
        // One SA vanishes with a word: the tunnel is made again.
        let before = life::installed(pair, Side::A, "net4")?;
        simulate(pair, &["lose-sas", "--spi", &before.spi_out, "--direction", "out"])?;
        life::settle("established again after a loss", || {
            Ok(life::installed(pair, Side::A, "net4")?.spi_out != before.spi_out)
        })?;
        life::settle("packets flow again", || Ok(pings(lab, Side::A)? == 5))?;
        let odd = pair.a.cygnet(&["simulate", "device-down", "--device", "eth9"])?;
        ensure!(odd.status.code() == Some(2), "an unknown device ends with {:?}", odd.status);
        Ok(())
    })
}

fn a_daemon_without_simulation_takes_no_orders() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&PLAIN, &PLAIN],
        |_, tunnel| tunnel,
        |_, pair| {
            let output = pair.a.cygnet(&["simulate", "device-down"])?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(2) && text.contains("simulate_packet_device"),
                "{:?}: {text}",
                output.status
            );
            Ok(())
        },
    )
}
