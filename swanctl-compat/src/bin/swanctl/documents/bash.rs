//! Completion for bash.

use std::fmt::Write as _;

use super::shell::question;
use crate::commands::{COMMANDS, COMMON, CommandOption, Takes};

const HEAD: &str = r#"# bash completion for swanctl. Generated from the definition of its commands.
#
# Names of connections, children, pools and authorities and numbers of SAs are asked of the daemon; where it cannot be asked, none are offered.

# What the daemon says: a command, and a sed program that takes the names from it. --uri is that of the command line.
_swanctl_ask() {
  local i uri=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${COMP_WORDS[i]}" in
    --uri | -u) [[ $((i + 1)) -lt $COMP_CWORD && ${COMP_WORDS[i + 1]} == *[:=/]* ]] && uri=(--uri "$(_swanctl_uri $((i + 1)))") ;;
    esac
  done
  swanctl "$1" ${uri[@]+"${uri[@]}"} 2>/dev/null | sed -n "$2"
}

# Readline takes a colon for the end of a word; the pieces of a URI are put together again.
_swanctl_uri() {
  local i text=
  for ((i = $1; i < COMP_CWORD; i++)); do
    case "${COMP_WORDS[i]}" in
    -*) break ;;
    *) text+=${COMP_WORDS[i]} ;;
    esac
    [[ ${COMP_WORDS[i + 1]-} == :* || ${COMP_WORDS[i]} == : ]] || break
  done
  printf '%s' "$text"
}

_swanctl_offer() {
  local IFS=$'\n'
  COMPREPLY=($(compgen -W "$1" -- "${COMP_WORDS[COMP_CWORD]}"))
}

_swanctl() {
  COMPREPLY=()
  local word previous= command= i
  word=${COMP_WORDS[COMP_CWORD]}
  [[ $COMP_CWORD -gt 0 ]] && previous=${COMP_WORDS[COMP_CWORD - 1]}
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${COMP_WORDS[i]}" in
"#;

pub(super) fn script() -> String {
    let mut out = HEAD.to_owned();
    for command in COMMANDS {
        let letters: String = command.letters.iter().map(|letter| format!(" | -{letter}")).collect();
        let _ = writeln!(out, "    --{}{letters}) command={} ;;", command.name, command.name);
    }
    out.push_str("    --uri | -u | --debug) continue ;;\n    *) continue ;;\n    esac\n    break\n  done\n");
    // A command's letter is none of its options.
    out.push_str("  [[ -n $command && $i -eq $((COMP_CWORD - 1)) ]] && previous=\n");
    out.push_str("  case \"$command:$previous\" in\n");
    for option in COMMON {
        values(&mut out, "*", option);
    }
    for command in COMMANDS {
        for option in command.options {
            values(&mut out, command.name, option);
        }
    }
    out.push_str("  esac\n  case \"$command\" in\n");
    let common = names(COMMON);
    let commands: Vec<String> = COMMANDS.iter().map(|command| format!("--{}", command.name)).collect();
    let _ = writeln!(out, "  '') _swanctl_offer $'{}\\n--uri\\n--debug\\n--help' ;;", commands.join("\\n"));
    for command in COMMANDS {
        let _ =
            writeln!(out, "  {}) _swanctl_offer $'{}\\n{common}\\n--help' ;;", command.name, names(command.options));
    }
    out.push_str("  esac\n}\ncomplete -F _swanctl swanctl\n");
    out
}

fn names(options: &[CommandOption]) -> String {
    options.iter().map(|option| format!("--{}", option.name)).collect::<Vec<_>>().join("\\n")
}

/// What may stand behind an option.
fn values(out: &mut String, command: &str, option: &CommandOption) {
    if !option.takes.is_value() {
        return;
    }
    let action = match (option.takes, question(option.takes)) {
        (_, Some(question)) => {
            format!("_swanctl_offer \"$(_swanctl_ask {} '{}')\"", question.command, question.sed)
        }
        (Takes::File, None) => "COMPREPLY=($(compgen -f -- \"$word\"))".to_owned(),
        (Takes::Words(words), None) => format!("_swanctl_offer $'{}'", words.join("\\n")),
        _ => ":".to_owned(),
    };
    let patterns = format!("{command}:--{} | {command}:-{}", option.name, option.letter);
    let _ = writeln!(out, "  {patterns})\n    {action}\n    return\n    ;;");
}
