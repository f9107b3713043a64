//! Mutated IKE messages at a running daemon, most of them below SK.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::attacker::Attacker;
use super::carrier::Udp;
use super::dice::Dice;
use super::ground::{ATTACKER, Ground, Opening};
use super::requests::Purpose;
use super::tally::Tally;
use super::verdict::Verdict;
use crate::topology::{Lab, Middle};

/// What the daemon may grow by after the warm-up.
pub const GROWTH_KIB: u64 = 4 * 1_024;
/// First source port of the attackers.
const PORTS: u16 = 20_000;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mutated messages in all
    #[arg(long, default_value_t = 1_000_000)]
    pub count: u64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Messages before memory is measured first; 0 = a tenth
    #[arg(long, default_value_t = 0)]
    pub warm_up: u64,
    /// Attackers at the same time
    #[arg(long, default_value_t = 24)]
    pub sessions: u16,
    /// The run ends after so many minutes, whatever was sent
    #[arg(long, default_value_t = 60.0)]
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
    let mut ground = Ground::new(&lab, &options.log, &Opening::default())?;
    let mut dice = Dice::new(options.seed);
    let mut attackers = attackers(&ground, options.sessions, &mut dice)?;
    let warm_up = if options.warm_up == 0 { options.count / 10 } else { options.warm_up };
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    attack(&mut ground, &mut attackers, warm_up, end)?;
    let before = rest(&mut ground, &mut attackers)?;
    println!("after the warm-up of {warm_up}: VmRSS {before} KiB");
    attack(&mut ground, &mut attackers, options.count, end)?;
    let after = rest(&mut ground, &mut attackers)?;
    let tally = sum(&attackers);
    println!("{}", tally.table());
    let passed = judge(&mut ground, options, &tally, before, after);
    if !passed {
        eprintln!("log of gateway A:\n{}", ground.a.log_tail(60));
    }
    Ok(passed)
}

/// A third on the IKE port, a third on the NAT-T port, a third there with addresses translated.
fn attackers(ground: &Ground<'_>, sessions: u16, dice: &mut Dice) -> Result<Vec<Attacker<Udp>>> {
    (0..sessions)
        .map(|number| {
            let marked = number % 3 != 0;
            let from = SocketAddr::new(ATTACKER.into(), PORTS + number);
            let to = ground.target(if marked { 4500 } else { 500 });
            let mut profile = ground.profile();
            profile.nat = number % 3 == 2;
            Ok(Attacker::new(Udp::new(ground.attacker(), from, to, marked)?, profile, dice.fork()))
        })
        .collect()
}

fn sum(attackers: &[Attacker<Udp>]) -> Tally {
    let mut tally = Tally::default();
    attackers.iter().for_each(|attacker| tally.add(&attacker.tally));
    tally
}

/// All attackers go on until they have sent `count` messages together.
fn attack(ground: &mut Ground<'_>, attackers: &mut [Attacker<Udp>], count: u64, end: Instant) -> Result<()> {
    let sent = AtomicU64::new(sum(attackers).total());
    let (stop, started, begun) = (AtomicBool::new(false), Instant::now(), sent.load(Ordering::Relaxed));
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = attackers
            .iter_mut()
            .map(|attacker| {
                scope.spawn(|| -> Result<()> {
                    while sent.load(Ordering::Relaxed) < count && !stop.load(Ordering::Relaxed) {
                        let before = attacker.tally.total();
                        attacker.step()?;
                        sent.fetch_add(attacker.tally.total() - before, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut told = Instant::now();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(100));
            if Instant::now() > end || !ground.is_alive() {
                stop.store(true, Ordering::Relaxed);
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                let now = sent.load(Ordering::Relaxed);
                let rate = (now - begun) as f64 / started.elapsed().as_secs_f64();
                println!("{now} of {count} mutated, {rate:.0}/s, VmRSS {} KiB", ground.resident_kib().unwrap_or(0));
            }
        }
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Closes what is open, waits until the daemon has forgotten the rest, and measures it.
fn rest(ground: &mut Ground<'_>, attackers: &mut [Attacker<Udp>]) -> Result<u64> {
    if !ground.is_alive() {
        return Ok(0);
    }
    attackers.iter_mut().try_for_each(Attacker::finish)?;
    ground.settle()?;
    ground.resident_kib()
}

fn judge(ground: &mut Ground<'_>, options: &Options, tally: &Tally, before: u64, after: u64) -> bool {
    let mut verdict = Verdict::default();
    let (total, below) = (tally.total(), tally.below_sk());
    verdict.line(total >= options.count, &format!("{total} mutated messages, seed {}", options.seed));
    verdict.line(below * 2 >= total, &format!("{below} of them below SK"));
    let floor = options.count / 1_000;
    let (purpose, least) = tally.least_reached().unwrap_or((Purpose::Init, 0));
    verdict.line(
        least >= floor,
        &format!("each handler reached {floor} times or more; least: {} {least}", purpose.name()),
    );
    let (udp, _) = ground.never_read().unwrap_or((u64::MAX, 0));
    verdict.line(udp <= total / 50, &format!("{udp} datagrams never read by the daemon"));
    let (alive, panics) = (ground.is_alive(), ground.panics());
    verdict.line(alive && panics == 0, &format!("the daemon runs, {panics} panics in its log"));
    let growth = after.saturating_sub(before);
    verdict.line(alive && growth <= GROWTH_KIB, &format!("VmRSS {before} -> {after} KiB: grown by {growth} KiB"));
    verdict.outcome("the unrelated tunnel carries traffic, before and after a rekey", ground.unrelated_lives());
    verdict.passed()
}
