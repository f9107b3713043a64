//! Whether the running backend can do what children ask of a device: offload, marks, interface ids.
//!
//! A file says what is wanted; only the daemon knows its devices. An SA that could never be installed as asked for is refused when its connection is
//! loaded, with the reason, and not when traffic waits for it.

use std::sync::Arc;

use ike_model::{Child, Connection};
use ipsec::OffloadMode;

use super::finding::{Finding, FindingKind, Rejected};

/// What the devices of a backend offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffloadSupport {
    /// `hw_offload = crypto` can be installed.
    pub crypto: bool,
    /// `hw_offload = packet` can be installed.
    pub packet: bool,
    /// Policies and SAs can be bound to packet marks.
    pub marks: bool,
    /// Policies and SAs can be bound to interface ids.
    pub interface_ids: bool,
    /// The device, as users know it.
    pub device: Arc<str>,
    /// Why offload cannot be had, as a sentence without its end: `the userspace datapath has no NIC to offload to`.
    pub reason: &'static str,
}

/// One error for each key that asks for what is not there.
#[must_use]
pub fn unavailable(connection: &Connection, support: &OffloadSupport) -> Vec<Finding> {
    let top = format!("connections.{}", connection.name);
    let mut found = interface(&top, connection.interface, support);
    for child in &connection.children {
        let path = format!("{top}.children.{}", child.name);
        found.extend(offload(&path, child, support));
        found.extend(marks(&path, child, support));
        found.extend(interface(&path, child.tags.interface, support));
    }
    found
}

fn offload(path: &str, child: &Child, support: &OffloadSupport) -> Option<Finding> {
    let lacks = match child.hw_offload {
        OffloadMode::No | OffloadMode::Auto => false,
        OffloadMode::Crypto => !support.crypto,
        OffloadMode::Packet => !support.packet,
    };
    let help = "use `auto` to take offload where there is some, or `no`".to_owned();
    lacks.then(|| refused(path, "hw_offload", support.reason).with_help(Some(help)))
}

fn marks(path: &str, child: &Child, support: &OffloadSupport) -> Vec<Finding> {
    let tags = &child.tags;
    let keys = [
        ("mark_in", tags.mark_in.is_some()),
        ("mark_out", tags.mark_out.is_some()),
        ("set_mark_in", tags.set_mark_in.is_some()),
        ("set_mark_out", tags.set_mark_out.is_some()),
    ];
    lacking(path, &keys, support.marks, &format!("device {} cannot match or set packet marks", support.device))
}

fn interface(path: &str, ids: ike_model::InterfaceIds, support: &OffloadSupport) -> Vec<Finding> {
    let none = ike_model::InterfaceIds::default();
    let keys = [("if_id_in", ids.inbound != none.inbound), ("if_id_out", ids.outbound != none.outbound)];
    lacking(path, &keys, support.interface_ids, &format!("device {} knows no interface ids", support.device))
}

fn lacking(path: &str, keys: &[(&str, bool)], there: bool, reason: &str) -> Vec<Finding> {
    let asked = keys.iter().filter(|(_, asked)| *asked && !there);
    asked.map(|(key, _)| refused(path, key, reason)).collect()
}

fn refused(path: &str, key: &str, reason: &str) -> Finding {
    Finding::new(FindingKind::Unsupported(key.to_owned()), format!("{path}.{key}")).because(reason)
}

/// The refusal of a connection that asks for what is not there.
///
/// # Errors
/// All such keys, at least one.
pub fn check(connection: &Connection, support: &OffloadSupport) -> Result<(), Rejected> {
    let errors = unavailable(connection, support);
    if errors.is_empty() { Ok(()) } else { Err(Rejected { errors, notes: Vec::new() }) }
}
