//! What an established IKE SA with a CHILD SA costs the running daemon: the slope of its resident memory.
//!
//! The history is off unless asked for: its database fills caches of a fixed size first, which would be taken for memory of SAs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::attacker::establish_as;
use super::carrier::Udp;
use super::dice::Dice;
use super::ground::{ATTACKER, CONNECTION, Ground, NO_HISTORY, Opening};
use super::verdict::Verdict;
use crate::topology::{Lab, Middle};

/// Measurements over the run.
const POINTS: u32 = 10;
const WORKERS: u16 = 8;
const PORTS: u16 = 30_000;
/// Above this the memory of a pair is a defect.
const LIMIT: f64 = 16_384.0;
/// With less than [`MANY`] pairs, what the allocator sets aside weighs more.
const LIMIT_OF_FEW: f64 = 20_480.0;
const MANY: u32 = 5_000;

/// Options of the run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Pairs of IKE SA and CHILD SA
    #[arg(long, default_value_t = 10_000)]
    pub pairs: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep a history meanwhile
    #[arg(long)]
    pub history: bool,
}

/// Runs it; true when a pair costs no more than it may.
///
/// # Errors
/// The lab could not be built, or the daemon does not go along.
pub fn run(options: &Options) -> Result<bool> {
    let lab = Lab::new(&Middle::Direct)?;
    let opening =
        Opening { history: if options.history { String::new() } else { NO_HISTORY.into() }, ..Opening::for_many() };
    let mut ground = Ground::new(&lab, "error", &opening)?;
    let mut dice = Dice::new(options.seed);
    let step = (options.pairs / POINTS).max(1);
    let mut points = vec![(0, ground.resident_kib()?)];
    let started = Instant::now();
    for point in 1..=POINTS {
        establish_all(&ground, (point - 1) * step..point * step, &mut dice)?;
        std::thread::sleep(Duration::from_millis(300));
        let resident = ground.resident_kib()?;
        println!("{:>6} pairs: VmRSS {resident} KiB ({:.1} s)", point * step, started.elapsed().as_secs_f64());
        points.push((point * step, resident));
    }
    let pairs = POINTS * step;
    let live = ground.a.sas()?.iter().filter(|sa| sa.name == CONNECTION && sa.carries(&[CONNECTION])).count();
    let slope = slope(&points) * 1_024.0;
    let limit = if pairs < MANY { LIMIT_OF_FEW } else { LIMIT };
    let mut verdict = Verdict::default();
    verdict.line(live == pairs as usize, &format!("{live} of {pairs} pairs are established and installed"));
    verdict.line(slope <= limit, &format!("{slope:.0} octets of VmRSS for each pair (goal 8192, limit {limit:.0})"));
    verdict.outcome("the unrelated tunnel carries traffic", ground.unrelated_carries());
    Ok(verdict.passed())
}

/// Establishes pairs with these numbers: each its own identity, its own address behind the peer.
///
/// # Errors
/// The daemon does not go along.
pub fn establish_all(ground: &Ground<'_>, numbers: std::ops::Range<u32>, dice: &mut Dice) -> Result<()> {
    let next = AtomicU32::new(numbers.start);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (mut dice, next, end) = (dice.fork(), &next, numbers.end);
                scope.spawn(move || -> Result<()> {
                    let from = SocketAddr::new(ATTACKER.into(), PORTS + worker);
                    let mut carrier = Udp::new(ground.attacker(), from, ground.target(500), false)?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            return Ok(());
                        }
                        let mut profile = ground.profile();
                        profile.id = format!("peer-{number}.example");
                        let address = Ipv4Addr::from(0x0a40_0000 + 1 + number);
                        profile.local = [address, address];
                        // No two SAs to one peer may have the same SPI, and among so many random ones two could.
                        establish_as(&mut carrier, &profile, &mut dice, 0x1000 + number)
                            .with_context(|| format!("pair {number}"))?;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Least squares; KiB for each pair.
fn slope(points: &[(u32, u64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(u32, u64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| f64::from(point.0)), mean(|point| point.1 as f64));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        let dx = f64::from(point.0) - x;
        (above + dx * (point.1 as f64 - y), below + dx * dx)
    });
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_line_has_its_slope() {
        assert!((slope(&[(0, 100), (10, 180), (20, 260)]) - 8.0).abs() < 1e-9);
        assert!(slope(&[(5, 100)]).abs() < 1e-9);
    }
}
