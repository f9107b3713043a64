//! The manual page.

use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::commands::{COMMANDS, COMMON, Command, CommandOption};

const WHAT: &str = "swanctl loads the configuration of swanctl.conf(5) into a daemon for IKEv2, controls and watches it. It is a client of VICI and \
                    works with cygnetd(8) as with any other daemon that speaks VICI, strongSwan's charon among them; command forms, options, output \
                    and exit codes are those of strongSwan's tool of this name. One command is given in the form of an option, followed by its \
                    own options. Long names may be shortened as long as only one fits; a value follows behind a blank or an equals sign.";

const CREDENTIALS: &str = "Beside swanctl.conf lie the directories x509, x509ca, x509ocsp, x509aa, x509ac, x509crl, pubkey, private, rsa, ecdsa, pkcs8 and \
                           pkcs12. What is in them is sent as it is, PEM or DER. Encrypted private keys (PKCS#8, or PEM with DEK-Info) and PKCS#12 \
                           containers are opened with the password of the section of secrets that names the file, or with one that is asked for on the \
                           terminal unless --noprompt is given. A file that cannot be loaded is told of, and the rest is loaded.";

const LOADING: &str = "A file that cannot be read as it was meant loads nothing and unloads nothing. Otherwise every connection and every secret stands for \
                       itself: what is good is loaded, all that is wrong is told with file, line and column, and what runs under the name of a bad \
                       one goes on. What the files do not name any more is unloaded.";

const EXIT: [(&str, &str); 5] = [
    ("0", "Success; with --raw and --pretty also where the answer itself says that something failed."),
    ("1", "The daemon refused, or went away, or the command line is wrong."),
    ("3", "With --dry-run: loading would make an SA restart or end."),
    ("22", "Something could not be loaded."),
    ("other", "The number of an error of the system, such as 2 or 111 when nobody listens at the URI."),
];

const FILES: [(&str, &str); 3] = [
    ("/etc/swanctl/swanctl.conf", "What is loaded unless --file names another one."),
    ("/run/charon.vici", "Where the daemon listens unless --uri says otherwise."),
    ("SWANCTL_DIR", "Environment variable: the directory of swanctl.conf in the place of /etc/swanctl."),
];

pub(super) fn page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["SWANCTL", "8", " ", concat!("Cygnet ", env!("CARGO_PKG_VERSION")), "Cygnet"]);
    heading(&mut page, "NAME");
    page.text([roman("swanctl - configuration, control and monitoring of an IKE daemon over VICI")]);
    heading(&mut page, "SYNOPSIS");
    page.text([bold("swanctl"), roman(" "), italic("COMMAND"), roman(" ["), italic("OPTION"), roman(" ...]")]);
    heading(&mut page, "DESCRIPTION");
    page.text([roman(WHAT)]);
    heading(&mut page, "COMMANDS");
    COMMANDS.iter().for_each(|command| described(&mut page, command));
    heading(&mut page, "OPTIONS OF EVERY COMMAND");
    COMMON.iter().for_each(|option| one(&mut page, option));
    heading(&mut page, "LOADING");
    page.text([roman(LOADING)]);
    heading(&mut page, "CREDENTIAL FILES");
    page.text([roman(CREDENTIALS)]);
    heading(&mut page, "EXIT STATUS");
    listed(&mut page, &EXIT);
    heading(&mut page, "FILES AND ENVIRONMENT");
    listed(&mut page, &FILES);
    heading(&mut page, "SEE ALSO");
    page.text([bold("cygnet"), roman("(8), "), bold("cygnetd"), roman("(8)")]);
    page.to_roff()
}

/// Text as it stands in the page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('-', "\\-")
}

fn heading(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

fn described(page: &mut Roff, command: &Command) {
    let letters: Vec<String> = command.letters.iter().map(|letter| format!("-{letter}")).collect();
    page.control("SS", [format!("--{} ({})", command.name, letters.join(", ")).as_str()]);
    page.text([roman(command.about)]);
    page.control("PP", []);
    page.text([bold(format!("swanctl --{}", command.name)), roman(format!(" {}", command.usage.join(" ")))]);
    command.options.iter().for_each(|option| one(page, option));
}

fn one(page: &mut Roff, option: &CommandOption) {
    page.control("TP", []);
    let mut title = vec![bold(format!("--{}", option.name)), roman(", "), bold(format!("-{}", option.letter))];
    if option.takes.is_value() {
        title.extend([roman(" "), italic(super::shell::placeholder(option.takes))]);
    }
    page.text(title);
    page.text([roman(option.about)]);
}

fn listed(page: &mut Roff, entries: &[(&str, &str)]) {
    for (name, about) in entries {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*about)]);
    }
}
