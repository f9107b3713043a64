//! A storm of mutated datagrams at a running daemon: it neither ends nor grows, and the tunnel carries traffic afterwards.
//!
//! The mutations start from what two daemons really said to each other: the handshake, rekeys, liveness and ESP packets. Whatever
//! lies under encryption fails its integrity check here; mutations below it need the keys and belong to the tests of the core.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::classify::Class;
use lab::frame::{ETHERNET, Network, UDP, mend_checksum, parse};
use lab::packet::PacketSocket;
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::random::Random;
use lab::topology::{FAMILIES, Lab, Middle, OUTER, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, peers};

/// Datagrams before memory is measured first.
const WARM_UP: u32 = 100_000;
/// Datagrams between the two measurements.
const STORM: u32 = 1_000_000;
/// What the daemon may grow by.
const GROWTH_KIB: u64 = 4 * 1_024;
/// Between two batches, so that the receiver's queue does not simply overflow.
const BATCH: u32 = 64;
const PAUSE: Duration = Duration::from_micros(600);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("storm::mutated_ike", || run(|class| class == Class::Ike, 0x1234_5678)),
        trial("storm::mutated_native_esp", || run(|class| matches!(class, Class::Esp(_)), 0x9abc_def0)),
        trial("storm::mutated_esp_in_udp", || run(|class| matches!(class, Class::UdpEsp(_)), 0x0fed_cba9)),
    ]
}

fn run(wanted: fn(Class) -> bool, seed: u64) -> Result<()> {
    let in_udp = wanted(Class::UdpEsp(1_000));
    let configure = |_, tunnel: Tunnel| Tunnel { encap: in_udp, ..tunnel };
    with_pair(&Middle::Direct, peers::ours()?, configure, |lab, pair| {
        let templates = conversation(lab, pair, wanted)?;
        let mut random = Random::new(seed);
        let socket = PacketSocket::open(&lab.b.gateway, OUTER)?;
        throw(&socket, &templates, WARM_UP, &mut random)?;
        let before = resident_kib(&mut pair.a)?;
        throw(&socket, &templates, STORM, &mut random)?;
        let after = resident_kib(&mut pair.a)?;
        let lost = receive_errors(lab)?;
        println!(
            "seed {seed:#x}: {STORM} datagrams from {} templates, {before} -> {after} KiB, {lost} never read",
            templates.len()
        );
        ensure!(pair.a.process().is_running(), "the daemon ended, seed {seed:#x}");
        ensure!(after <= before + GROWTH_KIB, "grew from {before} to {after} KiB, seed {seed:#x}");
        ensure!(
            lost < u64::from(STORM / 2),
            "{lost} datagrams never reached the daemon: the storm was too fast to mean anything"
        );
        for family in FAMILIES {
            let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
            let answered = ping::ping(&lab.a.host, source, target, 5, Duration::from_secs(1))?;
            ensure!(answered == 5, "{family:?}: {answered} of 5 after the storm, seed {seed:#x}");
        }
        life::rekey_child(pair, Side::B, "net4")?;
        life::rekey_ike(pair, Side::A)
    })
}

/// What gateway B says to gateway A over the life of a tunnel.
fn conversation(lab: &Lab, pair: &Pair<'_>, wanted: fn(Class) -> bool) -> Result<Vec<Vec<u8>>> {
    let capture = lab.capture()?;
    life::establish(pair, Side::B)?;
    let streams = life::streams(lab)?;
    life::rekey_child(pair, Side::B, "net4")?;
    life::rekey_ike(pair, Side::B)?;
    life::rekey_child(pair, Side::A, "net6")?;
    life::all_arrived(streams)?;
    let [captured, _] = capture.finish()?;
    let templates: Vec<Vec<u8>> = from_b(lab, &captured, wanted).collect();
    ensure!(templates.len() >= 5, "only {} datagrams to start from", templates.len());
    Ok(templates)
}

fn from_b<'a>(lab: &'a Lab, captured: &'a Captured, wanted: fn(Class) -> bool) -> impl Iterator<Item = Vec<u8>> + 'a {
    let sender = FAMILIES.map(|family| lab.b.outer_address(family));
    captured.frames.iter().filter(move |frame| wanted(frame.class)).filter_map(move |frame| {
        match parse(&frame.octets) {
            Network::Ip(packet) if sender.contains(&packet.source) => Some(frame.octets.clone()),
            Network::Ip(_) | Network::Arp | Network::Other => None,
        }
    })
}

fn throw(socket: &PacketSocket, templates: &[Vec<u8>], count: u32, random: &mut Random) -> Result<()> {
    for number in 0..count {
        let template = templates.get(pick(random, templates.len())).context("a template")?;
        socket.send(&mutated(template, random))?;
        if number % BATCH == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    // What is still queued is read before anything is measured.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// A copy of an IPv4 frame with its payload changed in a few octets, cut or lengthened; headers below stay right.
fn mutated(template: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = template.to_vec();
    let is_udp = frame.get(ETHERNET + 9) == Some(&UDP);
    let start = ETHERNET + 20 + if is_udp { 8 } else { 0 };
    if random.below(8) == 0 {
        let shortest = start + 1;
        frame.truncate(shortest + pick(random, frame.len().saturating_sub(shortest)));
    } else if random.below(8) == 0 {
        let extra = pick(random, 64);
        frame.extend((0..extra).map(|_| random.below(256) as u8));
    }
    for _ in 0..=random.below(6) {
        let at = start + pick(random, frame.len().saturating_sub(start));
        if let Some(octet) = frame.get_mut(at) {
            *octet = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => *octet ^ (1 << random.below(8)),
                _ => random.below(256) as u8,
            };
        }
    }
    mend_lengths(&mut frame, is_udp);
    frame
}

fn mend_lengths(frame: &mut [u8], is_udp: bool) {
    let length = u16::try_from(frame.len() - ETHERNET).unwrap_or(u16::MAX);
    let mut write = |at: usize, value: u16| {
        if let Some(field) = frame.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    write(ETHERNET + 2, length);
    write(ETHERNET + 10, 0);
    if is_udp {
        write(ETHERNET + 24, length - 20);
    }
    let sum = lab::frame::checksum(0, frame.get(ETHERNET..ETHERNET + 20).unwrap_or_default());
    if let Some(field) = frame.get_mut(ETHERNET + 10..ETHERNET + 12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    mend_checksum(frame);
}

fn resident_kib(daemon: &mut Daemon<'_>) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process().id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Datagrams that gateway A's kernel dropped because nobody read them in time.
fn receive_errors(lab: &Lab) -> Result<u64> {
    let table = lab.a.gateway.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RcvbufErrors");
    Ok(found.context("no RcvbufErrors")?.1.parse()?)
}

/// A position in something of this length.
fn pick(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(length.max(1) as u64)).unwrap_or(0)
}
