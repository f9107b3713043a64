//! Manual pages and completions, from the definition of the command line and from the example of the settings. They are files of the repository,
//! which a test holds against what is made here; `UPDATE_DOCS=1 cargo test -p cygnetd documents` writes them anew.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use super::Arguments;

const SOURCE: &str = concat!("Cygnet ", env!("CARGO_PKG_VERSION"));

/// Files below `docs`.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(Arguments::command()).section("8").manual("Cygnet").source(SOURCE).date(" ");
    man.render(&mut page).unwrap();
    let mut out = vec![("man/cygnetd.8", page), ("man/cygnetd.toml.5", settings().into_bytes())];
    let shells = [
        (Shell::Bash, "completions/bash/cygnetd"),
        (Shell::Zsh, "completions/zsh/_cygnetd"),
        (Shell::Fish, "completions/fish/cygnetd.fish"),
    ];
    for (shell, name) in shells {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "cygnetd", &mut script);
        out.push((name, script));
    }
    out
}

/// Every setting with its default: the example, which another test holds against the table of keys.
fn settings() -> String {
    const EXAMPLE: &str = include_str!("../cygnetd.example.toml");
    let mut page = Roff::new();
    page.control("TH", ["CYGNETD.TOML", "5", " ", SOURCE, "Cygnet"]);
    page.control("SH", ["NAME"]);
    page.text([roman("cygnetd.toml - settings of the key exchange daemon cygnetd")]);
    page.control("SH", ["SETTINGS"]);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        let line = if line.is_empty() { " " } else { line };
        page.text([if line.starts_with('[') { bold(line) } else { roman(line) }]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("cygnetd"), roman("(8), "), bold("swanctl"), roman("(8)")]);
    page.to_roff()
}

#[test]
fn documents_are_up_to_date() {
    for (name, text) in files() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        assert!(written == text, "{name} is not up to date: UPDATE_DOCS=1 cargo test -p cygnetd documents");
    }
}
