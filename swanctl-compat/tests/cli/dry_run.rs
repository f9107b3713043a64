//! `swanctl --load-* --dry-run`.

use std::path::Path;

use swanctl_compat::vici::Message;

use super::daemon::{Daemon, Script};
use super::{list, stderr, stdout, swanctl};

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
