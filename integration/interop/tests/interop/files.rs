//! Broken and doubtful configuration files: found with their position, refused as a whole, and a running daemon keeps its SAs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::conf::{self, Tunnel};
use lab::peer::{Client, binary};
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{trial, with_pair};
use crate::{life, peers};

/// A way to break the lab's ordinary file: what is replaced, by what, and where the error must be shown (a piece of that line).
struct Broken {
    name: &'static str,
    replace: &'static str,
    by: &'static str,
    at: &'static str,
}

const BROKEN: [Broken; 8] = [
    Broken { name: "unterminated_quote", replace: "lab-only\"", by: "lab-only", at: "lab-only" },
    Broken { name: "unknown_key", replace: "version = 2", by: "verzion = 2", at: "verzion" },
    Broken { name: "bad_unit", replace: "version = 2", by: "rekey_time = 4parsecs", at: "4parsecs" },
    Broken {
        name: "bad_proposal_word",
        replace: "aes128gcm16-prfsha256-x25519",
        by: "aes128gcm16-prfsha256-x25591",
        at: "x25591",
    },
    Broken {
        name: "duplicate_child",
        replace: "    children {",
        by: "    children {\n      net4 {\n        local_ts = 10.8.0.0/24\n      }",
        at: "net4 {",
    },
    Broken {
        name: "bad_selector",
        replace: "remote_ts = 10.2.0.0/24",
        by: "remote_ts = 10.2.0.0/33",
        at: "10.2.0.0/33",
    },
    Broken {
        name: "bad_address",
        replace: "remote_addrs = 192.0.2.2",
        by: "remote_addrs = 192.0.2.2.2/40",
        at: "192.0.2.2.2/40",
    },
    Broken { name: "stray_brace", replace: "secrets {", by: "}\nsecrets {", at: "}" },
];

/// What gives nothing to include is told of, and the rest is read: as strongSwan does it.
const INCLUDES: [Broken; 2] = [
    Broken {
        name: "include_loop",
        replace: "connections {",
        by: "include swanctl.conf\nconnections {",
        at: "include swanctl.conf",
    },
    Broken {
        name: "missing_include_target",
        replace: "connections {",
        by: "include no-such-file.conf\nconnections {",
        at: "no-such-file",
    },
];

impl Broken {
    /// The broken text, and the lines (from 1) at one of which the error must be shown.
    fn apply(&self, text: &str) -> Result<(String, Vec<usize>)> {
        ensure!(text.contains(self.replace), "{}: nothing to replace", self.name);
        let broken = text.replacen(self.replace, self.by, 1);
        let lines =
            broken.lines().enumerate().filter(|(_, line)| line.contains(self.at)).map(|(index, _)| index + 1).collect();
        Ok((broken, lines))
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = BROKEN
        .iter()
        .map(|broken| trial(format!("files::check_refuses::{}", broken.name), move || check_ends(broken, 2)))
        .collect();
    trials.extend(
        INCLUDES.iter().map(|odd| trial(format!("files::check_warns::{}", odd.name), move || check_ends(odd, 1))),
    );
    trials.push(trial("files::the_readme_example_is_good", the_readme_example_is_good));
    trials.push(trial("files::a_running_daemon_is_untouched", a_running_daemon_is_untouched));
    trials.push(trial("files::doubtful_ones_are_warnings", doubtful_ones_are_warnings));
    trials
}

/// `cygnetd --check` on a `swanctl.conf`.
fn check(directory: &Path, text: &str) -> Result<Output> {
    std::fs::create_dir_all(directory)?;
    let file = directory.join("swanctl.conf");
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let settings = directory.join("cygnetd.toml");
    std::fs::write(&settings, "")?;
    Ok(Command::new(binary("cygnetd")?)
        .arg("--check")
        .arg("--config")
        .arg(&settings)
        .arg("--swanctl")
        .arg(directory)
        .output()?)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn shows_position(said: &str, lines: &[usize]) -> bool {
    lines.iter().any(|line| said.contains(&format!("swanctl.conf:{line}:")))
}

fn check_ends(broken: &Broken, code: i32) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let text = conf::render(&[Tunnel::between(&lab, Side::A, Family::V4)]);
    let good = check(&lab.directory().join("good"), &text)?;
    ensure!(good.status.code() == Some(0), "the unbroken file is refused:\n{}", words(&good));
    let (text, lines) = broken.apply(&text)?;
    let output = check(&lab.directory().join("broken"), &text)?;
    let said = words(&output);
    ensure!(output.status.code() == Some(code), "ended with {}:\n{said}", output.status);
    ensure!(shows_position(&said, &lines), "no position in lines {lines:?}:\n{said}");
    ensure!(said.contains("help:") || said.contains("expected "), "nothing says what to do:\n{said}");
    Ok(())
}

/// The first block of the README that configures connections passes without a warning.
fn the_readme_example_is_good() -> Result<()> {
    let blocks = include_str!("../../../../README.md").split("```text\n");
    let example = blocks.filter_map(|block| block.split("```").next()).find(|block| block.starts_with("connections {"));
    let example = example.context("the README shows no swanctl.conf")?;
    ensure!(example.lines().count() <= 20, "{} lines", example.lines().count());
    let lab = Lab::new(&Middle::Direct)?;
    let output = check(&lab.directory().join("readme"), example)?;
    ensure!(output.status.code() == Some(0), "{}", words(&output));
    Ok(())
}

fn a_running_daemon_is_untouched() -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::ours()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            life::establish(pair, Side::A)?;
            let before = life::installed(pair, Side::A, "net4")?.spi_in;
            let text = conf::render(&[Tunnel::between(lab, Side::A, Family::V4)]);
            for broken in &BROKEN {
                let (text, lines) = broken.apply(&text)?;
                std::fs::write(pair.a.directory().join("swanctl/swanctl.conf"), text)?;
                let output = pair.a.swanctl_output(Client::Cygnet, &["--load-all", "--noprompt"])?;
                let said = words(&output);
                ensure!(!output.status.success(), "{}: loaded:\n{said}", broken.name);
                ensure!(shows_position(&said, &lines), "{}: no position in lines {lines:?}:\n{said}", broken.name);
            }
            std::thread::sleep(Duration::from_millis(300));
            ensure!(life::installed(pair, Side::A, "net4")?.spi_in == before, "an SA was touched");
            let connections = pair.a.swanctl(&["--list-conns"])?;
            ensure!(connections.contains("10.2.0.0/24") && !connections.contains("10.8.0.0/24"), "{connections}");
            Ok(())
        },
    )
}

fn doubtful_ones_are_warnings() -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::ours()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            let tunnel = Tunnel::between(lab, Side::A, Family::V4);
            // No pre-shared key for the pair.
            let text = conf::render(std::slice::from_ref(&tunnel))
                .replace("id-1 = gw-a.example", "id-1 = gw-x.example")
                .replace("id-2 = gw-b.example", "id-2 = gw-y.example");
            let output = check(&lab.directory().join("no-key"), &text)?;
            ensure!(output.status.code() == Some(1), "no key: ended with {}:\n{}", output.status, words(&output));
            ensure!(
                words(&output).contains("swanctl.conf:") && words(&output).contains("gw-b.example"),
                "{}",
                words(&output)
            );
            // Overlapping selectors of two connections.
            let mut second = tunnel.clone();
            second.name = "second".into();
            second.remote = "192.0.2.99".into();
            second.remote_id = "gw-d.example".into();
            let child = second.children.first_mut().context("a child")?;
            child.remote_ts = "10.2.0.0/16".into();
            second.children.truncate(1);
            let output = check(&lab.directory().join("overlap"), &conf::render(&[tunnel, second]))?;
            ensure!(output.status.code() == Some(1), "overlap: ended with {}:\n{}", output.status, words(&output));
            ensure!(words(&output).contains("swanctl.conf:"), "{}", words(&output));
            // The doubt turns out right: the initiation fails and names the pair.
            std::fs::write(pair.a.directory().join("swanctl/swanctl.conf"), text)?;
            pair.a.load()?;
            let output = pair.a.swanctl_output(Client::Cygnet, &["--initiate", "--child", "net4", "--timeout", "5"])?;
            let said = words(&output);
            ensure!(!output.status.success(), "initiated without a key");
            ensure!(said.contains("gw-a.example") && said.contains("gw-b.example"), "the pair is not named:\n{said}");
            Ok(())
        },
    )
}
