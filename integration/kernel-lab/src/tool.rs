//! Other programs, run to their end; a missing one is told with the package that has it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Programs that are used and the Debian package of each.
const PACKAGES: [(&str, &str); 10] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg", "dpkg"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("make", "make"),
    ("readelf", "binutils"),
    ("strip", "binutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("tshark", "tshark"),
];

/// Runs a command and returns what it printed.
///
/// # Errors
/// It is missing, or ended with an error; the error carries its words.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| explain(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).trim().to_owned());
    bail!("`{}` ended with {}: {}", line(command), output.status, said.join("\n").trim());
}

/// What a missing program or another failure to start means.
pub(crate) fn explain(command: &Command, error: &std::io::Error) -> anyhow::Error {
    let name = command.get_program().to_string_lossy().into_owned();
    let known = PACKAGES.iter().find(|(program, _)| *program == name);
    match (error.kind(), known) {
        (ErrorKind::NotFound, Some((_, package))) => {
            anyhow::anyhow!("`{name}` is missing: install the package {package}, or run `cargo xtask setup`")
        }
        _ => anyhow::anyhow!("cannot run `{name}`: {error}"),
    }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The files of a folder and of those in it, sorted; what is no file is passed over.
///
/// # Errors
/// A folder could not be read.
pub(crate) fn files_below(folder: &std::path::Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
