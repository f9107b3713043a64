//! Mutated ESP packets at the datapath of a running daemon, native and in UDP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketAddrV4, SocketFlags, SocketType, bind, connect, send, socket_with,
};

use super::attacker::establish;
use super::carrier::Udp;
use super::dice::Dice;
use super::esp::{Damage, Sender};
use super::ground::{ATTACKER, CONNECTION, Ground, Opening};
use super::ike_run::GROWTH_KIB;
use super::peer::IkeSa;
use super::verdict::Verdict;
use crate::netns::Namespace;
use crate::topology::{Lab, Middle};

const PORT: u16 = 21_000;
const ESP: u32 = 50;
/// Packets between two pauses, and the pause: faster only fills the receivers' queues.
const BATCH: u64 = 32;
const PAUSE: Duration = Duration::from_micros(700);
const PROGRESS: Duration = Duration::from_secs(10);

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mutated packets in all, half of them native and half in UDP
    #[arg(long, default_value_t = 1_000_000)]
    pub count: u64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Packets before memory is measured first; 0 = a tenth
    #[arg(long, default_value_t = 0)]
    pub warm_up: u64,
    /// The run ends after so many minutes, whatever was sent
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,
    /// Log level of the daemon under attack
    #[arg(long, default_value = "error")]
    pub log: String,
}

/// Runs it; true when the daemon has passed.
///
/// # Errors
/// The lab could not be built, or a daemon does not start.
pub fn run(options: &Options) -> Result<bool> {
    println!("seed {}", options.seed);
    let lab = Lab::new(&Middle::Direct)?;
    let opening = Opening { options: vec!["dpd_delay = 0s".into()], ..Opening::default() };
    let mut ground = Ground::new(&lab, &options.log, &opening)?;
    let mut dice = Dice::new(options.seed);
    let mut attack = Attack::new(&ground, &mut dice)?;
    let warm_up = if options.warm_up == 0 { options.count / 10 } else { options.warm_up };
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    attack.until(&mut ground, warm_up, end, &mut dice)?;
    let before = ground.resident_kib().unwrap_or(0);
    println!("after the warm-up of {warm_up}: VmRSS {before} KiB");
    attack.until(&mut ground, options.count, end, &mut dice)?;
    let after = ground.resident_kib().unwrap_or(0);
    let mut verdict = Verdict::default();
    let total = attack.total();
    verdict.line(
        total >= options.count,
        &format!("{total} mutated ESP packets, seed {}: {}", options.seed, attack.words()),
    );
    attack.judge_reach(&ground, &mut verdict);
    let (alive, panics) = (ground.is_alive(), ground.panics());
    verdict.line(alive && panics == 0, &format!("the daemon runs, {panics} panics in its log"));
    let growth = after.saturating_sub(before);
    verdict.line(alive && growth <= GROWTH_KIB, &format!("VmRSS {before} -> {after} KiB: grown by {growth} KiB"));
    verdict.outcome("the unrelated tunnel carries traffic, before and after a rekey", ground.unrelated_lives());
    if !verdict.passed() {
        eprintln!("log of gateway A:\n{}", ground.a.log_tail(60));
    }
    Ok(verdict.passed())
}

struct Attack {
    carrier: Udp,
    raw: OwnedFd,
    /// Kept: it closes with the run.
    _ike: IkeSa,
    sender: Sender,
    sent: BTreeMap<(Damage, bool), u64>,
}

impl Attack {
    fn new(ground: &Ground<'_>, dice: &mut Dice) -> Result<Self> {
        let from = SocketAddr::new(ATTACKER.into(), PORT);
        let mut carrier = Udp::new(ground.attacker(), from, ground.target(4500), true)?;
        let ike = establish(&mut carrier, &ground.profile(), dice)?;
        let IpAddr::V4(host) = ground.host() else { bail!("the host has no IPv4 address") };
        let child = ike.children.first().context("no CHILD SA")?;
        let sender = Sender::new(child, Ipv4Addr::new(10, 66, 0, 1), host)?;
        let IpAddr::V4(target) = ground.target(0).ip() else { bail!("the daemon has no IPv4 address") };
        let raw = native(ground.attacker(), target)?;
        Ok(Attack { carrier, raw, _ike: ike, sender, sent: BTreeMap::new() })
    }

    fn total(&self) -> u64 {
        self.sent.values().sum()
    }

    fn words(&self) -> String {
        let of = |damage| [false, true].map(|in_udp| self.sent.get(&(damage, in_udp)).copied().unwrap_or(0));
        Damage::ALL
            .map(|damage| {
                let [native, in_udp] = of(damage);
                format!("{damage:?} {native}+{in_udp}")
            })
            .join(", ")
            + " (native+UDP)"
    }

    fn until(&mut self, ground: &mut Ground<'_>, count: u64, end: Instant, dice: &mut Dice) -> Result<()> {
        let (mut told, started, begun) = (Instant::now(), Instant::now(), self.total());
        while self.total() < count && Instant::now() < end && ground.is_alive() {
            for _ in 0..BATCH.min(count - self.total()) {
                let (damage, packet) = self.sender.mutated(dice)?;
                let in_udp = dice.one_in(2);
                if in_udp {
                    self.carrier.send_bare(&packet)?
                } else {
                    send_native(&self.raw, &packet)?
                }
                *self.sent.entry((damage, in_udp)).or_default() += 1;
            }
            std::thread::sleep(PAUSE);
            anyhow::ensure!(self.sender.is_fresh(), "the sequence numbers are used up");
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                let rate = (self.total() - begun) as f64 / started.elapsed().as_secs_f64();
                println!(
                    "{} of {count} mutated, {rate:.0}/s, VmRSS {} KiB",
                    self.total(),
                    ground.resident_kib().unwrap_or(0)
                );
            }
        }
        // What is still queued is read before anything is measured.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// How many of the authentic packets the daemon has counted on the SA, and how many it never read.
    fn judge_reach(&self, ground: &Ground<'_>, verdict: &mut Verdict) {
        let authentic: u64 =
            self.sent.iter().filter(|((damage, _), _)| damage.is_authentic()).map(|(_, count)| count).sum();
        let counted = ground.a.sas().map(|sas| {
            let ours = sas.iter().filter(|sa| sa.name == CONNECTION).flat_map(|sa| &sa.children);
            ours.map(|child| child.packets_in).sum::<u64>()
        });
        let (udp, raw) = ground.never_read().unwrap_or((u64::MAX, u64::MAX));
        match counted {
            Ok(counted) => verdict.line(
                // Most of what is mutated inside is dropped for what it says, and what comes late is outside of the window.
                counted >= authentic / 10 && counted <= self.total(),
                &format!("{counted} packets counted on the SA, of {authentic} authentic ones (mutated inside)"),
            ),
            Err(error) => verdict.line(false, &format!("the SA cannot be listed: {error:#}")),
        }
        let lost = udp.saturating_add(raw);
        verdict.line(
            lost <= self.total() / 10,
            &format!("{udp} datagrams and {raw} native packets never read by the daemon"),
        );
    }
}

/// A raw socket for native ESP.
fn native(namespace: &Namespace, target: Ipv4Addr) -> Result<OwnedFd> {
    namespace.run(|| -> Result<OwnedFd> {
        let protocol = Protocol::from_raw(ESP.try_into()?);
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        bind(&socket, &SocketAddrV4::new(ATTACKER, 0))?;
        connect(&socket, &SocketAddrV4::new(target, 0))?;
        Ok(socket)
    })?
}

fn send_native(socket: &OwnedFd, packet: &[u8]) -> Result<()> {
    match send(socket, packet, SendFlags::empty()) {
        Ok(_) | Err(Errno::CONNREFUSED | Errno::NOBUFS | Errno::AGAIN | Errno::MSGSIZE | Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
