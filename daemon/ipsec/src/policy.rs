//! SPD entries (RFC 4301 §4.4.1) and the guard behind them.

use std::sync::Arc;

use crate::handle::{DeviceId, PolicyHandle, Reqid, SaHandle};
use crate::sa::{Direction, OffloadMode, OuterAddresses, SaMode};
use crate::selector::SelectorPair;
use crate::tags::Tags;

/// What a policy does with a packet it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Apply ESP. Outbound, `sa` is the SA in use once activated; while it is `None`, packets are dropped.
    Protect {
        /// SAs of this group serve the policy.
        reqid: Reqid,
        /// Outbound SA in use.
        sa: Option<SaHandle>,
        /// Mode of the SAs.
        mode: SaMode,
        /// Outer addresses of the SAs; kernels want them in the template.
        outer: OuterAddresses,
    },
    /// Let pass in clear.
    Bypass,
    /// Drop.
    Discard,
    /// Hold the packet and raise one acquire, then one more only after the entry was touched or the acquire aged.
    Trap {
        /// Group of the SAs to come.
        reqid: Reqid,
        /// Mode of the SAs to come: transport mode takes whole datagrams, never fragments.
        mode: SaMode,
    },
}

/// An SPD entry as the core wants it installed.
///
/// Among the entries that match a packet those that a device looks up come before those of software, then the one with the lowest `priority` wins;
/// among equals the one activated or installed last. So two connections with equal selectors coexist, and when the owner is removed the next live
/// one takes over. An entry whose SA is not activated yet yields to an equal one that has an SA, on whichever rung: a rekey may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// The core's name for the entry.
    pub handle: PolicyHandle,
    /// Device that holds it: the same as that of its SAs.
    pub device: DeviceId,
    /// Inbound, outbound or forward.
    pub direction: Direction,
    /// Local and remote side of the traffic, the same for all directions.
    pub selectors: SelectorPair,
    /// Lower is looked at first.
    pub priority: u32,
    /// What happens to a packet that matches.
    pub action: PolicyAction,
    /// The rung of the device that is to carry it, the same as that of its SAs; never `Auto`.
    pub offload: OffloadMode,
    /// Mark and interface id.
    pub tags: Tags,
    /// Connection and child the policy belongs to, for logs and refusals.
    pub name: Arc<str>,
}

/// Traffic that must never travel in clear, whatever becomes of the process: the fail-closed guard.
///
/// Guards are reference-counted by `name` and selector, outlive the process, and go only when removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuardSpec {
    /// Connection and child on whose behalf it stands.
    pub name: Arc<str>,
    /// Local and remote side of the traffic.
    pub selectors: SelectorPair,
}
