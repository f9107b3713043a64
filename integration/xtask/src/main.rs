//! Project tasks: prerequisites, the demo, the whole test run, soaks.
//!
//! Depends on no other crate, so that it starts in seconds. It builds as the calling user and then runs only built binaries; the
//! `lab` binary enters its namespaces by itself and says which way it took.

mod build;
mod setup;
mod stages;
mod trixie;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  setup [--dry-run]     install what the tests need (Debian, as root); the demo needs none of it
  demo [OPTIONS]        two gateways, one tunnel, real packets; options go to the lab, see `demo --help`
  test [--quick]        formatting, lints, unit tests, scenarios; without --quick also interop, kernel lab, model, soak cuts, documentation
  kernel-lab [FILTER]   tests on a real kernel's IPsec data path in a virtual machine: `--list`, `--shell`; see `kernel-lab --help`
  soak rekey [OPTIONS]  limits that make both ends rekey every second under load, `--by packets|bytes|time`; see `soak rekey --help`
  soak charon [OPTIONS] rekeys at the same moment on both ends and every second, against Debian's charon; see `soak charon --help`
  soak loss [OPTIONS]   many tunnels that lose 30 % of their IKE datagrams: how long establishing and rekeying take; see `soak loss --help`
  soak history-away [--seconds N]
                        the history's PostgreSQL goes away under load, a minute refusing and a minute not answering at all
  soak crash [OPTIONS]  `kill -9` at hundreds of moments of a storm of rekeys, `--kills N --engine sqlite|postgres|both`; see `soak crash --help`
  soak flood [OPTIONS]  forged IKE_SA_INIT requests while tunnels live on; options go to the lab, see `soak flood --help`
  soak model [OPTIONS]  random schedules in memory with all invariants checked, `--schedules N --seed S`; see `soak model --help`
  soak hostile ike|esp|memory [OPTIONS]
                        mutated IKE messages with the right keys, mutated ESP packets, memory per SA; see `soak hostile ike --help`
  bench acquire [OPTIONS]
                        from the packet that asks for a tunnel to its delivery, and a thousand traps at once; see `bench acquire --help`
  bench history [OPTIONS]
                        events written per second on both engines; with `--rows N` how fast a past of so many rows answers; see `bench history --help`
  bench load-conns [OPTIONS]
                        5,000 connections loaded, listed and unloaded by swanctl, next to Debian's charon; see `bench load-conns --help`
  bench webhook [OPTIONS]
                        messages per second to a webhook on loopback, from SQLite and PostgreSQL; see `bench webhook --help`
  bench handshake [OPTIONS]
                        handshakes in a second with a history and without, in turns; see `bench handshake --help`
";

/// A task either ends well, ends with an exit code that says why, or could not run.
type Outcome = Result<(), Failure>;

/// Why a task did not succeed.
#[derive(Debug)]
enum Failure {
    /// A command that the task ran ended with this exit code.
    Code(u8),
    /// The task itself could not go on; one sentence.
    Text(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Text(error.to_string())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["setup"] => setup::install(),
        ["setup", "--dry-run"] => {
            setup::print_plan();
            Ok(())
        }
        ["demo", options @ ..] => build::lab("demo", options),
        ["test"] => stages::run(false),
        ["test", "--quick"] => stages::run(true),
        ["soak", "rekey", options @ ..] => build::lab("soak-rekey", options),
        ["soak", "charon", options @ ..] => build::lab("soak-charon", options),
        ["soak", "crash", options @ ..] => build::lab("soak-crash", options),
        ["soak", "loss", options @ ..] => build::lab("soak-loss", options),
        ["soak", "history-away", options @ ..] => build::lab("soak-away", options),
        ["soak", "flood", options @ ..] => build::lab("flood-init", options),
        ["soak", "model", options @ ..] => build::model(options),
        ["soak", "hostile", what @ ("ike" | "esp" | "memory"), options @ ..] => {
            build::lab(&format!("hostile-{what}"), options)
        }
        ["bench", "acquire", options @ ..] => build::lab("bench-acquire", options),
        ["bench", "history", options @ ..] => build::lab("bench-history", options),
        ["bench", "load-conns", options @ ..] => build::lab("bench-load-conns", options),
        ["bench", "webhook", options @ ..] => build::lab("bench-webhook", options),
        ["bench", "handshake", options @ ..] => build::lab("bench-handshake", options),
        ["kernel-lab", options @ ..] => build::kernel_lab(options),
        ["help" | "--help" | "-h"] | [] => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => {
            eprintln!("unknown task: {}\n", unknown.join(" "));
            eprint!("{USAGE}");
            Err(Failure::Code(2))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Code(code)) => ExitCode::from(code),
        Err(Failure::Text(text)) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}
