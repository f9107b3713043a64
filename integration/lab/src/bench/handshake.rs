//! What a history costs handshakes: how many IKE SAs with a CHILD SA a gateway makes in a second while it keeps one, against while it keeps none.
//!
//! Both in one run, in turns, for a machine is never as fast twice. Processors are shared with the peers, so the ratio of rates tells what a user
//! sees at a machine that is busy; that of the daemon's own processor time, the database's thread included until it has everything, tells
//! what the history itself takes, and until the last handshake how much of that they had to wait for.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use lab::hostile::dice::Dice;
use lab::hostile::ground::{CONNECTION, Ground, NO_HISTORY, Opening};
use lab::hostile::memory_run::establish_all;
use lab::postgres::Postgres;
use lab::topology::{Lab, Middle};

/// How long the database may take for the rest.
const REST: Duration = Duration::from_secs(2);

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// With a history, without, or both in turns
    #[arg(long, value_enum, default_value_t = History::Compare)]
    history: History,
    /// The history's database
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Sqlite, Engine::Postgres])]
    engines: Vec<Engine>,
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Handshakes in each round
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    handshakes: u32,
    /// Fail when the ratio is less
    #[arg(long)]
    goal: Option<f64>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum History {
    Compare,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

/// One round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Round {
    /// In a second.
    rate: f64,
    /// Milliseconds of processor time of the daemon for each, until the last one was made.
    at_once: f64,
    /// The same until the database has all of it.
    cost: f64,
    /// Octets of the spool for each, as far as they were not deleted yet.
    spooled: Option<f64>,
}

/// Runs it; true when every handshake succeeded and the goal, if there is one, was reached.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut good = true;
    for engine in &options.engines {
        good &= measure(options, *engine)?;
    }
    Ok(good)
}

fn measure(options: &Options, engine: Engine) -> Result<bool> {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    let mut place = String::new();
    for round in 0..options.rounds {
        // Who is first changes, so that a machine that becomes slower or faster in the course of it wrongs nobody.
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for kept in order {
            let skipped = if kept { History::Off } else { History::On };
            if options.history != skipped {
                let (done, filesystem) = one(options, kept.then_some(engine), round)?;
                let spooled =
                    done.spooled.map(|octets| format!(", {octets:.0} octets in the spool")).unwrap_or_default();
                println!(
                    "{engine:?} {round}: history {kept:5} {:7.1}/s {:.3} ms of the daemon's processor time each, {:.3} ms meanwhile{spooled}",
                    done.rate, done.cost, done.at_once
                );
                if kept {
                    on.push(done)
                } else {
                    off.push(done)
                }
                place = filesystem;
            }
        }
    }
    let rates = [&off, &on].map(|rounds| median(rounds.iter().map(|round| round.rate)));
    let costs = [&off, &on].map(|rounds| median(rounds.iter().map(|round| round.cost)));
    let [meanwhile_off, meanwhile_on] =
        [&off, &on].map(|rounds| median(rounds.iter().map(|round| round.at_once)).unwrap_or_default());
    let ([Some(rate_off), Some(rate_on)], [Some(cost_off), Some(cost_on)]) = (rates, costs) else { return Ok(true) };
    let ratio = rate_on / rate_off;
    println!(
        "history on/off ratio {ratio:.3} ({engine:?}, medians of {} rounds of {} handshakes: {rate_on:.1}/s on, {rate_off:.1}/s off; \
         processor time {cost_on:.3} ms on ({}), {cost_off:.3} ms off ({}), ratio {:.3}; \
         until the last handshake {meanwhile_on:.3} ms on, {meanwhile_off:.3} ms off; spool on {place})",
        options.rounds,
        options.handshakes,
        spread(&on),
        spread(&off),
        cost_off / cost_on
    );
    Ok(options.goal.is_none_or(|goal| ratio >= goal))
}

/// One daemon, from its start to its end.
fn one(options: &Options, engine: Option<Engine>, round: u32) -> Result<(Round, String)> {
    let lab = Lab::new(&Middle::Direct)?;
    let postgres = match engine {
        Some(Engine::Postgres) => Some(Postgres::start(&lab.a.gateway, &lab.directory().join("postgres"))?),
        Some(Engine::Sqlite) | None => None,
    };
    let spool = lab.directory().join("spool");
    let history = match &postgres {
        Some(postgres) => table(&spool, &postgres.database("history")?),
        None if engine.is_none() => NO_HISTORY.into(),
        None => table(&spool, &format!("sqlite://{}", lab.directory().join("history.db").display())),
    };
    let mut ground = Ground::new(&lab, "error", &Opening { history, ..Opening::for_many() })?;
    let mut dice = Dice::new(options.seed.wrapping_add(round.into()));
    let before = ground.processor_time()?;
    let started = Instant::now();
    establish_all(&ground, 0..options.handshakes, &mut dice)?;
    let taken = started.elapsed();
    let meanwhile = ground.processor_time()?.saturating_sub(before);
    thread::sleep(REST);
    let used = ground.processor_time()?.saturating_sub(before);
    let up = ground.a.sas()?.iter().filter(|sa| sa.name == CONNECTION && sa.carries(&[CONNECTION])).count();
    ensure!(up == options.handshakes as usize, "{up} of {} pairs are up", options.handshakes);
    if engine.is_some() {
        told(&ground, options.handshakes)?;
    }
    let count = f64::from(options.handshakes);
    let spooled = if engine.is_some() { spooled(&spool)? } else { None };
    let spooled = spooled.map(|octets| octets as f64 / count);
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count;
    let round = Round { rate: count / taken.as_secs_f64(), at_once: each(meanwhile), cost: each(used), spooled };
    Ok((round, filesystem(lab.directory())?))
}

fn table(spool: &Path, url: &str) -> String {
    format!("[history]\nurl = \"{url}\"\nspool = \"{}\"\n", spool.display())
}

/// Octets that were written into a spool; unknown when some of its segments are gone. The unrelated tunnel's few are among them.
fn spooled(spool: &Path) -> Result<Option<u64>> {
    let (mut sum, mut first) = (0, false);
    for entry in std::fs::read_dir(spool)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".spool")?.parse::<u64>().ok());
        if let Some(number) = number {
            first |= number == 1;
            sum += entry.metadata()?.len();
        }
    }
    Ok(first.then_some(sum))
}

/// The cheapest and the dearest round.
fn spread(rounds: &[Round]) -> String {
    let costs = || rounds.iter().map(|round| round.cost);
    format!("{:.3} to {:.3}", costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max))
}

/// The history has all of it: what it costs was paid.
fn told(ground: &Ground<'_>, handshakes: u32) -> Result<()> {
    let output = ground.a.cygnet(&["history", "--connection", CONNECTION, "--limit", "1", "--json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let past: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    let total = past.pointer("/totals/0/generations").and_then(serde_json::Value::as_u64);
    ensure!(total == Some(handshakes.into()), "the history has {total:?} of {handshakes} CHILD SAs: {text}");
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some((values.get(middle)? + values.get(values.len() / 2)?) / 2.0)
}

/// The kind of file system that a directory is on.
fn filesystem(directory: &Path) -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let holding = mounts.filter(|(at, _)| directory.starts_with(at));
    // The last one of the longest lies on top.
    let (_, kind) = holding.max_by_key(|(at, _)| at.len()).context("no file system holds the lab's directory")?;
    Ok(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }
}
