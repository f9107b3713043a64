//! The VICI client from PyPI drives our daemon: a second client that nobody here wrote.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::topology::Middle;
use libtest_mimic::Trial;

use crate::harness::{trial, with_pair};
use crate::peers;

/// What the client does; ends with an assertion error where something is wrong.
const SCRIPT: &str = include_str!("session.py");

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("python_vici::whole_session", whole_session)]
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
