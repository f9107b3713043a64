//! What goes wrong between Cygnet and a charon, as VICI clients of Cygnet are alerted of it.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::pair::{SOON, with_pair};
use lab::peer::conf::Tunnel;
use lab::peer::{Client, Daemon};
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::harness::trial;
use crate::peers;
use crate::recorder::{Line, event_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("alerts::have_the_type_of_what_went_wrong", have_the_type_of_what_went_wrong)]
}

/// How the other end is configured otherwise, who begins, and what the alert is to be.
struct Case {
    name: &'static str,
    change: fn(&mut Tunnel),
    from: Side,
    alert: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        name: "a secret that charon does not have",
        change: other_secret,
        from: Side::A,
        alert: "local-auth-failed",
    },
    Case { name: "a secret that we do not have", change: other_secret, from: Side::B, alert: "peer-auth-failed" },
    Case {
        name: "other IKE proposals",
        change: |tunnel| tunnel.proposals = "aes256-sha384-ecp384".into(),
        from: Side::A,
        alert: "proposal-mismatch-ike",
    },
    Case {
        name: "other ESP proposals",
        change: |tunnel| tunnel.children.iter_mut().for_each(|child| child.esp_proposals = "aes256-sha256".into()),
        from: Side::A,
        alert: "proposal-mismatch-child",
    },
    Case {
        name: "other subnets",
        change: |tunnel| tunnel.children.iter_mut().for_each(|child| child.local_ts = "10.77.0.0/24".into()),
        from: Side::A,
        alert: "ts-mismatch",
    },
];

fn other_secret(tunnel: &mut Tunnel) {
    tunnel.secret = "another secret".into();
}

fn have_the_type_of_what_went_wrong() -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::chosen()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            let mut line = Line::new(UnixStream::connect(pair.a.socket())?)?;
            ensure!(line.ask(&Packet::EventRegister("alert".into()))? == [Packet::EventConfirm], "no such event");
            for case in CASES {
                one(lab, [&pair.a, &pair.b], &mut line, &case).with_context(|| case.name)?;
            }
            let process = pair.a.process();
            process.terminate()?;
            expect(&mut line, "shutdown-signal").map(drop)
        },
    )
}

fn one(lab: &Lab, [a, b]: [&Daemon<'_>; 2], line: &mut Line, case: &Case) -> Result<()> {
    let mut tunnel = Tunnel::between(lab, Side::B, Family::V4);
    (case.change)(&mut tunnel);
    b.write_tunnels(&[tunnel])?;
    b.load()?;
    let (beginner, client) = if case.from == Side::A { (a, Client::Cygnet) } else { (b, Client::Debian) };
    let outcome = beginner.swanctl_output(client, &["--initiate", "--child", "net4", "--timeout", "5"])?;
    ensure!(!outcome.status.success(), "initiated nevertheless");
    let alert = expect(line, case.alert)?;
    let about = alert.get_section("ike-sa").and_then(|about| about.get_section("site").cloned());
    let about = about.with_context(|| format!("about no IKE SA: {alert:?}"))?;
    ensure!(about.get_str("remote-host").is_some() && about.get_str("state").is_some(), "{about:?}");
    for daemon in [a, b] {
        // An IKE SA without its child stays; whether there is one is not what this is about.
        daemon.swanctl(&["--terminate", "--ike", "site", "--force", "--timeout", "2"]).ok();
    }
    a.wait_for("no SA", SOON, <[_]>::is_empty)?;
    ensure!(line.next_within(Duration::from_millis(100))?.is_none(), "another alert");
    Ok(())
}

/// The next alert, which is to be of this type.
fn expect(line: &mut Line, expected: &str) -> Result<Message> {
    let octets = line.next_within(SOON)?.with_context(|| format!("no alert, expected {expected}"))?;
    let packet = Packet::decode(&octets)?;
    let Some(("alert", message)) = event_of(&packet) else { bail!("no alert: {packet:?}") };
    ensure!(message.get_str("type") == Some(expected), "expected {expected}: {message:?}");
    Ok(message.clone())
}
