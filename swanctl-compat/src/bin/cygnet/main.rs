//! `cygnet`: what Cygnet's daemon knows beyond swanctl's commands.
#![forbid(unsafe_code)]

mod at;
mod backend_sas;
mod capture;
#[path = "../shared/connect.rs"]
mod connect;
mod doctor;
#[cfg(test)]
mod documents;
mod events;
mod explain;
mod follow;
mod guards;
mod history;
mod log;
mod moment;
mod paint;
mod past;
mod simulate;
mod status;
#[path = "../shared/stdio.rs"]
mod stdio;
mod watch;
mod webhook;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use connect::DEFAULT_URI;
use stdio::say;
use swanctl_compat::vici::client::ClientError;

/// Ask the Cygnet daemon.
#[derive(Debug, Parser)]
#[command(name = "cygnet", version)]
struct Arguments {
    /// Socket of the daemon.
    #[arg(long, short, global = true, default_value = DEFAULT_URI)]
    uri: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every configured child: up, connecting, retrying or refused, and why it last ended or failed. Ends with 3 when one is neither up nor
    /// waiting for traffic.
    Status(status::Arguments),
    /// Show every SA that the data path holds, and the CHILD SA that each belongs to. Ends with 3 when one belongs to none, which is normal only
    /// for the moment in which it is installed or removed.
    BackendSas(backend_sas::Arguments),
    /// Show what an earlier run of the daemon left blocked and no child that is trapped, started or up has claimed: the guards of connections
    /// that are gone. With --drop-unclaimed they are taken down.
    Guards(guards::Arguments),
    /// Have a simulated device go wrong: refuse, lose or forget something, go down, come up, vanish. Tells how many SAs, policies, reports or
    /// devices it is about. Only where the daemon simulates NICs (backend.userspace.simulate_packet_device).
    Simulate(Box<simulate::Arguments>),
    /// Walk one packet through this gateway, from or to either side of a tunnel, and say where it stops and what repairs that. Ends with 0 when
    /// nothing is in its way, 1 when something is, 2 when that cannot be found out.
    Why(why::Arguments),
    /// Look at devices and what each can carry, children against their devices, ports, privileges, forwarding, routes, policies, paths and files,
    /// and say what to do about each doubt. Ends with 0 when all is well, 1 with warnings, 2 with errors or when the daemon does not answer.
    Doctor(doctor::Arguments),
    /// Print the `ip xfrm` commands equal to what is installed for a connection, or would be where it is not up: guard, policies, SAs (keys
    /// are masked), and the routes and rules that lead traffic into the tunnel. In order of installation, each block with the reason for it.
    Explain(explain::Arguments),
    /// Write the packets of a connection to a pcapng file: in clear (interface `inner`), and as ESP and IKE (interface `outer`), with the SA,
    /// sequence number and generation of each, and the reason where one was dropped. Never holds up traffic: what cannot be written in time is
    /// lost and counted. Ends with Ctrl-C or at a limit.
    Capture(capture::Arguments),
    /// Show the past: what each child has carried over all its rekeys and runs of the daemon, then each generation of its CHILD SAs, the newest
    /// first, with SPIs, algorithms, the mode really in use, counters and why it ended.
    History(history::Arguments),
    /// Show what has happened, the oldest first, or with --follow what happens.
    Events(events::Arguments),
    /// Have more lines in the daemon's log for a while, of one connection (or of all: '*'), then fall back by itself; without arguments: show what
    /// is raised and until when.
    Log(log::Arguments),
    /// Show webhooks and what they were told; send a test; deliver again; enable or disable one; make a secret.
    Webhook(webhook::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say!("cygnet: {error}");
            if matches!(error, ClientError::Connect(..)) {
                say!("is the daemon running, and may you use its socket? (--uri names another one)");
            }
            match &arguments.command {
                Command::Status(_) | Command::BackendSas(_) | Command::Guards(_) | Command::Simulate(_) => {
                    ExitCode::from(error.exit_code())
                }
                Command::Why(_)
                | Command::Explain(_)
                | Command::Capture(_)
                | Command::Doctor(_)
                | Command::History(_)
                | Command::Events(_)
                | Command::Log(_)
                | Command::Webhook(_) => ExitCode::from(why::UNANSWERED),
            }
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, ClientError> {
    if let Command::Webhook(arguments) = &arguments.command
        && let Some(outcome) = webhook::run_alone(arguments)
    {
        return Ok(outcome?);
    }
    if let Command::Status(status) = &arguments.command
        && let Some(wish) = status.wish(&arguments.uri)
    {
        return watch::run(&wish);
    }
    let mut client = connect::connect(&arguments.uri)?;
    match &arguments.command {
        Command::Status(arguments) => status::run(&mut client, arguments),
        Command::BackendSas(arguments) => backend_sas::run(&mut client, arguments),
        Command::Guards(arguments) => guards::run(&mut client, arguments),
        Command::Simulate(arguments) => simulate::run(&mut client, arguments),
        Command::Why(arguments) => why::run(&mut client, arguments),
        Command::Doctor(arguments) => doctor::run(&mut client, arguments),
        Command::Explain(arguments) => explain::run(&mut client, arguments),
        Command::Capture(options) => capture::run(&mut client, &arguments.uri, options),
        Command::History(arguments) => history::run(&mut client, arguments),
        Command::Events(options) => events::run(client, &arguments.uri, options),
        Command::Log(arguments) => log::run(&mut client, arguments),
        Command::Webhook(arguments) => webhook::run(&mut client, arguments),
    }
}
