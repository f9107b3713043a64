//! Completion for zsh.

use std::fmt::Write as _;

use super::shell::{placeholder, question};
use crate::commands::{COMMANDS, COMMON, CommandOption, Takes};

const HEAD: &str = r#"#compdef swanctl
# zsh completion for swanctl. Generated from the definition of its commands.
#
# Names of connections, children, pools and authorities and numbers of SAs are asked of the daemon; where it cannot be asked, none are offered.

# A command of the daemon, and a sed program that takes the names from what it says.
_swanctl_ask() {
  local -a found uri
  local place=${words[(I)--uri]}
  (( place > 0 )) && uri=(--uri ${words[place + 1]})
  found=(${(f)"$(swanctl $1 $uri 2>/dev/null | sed -n $2)"})
  compadd -a found
}

_swanctl() {
  local command= word
  for word in ${words[2,CURRENT - 1]}; do
    case $word in
"#;

pub(super) fn script() -> String {
    let mut out = HEAD.to_owned();
    for command in COMMANDS {
        let letters: String = command.letters.iter().map(|letter| format!("|-{letter}")).collect();
        let _ = writeln!(out, "      (--{}{letters}) command={}; break ;;", command.name, command.name);
    }
    out.push_str("    esac\n  done\n  case $command in\n    ('')\n      _arguments \\\n");
    for command in COMMANDS {
        let _ = writeln!(out, "        '--{}[{}]' \\", command.name, quoted(command.about));
    }
    for option in COMMON {
        spec(&mut out, option);
    }
    out.push_str("        '--help[show usage information]'\n      ;;\n");
    for command in COMMANDS {
        let _ = writeln!(out, "    ({})\n      _arguments \\\n        '--{}' \\", command.name, command.name);
        for option in command.options.iter().chain(COMMON) {
            spec(&mut out, option);
        }
        out.push_str("        '--help[show usage information]'\n      ;;\n");
    }
    out.push_str("  esac\n}\n\n_swanctl \"$@\"\n");
    out
}

/// A long and a short option with their description, and what the value can be.
fn spec(out: &mut String, option: &CommandOption) {
    let about = quoted(option.about);
    let value = match (option.takes, question(option.takes)) {
        (Takes::Nothing, _) => String::new(),
        (takes, Some(question)) => {
            let sed = question.sed.replace(':', "\\:").replace('\'', "'\\''");
            format!(":{}:{{ _swanctl_ask {} \"{}\" }}", placeholder(takes), question.command, sed.replace('\\', "\\\\"))
        }
        (Takes::File, None) => ":file:_files".to_owned(),
        (Takes::Words(words), None) => format!(":{}:({})", placeholder(option.takes), words.join(" ")),
        (takes, None) => format!(":{}: ", placeholder(takes)),
    };
    let _ = writeln!(
        out,
        "        '(-{letter} --{name})'{{-{letter},--{name}}}'[{about}]{value}' \\",
        letter = option.letter,
        name = option.name
    );
}

/// Text within single quotes and brackets.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]")
}
