//! What the scripts of all shells share: how names are asked of the daemon.

use crate::commands::Takes;

/// A question of the daemon: the command, and the `sed` program that takes the names from what it prints.
pub(super) struct Question {
    pub(super) command: &'static str,
    pub(super) sed: &'static str,
}

/// What a value can be, if the daemon knows that.
pub(super) fn question(takes: Takes) -> Option<Question> {
    let (command, sed) = match takes {
        Takes::Connection => ("--list-conns", r"s/^\([^ ].*\): IKEv.*/\1/p"),
        Takes::Child => ("--list-conns", r"s/^  \([^ ].*\): [A-Z][A-Z_]*, .*/\1/p"),
        Takes::IkeId => ("--list-sas", r"s/^[^ ].*: #\([0-9]*\), .*/\1/p"),
        Takes::ChildId => ("--list-sas", r"s/^  [^ ].*: #\([0-9]*\), .*/\1/p"),
        Takes::Pool => ("--list-pools", r"s/^\([^ ]*\) .*/\1/p"),
        Takes::Authority => ("--list-authorities", r"s/^\([^ ].*\):$/\1/p"),
        Takes::Nothing
        | Takes::Seconds
        | Takes::Number
        | Takes::File
        | Takes::Uri
        | Takes::Address
        | Takes::Identity
        | Takes::Words(_) => return None,
    };
    Some(Question { command, sed })
}

/// What stands for the value where options are described.
pub(super) fn placeholder(takes: Takes) -> &'static str {
    match takes {
        Takes::Nothing => "",
        Takes::Connection | Takes::Child | Takes::Pool | Takes::Authority => "name",
        Takes::IkeId | Takes::ChildId => "id",
        Takes::Seconds => "s",
        Takes::Number => "level",
        Takes::File => "file",
        Takes::Uri => "uri",
        Takes::Address => "address",
        Takes::Identity => "identity",
        Takes::Words(_) => "type",
    }
}
