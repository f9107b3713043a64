//! `swanctl`: strongSwan's commands for any daemon that speaks VICI.
//!
//! Command forms, options, output and exit codes are strongSwan's. Beyond it: `--json`, and errors in files with file, line, column and a caret, found
//! before anything is sent to the daemon.
#![forbid(unsafe_code)]

mod certs;
mod commands;
#[path = "../shared/connect.rs"]
mod connect;
mod control;
#[cfg(test)]
mod documents;
mod load;
mod monitor;
mod options;
mod output;
mod prompt;
mod show;
#[path = "../shared/stdio.rs"]
mod stdio;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

use options::{Invocation, Parsed};
use output::print;
use stdio::{say, tell};
use swanctl_compat::vici::client::ClientError;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(other) => {
            say!("swanctl: '{}' is not UTF-8 text: no connection, child or file is meant by it", other.display());
            return ExitCode::from(1);
        }
    };
    let invocation = match options::parse(&arguments) {
        Ok(Parsed::Run(invocation)) => invocation,
        Ok(Parsed::Help(command)) => {
            return match print(&usage::text(command)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            };
        }
        Err(error) => {
            say!("swanctl: {}", error.text);
            tell(format_args!("Error: {}\n{}", error.kind, usage::text(error.command)));
            return ExitCode::from(1);
        }
    };
    match run(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

/// Says why it failed.
fn failed(error: &ClientError) -> ExitCode {
    say!("Error: {error}");
    if matches!(error, ClientError::Connect(..)) {
        say!("is the daemon running, and may you use its socket? (--uri names another one)");
    }
    ExitCode::from(error.exit_code())
}

/// Runs a command and gives its exit code.
fn run(invocation: &Invocation) -> Result<u8, ClientError> {
    // Files are judged before anybody is called: an error in them sends nothing.
    let plan = match load::prepare(invocation) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    let uri = invocation.value("uri").unwrap_or(connect::DEFAULT_URI);
    if invocation.command.name == "version" && !invocation.has("daemon") {
        print(concat!("Cygnet swanctl ", env!("CARGO_PKG_VERSION"), "\n"))?;
        return Ok(0);
    }
    let mut client = connect::connect(uri)?;
    match plan {
        Some(plan) => load::run(&mut client, invocation, &plan),
        None => (invocation.command.run)(&mut client, invocation),
    }
}
