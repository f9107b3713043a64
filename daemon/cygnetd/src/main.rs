//! `cygnetd`: sockets, clock, shards and sessions around the protocol core.
//!
//! ```text
//!  UDP 500/4500 ─► net ─┐                      ┌─► net ─► peer
//!  backend ─► router ───┼─► inbox ─► shard ────┼─► backend
//!  workers ─────────────┤   (one thread each,  ├─► workers
//!  vici ─► commands ────┘    one Endpoint)     └─► events ─► log, vici
//! ```
//!
//! Reading order: [`daemon`] (what starts when), [`shard`], [`router`], [`vici`]. Protocol decisions are `ike-sa`'s, wording of requests and
//! answers is `swanctl-compat`'s.

mod backend;
mod beforehand;
mod capture;
mod check;
mod clock;
mod commands;
mod config;
mod core;
mod daemon;
mod doctor;
#[cfg(test)]
mod documents;
mod events;
mod explain;
mod firsts;
mod history;
mod inbox;
mod load;
mod log;
mod net;
mod privileges;
mod router;
mod service;
mod shard;
mod store;
mod subscribers;
mod surroundings;
#[cfg(feature = "telemetry")]
mod telemetry;
#[cfg(not(feature = "telemetry"))]
#[path = "telemetry/absent.rs"]
mod telemetry;
mod updown;
mod users;
mod vici;
mod webhooks;
mod why;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The Cygnet key exchange daemon.
#[derive(Parser)]
#[command(name = "cygnetd", version)]
struct Arguments {
    /// Settings file; the default may be missing, a named one not.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings and swanctl.conf, print all findings, and exit: 0 good, 1 warnings, 2 errors.
    #[arg(long)]
    check: bool,
    /// Directory of swanctl.conf for --check, instead of the configured one.
    #[arg(long, value_name = "DIR", requires = "check")]
    swanctl: Option<PathBuf>,
    /// Findings of --check as JSON.
    #[arg(long, requires = "check")]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(done) = updown::helper::asked(std::env::args_os()) {
        return done;
    }
    let arguments = Arguments::parse();
    if arguments.check {
        return check::run(arguments.config.as_deref(), arguments.swanctl.as_deref(), arguments.json);
    }
    let config = match config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(findings) => {
            for finding in findings {
                eprintln!("{finding}");
            }
            return ExitCode::from(2);
        }
    };
    match daemon::run(config, arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cygnetd: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one sentence, each said once: some errors already quote theirs.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}
