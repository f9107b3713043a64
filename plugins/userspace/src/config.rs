//! The `[backend.userspace]` table and what can be wrong with it at start.

use offload_host::HostError;

use crate::nic::Simulation;

/// Configuration of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserspaceConfig {
    /// Name of the tunnel device.
    pub device: String,
    /// Datapath threads; 0 = one per core. One transmits and one receives, so more than two are not used.
    pub threads: u16,
    /// MTU of the tunnel device; 0 = derived: what AES-GCM in UDP over IPv4 leaves of 1500 octets.
    pub mtu: u32,
    /// Our routing table.
    pub table: u32,
    /// Priority of the rule that leads into it.
    pub rule_priority: u32,
    /// Mark of our outer sockets.
    pub mark: u32,
    /// Whether routes and rules are installed.
    pub install_routes: bool,
    /// UDP ports of IKE, which never go through the device; 0 is none.
    pub ike_ports: [u16; 2],
    /// Pose as NICs with packet offload; `None` is the datapath as it is.
    pub simulation: Option<Simulation>,
}

impl Default for UserspaceConfig {
    fn default() -> Self {
        Self {
            device: "cygnet0".to_owned(),
            threads: 0,
            mtu: 0,
            table: 220,
            rule_priority: 220,
            mark: 0x4347,
            install_routes: true,
            ike_ports: [500, 4500],
            simulation: None,
        }
    }
}

/// IPv4 and UDP header, SPI, sequence number, IV, trailer and ICV of AES-GCM, with payload and trailer a multiple of four.
const DERIVED_MTU: u32 = 1500 - 62;

impl UserspaceConfig {
    /// MTU of the tunnel device.
    pub(crate) fn device_mtu(&self) -> u32 {
        if self.mtu == 0 { DERIVED_MTU } else { self.mtu }
    }
}

/// Why the backend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host refused the device, a route, a rule or a policy.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A raw ESP socket could not be had.
    #[error("{0}")]
    Socket(String),
    /// A setting is out of its range.
    #[error("backend.userspace: {setting} = {value}: {reason}")]
    Setting {
        /// Key.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        reason: &'static str,
    },
    /// The system has no random numbers, threads or event counters left.
    #[error("cannot {action}: {reason}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}
