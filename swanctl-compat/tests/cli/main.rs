//! The programs `swanctl` and `cygnet` as a shell sees them, against a daemon that answers from a table.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an expectation fails")]

mod daemon;
mod following;
mod passwords;
mod pipes;
mod webhook;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

use daemon::{Daemon, Script};
use swanctl_compat::vici::Message;

fn swanctl(daemon: &Daemon, arguments: &[&str]) -> Output {
    FILE_MODES.call_once(set_file_modes);
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    command.args(arguments).arg("--uri").arg(daemon.uri());
    command.output().unwrap()
}

static FILE_MODES: Once = Once::new();

/// Git keeps no read permissions: makes every file private, since a secret that everybody can read is warned of.
fn set_file_modes() {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(kind);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// What `expected` says, with the full path in front of each position.
fn expected(case: &Path) -> String {
    let text = std::fs::read_to_string(case.join("expected")).unwrap();
    let whole = |line: &str| {
        let placed = line.contains(".conf:") && !line.starts_with(' ');
        if placed { format!("{}/{line}\n", case.display()) } else { format!("{line}\n") }
    };
    text.lines().map(whole).collect()
}

#[test]
fn broken_files_are_told_and_unreadable_ones_send_nothing() {
    let mut unreadable = 0;
    for case in cases("broken") {
        let refusal = Message::new().with("success", "no").with("errmsg", "not like this");
        let daemon = Daemon::start(Script::default().answers("load-conn", refusal));
        let file = case.join("swanctl.conf");
        let output = swanctl(&daemon, &["--load-all", "--file", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(22), "{}", case.display());
        let text = stderr(&output);
        let positions = expected(&case);
        let first = positions.lines().next().unwrap();
        let place = first.split(": error").next().and_then(|t| t.split(": warning").next()).unwrap();
        assert!(text.contains(place), "{}: {text}", case.display());
        assert!(!text.contains("planted") && !stdout(&output).contains("planted"), "{text}");
        let received = daemon.received();
        if text.ends_with("nothing was loaded: correct the errors above and try again\n") {
            unreadable += 1;
            assert!(received.is_empty() && stdout(&output).is_empty(), "{}: {received:?}", case.display());
            assert_eq!(daemon.connections(), 0);
        } else {
            // Nothing is taken away because something else is wrong.
            assert!(received.iter().all(|command| !command.starts_with("unload-")), "{received:?}");
            assert!(received.iter().any(|command| command.starts_with("get-conns")), "{received:?}");
        }
    }
    assert!(unreadable > 3, "{unreadable} files cannot be read");
}

/// A mistake in one connection or secret leaves the others, and what runs under the bad names.
#[test]
fn one_bad_connection_does_not_stop_the_others() {
    let directory = std::env::temp_dir().join(format!("swanctl-one-bad-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("swanctl.conf");
    let text = "connections {\n  good {\n    local { auth = psk }\n  }\n  twice {\n    version = 2\n  }\n  twice {\n    \
                version = 1\n  }\n  unread {\n    local { certs = not-there.pem }\n  }\n  other {\n    local { auth = psk }\n  }\n}\n\
                secrets {\n  ike-bad {\n    secret = 0xplanted\n  }\n  ike-good {\n    secret = planted\n  }\n}\n";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let list = |key: &str, names: &[&str]| {
        let mut message = Message::new();
        message.list(key, names.iter().copied());
        message
    };
    let loaded = || {
        Script::default()
            .answers("get-conns", list("conns", &["gone", "twice", "unread"]))
            .answers("get-shared", list("keys", &["ike-bad", "ike-gone"]))
    };
    let daemon = Daemon::start(loaded());
    let output = swanctl(&daemon, &["--load-all", "--file", file.to_str().unwrap()]);
    let (said, told) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(22));
    assert_eq!(
        said,
        "loaded ike secret 'ike-good'\nno authorities found, 0 unloaded\nno pools found, 0 unloaded\nloaded connection 'good'\nloaded \
         connection 'other'\n"
    );
    let lines = [
        &format!("{}:20:14: error: invalid secret: expected pairs of hexadecimal digits", file.display()),
        &format!("{}:8:3: error: `connections.twice` is defined twice", file.display()),
        "loading shared secret 'ike-bad' failed: invalid secret: expected pairs of hexadecimal digits",
        "loading connection 'twice' failed: `connections.twice` is defined twice",
        "loading connection 'unread' failed: ",
        "loaded 2 of 4 connections, 2 failed to load, 1 unloaded\n",
    ];
    lines.iter().for_each(|line| assert!(told.contains(line), "{line}: {told}"));
    assert!(!told.contains("planted"), "{told}");
    let changes: Vec<String> = daemon.received().into_iter().filter(|line| line.contains("load-")).collect();
    let changes: Vec<&str> = changes.iter().map(|line| line.split(" {").next().unwrap()).collect();
    assert_eq!(
        changes,
        [
            "load-shared id=ike-good type=ike data=planted owners=[]",
            "unload-shared id=ike-gone",
            "load-conn good",
            "load-conn other",
            "unload-conn name=gone",
        ]
    );
    // Another daemon's tool mixes what is defined twice; what cannot be sent at all stays out there too.
    let other = Message::new().with("daemon", "charon");
    let daemon = Daemon::start(loaded().answers("version", other));
    let output = swanctl(&daemon, &["--load-all", "--file", file.to_str().unwrap(), "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcomes: Vec<(&str, &str, bool)> = document["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["command"].as_str().unwrap(), s["name"].as_str().unwrap(), s["success"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("load-shared", "ike-bad", false),
            ("load-shared", "ike-good", true),
            ("unload-shared", "ike-gone", true),
            ("load-conn", "good", true),
            ("load-conn", "twice", true),
            ("load-conn", "unread", false),
            ("load-conn", "other", true),
            ("unload-conn", "gone", true),
        ]
    );
    assert_eq!(document["failed"], 2);
    // What the sections mean, the other daemon judges for itself.
    assert_eq!(document["findings"].as_array().map(Vec::len), Some(1), "{document}");
    assert_eq!((&document["findings"][0]["line"], &document["findings"][0]["severity"]), (&20.into(), &"error".into()));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn doubtful_files_are_loaded_with_warnings() {
    for case in cases("doubtful") {
        let daemon = Daemon::start(Script::default());
        let file = case.join("swanctl.conf");
        let output = swanctl(&daemon, &["--load-all", "--file", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", case.display(), stderr(&output));
        let text = stderr(&output);
        // Names of files stand in the middle of lines, too.
        let relative = text.replace(&format!("{}/", case.display()), "");
        let expected = std::fs::read_to_string(case.join("expected")).unwrap();
        assert!(text.contains(": warning: ") && relative.contains(expected.trim_end()), "{text}");
        assert!(!text.contains("planted") && !stdout(&output).contains("planted"));
        assert!(daemon.received().iter().any(|line| line.starts_with("load-conn ")));
    }
}

#[test]
fn a_load_says_and_sends_what_strongswan_does() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain");
    let script = Script::default()
        .answers("get-conns", list("conns", &["old", "site-b"]))
        .answers("get-shared", list("keys", &["ike-old"]));
    let daemon = Daemon::start(script);
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    command.args(["-q", "--clear"]).arg("--uri").arg(daemon.uri()).env("SWANCTL_DIR", &case);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "loaded ike secret 'ike-ab'\nno authorities found, 0 unloaded\nno pools found, 0 unloaded\n\
         loaded connection 'site-b'\nsuccessfully loaded 1 connections, 1 unloaded\n"
    );
    assert_eq!(
        daemon.received(),
        [
            "clear-creds ",
            "get-keys ",
            "get-shared ",
            "load-shared id=ike-ab type=ike data=planted-7f3a owners=[gw-a gw-b]",
            "unload-shared id=ike-old",
            "get-authorities ",
            "get-pools ",
            "get-conns ",
            "load-conn site-b {remote_addrs=[203.0.113.9] local {auth=psk id=gw-a} remote {auth=psk id=gw-b} \
             children {net {remote_ts=[10.2.0.0/16] local_ts=[10.1.0.0/16]}}}",
            "unload-conn name=old",
        ]
    );
}

fn list(key: &str, items: &[&str]) -> Message {
    let mut message = Message::new();
    message.list(key, items.iter().copied());
    message
}

#[test]
fn an_error_of_the_daemon_gets_its_place() {
    let refusal = Message::new()
        .with("success", "no")
        .with("errmsg", "unsupported: local_ts: too wide, config discarded")
        .with("errpath", "connections.site-b.children.net.local_ts[0]")
        .with("errhelp", "choose a smaller one");
    let daemon = Daemon::start(Script::default().answers("load-conn", refusal));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain/swanctl.conf");
    let output = swanctl(&daemon, &["--load-conns", "--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(22));
    assert_eq!(
        stderr(&output),
        format!(
            "loading connection 'site-b' failed: unsupported: local_ts: too wide, config discarded\n\
             {}:15:18: error: unsupported: local_ts: too wide, config discarded\n\
             \x2015 |       local_ts = 10.1.0.0/16\n\
             \x20   |                  ^^^^^^^^^^^\n\
             \x20 help: choose a smaller one\n\
             loaded 0 of 1 connections, 1 failed to load, 0 unloaded\n",
            file.display()
        )
    );
}

/// What has been found in the file already is not said again, elsewhere in the line, because the daemon says so too.
#[test]
fn an_error_has_one_place() {
    let refusal = Message::new()
        .with("success", "no")
        .with("errmsg", "unknown option: bogus, config discarded")
        .with("errpath", "connections.a.bogus");
    let daemon = Daemon::start(Script::default().answers("load-conn", refusal));
    let file = std::env::temp_dir().join(format!("swanctl-once-{}.conf", std::process::id()));
    std::fs::write(&file, "connections {\n  a {\n    local { auth = psk\n    }\n    bogus = 1\n  }\n}\n").unwrap();
    let output = swanctl(&daemon, &["--load-conns", "--file", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let told = stderr(&output);
    assert_eq!(told.matches(".conf:5:").count(), 1, "{told}");
    assert!(told.contains("loading connection 'a' failed: unknown option: bogus"), "{told}");
}

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

#[test]
fn status_of_children() {
    let child = |name: &str, state: &str| {
        let mut event = Message::new();
        event.section(name, Message::new().with("connection", "c").with("child", "net").with("state", state));
        event
    };
    let run = |children: Vec<Message>, arguments: &[&str]| {
        let daemon = Daemon::start(Script::default().streams("cygnet-status", "cygnet-child", children));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        command.arg("--uri").arg(daemon.uri()).arg("status").args(arguments).output().unwrap()
    };
    let output = run(vec![child("c/net", "up"), child("longer/net", "trapped")], &[]);
    assert_eq!(stdout(&output), "c/net       up\nlonger/net  trapped\n");
    assert_eq!(output.status.code(), Some(0));
    let output = run(vec![child("c/net", "down")], &["--json"]);
    assert_eq!(stdout(&output), "[{\"child\":\"net\",\"connection\":\"c\",\"state\":\"down\"}]\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stdout(&run(Vec::new(), &[])), "no children are configured\n");
}

/// A monitor whose connection is misspelled, or gone, does not say that all is well.
#[test]
fn the_status_of_what_is_not_loaded_is_not_good() {
    let daemon = Daemon::start(Script::default().answers("get-conns", list("conns", &["childless"])));
    for (name, code, said, told) in [
        ("childless", 0, "no children are configured\n", ""),
        ("nope", 2, "", "cygnet: connection 'nope' is not loaded\n"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        let output = command.arg("--uri").arg(daemon.uri()).args(["status", name]).output().unwrap();
        assert_eq!((output.status.code(), &*stdout(&output), &*stderr(&output)), (Some(code), said, told));
    }
}

#[test]
fn sas_of_the_data_path() {
    let sa = |name: &str, content: Message| {
        let mut event = Message::new();
        event.section(name, content.with("spi", name).with("packets", "75").with("bytes", "9000"));
        event
    };
    let owned = Message::new().with("connection", "c").with("child", "net").with("uniqueid", "12");
    let owned = owned.with("state", "INSTALLED").with("direction", "in").with("use", "3");
    let run = |sas: Vec<Message>| {
        let daemon = Daemon::start(Script::default().streams("cygnet-backend-sas", "cygnet-backend-sa", sas));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        command.arg("--uri").arg(daemon.uri()).arg("backend-sas").output().unwrap()
    };
    let output = run(vec![sa("c1a2b3c4", owned.clone())]);
    assert_eq!(stdout(&output), "c1a2b3c4  in   c/net{12}  INSTALLED  75 packets, 9000 bytes, 3s ago\n");
    assert_eq!(output.status.code(), Some(0));
    let output = run(vec![sa("c1a2b3c4", owned), sa("d1d2d3d4", Message::new().with("orphan", "yes"))]);
    assert!(stdout(&output).ends_with("d1d2d3d4  -    orphan: no CHILD SA knows of it  75 packets, 9000 bytes\n"));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stdout(&run(Vec::new())), "the data path holds no SA\n");
}

#[test]
fn the_way_of_a_packet() {
    let step = |name: &str, state: &str, text: &str| {
        let mut event = Message::new();
        event.section(name, Message::new().with("step", name).with("state", state).with("text", text));
        event
    };
    let steps =
        || [step("source", "ok", "10.1.0.10 is on the subnet of lan0"), step("reverse-path", "broken", "it is strict")];
    let verdict = |delivered: &str| {
        let answer = Message::new().with("success", "yes").with("direction", "outbound").with("delivered", delivered);
        answer.with("notes", "0").with("sentence", "One sentence.")
    };
    let run = |answer: Message, arguments: &[&str]| {
        let script = Script::default().streams("cygnet-why", "cygnet-step", steps()).answers("cygnet-why", answer);
        let daemon = Daemon::start(script);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        let output = command.arg("--uri").arg(daemon.uri()).arg("why").args(arguments).output().unwrap();
        (output, daemon.received())
    };
    let (output, asked) = run(verdict("no"), &["10.1.0.10", "10.2.0.10", "tcp:443", "--size", "1400"]);
    let lines = "ok      source         10.1.0.10 is on the subnet of lan0\nbroken  reverse-path   it is strict\nOne sentence.\n";
    assert_eq!((stdout(&output).as_str(), output.status.code()), (lines, Some(1)));
    assert_eq!(asked, ["cygnet-why src=10.1.0.10 dst=10.2.0.10 proto=tcp port=443 size=1400"]);
    let (output, _) = run(verdict("yes"), &["10.1.0.10", "10.2.0.10", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json["packet"]["src"], "10.1.0.10");
    assert_eq!(json["steps"][1]["state"], "broken");
    assert_eq!((&json["delivered"], &json["notes"]), (&serde_json::json!(true), &serde_json::json!(0)));
    // What cannot be answered is told apart from what is broken.
    let refused = Message::new().with("success", "no").with("errmsg", "src: 'x' is no IP address");
    let (output, _) = run(refused, &["x", "10.2.0.10"]);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("cygnet: src: 'x' is no IP address\n", Some(2)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
    let output =
        command.args(["--uri", "unix:///nonexistent/socket", "why", "10.1.0.10", "10.2.0.10"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is the daemon running"), "{}", stderr(&output));
}

#[test]
fn what_the_doctor_says() {
    let event = |name: &str, content: Message| {
        let mut event = Message::new();
        event.section(name, content);
        event
    };
    let mut rung = Message::new().with("device", "eth1").with("state", "up").with("mode", "packet");
    rung.list("algorithms", ["aes128gcm16", "aes256gcm16"]);
    rung.list("modes", ["tunnel"]);
    let mut rung = rung.with("esn", "no").with("encap", "yes");
    rung.list("replay-windows", ["32", "64"]);
    let rung = rung.with("sa-table", "1024");
    let check = |level: &str, fix: Option<&str>| {
        let check = Message::new().with("area", "port").with("level", level).with("text", "a port");
        event("port", fix.into_iter().fold(check, |check, fix| check.with("fix", fix)))
    };
    let run = |errors: &str, warnings: &str, arguments: &[&str]| {
        let answer = Message::new().with("success", "yes").with("errors", errors).with("warnings", warnings);
        // The scripted daemon streams one kind of event before the answer; the other one comes with the registrations.
        let script = Script::default()
            .streams("cygnet-doctor", "cygnet-check", [check("ok", None), check("error", Some("mend it"))])
            .answers("cygnet-doctor", answer);
        let daemon = Daemon::start(script);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        command.arg("--uri").arg(daemon.uri()).arg("doctor").args(arguments).output().unwrap()
    };
    let output = run("1", "0", &[]);
    let expected = "\
device  state  mode  ESN  UDP  modes  replay  limits  SAs

ok       port       a port
error    port       a port
                    -> mend it
1 errors, 0 warnings
";
    assert_eq!((stdout(&output).as_str(), output.status.code()), (expected, Some(2)));
    assert_eq!(run("0", "3", &[]).status.code(), Some(1));
    let output = run("0", "0", &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (output.status.code(), &json["errors"], &json["checks"][1]["fix"]),
        (Some(0), &0.into(), &"mend it".into())
    );
    let table = swanctl_compat::text::cygnet_devices(&[event("eth1/packet", rung)]);
    let expected = "\
device  state  mode    ESN  UDP  modes   replay  limits  SAs
eth1    up     packet  no   yes  tunnel  32,64   none    1024
  aes128gcm16 aes256gcm16
";
    assert_eq!(table, expected);
}

#[test]
fn what_is_installed_as_commands() {
    let block = |about: &str, commands: &[&str]| {
        let mut content = Message::new().with("of", "c/net").with("state", "planned").with("about", about);
        content.list("commands", commands.iter().copied());
        let mut event = Message::new();
        event.section("c/net", content);
        event
    };
    let blocks = || [block("One", &["ip a", "ip b"]), block("Two", &["ip c"])];
    let run = |answer: Message, arguments: &[&str]| {
        let script = Script::default().streams("cygnet-explain", "cygnet-block", blocks());
        let daemon = Daemon::start(script.answers("cygnet-explain", answer));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        let output = command.arg("--uri").arg(daemon.uri()).arg("explain").args(arguments).output().unwrap();
        (output, daemon.received())
    };
    let (output, asked) = run(Message::new(), &["c", "net"]);
    assert_eq!(stdout(&output), "# c/net, planned: One.\nip a\nip b\n\n# c/net, planned: Two.\nip c\n\n");
    assert_eq!((output.status.code(), asked[0].as_str()), (Some(0), "cygnet-explain ike=c child=net"));
    let (output, _) = run(Message::new(), &["c", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json[0]["commands"][1], "ip b");
    let (output, _) = run(Message::new().with("success", "no").with("errmsg", "not found"), &["d"]);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("cygnet: not found\n", Some(2)));
}

fn forecast(change: &str, counts: [u32; 3]) -> Message {
    let mut answer = Message::new().with("success", "yes").with("change", change);
    for (key, count) in ["restart", "end", "stay"].into_iter().zip(counts) {
        answer.set(key, count.to_string());
    }
    answer
}

/// A dry run only asks, says one line for each connection, and ends with 3 when an SA would not go on.
#[test]
fn a_dry_run_says_what_would_happen() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain/swanctl.conf");
    let mut updated = forecast("updated", [0, 0, 3]);
    updated.set("settings", "yes");
    updated.list("changed", ["net"]);
    updated.list("added", ["lan", "dmz"]);
    let cases = [
        (Message::new().with("success", "yes").with("change", "new"), "new", 0),
        (Message::new().with("success", "yes").with("change", "unchanged"), "unchanged", 0),
        (updated, "updated, SAs stay (settings; changed net; added lan dmz)", 0),
        (forecast("updated", [1, 0, 2]), "updated, 1 SA restart", 3),
        (forecast("updated", [0, 0, 0]), "updated, SAs stay", 0),
        (forecast("replaced", [3, 0, 0]), "replaced, 3 SAs restart", 3),
        (forecast("replaced", [2, 1, 0]), "replaced, 2 SAs restart, 1 SA end", 3),
        (forecast("replaced", [0, 0, 2]), "replaced, SAs stay", 0),
        (forecast("replaced", [0, 0, 0]), "replaced", 0),
    ];
    for (answer, line, code) in cases {
        let script = Script::default().answers("cygnet-plan-conn", answer);
        let daemon = Daemon::start(script.answers("get-conns", list("conns", &["site-b"])));
        let output = swanctl(&daemon, &["--load-all", "--dry-run", "--file", file.to_str().unwrap()]);
        assert_eq!(stdout(&output), format!("site-b: {line}\n"));
        assert_eq!(output.status.code(), Some(code), "{line}");
        let sent = daemon.received();
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(sent[1].starts_with("cygnet-plan-conn site-b {remote_addrs="), "{sent:?}");
    }
}

#[test]
fn a_dry_run_names_what_would_go() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain/swanctl.conf");
    let script = Script::default()
        .answers("get-conns", list("conns", &["old", "site-b"]))
        .answers("cygnet-plan-conn", Message::new().with("success", "yes").with("change", "unchanged"))
        .answers("cygnet-plan-unload", forecast("removed", [0, 2, 0]));
    let daemon = Daemon::start(script);
    let output = swanctl(&daemon, &["--load-conns", "-d", "--file", file.to_str().unwrap()]);
    assert_eq!(stdout(&output), "site-b: unchanged\nold: removed, 2 SAs end\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(daemon.received().last().map(String::as_str), Some("cygnet-plan-unload name=old"));
    // A daemon that does not know the question is not asked to load anything instead.
    let daemon = Daemon::start(Script::default().unknown("cygnet-plan-conn"));
    let output = swanctl(&daemon, &["--load-all", "--dry-run", "--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "Error: the daemon does not know the command 'cygnet-plan-conn'\n");
    assert!(daemon.received().iter().all(|line| !line.starts_with("load-")));
}

#[test]
fn a_dry_run_places_what_would_be_refused() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain/swanctl.conf");
    let refusal = Message::new().with("success", "no").with("errmsg", "no such device, config discarded");
    let refusal = refusal.with("errpath", "connections.site-b.children.net.local_ts[0]");
    let daemon = Daemon::start(Script::default().answers("cygnet-plan-conn", refusal));
    let output = swanctl(&daemon, &["--load-all", "--dry-run", "--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(22));
    let text = stderr(&output);
    assert!(text.starts_with("loading connection 'site-b' would fail: no such device, config discarded\n"), "{text}");
    assert!(text.contains(":15:18: error: "), "{text}");
}
