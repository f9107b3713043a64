//! All commands with their options, in the order of the help text.

use swanctl_compat::vici::client::ClientError;

use super::{Command, CommandOption, Takes};
use crate::connect::Client;
use crate::options::Invocation;
use crate::{certs, control, monitor, show};

const fn flag(name: &'static str, letter: char, about: &'static str) -> CommandOption {
    CommandOption { name, letter, takes: Takes::Nothing, about }
}

const fn value(name: &'static str, letter: char, takes: Takes, about: &'static str) -> CommandOption {
    CommandOption { name, letter, takes, about }
}

const RAW: CommandOption = flag("raw", 'r', "dump raw response message");
const PRETTY: CommandOption = flag("pretty", 'P', "dump raw response message in pretty print");
const JSON: CommandOption = flag("json", 'j', "print JSON");
const FILE: CommandOption = value("file", 'f', Takes::File, "custom path to swanctl.conf");
const CLEAR: CommandOption = flag("clear", 'c', "clear previously loaded credentials");
const DRY_RUN: CommandOption =
    flag("dry-run", 'd', "only say what loading would do; exit code 3 if an SA would restart or end");
const NOPROMPT: CommandOption = flag("noprompt", 'n', "do not prompt for passwords");

const CERTIFICATE_TYPES: &[&str] = &["x509", "x509_ac", "x509_crl", "ocsp_response", "pubkey"];
const CERTIFICATE_FLAGS: &[&str] = &["none", "ca", "aa", "ocsp", "any"];

/// Options of every command.
pub(crate) const COMMON: &[CommandOption] = &[
    value("debug", 'v', Takes::Number, "set debug level, default: 1"),
    value("options", '+', Takes::File, "read command line options from file"),
    value("uri", 'u', Takes::Uri, "service URI to connect to"),
];

/// All commands in the order of the help text.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "initiate",
        letters: &['i'],
        about: "initiate a connection",
        usage: &["[--child <name>] [--ike <name>] [--timeout <s>] [--raw|--pretty|--json]"],
        options: &[
            value("child", 'c', Takes::Child, "initiate a CHILD_SA configuration"),
            value("ike", 'i', Takes::Connection, "initiate an IKE_SA, or name of child's parent"),
            value("timeout", 't', Takes::Seconds, "timeout in seconds before detaching"),
            RAW,
            PRETTY,
            JSON,
            value("loglevel", 'l', Takes::Number, "verbosity of redirected log"),
        ],
        run: control::initiate,
    },
    Command {
        name: "terminate",
        letters: &['t'],
        about: "terminate a connection",
        usage: &[
            "[--child <name>|--child-id <id>] [--ike <name>|--ike-id <id>]",
            "[--force] [--timeout <s>] [--raw|--pretty|--json]",
        ],
        options: &[
            value("child", 'c', Takes::Child, "terminate by CHILD_SA name"),
            value("ike", 'i', Takes::Connection, "terminate by IKE_SA name"),
            value("child-id", 'C', Takes::ChildId, "terminate by CHILD_SA unique identifier"),
            value("ike-id", 'I', Takes::IkeId, "terminate by IKE_SA unique identifier"),
            flag("force", 'f', "terminate IKE_SA without waiting, unless timeout is set"),
            value("timeout", 't', Takes::Seconds, "timeout in seconds before detaching"),
            RAW,
            PRETTY,
            JSON,
            value("loglevel", 'l', Takes::Number, "verbosity of redirected log"),
        ],
        run: control::terminate,
    },
    Command {
        name: "rekey",
        letters: &['R'],
        about: "rekey an SA",
        usage: &["[--child <name>|--child-id <id>] [--ike <name>|--ike-id <id>]", "[--reauth] [--raw|--pretty|--json]"],
        options: &[
            value("child", 'c', Takes::Child, "rekey by CHILD_SA name"),
            value("ike", 'i', Takes::Connection, "rekey by IKE_SA name"),
            value("child-id", 'C', Takes::ChildId, "rekey by CHILD_SA unique identifier"),
            value("ike-id", 'I', Takes::IkeId, "rekey by IKE_SA unique identifier"),
            flag("reauth", 'a', "reauthenticate instead of rekey an IKEv2 SA"),
            RAW,
            PRETTY,
            JSON,
        ],
        run: control::rekey,
    },
    Command {
        name: "redirect",
        letters: &['d'],
        about: "redirect an IKE_SA",
        usage: &[
            "--ike <name> | --ike-id <id> | --peer-ip <ip|subnet|range>",
            "--peer-id <id|wildcards> | --gateway <ip|fqdn> [--raw|--pretty|--json]",
        ],
        options: &[
            value("ike", 'i', Takes::Connection, "redirect by IKE_SA name"),
            value("ike-id", 'I', Takes::IkeId, "redirect by IKE_SA unique identifier"),
            value("peer-ip", 'p', Takes::Address, "redirect by the peer's address"),
            value("peer-id", 'd', Takes::Identity, "redirect by the peer's identity"),
            value("gateway", 'g', Takes::Address, "target gateway (IP or FQDN)"),
            RAW,
            PRETTY,
            JSON,
        ],
        run: control::redirect,
    },
    Command {
        name: "uninstall",
        letters: &['U', 'u'],
        about: "uninstall a trap or shunt policy",
        usage: &["--child <name> [--ike <name>] [--raw|--pretty|--json]"],
        options: POLICY_OPTIONS,
        run: control::uninstall,
    },
    Command {
        name: "install",
        letters: &['p'],
        about: "install a trap or shunt policy",
        usage: &["--child <name> [--ike <name>] [--raw|--pretty|--json]"],
        options: POLICY_OPTIONS,
        run: control::install,
    },
    Command {
        name: "list-sas",
        letters: &['l'],
        about: "list currently active IKE_SAs",
        usage: &["[--ike <name>|--ike-id <id>] [--child <name>|--child-id <id>]", "[--raw|--pretty|--json]"],
        options: &[
            value("ike", 'i', Takes::Connection, "filter IKE_SAs by name"),
            value("ike-id", 'I', Takes::IkeId, "filter IKE_SAs by unique identifier"),
            value("child", 'c', Takes::Child, "filter CHILD_SAs by name"),
            value("child-id", 'C', Takes::ChildId, "filter CHILD_SAs by unique identifier"),
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
            value("child", 'c', Takes::Child, "filter policies by CHILD_SA config name"),
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
        options: &[value("name", 'n', Takes::Authority, "filter by authority name"), RAW, PRETTY, JSON],
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
            value("subject", 's', Takes::Identity, "filter by certificate subject"),
            value("type", 't', Takes::Words(CERTIFICATE_TYPES), "filter by certificate type"),
            value("flag", 'f', Takes::Words(CERTIFICATE_FLAGS), "filter by X.509 certificate flag"),
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
        options: &[
            flag("leases", 'l', "list leases of each pool"),
            value("name", 'n', Takes::Pool, "filter pools by name"),
            RAW,
            PRETTY,
            JSON,
        ],
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
        usage: &["[--type x509|x509_ac|x509_crl|ocsp_response|pubkey] [--raw|--pretty|--json]"],
        options: &[
            value("type", 't', Takes::Words(CERTIFICATE_TYPES), "only certificates of this type"),
            RAW,
            PRETTY,
            JSON,
        ],
        run: control::flush_certs,
    },
    Command {
        name: "load-all",
        letters: &['q'],
        about: "load credentials, authorities, pools and connections",
        usage: &["[--raw|--pretty|--json] [--clear] [--noprompt] [--dry-run]"],
        options: &[CLEAR, NOPROMPT, RAW, PRETTY, JSON, FILE, DRY_RUN],
        run: unplanned,
    },
    Command {
        name: "load-authorities",
        letters: &['b'],
        about: "(re-)load authority configuration",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON, FILE],
        run: unplanned,
    },
    Command {
        name: "load-pools",
        letters: &['a'],
        about: "(re-)load pool configuration",
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON, FILE],
        run: unplanned,
    },
    Command {
        name: "load-conns",
        letters: &['c'],
        about: "(re-)load connection configuration",
        usage: &["[--raw|--pretty|--json] [--dry-run]"],
        options: &[RAW, PRETTY, JSON, FILE, DRY_RUN],
        run: unplanned,
    },
    Command {
        name: "load-creds",
        letters: &['s'],
        about: "(re-)load credentials",
        usage: &["[--raw|--pretty|--json] [--clear] [--noprompt]"],
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
            value("name", 'n', Takes::Connection, "connection name, omit for global counters"),
            flag("all", 'a', "get/reset counters for all tracked connections"),
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
        usage: &["[--raw|--pretty|--json]"],
        options: &[RAW, PRETTY, JSON],
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
    value("child", 'c', Takes::Child, "CHILD_SA configuration to use"),
    value("ike", 'i', Takes::Connection, "name of the connection that has it"),
    RAW,
    PRETTY,
    JSON,
];

/// The load commands carry a plan and are run by [`crate::load::run`] with it.
fn unplanned(_: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    Err(ClientError::Protocol(format!("--{} was not prepared", invocation.command.name)))
}
