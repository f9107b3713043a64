//! Secrets never show: not in a log at the finest level, not in any client's output in any form, not in any error.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Result, ensure};
use lab::peer::conf::{Tunnel, render};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Client, Daemon, binary};
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
        let value = match number % 3 {
            0 => format!("0s{}", base64(&plain)),
            1 => format!("\"{plain}\""),
            _ => format!("0x{hex}"),
        };
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
        let streams = [stream(&pair.a, "--log")?, stream(&pair.a, "--monitor-sa")?];
        for side in [Side::A, Side::B] {
            let daemon = pair.side(side);
            std::fs::write(daemon.directory().join("swanctl/swanctl.conf"), file(&lab, side))?;
            plant_files(&daemon.directory().join("swanctl"))?;
            run(daemon, &mut said, &["--load-all", "--noprompt"])?;
        }
        life::establish(pair, Side::A)?;
        every_command(&pair.a, &mut said)?;
        check(&pair.a, &mut said, &file(&lab, Side::A), "")?;
        check(&pair.a, &mut said, &file(&lab, Side::A), &settings())?;
        errors(&lab, pair, &mut said)?;
        for mut stream in streams {
            stream.kill()?;
            said.push_str(&words(&stream.wait_with_output()?));
        }
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
            for form in [base64(&plain), hex.to_uppercase(), plain, hex, decimal] {
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

/// RFC 4648 §4.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let group = (0..3).fold(0, |group, index| (group << 8) | usize::from(chunk.get(index).copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = LETTERS.get((group >> (18 - 6 * place)) & 63).copied().map_or('=', char::from);
            out.push(if place > chunk.len() { '=' } else { letter });
        }
    }
    out
}

/// Files that credentials are loaded from, with content that is none.
fn plant_files(swanctl: &Path) -> Result<()> {
    for (number, directory) in ["private", "rsa", "ecdsa", "pkcs8", "pkcs12", "x509"].iter().enumerate() {
        std::fs::create_dir_all(swanctl.join(directory))?;
        let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n{}\n", marker(number), base64(&marker(number + 6)));
        std::fs::write(swanctl.join(directory).join("planted.pem"), text)?;
    }
    Ok(())
}

/// A configuration of the daemon with secrets in it, not all of them in places where it takes any.
fn settings() -> String {
    format!(
        "[[webhook]]\nname = \"ops\"\nsecret = \"{}\"\n[history]\nurl = \"postgres://user:{}@db/x\"\n",
        marker(4),
        marker(5)
    )
}

/// A client that listens until it is ended.
fn stream(daemon: &Daemon<'_>, command: &str) -> Result<Child> {
    let mut swanctl = Command::new(binary("swanctl")?);
    swanctl.args([command, "--uri", &daemon.uri()]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(swanctl.spawn()?)
}

/// Every command that ends by itself, in every form of output.
fn every_command(daemon: &Daemon<'_>, said: &mut String) -> Result<()> {
    let listing = ["--stats", "--list-sas", "--list-conns", "--list-pols"];
    for command in listing {
        for form in [None, Some("--raw"), Some("--pretty"), Some("--json")] {
            let arguments: Vec<&str> = [command].into_iter().chain(form).collect();
            run(daemon, said, &arguments)?;
        }
    }
    let commands: [&[&str]; 14] = [
        &["--help"],
        &["--version", "--daemon"],
        &["--load-creds", "--noprompt"],
        &["--load-creds", "--noprompt", "--raw"],
        &["--load-creds", "--clear", "--noprompt", "--pretty"],
        &["--load-conns"],
        &["--load-conns", "--raw"],
        &["--load-all", "--noprompt", "--pretty"],
        &["--install", "--child", "net4"],
        &["--uninstall", "--child", "net4"],
        &["--rekey", "--child", "net4"],
        &["--rekey", "--ike", "site", "--raw"],
        &["--initiate", "--child", "nobody", "--timeout", "2"],
        &["--terminate", "--ike", "nobody", "--timeout", "2"],
    ];
    commands.iter().try_for_each(|command| run(daemon, said, command))?;
    for form in [None, Some("--json")] {
        let output = Command::new(binary("cygnet")?).args(["status", "--uri", &daemon.uri()]).args(form).output()?;
        said.push_str(&words(&output));
    }
    Ok(())
}

/// `cygnetd --check` of a `swanctl.conf` and a configuration of the daemon.
fn check(daemon: &Daemon<'_>, said: &mut String, text: &str, settings: &str) -> Result<()> {
    let directory = daemon.directory().join("checked");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("swanctl.conf"), text)?;
    std::fs::write(directory.join("cygnetd.toml"), settings)?;
    for form in [None, Some("--json")] {
        let mut cygnetd = Command::new(binary("cygnetd")?);
        cygnetd.arg("--check").arg("--config").arg(directory.join("cygnetd.toml")).arg("--swanctl").arg(&directory);
        said.push_str(&words(&cygnetd.args(form).output()?));
    }
    Ok(())
}

/// A wrong key on one side, then files that are broken around and inside the secrets.
fn errors(lab: &Lab, pair: &Pair<'_>, said: &mut String) -> Result<()> {
    run(&pair.a, said, &["--terminate", "--ike", "site", "--timeout", "5"])?;
    let good = file(lab, Side::A);
    let path = pair.a.directory().join("swanctl/swanctl.conf");
    let (first, odd) = (format!("secret = \"{}\"", marker(0)), format!("secret = \"{}\"", marker(4)));
    let broken = [
        good.replace(&first, &format!("secret = \"{}", marker(0))),
        good.replace(&odd, &format!("secret = \"{}\" }} }}", marker(4))),
        good.replace(&odd, &format!("sekret = \"{}\"", marker(4))),
        good.replace(&odd, &format!("secret : {}", marker(4))),
        good.replace("secret = 0x", "secret = 0xq"),
        good.replace("secret = 0s", "secret = 0s!"),
    ];
    for text in broken {
        ensure!(text != good, "nothing was broken");
        check(&pair.a, said, &text, "")?;
        std::fs::write(&path, text)?;
        run(&pair.a, said, &["--load-all", "--noprompt"])?;
        run(&pair.a, said, &["--load-creds", "--noprompt", "--raw"])?;
    }
    std::fs::write(&path, good.replace(&first, &format!("secret = \"{}\"", marker(1))))?;
    run(&pair.a, said, &["--load-all", "--noprompt"])?;
    run(&pair.a, said, &["--initiate", "--child", "net4", "--timeout", "3"])
}
