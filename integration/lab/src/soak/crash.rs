//! The crash soak: `kill -9` of the daemon at hundreds of moments while tunnels are made and rekeyed from both sides against Debian's charon, with a
//! receiver of webhooks that fails half of the time. In the end every SA that was let out and every event is in the history once, and every
//! event has reached the receiver, as [`judge`] says it, on evidence that is not the daemon's own: the decrypted capture, charon's log, what
//! clients were told, what the receiver accepted.

mod judge;
mod kept;
mod keys;
mod moment;
mod receiver;
mod round;
mod storm;
mod tamper;
mod truth;
mod wire;
mod witness;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::postgres::Postgres;
use lab::topology::{Lab, Middle};

use judge::{Evidence, Verdict};
use round::Run;

/// Findings shown of each kind.
const SHOWN: usize = 8;

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the daemon is killed, with each engine
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Where the history is kept
    #[arg(long, value_enum, default_value_t = Engines::Both)]
    engine: Engines,
    /// Seed of moments, commands and failures; without one, a fresh one
    #[arg(long)]
    seed: Option<u64>,
    /// The receiver of webhooks: fails half of the time, or is down until the last kill
    #[arg(long, value_enum, default_value_t = Reception::Failing)]
    receiver: Reception,
    /// Without webhooks
    #[arg(long)]
    no_webhook: bool,
    /// Break something, which has to be noticed
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Show the end of the daemons' logs
    #[arg(long)]
    logs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engines {
    Sqlite,
    Postgres,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Reception {
    Failing,
    Down,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sabotage {
    /// The spool loses its last record whenever the daemon dies
    Spool,
    /// The receiver forgets one in ten of what it has accepted
    Receiver,
}

/// What all engines together have come to.
#[derive(Default)]
struct Sum {
    lost: usize,
    duplicated: usize,
    webhooks_lost: usize,
    wrong: usize,
    passed: bool,
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(|| u64::try_from(wire::now().as_micros()).unwrap_or(1));
    println!("seed {seed}");
    let engines: &[Engines] = match options.engine {
        Engines::Both => &[Engines::Sqlite, Engines::Postgres],
        Engines::Sqlite => &[Engines::Sqlite],
        Engines::Postgres => &[Engines::Postgres],
    };
    let mut sum = Sum { passed: true, ..Sum::default() };
    for engine in engines {
        with_engine(options, *engine, seed, &mut sum)?;
    }
    let webhooks = if options.no_webhook { "not tried".into() } else { format!("lost {}", sum.webhooks_lost) };
    let closing = format!("history lost {}, duplicated {}; webhooks {webhooks}", sum.lost, sum.duplicated);
    match options.sabotage {
        None => println!("{closing}"),
        Some(sabotage) => {
            let noticed = match sabotage {
                Sabotage::Spool => sum.lost > 0,
                Sabotage::Receiver => sum.webhooks_lost > 0 && sum.lost == 0,
            };
            println!("sabotage of {sabotage:?} {}: {closing}", if noticed { "noticed" } else { "NOT NOTICED" });
            return Ok(noticed);
        }
    }
    Ok(sum.passed)
}

fn with_engine(options: &Options, engine: Engines, seed: u64, sum: &mut Sum) -> Result<()> {
    let started = Instant::now();
    let lab = Lab::new(&Middle::Direct)?;
    let mut postgres = None;
    let url = match engine {
        Engines::Postgres => {
            let server = Postgres::start(&lab.a.gateway, &lab.directory().join("postgres"))?;
            let url = server.database("history")?;
            postgres = Some(server);
            url
        }
        Engines::Sqlite | Engines::Both => {
            format!("sqlite://{}", lab.directory().join("a/history/history.db").display())
        }
    };
    let mut run = Run::begin(&lab, options, &url, seed)?;
    let outcome = run.all();
    if outcome.is_err() || options.logs {
        run.show_logs();
    }
    let evidence = outcome?;
    let verdict = judge::judge(&evidence);
    report(options, engine, &run, &evidence, &verdict, started.elapsed());
    let (tried, unnoticed) = tamper::unnoticed(&evidence, seed);
    println!("  {} of {tried} tampered histories noticed{}", tried - unnoticed.len(), list(&unnoticed));
    sum.lost += verdict.lost.len();
    sum.duplicated += verdict.duplicated.len();
    sum.webhooks_lost += verdict.webhooks_lost.len();
    sum.wrong += verdict.wrong.len();
    let few = verdict.excused.len() as u64 + verdict.unsent <= 2 * u64::from(options.kills);
    let passed = verdict.is_clean() && few && unnoticed.is_empty() && evidence.truth.unread == 0 && run.missed == 0;
    if !passed && options.sabotage.is_none() {
        run.show_logs();
    }
    sum.passed &= passed;
    drop(run);
    drop(postgres);
    Ok(())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(", NOT NOTICED: {}", names.join("; ")) }
}

fn report(options: &Options, engine: Engines, run: &Run<'_>, evidence: &Evidence, verdict: &Verdict, time: Duration) {
    let kinds = [
        ("lost", &verdict.lost),
        ("duplicated", &verdict.duplicated),
        ("webhook lost", &verdict.webhooks_lost),
        ("wrong", &verdict.wrong),
    ];
    for (kind, findings) in kinds {
        for finding in findings.iter().take(SHOWN) {
            println!("  {kind}: {finding}");
        }
        if findings.len() > SHOWN {
            println!("  {kind}: and {} more", findings.len() - SHOWN);
        }
    }
    let moments: Vec<String> = run.moments.iter().map(|(moment, times)| format!("{} {times}", moment.name())).collect();
    println!("  killed: {}", moments.join(", "));
    let runs: BTreeSet<&str> = evidence.kept.events.iter().map(|event| &*event.boot).collect();
    let longest = verdict.excused.iter().max().map_or(0, Duration::as_millis);
    println!(
        "  wire: {} exchanges, {} frames missed; charon's log: {} pairs of SPIs; witnesses: {} records; excused {} (at most {longest} ms), \
         unsent {}, redundant {}, wrong {}",
        evidence.truth.exchanges,
        run.missed,
        evidence.charon.len(),
        evidence.records.len(),
        verdict.excused.len(),
        verdict.unsent,
        verdict.redundant,
        verdict.wrong.len()
    );
    if let Some(accounts) = &evidence.accounts {
        let sum =
            |of: fn(&receiver::Account) -> u32| accounts.values().map(|account| u64::from(of(account))).sum::<u64>();
        println!(
            "  receiver: {} webhooks, came {} times, accepted {}; {:?}; all delivered {:.1} s after the last run with tunnels, of which it was well for {:.1} s",
            accounts.len(),
            sum(|account| account.seen),
            sum(|account| account.accepted),
            run.moods(),
            run.drained.0.as_secs_f64(),
            run.drained.1.as_secs_f64()
        );
    }
    println!(
        "crash {engine:?}: kills {} (seed {}) in {} runs, IKE SAs {}, CHILD SA generations {}, events {}, deliveries {}, excused {}, unsent {}, {:.0} s",
        options.kills,
        run.seed,
        runs.len(),
        verdict.ikes,
        verdict.children,
        evidence.kept.events.len(),
        evidence.kept.deliveries.len(),
        verdict.excused.len(),
        verdict.unsent,
        time.as_secs_f64()
    );
}
