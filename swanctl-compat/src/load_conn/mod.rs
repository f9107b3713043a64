//! `load-conn`: a VICI section with swanctl.conf's keys becomes an [`ike_model::Connection`].
//!
//! Everything wrong is found, not just the first thing; the daemon answers with the first, the file checker prints all. Each finding carries the
//! configuration path (`connections.a.children.net.local_ts[1]`), which a reader of files turns into a position.

mod build;
mod check;
mod finding;
pub mod offload;

#[cfg(test)]
mod effects;
#[cfg(test)]
mod tests;

use ike_model::{Actions, AuthMethod, Connection};

pub use finding::{Finding, FindingKind, Rejected};

use crate::keys::Misfit;
use crate::vici::Message;

/// A connection that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The connection.
    pub connection: Connection,
    /// What was accepted without effect, and other doubts.
    pub notes: Vec<Finding>,
}

/// Understands the message of a `load-conn` command: one section named after the connection.
///
/// # Errors
/// All that is wrong, at least one finding.
pub fn parse_message(message: &Message) -> Result<Loaded, Rejected> {
    let mut sections = message.sections();
    let whole = |text: &str| Rejected::one(Finding::new(FindingKind::Message(text.to_owned()), "connections"));
    match (sections.next(), sections.next()) {
        (Some((name, content)), None) => parse(name, content),
        (None, _) => Err(whole("load-conn needs a section with the connection's name")),
        (Some(_), Some(_)) => Err(whole("load-conn takes one connection")),
    }
}

/// Understands the content of connection `name`.
///
/// # Errors
/// All that is wrong, at least one finding.
pub fn parse(name: &str, content: &Message) -> Result<Loaded, Rejected> {
    let path = format!("connections.{name}");
    let mut findings = check::connection(&path, content);
    let connection = build::connection(name, &path, content, &mut findings);
    let (errors, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(Finding::is_error);
    if errors.is_empty() { Ok(Loaded { connection, notes }) } else { Err(Rejected { errors, notes }) }
}

/// `none`, `trap`, `start`, their older names, or several joined by a bar.
pub(crate) fn actions(text: &str) -> Option<Actions> {
    let mut actions = Actions::NONE;
    for word in text.split('|').map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "trap" | "route" => actions.trap = true,
            "start" | "restart" => actions.start = true,
            "none" | "clear" | "" => {}
            _ => return None,
        }
    }
    Some(actions)
}

/// An authentication method. Those that are known but not built say so.
pub(crate) fn auth_method(text: &str) -> Result<AuthMethod, Misfit> {
    if text.eq_ignore_ascii_case("psk") {
        return Ok(AuthMethod::Psk);
    }
    let method = ["ike:", "pubkey", "rsa", "ecdsa", "xauth", "eap"]
        .iter()
        .any(|word| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)));
    if method {
        return Err(Misfit::unsupported(
            "only authentication by pre-shared key is supported",
            Some("use `auth = psk`"),
        ));
    }
    Err(Misfit {
        fragment: None,
        reason: "expected an authentication method: `psk`".to_owned(),
        help: None,
        unsupported: false,
    })
}
