//! No secret and no key gets out: everything that the daemon keeps, logs, tells and serves during a busy while is searched for the very octets.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lab::peer::Daemon;
use lab::peer::charon::TalkativeCharon;
use lab::peer::conf::{SECRET, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use swanctl_compat::request::EVENTS;
use swanctl_compat::vici::{Message, Packet};

use crate::harness::{Pair, trial, with_pair};
use crate::recorder::Line;
use crate::{http, life};

const CHILD: &str = "net4";
/// What the webhook signs with; as it is written, and its octets.
const HOOK: (&str, &[u8]) = ("whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rLTAx", b"secret-of-the-webhook-01");
/// What the page asks for.
const TOKEN: &str = "token-of-the-page-01";
/// What is in the webhook's URL.
const PASSWORD: &str = "password-in-a-url-01";
/// A pre-shared key that fits nobody.
const WRONG: &str = "another-secret-that-does-not-fit";
const REKEYS: usize = 3;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("privacy::no_key_and_no_secret_gets_out", || {
        let extra = format!(
            "[http]\nlisten = \"127.0.0.1:9470\"\ntoken = \"{TOKEN}\"\n[[webhook]]\nname = \"ops\"\n\
             url = \"http://hook:{PASSWORD}@127.0.0.1:9/hook\"\nsecret = \"{}\"\n",
            HOOK.0
        );
        let cygnet = Cygnet { extra, log: "trace".into() };
        with_pair(&Middle::Direct, [&cygnet, &TalkativeCharon], tunnel, searched)
    })]
}

fn tunnel(_: Side, mut tunnel: Tunnel) -> Tunnel {
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

fn searched(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let mut vici = pair.a.vici()?;
    vici.register("cygnet-event")?;
    vici.register("log")?;
    let told = std::thread::spawn(move || {
        let mut told = Vec::new();
        while let Ok((_, message)) = vici.event() {
            let words = ["record", "msg"].into_iter().filter_map(|key| message.get_str(key));
            told.extend(words.flat_map(str::bytes));
        }
        told
    });
    let shown = busy(lab, pair)?;
    let mut said = vec![("log", pair.a.log().into_bytes()), ("control-log", shown.into_bytes())];
    for (name, arguments) in [
        ("history", &["history", "--json", "--limit", "0"] as &[&str]),
        ("IKE SAs", &["history", "--json", "--ike-sas"]),
        ("events", &["events", "--json", "--limit", "0"]),
        ("explain", &["explain", "site"]),
        ("doctor", &["doctor", "--json"]),
        ("status", &["status", "--json"]),
    ] {
        let output = pair.a.cygnet(arguments)?;
        ensure!(!output.stdout.is_empty(), "{name} says nothing: {}", String::from_utf8_lossy(&output.stderr));
        said.push((name, output.stdout));
    }
    for (name, list) in [("SAs", "--list-sas"), ("connections", "--list-conns")] {
        said.push((name, pair.a.swanctl(&[list, "--raw"])?.into_bytes()));
    }
    for path in ["/metrics", "/readyz", "/api/status", "/api/events?limit=1000", "/api/deliveries", "/api/timeline"] {
        said.push((path, http::get_well(lab, path)?));
    }
    files_are_private(&pair.a)?;
    said.push(("the answers to every command", every_answer(&pair.a)?));
    let keys = keys(&pair.b.log());
    ensure!(keys.len() > REKEYS * 2, "charon has logged {} keys only", keys.len());
    pair.a.process().terminate()?;
    said.push(("events as they happened", told.join().ok().context("a listener failed")?));
    for directory in ["history", "."] {
        let mut kept = Vec::new();
        collect(&pair.a.directory().join(directory), &mut kept)?;
        said.push(("files", kept));
    }
    let mut forms = Forms::default();
    keys.iter().for_each(|key| forms.add("a key", key));
    for (what, text) in
        [("the pre-shared key", SECRET), ("the wrong key", WRONG), ("the token", TOKEN), ("the password", PASSWORD)]
    {
        forms.add(what, text.as_bytes());
    }
    forms.add("the webhook's secret", HOOK.1);
    // A search that finds nothing must be able to find something.
    let planted = format!("..{}..", String::from_utf8_lossy(&base64(HOOK.1, STANDARD)));
    ensure!(forms.find(planted.as_bytes()) == Some(("the webhook's secret", "in base64")), "the search is blind");
    for (place, octets) in &said {
        ensure!(octets.len() > 100, "{place} says only {}", String::from_utf8_lossy(octets));
        if let Some((what, form)) = forms.find(octets) {
            anyhow::bail!("{what} is in {place}, {form}");
        }
    }
    Ok(())
}

/// Rekeys, a secret that does not fit, a configuration that is loaded and one that is refused, a webhook that does not answer.
/// Gives what whoever asked for it was shown of it, in all details.
fn busy(lab: &Lab, pair: &mut Pair<'_>) -> Result<String> {
    let mut shown = pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30", "--loglevel", "4"])?;
    for rekey in 0..REKEYS {
        life::rekey_child(pair, if rekey % 2 == 0 { Side::A } else { Side::B }, CHILD)?;
    }
    life::rekey_ike_with(pair, Side::A, &[CHILD])?;
    shown += &pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30", "--loglevel", "4"])?;
    let good = tunnel(Side::A, Tunnel::between(lab, Side::A, lab::topology::Family::V4));
    let mut wrong = good.clone();
    wrong.secret = WRONG.into();
    pair.a.write_tunnels(&[wrong.clone()])?;
    pair.a.load()?;
    let failed = pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"]);
    ensure!(failed.is_err(), "it fits");
    wrong.proposals = "nothing-that-exists".into();
    pair.a.write_tunnels(&[wrong])?;
    ensure!(pair.a.load().is_err(), "it is loaded");
    pair.a.write_tunnels(&[good])?;
    pair.a.load()?;
    pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    Ok(shown)
}

/// What every command answers, and every event that comes meanwhile, to one who asks for keys wherever that could be understood. Without the
/// operator's leave there is none to be had.
fn every_answer(daemon: &Daemon<'_>) -> Result<Vec<u8>> {
    let code = include_str!("../../../../swanctl-compat/src/request/mod.rs");
    let arms = code.split("match name {").nth(1).and_then(|rest| rest.split("_ => Err(RequestError::Unknown)").next());
    let arms = arms
        .context("where commands are told apart")?
        .lines()
        .filter_map(|line| line.split_once("=>").map(|arm| arm.0));
    let commands: BTreeSet<&str> = arms.flat_map(|arm| arm.split('"').skip(1).step_by(2)).collect();
    ensure!(commands.len() > 40 && commands.contains("cygnet-capture"), "{commands:?}");
    let mut line = Line::new(UnixStream::connect(daemon.socket())?)?;
    for event in EVENTS {
        line.ask(&Packet::EventRegister(event.into()))?;
    }
    let mut request = Message::new();
    for (key, value) in [
        ("ike", "site"),
        ("child", CHILD),
        ("keys", "yes"),
        ("messages", "yes"),
        ("name", "ops"),
        ("id", "1"),
        ("timeout", "200"),
        ("src", "10.1.0.10"),
        ("dst", "10.2.0.10"),
    ] {
        request.set(key, value);
    }
    let (mut said, mut refused) = (Vec::new(), false);
    for command in commands {
        for packet in line.ask(&Packet::CmdRequest(command.into(), request.clone()))? {
            if let (Packet::CmdResponse(answer), "cygnet-capture") = (&packet, command) {
                refused = answer.get_str("errmsg").is_some_and(|reason| reason.contains("export_keys"));
            }
            said.extend(packet.encode()?);
        }
    }
    ensure!(refused, "keys are not refused");
    Ok(said)
}

/// Only the daemon writes what it keeps, and others than its group do not read it.
fn files_are_private(daemon: &Daemon<'_>) -> Result<()> {
    let history = daemon.directory().join("history");
    let mut seen = 0;
    for (directory, most) in [(history.clone(), 0o640), (history.join("spool"), 0o600)] {
        let mode = std::fs::metadata(&directory)?.permissions().mode();
        ensure!(mode & 0o027 == 0, "{} has the mode {mode:o}", directory.display());
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            if entry.metadata()?.is_file() {
                seen += 1;
                ensure!(mode & !most == 0, "{} has the mode {mode:o}", entry.path().display());
            }
        }
    }
    ensure!(seen >= 4, "{seen} files");
    Ok(())
}

/// Secrets in every form in which they could come out, by their first octets.
#[derive(Default)]
struct Forms(HashMap<[u8; FIRST], Vec<Form>>);

/// What it is, how it is written, and its octets.
type Form = (&'static str, &'static str, Vec<u8>);

/// Octets by which a form is looked up; none is shorter.
const FIRST: usize = 12;

impl Forms {
    fn add(&mut self, what: &'static str, needle: &[u8]) {
        let hex: Vec<String> = needle.iter().map(|octet| format!("{octet:02x}")).collect();
        let numbers: Vec<String> = needle.iter().map(u8::to_string).collect();
        let mut forms = vec![("as it is", needle.to_vec())];
        for between in ["", " ", ":"] {
            forms.push(("in hexadecimal", hex.join(between).into_bytes()));
            forms.push(("in hexadecimal", hex.join(between).to_uppercase().into_bytes()));
        }
        for between in [",", ", "] {
            forms.push(("as numbers", numbers.join(between).into_bytes()));
        }
        // Wherever in a longer text it begins: the groups of three octets that lie inside.
        for skipped in 0..3 {
            let rest = needle.get(skipped..).unwrap_or_default();
            let whole = rest.get(..rest.len() / 3 * 3).unwrap_or_default();
            for alphabet in [STANDARD, FOR_URLS] {
                forms.push(("in base64", base64(whole, alphabet)));
            }
        }
        for (form, octets) in forms {
            if let Some(first) = octets.first_chunk::<FIRST>() {
                self.0.entry(*first).or_default().push((what, form, octets));
            }
        }
    }

    fn find(&self, octets: &[u8]) -> Option<(&'static str, &'static str)> {
        octets.windows(FIRST).enumerate().find_map(|(at, window)| {
            let forms = self.0.get(window)?;
            let rest = octets.get(at..).unwrap_or_default();
            forms.iter().find(|(.., form)| rest.starts_with(form)).map(|(what, form, _)| (*what, *form))
        })
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(octets: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let group = |group: &[u8]| {
        let number = group.iter().fold(0_usize, |sum, octet| (sum << 8) | usize::from(*octet));
        [18, 12, 6, 0].map(|shift| alphabet.get((number >> shift) & 63).copied().unwrap_or_default())
    };
    octets.chunks_exact(3).flat_map(group).collect()
}

/// The first 16 octets of each key in charon's log.
fn keys(log: &str) -> Vec<Vec<u8>> {
    let dump = |line: &str| {
        let (_, octets) = line.split_once("[CHD]    0: ").or_else(|| line.split_once("[IKE]    0: "))?;
        let octets: Vec<u8> =
            octets.split(' ').map_while(|octet| u8::from_str_radix(octet, 16).ok()).take(16).collect();
        (octets.len() == 16).then_some(octets)
    };
    log.lines().filter_map(dump).collect()
}

/// All files but those in which secrets are configured.
fn collect(directory: &Path, into: &mut Vec<u8>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("swanctl") {
                collect(&path, into)?;
            }
        } else if path.is_file() && !path.ends_with("cygnetd.toml") {
            into.extend(std::fs::read(&path)?);
        }
    }
    Ok(())
}
