//! What our `swanctl` prints is what Debian's prints, octet by octet: of the same answers, and of the same daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::Client::{Cygnet, Debian};
use lab::peer::binary;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::differential::debian_swanctl;
use crate::harness::{Pair, trial, with_pair};
use crate::recorder::{Behind, Recorder, request_of};
use crate::{life, peers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rendering::answers_that_are_written_down", answers_that_are_written_down),
        trial("rendering::a_tunnel_of_ours", || {
            with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, a_tunnel_of_ours)
        }),
    ]
}

/// Commands about what a daemon may have and Cygnet has not.
const WRITTEN: [&[&str]; 19] = [
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

fn answers_that_are_written_down() -> Result<()> {
    let directory: PathBuf = std::env::temp_dir().join(format!("cygnet-rendering-{}", std::process::id()));
    // Left by an earlier process of the same number.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let recorder = Recorder::start(&directory.join("daemon.vici"), Behind::Script(written))?;
    for arguments in WRITTEN {
        let run = |mut command: Command| -> Result<_> {
            let output = command.args(arguments).args(["--uri", &recorder.uri()]).output()?;
            Ok((output, recorder.session()?))
        };
        let (theirs, their_session) = run(debian_swanctl(&directory)?)?;
        let (ours, our_session) = run(Command::new(binary("swanctl")?))?;
        same(arguments, &theirs, &ours)?;
        let asked = |session: &[crate::recorder::Exchange]| {
            session.iter().map(|exchange| exchange.octets.clone()).collect::<Vec<_>>()
        };
        ensure!(asked(&their_session) == asked(&our_session), "{arguments:?}: {their_session:?}\n{our_session:?}");
    }
    remove(&directory);
    Ok(())
}

fn remove(directory: &Path) {
    // What stays in the temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(directory);
}

fn same(arguments: &[&str], theirs: &Output, ours: &Output) -> Result<()> {
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        theirs.stdout == ours.stdout && theirs.status.code() == ours.status.code(),
        "{arguments:?}: Debian ends with {} and says\n{}\nours with {}:\n{}{}",
        theirs.status,
        text(theirs),
        ours.status,
        text(ours),
        String::from_utf8_lossy(&ours.stderr)
    );
    Ok(())
}

/// Commands about what Cygnet has.
const LIVE: [&[&str]; 14] = [
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
];

fn without_ports(mut output: Output) -> Output {
    output.stdout = String::from_utf8_lossy(&output.stdout).replace("[500]", "").into_bytes();
    output
}

fn a_tunnel_of_ours(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    pair.a.swanctl(&["--install", "--child", "net4"])?;
    for arguments in LIVE {
        let mut tries = 0;
        loop {
            let (theirs, ours) = (pair.a.swanctl_output(Debian, arguments)?, pair.a.swanctl_output(Cygnet, arguments)?);
            // Since strongSwan 6.0 there is a port behind each address; Debian 12's does not know it.
            let ours = if arguments == ["--list-conns"] { without_ports(ours) } else { ours };
            match same(arguments, &theirs, &ours) {
                Ok(()) => break,
                // A second may begin between the two.
                Err(_) if tries < 8 => tries += 1,
                Err(error) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(120));
        }
    }
    Ok(())
}
