//! The rekey soak: sequence-numbered streams over a slow and reordering path while both sides rekey every second.
//!
//! A control leg without rekeys runs before and after; what it loses is the path's fault, not the rekeys'.

mod blame;
pub(crate) mod charon;
mod ends;
pub(crate) mod loss;
mod record;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::peer::charon::Charon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer};
use lab::relay::Profile;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::stream::{self, Load, Report};

/// The child that carries the streams.
const CHILD: &str = "net4";
/// Between two forced rekeys.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rates to try for each of the four streams, packets in a second.
const RATES: [f64; 6] = [250.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0];
/// One trial of a rate.
const TRIAL: Duration = Duration::from_secs(1);
/// Packet sizes of the streams.
const SIZES: [usize; 2] = [64, 1_400];
/// The path: 20 ms +- 5 ms, 1 % of the packets overtaken.
const PATH: Profile =
    Profile { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), reorder: 0.01, ..Profile::CLEAN };

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long rekeys go on
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Break something on purpose: the soak then passes only if it notices
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Packets a second of each stream; 0 = half of the loss-free rate, measured first
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// What runs in the gateways
    #[arg(long, value_enum, default_value_t = Who::Cygnet)]
    peers: Who,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sabotage {
    /// Packets of an old SA are lost as soon as its successor is in use
    DropOldInbound,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    /// Our daemon
    Cygnet,
    /// Debian's charon, to prove the soak itself
    Charon,
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let path = Profile { drop_old_inbound: options.sabotage.is_some(), ..PATH };
    let lab = Lab::new(&Middle::Relay(path))?;
    let peer: &dyn Peer = match options.peers {
        Who::Cygnet => &Cygnet { extra: String::new(), log: String::new() },
        Who::Charon => &Charon,
    };
    let start = |side: Side| {
        let directory = lab.directory().join(side.letter());
        Daemon::start(peer, &lab.site(side).gateway, &directory, &[tunnel(&lab, side)])
    };
    let gateways = [start(Side::A)?, start(Side::B)?];
    let outcome = Soak { lab: &lab, gateways: &gateways, options }.run();
    if !matches!(outcome, Ok(true)) {
        for (name, daemon) in ["A", "B"].iter().zip(&gateways) {
            eprintln!("log of gateway {name}:\n{}", daemon.log_tail(60));
        }
    }
    outcome
}

fn tunnel(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4).with_child_option("replay_window = 1024");
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

struct Soak<'lab> {
    lab: &'lab Lab,
    gateways: &'lab [Daemon<'lab>; 2],
    options: &'lab Options,
}

/// What the leg with rekeys did.
#[derive(Default)]
struct Forced {
    by_a: u64,
    by_b: u64,
    together: u64,
    refused: u64,
}

impl Soak<'_> {
    fn run(&self) -> Result<bool> {
        let [a, b] = self.gateways;
        a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "10"])?;
        b.wait_for("the tunnel at B", Duration::from_secs(10), |sas| sas.iter().any(|sa| sa.carries(&[CHILD])))?;
        let rate = self.rate()?;
        println!("path: 20 ms +- 5 ms, 1 % overtaken; streams: 64 B and 1,400 B each way, {rate} packets/s each");
        let legs = Duration::from_secs_f64((self.options.minutes * 60.0 / 6.0).clamp(2.0, 15.0));
        let before = self.leg("control leg before", rate, legs)?;
        let capture = self.lab.capture()?;
        let (report, forced) = self.rekeying(rate)?;
        let captured = capture.finish()?;
        let after = self.leg("control leg after", rate, legs)?;
        let clear: u64 = captured.iter().map(|side| side.counts.clear).sum();
        let missed: u64 = captured.iter().map(lab::capture::Captured::missed).sum();
        let spis: BTreeSet<u32> = captured.iter().flat_map(|side| side.counts.by_spi.keys().copied()).collect();
        let rekeys = (spis.len() / 2).saturating_sub(1) as u64;
        println!("with rekeys: {report}; frames not captured {missed}; rekey commands refused {}", forced.refused);
        println!(
            "sent {} received {} lost {} duplicated {} in-clear {clear} rekeys {rekeys} (initiated {}/{}, collided {}) control-lost {}",
            report.sent,
            report.received,
            report.lost,
            report.duplicated,
            forced.by_a,
            forced.by_b,
            forced.together,
            before.lost + after.lost
        );
        let rekeyed = rekeys > 0 && missed == 0 && clear == 0;
        Ok(match self.options.sabotage {
            Some(Sabotage::DropOldInbound) => rekeyed && report.lost > 0,
            None => rekeyed && report.lost == 0 && report.duplicated == 0 && before.lost + after.lost == 0,
        })
    }

    /// Half of the highest rate at which nothing is lost.
    fn rate(&self) -> Result<f64> {
        if self.options.rate > 0.0 {
            return Ok(self.options.rate);
        }
        let mut best = 0.0;
        for rate in RATES {
            let report = stream::both_ways(&self.lab.a, &self.lab.b, &loads(rate), TRIAL)?;
            println!("trial at {rate} packets/s each: {report}");
            if report.lost > 0 {
                break;
            }
            best = rate;
        }
        ensure!(best > 0.0, "packets are lost at the lowest rate");
        Ok(best / 2.0)
    }

    fn leg(&self, name: &str, rate: f64, time: Duration) -> Result<Report> {
        let report = stream::both_ways(&self.lab.a, &self.lab.b, &loads(rate), time)?;
        println!("{name}: {report}");
        Ok(report)
    }

    /// Streams while A, B, or both in the same instant rekey, once a second.
    fn rekeying(&self, rate: f64) -> Result<(Report, Forced)> {
        let streams = stream::start_both_ways(&self.lab.a, &self.lab.b, &loads(rate))?;
        let started = Instant::now();
        let time = Duration::from_secs_f64(self.options.minutes * 60.0);
        let mut forced = Forced::default();
        for tick in 1_u32.. {
            thread::sleep((INTERVAL * tick).saturating_sub(started.elapsed()));
            if started.elapsed() >= time {
                break;
            }
            self.force(tick, &mut forced);
            if tick % 30 == 0 {
                println!("{} s: {}/{} rekeys forced", started.elapsed().as_secs(), forced.by_a, forced.by_b);
            }
        }
        Ok((stream::finish_all(streams)?, forced))
    }

    fn force(&self, tick: u32, forced: &mut Forced) {
        let (by_a, by_b) = match tick % 3 {
            0 => (true, true),
            1 => (true, false),
            _ => (false, true),
        };
        let rekey = |daemon: &Daemon<'_>| daemon.swanctl(&["--rekey", "--child", CHILD]).is_ok();
        let [a, b] = self.gateways;
        let (done_a, done_b) = thread::scope(|scope| {
            let other = scope.spawn(|| by_b && rekey(b));
            (by_a && rekey(a), other.join().unwrap_or(false))
        });
        forced.by_a += u64::from(done_a);
        forced.by_b += u64::from(done_b);
        forced.together += u64::from(done_a && done_b);
        forced.refused += u64::from(by_a && !done_a) + u64::from(by_b && !done_b);
    }
}

fn loads(rate: f64) -> [Load; 2] {
    SIZES.map(|octets| Load { octets, rate, family: Family::V4 })
}
