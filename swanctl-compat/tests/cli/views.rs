//! `cygnet status`, `backend-sas`, `why`, `doctor` and `explain`.

use std::process::Command;

use swanctl_compat::vici::Message;

use super::daemon::{Daemon, Script};
use super::{cygnet, list, stderr, stdout};

#[test]
fn status_of_children() {
    let child = |name: &str, state: &str| {
        let mut event = Message::new();
        event.section(name, Message::new().with("connection", "c").with("child", "net").with("state", state));
        event
    };
    let run = |children: Vec<Message>, arguments: &[&str]| {
        let daemon = Daemon::start(Script::default().streams("cygnet-status", "cygnet-child", children));
        cygnet(&daemon, &[&["status"], arguments].concat())
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
        let output = cygnet(&daemon, &["status", name]);
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
        cygnet(&daemon, &["backend-sas"])
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
        let output = cygnet(&daemon, &[&["why"], arguments].concat());
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
        cygnet(&daemon, &[&["doctor"], arguments].concat())
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
        let output = cygnet(&daemon, &[&["explain"], arguments].concat());
        (output, daemon.received())
    };
    let (output, asked) = run(Message::new(), &["c", "net"]);
    assert_eq!(stdout(&output), "# c/net, planned: One.\nip a\nip b\n\n# c/net, planned: Two.\nip c\n\n");
    assert_eq!((output.status.code(), asked[0].as_str()), (Some(0), "cygnet-explain ike=c child=net"));
    let (output, _) = run(Message::new(), &["c", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json[0]["commands"][1], "ip b");
    let daemon = Daemon::start(Script::default());
    assert_eq!(stdout(&cygnet(&daemon, &["explain", "c"])), "# c: nothing is installed, nor would be\n");
    let (output, _) = run(Message::new().with("success", "no").with("errmsg", "not found"), &["d"]);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("cygnet: not found\n", Some(2)));
}
