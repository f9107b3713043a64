//! Whether the running backend can do the offload that children ask for.
//!
//! A file says what is wanted; only the daemon knows its devices. An SA that could never be installed as asked for is refused when its connection is
//! loaded, with the reason, and not when traffic waits for it.

use ike_model::Connection;
use ipsec::OffloadMode;

use super::finding::{Finding, FindingKind, Rejected};

/// What the devices of a backend offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadSupport {
    /// `hw_offload = crypto` can be installed.
    pub crypto: bool,
    /// `hw_offload = packet` can be installed.
    pub packet: bool,
    /// Why the rest cannot, as a sentence without its end: `the userspace datapath has no NIC to offload to`.
    pub reason: &'static str,
}

/// One error for each child that asks for what is not there.
#[must_use]
pub fn unavailable(connection: &Connection, support: &OffloadSupport) -> Vec<Finding> {
    let lacks = |mode: OffloadMode| match mode {
        OffloadMode::No | OffloadMode::Auto => false,
        OffloadMode::Crypto => !support.crypto,
        OffloadMode::Packet => !support.packet,
    };
    let children = connection.children.iter().filter(|child| lacks(child.hw_offload));
    children
        .map(|child| {
            let path = format!("connections.{}.children.{}.hw_offload", connection.name, child.name);
            let help = "use `auto` to take offload where there is some, or `no`".to_owned();
            let finding = Finding::new(FindingKind::Unsupported("hw_offload".to_owned()), path);
            finding.because(support.reason).with_help(Some(help))
        })
        .collect()
}

/// The refusal of a connection with children that ask for what is not there.
///
/// # Errors
/// All such children, at least one.
pub fn check(connection: &Connection, support: &OffloadSupport) -> Result<(), Rejected> {
    let errors = unavailable(connection, support);
    if errors.is_empty() { Ok(()) } else { Err(Rejected { errors, notes: Vec::new() }) }
}
