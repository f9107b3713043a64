//! The VICI client from PyPI drives our daemon: a second client that nobody here wrote.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::topology::Middle;
use libtest_mimic::Trial;

use crate::harness::{Ported, trial, with_pair};
use crate::peers;

/// What the client does; ends with an assertion error where something is wrong.
const SCRIPT: &str = include_str!("session.py");

/// The same of all that its class can do, with others at work meanwhile.
const EVERY_METHOD: &str = include_str!("every_method.py");

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("python_vici::whole_session", whole_session),
        trial("python_vici::every_method_while_others_work_and_listen", every_method),
    ]
}

fn every_method() -> Result<()> {
    let [_, theirs] = peers::ours()?;
    with_pair(
        &Middle::Direct,
        [&Ported { more: "" }, theirs],
        |_, tunnel| tunnel,
        |lab, pair| {
            let mut python = Command::new(interpreter()?);
            python.args(["-c", EVERY_METHOD]).arg(pair.a.socket()).arg(Ported::PORT.to_string());
            // Its port is one of the gateway.
            let output = lab.a.gateway.run(|| python.output())??;
            let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success() && text.contains("all methods done"), "{text}{errors}");
            print!("{text}");
            Ok(())
        },
    )
}

fn whole_session() -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::ours()?,
        |_, tunnel| tunnel,
        |_, pair| {
            let output = Command::new(interpreter()?).args(["-c", SCRIPT]).arg(pair.a.socket()).output()?;
            let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success() && text.contains("all steps done"), "{text}{errors}");
            Ok(())
        },
    )
}

/// The environment that `cargo xtask setup` makes below the target directory.
pub(crate) fn interpreter() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().map(|directory| directory.join("peers/bin/python")).find(|path| path.exists());
    found.context("the Python client is missing: run `cargo xtask setup`")
}
