//! The loss soak: many tunnels at a time, each over a path of its own that loses a share of the IKE datagrams in both directions. Each is
//! established, rekeyed from both ends, and its IKE SA is rekeyed; how long that takes is the result. ESP is spared, and so must arrive.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::peer::charon::Charon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer, audit};
use lab::relay::{IkeSeen, Profile, Relay};
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::stream::{self, Load, Report};

use super::ends::{self, End};
use crate::quantiles::quantiles;

/// The child of each tunnel.
const CHILD: &str = "net4";
/// One way.
const DELAY: Duration = Duration::from_millis(10);
/// No step may take longer: several lost IKE SAs in a row.
const STEP: Duration = Duration::from_secs(900);
/// Between two looks at the lists.
const LOOK: Duration = Duration::from_millis(100);
/// IKE_SA_INIT (RFC 7296 §3.1).
const IKE_SA_INIT: u8 = 34;
/// What is measured, in order.
const STEPS: [&str; 4] = ["established", "CHILD SA rekeyed by A", "CHILD SA rekeyed by B", "IKE SA rekeyed by A"];

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tunnels
    #[arg(long, default_value_t = 100)]
    runs: u32,
    /// IKE datagrams lost on the way, percent, in each direction
    #[arg(long, default_value_t = 30)]
    loss: u8,
    /// Tunnels at a time
    #[arg(long, default_value_t = 10)]
    parallel: u32,
    /// First wait before a repetition, seconds; 0 = the daemons' defaults (4 s, each wait 1.8 times the one before, 5 repetitions)
    #[arg(long, default_value_t = 0.0)]
    retransmit: f64,
    /// What runs in gateway B
    #[arg(long, value_enum, default_value_t = super::Who::Cygnet)]
    peer: super::Who,
    /// Seed of the losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What came of one tunnel.
struct Run {
    times: Vec<Duration>,
    /// How often an IKE SA was begun.
    begun: usize,
    report: Report,
    /// IKE messages that came to the relay, and those of them that it lost.
    messages: (usize, usize),
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let timers = match options.retransmit > 0.0 {
        true => format!(
            "first repetition after {} s, each wait 1.8 times the one before, 5 repetitions",
            options.retransmit
        ),
        false => "default timers: repetitions after 4, 7.2, 13, 23.3, 42 s, given up after 165 s".into(),
    };
    println!(
        "{} tunnels, {} at a time, {} % of the IKE datagrams lost each way, {} ms each way, {timers}",
        options.runs,
        options.parallel,
        options.loss,
        DELAY.as_millis()
    );
    let (next, done) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let building = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..options.parallel.min(options.runs) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.runs {
                        return;
                    }
                    let outcome = tunnel(options, number, &building).with_context(|| format!("tunnel {number}"));
                    if let Ok(mut done) = done.lock() {
                        done.push(outcome);
                        if done.len() % 10 == 0 {
                            println!("  {} of {}", done.len(), options.runs);
                        }
                    }
                }
            });
        }
    });
    let outcomes = done.into_inner().unwrap_or_default();
    Ok(told(options, outcomes))
}

/// Prints the result; true when every tunnel did everything and lost no packet.
fn told(options: &Options, outcomes: Vec<Result<Run>>) -> bool {
    let mut runs = Vec::new();
    let mut failed = 0;
    for outcome in outcomes {
        match outcome {
            Ok(run) => runs.push(run),
            Err(error) => {
                failed += 1;
                println!("{error:?}");
            }
        }
    }
    let mut closing = format!("runs {} at {} % loss:", options.runs, options.loss);
    for (step, name) in STEPS.iter().enumerate() {
        let times: Vec<Duration> = runs.iter().filter_map(|run| run.times.get(step).copied()).collect();
        let [median, p99, most] = quantiles(times).map(|time| time.as_secs_f64());
        println!("{name}: median {median:.1} s, p99 {p99:.1} s, longest {most:.1} s");
        // Writing to a String cannot fail.
        let _ = write!(closing, " {name} {median:.1}/{p99:.1} s;");
    }
    // A tunnel whose IKE SA was given up has a gap in its traffic: nothing can carry it then.
    let (steady, interrupted): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.begun == 1);
    let lost: u64 = steady.iter().map(|run| run.report.lost + run.report.duplicated).sum();
    let sent: u64 = steady.iter().map(|run| run.report.sent).sum();
    let messages: usize = runs.iter().map(|run| run.messages.0).sum();
    let dropped: usize = runs.iter().map(|run| run.messages.1).sum();
    println!(
        "IKE messages on the way: {messages}, lost {dropped} ({:.1} %)",
        dropped as f64 * 100.0 / messages.max(1) as f64
    );
    println!("packets of tunnels whose IKE SA was begun once: sent {sent} lost or duplicated {lost}");
    println!(
        "{closing} (median/p99) given up and begun again {} packets-lost {lost} failed {failed}",
        interrupted.len()
    );
    failed == 0 && lost == 0 && sent > 0
}

fn tunnel(options: &Options, number: u32, building: &Mutex<()>) -> Result<Run> {
    let path = Profile {
        delay: DELAY,
        ike_loss: f64::from(options.loss) / 100.0,
        seed: options.seed.wrapping_mul(1_000_003).wrapping_add(number.into()),
        ..Profile::CLEAN
    };
    let extra = match options.retransmit > 0.0 {
        true => format!("[ike]\nretransmit_timeout = {}\n", options.retransmit),
        false => String::new(),
    };
    let cygnet = Cygnet { extra, log: String::new() };
    let other: &dyn Peer = match options.peer {
        super::Who::Cygnet => &cygnet,
        super::Who::Charon => &Charon,
    };
    let lab = {
        // `ip netns` is not made for being called twice at once.
        let _one = building.lock();
        Lab::new(&Middle::Relay(path))?
    };
    let start = |peer: &dyn Peer, side: Side| {
        let mut tunnel = Tunnel::between(&lab, side, Family::V4);
        tunnel.children.retain(|child| child.name == CHILD);
        if side == Side::A {
            tunnel = tunnel.with_child_option("start_action = start").with_child_option("dpd_action = start");
            // An end that gives up cannot tell the other one, which has to find out by itself.
            tunnel.options.push("dpd_delay = 10s".into());
        }
        Daemon::start(peer, &lab.site(side).gateway, &lab.directory().join(side.letter()), &[tunnel])
    };
    let b = start(other, Side::B)?;
    let daemons = [start(&cygnet, Side::A)?, b];
    let outcome = measure(&lab, &daemons);
    outcome.map_err(|error| {
        let [a, b] = &daemons;
        let seen = lab.relay.as_ref().map(last_seen).unwrap_or_default();
        error.context(format!("wire:\n{seen}\nlog of A:\n{}\n\nlog of B:\n{}\n", a.log_tail(60), b.log_tail(60)))
    })
}

fn measure(lab: &Lab, daemons: &[Daemon<'_>; 2]) -> Result<Run> {
    let relay = lab.relay.as_ref().context("no relay")?;
    let mut times = Vec::new();
    let mut now = until(daemons, |_| true).context("establishing")?;
    let begun = relay.ike_seen(0).first().context("no IKE message")?.at;
    times.push(begun.elapsed());
    let load = Load { octets: 200, rate: 20.0, family: Family::V4 };
    let streams = stream::start_both_ways(&lab.a, &lab.b, &[load])?;
    for (side, is_ike) in [(0, false), (1, false), (0, true)] {
        let (Some(daemon), Some(end)) = (daemons.get(side), now.get(side)) else { bail!("two ends") };
        let started = Instant::now();
        let asked = daemon.vici()?.command("rekey", ends::request(is_ike, end), |_, _| Ok(()))?;
        if !asked.is_yes("success") {
            bail!("not rekeyed: {:?}", asked.get_str("errmsg"));
        }
        let old = now;
        let what = if is_ike { "rekeying the IKE SA" } else { "rekeying the CHILD SA" };
        now = until(daemons, |now| ends::is_new(&old, now, is_ike)).context(what)?;
        times.push(started.elapsed());
    }
    let report = stream::finish_all(streams)?;
    let [a, b] = daemons;
    audit::settle(a, b, &[CHILD], STEP)?;
    let seen = relay.ike_seen(0);
    let lost = seen.iter().filter(|message| message.lost).count();
    Ok(Run { times, begun: beginnings(&seen), report, messages: (seen.len(), lost) })
}

/// The last IKE messages, one a line.
fn last_seen(relay: &Relay) -> String {
    let seen = relay.ike_seen(relay.ike_count().saturating_sub(60));
    let Some(first) = seen.first().map(|message| message.at) else { return String::new() };
    let line = |message: &IkeSeen| {
        format!(
            "{:>9.3} {} {} {:016x} exchange {} message {}{}\n",
            message.at.saturating_duration_since(first).as_secs_f64(),
            if message.from_left { "A" } else { "B" },
            if message.is_response { "response" } else { "request " },
            message.spis.0,
            message.exchange,
            message.message_id,
            if message.lost { " lost" } else { "" }
        )
    };
    seen.iter().map(line).collect()
}

/// How many IKE SAs were begun, by the SPIs of their initiators.
fn beginnings(seen: &[IkeSeen]) -> usize {
    let first = seen.iter().filter(|message| message.exchange == IKE_SA_INIT && !message.is_response);
    first.map(|message| message.spis.0).collect::<BTreeSet<_>>().len()
}

/// Waits until both ends agree on what there is and the condition holds.
fn until(daemons: &[Daemon<'_>; 2], condition: impl Fn(&[End; 2]) -> bool) -> Result<[End; 2]> {
    let started = Instant::now();
    loop {
        match ends::both(daemons, CHILD) {
            Ok(now) if ends::agree(&now) && condition(&now) => return Ok(now),
            Ok(_) | Err(_) if started.elapsed() < STEP => thread::sleep(LOOK),
            Ok(_) => bail!("not within {} s", STEP.as_secs()),
            Err(error) => return Err(error.context(format!("not within {} s", STEP.as_secs()))),
        }
    }
}
