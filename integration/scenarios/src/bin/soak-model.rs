//! The model checker's program: many random schedules, or one again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program of the tests")]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use scenarios::model::classes::CLASSES;
use scenarios::model::shrink::shrink;
use scenarios::model::soak::{Extent, Sum, soak};
use scenarios::model::{Outcome, Planted, Schedule, run_schedule, run_seed};

/// Random schedules of commands, losses, refusals and failures over two and three gateways, with the invariants checked after every step
#[derive(Parser)]
struct Options {
    /// Schedules
    #[arg(long, default_value_t = 1_000)]
    schedules: u64,
    /// The first seed; without it a fresh one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Begin no further schedule after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// Threads; 0 = one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Begin no further schedule after so many violations
    #[arg(long, default_value_t = 1)]
    violations: usize,
    /// Carry out the schedule of one seed again and print its trace
    #[arg(long)]
    schedule_seed: Option<u64>,
    /// Carry out the schedule in a file again and print its trace
    #[arg(long)]
    replay: Option<std::path::PathBuf>,
    /// Print failing schedules as they are, not their smallest form
    #[arg(long)]
    whole: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let traced = Planted { traced: true, ..Planted::default() };
    if let Some(file) = &options.replay {
        let schedule = std::fs::read_to_string(file).map_err(|error| error.to_string());
        return match schedule.and_then(|text| Schedule::parse(&text)) {
            Ok(schedule) => show(&run_schedule(&schedule, traced)),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::FAILURE
            }
        };
    }
    if let Some(seed) = options.schedule_seed {
        let outcome = run_seed(seed, traced);
        return show(&outcome);
    }
    run(&options)
}

/// Prints what came of one schedule.
fn show(outcome: &Outcome) -> ExitCode {
    println!("{}", outcome.trace.as_deref().unwrap_or_default());
    println!("{} steps, {} rekeys", outcome.steps, outcome.rekeys);
    match &outcome.violation {
        Some(violation) => {
            println!("violation: {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn run(options: &Options) -> ExitCode {
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let extent = Extent {
        seed,
        schedules: options.schedules,
        time: options.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        threads: if options.threads == 0 { cores } else { options.threads },
        violations: options.violations,
    };
    println!("first seed {seed}, at most {} schedules, {} threads", extent.schedules, extent.threads);
    let started = Instant::now();
    let sum = soak(extent, Planted::default(), |sum| {
        if sum.schedules.is_multiple_of(10_000) {
            println!("{} schedules, {:.0} s", sum.schedules, started.elapsed().as_secs_f64());
        }
    });
    sum.failed.iter().for_each(|outcome| explain(outcome, options.whole));
    conclude(&sum, started.elapsed())
}

/// A failing schedule, made small, with the trace of it.
fn explain(outcome: &Outcome, whole: bool) {
    println!("\nseed {}: {}", outcome.schedule.setup.seed, outcome.violation.as_deref().unwrap_or_default());
    let small = if whole { outcome.clone() } else { shrink(outcome, Planted::default()) };
    let again = run_schedule(&small.schedule, Planted { traced: true, ..Planted::default() });
    println!("{}", again.trace.as_deref().unwrap_or_default());
    println!("violation: {}", again.violation.as_deref().unwrap_or("none when carried out again"));
    println!("schedule, for --replay:\n{}", small.schedule);
}

/// How many schedules have met each situation.
fn print_classes(sum: &Sum) {
    println!("\n{:<6} {:>9}  situation", "class", "schedules");
    let count = |class: &str| sum.classes.get(class).copied().unwrap_or_default();
    for (class, text) in CLASSES {
        println!("{class:<6} {:>9}  {text}", count(class));
    }
    let rare: Vec<_> = CLASSES.iter().map(|(class, _)| *class).filter(|class| count(class) < GOAL).collect();
    println!("met by fewer than {GOAL} schedules: {}", if rare.is_empty() { "none".into() } else { rare.join(", ") });
}

/// Each situation is to be met by so many schedules.
const GOAL: u64 = 100;

fn conclude(sum: &Sum, time: Duration) -> ExitCode {
    if sum.schedules >= GOAL {
        print_classes(sum);
    }
    let (steps, rekeys) = sum.least.unwrap_or_default();
    println!("at least {steps} steps and {rekeys} rekeys in each schedule; {} operations", sum.operations);
    println!(
        "model: {} schedules, {} steps, {} rekeys, {} violations in {:.0} s",
        sum.schedules,
        sum.steps,
        sum.rekeys,
        sum.failed.len(),
        time.as_secs_f64()
    );
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 >> 10
}
