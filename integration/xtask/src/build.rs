//! Building with cargo's own progress on the terminal, and running what was built.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Failure, Outcome};

/// Packages whose binaries the demo and the soaks run.
const DEMO_PACKAGES: [&str; 3] = ["cygnetd", "swanctl-compat", "lab"];

/// Builds the demo's binaries and runs `lab TASK OPTIONS`.
pub(crate) fn lab(task: &str, options: &[&str]) -> Outcome {
    println!("building (profile demo) ...");
    let mut cargo = cargo();
    cargo.args(["build", "--profile", "demo", "--bins"]);
    for package in DEMO_PACKAGES {
        cargo.args(["--package", package]);
    }
    run(&mut cargo)?;
    run(Command::new(target_directory()?.join("demo/lab")).arg(task).args(options))
}

/// Builds the model checker and runs it. Its own build: a daemon has no use for what it needs of the other crates.
pub(crate) fn model(options: &[&str]) -> Outcome {
    println!("building (profile demo) ...");
    run(cargo().args(["build", "--profile", "demo", "--package", "scenarios", "--bin", "soak-model"]))?;
    run(Command::new(target_directory()?.join("demo/soak-model")).args(options))
}

/// Builds what the virtual machine runs, as tests use it, and runs `kernel-lab OPTIONS`.
pub(crate) fn kernel_lab(options: &[&str]) -> Outcome {
    println!("building ...");
    let mut cargo = cargo();
    cargo.args(["build", "--bins"]);
    for package in ["cygnetd", "swanctl-compat", "kernel-lab"] {
        cargo.args(["--package", package]);
    }
    run(&mut cargo)?;
    run_at_terminal(Command::new(target_directory()?.join("debug/kernel-lab")).args(options))
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command with our terminal as its output; its exit code is ours.
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_at_terminal(command.stdin(Stdio::null()))
}

/// The same, and it may read what is typed.
fn run_at_terminal(command: &mut Command) -> Outcome {
    let status = command
        .status()
        .map_err(|error| Failure::Text(format!("cannot run {}: {error}", command.get_program().display())))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::Code(code))
}

/// Where cargo puts what it builds, as cargo itself says it.
pub(crate) fn target_directory() -> Result<PathBuf, Failure> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_once("\"target_directory\":\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(path, _)| PathBuf::from(path))
        .ok_or_else(|| Failure::Text("`cargo metadata` names no target directory".into()))
}
