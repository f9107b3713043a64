//! Completion for fish.

use std::fmt::Write as _;

use super::shell::question;
use crate::commands::{COMMANDS, COMMON, CommandOption, Takes};

const HEAD: &str = r#"# fish completion for swanctl. Generated from the definition of its commands.
#
# Names of connections, children, pools and authorities and numbers of SAs are asked of the daemon; where it cannot be asked, none are offered.

# A command of the daemon, and a sed program that takes the names from what it says.
function __swanctl_ask
    set -l words (commandline -opc)
    set -l uri
    if set -l place (contains -i -- --uri $words)
        set uri --uri $words[(math $place + 1)]
    end
    swanctl $argv[1] $uri 2>/dev/null | sed -n $argv[2]
end

function __swanctl_command
    for word in (commandline -opc)[2..-1]
        switch $word
"#;

pub(super) fn script() -> String {
    let mut out = HEAD.to_owned();
    for command in COMMANDS {
        let letters: String = command.letters.iter().map(|letter| format!(" -{letter}")).collect();
        let _ = writeln!(
            out,
            "            case --{}{letters}\n                echo {}\n                return",
            command.name, command.name
        );
    }
    out.push_str("        end\n    end\n    echo none\nend\n\ncomplete -c swanctl -f\n");
    for command in COMMANDS {
        let _ = writeln!(
            out,
            "complete -c swanctl -n 'test (__swanctl_command) = none' -l {} -d {}",
            command.name,
            quoted(command.about)
        );
    }
    for option in COMMON {
        complete(&mut out, None, option);
    }
    for command in COMMANDS {
        for option in command.options {
            complete(&mut out, Some(command.name), option);
        }
    }
    out
}

fn complete(out: &mut String, command: Option<&str>, option: &CommandOption) {
    let when = command.map(|command| format!(" -n 'test (__swanctl_command) = {command}'")).unwrap_or_default();
    let value = match (option.takes, question(option.takes)) {
        (Takes::Nothing, _) => String::new(),
        (_, Some(question)) => {
            let ask = format!("(__swanctl_ask {} {})", question.command, quoted(question.sed));
            format!(" -x -a {}", quoted(&ask))
        }
        (Takes::File, None) => " -r -F".to_owned(),
        (Takes::Words(words), None) => format!(" -x -a {}", quoted(&words.join(" "))),
        _ => " -x".to_owned(),
    };
    let _ = writeln!(
        out,
        "complete -c swanctl{when} -l {} -s {}{value} -d {}",
        option.name,
        option.letter,
        quoted(option.about)
    );
}

/// A single-quoted word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
