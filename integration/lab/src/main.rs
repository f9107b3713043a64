//! The lab's own programs: the demo and the soaks. Each enters namespaces of its own first and leaves nothing behind.

mod demo;
mod soak;

use std::process::ExitCode;

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
    /// Two gateways, one tunnel, real packets: a pass/fail line per step
    Demo(demo::Options),
    /// Rekeys every second from both sides under load, over a slow and reordering path
    SoakRekey(soak::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = lab::enter::enter().and_then(|()| match &arguments.task {
        Task::Demo(options) => demo::run(options),
        Task::SoakRekey(options) => soak::run(options),
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
