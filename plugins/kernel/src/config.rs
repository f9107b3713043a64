//! The `[backend.kernel]` table and what can be wrong at start.

use std::path::PathBuf;

use offload_host::{HostError, KernelHostConfig};

use crate::xfrm::XfrmError;

/// Configuration of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Routes, guard and IKE.
    pub host: KernelHostConfig,
    /// Where it is written down which SAs are ours, so that the next run finds them after a crash; `None` = nowhere.
    pub journal: Option<PathBuf>,
    /// Whether the kernel holds the packets that wait for an SA (`net.core.xfrm_larval_drop = 0`), where it may be told so.
    pub hold_packets: bool,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            host: KernelHostConfig::default(),
            journal: Some("/run/cygnet/kernel.journal".into()),
            hold_packets: true,
        }
    }
}

/// Why the backend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host refused a route, a rule, a policy of the guard, or a look at its links.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The kernel refused a look at its SAs or policies.
    #[error("the kernel's IPsec: {0}")]
    Xfrm(#[from] XfrmError),
    /// The system has no random numbers, threads or sockets left.
    #[error("cannot {action}: {reason}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}
