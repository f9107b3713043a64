//! What our `swanctl` prints is what Debian 12's and Debian 13's print, octet by octet: of the same answers, and of the same daemon. Where the two
//! differ, or where newer ones than both print more, [`decided`] says what ours does.

mod decided;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Client::{self, Cygnet};
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::debian::CLIENTS;
use crate::differential::swanctl_of;
use crate::harness::{Pair, trial, with_pair};
use crate::recorder::{Behind, Exchange, Recorder, request_of};
use crate::{life, peers};
use decided::Decisions;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rendering::answers_that_are_written_down", answers_that_are_written_down),
        trial("rendering::a_tunnel_of_ours", || {
            with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, a_tunnel_of_ours)
        }),
    ]
}

/// Commands about what a daemon may have, and Cygnet not all of it.
const WRITTEN: [&[&str]; 43] = [
    &["--list-sas"],
    &["--list-sas", "--raw"],
    &["--list-sas", "--pretty"],
    &["--list-conns"],
    &["--list-conns", "--raw"],
    &["--list-conns", "--pretty"],
    &["--list-pols"],
    &["--list-pols", "--raw"],
    &["--list-pols", "--pretty"],
    &["--stats"],
    &["--stats", "--pretty"],
    &["--version", "--daemon"],
    &["--version", "--daemon", "--pretty"],
    &["--initiate", "--child", "net"],
    &["--initiate", "--child", "net", "--raw"],
    &["--initiate", "--child", "net", "--pretty"],
    &["--terminate", "--ike", "nothing"],
    &["--terminate", "--ike", "nothing", "--pretty"],
    &["--rekey", "--child", "net"],
    &["--install", "--child", "net"],
    &["--install", "--child", "net", "--raw"],
    &["--install", "--child", "net", "--pretty"],
    &["--uninstall", "--child", "net", "--raw"],
    &["--uninstall", "--child", "net", "--pretty"],
    &["--list-algs"],
    &["--list-algs", "--raw"],
    &["--list-algs", "--pretty"],
    &["--list-pools"],
    &["--list-pools", "--leases", "--name", "p1"],
    &["--list-pools", "--raw"],
    &["--list-authorities"],
    &["--list-authorities", "--name", "ca-1", "--raw"],
    &["--list-authorities", "--pretty"],
    &["--reload-settings"],
    &["--reload-settings", "--raw"],
    &["--flush-certs"],
    &["--flush-certs", "--type", "x509", "--raw"],
    &["--redirect", "--ike", "a", "--gateway", "gw.example"],
    &["--redirect", "--ike-id", "7", "--gateway", "gw.example", "--raw"],
    &["--counters"],
    &["--counters", "--all", "--raw"],
    &["--counters", "--name", "site"],
    &["--counters", "--reset"],
];

fn m(pairs: &[(&str, &str)]) -> Message {
    pairs.iter().fold(Message::new(), |message, (key, value)| message.with(key, *value))
}

fn sections(all: impl IntoIterator<Item = (&'static str, Message)>) -> Message {
    let mut message = Message::new();
    all.into_iter().for_each(|(name, content)| message.section(name, content));
    message
}

fn written(request: &Packet) -> Vec<Packet> {
    let Some((name, message)) = request_of(request) else { return vec![Packet::EventConfirm] };
    let answer = match name {
        "get-algorithms" => sections([
            ("encryption", m(&[("AES_CBC", "aes"), ("AES_CTR", "openssl")])),
            ("hasher", Message::new()),
            ("ke", m(&[("CURVE_25519", "curve25519")])),
        ]),
        "get-pools" => pools(),
        "list-authorities" => {
            let mut authority = m(&[("cacert", "C=XX, O=Example, CN=ca")]);
            authority.list("crl_uris", ["http://crl.example/1", "http://crl.example/2"]);
            authority.list("ocsp_uris", ["http://ocsp.example"]);
            authority.set("cert_uri_base", "http://certs.example/");
            let bare = m(&[("cacert", "CN=bare")]);
            let events = [("ca-1", authority), ("bare", bare)]
                .map(|entry| Packet::Event("list-authority".to_owned(), sections([entry])));
            return events.into_iter().chain([Packet::CmdResponse(Message::new())]).collect();
        }
        "get-counters" if message.get("name").is_some() => {
            m(&[("success", "no"), ("errmsg", "no counters found for this connection")])
        }
        "get-counters" => {
            let counters = sections([
                ("", m(&[("ike-rekey-init", "0"), ("info-out-resp", "1234567890")])),
                ("site", m(&[("invalid", "3")])),
            ]);
            let mut answer = sections([("counters", counters)]);
            answer.set("success", "yes");
            answer
        }
        "list-sas" => return listed("list-sa", sections([("site-a", whole_ike_sa()), ("bare", bare_ike_sa())])),
        "list-conns" => {
            return listed("list-conn", sections([("site-a", whole_connection()), ("bare", bare_connection())]));
        }
        "list-policies" => return listed("list-policy", policies()),
        "initiate" => {
            return vec![log_line("first line"), log_line("third"), answered(&[("success", "yes")])];
        }
        "terminate" => m(&[("success", "no"), ("matches", "0"), ("terminated", "0"), ("errmsg", "no matching SAs")]),
        "rekey" => m(&[("success", "yes"), ("matches", "2")]),
        "version" => m(&[
            ("daemon", "charon-systemd"),
            ("version", "6.0.1"),
            ("sysname", "Linux"),
            ("release", "6.12"),
            ("machine", "x86_64"),
        ]),
        "stats" => statistics(),
        "redirect" if message.get("ike-id").is_some() => {
            m(&[("success", "no"), ("matches", "0"), ("errmsg", "no matching SAs to redirect found")])
        }
        _ => m(&[("success", "yes")]),
    };
    vec![Packet::CmdResponse(answer)]
}

fn pools() -> Message {
    let lease = |address, identity, status| m(&[("address", address), ("identity", identity), ("status", status)]);
    let leases =
        sections([("0", lease("10.9.0.1", "user@example.org", "online")), ("1", lease("10.9.0.2", "CN=u", "offline"))]);
    let mut first = m(&[("base", "10.9.0.0"), ("size", "254"), ("online", "1"), ("offline", "1")]);
    first.section("leases", leases);
    let second = m(&[("base", "2001:db8:9::"), ("size", "1000000"), ("online", "0"), ("offline", "0")]);
    sections([("p1", first), ("a-name-of-more-than-twenty", second)])
}

fn answered(pairs: &[(&str, &str)]) -> Packet {
    Packet::CmdResponse(m(pairs))
}

fn listed(event: &str, all: Message) -> Vec<Packet> {
    vec![Packet::Event(event.to_owned(), all), Packet::CmdResponse(Message::new())]
}

fn log_line(text: &str) -> Packet {
    let line = m(&[("group", "IKE"), ("level", "1"), ("ikesa-name", "site-a"), ("ikesa-uniqueid", "7"), ("msg", text)]);
    Packet::Event("control-log".to_owned(), line)
}

/// Everything that an IKE SA may say of itself.
fn whole_ike_sa() -> Message {
    let mut ike = m(&[
        ("uniqueid", "7"),
        ("version", "2"),
        ("state", "ESTABLISHED"),
        ("local-host", "198.51.100.1"),
        ("local-port", "4500"),
        ("local-id", "gw-a.example"),
        ("remote-host", "2001:db8::9"),
        ("remote-port", "4500"),
        ("remote-id", "C=XX, CN=gw b"),
        ("remote-eap-id", "bob"),
        ("initiator", "yes"),
        ("initiator-spi", "0011223344556677"),
        ("responder-spi", "8899aabbccddeeff"),
        ("nat-remote", "yes"),
        ("if-id-in", "0000002a"),
        ("encr-alg", "AES_CBC"),
        ("encr-keysize", "256"),
        ("integ-alg", "HMAC_SHA2_256_128"),
        ("prf-alg", "PRF_HMAC_SHA2_384"),
        ("dh-group", "ECP_384"),
        ("ake1", "ML_KEM_768"),
        ("established", "120"),
        ("rekey-time", "13011"),
        ("reauth-time", "80000"),
    ]);
    ike.list("local-vips", ["10.9.0.1"]);
    ike.list("remote-vips", ["10.9.0.2", "fec0::2"]);
    ike.list("tasks-queued", ["CHILD_REKEY", "IKE_REKEY"]);
    ike.list("tasks-active", ["IKE_DPD"]);
    ike.list("tasks-passive", ["IKE_MOBIKE"]);
    ike.section("child-sas", sections([("net-12", whole_child_sa()), ("net-13", marked_child_sa())]));
    ike
}

fn whole_child_sa() -> Message {
    let mut child = m(&[
        ("name", "net"),
        ("uniqueid", "12"),
        ("reqid", "3"),
        ("state", "INSTALLED"),
        ("mode", "TUNNEL"),
        ("protocol", "ESP"),
        ("encap", "yes"),
        ("spi-in", "c1a2b3c4"),
        ("spi-out", "d4c3b2a1"),
        ("cpi-in", "0a0b"),
        ("cpi-out", "0c0d"),
        ("encr-alg", "AES_GCM_16"),
        ("encr-keysize", "256"),
        ("dh-group", "ECP_384"),
        ("ake1", "ML_KEM_768"),
        ("esn", "1"),
        ("bytes-in", "9000"),
        ("packets-in", "75"),
        ("use-in", "3"),
        ("bytes-out", "12345678901"),
        ("packets-out", "1234567"),
        ("use-out", "123456"),
        ("rekey-time", "-3"),
        ("life-time", "3840"),
        ("install-time", "120"),
    ]);
    child.list("local-ts", ["10.1.0.0/16"]);
    child.list("remote-ts", ["10.2.0.0/16", "10.3.0.0/16[tcp/http]"]);
    child
}

fn marked_child_sa() -> Message {
    let mut child = m(&[
        ("name", "net"),
        ("uniqueid", "13"),
        ("reqid", "4"),
        ("state", "DELETED"),
        ("mode", "TRANSPORT"),
        ("protocol", "AH"),
        ("spi-in", "c1a2b3c5"),
        ("spi-out", "d4c3b2a2"),
        ("mark-in", "0000002a"),
        ("mark-mask-in", "000000ff"),
        ("if-id-out", "00000007"),
        ("integ-alg", "HMAC_SHA2_256_128"),
        ("bytes-in", "0"),
        ("packets-in", "0"),
        ("bytes-out", "0"),
        ("packets-out", "0"),
        ("install-time", "1"),
    ]);
    child.list("local-ts", ["dynamic"]);
    child.list("remote-ts", ["dynamic"]);
    child
}

/// Half open, and the peer has begun.
fn bare_ike_sa() -> Message {
    let mut ike = m(&[
        ("uniqueid", "8"),
        ("version", "1"),
        ("state", "CONNECTING"),
        ("local-host", "198.51.100.1"),
        ("local-port", "500"),
        ("local-id", "%any"),
        ("remote-host", "203.0.113.9"),
        ("remote-port", "500"),
        ("remote-id", "%any"),
        ("remote-xauth-id", "carol"),
        ("initiator-spi", "0011223344556678"),
        ("responder-spi", "0000000000000000"),
    ]);
    ike.section("child-sas", Message::new());
    ike
}

fn round(pairs: &[(&str, &str)], lists: &[(&str, &[&str])]) -> Message {
    let mut round = m(pairs);
    for name in ["groups", "cert_policy", "certs", "cacerts"] {
        let items = lists.iter().find(|(list, _)| *list == name).map_or(&[][..], |(_, items)| items);
        round.list(name, items.iter().copied());
    }
    round
}

/// Everything that a connection may say of itself.
fn whole_connection() -> Message {
    let mut connection = Message::new();
    connection.list("local_addrs", ["198.51.100.1", "%any"]);
    connection.list("remote_addrs", ["203.0.113.0/24"]);
    for (key, value) in [
        ("local_port", "500"),
        ("remote_port", "4500"),
        ("version", "IKEv1/2"),
        ("reauth_time", "86400"),
        ("rekey_time", "0"),
        ("unique", "UNIQUE_REPLACE"),
        ("dpd_delay", "30"),
        ("dpd_timeout", "150"),
        ("ppk_id", "pq-key"),
        ("ppk_required", "yes"),
    ] {
        connection.set(key, value);
    }
    connection.section(
        "local-1",
        round(&[("class", "public key"), ("id", "CN=gw a")], &[("certs", &["CN=gw a", "CN=other"])]),
    );
    connection.section(
        "remote-1",
        round(
            &[
                ("class", "EAP"),
                ("eap-type", "EAP_TLS"),
                ("id", "gw-b"),
                ("ca_id", "CN=ca"),
                ("eap_id", "bob"),
                ("aaa_id", "aaa"),
            ],
            &[("groups", &["a", "b"]), ("cert_policy", &["1.2.3"]), ("cacerts", &["CN=ca"])],
        ),
    );
    connection.section("remote-2", round(&[("class", "XAuth"), ("xauth_id", "carol")], &[]));
    let children = [
        (
            "net",
            child(
                &[
                    ("mode", "TUNNEL"),
                    ("label", "system_u"),
                    ("rekey_time", "3600"),
                    ("rekey_bytes", "500000000"),
                    ("rekey_packets", "1000000"),
                    ("dpd_action", "start"),
                    ("close_action", "none"),
                ],
                &[("interface", "eth0"), ("priority", "7")],
            ),
        ),
        (
            "clear",
            child(
                &[
                    ("mode", "PASS"),
                    ("rekey_time", "3600"),
                    ("rekey_bytes", "0"),
                    ("rekey_packets", "0"),
                    ("dpd_action", "none"),
                    ("close_action", "none"),
                ],
                &[],
            ),
        ),
        (
            "packets",
            child(
                &[
                    ("mode", "TRANSPORT"),
                    ("rekey_time", "0"),
                    ("rekey_bytes", "0"),
                    ("rekey_packets", "9"),
                    ("dpd_action", "trap"),
                    ("close_action", "none"),
                ],
                &[],
            ),
        ),
    ];
    connection.section("children", sections(children));
    connection
}

fn child(before: &[(&str, &str)], after: &[(&str, &str)]) -> Message {
    let mut child = m(before);
    child.list("local-ts", ["10.1.0.0/16", "dynamic[tcp/22]"]);
    child.list("remote-ts", ["10.2.0.0/16"]);
    after.iter().for_each(|(key, value)| child.set(*key, *value));
    child
}

fn bare_connection() -> Message {
    let mut connection = Message::new();
    connection.list("local_addrs", ["%any"]);
    connection.list("remote_addrs", ["%any"]);
    for (key, value) in [("version", "IKEv2"), ("reauth_time", "0"), ("rekey_time", "14400"), ("unique", "UNIQUE_NO")] {
        connection.set(key, value);
    }
    connection.section("local-1", round(&[("class", "any")], &[]));
    connection.section("remote-1", round(&[("class", "pre-shared key"), ("id", "*.example.org")], &[]));
    connection.section("children", Message::new());
    connection
}

fn policies() -> Message {
    let policy = |pairs: &[(&str, &str)]| {
        let mut policy = m(pairs);
        policy.list("local-ts", ["10.1.0.0/16"]);
        policy.list("remote-ts", ["10.2.0.0/16", "10.3.0.0/16"]);
        policy
    };
    sections([
        (
            "site-a/net",
            policy(&[("child", "net"), ("reqid", "3"), ("ike", "site-a"), ("mode", "TUNNEL"), ("label", "system_u")]),
        ),
        ("clear/lan", policy(&[("child", "lan"), ("ike", "clear"), ("mode", "PASS")])),
    ])
}

fn statistics() -> Message {
    let queues = || m(&[("critical", "1"), ("high", "2"), ("medium", "3"), ("low", "4")]);
    let mut workers = m(&[("total", "16"), ("idle", "11")]);
    workers.section("active", queues());
    let mut stats = sections([
        ("uptime", m(&[("running", "3 days"), ("since", "Jan 02 03:04:05 2026")])),
        ("workers", workers),
        ("queues", queues()),
    ]);
    stats.set("scheduled", "42");
    stats.section("ikesas", m(&[("total", "2"), ("half-open", "1")]));
    stats.list("plugins", ["random", "nonce"]);
    stats.section("mem", m(&[("total", "1000"), ("allocs", "10")]));
    stats.section("mallinfo", m(&[("sbrk", "3145728"), ("mmap", "0"), ("used", "900000"), ("free", "2245728")]));
    stats
}

fn answers_that_are_written_down() -> Result<()> {
    let directory: PathBuf = lab::enter::directory().join("rendering");
    std::fs::create_dir_all(&directory)?;
    let recorder = Recorder::start(&directory.join("daemon.vici"), Behind::Script(written))?;
    let run = |client: Client, arguments: &[&str]| -> Result<(Output, Vec<Exchange>)> {
        let mut command: Command = swanctl_of(client, &directory)?;
        let output = command.args(arguments).args(["--uri", &recorder.uri()]).output()?;
        Ok((output, recorder.session()?))
    };
    let (mut decisions, mut wrong) = (Decisions::default(), Vec::new());
    for arguments in WRITTEN {
        let (ours, our_session) = run(Cygnet, arguments)?;
        for (version, client) in CLIENTS {
            let (theirs, their_session) = run(client, arguments)?;
            if let Err(error) = same(&mut decisions, version, arguments, &theirs, &ours) {
                wrong.push(error.to_string());
            }
            let asked = |session: &[Exchange]| session.iter().map(|one| one.octets.clone()).collect::<Vec<_>>();
            ensure!(asked(&their_session) == asked(&our_session), "{arguments:?}: {their_session:?}\n{our_session:?}");
        }
    }
    remove(&directory);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    decisions.finish()
}

fn remove(directory: &Path) {
    // What stays in the temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(directory);
}

fn same(
    decisions: &mut Decisions,
    version: &'static str,
    arguments: &[&str],
    theirs: &Output,
    ours: &Output,
) -> Result<()> {
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        decisions.alike(version, arguments, &text(theirs), &text(ours)) && theirs.status.code() == ours.status.code(),
        "{arguments:?}: {version} ends with {} and says\n{}\nours with {}:\n{}{}",
        theirs.status,
        text(theirs),
        ours.status,
        text(ours),
        String::from_utf8_lossy(&ours.stderr)
    );
    Ok(())
}

/// Commands about what Cygnet has.
const LIVE: [&[&str]; 15] = [
    &["--list-conns"],
    &["--list-conns", "--raw"],
    &["--list-conns", "--pretty"],
    &["--list-sas"],
    &["--list-sas", "--raw"],
    &["--list-sas", "--pretty"],
    &["--list-sas", "--child", "net4"],
    &["--list-sas", "--ike", "nothing"],
    &["--list-pols"],
    &["--list-pols", "--trap", "--raw"],
    &["--list-algs"],
    &["--list-pools"],
    &["--stats"],
    &["--rekey", "--child", "nothing"],
    &["--version", "--daemon"],
];

fn a_tunnel_of_ours(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    pair.a.swanctl(&["--install", "--child", "net4"])?;
    let mut decisions = Decisions::default();
    for arguments in LIVE {
        for (version, client) in CLIENTS {
            let mut tries = 0;
            loop {
                let theirs = pair.a.swanctl_output(client, arguments)?;
                let ours = pair.a.swanctl_output(Cygnet, arguments)?;
                match same(&mut decisions, version, arguments, &theirs, &ours) {
                    Ok(()) => break,
                    // A second may begin between the two, or memory be taken.
                    Err(_) if tries < 40 => tries += 1,
                    Err(error) => return Err(error).context("of a tunnel of ours"),
                }
                std::thread::sleep(Duration::from_millis(120));
            }
        }
    }
    Ok(())
}
