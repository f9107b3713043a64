//! The lab's own programs: the demo, the soaks and the benchmarks. Each enters namespaces of its own first and leaves nothing behind.

mod bench;
mod demo;
mod flood;
mod quantiles;
mod soak;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Network-namespace labs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// From the packet that asks for a tunnel to its delivery, and many traps at once
    BenchAcquire(bench::acquire::Options),
    /// Events written into the history, and questions about a long past
    BenchHistory(bench::history::Options),
    /// Messages to a webhook on loopback, from both databases
    BenchWebhook(bench::webhook::Options),
    /// Thousands of connections loaded, listed and unloaded, next to Debian's charon
    BenchLoadConns(bench::load_conns::Options),
    /// How many handshakes a gateway does in a second, and what keeping a history costs of that
    BenchHandshake(bench::handshake::Options),
    /// Two gateways, one tunnel, real packets: a pass/fail line per step
    Demo(demo::Options),
    /// Forged IKE_SA_INIT requests from thousands of addresses, while tunnels rekey and a new peer comes
    FloodInit(flood::Options),
    /// Mutated IKE messages at a running daemon, most of them below SK with the right keys
    HostileIke(lab::hostile::ike_run::Options),
    /// Mutated ESP packets at a running daemon, native and in UDP
    HostileEsp(lab::hostile::esp_run::Options),
    /// What an established pair of IKE SA and CHILD SA costs a running daemon
    HostileMemory(lab::hostile::memory_run::Options),
    /// Runs a program inside namespaces of its own, for tests that make network namespaces
    Inside {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Limits that make both ends rekey every second under load, over a slow and reordering path
    SoakRekey(soak::Options),
    /// The history's PostgreSQL goes away under load, refusing and then not answering at all
    SoakAway(soak::away::Options),
    /// Both ends rekey at the same moment, then one every second, against Debian's charon
    SoakCharon(soak::charon::Options),
    /// `kill -9` at hundreds of moments of a storm of rekeys: nothing is missing from the history, no webhook is lost
    SoakCrash(soak::crash::Options),
    /// Many tunnels over paths that lose IKE datagrams: how long establishing and rekeying take
    SoakLoss(soak::loss::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = lab::enter::enter().and_then(|()| match &arguments.task {
        Task::BenchAcquire(options) => bench::acquire::run(options),
        Task::BenchHistory(options) => bench::history::run(options),
        Task::BenchLoadConns(options) => bench::load_conns::run(options),
        Task::BenchWebhook(options) => bench::webhook::run(options),
        Task::BenchHandshake(options) => bench::handshake::run(options),
        Task::Demo(options) => demo::run(options),
        Task::FloodInit(options) => flood::run(options),
        Task::SoakRekey(options) => soak::run(options),
        Task::SoakAway(options) => soak::away::run(options),
        Task::SoakCharon(options) => soak::charon::run(options),
        Task::SoakCrash(options) => soak::crash::run(options),
        Task::SoakLoss(options) => soak::loss::run(options),
        Task::HostileIke(options) => lab::hostile::ike_run::run(options),
        Task::HostileEsp(options) => lab::hostile::esp_run::run(options),
        Task::HostileMemory(options) => lab::hostile::memory_run::run(options),
        Task::Inside { command } => inside(command),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the program. Its temporary files are the run's own, too: in a process namespace of its own it may have the number of another run.
fn inside(command: &[String]) -> anyhow::Result<bool> {
    let (program, arguments) = command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).env("TMPDIR", lab::enter::directory()).exec();
    Err(error).with_context(|| format!("starting {program}"))
}
