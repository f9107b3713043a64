//! The rekey soak: sequence-numbered streams and a bulk transfer over a slow and reordering path while both ends rekey every second.
//!
//! What makes them rekey is a limit of the CHILD SAs, in packets, octets or seconds, set at both ends without the other's knowledge, so that
//! now and then both ask at once; or a command. A control leg without rekeys runs before and after: what it loses is the path's fault, not
//! the rekeys'; the first one also measures what the SAs carry, from which the limits follow. In the end nothing may be left over.

pub(crate) mod away;
mod blame;
pub(crate) mod charon;
pub(crate) mod crash;
mod ends;
mod forced;
mod inside;
mod limits;
pub(crate) mod loss;
mod record;
mod sabotage;
mod truth;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::capture::{Captured, KEPT_FRAMES};
use lab::peer::charon::{Charon, TalkativeCharon};
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer, audit};
use lab::relay::{Profile, Relay};
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::bulk::Flow;
use lab::traffic::stream::{self, Load, Report, Stream};

use limits::{By, Counters};
use sabotage::Sabotage;
use truth::{Truth, Watcher};

/// The children that carry the streams: one for each address family.
const CHILDREN: [&str; 2] = ["net4", "net6"];
/// Rates to try for each stream, packets in a second.
const RATES: [f64; 6] = [250.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0];
/// One trial of a rate.
const TRIAL: Duration = Duration::from_secs(1);
/// Packet sizes of the streams.
const SIZES: [usize; 2] = [64, 1_400];
/// The bulk transfer, octets in a second.
const BULK: f64 = 500_000.0;
/// The path: 20 ms +- 5 ms, 1 % of the packets overtaken.
const PATH: Profile =
    Profile { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), reorder: 0.01, ..Profile::CLEAN };
/// Rekeyed SAs linger for some seconds, what lost a collision for up to half a minute.
const LINGER: Duration = Duration::from_secs(60);
/// A terminated tunnel is gone within this time.
const GONE: Duration = Duration::from_secs(30);
/// What both ends together must reach in a minute: rekeys, and those of them that collided.
const ENOUGH: (f64, f64) = (110.0, 5.0);
/// A run of this many minutes must reach all of that, a shorter one, in which the beginning and the end weigh more and so does a moment without a
/// processor, three quarters.
const LONG: f64 = 5.0;
/// Whether both ends ask at once is chance: about one rekey of eight collides, and in less than so many minutes it may well be none.
const COLLIDES: f64 = 1.0;
/// By then a limit of one second has come a last time.
const LAST: Duration = Duration::from_secs(2);

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long rekeys go on
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What makes both ends rekey
    #[arg(long, value_enum, default_value_t = By::Packets)]
    by: By,
    /// Break something on purpose: the soak then passes only if it notices
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Packets a second of each stream; 0 = half of the loss-free rate, measured first
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// What runs in the gateways
    #[arg(long, value_enum, default_value_t = Peers::Cygnet)]
    peers: Peers,
    /// Show the daemons' logs at the end
    #[arg(long)]
    logs: bool,
}

/// What runs in the gateways.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peers {
    /// Our daemon in both
    Cygnet,
    /// Our daemon in A, Debian's charon in B
    Charon,
    /// Debian's charon in both, to prove the soak itself
    Charons,
}

/// What runs in one gateway.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    /// Our daemon
    Cygnet,
    /// Debian's charon, to prove the soak itself
    Charon,
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let path = options.sabotage.map_or(PATH, |sabotage| sabotage.path(PATH));
    let lab = Lab::new(&Middle::Relay(path))?;
    let settings = options.sabotage.map_or("", Sabotage::settings);
    let cygnet = Cygnet { extra: settings.into(), log: truth::LOG.into() };
    let peers: [&dyn Peer; 2] = match options.peers {
        Peers::Cygnet => [&cygnet, &cygnet],
        Peers::Charon => [&cygnet, &TalkativeCharon],
        Peers::Charons => [&Charon, &Charon],
    };
    let start = |side: Side| {
        let directory = lab.directory().join(side.letter());
        let peer = if side == Side::A { peers[0] } else { peers[1] };
        Daemon::start(peer, &lab.site(side).gateway, &directory, &[tunnel(&lab, side, options)])
    };
    let gateways = [start(Side::A)?, start(Side::B)?];
    let outcome = Soak { lab: &lab, gateways: &gateways, options }.run();
    if !matches!(outcome, Ok(true)) || options.logs {
        for (name, daemon) in ["A", "B"].iter().zip(&gateways) {
            eprintln!("log of gateway {name}:\n{}", daemon.log_tail(120));
        }
    }
    outcome
}

fn tunnel(lab: &Lab, side: Side, options: &Options) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4).with_child_option("replay_window = 1024");
    tunnel.children.retain(|child| options.children().contains(&child.name.as_str()));
    tunnel
}

impl Options {
    /// What is broken on purpose is broken for one CHILD SA: the path cannot tell two of them apart.
    fn children(&self) -> &'static [&'static str] {
        if self.sabotage.is_some() { &CHILDREN[..1] } else { &CHILDREN }
    }

    fn families(&self) -> &'static [Family] {
        if self.sabotage.is_some() { &[Family::V4] } else { &[Family::V4, Family::V6] }
    }

    fn loads(&self, rate: f64) -> Vec<Load> {
        let load = |family: &Family| SIZES.map(|octets| Load { octets, rate, family: *family });
        self.families().iter().flat_map(load).collect()
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

struct Soak<'lab> {
    lab: &'lab Lab,
    gateways: &'lab [Daemon<'lab>; 2],
    options: &'lab Options,
}

/// Streams and the bulk transfer.
struct Traffic {
    streams: Vec<Stream>,
    bulk: Flow,
}

impl Traffic {
    /// All packets, and the octets of the bulk transfer, of which none may be missing.
    fn finish(self) -> Result<(Report, u64)> {
        let transfer = self.bulk.finish().context("bulk transfer");
        let report = stream::finish_all(self.streams)?;
        Ok((report, transfer?.octets))
    }
}

/// What the leg with rekeys came to.
struct Leg {
    report: Report,
    bulk: u64,
    truth: Truth,
    captured: [Captured; 2],
}

impl Soak<'_> {
    fn run(&self) -> Result<bool> {
        self.bring_up()?;
        let rate = self.rate()?;
        println!(
            "path: 20 ms +- 5 ms, {} % overtaken; each way 64 B and 1,400 B on {}, {rate} packets/s each, and {:.0} kB/s of TCP from A to B",
            self.options.sabotage.map_or(PATH, |sabotage| sabotage.path(PATH)).reorder * 100.0,
            self.options.children().join(" and "),
            BULK / 1e3
        );
        let (before, counters) = self.control("before", rate)?;
        self.limit(&counters)?;
        let leg = self.rekeying(rate)?;
        if self.options.by == By::Time && self.options.peers != Peers::Cygnet {
            // charon's CHILD SAs keep the limits they began with, and so would be rekeyed for ever.
            self.bring_down()?;
            self.bring_up()?;
        }
        let left_over = self.left_over()?;
        self.without_limits()?;
        let (after, _) = self.control("after", rate)?;
        self.bring_down().context("at the end")?;
        self.judge(&leg, &left_over, before.lost + after.lost)
    }

    fn judge(&self, leg: &Leg, left_over: &[String], control_lost: u64) -> Result<bool> {
        let sum = |what: fn(&Captured) -> u64| leg.captured.iter().map(what).sum::<u64>();
        let (clear, missed) = (sum(|side| side.counts.clear), sum(Captured::missed));
        let Truth { rekeys, collided, .. } = leg.truth;
        let Report { sent, received, lost, duplicated, .. } = leg.report;
        let on_the_wire = truth::successors(&leg.captured, self.options.children().len());
        println!(
            "with rekeys: {}; bulk {} MiB; frames not captured {missed}; {}",
            leg.report,
            leg.bulk >> 20,
            leg.truth
        );
        let losses = self.losses(leg, control_lost)?;
        if !left_over.is_empty() {
            println!("left over: {}", left_over.join("; "));
        }
        println!(
            "sent {sent} received {received} lost {lost} duplicated {duplicated} in-clear {clear} rekeys {rekeys} (collided {collided}) \
             left-over {} control-lost {control_lost} seen on the wire {on_the_wire} by {}",
            left_over.len(),
            self.options.by
        );
        let quiet = control_lost == 0 || self.options.peers == Peers::Charon;
        let sound = clear == 0 && missed == 0 && quiet && left_over.is_empty() && rekeys > 0;
        if self.options.sabotage.is_some() {
            return Ok(sound && lost > 0);
        }
        // The last successor of each child may have come after the last packet.
        let agree = (self.options.peers != Peers::Cygnet || leg.truth.ends_agree())
            && on_the_wire + self.options.children().len() as u64 >= rekeys;
        let share = if self.options.minutes < LONG { 0.75 } else { 1.0 };
        let enough = |least: f64, count: u64| count as f64 >= (least * share * self.options.minutes).floor();
        let limited = self.options.by != By::Command;
        let collides = self.options.minutes < COLLIDES || enough(ENOUGH.1, collided);
        Ok(sound && agree && losses == 0 && duplicated == 0 && (!limited || enough(ENOUGH.0, rekeys) && collides))
    }

    /// Packets whose loss is to be answered for. What was lost inside charon is none of ours if the path without rekeys shows the like.
    fn losses(&self, leg: &Leg, control_lost: u64) -> Result<u64> {
        if self.options.peers != Peers::Charon {
            return Ok(leg.report.lost);
        }
        let losses = inside::losses(self.lab, &leg.captured, &self.gateways[1].log(), &leg.report.gaps)?;
        println!("lost by what both links carried, decrypted: {losses}");
        Ok(losses.ours + losses.path + losses.sealed + if control_lost > 0 { 0 } else { losses.inside })
    }

    /// Half of the highest rate at which nothing is lost.
    fn rate(&self) -> Result<f64> {
        if self.options.rate > 0.0 {
            return Ok(self.options.rate);
        }
        let mut best = 0.0;
        for rate in RATES {
            let report = stream::both_ways(&self.lab.a, &self.lab.b, &self.options.loads(rate), TRIAL)?;
            println!("trial at {rate} packets/s each: {report}");
            if report.lost > 0 {
                break;
            }
            best = rate;
        }
        ensure!(best > 0.0, "packets are lost at the lowest rate");
        Ok(best / 2.0)
    }

    fn start(&self, rate: f64) -> Result<Traffic> {
        let streams = stream::start_both_ways(&self.lab.a, &self.lab.b, &self.options.loads(rate))?;
        Ok(Traffic { streams, bulk: Flow::start(&self.lab.a, &self.lab.b, Family::V4, BULK)? })
    }

    /// Traffic without rekeys, and how much of it each child carries.
    fn control(&self, name: &str, rate: f64) -> Result<(Report, Counters)> {
        let traffic = self.start(rate)?;
        let begin = Counters::read(&self.gateways[0])?;
        thread::sleep((self.options.time() / 6).clamp(Duration::from_secs(2), Duration::from_secs(15)));
        let counters = Counters::read(&self.gateways[0])?.since(&begin);
        let (report, bulk) = traffic.finish()?;
        println!("control leg {name}: {report}; bulk {} MiB", bulk >> 20);
        Ok((report, counters))
    }

    /// Traffic with rekeys.
    fn rekeying(&self, rate: f64) -> Result<Leg> {
        let keep = if self.options.peers == Peers::Charon { usize::MAX } else { KEPT_FRAMES };
        let capture = self.lab.capture_keeping(keep)?;
        let watcher = Watcher::start(self.gateways, self.relay()?);
        let traffic = self.start(rate)?;
        self.relay()?.arm(true);
        let (started, time) = (Instant::now(), self.options.time());
        if self.options.by == By::Command {
            forced::every_second(self.gateways, self.options.children(), time);
        } else {
            while started.elapsed() < time {
                thread::sleep((time - started.elapsed()).min(Duration::from_secs(30)));
                println!("  {:.0} s: {}", started.elapsed().as_secs_f64(), watcher.so_far());
            }
        }
        if self.options.by == By::Time {
            // Seconds pass also without packets.
            self.write(&[])?;
            thread::sleep(LAST);
        }
        self.relay()?.arm(false);
        let finished = traffic.finish();
        let captured = capture.finish()?;
        let (report, bulk) = finished?;
        Ok(Leg { report, bulk, truth: watcher.so_far(), captured })
    }

    fn relay(&self) -> Result<&Relay> {
        self.lab.relay.as_ref().context("no relay")
    }

    fn bring_up(&self) -> Result<()> {
        let [a, b] = self.gateways;
        for child in self.options.children() {
            a.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
        }
        audit::settle(a, b, self.options.children(), GONE).context("the tunnel")
    }

    /// Ends the tunnel; nothing of it may be left on either side.
    fn bring_down(&self) -> Result<()> {
        let [a, b] = self.gateways;
        a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
        audit::gone(a, b, GONE)?;
        // The route of an outbound policy stays as long as one that needs it.
        for site in [&self.lab.a, &self.lab.b] {
            let routes = site.gateway.protected_routes()?;
            ensure!(routes.is_empty(), "policies are left at {}: {routes:?}", site.side.letter());
        }
        Ok(())
    }

    /// Both ends get limits from what the children carry, and begin again.
    fn limit(&self, counters: &Counters) -> Result<()> {
        if self.options.by == By::Command {
            return Ok(());
        }
        self.bring_down()?;
        let options = self.options.by.options(self.options.children(), counters)?;
        for (child, options) in self.options.children().iter().zip(&options) {
            println!("limits of {child} at both ends: {}", options.join(", "));
        }
        self.write(&options)?;
        self.bring_up_limited()
    }

    fn bring_up_limited(&self) -> Result<()> {
        let [a, b] = self.gateways;
        for child in self.options.children() {
            a.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
        }
        b.wait_for("the tunnel at B", GONE, |sas| sas.iter().any(|sa| sa.carries(self.options.children()))).map(drop)
    }

    fn without_limits(&self) -> Result<()> {
        if self.options.by == By::Command {
            return Ok(());
        }
        self.write(&[])?;
        self.bring_down()?;
        self.bring_up()
    }

    /// Loads the tunnel anew, with further options for each child.
    fn write(&self, options: &[Vec<String>]) -> Result<()> {
        for (side, daemon) in [Side::A, Side::B].into_iter().zip(self.gateways) {
            let mut tunnel = tunnel(self.lab, side, self.options);
            for (child, options) in tunnel.children.iter_mut().zip(options) {
                child.options.extend(options.iter().cloned());
            }
            daemon.write_tunnels(&[tunnel])?;
            daemon.load()?;
        }
        Ok(())
    }

    /// What there is besides one pair of SAs for each child once rekeyed ones have lingered.
    fn left_over(&self) -> Result<Vec<String>> {
        let [a, b] = self.gateways;
        match audit::settle(a, b, self.options.children(), LINGER) {
            Ok(()) => {
                let expected = self.options.children().len();
                let routes = [&self.lab.a, &self.lab.b].map(|site| site.gateway.protected_routes());
                let [at_a, at_b] = routes;
                let (at_a, at_b) = (at_a?.len(), at_b?.len());
                let wrong = (at_a, at_b) != (expected, expected);
                Ok(if wrong { vec![format!("{at_a} and {at_b} routes for {expected} children")] } else { Vec::new() })
            }
            Err(error) => {
                println!("{error}");
                audit::findings(a, b, self.options.children())
            }
        }
    }
}
