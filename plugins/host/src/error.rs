//! What the host kernel can refuse, with the object and the kernel's own words.

use std::io;

use ipsec::OffloadError;

/// The kernel's answer to a refused netlink request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// Positive errno.
    pub errno: i32,
    /// Extended acknowledgement, where the kernel gave one.
    pub text: Option<String>,
}

impl KernelError {
    /// Whether the errno is `errno`.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}

impl std::error::Error for KernelError {}

/// Why something about the host could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The TUN device could not be made or configured.
    #[error("device {device}: {action}: {source}")]
    Device {
        /// Device name.
        device: String,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// A netlink request was refused.
    #[error("{action} {object}: {source}")]
    Kernel {
        /// What was tried, for example `add route`.
        action: &'static str,
        /// On what.
        object: String,
        /// The kernel's words.
        source: KernelError,
    },
    /// A netlink socket failed, or what came out of it could not be read.
    #[error("{family} netlink: {source}")]
    Netlink {
        /// `route`, `xfrm` or `netfilter`.
        family: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// A setting under /proc/sys could not be written.
    #[error("write {value} to {path}: {source}")]
    Sysctl {
        /// File.
        path: String,
        /// Value.
        value: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// A socket option was refused.
    #[error("socket option {option}: {source}")]
    SocketOption {
        /// Option name.
        option: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The routing table is not ours alone.
    #[error(
        "routing table {table} holds a foreign route ({route}); choose another with `table` of the backend or remove the route"
    )]
    ForeignRoute {
        /// Table.
        table: u32,
        /// The route.
        route: String,
    },
    /// The kernel holds a policy of somebody else with the selector that ours needs.
    #[error("the kernel holds a foreign policy {policy}; it must go before this selector can be guarded")]
    ForeignPolicy {
        /// The policy.
        policy: String,
    },
    /// A selector says something that routes and rules of the kernel cannot express.
    #[error("selector {selector} cannot be routed: {reason}")]
    NotExpressible {
        /// The selector.
        selector: String,
        /// What is in the way.
        reason: &'static str,
    },
    /// The kernel lacks something that cannot be done without.
    #[error("this kernel has no {what}: {remedy}")]
    Absent {
        /// What.
        what: &'static str,
        /// How to get it.
        remedy: &'static str,
    },
    /// A setting that makes no sense.
    #[error("{setting} = {value}: {reason}")]
    Setting {
        /// Key of the backend.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        reason: &'static str,
    },
}

impl From<HostError> for OffloadError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotExpressible { .. } | HostError::Setting { .. } => Self::Invalid(error.to_string()),
            HostError::ForeignPolicy { .. } | HostError::ForeignRoute { .. } => Self::Exists(error.to_string()),
            HostError::Absent { what, remedy } => {
                Self::System { action: format!("this kernel has no {what}"), reason: remedy.to_owned() }
            }
            HostError::Kernel { action, object, source } => {
                Self::System { action: format!("{action} {object}"), reason: source.to_string() }
            }
            HostError::Device { device, action, source } => {
                Self::System { action: format!("device {device}: {action}"), reason: source.to_string() }
            }
            HostError::Netlink { family, source } => {
                Self::System { action: format!("{family} netlink"), reason: source.to_string() }
            }
            HostError::Sysctl { path, value, source } => {
                Self::System { action: format!("write {value} to {path}"), reason: source.to_string() }
            }
            HostError::SocketOption { option, source } => {
                Self::System { action: format!("socket option {option}"), reason: source.to_string() }
            }
        }
    }
}
