//! The soak against a daemon that nobody here wrote: both ends rekey at the same moment, round after round, then one of them every second,
//! under constant streams. In the end nothing may be left over on either side.
//!
//! Whether a round collided is read off the wire: each end had sent its CREATE_CHILD_SA request before it answered the other's.

use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::peer::charon::{Charon, TunedCharon};
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer, audit};
use lab::process::wait_until;
use lab::relay::{Profile, Relay, Tally, both_ask, crossed};
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::stream::{self, Load, Report};

use super::blame::{self, InClear, WallTime};
use super::ends::{self, End};
use super::record;

/// The child that is rekeyed.
const CHILD: &str = "net4";
/// All children: the other one must not notice.
const CHILDREN: [&str; 2] = ["net4", "net6"];
/// From this delay on, in milliseconds, rounds must really collide: so many of them as [`LONG`] says.
const CROSSING: u64 = 10;
/// Where IKE messages are lost both ends repeat soon and give up late: 0.3 s, each wait 1.8 times the one before, 9 repetitions.
const IMPATIENT: &str = "[ike]\nretransmit_timeout = 0.3\nretransmit_tries = 9\n";
/// The same for charon.
const IMPATIENT_CHARON: TunedCharon = TunedCharon { settings: "retransmit_timeout = 0.3\n  retransmit_tries = 9" };
/// In a run of this many minutes nine of ten rounds must collide and nine of ten seconds have their rekey; in a shorter one, in which a few moments
/// without a processor weigh more, half of the rounds and two of five seconds.
const LONG: f64 = 5.0;
/// How long requests that are to cross wait for each other.
const CROSS: Duration = Duration::from_secs(2);
/// How long a round may take: after TEMPORARY_FAILURE an end waits for up to 15 s.
const ROUND: Duration = Duration::from_secs(60);
/// The same over a path that loses messages.
const LOSSY_ROUND: Duration = Duration::from_secs(150);
/// No IKE message for so long: the round is over.
const QUIET: Duration = Duration::from_millis(150);
/// How long rekeyed SAs may linger: what lost a collision and is not deleted by its maker goes after 30 s.
const LINGER: Duration = Duration::from_secs(60);
/// Where messages are lost: a peer that has ended an IKE SA answers no repetition of its DELETE, which goes on for 134 s, and charon begins with
/// that 30 s after a collision when the answer to it never came.
const LOSSY_LINGER: Duration = Duration::from_secs(200);
/// Each so manyth round sets a rekeying of the CHILD SA against one of the IKE SA.
const MIXED: u32 = 10;
/// In the steady leg each so manyth rekeying is one of the IKE SA.
const IKE_EVERY: u32 = 10;
/// CREATE_CHILD_SA (RFC 7296 §3.1).
const CREATE_CHILD_SA: u8 = 36;

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds in which both ends rekey at once
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// How long one end rekeys every second after that
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Packets a second of each of the six streams
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// The path, one way, milliseconds: requests of both ends cross as long as they are sent within this time
    #[arg(long, default_value_t = 15)]
    delay: u64,
    /// The delay varies by so much either way, milliseconds
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// Packets that are overtaken by later ones, percent
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// IKE datagrams that the path loses, percent, each way; both ends then repeat after 0.3 s instead of 4 s
    #[arg(long, default_value_t = 0)]
    ike_loss: u8,
    /// Seed of the losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What runs in gateway A; gateway B always runs charon
    #[arg(long, value_enum, default_value_t = super::Who::Cygnet)]
    ours: super::Who,
    /// Show the daemons' logs at the end
    #[arg(long)]
    logs: bool,
    /// Log everything, and leave the logs, the IKE messages and the captures of both outer links in this directory
    #[arg(long)]
    record: Option<PathBuf>,
}

/// What both ends are told to rekey in a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Child,
    Ike,
    ChildAgainstIke,
    IkeAgainstChild,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Child, "CHILD/CHILD"),
    (Kind::Ike, "IKE/IKE"),
    (Kind::ChildAgainstIke, "CHILD/IKE"),
    (Kind::IkeAgainstChild, "IKE/CHILD"),
];

impl Kind {
    fn of(round: u32) -> Self {
        match (round % MIXED, round / MIXED % 2) {
            (6, 0) => Kind::ChildAgainstIke,
            (6, _) => Kind::IkeAgainstChild,
            (1 | 4 | 8, _) => Kind::Ike,
            _ => Kind::Child,
        }
    }

    /// Whether a side rekeys the IKE SA.
    fn is_ike(self, side: Side) -> bool {
        match self {
            Kind::Child => false,
            Kind::Ike => true,
            Kind::ChildAgainstIke => side == Side::B,
            Kind::IkeAgainstChild => side == Side::A,
        }
    }

    fn renews_ike(self) -> bool {
        self != Kind::Child
    }

    fn renews_child(self) -> bool {
        self != Kind::Ike
    }
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let path = Profile {
        delay: Duration::from_millis(options.delay),
        jitter: Duration::from_millis(options.jitter),
        reorder: options.reorder / 100.0,
        ike_loss: f64::from(options.ike_loss) / 100.0,
        seed: options.seed,
        ..Profile::CLEAN
    };
    let lab = Lab::new(&Middle::Relay(path))?;
    let start = |peer: &dyn Peer, side: Side| {
        let directory = lab.directory().join(side.letter());
        let tunnel = Tunnel::between(&lab, side, Family::V4);
        Daemon::start(peer, &lab.site(side).gateway, &directory, &[tunnel])
    };
    let lossy = options.ike_loss > 0;
    let cygnet = Cygnet {
        extra: if lossy { IMPATIENT.into() } else { String::new() },
        log: options.record.as_ref().map_or("", |_| "trace").into(),
    };
    let charon: &dyn Peer = if lossy { &IMPATIENT_CHARON } else { &Charon };
    let ours: &dyn Peer = match options.ours {
        super::Who::Cygnet => &cygnet,
        super::Who::Charon => charon,
    };
    let daemons = [start(ours, Side::A)?, start(charon, Side::B)?];
    let outcome = Soak { lab: &lab, daemons: &daemons, options }.run();
    if !matches!(outcome, Ok(true)) || options.logs {
        for (name, daemon) in ["A", "B"].iter().zip(&daemons) {
            eprintln!("log of gateway {name}:\n{}", daemon.log_tail(400));
        }
    }
    outcome
}

struct Soak<'lab> {
    lab: &'lab Lab,
    daemons: &'lab [Daemon<'lab>; 2],
    options: &'lab Options,
}

/// What a leg with rekeys did.
#[derive(Default)]
struct Leg {
    report: Report,
    during: (WallTime, WallTime),
    /// For each of [`KINDS`]: rounds, and how many of them collided.
    rounds: [(u32, u32); 4],
    rekeys: u64,
    /// Packets that an end's kernel threw away before the daemon took them.
    overflows: [u64; 2],
    relayed: [u64; 2],
}

impl Soak<'_> {
    fn run(&self) -> Result<bool> {
        for child in CHILDREN {
            self.daemons[0].swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
        }
        audit::settle(&self.daemons[0], &self.daemons[1], &CHILDREN, LINGER)?;
        println!(
            "path: {} ms +- {} ms each way, {} % of the packets overtaken, {} % of the IKE datagrams lost; streams each way: 64 B and 1,300 B on {CHILD}, 200 B on net6, {} packets/s each",
            self.options.delay, self.options.jitter, self.options.reorder, self.options.ike_loss, self.options.rate
        );
        let capture = self.lab.capture()?;
        let before = self.control("before")?;
        let legs = self.legs();
        let captured = capture.finish()?;
        if let Some(directory) = &self.options.record {
            record::write(directory, self.daemons, &self.relay()?.ike_seen(0), &captured)?;
        }
        let (rounds, steady, after) = legs?;
        let linger = if self.options.ike_loss > 0 { LOSSY_LINGER } else { LINGER };
        let left_over = audit::settle(&self.daemons[0], &self.daemons[1], &CHILDREN, linger);
        match &left_over {
            Ok(()) => println!("left over: nothing (lists of both ends, and the data path where it can be asked)"),
            Err(error) => println!("left over: {error}"),
        }
        let clear = InClear::sort(self.lab, &captured);
        let faults = blame::faults(&self.daemons[1].log());
        let of_peer = |leg: &Leg| clear.explains(&leg.report.gaps, leg.during, &faults);
        let of_peer = of_peer(&rounds) + of_peer(&steady);
        let missed: u64 = captured.iter().map(lab::capture::Captured::missed).sum();
        let mut sum = rounds.report.clone();
        sum.add(&steady.report);
        let overflow: u64 = rounds.overflows.iter().chain(&steady.overflows).sum();
        let collided: u32 = rounds.rounds.iter().map(|(_, collided)| collided).sum();
        let control = before.lost + after.lost;
        println!(
            "sent {} received {} lost {} (thrown away by full receive buffers {overflow}, sent in clear by the peer by a fault of its own {of_peer}) \
             duplicated {} in-clear {} peer-in-clear {} not-captured {missed} rounds {} collided {collided} rekeys {} left-over {} control-lost {control}",
            sum.sent,
            sum.received,
            sum.lost,
            sum.duplicated,
            clear.ours,
            clear.peers,
            self.options.rounds,
            rounds.rekeys + steady.rekeys,
            if left_over.is_ok() { "0" } else { "some" }
        );
        let lossless = self.options.ike_loss == 0;
        let (rounds_share, steady_share) = if self.options.minutes < LONG { (0.5, 0.4) } else { (0.9, 0.9) };
        let enough = !self.is_crossing() || f64::from(collided) >= f64::from(self.options.rounds) * rounds_share;
        let steady_rekeys = if lossless { self.options.minutes * 60.0 * steady_share } else { 0.0 };
        Ok(left_over.is_ok()
            && sum.lost <= overflow + of_peer
            && sum.duplicated == 0
            && clear.ours == 0
            // What it sends in clear otherwise it may do because of us, and none of it may be let in.
            && clear.peers == of_peer
            && missed == 0
            && enough
            && steady.rekeys as f64 >= steady_rekeys)
    }

    /// The legs with rekeys, and what the path alone loses after them.
    fn legs(&self) -> Result<(Leg, Leg, Report)> {
        let rounds = self.leg("both ends at once", |leg| self.rounds(leg))?;
        let steady = self.leg("every second", |leg| self.every_second(leg))?;
        Ok((rounds, steady, self.control("after")?))
    }

    fn control(&self, name: &str) -> Result<Report> {
        let time = Duration::from_secs_f64((self.options.minutes * 2.0).clamp(2.0, 10.0));
        let report = stream::both_ways(&self.lab.a, &self.lab.b, &self.loads(), time)?;
        println!("control leg {name}: {report}");
        Ok(report)
    }

    fn loads(&self) -> [Load; 3] {
        let rate = self.options.rate;
        [(64, Family::V4), (1_300, Family::V4), (200, Family::V6)].map(|(octets, family)| Load { octets, rate, family })
    }

    /// Streams while something is done, and where their packets were seen on the way.
    fn leg(&self, name: &str, work: impl FnOnce(&mut Leg) -> Result<()>) -> Result<Leg> {
        let mut leg = Leg { during: (wall_clock()?, WallTime::ZERO), ..Leg::default() };
        let (relayed, overflows) = (self.relay()?.tally(), self.overflows()?);
        let streams = stream::start_both_ways(&self.lab.a, &self.lab.b, &self.loads())?;
        let outcome = work(&mut leg);
        leg.report = stream::finish_all(streams)?;
        leg.during.1 = wall_clock()?;
        outcome?;
        let (relayed_now, overflows_now) = (self.relay()?.tally(), self.overflows()?);
        leg.relayed = difference(relayed_now.esp, relayed.esp);
        leg.overflows = difference(overflows_now, overflows);
        println!("{name}: {}; rekeys {}", leg.report, leg.rekeys);
        for ((_, kind), (rounds, collided)) in KINDS.iter().zip(leg.rounds).filter(|(_, (rounds, _))| *rounds > 0) {
            println!("  {kind}: {rounds} rounds, {collided} collided on the wire");
        }
        println!(
            "  ESP relayed: A to B {}, B to A {}; thrown away by full receive buffers: A {}, B {}",
            leg.relayed[0], leg.relayed[1], leg.overflows[0], leg.overflows[1]
        );
        let Tally { dropped, .. } = relayed_now;
        ensure!(self.options.ike_loss > 0 || dropped == relayed.dropped, "the path itself lost packets");
        Ok(leg)
    }

    /// A request that is lost first does not cross anything, and on a short path one end may be too late.
    fn is_crossing(&self) -> bool {
        self.options.ike_loss == 0 && self.options.delay >= CROSSING
    }

    fn relay(&self) -> Result<&Relay> {
        self.lab.relay.as_ref().context("no relay")
    }

    fn overflows(&self) -> Result<[u64; 2]> {
        Ok([overflows(&self.lab.a.gateway)?, overflows(&self.lab.b.gateway)?])
    }

    fn rounds(&self, leg: &mut Leg) -> Result<()> {
        for number in 0..self.options.rounds {
            let kind = Kind::of(number);
            let before = self.ends()?;
            let skip = self.relay()?.ike_count();
            self.both(kind, &before)?;
            self.until_over(kind, &before).with_context(|| format!("round {number}"))?;
            let place = KINDS.iter().position(|(known, _)| *known == kind).context("a kind")?;
            let collided = crossed(&self.relay()?.ike_seen(skip), &[CREATE_CHILD_SA]);
            let (rounds, collisions) = leg.rounds.get_mut(place).context("a kind")?;
            *rounds += 1;
            *collisions += u32::from(collided);
            leg.rekeys += u64::from(kind.renews_ike()) + u64::from(kind.renews_child());
            if number % 20 == 19 {
                println!("  {} rounds", number + 1);
            }
        }
        Ok(())
    }

    /// Both ends are told in the same moment. Where requests are to cross, the path keeps those of both back until both are there.
    fn both(&self, kind: Kind, before: &[End; 2]) -> Result<()> {
        let [a, b] = self.daemons;
        let relay = self.relay()?;
        let skip = relay.ike_count();
        relay.hold_ike(self.is_crossing());
        let together = Barrier::new(2);
        let tell = |daemon: &Daemon<'_>, side: Side, end: &End| -> Result<()> {
            let mut vici = daemon.vici()?;
            let request = ends::request(kind.is_ike(side), end);
            together.wait();
            let answer = vici.command("rekey", request, |_, _| Ok(()))?;
            // On a short path the other end may have been faster: then what was to be rekeyed is gone already.
            let error = answer.get_str("errmsg").unwrap_or_default();
            let missed = error.starts_with("no matching");
            ensure!(answer.is_yes("success") || missed, "{side:?} refused to rekey: {error}");
            Ok(())
        };
        thread::scope(|scope| {
            let ends = [scope.spawn(|| tell(a, Side::A, &before[0])), scope.spawn(|| tell(b, Side::B, &before[1]))];
            // Not all of them need to cross: one end may have to wait for something of its own first.
            wait_until(CROSS, || both_ask(&relay.ike_seen(skip), &[CREATE_CHILD_SA]));
            relay.hold_ike(false);
            ends.into_iter().try_for_each(|end| end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn until_over(&self, kind: Kind, before: &[End; 2]) -> Result<()> {
        let started = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(30));
            let quiet = self.relay()?.last_ike().is_none_or(|at| at.elapsed() > QUIET);
            if quiet && self.ends().is_ok_and(|now| is_over(kind, before, &now)) {
                return Ok(());
            }
            let limit = if self.options.ike_loss > 0 { LOSSY_ROUND } else { ROUND };
            if started.elapsed() > limit {
                let [a, b] = self.daemons;
                anyhow::bail!("not over within {} s; A: {:#?}\nB: {:#?}", limit.as_secs(), a.sas()?, b.sas()?);
            }
        }
    }

    /// One end rekeys every second, in turn.
    fn every_second(&self, leg: &mut Leg) -> Result<()> {
        let started = Instant::now();
        let time = Duration::from_secs_f64(self.options.minutes * 60.0);
        let mut last = self.ends()?;
        for tick in 1_u32.. {
            thread::sleep((Duration::from_secs(1) * tick).saturating_sub(started.elapsed()));
            if let Ok(now) = self.ends() {
                let [end, _] = &now;
                leg.rekeys += u64::from(end.child.spi_in != last[0].child.spi_in || end.ike.spis != last[0].ike.spis);
                last = now;
            }
            if started.elapsed() >= time {
                return Ok(());
            }
            let place = usize::from(tick % 2 == 0);
            let (Some(daemon), Some(end)) = (self.daemons.get(place), last.get(place)) else { continue };
            let is_ike = tick % IKE_EVERY == tick / IKE_EVERY % 2;
            // A refusal shows in the number of rekeys.
            let _ = daemon.vici()?.command("rekey", ends::request(is_ike, end), |_, _| Ok(()))?;
            if tick % 60 == 0 {
                println!("  {tick} s: {} rekeys", leg.rekeys);
            }
        }
        Ok(())
    }

    fn ends(&self) -> Result<[End; 2]> {
        ends::both(self.daemons, CHILD)
    }
}

fn wall_clock() -> Result<WallTime> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

fn difference(now: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    [now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1])]
}

fn is_over(kind: Kind, before: &[End; 2], now: &[End; 2]) -> bool {
    ends::agree(now)
        && (!kind.renews_ike() || ends::is_new(before, now, true))
        && (!kind.renews_child() || ends::is_new(before, now, false))
}

/// Packets that the kernel has thrown away because the UDP sockets of a namespace were full.
fn overflows(namespace: &Namespace) -> Result<u64> {
    let tables = namespace.run(|| {
        ["udp", "udp6"]
            .map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default())
    })?;
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    Ok(lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_round_comes_up_in_twenty() {
        for (kind, name) in KINDS {
            assert!((0..20).any(|round| Kind::of(round) == kind), "{name}");
        }
    }
}
