//! `cygnet webhook`.

use std::process::{Command, Output};

use swanctl_compat::vici::Message;

use crate::daemon::{Daemon, Script};
use crate::{stderr, stdout};

fn cygnet(daemon: &Daemon, arguments: &[&str]) -> Output {
    crate::cygnet(daemon, &[&["webhook"], arguments].concat())
}

fn named(name: &str, content: Message) -> Message {
    let mut event = Message::new();
    event.section(name, content);
    event
}

fn webhook(state: &str) -> Message {
    let mut content = Message::new().with("name", "ops").with("state", state).with("url", "http://127.0.0.1:8080/hook");
    content.list("events", ["child-sa.*"]);
    content.list("connections", Vec::<&str>::new());
    content = content.with("waiting", "3").with("dead", "1").with("attempts", "7").with("delivered", "4");
    content.section("failures", Message::new().with("refused", "1").with("tcp", "2"));
    named("ops", content.with("last-success", "1700000000000").with("last-error", "no connection: refused"))
}

#[test]
fn webhooks_are_listed_and_trouble_has_a_code() {
    let run = |webhooks: Vec<Message>, arguments: &[&str]| {
        cygnet(&Daemon::start(Script::default().streams("cygnet-webhooks", "cygnet-webhook", webhooks)), arguments)
    };
    let output = run(vec![webhook("up")], &[]);
    assert_eq!(
        stdout(&output),
        "ops  up  http://127.0.0.1:8080/hook  only child-sa.*  3 waiting, 1 dead  4 delivered, 3 failed (refused 1, tcp 2)  \
         last delivered 2023-11-14T22:13:20.000Z  no connection: refused\n"
    );
    assert_eq!(output.status.code(), Some(0));
    for state in ["down", "disabled", "unconfigured"] {
        assert_eq!(run(vec![webhook("up"), webhook(state)], &["list"]).status.code(), Some(3), "{state}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&run(vec![webhook("up")], &["--json"]))).unwrap();
    assert_eq!(
        (&json[0]["name"], &json[0]["failures"]["tcp"], &json[0]["events"][0]),
        (&"ops".into(), &2.into(), &"child-sa.*".into())
    );
    assert_eq!(stdout(&run(Vec::new(), &[])), "no webhooks are configured\n");
    let off = Message::new()
        .with("state", "disabled")
        .with("disabled-since", "0")
        .with("reason", "410 Gone")
        .with("attempts", "0");
    let output = run(vec![named("ops", off)], &[]);
    assert_eq!(
        stdout(&output),
        "ops  disabled since 1970-01-01T00:00:00.000Z: 410 Gone  the history database does not say what waits\n"
    );
}

#[test]
fn a_test_says_how_it_went() {
    let run = |answer: Message| {
        let daemon = Daemon::start(Script::default().answers("cygnet-webhook-test", answer));
        let output = cygnet(&daemon, &["test", "ops"]);
        assert_eq!(daemon.received(), ["cygnet-webhook-test name=ops"]);
        output
    };
    let answer = Message::new().with("id", "01J").with("time", "12345");
    let output = run(answer.clone().with("success", "yes").with("status", "204"));
    assert_eq!(stdout(&output), "ops: delivered, the receiver answered 204 after 12.3 ms  webhook-id 01J\n");
    assert_eq!(output.status.code(), Some(0));
    let output = run(answer.with("success", "no").with("failed", "tls").with("errmsg", "no TLS connection: expired"));
    assert_eq!(stdout(&output), "ops: failed at tls after 12.3 ms: no TLS connection: expired  webhook-id 01J\n");
    assert_eq!(output.status.code(), Some(1));
    let output = run(Message::new().with("success", "no").with("errmsg", "no webhook 'ops' is configured"));
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("cygnet: no webhook 'ops' is configured\n", Some(2)));
}

#[test]
fn deliveries_are_listed() {
    let delivery = Message::new().with("event", "01J").with("name", "ops").with("type", "child-sa.rekeyed");
    let delivery = delivery.with("connection", "site").with("time", "1700000000000").with("attempts", "1");
    let waiting = delivery.clone().with("state", "waiting").with("due", "1700000005000").with("last-error", "refused");
    let script = Script::default().streams(
        "cygnet-webhook-deliveries",
        "cygnet-delivery",
        [named("01J", waiting), named("01J", delivery.with("state", "delivered").with("delivered", "1700000000100"))],
    );
    let daemon = Daemon::start(script);
    let output = cygnet(&daemon, &["deliveries", "ops", "--state", "dead", "--connection", "site", "--limit", "5"]);
    assert_eq!(
        stdout(&output),
        "2023-11-14T22:13:20.000Z  01J  child-sa.rekeyed site  to ops  waiting  1 attempt  next at 2023-11-14T22:13:25.000Z  refused\n\
         2023-11-14T22:13:20.000Z  01J  child-sa.rekeyed site  to ops  delivered  1 attempt  at 2023-11-14T22:13:20.100Z\n"
    );
    assert_eq!(daemon.received(), ["cygnet-webhook-deliveries name=ops state=dead ike=site limit=5"]);
}

#[test]
fn orders_are_counted_and_slips_refused() {
    let cases: [(&[&str], &str, &str); 6] = [
        (&["redeliver", "ops"], "cygnet-webhook-redeliver name=ops", "2 due again\n"),
        (&["redeliver", "ops", "--event", "01J"], "cygnet-webhook-redeliver name=ops event=01J", "2 due again\n"),
        (&["redeliver", "--all"], "cygnet-webhook-redeliver all=yes", "2 due again\n"),
        (&["enable", "ops"], "cygnet-webhook-enable name=ops", "2 enabled\n"),
        (&["disable", "ops"], "cygnet-webhook-disable name=ops", "2 disabled\n"),
        (&["drop", "ops"], "cygnet-webhook-drop name=ops", "2 given up\n"),
    ];
    for (arguments, sent, said) in cases {
        let answer = Message::new().with("success", "yes").with("matches", "2");
        let daemon = Daemon::start(Script::default().answers(sent.split(' ').next().unwrap(), answer));
        let output = cygnet(&daemon, arguments);
        assert_eq!((stdout(&output).as_str(), daemon.received()), (said, vec![sent.to_owned()]));
        let refusal = Message::new().with("success", "no").with("errmsg", "away");
        let daemon = Daemon::start(Script::default().answers(sent.split(' ').next().unwrap(), refusal));
        let output = cygnet(&daemon, arguments);
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("cygnet: away\n", Some(2)));
    }
    let daemon = Daemon::start(Script::default());
    for arguments in [&["redeliver"][..], &["redeliver", "ops", "--all"], &["enable"]] {
        assert_eq!(cygnet(&daemon, arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(daemon.received(), Vec::<String>::new());
}

#[test]
fn a_secret_needs_no_daemon_and_is_new_each_time() {
    let secret = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        stdout(&command.args(["--uri", "unix:///nonexistent", "webhook", "secret"]).output().unwrap())
    };
    let (one, other) = (secret(), secret());
    assert!(one.starts_with("whsec_") && one.len() == "whsec_".len() + 44 + 1 && one != other, "{one}");
}
