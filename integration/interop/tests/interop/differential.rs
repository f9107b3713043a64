//! charon and Cygnet side by side: the same `swanctl.conf`, loaded by the same client, and the same commands after it. What they answer is
//! compared key by key, order included. What may differ is written down with its reason in [`intended`] and in `DIFFERENCES.md`.

mod acts;
mod cases;
mod compare;
mod counting;
mod intended;
mod live;
mod tunnel;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::peer::charon::{Charon, Charon13};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Client, Daemon, Peer};
use lab::topology::{Lab, Middle};
use libtest_mimic::Trial;
use swanctl_compat::vici::{Message, Packet};

use crate::harness::trial;
use crate::recorder::{Behind, Exchange, Line, Recorder, answer_of, event_of, request_of};
use cases::{CASES, Case, QUESTIONS, Question};
use compare::{Difference, Step};
use intended::{Judge, Version};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("differential::configurations_and_commands", || configurations_and_commands(&Charon, Version::V5_9_8)),
        trial("differential::configurations_and_commands_6_0", || {
            configurations_and_commands(&Charon13, Version::V6_0_1)
        }),
        trial("differential::an_established_tunnel", || tunnel::an_established_tunnel(&Charon, Version::V5_9_8)),
        trial("differential::commands_on_live_sas", || live::commands_on_live_sas(&Charon, Version::V5_9_8)),
        trial("differential::commands_on_live_sas_6_0", || live::commands_on_live_sas(&Charon13, Version::V6_0_1)),
        trial("differential::an_established_tunnel_6_0", || tunnel::an_established_tunnel(&Charon13, Version::V6_0_1)),
    ]
}

/// A daemon that is asked, with a recorder in front of it.
struct Asked<'lab> {
    daemon: Daemon<'lab>,
    recorder: Recorder,
    files: PathBuf,
}

impl<'lab> Asked<'lab> {
    fn new(daemon: Daemon<'lab>) -> Result<Self> {
        let recorder =
            Recorder::start(&daemon.directory().join("recorder.vici"), Behind::Daemon(daemon.socket().to_owned()))?;
        let files = daemon.directory().join("case");
        std::fs::create_dir_all(&files)?;
        Ok(Self { daemon, recorder, files })
    }

    /// Loads a configuration with Debian's `swanctl`; all that was said.
    fn load(&self, text: &str) -> Result<Vec<Step>> {
        write_private(&self.files.join("swanctl.conf"), text)?;
        debian_swanctl(&self.files)?.args(["--load-all", "--noprompt", "--uri", &self.recorder.uri()]).output()?;
        let session = self.recorder.session()?;
        // Files that swanctl cannot read let it go before it says anything.
        Ok(session.iter().map(step_of).collect())
    }

    /// Asks one thing.
    fn ask(&self, question: &Question) -> Result<Step> {
        let mut line = Line::new(std::os::unix::net::UnixStream::connect(self.daemon.socket())?)?;
        for event in question.events {
            line.ask(&Packet::EventRegister((*event).to_owned()))?;
        }
        let answers = line.ask(&Packet::CmdRequest(question.command.to_owned(), (question.request)()))?;
        Ok(Step { name: question.name.to_owned(), answers: answers.iter().map(labelled).collect() })
    }
}

/// Debian 12's client, reading `files`.
pub(crate) fn debian_swanctl(files: &Path) -> Result<Command> {
    swanctl_of(Client::Debian, files)
}

/// A client, reading `files`.
pub(crate) fn swanctl_of(client: Client, files: &Path) -> Result<Command> {
    let settings = files.join("strongswan.conf");
    std::fs::write(&settings, "swanctl {\n  load = random openssl pem pkcs1 pkcs8 x509 pubkey\n}\n")?;
    let mut command = client.command()?;
    command.env("SWANCTL_DIR", files).env("STRONGSWAN_CONF", settings);
    Ok(command)
}

pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

/// A command and what it was about: `load-conn a`, `load-shared ike-b`.
fn step_of(exchange: &Exchange) -> Step {
    let name = match request_of(&exchange.request) {
        Some((command, message)) => {
            let about = message.sections().next().map(|(name, _)| name.to_owned());
            let about = about.or_else(|| message.get_str("id").or(message.get_str("name")).map(str::to_owned));
            about.map_or_else(|| command.to_owned(), |about| format!("{command} {about}"))
        }
        None => format!("{:?}", exchange.request),
    };
    Step { name, answers: exchange.answers.iter().map(labelled).collect() }
}

fn labelled(packet: &Packet) -> (String, Message) {
    match (event_of(packet), answer_of(packet)) {
        (Some((name, message)), _) => (name.to_owned(), message.clone()),
        (None, Some(message)) => ("answer".to_owned(), message.clone()),
        (None, None) if *packet == Packet::CmdUnknown => ("no such command".to_owned(), Message::new()),
        (None, None) => (format!("{packet:?}"), Message::new()),
    }
}

fn configurations_and_commands(other: &dyn Peer, version: Version) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let start = |peer: &dyn Peer, gateway, name: &str| {
        Daemon::start(peer, gateway, &lab.directory().join(name), &[]).and_then(Asked::new)
    };
    let charon = start(other, &lab.a.gateway, "a")?;
    let cygnet = start(&Cygnet::default(), &lab.b.gateway, "b")?;
    let mut judge = Judge::of(intended::INTENDED, version);
    let mut alike = true;
    for case in CASES {
        one_case(case, alike, &charon, &cygnet, &mut judge).with_context(|| format!("case {}", case.name))?;
        alike = case.refused.is_none();
    }
    charon.load("")?;
    cygnet.load("")?;
    for question in QUESTIONS {
        let found = compare::steps(&[charon.ask(question)?], &[cygnet.ask(question)?]);
        judge.take("commands", &found);
    }
    judge.verdict(CASES.len())
}

/// Loads one configuration into both and asks both about it; `alike` is whether both have the same to begin with.
fn one_case(case: &Case, alike: bool, charon: &Asked<'_>, cygnet: &Asked<'_>, judge: &mut Judge) -> Result<()> {
    // What an earlier case has left with one and not with the other is no matter of this one.
    let unloaded = compare::steps(&charon.load("")?, &cygnet.load("")?);
    if alike {
        judge.take("before the case", &unloaded);
    }
    let (theirs, ours) = (charon.load(case.conf)?, cygnet.load(case.conf)?);
    let mut found: Vec<Difference> = compare::steps(&theirs, &ours);
    match case.refused {
        None => {
            for question in cases::AFTER_LOAD.iter().filter(|question| case.asks(question)) {
                found.extend(compare::steps(&[charon.ask(question)?], &[cygnet.ask(question)?]));
            }
        }
        // What charon takes and we do not: the refusal must name the key, and nothing else of it can be compared.
        Some(key) => {
            let refusal = compare::refusal(&ours).context("it was to be refused and was not")?;
            ensure!(refusal.contains(key), "refused, but for another reason than {key}: {refusal}");
            ensure!(compare::refusal(&theirs).is_none(), "charon refuses it as well: {:?}", compare::refusal(&theirs));
            found.retain(|difference| !intended::is_about_refusal(difference));
            judge.note_refusal(case.name, &refusal);
        }
    }
    judge.take(case.name, &found);
    Ok(())
}

/// Lines for a report.
fn listing(differences: &[(String, Difference)]) -> String {
    differences.iter().fold(String::new(), |mut text, (case, difference)| {
        let _ = writeln!(text, "  {case}: {difference}");
        text
    })
}
