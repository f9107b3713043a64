//! Certificates and keys: our `swanctl` loads them into Debian's charon as Debian's does, and shows what is there with the same octets.
//!
//! `tests/certificates` was written by OpenSSL and is valid for a hundred years; what is protected there is protected by `correct`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use lab::peer::Client;
use lab::peer::charon::Charon;
use lab::peer::{Daemon, binary};
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::differential::write_private;
use crate::harness::{Pair, trial, with_pair};
use crate::recorder::{Behind, Exchange, Line, Recorder, answer_of, event_of, request_of};
use crate::{life, peers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tool::credential_files_are_sent_as_debians_are", credential_files_are_sent_as_debians_are),
        trial("tool::charon_has_the_same_credentials_and_they_look_the_same", charon_has_the_same_credentials),
        trial("tool::certificates_do_not_break_pre_shared_keys", || {
            with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, certificates_do_not_break_pre_shared_keys)
        }),
    ]
}

/// Passwords of what is protected, a shared secret, and a token.
const CONF: &str = "secrets {
  rsa-a {
    file = rsa-protected.pem
    secret = correct
  }
  pkcs8-b {
    file = ec-protected.pem
    secret = correct
  }
  pkcs12-c {
    file = rsa.p12
    secret = correct
  }
  ike-d {
    secret = shared
  }
  token-e {
    handle = 0102
    slot = 3
    pin = 1234
  }
}
";

fn copy_all(from: &Path, to: &Path) -> Result<usize> {
    let mut files = 0;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a name")?);
        if path.is_dir() {
            files += copy_all(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
            files += 1;
        }
    }
    Ok(files)
}

/// Puts all files into `directory`, with a `swanctl.conf`.
fn write(directory: &Path) -> Result<()> {
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates"));
    ensure!(copy_all(&source, directory)? > 20, "files are missing in {}", source.display());
    write_private(&directory.join("swanctl.conf"), CONF)
}

/// Debian's client with the plugins that Debian loads, as far as they read certificates and keys.
fn debian(directory: &Path) -> Result<Command> {
    let mut command = crate::differential::debian_swanctl(directory)?;
    let settings = directory.join("strongswan-all.conf");
    let plugins = "random nonce aes des sha1 sha2 md5 hmac x509 pubkey pkcs1 pkcs7 pkcs12 pkcs8 pem openssl";
    std::fs::write(&settings, format!("swanctl {{\n  load = {plugins}\n}}\n"))?;
    command.env("STRONGSWAN_CONF", settings);
    Ok(command)
}

fn ours(directory: &Path) -> Result<Command> {
    let mut command = Command::new(binary("swanctl")?);
    command.env("SWANCTL_DIR", directory);
    Ok(command)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Requests by their order, each run of one command sorted: which file of a directory comes first is the file system's with Debian's, and the
/// name's with ours.
fn steps(session: &[Exchange]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut out: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for exchange in session {
        let Some((name, message)) = request_of(&exchange.request) else { continue };
        let kind = [name, message.get_str("flag").unwrap_or_default()].join(" ");
        let octets = exchange.octets.clone();
        match out.last_mut() {
            Some((last, run)) if *last == kind => run.push(octets),
            Some(_) | None => out.push((kind, vec![octets])),
        }
    }
    out.iter_mut().for_each(|(_, run)| run.sort());
    out
}

fn loaded(request: &Packet) -> Vec<Packet> {
    let Some((name, _)) = request_of(request) else { return vec![Packet::EventConfirm] };
    let mut answer = Message::new();
    match name {
        "get-keys" | "get-shared" => answer.list("keys", ["gone"]),
        _ if name.starts_with("get-") => {}
        _ => {
            answer.set("success", "yes");
            answer.set("id", "beef");
        }
    }
    vec![Packet::CmdResponse(answer)]
}

fn credential_files_are_sent_as_debians_are() -> Result<()> {
    let directory = lab::enter::directory().join("credentials");
    write(&directory)?;
    let recorder = Recorder::start(&directory.join("daemon.vici"), Behind::Script(loaded))?;
    let run = |mut command: Command| -> Result<(Output, Vec<Exchange>)> {
        let output = command.args(["--load-creds", "--noprompt", "--clear", "--uri", &recorder.uri()]).output()?;
        let mut session = recorder.session()?;
        // Whom it talks to is asked by ours where it has something to say about the file.
        session.retain(|exchange| request_of(&exchange.request).is_some_and(|(name, _)| name != "version"));
        Ok((output, session))
    };
    let (theirs, their_session) = run(debian(&directory)?)?;
    let (ours, our_session) = run(ours(&directory)?)?;
    ensure!(theirs.status.success() && ours.status.success(), "{}\n{}", said(&theirs), said(&ours));
    let (theirs_sent, ours_sent) = (steps(&their_session), steps(&our_session));
    for (their, our) in theirs_sent.iter().zip(&ours_sent) {
        ensure!(their == our, "Debian's sends\n{their:?}\nours\n{our:?}");
    }
    let sent: usize = ours_sent.iter().map(|(_, run)| run.len()).sum();
    ensure!(theirs_sent.len() == ours_sent.len() && sent > 25, "{theirs_sent:?}\n{ours_sent:?}");
    let sorted = |output: &Output| {
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    ensure!(sorted(&theirs) == sorted(&ours), "{}\n{}", said(&theirs), said(&ours));
    // What stays in the temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// All certificates and keys that a daemon has, in an order of their own.
fn inventory(daemon: &Daemon<'_>) -> Result<(Vec<String>, Vec<String>)> {
    let mut line = Line::new(std::os::unix::net::UnixStream::connect(daemon.socket())?)?;
    line.ask(&Packet::EventRegister("list-cert".to_owned()))?;
    let all = line.ask(&Packet::CmdRequest("list-certs".to_owned(), Message::new()))?;
    let mut certificates: Vec<String> =
        all.iter().filter_map(event_of).map(|(_, message)| swanctl_compat::text::raw(message)).collect();
    certificates.sort();
    let answers = line.ask(&Packet::CmdRequest("get-keys".to_owned(), Message::new()))?;
    let mut keys: Vec<String> =
        answers.iter().filter_map(answer_of).flat_map(|a| a.list_strs("keys")).map(str::to_owned).collect();
    keys.sort();
    Ok((certificates, keys))
}

/// Ways to look at certificates.
const VIEWS: [&[&str]; 13] = [
    &[],
    &["--short"],
    &["--utc"],
    &["--short", "--utc"],
    &["--raw"],
    &["--pretty"],
    &["--type", "x509"],
    &["--type", "x509", "--pem"],
    &["--type", "x509_crl"],
    &["--type", "x509_crl", "--pem"],
    &["--type", "pubkey"],
    &["--flag", "ca"],
    &["--subject", "CN=ed sub", "--raw"],
];

fn charon_has_the_same_credentials() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let daemon = Daemon::start(&Charon, &lab.a.gateway, &lab.directory().join("a"), &[])?;
    let directory = lab.directory().join("credentials");
    write(&directory)?;
    // A token that is not there, and a secret, are the other tests'.
    let conf = CONF.split("  ike-d").next().unwrap_or_default();
    write_private(&directory.join("swanctl.conf"), &format!("{conf}}}\n"))?;
    let run = |mut command: Command, arguments: &[&str]| -> Result<Output> {
        Ok(command.args(arguments).args(["--uri", &daemon.uri()]).output()?)
    };
    let load = ["--load-creds", "--noprompt", "--clear"];
    let theirs = run(debian(&directory)?, &load)?;
    let expected = inventory(&daemon)?;
    let mine = run(ours(&directory)?, &load)?;
    let found = inventory(&daemon)?;
    ensure!(theirs.status.success() && mine.status.success(), "{}\n{}", said(&theirs), said(&mine));
    ensure!(expected == found, "Debian's loaded\n{expected:#?}\nours\n{found:#?}\n{}", said(&mine));
    ensure!(expected.0.len() > 14 && expected.1.len() == 3, "charon has {} and {:?}", expected.0.len(), expected.1);
    for view in VIEWS {
        let arguments = [&["--list-certs"], view].concat();
        // A second may begin between the two.
        let mut tries = 0;
        loop {
            let (theirs, mine) = (run(debian(&directory)?, &arguments)?, run(ours(&directory)?, &arguments)?);
            if theirs.stdout == mine.stdout && theirs.status.code() == mine.status.code() {
                ensure!(mine.stdout.len() > 100, "{view:?} shows nothing");
                break;
            }
            tries += 1;
            ensure!(tries < 4, "{view:?}: Debian's shows\n{}\nours\n{}", said(&theirs), said(&mine));
        }
    }
    let document: serde_json::Value =
        serde_json::from_slice(&run(ours(&directory)?, &["--list-certs", "--json"])?.stdout)?;
    ensure!(document.as_array().is_some_and(|all| all.len() == expected.0.len()), "{document}");
    Ok(())
}

fn certificates_do_not_break_pre_shared_keys(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let directory = pair.a.directory().join("swanctl");
    let conf = std::fs::read_to_string(directory.join("swanctl.conf"))?;
    write(&directory)?;
    write_private(&directory.join("swanctl.conf"), &conf)?;
    let output = pair.a.swanctl_output(Client::Cygnet, &["--load-all", "--noprompt"])?;
    let words = said(&output);
    ensure!(output.status.code() == Some(0), "ended with {}: {words}", output.status);
    for file in ["x509/rsa.pem", "x509ca/ec.der", "x509crl/rsa.pem", "rsa/rsa.pem", "pubkey/ec.der"] {
        let line = format!(
            "loading '{}' failed: certificates and private keys are not supported",
            directory.join(file).display()
        );
        ensure!(words.contains(&line), "no word about {file}: {words}");
    }
    ensure!(words.contains("rsa-protected.pem' failed: it is encrypted"), "{words}");
    ensure!(
        words.contains("loaded ike secret 'ike-site'\n") && words.contains("successfully loaded 1 connections"),
        "{words}"
    );
    let list = pair.a.swanctl_output(Client::Cygnet, &["--list-certs"])?;
    ensure!(list.status.code() == Some(0) && list.stdout.is_empty(), "{}", said(&list));
    life::establish(pair, Side::A)
}
