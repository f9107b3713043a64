//! Help texts.

use std::fmt::Write as _;

use crate::commands::{COMMANDS, COMMON, Command};

/// Help for one command, or the list of commands.
pub(crate) fn text(command: Option<&Command>) -> String {
    let mut out = format!("Cygnet {} swanctl\nusage:\n", env!("CARGO_PKG_VERSION"));
    match command {
        Some(command) => options(command, &mut out),
        None => {
            for command in COMMANDS {
                list(command.name, command.letters, command.about, &mut out);
            }
            list("help", &['h'], "show usage information", &mut out);
        }
    }
    out
}

fn list(name: &str, letters: &[char], about: &str, out: &mut String) {
    let letter = letters.first().copied().unwrap_or(' ');
    let _ = writeln!(out, "  swanctl --{name:<16} (-{letter})  {about}");
}

fn options(command: &Command, out: &mut String) {
    for (index, line) in command.usage.iter().enumerate() {
        if index == 0 {
            let _ = writeln!(out, "  swanctl --{} {line}", command.name);
        } else {
            let _ = writeln!(out, "                 {line}");
        }
    }
    let mut one = |name: &str, letter: char, about: &str| {
        let _ = writeln!(out, "           --{name:<15} (-{letter})  {about}");
    };
    one("help", 'h', "show usage information");
    for option in command.options.iter().chain(COMMON) {
        one(option.name, option.letter, option.about);
    }
}
