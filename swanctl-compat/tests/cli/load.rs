//! `swanctl --load-*`: what is sent, what is said, and where a mistake is.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use swanctl_compat::vici::Message;

use super::daemon::{Daemon, Script};
use super::{list, stderr, stdout, swanctl};

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

/// A connection that was refused and is gone from the files is not listed as refused for ever.
#[test]
fn what_was_refused_goes_with_its_section() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/good/plain/swanctl.conf");
    let mut known = list("conns", &["old", "site-b"]);
    known.list("refused", ["bad", "old", "site-b"]);
    let daemon = Daemon::start(Script::default().answers("get-conns", known));
    let output = swanctl(&daemon, &["--load-conns", "--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("successfully loaded 1 connections, 2 unloaded\n"), "{}", stdout(&output));
    let unloaded: Vec<String> = daemon.received().into_iter().filter(|line| line.starts_with("unload-")).collect();
    assert_eq!(unloaded, ["unload-conn name=old", "unload-conn name=bad"]);
}
