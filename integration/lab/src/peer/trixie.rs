//! Debian 13's strongSwan on a machine that has another: `cargo xtask setup` has unpacked it, with the C library it wants, below the target
//! directory.
//!
//! Its own dynamic loader finds its libraries. Its plugins it looks for where they would be installed; so each program gets a mount namespace of
//! its own, in which they are.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Where strongSwan's libraries and plugins are in every Debian.
const PLUGINS: &str = "/usr/lib/ipsec";

/// Every step replaces the one before: the process id that was started is the program's.
const SCRIPT: &str = "mount --bind \"$1\" \"$2\"; export OPENSSL_MODULES=\"$3/ossl-modules\"; libraries=\"$3:$2\"; shift 3; \
                      loader=\"$1\"; shift; exec \"$loader\" --library-path \"$libraries\" \"$@\"";

/// The line that starts one of its programs.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What is started.
    pub(super) program: PathBuf,
    /// What comes before the program's own arguments.
    pub(super) arguments: Vec<OsString>,
}

/// How a program of `/usr/sbin` is started.
///
/// # Errors
/// It has not been unpacked.
pub(super) fn line(name: &str) -> anyhow::Result<Line> {
    let root = root()?;
    let program = root.join("usr/sbin").join(name);
    ensure!(program.exists(), "{} is missing: run `cargo xtask setup`", program.display());
    let libraries = entry(&root.join("usr/lib"), |name| name.contains("-linux-gnu"))?;
    let loader = entry(&libraries, |name| name.starts_with("ld-linux"))?;
    let plugins = root.join(PLUGINS.trim_start_matches('/'));
    let mut arguments: Vec<OsString> = ["--mount", "--propagation", "private", "--"].map(Into::into).to_vec();
    arguments.extend(["sh", "-ec", SCRIPT, "sh"].map(Into::into));
    arguments.extend([plugins.into_os_string(), PLUGINS.into()]);
    arguments.extend([libraries, loader, program].map(PathBuf::into_os_string));
    Ok(Line { program: "unshare".into(), arguments })
}

/// The same as a command, for what is run to its end.
///
/// # Errors
/// It has not been unpacked.
pub fn command(name: &str) -> anyhow::Result<Command> {
    let Line { program, arguments } = line(name)?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Where it was unpacked: beside what the tests were built into.
fn root() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found =
        own.ancestors().map(|directory| directory.join("peers/trixie")).find(|path| path.join("stamp").exists());
    found.context("Debian 13's strongSwan is missing: run `cargo xtask setup`")
}

/// The entry of a directory whose name fits; how it is called depends on the machine's architecture.
fn entry(directory: &Path, fits: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&fits) {
            return Ok(path);
        }
    }
    anyhow::bail!("{} lacks what the C library brings: remove it and run `cargo xtask setup`", directory.display())
}
