//! What a CHILD SA, trap or shunt has the backend hold, or would have it hold: for showing, never for installing.

use std::sync::Arc;

use ipsec::{GuardSpec, PolicySpec, SaSpec};

/// Entries of SAD, SPD and guard on behalf of one configured child.
#[derive(Clone, Debug)]
pub struct ChildSpecs {
    /// Connection.
    pub connection: Arc<str>,
    /// Child.
    pub child: Arc<str>,
    /// Whose they are.
    pub origin: Origin,
    /// Guards before the first policy.
    pub guards: Vec<GuardSpec>,
    /// SPD entries in the order in which they are installed.
    pub policies: Vec<PolicySpec>,
    /// SAD entries in the order in which they are installed. Their keys are left out: empty, whatever the algorithm.
    pub sas: Vec<SaSpec>,
}

/// Whose the entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A CHILD SA by its number.
    Sa(u32),
    /// A trap or a shunt.
    Trap,
    /// Nothing yet: what the first proposal and the whole selectors would come to. SPIs and group are placeholders.
    Planned,
}
