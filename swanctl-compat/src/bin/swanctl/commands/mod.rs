//! The one definition of commands and options: the parser, the help, the manual page and the completions of shells all come from it.

mod table;

use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::options::Invocation;

pub(crate) use table::{COMMANDS, COMMON};

/// One option of a command.
#[derive(Debug)]
pub(crate) struct CommandOption {
    pub(crate) name: &'static str,
    pub(crate) letter: char,
    pub(crate) takes: Takes,
    pub(crate) about: &'static str,
}

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// It has none.
    Nothing,
    Connection,
    Child,
    IkeId,
    ChildId,
    Pool,
    Authority,
    Seconds,
    Number,
    File,
    Uri,
    Address,
    Identity,
    /// One of these.
    Words(&'static [&'static str]),
}

impl Takes {
    pub(crate) fn is_value(self) -> bool {
        self != Self::Nothing
    }
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
