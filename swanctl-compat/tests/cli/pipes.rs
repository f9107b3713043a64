//! Programs whose output nobody reads: `swanctl --list-conns 2>&1 | head -1`.

use std::io::{ErrorKind, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use swanctl_compat::vici::Message;

use crate::daemon::{Daemon, Script};

/// As a shell shows a program that a closed pipe has ended.
const CLOSED_PIPE: i32 = 141;

/// A pipe that nobody reads. A process that another test has just forked could, until it runs its own program: what is written before the pipe says
/// that nobody does goes there.
pub(crate) fn unread_pipe() -> PipeWriter {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    let begun = Instant::now();
    loop {
        match writer.write(b".") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return writer,
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
        sleep(Duration::from_millis(1));
    }
}

/// Exit code and what is said on standard error where nobody reads the output; only the code where nobody reads either.
fn unread(program: &str, arguments: &[&str], daemon: &Daemon) -> (Option<i32>, String, Option<i32>) {
    let command = || {
        let writer = unread_pipe();
        let mut command = Command::new(program);
        command.args(arguments).arg("--uri").arg(daemon.uri()).stdin(Stdio::null());
        command.stdout(writer.try_clone().unwrap());
        (command, writer)
    };
    let (mut heard, _) = command();
    let heard = heard.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let (mut unheard, writer) = command();
    let unheard = unheard.stderr(writer).status().unwrap();
    (heard.status.code(), String::from_utf8(heard.stderr).unwrap(), unheard.code())
}

#[test]
fn whoever_reads_no_more_ends_a_program_without_a_word() {
    let daemon = Daemon::start(Script::default());
    let (swanctl, cygnet) = (env!("CARGO_BIN_EXE_swanctl"), env!("CARGO_BIN_EXE_cygnet"));
    let cases: [(&str, &[&str]); 11] = [
        (swanctl, &["--help"]),
        (swanctl, &["--list-sas", "--help"]),
        (swanctl, &["--version"]),
        (swanctl, &["--stats"]),
        (swanctl, &["--list-conns", "--json"]),
        (cygnet, &["status"]),
        (cygnet, &["status", "--json"]),
        (cygnet, &["doctor"]),
        (cygnet, &["history"]),
        (cygnet, &["webhook"]),
        (cygnet, &["webhook", "secret"]),
    ];
    for (program, arguments) in cases {
        let (heard, told, unheard) = unread(program, arguments, &daemon);
        assert_eq!((heard, told.as_str(), unheard), (Some(CLOSED_PIPE), "", Some(CLOSED_PIPE)), "{arguments:?}");
    }
}

/// What it ends with is the same when nobody hears why.
#[test]
fn complaints_that_nobody_hears_change_nothing() {
    let refusal = || Message::new().with("success", "no").with("errmsg", "not like this");
    let script = ["terminate", "cygnet-guards", "cygnet-webhook-test"];
    let script = script.into_iter().fold(Script::default(), |script, command| script.answers(command, refusal()));
    let daemon = Daemon::start(script);
    let (swanctl, cygnet) = (env!("CARGO_BIN_EXE_swanctl"), env!("CARGO_BIN_EXE_cygnet"));
    let cases: [(&str, &[&str], i32); 6] = [
        (swanctl, &["--bogus"], 1),
        (swanctl, &["--terminate", "--ike", "site"], 1),
        (swanctl, &["--load-all", "--file", "/nonexistent/swanctl.conf"], 22),
        (cygnet, &["guards"], 2),
        (cygnet, &["webhook", "test", "ops"], 2),
        (cygnet, &["log", "site", "2", "--for", "soon"], 2),
    ];
    for (program, arguments, code) in cases {
        let (heard, told, unheard) = unread(program, arguments, &daemon);
        assert_eq!((heard, unheard), (Some(code), Some(code)), "{arguments:?}: {told}");
        assert!(!told.is_empty() && !told.contains("panicked"), "{arguments:?}: {told}");
    }
}
