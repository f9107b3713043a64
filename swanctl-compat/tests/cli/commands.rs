//! Commands of `swanctl`: outcomes, forms of output, wrong usage.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use swanctl_compat::vici::Message;

use super::daemon::{Daemon, Script};
use super::{stderr, stdout, swanctl};

#[test]
fn outcomes_become_words_and_codes() {
    let line = Message::new().with("group", "IKE").with("level", "1").with("msg", "initiating IKE_SA a[1]");
    let script = Script::default().streams("initiate", "control-log", [line]).answers(
        "terminate",
        Message::new().with("success", "no").with("errmsg", "no matching SAs to terminate found"),
    );
    let daemon = Daemon::start(script);
    let output = swanctl(&daemon, &["--initiate", "--child", "net", "--timeout", "2"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "[IKE] initiating IKE_SA a[1]\ninitiate completed successfully\n");
    let output = swanctl(&daemon, &["--terminate", "--ike", "a"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "terminate failed: no matching SAs to terminate found\n");
    let output = swanctl(&daemon, &["--terminate", "--ike", "a", "--raw"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "terminate reply {success=no errmsg=no matching SAs to terminate found}\n");
    assert_eq!(
        daemon.received(),
        ["initiate child=net timeout=2000 loglevel=1", "terminate ike=a loglevel=1", "terminate ike=a loglevel=1"]
    );
}

fn policy(name: &str) -> Message {
    let mut policy = Message::new().with("child", "net").with("ike", "a").with("reqid", "3").with("mode", "TUNNEL");
    policy.list("local-ts", ["10.1.0.0/16"]);
    policy.list("remote-ts", ["10.2.0.0/16"]);
    let mut event = Message::new();
    event.section(name, policy);
    event
}

#[test]
fn listings_have_four_forms() {
    let daemon =
        Daemon::start(Script::default().streams("list-policies", "list-policy", [policy("a/net"), policy("a/x")]));
    let run = |form: &[&str]| stdout(&swanctl(&daemon, &[&["--list-pols"], form].concat()));
    assert!(run(&[]).starts_with("a/net, reqid 3, TUNNEL\n  local:  10.1.0.0/16\n  remote: 10.2.0.0/16\na/x, "));
    assert!(run(&["--raw"]).ends_with(
        "list-policy event {a/x {child=net ike=a reqid=3 mode=TUNNEL local-ts=[10.1.0.0/16] remote-ts=[10.2.0.0/16]}}\n\
         list-policies reply {}\n"
    ));
    assert!(run(&["--pretty"]).ends_with("list-policies reply {\n}\n"));
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json[1]["name"], "a/x");
    assert_eq!(json[0]["reqid"], 3);
    assert_eq!(json[0]["local-ts"][0], "10.1.0.0/16");
}

#[test]
fn wrong_usage_and_no_daemon() {
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_swanctl")).args(arguments).output().unwrap();
    let output = run(&["--list-sas", "--bogus"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("swanctl: unrecognized option '--bogus'\nError: invalid options\n"));
    assert!(stderr(&output).contains("swanctl --list-sas [--ike <name>"));
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("  swanctl --list-sas         (-l)  list currently active IKE_SAs\n"));
    let output = run(&["--stats", "--uri", "unix:///nowhere/vici"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output)
            .starts_with("Error: connecting to 'unix:///nowhere/vici' URI failed: No such file or directory\n")
    );
    let output = run(&["--stats", "--uri", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn unknown_commands_are_told() {
    let daemon = Daemon::start(Script::default().unknown("stats"));
    let output = swanctl(&daemon, &["--stats"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "Error: the daemon does not know the command 'stats'\n");
}

/// A daemon's words reach a terminal, a peer's identity among them: neither on standard output nor on standard error do they drive it.
#[test]
fn what_a_daemon_says_does_not_drive_the_terminal() {
    let evil = "\u{1b}[2J\u{9b}31m";
    let refusal = Message::new().with("success", "no").with("errmsg", format!("peer '{evil}' says no"));
    let daemon = Daemon::start(Script::default().answers("initiate", refusal));
    let output = swanctl(&daemon, &["--initiate", "--child", "net"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "initiate failed: peer '\u{fffd}[2J\u{fffd}31m' says no\n");
    let mut event = policy(&format!("a/{evil}"));
    event.section("b", Message::new().with("mode", evil));
    let daemon = Daemon::start(Script::default().streams("list-policies", "list-policy", [event]));
    for form in [&["--list-pols"][..], &["--list-pols", "--raw"], &["--list-pols", "--pretty"]] {
        let shown = stdout(&swanctl(&daemon, form));
        assert!(!shown.is_empty() && shown.lines().all(|line| !line.chars().any(char::is_control)), "{shown:?}");
    }
}

/// What cannot be a name or a file is not replaced by something that looks alike.
#[test]
fn arguments_are_text() {
    let daemon = Daemon::start(Script::default());
    let odd = OsStr::from_bytes(b"--child=\xff");
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    let output = command.args(["--terminate", "--uri", &daemon.uri()]).arg(odd).output().unwrap();
    assert_eq!((output.status.code(), daemon.received()), (Some(1), Vec::new()));
    assert!(stderr(&output).contains("is not UTF-8 text"), "{}", stderr(&output));
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    command.args(["--load-all", "--uri", &daemon.uri()]).env("SWANCTL_DIR", OsStr::from_bytes(b"/nowhere/\xff"));
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), daemon.received()), (Some(22), Vec::new()));
    assert!(stderr(&output).contains("(SWANCTL_DIR)"), "{}", stderr(&output));
}
