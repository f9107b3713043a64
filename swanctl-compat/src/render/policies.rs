//! Traps and shunts, as `list-policies` shows them.

use ike_model::{Child, ChildMode};

use super::selectors;
use crate::vici::Message;

/// What an installed policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Waits for traffic to establish the child.
    Trap,
    /// Lets traffic pass in clear.
    Pass,
    /// Discards traffic.
    Drop,
}

/// One installed trap or shunt.
#[derive(Debug, Clone, Copy)]
pub struct PolicyListing<'a> {
    /// Its connection.
    pub connection: &'a str,
    /// Its child.
    pub child: &'a Child,
    /// What it does.
    pub kind: PolicyKind,
    /// Reqid of a trap.
    pub reqid: Option<u32>,
}

/// The `list-policy` event.
#[must_use]
pub fn list_policy(policy: &PolicyListing<'_>) -> Message {
    let mut body = Message::new();
    body.set("child", policy.child.name.as_str());
    if let Some(reqid) = policy.reqid {
        body.set_display("reqid", reqid);
    }
    body.set("ike", policy.connection);
    body.set("mode", child_mode(policy.child.mode));
    body.list("local-ts", policy.child.local_ts.iter().map(selectors::configured));
    body.list("remote-ts", policy.child.remote_ts.iter().map(selectors::configured));
    let mut message = Message::new();
    message.section(format!("{}/{}", policy.connection, policy.child.name), body);
    message
}

pub(super) fn child_mode(mode: ChildMode) -> &'static str {
    match mode {
        ChildMode::Tunnel => "TUNNEL",
        ChildMode::Transport => "TRANSPORT",
        ChildMode::Pass => "PASS",
        ChildMode::Drop => "DROP",
    }
}
