//! Help texts.

use std::fmt::Write as _;

use crate::commands::{COMMANDS, COMMON, Command};

/// It is a client like others.
const ANY_DAEMON: &str = "\
\nswanctl speaks VICI, with cygnetd or with any other daemon that does, strongSwan's charon among them: --uri says where it listens
(unix:///run/charon.vici unless given; also tcp://host:port). `swanctl --COMMAND --help` shows a command's options. Exit code 0 means
success, 22 that something could not be loaded, 1 another failure or a mistake on the command line, others are error numbers of the system.
";

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
            out.push_str(ANY_DAEMON);
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
