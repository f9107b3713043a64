//! Manual pages and completions, from the definition of the commands. They are files of the repository, which a test holds against what is made
//! here; `UPDATE_DOCS=1 cargo test -p swanctl-compat documents` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test ends where an expectation fails")]

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Arguments;

/// Files below `docs`.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut root = Arguments::command().version(env!("CARGO_PKG_VERSION"));
    root.build();
    let mut out = Vec::new();
    pages(&root, "cygnet", &mut out);
    let shells = [
        (Shell::Bash, "completions/bash/cygnet"),
        (Shell::Zsh, "completions/zsh/_cygnet"),
        (Shell::Fish, "completions/fish/cygnet.fish"),
    ];
    for (shell, name) in shells {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "cygnet", &mut script);
        out.push((name.to_owned(), script));
    }
    out
}

/// A page for a command and for each below it.
fn pages(command: &clap::Command, name: &str, out: &mut Vec<(String, Vec<u8>)>) {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).section("8").manual("Cygnet");
    man.source(concat!("Cygnet ", env!("CARGO_PKG_VERSION"))).date(" ").render(&mut page).unwrap();
    out.push((format!("man/{name}.8"), page));
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages(below, &format!("{name}-{}", below.get_name()), out);
    }
}

#[test]
fn documents_are_up_to_date() {
    for (name, text) in files() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(&name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        assert!(written == text, "{name} is not up to date: UPDATE_DOCS=1 cargo test -p swanctl-compat documents");
    }
}
