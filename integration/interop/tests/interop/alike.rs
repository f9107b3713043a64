//! Our reader of `swanctl.conf` against those of Debian 12 and Debian 13: all load the same files into a recorder that stands in for a daemon.
//! Whether a file is taken, what is said on the standard output, and every message with its octets must be the same.
//!
//! Four things are meant to differ. A file that cannot be read counts for Debian's as an empty one: it says so on the standard error, unloads all
//! that the daemon has, and ends well. Ours changes nothing and ends with 22. And of `secret = 0xzz` Debian's makes the octet 0; ours takes that for
//! the mistake that it is: it loads the rest, leaves what the daemon has under that name, and ends with 22. Where an authority or a pool cannot be
//! loaded, Debian's goes no further; ours loads the connections all the same. Both end with 22. And a
//! section that begins in an included file ends in it: for Debian's, the file that includes it may close it.

mod writer;

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use lab::peer::Client;
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::differential::{swanctl_of, write_private};
use crate::harness::trial;
use crate::recorder::{Behind, Exchange, Line, Recorder, request_of};
use writer::Writer;

/// Generated files.
const FILES: u64 = 360;

/// Debian 13's reads one file of so many: the two have the same reader.
const NEWER: u64 = 2;

/// A session of nobody's, which ends what was recorded for one client.
const MARK: &str = "mark";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("alike::generated_files_mean_the_same_to_debians_swanctl", generated_files)]
}

/// What a client made of a file.
struct Made {
    output: Output,
    messages: Vec<Exchange>,
}

struct Bench {
    directory: PathBuf,
    recorder: Recorder,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = lab::enter::directory().join("alike");
        std::fs::create_dir_all(&directory)?;
        let behind = Behind::Pretence {
            connections: vec!["gone".to_owned(), "a".to_owned()],
            secrets: vec!["ike-gone".to_owned(), "ike-a".to_owned()],
        };
        let recorder = Recorder::start(&directory.join("daemon.vici"), behind)?;
        write_private(&directory.join("cert.pem"), "no certificate, but its octets\n")?;
        for (name, text) in writer::INCLUDED {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(&directory))?;
            write_private(&path, text)?;
        }
        Ok(Self { directory, recorder })
    }

    fn run(&self, mut command: std::process::Command) -> Result<Made> {
        let arguments = ["--load-all", "--noprompt", "--uri", &self.recorder.uri()];
        let output = command.args(arguments).env("SWANCTL_DIR", &self.directory).output()?;
        let mut mark = Line::new(std::os::unix::net::UnixStream::connect(self.directory.join("daemon.vici"))?)?;
        mark.ask(&Packet::CmdRequest(MARK.to_owned(), Message::new()))?;
        drop(mark);
        let mut messages = Vec::new();
        loop {
            let session = self.recorder.session()?;
            if session.iter().any(|exchange| command_of(exchange) == MARK) {
                return Ok(Made { output, messages });
            }
            messages.extend(session);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What stays in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn command_of(exchange: &Exchange) -> &str {
    request_of(&exchange.request).map_or("", |(name, _)| name)
}

fn generated_files() -> Result<()> {
    let bench = Bench::new()?;
    let (mut wrong, mut refused, mut mistaken, mut messages) = (Vec::new(), 0_u64, 0_u64, 0_usize);
    for seed in 1..=FILES {
        let text = Writer::new(seed).file().replace("@DIR@", &bench.directory.display().to_string());
        write_private(&bench.directory.join("swanctl.conf"), &text)?;
        let run = |client| {
            let made = bench.run(swanctl_of(client, &bench.directory)?);
            made.with_context(|| format!("{client:?} with file {seed}:\n{}", numbered(&text)))
        };
        let (mut theirs, ours) = (run(Client::Debian)?, run(Client::Cygnet)?);
        if seed % NEWER == 0 {
            let newer = run(Client::Debian13)?;
            // The two read alike; should they not in some file, there is nobody to follow.
            ensure!(same(&theirs, &newer), "5.9.8: {}\n6.0.1: {}\n{}", said(&theirs), said(&newer), numbered(&text));
        }
        let mistakes = if is_unreadable(&theirs) { 0 } else { without_mistaken_secrets(&mut theirs, &ours) };
        let outcome = if mistakes > 0 {
            mistaken += 1;
            mistake(&theirs, &ours)
        } else if is_unreadable(&theirs) || text.contains(OVER_FILES) {
            refused += 1;
            changes_nothing(&ours)
        } else {
            messages += theirs.messages.len();
            alike(&theirs, &ours)
        };
        if let Err(error) = outcome {
            wrong.push(format!("file {seed}: {error:#}\n{}", numbered(&text)));
        }
    }
    let taken = FILES - refused;
    ensure!(wrong.is_empty(), "{} of {FILES} files differ:\n{}", wrong.len(), wrong.join("\n"));
    // A generator that writes only good files, or only bad ones, would show little.
    ensure!(refused > 30 && taken > 200 && messages > 2_000, "{refused} refused, {taken} taken, {messages} messages");
    ensure!(mistaken > 3, "{mistaken} files have a secret that is a mistake");
    Ok(())
}

fn numbered(text: &str) -> String {
    text.lines().enumerate().map(|(index, line)| format!("{:>4} | {line}\n", index + 1)).collect()
}

/// Takes away what Debian's makes of secrets that stand for no octets: the messages, and the words about them. Gives how many there were.
fn without_mistaken_secrets(theirs: &mut Made, ours: &Made) -> usize {
    let told = String::from_utf8_lossy(&ours.output.stderr).contains("invalid secret");
    let sent = |wanted: &str| {
        let id = |packet: &Packet| request_of(packet).and_then(|(_, message)| message.get_str("id").map(str::to_owned));
        ours.messages.iter().any(|exchange| id(&exchange.request).as_deref() == Some(wanted))
    };
    let mut ids = Vec::new();
    theirs.messages.retain(|exchange| {
        let Some(("load-shared", message)) = request_of(&exchange.request) else { return true };
        // Of a digit that is none within others it makes other octets.
        let left_out = told && message.get_str("id").is_some_and(|id| !sent(id));
        let is_mistaken = left_out || message.get("data").is_some_and(|data| data.as_bytes() == [0]);
        ids.extend(message.get_str("id").filter(|_| is_mistaken).map(str::to_owned));
        !is_mistaken
    });
    let words = String::from_utf8_lossy(&theirs.output.stdout).into_owned();
    let of_them = |line: &&str| ids.iter().any(|id| line.ends_with(&format!(" secret '{id}'\n")));
    theirs.output.stdout = words.split_inclusive('\n').filter(|line| !of_them(line)).collect::<String>().into_bytes();
    ids.len()
}

fn mistake(theirs: &Made, ours: &Made) -> Result<()> {
    let words = String::from_utf8_lossy(&ours.output.stderr);
    ensure!(ours.output.status.code() == Some(22) && words.contains("invalid secret"), "not told: {}", said(ours));
    same_messages(theirs, ours)
}

/// The included file that leaves a section open.
const OVER_FILES: &str = "include broken.conf";

fn said(made: &Made) -> String {
    let (out, err) = (String::from_utf8_lossy(&made.output.stdout), String::from_utf8_lossy(&made.output.stderr));
    format!("{}, {out}{err}", made.output.status)
}

/// Whether Debian's could not read the file.
fn is_unreadable(theirs: &Made) -> bool {
    String::from_utf8_lossy(&theirs.output.stderr).contains("invalid config file")
}

/// Whether two of strongSwan's versions made the same of a file.
fn same(one: &Made, other: &Made) -> bool {
    let octets = |made: &Made| made.messages.iter().map(|exchange| exchange.octets.clone()).collect::<Vec<_>>();
    is_unreadable(one) == is_unreadable(other)
        && one.output.status == other.output.status
        && one.output.stdout == other.output.stdout
        && octets(one) == octets(other)
}

fn changes_nothing(ours: &Made) -> Result<()> {
    ensure!(ours.output.status.code() == Some(22) && ours.messages.is_empty(), "it was not refused: {}", said(ours));
    let words = String::from_utf8_lossy(&ours.output.stderr);
    ensure!(words.contains(".conf:"), "refused without a place: {words}");
    Ok(())
}

fn alike(theirs: &Made, ours: &Made) -> Result<()> {
    ensure!(
        theirs.output.status.success() == ours.output.status.success(),
        "Debian: {}\nours: {}",
        said(theirs),
        said(ours)
    );
    if theirs.output.status.code() == Some(22) {
        return begins_the_same(theirs, ours);
    }
    same_messages(theirs, ours)
}

/// Debian's has stopped at a part that failed; up to there both have done the same.
fn begins_the_same(theirs: &Made, ours: &Made) -> Result<()> {
    ensure!(ours.output.status.code() == Some(22), "ours: {}", said(ours));
    let mut begin = Made { output: ours.output.clone(), messages: ours.messages.clone() };
    begin.messages.retain(|exchange| command_of(exchange) != "version");
    begin.messages.truncate(theirs.messages.len());
    ensure!(ours.output.stdout.starts_with(&theirs.output.stdout), "Debian says {}, ours {}", said(theirs), said(ours));
    begin.output.stdout = theirs.output.stdout.clone();
    same_messages(theirs, &begin)
}

fn same_messages(theirs: &Made, ours: &Made) -> Result<()> {
    // Whom it talks to is asked by ours where it has something to say about the file.
    let ours_said: Vec<&Exchange> = ours.messages.iter().filter(|exchange| command_of(exchange) != "version").collect();
    for (number, (their, our)) in theirs.messages.iter().zip(&ours_said).enumerate() {
        ensure!(
            their.octets == our.octets,
            "message {number}: Debian {}\n            ours {}",
            shown(&their.request),
            shown(&our.request)
        );
    }
    ensure!(
        theirs.messages.len() == ours_said.len(),
        "Debian sends {} messages, ours {}: {}\n{}",
        theirs.messages.len(),
        ours_said.len(),
        said(theirs),
        said(ours)
    );
    ensure!(theirs.output.stdout == ours.output.stdout, "Debian says {}, ours {}", said(theirs), said(ours));
    Ok(())
}

fn shown(packet: &Packet) -> String {
    match request_of(packet) {
        Some((name, message)) => swanctl_compat::text::labelled(name, message),
        None => format!("{packet:?}"),
    }
}
