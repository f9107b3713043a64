//! Pre-shared keys never show: not in a log at the finest level, not in any client's output, not in any error.

use std::process::Output;

use anyhow::{Result, ensure};
use lab::peer::conf::{Tunnel, render};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Client, Daemon};
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial};
use crate::life;

/// How many markers are planted.
const MARKERS: usize = 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("secrets::markers_never_show", markers_never_show)]
}

/// The marker with this number; one of them is what the tunnel really uses.
fn marker(number: usize) -> String {
    format!("MARKER{number:02}-4f1d9a7c")
}

/// The tunnel's own key and further ones in every form that the file knows.
fn file(lab: &Lab, side: Side) -> String {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    tunnel.secret = marker(0);
    let mut text = render(&[tunnel]);
    text.push_str("secrets {\n");
    for number in 1..MARKERS {
        let plain = marker(number);
        let hex: String = plain.bytes().map(|octet| format!("{octet:02x}")).collect();
        let value = if number % 2 == 0 { format!("0x{hex}") } else { format!("\"{plain}\"") };
        text.push_str(&format!("  ike-more{number} {{\n    id = host{number}.example\n    secret = {value}\n  }}\n"));
    }
    text + "}\n"
}

fn markers_never_show() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let talkative = Cygnet { extra: String::new(), log: "trace".into() };
    let mut pair = Pair::start(&lab, [&talkative, &talkative], |side| Tunnel {
        secret: marker(0),
        ..Tunnel::between(&lab, side, Family::V4)
    })?;
    pair.check(|pair| {
        let mut said = String::new();
        for side in [Side::A, Side::B] {
            let daemon = pair.side(side);
            std::fs::write(daemon.directory().join("swanctl/swanctl.conf"), file(&lab, side))?;
            run(daemon, &mut said, &["--load-all", "--noprompt"])?;
        }
        life::establish(pair, Side::A)?;
        every_command(&pair.a, &mut said)?;
        errors(&lab, pair, &mut said)?;
        said.push_str(&pair.a.log());
        said.push_str(&pair.b.log());
        ensure!(
            said.contains("site") && said.len() > 10_000,
            "too little was said to prove anything: {} octets",
            said.len()
        );
        for number in 0..MARKERS {
            let plain = marker(number);
            let hex: String = plain.bytes().map(|octet| format!("{octet:02x}")).collect();
            let decimal = plain.bytes().map(|octet| octet.to_string()).collect::<Vec<_>>().join(", ");
            for form in [plain, hex, decimal] {
                if let Some(at) = said.find(&form) {
                    let around = said.get(at.saturating_sub(200)..at).unwrap_or_default();
                    anyhow::bail!("marker {number} shows as {form:?} after:\n{around}");
                }
            }
        }
        Ok(())
    })
}

fn run(daemon: &Daemon<'_>, said: &mut String, arguments: &[&str]) -> Result<()> {
    for client in [Client::Cygnet, Client::Debian] {
        let output = daemon.swanctl_output(client, arguments)?;
        said.push_str(&words(&output));
    }
    Ok(())
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn every_command(daemon: &Daemon<'_>, said: &mut String) -> Result<()> {
    let commands: [&[&str]; 9] = [
        &["--version", "--daemon"],
        &["--stats"],
        &["--list-sas"],
        &["--list-sas", "--raw"],
        &["--list-conns"],
        &["--list-conns", "--pretty"],
        &["--list-pols"],
        &["--load-creds", "--noprompt"],
        &["--rekey", "--child", "net4"],
    ];
    commands.iter().try_for_each(|command| run(daemon, said, command))
}

/// A wrong key on one side, then files that are broken around and inside the secrets.
fn errors(lab: &Lab, pair: &Pair<'_>, said: &mut String) -> Result<()> {
    run(&pair.a, said, &["--terminate", "--ike", "site", "--timeout", "5"])?;
    let good = file(lab, Side::A);
    let path = pair.a.directory().join("swanctl/swanctl.conf");
    let (first, odd) = (format!("secret = \"{}\"", marker(0)), format!("secret = \"{}\"", marker(3)));
    let broken = [
        good.replace(&first, &format!("secret = \"{}", marker(0))),
        good.replace(&odd, &format!("secret = \"{}\" }} }}", marker(3))),
        good.replace(&odd, &format!("sekret = \"{}\"", marker(3))),
        good.replace(&odd, &format!("secret : {}", marker(3))),
        good.replace("secret = 0x", "secret = 0xq"),
    ];
    for text in broken {
        ensure!(text != good, "nothing was broken");
        std::fs::write(&path, text)?;
        run(&pair.a, said, &["--load-all", "--noprompt"])?;
    }
    std::fs::write(&path, good.replace(&first, &format!("secret = \"{}\"", marker(1))))?;
    run(&pair.a, said, &["--load-all", "--noprompt"])?;
    run(&pair.a, said, &["--initiate", "--child", "net4", "--timeout", "3"])
}
