//! Lines of the log that tools read: the same as charon's for the same exchange, for whoever listens or asks, and more of one connection on demand.

use std::process::{Child, Command, Output};

use anyhow::{Context as _, Result, ensure};
use lab::peer::Client::Debian;
use lab::peer::charon::Charon;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer};
use lab::process::wait_until;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers, python};

/// What the client from PyPI does.
const SCRIPT: &str = include_str!("loglines.py");

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("loglines::the_course_of_an_exchange_is_told_as_charon_tells_it", as_charon),
        trial("loglines::levels_are_told_to_whom_they_are_for", || with_ours(levels)),
        trial("loglines::debian_swanctl_shows_them", || with_ours(debian)),
        trial("loglines::more_of_one_connection_for_a_while", || with_ours(raised)),
    ]
}

fn with_ours(test: fn(&Lab, &mut Pair<'_>) -> Result<()>) -> Result<()> {
    let ours = Cygnet { extra: String::new(), log: TELLS_LISTENERS.into() };
    with_pair(&Middle::Direct, [&ours, peers::ours()?[1]], |_, tunnel| tunnel, test)
}

/// The filter of a log that tells who listens to what.
pub(crate) const TELLS_LISTENERS: &str = "info,cygnetd::vici::session=debug";

/// Waits until clients listen to so many events: they do not say so themselves.
pub(crate) fn listened(pair: &Pair<'_>, events: usize) -> Result<()> {
    let count = || pair.a.log().matches("a VICI client listens").count();
    ensure!(wait_until(SOON, || count() >= events), "clients listen to {} events, not {events}", count());
    Ok(())
}

/// Ends a program as Ctrl-C does; what it has printed where that comes to us.
pub(crate) fn interrupt(program: Child) -> Result<Output> {
    let id = i32::try_from(program.id()).ok().and_then(Pid::from_raw).context("process id")?;
    kill_process(id, Signal::INT)?;
    Ok(program.wait_with_output()?)
}

/// One line as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    command: String,
    level: i8,
    group: String,
    thread: String,
    ike_sa: (String, String),
    text: String,
}

fn lines(daemon: &Daemon<'_>, level: i8, event: &str) -> Result<Vec<Line>> {
    let mut script = Command::new(python::interpreter()?);
    script.args(["-c", SCRIPT]).arg(daemon.socket()).args([&level.to_string(), event]);
    let output = script.output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{text}{errors}");
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Result<Line> {
    let parts: Vec<String> = line.splitn(7, '\t').map(str::to_owned).collect();
    let [command, level, group, thread, name, id, text] =
        <[String; 7]>::try_from(parts).map_err(|parts| anyhow::anyhow!("{} parts: {line}", parts.len()))?;
    Ok(Line { command, level: level.parse()?, group, thread, ike_sa: (name, id), text })
}

/// What differs between two runs of one daemon and between what two daemons offer: numbers, SPIs, payloads that are optional.
fn general(line: &Line) -> String {
    let text = line.text.split(" [ ").next().unwrap_or_default();
    // Charon does not say why.
    let text = if text.starts_with("IKE_SA deleted") { "IKE_SA deleted" } else { text };
    let mut out = String::new();
    for word in text.split(' ') {
        let spi = word.len() == 10 && (word.ends_with("_i") || word.ends_with("_o"));
        let digits = |c: char| if c.is_ascii_digit() { '9' } else { c };
        // Numbers of any length are one.
        let mut word: String = if spi { "SPI".into() } else { word.chars().map(digits).collect() };
        while word.contains("99") {
            word = word.replace("99", "9");
        }
        out.push_str(&word);
        out.push(' ');
    }
    format!("{} {} [{}] {}", line.command, line.level, line.group, out.trim_end())
}

/// Our own lines of levels that charon has too.
fn is_ours_alone(line: &Line) -> bool {
    // That a CHILD SA has ended with its IKE SA charon tells as a change of state, at level 2.
    line.command == "terminate" && line.text.starts_with("CHILD_SA closed")
}

fn as_charon() -> Result<()> {
    let of = |peer: &dyn Peer| {
        let mut found = Vec::new();
        let pair: [&dyn Peer; 2] = [peer, &Charon];
        with_pair(
            &Middle::Direct,
            pair,
            |_, tunnel| tunnel,
            |_, pair| {
                found = lines(&pair.a, 1, "control-log")?;
                Ok(())
            },
        )?;
        Ok::<_, anyhow::Error>(found)
    };
    let (ours, theirs) = (of(&CYGNET)?, of(&Charon)?);
    let ours: Vec<Line> = ours.into_iter().filter(|line| !is_ours_alone(line)).collect();
    for line in ours.iter().chain(&theirs) {
        ensure!(line.ike_sa == ("site".into(), "1".into()) && line.thread == "-", "{line:?}");
    }
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.iter().map(general).collect(), theirs.iter().map(general).collect());
    ensure!(theirs.len() > 20, "charon says {} lines only", theirs.len());
    ensure!(ours == theirs, "ours:\n{}\n\ncharon's:\n{}", ours.join("\n"), theirs.join("\n"));
    Ok(())
}

fn levels(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let most = |lines: &[Line]| lines.iter().map(|line| line.level).max();
    let none = lines(&pair.a, -1, "control-log")?;
    ensure!(none.is_empty(), "{none:?}");
    let few = lines(&pair.a, 0, "control-log")?;
    ensure!(most(&few) == Some(0) && few.len() == 6, "{few:#?}");
    let more = lines(&pair.a, 2, "control-log")?;
    ensure!(most(&more) == Some(2), "{more:#?}");
    for part in [
        "selected traffic selectors",
        "adding inbound ESP SA",
        "activating IKE_DELETE task",
        "received proposals: ESP:",
    ] {
        ensure!(more.iter().any(|line| line.level == 2 && line.text.contains(part)), "no {part} in {more:#?}");
    }
    let all = lines(&pair.a, 4, "control-log")?;
    ensure!(all.len() >= more.len(), "level 4 has {} lines, level 2 {}", all.len(), more.len());
    // Whoever listens to the log gets what is not too detailed, of whatever it is about, with the thread that says it.
    let told = lines(&pair.a, 1, "log")?;
    ensure!(most(&told) == Some(1), "{told:#?}");
    for (group, part) in [("ENC", "generating IKE_AUTH"), ("NET", "received packet"), ("IKE", "established between")] {
        let found = told.iter().find(|line| line.group == group && line.text.contains(part));
        let found = found.with_context(|| format!("no {part} in {told:#?}"))?;
        ensure!(found.command == "log" && found.thread.parse::<u32>().is_ok_and(|thread| thread > 0), "{found:?}");
    }
    Ok(())
}

fn debian(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let shown = pair.a.directory().join("shown");
    let log = Command::new("stdbuf")
        .args(["-oL", "/usr/sbin/swanctl", "--log", "--uri", &pair.a.uri()])
        .stdout(std::fs::File::create(&shown)?)
        .stderr(std::process::Stdio::null())
        .spawn()?;
    listened(pair, 1)?;
    let initiate = |child, level| {
        pair.a.swanctl_of(Debian, &["--initiate", "--child", child, "--timeout", "30", "--loglevel", level])
    };
    let text = initiate("net4", "2")?;
    for part in [
        "[IKE] initiating IKE_SA site[1] to 192.0.2.2\n",
        "[ENC] generating IKE_SA_INIT request 0 [ SA KE No ",
        "[NET] sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (",
        "[CFG] selected traffic selectors: 10.1.0.0/24 === 10.2.0.0/24\n",
        "[IKE] IKE_SA site[1] established between 192.0.2.1[gw-a.example]...192.0.2.2[gw-b.example]\n",
        "[CHD] adding outbound ESP SA\n",
        "[IKE] CHILD_SA net4{1} established with SPIs ",
        " and TS 10.1.0.0/24 === 10.2.0.0/24\n",
        "initiate completed successfully\n",
    ] {
        ensure!(text.contains(part), "no {part} in:\n{text}");
    }
    let text = initiate("net6", "0")?;
    let expected = "[IKE] establishing CHILD_SA net6{2}\n[IKE] CHILD_SA net6{2} established with SPIs ";
    ensure!(text.starts_with(expected) && !text.contains("[ENC]"), "{text}");
    let text = pair.a.swanctl_of(Debian, &["--terminate", "--child", "net6", "--timeout", "30"])?;
    for part in [
        "[IKE] closing CHILD_SA net6{2} with SPIs ",
        "[IKE] sending DELETE for ESP CHILD_SA with SPI ",
        "[IKE] CHILD_SA closed",
    ] {
        ensure!(text.contains(part), "no {part} in:\n{text}");
    }
    let text = || std::fs::read_to_string(&shown).unwrap_or_default();
    wait_until(SOON, || text().contains("[IKE] CHILD_SA closed"));
    interrupt(log)?;
    let text = text();
    for part in
        ["[ENC] parsed IKE_AUTH response 1 [ IDr AUTH ", "[IKE] CHILD_SA net4{1} established", "[IKE] CHILD_SA closed"]
    {
        ensure!(
            text.lines().any(|line| line.get(2..).is_some_and(|line| line.starts_with(part))),
            "no {part} in:\n{text}"
        );
    }
    Ok(())
}

/// Output of our own tool when it does what is asked.
fn cygnet(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<String> {
    let output = daemon.cygnet(arguments)?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{arguments:?}: {text}{errors}");
    Ok(text.into_owned())
}

fn raised(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    const DETAIL: &str = "generating CREATE_CHILD_SA request";
    let a = &pair.a;
    ensure!(cygnet(a, &["log"])?.contains("nothing is raised"), "something is raised");
    life::establish(pair, Side::A)?;
    let rekey = |pair: &Pair<'_>| life::rekey_child(pair, Side::A, "net4");
    rekey(pair)?;
    ensure!(!pair.a.log().contains(DETAIL), "the log has details that nobody asked for");
    let unknown = pair.a.cygnet(&["log", "sit", "2"])?;
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(unknown.status.code() == Some(2) && error.contains("did you mean 'site'"), "{error}");
    let listed = cygnet(&pair.a, &["log", "site", "1", "--for", "10m"])?;
    ensure!(listed.contains("site") && listed.contains("UNTIL"), "{listed}");
    cygnet(&pair.a, &["log", "*", "debug", "--group", "knl"])?;
    let json: serde_json::Value = serde_json::from_str(&cygnet(&pair.a, &["log", "--json"])?)?;
    let is = |at: &str, value: serde_json::Value| json.pointer(at) == Some(&value);
    ensure!(is("/0/connection", "*".into()) && is("/0/group", "KNL".into()) && is("/1/level", 1.into()), "{json}");
    ensure!(cygnet(&pair.a, &["log", "*", "off", "--group", "KNL"])?.contains("site"), "both have gone");
    rekey(pair)?;
    ensure!(pair.a.log().contains(DETAIL), "the log has no details:\n{}", pair.a.log_tail(20));
    // Said again, it is for so long from now on.
    cygnet(&pair.a, &["log", "site", "1", "--for", "1s"])?;
    life::settle("nothing is raised any more", || Ok(cygnet(&pair.a, &["log"])?.contains("nothing is raised")))?;
    let before = pair.a.log().matches(DETAIL).count();
    rekey(pair)?;
    ensure!(pair.a.log().matches(DETAIL).count() == before, "it has not fallen back");
    // The settings themselves, while it runs.
    let settings = pair.a.directory().join("cygnetd.toml");
    let text = std::fs::read_to_string(&settings)?;
    std::fs::write(&settings, text.replace(TELLS_LISTENERS, "info,ike_sa=trace"))?;
    let answer = pair.a.swanctl(&["--reload-settings", "--raw"])?;
    ensure!(answer.contains("success=yes") && !answer.contains("restart-needed"), "{answer}");
    rekey(pair)?;
    ensure!(pair.a.log().matches(DETAIL).count() > before, "the new filter is not used");
    std::fs::write(&settings, text.replace("kind = \"userspace\"", "kind = \"userspace\"\non_stop = \"open\""))?;
    let answer = pair.a.swanctl(&["--reload-settings", "--raw"])?;
    ensure!(answer.contains("restart-needed=[backend]"), "{answer}");
    Ok(())
}
