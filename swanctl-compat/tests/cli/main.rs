//! The programs `swanctl` and `cygnet` as a shell sees them, against a daemon that answers from a table.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an expectation fails")]

mod commands;
mod daemon;
mod dry_run;
mod following;
mod load;
mod passwords;
mod pipes;
mod views;
mod webhook;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;

use daemon::Daemon;
use swanctl_compat::vici::Message;

fn swanctl(daemon: &Daemon, arguments: &[&str]) -> Output {
    FILE_MODES.call_once(set_file_modes);
    let mut command = Command::new(env!("CARGO_BIN_EXE_swanctl"));
    command.args(arguments).arg("--uri").arg(daemon.uri());
    command.output().unwrap()
}

static FILE_MODES: Once = Once::new();

/// Git keeps no read permissions: makes every file private, since a secret that everybody can read is warned of.
fn set_file_modes() {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

/// `cygnet`, asking `daemon`.
fn cygnet(daemon: &Daemon, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cygnet")).arg("--uri").arg(daemon.uri()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn list(key: &str, items: &[&str]) -> Message {
    let mut message = Message::new();
    message.list(key, items.iter().copied());
    message
}
