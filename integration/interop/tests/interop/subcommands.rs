//! Every subcommand of Debian 12's `swanctl` 5.9.8 and of Debian 13's 6.0.1, with every option that its own help names, against a Cygnet that has a
//! tunnel. Exit codes and words are judged; what `--pretty` prints must be what `--raw` does.

mod table;

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use lab::peer::Client;
use lab::peer::cygnet::Cygnet;
use lab::peer::sas::IkeSa;
use lab::process::wait_until_idle;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::debian::CLIENTS;
use crate::harness::{Pair, SOON, trial, with_pair};
use crate::loglines::{TELLS_LISTENERS, interrupt, listened};
use crate::{life, peers};
use table::{CONTROL, COUNTERS, FILES, LISTINGS, MORE, Step};

type Test = fn(Client, &mut Pair<'_>) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 6] = [
        ("is_known_here_with_every_option", is_known_here),
        ("listings", listings),
        ("control", control),
        ("counters", counters),
        ("files", files),
        ("watching", watching),
    ];
    let run = |client, test: Test| {
        move || {
            let ours = Cygnet { extra: String::new(), log: TELLS_LISTENERS.into() };
            with_pair(
                &Middle::Direct,
                [&ours, peers::ours()?[1]],
                |_, tunnel| tunnel,
                |lab, pair| with_more(lab, pair, client, test),
            )
        }
    };
    let of = |(version, client)| {
        tests.map(|(name, test)| trial(format!("every_subcommand_{version}::{name}"), run(client, test)))
    };
    CLIENTS.into_iter().flat_map(of).collect()
}

/// Runs a test with policies of all kinds beside the tunnel.
fn with_more(_: &Lab, pair: &mut Pair<'_>, client: Client, test: Test) -> Result<()> {
    let path = pair.a.directory().join("swanctl/swanctl.conf");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text + MORE)?;
    pair.a.load()?;
    test(client, pair)
}

/// A subcommand or an option as a help text names it: `  swanctl --list-sas         (-l)  ...`, `           --ike             (-i)  ...`.
fn named(help: &str) -> BTreeSet<String> {
    let described = help.lines().filter(|line| line.contains(" (-"));
    described.filter_map(|line| line.split("--").nth(1)?.split_whitespace().next().map(str::to_owned)).collect()
}

/// The program's own help names nothing that the table lacks.
fn is_known_here(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    let general = text(&pair.a.swanctl_output(client, &["--help"])?);
    let mut subcommands = named(&general);
    ensure!(subcommands.remove("help") && subcommands.len() >= 25, "{subcommands:?} in:\n{general}");
    let tables = [LISTINGS, CONTROL, COUNTERS, FILES];
    let mut lines: Vec<Vec<&str>> =
        tables.iter().copied().flatten().map(|step| step.line.split_whitespace().collect()).collect();
    lines.extend(WATCHED.iter().map(|line| line.to_vec()));
    for subcommand in subcommands {
        let name = format!("--{subcommand}");
        let used: BTreeSet<&str> = lines
            .iter()
            .filter(|line| line.first() == Some(&name.as_str()))
            .flat_map(|line| line.iter().skip(1).copied())
            .collect();
        ensure!(lines.iter().any(|line| line.first() == Some(&name.as_str())), "{name} is in no table");
        let help = pair.a.swanctl_output(client, &[&name, "--help"])?;
        ensure!(help.status.success(), "{name} --help: {}", text(&help));
        for option in named(&text(&help)) {
            // Every call here has the first; the last two do what they do whatever the subcommand is.
            let common = ["uri", "help", "debug", "options"].contains(&option.as_str());
            let known = common || used.contains(format!("--{option}").as_str()) || is_pretty_of_raw(&used, &option);
            ensure!(known, "{name} --{option} is in no table");
        }
    }
    Ok(())
}

/// What is listed raw is also listed pretty.
fn is_pretty_of_raw(used: &BTreeSet<&str>, option: &str) -> bool {
    option == "pretty" && used.contains("--raw")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run(client: Client, pair: &Pair<'_>, step: &Step) -> Result<()> {
    let file = pair.a.directory().join("options");
    std::fs::write(&file, "--raw\n")?;
    let paths = [("@OPTIONS@", file), ("@CONF@", pair.a.directory().join("swanctl/swanctl.conf"))];
    let line =
        paths.iter().fold(step.line.to_owned(), |line, (mark, path)| line.replace(mark, &path.display().to_string()));
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = pair.a.swanctl_output(client, &words)?;
    judge(step, &output).with_context(|| format!("{line}: {}\n{}", output.status, text(&output)))?;
    if step.repeats && words.contains(&"--raw") {
        let pretty: Vec<&str> = words.iter().map(|word| if *word == "--raw" { "--pretty" } else { *word }).collect();
        let pretty = pair.a.swanctl_output(client, &pretty)?;
        let (raw, pretty) =
            (masked(&String::from_utf8_lossy(&output.stdout)), flat(&String::from_utf8_lossy(&pretty.stdout)));
        ensure!(raw.trim_end() == masked(&pretty), "{line}: raw and pretty differ:\n{raw}\n{pretty}");
    }
    Ok(())
}

fn judge(step: &Step, output: &Output) -> Result<()> {
    ensure!(output.status.code() == Some(step.code), "ended with {} instead of {}", output.status, step.code);
    let stream = if step.code == 0 { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(stream);
    if step.words.is_empty() {
        ensure!(said.is_empty(), "it says something");
    }
    for word in step.words {
        match word.strip_prefix('!') {
            Some(word) => ensure!(!said.contains(word), "{word:?} is there"),
            None => ensure!(said.contains(word), "no {word:?}"),
        }
    }
    Ok(())
}

/// Numbers that may change between two calls made equal, and what they count.
fn masked(text: &str) -> String {
    let text = text.replace("1 second since", "1 seconds since");
    let mut out = String::new();
    for letter in text.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !out.ends_with('#') {
            out.push(letter);
        }
    }
    out
}

/// The pretty form in the shape of the raw one: a line for each message.
fn flat(pretty: &str) -> String {
    let mut out = String::new();
    for line in pretty.lines() {
        let (indented, line) = (line.starts_with(' '), line.trim_start().replacen(" = ", "=", 1));
        let closes = line == "}" || line == "]";
        if !out.is_empty() && !closes && !out.ends_with(['{', '[', '\n']) {
            out.push(' ');
        }
        out.push_str(&line);
        if !indented && line.ends_with('}') {
            out.push('\n');
        }
    }
    out.trim_end().to_owned()
}

fn all(client: Client, pair: &Pair<'_>, steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| run(client, pair, step))
}

fn listings(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    pair.a.swanctl(&["--install", "--child", "later"])?;
    all(client, pair, LISTINGS)
}

fn control(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    for step in CONTROL {
        let before = identities(&pair.a.sas()?);
        run(client, pair, step)?;
        if step.line.starts_with("--rekey") && step.code == 0 {
            rekeyed(pair, &before)?;
        }
    }
    pair.a.wait_for("no SA", SOON, <[_]>::is_empty).map(drop)
}

/// What tells IKE SAs and CHILD SAs in use apart.
fn identities(sas: &[IkeSa]) -> BTreeSet<String> {
    let children = sas.iter().flat_map(|sa| &sa.children).filter(|child| child.state == "INSTALLED");
    let ikes = sas.iter().map(|sa| format!("{} {}", sa.spis.0, sa.spis.1));
    ikes.chain(children.map(|child| child.spi_in.clone())).collect()
}

/// A rekey is told to have worked when it has begun: waits until something else is in use than before and nothing is under way.
fn rekeyed(pair: &Pair<'_>, before: &BTreeSet<String>) -> Result<()> {
    let is_quiet = |sa: &IkeSa| {
        let settled = ["INSTALLED", "REKEYED", "DELETED"];
        sa.state == "ESTABLISHED" && sa.children.iter().all(|child| settled.contains(&child.state.as_str()))
    };
    let is_over = |sas: &[IkeSa]| sas.len() < 2 && sas.iter().all(is_quiet);
    pair.a.wait_for("rekeyed, and nothing is under way", SOON, |sas| is_over(sas) && identities(sas) != *before)?;
    pair.b.wait_for("nothing is under way", SOON, is_over).map(drop)
}

fn counters(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    all(client, pair, COUNTERS)
}

fn files(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    let before = pair.a.sas()?;
    all(client, pair, FILES)?;
    let spis = |sas: &[lab::peer::sas::IkeSa]| -> Vec<String> {
        sas.iter().flat_map(|sa| &sa.children).map(|child| child.spi_in.clone()).collect()
    };
    ensure!(spis(&before) == spis(&pair.a.sas()?), "an SA was touched by files that did not change");
    // What nobody can load is refused with its place, and what is beside it is loaded.
    let path = pair.a.directory().join("swanctl/swanctl.conf");
    let good = std::fs::read_to_string(&path)?;
    std::fs::write(&path, good + "connections {\n  broken {\n    ipcomp = yes\n  }\n}\n")?;
    run(
        client,
        pair,
        &Step::fails(
            "--load-conns",
            22,
            &[
                "loading connection 'broken' failed: unknown option: ipcomp",
                "2 of 3 connections, 1 failed to load, 0 unloaded",
            ],
        ),
    )
}

/// What goes on until it is interrupted.
const WATCHED: [&[&str]; 6] = [
    &["--monitor-sa"],
    &["--monitor-sa", "--raw"],
    &["--monitor-sa", "--pretty"],
    &["--log"],
    &["--log", "--raw"],
    &["--log", "--pretty"],
];

fn watching(client: Client, pair: &mut Pair<'_>) -> Result<()> {
    let start = |line: &&[&str]| -> Result<Child> {
        let mut command: Command = pair.a.swanctl_command(client, line)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let watchers = WATCHED.iter().map(start).collect::<Result<Vec<_>>>()?;
    // SAs are two events, and the log is one.
    listened(pair, 9)?;
    life::establish_all(pair, Side::A, &["net4"])?;
    life::rekey_child(pair, Side::A, "net4")?;
    pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    // What they are told they have to read, and Debian's keep it to themselves until they end.
    let mut ids: Vec<u32> = watchers.iter().map(Child::id).collect();
    ids.push(pair.a.process().id());
    wait_until_idle(&ids, SOON)?;
    for (line, watcher) in WATCHED.iter().zip(watchers) {
        let output = interrupt(watcher)?;
        watched(line, &output).with_context(|| format!("{}: {}\n{}", line.join(" "), output.status, text(&output)))?;
    }
    Ok(())
}

/// What each of them must have seen: the tunnel up, and down again.
fn watched(line: &[&str], output: &Output) -> Result<()> {
    ensure!(output.status.success(), "it did not end well");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected: &[&str] = match line {
        ["--monitor-sa"] => {
            &["site: #", "ESTABLISHED, IKEv2", "net4: #", "INSTALLED, TUNNEL", "    local  10.1.0.0/24"]
        }
        ["--monitor-sa", "--raw"] => &[
            "ike-updown event {up=yes site {uniqueid=",
            "child-updown event {up=yes site {",
            "ike-updown event {site {",
            "child-updown event {site {",
        ],
        ["--monitor-sa", ..] => {
            &["ike-updown event {\n  up = yes\n  site {\n    uniqueid = ", "child-updown event {\n  site {\n"]
        }
        ["--log"] => &["[IKE] "],
        ["--log", "--raw"] => &["log {group=IKE level=", " thread=", " ikesa-name=site ikesa-uniqueid=", " msg="],
        _ => &["log {\n  group = IKE\n  level = ", "\n  ikesa-name = site\n"],
    };
    for words in expected {
        ensure!(said.contains(words), "no {words:?}");
    }
    if line.first() == Some(&"--log") {
        ensure!(said.matches("IKE").count() >= 4, "less than a line for each of up, up, rekeyed and down");
    }
    Ok(())
}
