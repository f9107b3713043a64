//! The command line: one command in option form, then its options.
//!
//! Long options may be shortened to any unambiguous beginning, take their value after `=` or as the next word, and short ones may be joined, as getopt
//! does. `--uri` and `--debug` may also stand before the command.

use std::collections::BTreeMap;

use crate::commands::{COMMANDS, COMMON, Command, CommandOption};
use crate::stdio::say;

/// A command with its options.
pub(crate) struct Invocation {
    pub(crate) command: &'static Command,
    values: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invocation").field("command", &self.command.name).field("values", &self.values).finish()
    }
}

impl Invocation {
    /// The value of option `name`.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether option `name` is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// What the command line asks for.
pub(crate) enum Parsed {
    Run(Invocation),
    /// Help on one command, or on all.
    Help(Option<&'static Command>),
}

/// What is wrong with the command line.
pub(crate) struct UsageError {
    /// The detail.
    pub(crate) text: String,
    /// `invalid operation` or `invalid options`.
    pub(crate) kind: &'static str,
    /// The command whose usage to show.
    pub(crate) command: Option<&'static Command>,
}

impl std::fmt::Debug for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}

/// How deep `--options` files may name further ones.
const MAX_OPTION_FILES: usize = 8;

/// Reads a command line (without the program's name).
pub(crate) fn parse(arguments: &[String]) -> Result<Parsed, UsageError> {
    if arguments.is_empty() {
        return Ok(Parsed::Help(None));
    }
    let mut words: Vec<String> = arguments.to_vec();
    words.reverse();
    let mut values = BTreeMap::new();
    let command = loop {
        match take_command(&mut words)? {
            Leading::Help => return Ok(Parsed::Help(None)),
            Leading::Command(command) => break command,
            Leading::Option(option) => read_option(option, None, &mut words, &mut values, None)?,
        }
    };
    let mut files = 0;
    while let Some(word) = words.pop() {
        if help(&word) {
            return Ok(Parsed::Help(Some(command)));
        }
        option_word(command, &word, &mut words, &mut values)?;
        if let Some(path) = values.remove("options") {
            files += 1;
            words.extend(option_file(&path, files, command)?.into_iter().rev());
        }
    }
    Ok(Parsed::Run(Invocation { command, values }))
}

enum Leading {
    Help,
    Command(&'static Command),
    Option(&'static CommandOption),
}

/// The command, or a common option before it.
fn take_command(words: &mut Vec<String>) -> Result<Leading, UsageError> {
    let Some(word) = words.pop() else { return Err(operation("no command is given".to_owned())) };
    if help(&word) {
        return Ok(Leading::Help);
    }
    if let Some(name) = word.strip_prefix("--") {
        let (stem, inline) = name.split_once('=').map_or((name, None), |(stem, value)| (stem, Some(value)));
        if let Some(command) = unambiguous(COMMANDS.iter().map(|c| (c.name, c)), stem) {
            return Ok(Leading::Command(command));
        }
        if let Some(option) = COMMON.iter().find(|option| option.name == stem) {
            if let Some(value) = inline {
                words.push(value.to_owned());
            }
            return Ok(Leading::Option(option));
        }
        return Err(operation(unknown(stem, COMMANDS.iter().map(|c| c.name))));
    }
    let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
    let Some(letter) = letters.next() else { return Err(operation(format!("'{word}' is no command"))) };
    let rest = letters.as_str();
    if !rest.is_empty() {
        // `-lr` is `-l -r`.
        words.push(format!("-{rest}"));
    }
    // `-u` before the command could be the old letter of uninstall; it always was, so it stays.
    match COMMANDS.iter().find(|command| command.letters.contains(&letter)) {
        Some(command) => Ok(Leading::Command(command)),
        None => Err(operation(format!("invalid option -- '{letter}'"))),
    }
}

fn help(word: &str) -> bool {
    matches!(word, "--help" | "-h")
}

fn operation(text: String) -> UsageError {
    UsageError { text, kind: "invalid operation", command: None }
}

fn bad_option(text: String, command: &'static Command) -> UsageError {
    UsageError { text, kind: "invalid options", command: Some(command) }
}

/// The only entry whose name is `stem` or begins with it.
fn unambiguous<T: Copy>(entries: impl Iterator<Item = (&'static str, T)>, stem: &str) -> Option<T> {
    let mut found = None;
    for (name, entry) in entries {
        if name == stem {
            return Some(entry);
        }
        if !stem.is_empty() && name.starts_with(stem) {
            if found.is_some() {
                return None;
            }
            found = Some(entry);
        }
    }
    found
}

/// Why `stem` is none of `names`.
fn unknown(stem: &str, names: impl Iterator<Item = &'static str>) -> String {
    let possible: Vec<String> =
        names.filter(|name| !stem.is_empty() && name.starts_with(stem)).map(|name| format!("'--{name}'")).collect();
    if possible.is_empty() {
        format!("unrecognized option '--{stem}'")
    } else {
        format!("option '--{stem}' is ambiguous; possibilities: {}", possible.join(" "))
    }
}

fn option_word(
    command: &'static Command,
    word: &str,
    words: &mut Vec<String>,
    values: &mut BTreeMap<&'static str, String>,
) -> Result<(), UsageError> {
    let options = || command.options.iter().chain(COMMON);
    if let Some(name) = word.strip_prefix("--") {
        let (stem, inline) = name.split_once('=').map_or((name, None), |(stem, value)| (stem, Some(value)));
        let option = unambiguous(options().map(|o| (o.name, o)), stem)
            .ok_or_else(|| bad_option(unknown(stem, options().map(|o| o.name)), command))?;
        return read_option(option, inline, words, values, Some(command));
    }
    let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
    let Some(letter) = letters.next() else {
        // Scripts that do so have always worked.
        say!("swanctl: '{word}' is ignored: every value belongs to an option");
        return Ok(());
    };
    let option = options()
        .find(|option| option.letter == letter)
        .ok_or_else(|| bad_option(format!("invalid option -- '{letter}'"), command))?;
    let rest = letters.as_str();
    if option.takes.is_value() && !rest.is_empty() {
        return read_option(option, Some(rest), words, values, Some(command));
    }
    if !rest.is_empty() {
        words.push(format!("-{rest}"));
    }
    read_option(option, None, words, values, Some(command))
}

fn read_option(
    option: &'static CommandOption,
    inline: Option<&str>,
    words: &mut Vec<String>,
    values: &mut BTreeMap<&'static str, String>,
    command: Option<&'static Command>,
) -> Result<(), UsageError> {
    let error = |text: String| UsageError {
        text,
        kind: if command.is_some() { "invalid options" } else { "invalid operation" },
        command,
    };
    let value = match (option.takes.is_value(), inline) {
        (true, Some(value)) => value.to_owned(),
        (true, None) => words.pop().ok_or_else(|| error(format!("option '--{}' requires an argument", option.name)))?,
        (false, None) => String::new(),
        (false, Some(_)) => return Err(error(format!("option '--{}' doesn't allow an argument", option.name))),
    };
    values.insert(option.name, value);
    Ok(())
}

/// Words of an option file: separated by blanks and line ends, with quotes around words that hold some.
fn option_file(path: &str, depth: usize, command: &'static Command) -> Result<Vec<String>, UsageError> {
    if depth > MAX_OPTION_FILES {
        return Err(bad_option("too many option files".to_owned(), command));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| bad_option(format!("cannot read option file '{path}': {error}"), command))?;
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        out.extend(split_words(line));
    }
    Ok(out)
}

fn split_words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => out.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&words) {
            Ok(Parsed::Run(invocation)) => {
                let values: Vec<String> =
                    invocation.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {}", invocation.command.name, values.join(" ")).trim_end().to_owned()
            }
            Ok(Parsed::Help(command)) => format!("help {}", command.map_or("", |command| command.name)),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn command_lines() {
        let cases = [
            ("--list-sas", "list-sas"),
            ("-l", "list-sas"),
            ("-lr", "list-sas raw="),
            ("-l -i site-a -I7", "list-sas ike=site-a ike-id=7"),
            ("--list-sas --ike=site-a --raw", "list-sas ike=site-a raw="),
            ("--init --child net", "initiate child=net"),
            ("--initiate --chi net", "initiate child=net"),
            (
                "--load",
                "invalid operation: option '--load' is ambiguous; possibilities: '--load-all' '--load-authorities' '--load-pools' \
                       '--load-conns' '--load-creds'",
            ),
            ("--list-sas --p", "list-sas pretty="),
            ("--terminate --c 3", "invalid options: option '--c' is ambiguous; possibilities: '--child' '--child-id'"),
            ("--terminate --ike x --child-i 3", "terminate child-id=3 ike=x"),
            ("-P -P", "list-pols pretty="),
            ("-q -f /tmp/x.conf -c", "load-all clear= file=/tmp/x.conf"),
            ("--uri unix:///a --stats", "stats uri=unix:///a"),
            ("--uri=unix:///a --stats", "stats uri=unix:///a"),
            ("--stats --uri unix:///a", "stats uri=unix:///a"),
            ("-u -c net", "uninstall child=net"),
            ("-U -c net", "uninstall child=net"),
            ("-v", "version"),
            ("-V -d", "version daemon="),
            ("--help", "help "),
            ("-i -h", "help initiate"),
            ("", "help "),
            ("--uri unix:///a", "invalid operation: no command is given"),
            ("--bogus", "invalid operation: unrecognized option '--bogus'"),
            ("-Z", "invalid operation: invalid option -- 'Z'"),
            ("stats", "invalid operation: 'stats' is no command"),
            ("--stats now", "stats"),
            ("--stats --raw=1", "invalid options: option '--raw' doesn't allow an argument"),
            ("--initiate --child", "invalid options: option '--child' requires an argument"),
            ("--list-sas --bogus", "invalid options: unrecognized option '--bogus'"),
        ];
        for (line, expected) in cases {
            assert_eq!(show(line), expected, "{line}");
        }
    }

    #[test]
    fn letters_are_unambiguous() {
        for command in COMMANDS {
            let mut seen = std::collections::BTreeSet::from(['h']);
            for option in command.options.iter().chain(COMMON) {
                assert!(seen.insert(option.letter), "-{} of --{}", option.letter, command.name);
            }
        }
        let letters: Vec<char> = COMMANDS.iter().flat_map(|command| command.letters.iter().copied()).collect();
        let unique: std::collections::BTreeSet<char> = letters.iter().copied().collect();
        assert_eq!(letters.len(), unique.len());
    }

    #[test]
    fn option_files_split_into_words() {
        assert_eq!(split_words("--child \"my net\" --ike 'a b'c ''"), ["--child", "my net", "--ike", "a bc", ""]);
    }
}
