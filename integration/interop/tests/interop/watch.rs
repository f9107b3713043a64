//! `cygnet status --watch` on a terminal with a user, and in a pipe: traffic, trouble, keys, sizes, and a daemon that goes and comes back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, binary};
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, python};

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };
/// Plays the user.
const SCRIPT: &str = include_str!("watch.py");

pub(crate) fn trials() -> Vec<Trial> {
    let of = |test: fn(&Lab, &mut Pair<'_>) -> Result<()>| {
        move || with_pair(&Middle::Direct, [&CYGNET, &CYGNET], |_, tunnel| tunnel, test)
    };
    vec![
        trial("watch::a_user_at_a_terminal", of(at_a_terminal)),
        trial("watch::lines_and_objects_in_a_pipe", of(in_a_pipe)),
    ]
}

/// A terminal with the program in it.
struct Terminal {
    process: Child,
    steps: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Terminal {
    fn start(daemon: &Daemon<'_>, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(python::interpreter()?);
        command.args(["-c", SCRIPT, "80", "24"]).arg(binary("cygnet")?).arg("--uri").arg(daemon.uri());
        command
            .args(["status", "--watch", "--interval", "0.3"])
            .args(options)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let steps = process.stdin.take().context("standard input")?;
        let answers = BufReader::new(process.stdout.take().context("standard output")?);
        Ok(Self { process, steps, answers })
    }

    fn step(&mut self, step: &str) -> Result<()> {
        self.answer(step).map(drop)
    }

    fn answer(&mut self, step: &str) -> Result<Json> {
        writeln!(self.steps, "{step}").context("the terminal has gone; its words are above")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("after '{step}': {line:?}"))
    }

    fn screen(&mut self) -> Result<(String, bool)> {
        let answer = self.answer("screen")?;
        let text = answer.get("screen").and_then(Json::as_str).context("a screen")?.to_owned();
        Ok((text, is(&answer, "/coloured", true.into())))
    }

    /// Ends it; the terminal must be as it was.
    fn end(mut self) -> Result<()> {
        let answer = self.answer("end")?;
        ensure!(is(&answer, "/restored", true.into()), "the terminal is not as it was: {answer}");
        drop(self.steps);
        ensure!(self.process.wait()?.success(), "the user is not content");
        Ok(())
    }
}

fn is(json: &Json, at: &str, value: Json) -> bool {
    json.pointer(at) == Some(&value)
}

fn row<'a>(screen: &'a str, child: &str) -> &'a str {
    screen.lines().find(|line| line.starts_with(child)).unwrap_or_default()
}

fn at_a_terminal(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let mut terminal = Terminal::start(&pair.a, &[])?;
    terminal.step("wait 2 down")?;
    life::establish(pair, Side::A)?;
    terminal.step("wait 2 up")?;
    // Some packets in each direction, of some hundred octets; a rekeying changes nothing of what is shown.
    let streams = life::streams(lab)?;
    let flowing = r"match site/net4 +up +[0-9.]+k? +[1-9][0-9]? +[0-9.]+k? +[1-9][0-9]? +[0-9]+m";
    terminal.step(flowing)?;
    life::rekey_child(pair, Side::A, "net4")?;
    terminal.step(flowing)?;
    life::all_arrived(streams)?;
    let (text, coloured) = terminal.screen()?;
    let line = row(&text, "site/net4");
    ensure!(coloured && line.contains(" up ") && line.contains('m'), "{text}");
    ensure!(
        text.contains("CHILD") && text.contains("q: quit") && text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    // Another order, only what is not up, and all again.
    terminal.step("keys s")?;
    terminal.step("wait by throughput")?;
    terminal.step("keys d")?;
    terminal.step("wait only those not up: 0 of 2")?;
    terminal.step("keys d")?;
    terminal.step("wait site/net6")?;
    terminal.step("size 40 5")?;
    let (text, _) = terminal.screen()?;
    ensure!(text.lines().count() <= 5 && text.lines().all(|line| line.chars().count() <= 40), "{text}");
    terminal.step("size 100 24")?;
    // What is closed is down, with a cause.
    pair.b.swanctl(&["--terminate", "--child", "net6", "--timeout", "30"])?;
    terminal.step("wait deleted by the peer (")?;
    // The daemon goes and comes back.
    pair.a.process().terminate()?;
    terminal.step("wait daemon not reachable since")?;
    pair.a.restart()?;
    terminal.step("gone daemon not reachable since")?;
    terminal.step("wait 2 down")?;
    terminal.step("keys q")?;
    terminal.end()?;
    // Interrupted it leaves the terminal as it was, too.
    let mut terminal = Terminal::start(&pair.a, &["--color", "never", "--down", "--sort", "state"])?;
    terminal.step("wait only those not up: 2 of 2")?;
    let (_, coloured) = terminal.screen()?;
    ensure!(!coloured, "colours that nobody wants");
    terminal.step("keys \\x03")?;
    terminal.end()
}

fn in_a_pipe(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    let watched = |daemon: &Daemon<'_>, options: &[&str]| -> Result<String> {
        let arguments = [&["status", "--watch", "--interval", "0.2", "--count", "3"], options].concat();
        let output = daemon.cygnet(&arguments)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = watched(&pair.a, &[])?;
    ensure!(text.lines().count() == 6 && !text.contains('\u{1b}'), "{text}");
    for line in text.lines() {
        ensure!(
            line.get(8..).is_some_and(|line| line.starts_with(" site/net")) && line.contains(" up SAs 1 "),
            "{line}"
        );
    }
    ensure!(text.contains("in - out -") && text.contains("in 0 B/s 0 pkt/s out 0 B/s 0 pkt/s rekey in "), "{text}");
    let objects: Vec<Json> = watched(&pair.a, &["--json", "--sort", "state"])?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(objects.len() == 3 && objects.iter().all(|look| is(look, "/reachable", true.into())), "{objects:?}");
    let child = objects.last().and_then(|look| look.pointer("/children/1")).context("two children")?;
    ensure!(is(child, "/name", "site/net6".into()) && is(child, "/per-second/packets-in", 0.into()), "{child}");
    ensure!(
        child.pointer("/rekey-in/seconds").and_then(Json::as_i64).is_some_and(|seconds| seconds > 1_000),
        "{child}"
    );
    // Without a daemon it says so and waits for one.
    pair.a.process().terminate()?;
    let text = watched(&pair.a, &[])?;
    ensure!(text.lines().count() == 3 && text.lines().all(|line| line.contains(" daemon not reachable: ")), "{text}");
    let object: Json = serde_json::from_str(watched(&pair.a, &["--json"])?.lines().next().context("a line")?)?;
    ensure!(is(&object, "/reachable", false.into()) && object.get("error").is_some_and(Json::is_string), "{object}");
    pair.a.restart()
}
