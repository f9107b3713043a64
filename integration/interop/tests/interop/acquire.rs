//! Packets that ask for their tunnel: ten thousand of them at once, and while the peer is away.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::frame::{self, Network, UDP};
use lab::packet::{LARGEST_FRAME, PacketSocket};
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer, audit};
use lab::relay::{Profile, Relay};
use lab::topology::{Family, HOST, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

/// The only child; gateway A has a trap for it.
const CHILD: &str = "net4";
/// Packets of the storm.
const STORM: u32 = 10_000;
/// Hosts it comes from: their ports are different flows of one trap.
const FLOWS: usize = 100;
/// The data path holds so many of them for a trap.
const HELD: u32 = 64;
/// IKE_SA_INIT (RFC 7296 §3.1).
const IKE_SA_INIT: u8 = 34;
/// A peer that does not answer is given up after 0.4 + 0.7 + 1.3 + 2.3 s.
const IMPATIENT: &str = "[ike]\nretransmit_timeout = 0.4\nretransmit_tries = 3\n";
/// Until the path is back in use, an attempt and a wait later.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for peer in ["cygnet", "charon"] {
        trials.push(trial(format!("acquire::storm::{peer}"), move || with(peer, storm)));
        trials.push(trial(format!("acquire::peer_away_then_back::{peer}"), move || with(peer, away_then_back)));
    }
    trials
}

fn with(peer: &str, test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>) -> Result<()> {
    let ours = Cygnet { extra: IMPATIENT.into(), log: String::new() };
    let pair: [&dyn Peer; 2] = [&ours, peers::by_name(peer)?];
    let configure = |side: Side, mut tunnel: Tunnel| {
        tunnel.children.retain(|child| child.name == CHILD);
        if side == Side::A { tunnel.with_child_option("start_action = trap") } else { tunnel }
    };
    let path = Profile { delay: Duration::from_millis(10), ..Profile::CLEAN };
    with_pair(&Middle::Relay(path), pair, configure, test)
}

fn relay(lab: &Lab) -> Result<&Relay> {
    lab.relay.as_ref().context("no relay")
}

/// IKE SAs that were begun, repetitions counted once.
fn begun(lab: &Lab) -> Result<usize> {
    let seen = relay(lab)?.ike_seen(0);
    let first = seen.iter().filter(|message| message.exchange == IKE_SA_INIT && !message.is_response);
    let mut spis: Vec<u64> = first.map(|message| message.spis.0).collect();
    spis.sort_unstable();
    spis.dedup();
    Ok(spis.len())
}

/// The path is cut until all packets of the storm have met the trap. Then the first ones that came arrive, in order and once; what found no
/// room is dropped and told; nothing leaves in clear, and one negotiation was made for all of them.
fn storm(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let capture = lab.capture()?;
    // The kernel's own queue in front of the data path is to lose nothing.
    lab.a.gateway.ip(&["link", "set", "cygnet0", "txqueuelen", "20000"])?;
    let receiver = PacketSocket::open(&lab.b.host, HOST)?;
    let target = SocketAddr::new(lab.b.host_address(Family::V4), 20_000);
    let bind = || UdpSocket::bind(SocketAddr::new(lab.a.host_address(Family::V4), 0));
    let senders = lab.a.host.run(|| (0..FLOWS).map(|_| bind()).collect::<std::io::Result<Vec<_>>>())??;
    relay(lab)?.cut(true);
    for (number, sender) in (0..STORM).zip(senders.iter().cycle()) {
        sender.send_to(&number.to_be_bytes(), target)?;
    }
    life::settle("the data path has taken the storm", || {
        let text = lab.a.gateway.command("cat", &["/sys/class/net/cygnet0/statistics/tx_packets"])?;
        Ok(text.trim().parse::<u32>()? >= STORM)
    })?;
    relay(lab)?.cut(false);
    pair.a.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&[CHILD])))?;
    let mut arrived = Vec::new();
    life::settle("what was held arrives", || {
        arrived.extend(numbers(&receiver, target.port())?);
        Ok(arrived.len() >= HELD as usize)
    })?;
    // Nothing else does.
    thread::sleep(Duration::from_secs(1));
    arrived.extend(numbers(&receiver, target.port())?);
    ensure!(arrived == (0..HELD).collect::<Vec<_>>(), "held packets: {arrived:?}");
    let log = pair.a.log();
    ensure!(log.contains("the datapath drops packets: hold-full"), "nobody is told of the others");
    let asked = log.matches("policy.acquire").count();
    ensure!((asked, begun(lab)?) == (1, 1), "{asked} acquires and {} IKE SAs begun", begun(lab)?);
    ensure!(ping::answers_within(&lab.a.host, lab.a.host_address(Family::V4), lab.b.host_address(Family::V4), SOON)?);
    audit::settle(&pair.a, &pair.b, &[CHILD], SOON)?;
    for side in capture.finish()? {
        ensure!((side.counts.clear, side.missed()) == (0, 0), "{}", side.counts);
    }
    Ok(())
}

/// The numbers of the storm packets that came, in order.
fn numbers(receiver: &PacketSocket, port: u16) -> Result<Vec<u32>> {
    let (mut found, mut buffer) = (Vec::new(), vec![0; LARGEST_FRAME]);
    while let Some(octets) = receiver.receive(&mut buffer)? {
        let Network::Ip(packet) = frame::parse(octets) else { continue };
        if packet.protocol != UDP || frame::ports(&packet).is_none_or(|(_, to)| to != port) {
            continue;
        }
        let field = packet.payload.get(8..).and_then(<[u8]>::first_chunk::<4>).context("a short packet")?;
        found.push(u32::from_be_bytes(*field));
    }
    Ok(found)
}

/// Traffic goes on while the path is cut: few attempts are made, what is waited for and why is told, and soon after the path is back so is
/// the traffic, over one tunnel.
fn away_then_back(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let capture = lab.capture()?;
    let ping = |patience: Duration| {
        let (from, to) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
        ping::ping(&lab.a.host, from, to, 1, patience)
    };
    // The neighbours know each other: what is sent while the path is cut comes as far as the cut.
    let (near, far) = (lab.a.outer_address(Family::V4), lab.b.outer_address(Family::V4));
    ensure!(ping::answers_within(&lab.a.gateway, near, far, SOON)?, "the path does not work");
    relay(lab)?.cut(true);
    let (started, mut waits, mut last) = (Instant::now(), Vec::new(), String::new());
    while waits.len() < 2 && started.elapsed() < PATIENCE {
        ensure!(ping(Duration::from_millis(100))? == 0, "answered over a path that is cut");
        let text = String::from_utf8_lossy(&pair.a.cygnet(&["status"])?.stdout).into_owned();
        let told = text.contains("retry in") && text.contains("did not answer");
        let failures = begun(lab)?;
        if told && waits.last() != Some(&failures) {
            waits.push(failures);
        }
        last = text;
    }
    ensure!(waits == [1, 2], "told of a wait after attempts {waits:?}, in the end: {last}");
    relay(lab)?.cut(false);
    let started = Instant::now();
    while ping(Duration::from_millis(250))? == 0 {
        ensure!(started.elapsed() < PATIENCE, "no answer {} s after the path was back", PATIENCE.as_secs());
    }
    audit::settle(&pair.a, &pair.b, &[CHILD], PATIENCE)?;
    ensure!(begun(lab)? <= 4, "{} attempts", begun(lab)?);
    for side in capture.finish()? {
        ensure!((side.counts.clear, side.missed()) == (0, 0), "{}", side.counts);
    }
    Ok(())
}
