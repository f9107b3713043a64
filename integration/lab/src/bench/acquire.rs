//! How long a packet takes that brings its tunnel up: from the LAN host that sends it to the LAN host that gets it, through two daemons.
//!
//! Cold, one after another: with nothing there (IKE_SA_INIT, IKE_AUTH, installs), and with the IKE SA there (CREATE_CHILD_SA with a key exchange
//! of its own, installs). Then many traps at once, each hit by one packet, over a few IKE SAs. Every packet that asked must arrive, once.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::frame::{self, Network, UDP};
use lab::packet::{LARGEST_FRAME, PacketSocket};
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer, audit};
use lab::process::uninterrupted;
use lab::topology::{Family, HOST, Lab, Middle, Side};

use crate::quantiles::quantiles;

/// The child of the single tunnel.
const CHILD: &str = "net4";
/// A packet that has not come by then was lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// All traps must be up by then: packets wait for half a minute.
const ALL_UP: Duration = Duration::from_secs(29);
/// A tunnel that is closed is gone within this time.
const GONE: Duration = Duration::from_secs(30);
/// Traps of one connection, and so CHILD SAs of one IKE SA.
const OF_A_CONNECTION: usize = 200;
/// Packets that the kernel keeps for a TUN device unless told otherwise.
const TUN_QUEUE: u32 = 500;
/// Port of the first trap.
const FIRST_PORT: u16 = 20_000;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cold acquires of each kind
    #[arg(long, default_value_t = 200)]
    samples: u32,
    /// Traps that are hit at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    traps: u16,
}

/// Runs the measurements; true when every packet arrived once and nothing left in clear.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let cold = cold(options)?;
    let many = many(options)?;
    Ok(cold && many)
}

fn with_daemons(
    tunnels: impl Fn(&Lab, Side) -> Vec<Tunnel>,
    run: impl FnOnce(&Lab, &[Daemon<'_>; 2]) -> Result<bool>,
) -> Result<bool> {
    let lab = Lab::new(&Middle::Direct)?;
    let cygnet = Cygnet { extra: String::new(), log: "warn".into() };
    let peer: &dyn Peer = &cygnet;
    let start = |side: Side| {
        let directory = lab.directory().join(side.letter());
        Daemon::start(peer, &lab.site(side).gateway, &directory, &tunnels(&lab, side))
    };
    // The one that answers first: nothing is to be repeated.
    let b = start(Side::B)?;
    let daemons = [start(Side::A)?, b];
    let outcome = run(&lab, &daemons);
    if !matches!(outcome, Ok(true)) {
        let [a, b] = &daemons;
        eprintln!("log of gateway A:\n{}\nlog of gateway B:\n{}", a.log_tail(40), b.log_tail(40));
    }
    outcome
}

/// What is closed between two packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cold {
    Everything,
    TheChild,
}

fn cold(options: &Options) -> Result<bool> {
    let tunnels = |lab: &Lab, side: Side| {
        let mut tunnel = Tunnel::between(lab, side, Family::V4);
        tunnel.children.retain(|child| child.name == CHILD);
        vec![if side == Side::A { tunnel.with_child_option("start_action = trap") } else { tunnel }]
    };
    with_daemons(tunnels, |lab, daemons| {
        let mut clean = true;
        for (kind, name) in [(Cold::Everything, "without an IKE SA"), (Cold::TheChild, "below an IKE SA")] {
            let capture = lab.capture()?;
            let times = samples(lab, daemons, kind, options.samples)?;
            let clear: u64 = capture.finish()?.iter().map(|side| side.counts.clear).sum();
            let delivered = times.len();
            let [median, p99, longest] = quantiles(times).map(|time| time.as_secs_f64() * 1e3);
            println!(
                "acquire to delivery {name}: median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms; {delivered} of {} delivered, in-clear {clear}",
                options.samples
            );
            clean &= clear == 0 && delivered == options.samples as usize;
        }
        Ok(clean)
    })
}

/// The times of those packets that arrived.
fn samples(lab: &Lab, daemons: &[Daemon<'_>; 2], kind: Cold, count: u32) -> Result<Vec<Duration>> {
    let [a, b] = daemons;
    let receiver = lab.b.host.run(|| UdpSocket::bind(SocketAddr::new(lab.b.host_address(Family::V4), 0)))??;
    let sender = lab.a.host.run(|| UdpSocket::bind(SocketAddr::new(lab.a.host_address(Family::V4), 0)))??;
    sender.connect(receiver.local_addr()?)?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut times = Vec::new();
    for number in 0..count {
        close(a, b, kind)?;
        let sent = Instant::now();
        sender.send(&number.to_be_bytes())?;
        let mut packet = [0; 16];
        if let Ok(length) = uninterrupted(|| receiver.recv(&mut packet)) {
            let time = sent.elapsed();
            ensure!(packet.get(..length) == Some(&number.to_be_bytes()), "another packet than number {number} arrived");
            times.push(time);
        }
    }
    Ok(times)
}

fn close(a: &Daemon<'_>, b: &Daemon<'_>, kind: Cold) -> Result<()> {
    if kind == Cold::Everything {
        if !a.sas_at_once()?.is_empty() {
            a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
        }
        return audit::gone(a, b, GONE);
    }
    let children =
        |daemon: &Daemon<'_>| -> Result<usize> { Ok(daemon.sas_at_once()?.iter().map(|sa| sa.children.len()).sum()) };
    if a.sas_at_once()?.is_empty() {
        a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    }
    if children(a)? > 0 {
        a.swanctl(&["--terminate", "--child", CHILD, "--timeout", "30"])?;
    }
    let started = Instant::now();
    while children(a)? + children(b)? > 0 {
        ensure!(started.elapsed() < GONE, "the child does not end");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A trap for each port of the other LAN's host.
fn trap_tunnels(lab: &Lab, side: Side, traps: u16) -> Vec<Tunnel> {
    let (here, there) = (lab.site(side).host_address(Family::V4), lab.site(side.other()).host_address(Family::V4));
    let ports: Vec<u16> = (0..traps).map(|number| FIRST_PORT + number).collect();
    let child = |port: u16| {
        let (server, client) = (format!("[udp/{port}]"), "[udp]");
        let (local, remote) = if side == Side::A { (client, server.as_str()) } else { (server.as_str(), client) };
        Child {
            name: format!("port{port}"),
            local_ts: format!("{here}/32{local}"),
            remote_ts: format!("{there}/32{remote}"),
            esp_proposals: "aes128gcm16-x25519".into(),
            options: if side == Side::A { vec!["start_action = trap".into()] } else { Vec::new() },
        }
    };
    let tunnel = |(number, ports): (usize, &[u16])| {
        let mut tunnel = Tunnel::between(lab, side, Family::V4);
        tunnel.name = format!("site{number}");
        tunnel.local_id = format!("gw-{}-{number}.example", side.letter());
        tunnel.remote_id = format!("gw-{}-{number}.example", side.other().letter());
        tunnel.children = ports.iter().copied().map(child).collect();
        tunnel
    };
    ports.chunks(OF_A_CONNECTION).enumerate().map(tunnel).collect()
}

fn many(options: &Options) -> Result<bool> {
    let traps = options.traps;
    with_daemons(
        |lab, side| trap_tunnels(lab, side, traps),
        |lab, daemons| {
            let [a, _] = daemons;
            // The kernel keeps 500 packets for a TUN device whose reader has no processor, and throws away what comes then. Not all are the traps'.
            let queue = u32::from(traps) + TUN_QUEUE;
            lab.a.gateway.ip(&["link", "set", "cygnet0", "txqueuelen", &queue.to_string()])?;
            let capture = lab.capture()?;
            let (arrived, time) = hit_all(lab, traps)?;
            let clear: u64 = capture.finish()?.iter().map(|side| side.counts.clear).sum();
            let (ikes, up) = up(a)?;
            let once = arrived.values().filter(|count| **count == 1).count();
            println!(
                "acquire of {traps} traps at once: {up} up below {ikes} IKE SAs, {once} of {traps} packets delivered once, the last after {:.2} s, in-clear {clear}",
                time.as_secs_f64()
            );
            let connections = usize::from(traps).div_ceil(OF_A_CONNECTION);
            Ok(clear == 0 && (up, ikes, once) == (usize::from(traps), connections, usize::from(traps)))
        },
    )
}

/// One packet to each trap as fast as they go. Gives how often each arrived, and when the last one did.
fn hit_all(lab: &Lab, traps: u16) -> Result<(BTreeMap<u16, u32>, Duration)> {
    let receiver = PacketSocket::open(&lab.b.host, HOST)?;
    let sender = lab.a.host.run(|| UdpSocket::bind(SocketAddr::new(lab.a.host_address(Family::V4), 0)))??;
    let target = lab.b.host_address(Family::V4);
    let started = Instant::now();
    for port in FIRST_PORT..FIRST_PORT + traps {
        sender.send_to(&port.to_be_bytes(), (target, port)).with_context(|| format!("to port {port}"))?;
    }
    let (mut arrived, mut last, mut buffer) = (BTreeMap::new(), Duration::ZERO, vec![0; LARGEST_FRAME]);
    while arrived.len() < usize::from(traps) {
        if started.elapsed() > ALL_UP {
            bail!("{} of {traps} packets after {} s", arrived.len(), ALL_UP.as_secs());
        }
        receiver.wait(Duration::from_millis(20))?;
        while let Some(octets) = receiver.receive(&mut buffer)? {
            if let Some(port) = trap_of(octets) {
                *arrived.entry(port).or_insert(0) += 1;
                last = started.elapsed();
            }
        }
    }
    Ok((arrived, last))
}

/// The port of a packet that was sent to a trap.
fn trap_of(octets: &[u8]) -> Option<u16> {
    let Network::Ip(packet) = frame::parse(octets) else { return None };
    let (_, port) = frame::ports(&packet).filter(|_| packet.protocol == UDP)?;
    (packet.payload.get(8..10) == Some(&port.to_be_bytes())).then_some(port)
}

/// IKE SAs, and children that are installed.
fn up(daemon: &Daemon<'_>) -> Result<(usize, usize)> {
    let sas = daemon.sas_at_once()?;
    let installed = sas.iter().flat_map(|sa| &sa.children).filter(|child| child.state == "INSTALLED");
    Ok((sas.len(), installed.count()))
}
