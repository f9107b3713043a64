//! The table of commands with their options.

use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::options::Invocation;
use crate::{certs, control, monitor, show};

/// One option of a command.
#[derive(Debug)]
pub(crate) struct CommandOption {
    pub(crate) name: &'static str,
    pub(crate) letter: char,
    /// Whether it takes a value.
    pub(crate) value: bool,
    pub(crate) about: &'static str,
}

/// What a command does once connected.
pub(crate) type Run = fn(&mut Client, &Invocation) -> Result<u8, ClientError>;

/// One command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Its letters; the first is shown. Some had another one in earlier versions.
    pub(crate) letters: &'static [char],
    pub(crate) about: &'static str,
    pub(crate) usage: &'static [&'static str],
    pub(crate) options: &'static [CommandOption],
    pub(crate) run: Run,
}

const fn flag(name: &'static str, letter: char, about: &'static str) -> CommandOption {
    CommandOption { name, letter, value: false, about }
}

const fn value(name: &'static str, letter: char, about: &'static str) -> CommandOption {
    CommandOption { name, letter, value: true, about }
}

const RAW: CommandOption = flag("raw", 'r', "dump raw response message");
const PRETTY: CommandOption = flag("pretty", 'P', "dump raw response message in pretty print");
const JSON: CommandOption = flag("json", 'j', "print JSON");
const FILE: CommandOption = value("file", 'f', "custom path to swanctl.conf");
const CLEAR: CommandOption = flag("clear", 'c', "clear previously loaded credentials");
const DRY_RUN: CommandOption =
    flag("dry-run", 'd', "only say what loading would do; exit code 3 if an SA would restart or end");
const NAME: CommandOption = value("name", 'n', "only the one of this name");
const NOPROMPT: CommandOption = flag("noprompt", 'n', "do not prompt for passwords");

/// Options of every command.
pub(crate) const COMMON: &[CommandOption] = &[
    value("debug", 'v', "set debug level, default: 1"),
    value("options", '+', "read command line options from file"),
    value("uri", 'u', "service URI to connect to"),
];

/// All commands in the order of the help text.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "initiate",
        letters: &['i'],
        about: "initiate a connection",
        usage: &["[--child <name>] [--ike <name>] [--timeout <s>] [--raw|--pretty]"],
        options: &[
            value("child", 'c', "initiate a CHILD_SA configuration"),
            value("ike", 'i', "initiate an IKE_SA, or name of child's parent"),
            value("timeout", 't', "timeout in seconds before detaching"),
            RAW,
            PRETTY,
            value("loglevel", 'l', "verbosity of redirected log"),
        ],
        run: control::initiate,
    },
    Command {
        name: "terminate",
        letters: &['t'],
        about: "terminate a connection",
        usage: &[
            "[--child <name>|--child-id <id>] [--ike <name>|--ike-id <id>]",
            "[--force] [--timeout <s>] [--raw|--pretty]",
        ],
        options: &[
            value("child", 'c', "terminate by CHILD_SA name"),
            value("ike", 'i', "terminate by IKE_SA name"),
            value("child-id", 'C', "terminate by CHILD_SA unique identifier"),
            value("ike-id", 'I', "terminate by IKE_SA unique identifier"),
            flag("force", 'f', "terminate IKE_SA without waiting, unless timeout is set"),
            value("timeout", 't', "timeout in seconds before detaching"),
            RAW,
            PRETTY,
            value("loglevel", 'l', "verbosity of redirected log"),
        ],
        run: control::terminate,
    },
    Command {
        name: "rekey",
        letters: &['R'],
        about: "rekey an SA",
        usage: &["[--child <name>|--child-id <id>] [--ike <name>|--ike-id <id>]", "[--reauth] [--raw|--pretty]"],
        options: &[
            value("child", 'c', "rekey by CHILD_SA name"),
            value("ike", 'i', "rekey by IKE_SA name"),
            value("child-id", 'C', "rekey by CHILD_SA unique identifier"),
            value("ike-id", 'I', "rekey by IKE_SA unique identifier"),
            flag("reauth", 'a', "reauthenticate instead of rekey an IKEv2 SA"),
            RAW,
            PRETTY,
        ],
        run: control::rekey,
    },
    Command {
        name: "redirect",
        letters: &['d'],
        about: "redirect an IKE_SA",
        usage: &[
            "--ike <name> | --ike-id <id> | --peer-ip <ip|subnet|range>",
            "--peer-id <id|wildcards> | --gateway <ip|fqdn> [--raw|--pretty]",
        ],
        options: &[
            value("ike", 'i', "redirect by IKE_SA name"),
            value("ike-id", 'I', "redirect by IKE_SA unique identifier"),
            value("peer-ip", 'p', "redirect by the peer's address"),
            value("peer-id", 'd', "redirect by the peer's identity"),
            value("gateway", 'g', "target gateway (IP or FQDN)"),
            RAW,
            PRETTY,
        ],
        run: control::redirect,
    },
    Command {
        name: "uninstall",
        letters: &['U', 'u'],
        about: "uninstall a trap or shunt policy",
        usage: &["--child <name> [--ike <name>] [--raw|--pretty]"],
        options: POLICY_OPTIONS,
        run: control::uninstall,
    },
    Command {
        name: "install",
        letters: &['p'],
        about: "install a trap or shunt policy",
        usage: &["--child <name> [--ike <name>] [--raw|--pretty]"],
        options: POLICY_OPTIONS,
        run: control::install,
    },
    Command {
        name: "list-sas",
        letters: &['l'],
        about: "list currently active IKE_SAs",
        usage: &["[--ike <name>|--ike-id <id>] [--child <name>|--child-id <id>]", "[--raw|--pretty|--json]"],
        options: &[
            value("ike", 'i', "filter IKE_SAs by name"),
            value("ike-id", 'I', "filter IKE_SAs by unique identifier"),
            value("child", 'c', "filter CHILD_SAs by name"),
            value("child-id", 'C', "filter CHILD_SAs by unique identifier"),
            flag("noblock", 'n', "don't wait for IKE_SAs in use"),
            RAW,
            PRETTY,
            JSON,
        ],
        run: show::list_sas,
    },
    Command {
        name: "monitor-sa",
        letters: &['m'],
        about: "monitor for IKE_SA and CHILD_SA changes",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
        run: monitor::monitor_sa,
    },
    Command {
        name: "list-pols",
        letters: &['P'],
        about: "list currently installed policies",
        usage: &["[--child <name>] [--trap] [--drop] [--pass] [--raw|--pretty|--json]"],
        options: &[
            value("child", 'c', "filter policies by CHILD_SA config name"),
            flag("trap", 't', "list trap policies"),
            flag("drop", 'd', "list drop policies"),
            flag("pass", 'p', "list bypass policies"),
            RAW,
            // `-P` is the command itself only in front; behind it, it is this option.
            PRETTY,
            JSON,
        ],
        run: show::list_pols,
    },
    Command {
        name: "list-conns",
        letters: &['L'],
        about: "list loaded configurations",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
        run: show::list_conns,
    },
    Command {
        name: "list-authorities",
        letters: &['B'],
        about: "list loaded authority configurations",
        usage: &["[--name <name>] [--raw|--pretty|--json]"],
        options: &[NAME, RAW, PRETTY, JSON],
        run: show::list_authorities,
    },
    Command {
        name: "list-certs",
        letters: &['x'],
        about: "list stored certificates",
        usage: &[
            "[--subject <dn/san>] [--pem]",
            "[--type x509|x509_ac|x509_crl|ocsp_response|pubkey]",
            "[--flag none|ca|aa|ocsp|any] [--raw|--pretty|--json|--short|--utc]",
        ],
        options: &[
            value("subject", 's', "filter by certificate subject"),
            value("type", 't', "filter by certificate type"),
            value("flag", 'f', "filter by X.509 certificate flag"),
            flag("pem", 'p', "print PEM encoding of certificate"),
            RAW,
            PRETTY,
            JSON,
            flag("short", 'S', "omit some certificate details"),
            flag("utc", 'U', "use UTC for time fields"),
        ],
        run: certs::list_certs,
    },
    Command {
        name: "list-pools",
        letters: &['A'],
        about: "list loaded pool configurations",
        usage: &["[--leases] [--name <name>] [--raw|--pretty|--json]"],
        options: &[flag("leases", 'l', "list leases of each pool"), NAME, RAW, PRETTY, JSON],
        run: show::list_pools,
    },
    Command {
        name: "list-algs",
        letters: &['g'],
        about: "show loaded algorithms",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
        run: show::list_algs,
    },
    Command {
        name: "flush-certs",
        letters: &['f'],
        about: "flush cached certificates",
        usage: &["[--type x509|x509_ac|x509_crl|ocsp_response|pubkey] [--raw|--pretty]"],
        options: &[value("type", 't', "only certificates of this type"), RAW, PRETTY],
        run: control::flush_certs,
    },
    Command {
        name: "load-all",
        letters: &['q'],
        about: "load credentials, authorities, pools and connections",
        usage: &["[--raw|--pretty] [--clear] [--noprompt] [--dry-run]"],
        options: &[CLEAR, NOPROMPT, RAW, PRETTY, JSON, FILE, DRY_RUN],
        run: unplanned,
    },
    Command {
        name: "load-authorities",
        letters: &['b'],
        about: "(re-)load authority configuration",
        usage: &["[--raw|--pretty]"],
        options: &[RAW, PRETTY, JSON, FILE],
        run: unplanned,
    },
    Command {
        name: "load-pools",
        letters: &['a'],
        about: "(re-)load pool configuration",
        usage: &["[--raw|--pretty]"],
        options: &[RAW, PRETTY, JSON, FILE],
        run: unplanned,
    },
    Command {
        name: "load-conns",
        letters: &['c'],
        about: "(re-)load connection configuration",
        usage: &["[--raw|--pretty] [--dry-run]"],
        options: &[RAW, PRETTY, JSON, FILE, DRY_RUN],
        run: unplanned,
    },
    Command {
        name: "load-creds",
        letters: &['s'],
        about: "(re-)load credentials",
        usage: &["[--raw|--pretty] [--clear] [--noprompt]"],
        options: &[CLEAR, NOPROMPT, RAW, PRETTY, JSON, FILE],
        run: unplanned,
    },
    Command {
        name: "log",
        letters: &['T'],
        about: "trace logging output",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
        run: monitor::log,
    },
    Command {
        name: "version",
        letters: &['V', 'v'],
        about: "show version information",
        usage: &["[--raw|--pretty|--json]"],
        options: &[flag("daemon", 'd', "query daemon version"), RAW, PRETTY, JSON],
        run: show::version,
    },
    Command {
        name: "counters",
        letters: &['C'],
        about: "list or reset IKE event counters",
        usage: &["[--name <name>|--all] [--reset] [--raw|--pretty|--json]"],
        options: &[
            NAME,
            flag("all", 'a', "counters of all connections"),
            flag("reset", 'R', "reset the counters"),
            RAW,
            PRETTY,
            JSON,
        ],
        run: show::counters,
    },
    Command {
        name: "reload-settings",
        letters: &['r'],
        about: "reload daemon settings",
        usage: &["[--raw|--pretty]"],
        options: &[RAW, PRETTY],
        run: control::reload_settings,
    },
    Command {
        name: "stats",
        letters: &['S'],
        about: "show daemon stats information",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
        run: show::stats,
    },
];

const POLICY_OPTIONS: &[CommandOption] = &[
    value("child", 'c', "CHILD_SA configuration to use"),
    value("ike", 'i', "name of the connection that has it"),
    RAW,
    PRETTY,
];

/// The load commands carry a plan and are run by [`crate::load::run`] with it.
fn unplanned(_: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    Err(ClientError::Protocol(format!("--{} was not prepared", invocation.command.name)))
}
