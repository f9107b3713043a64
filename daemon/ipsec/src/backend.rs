//! The contract between the core and whatever holds SAs and policies.
//!
//! Requests go in through [`OffloadBackend::submit`], reports come back through [`Reports`]. There is no async and no stream here: a
//! router or a test queue implements [`Reports`] and forwards by the shard inside each handle. The rules every backend keeps are the named
//! behaviours of the conformance kit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capability::DeviceTable;
use crate::handle::{DeviceId, PolicyHandle, SaHandle, Shard, Spi, Tag};
use crate::policy::{GuardSpec, PolicySpec};
use crate::sa::{ModeInUse, OuterAddresses, SaSpec, UdpEncapsulation};
use crate::selector::PacketSelectors;
use crate::tap::{Tap, View};

/// Two ends of an IKE datagram's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// Where a backend reports to. Called from any backend thread; implementations never block.
pub trait Reports: Send + Sync {
    /// The outcome of a request: exactly once for each submit, also when the device has died.
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>);
    /// Something happened. Bounded by state: one outstanding acquire per policy, one soft and one hard expire per SA.
    fn event(&self, event: Event);
    /// An IKE datagram found on an adopted NAT-T socket; the non-ESP marker is removed.
    fn ike_datagram(&self, path: Path, octets: &[u8]);
}

/// What is asked of a backend.
#[derive(Clone, Debug)]
pub enum Request {
    /// All or nothing, in order; on refusal what was done is undone in reverse.
    Apply(Vec<Op>),
    /// State of one SA.
    Query(SaHandle),
    /// All SAs and policies installed by this process.
    List(Scope),
}

/// What a list covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// What belongs to one shard.
    Shard(Shard),
}

impl Scope {
    /// Whether what belongs to `shard` is covered.
    pub fn covers(self, shard: Shard) -> bool {
        match self {
            Self::All => true,
            Self::Shard(one) => one == shard,
        }
    }
}

/// One change of SAD, SPD or guard.
#[derive(Clone, Debug)]
pub enum Op {
    /// Adds an SA. An outbound one carries nothing before it is activated.
    InstallSa(Box<SaSpec>),
    /// Moves an SA to other outer addresses or another encapsulation.
    UpdateSa {
        /// Which.
        sa: SaHandle,
        /// New outer addresses.
        outer: OuterAddresses,
        /// New encapsulation.
        encapsulation: Option<UdpEncapsulation>,
    },
    /// Takes an SA out; the answer has its last counters. Its SPI becomes free again after a pause, unless the same request installs another SA
    /// with it. A missing one is no error.
    RemoveSa(SaHandle),
    /// Adds a policy.
    InstallPolicy(PolicySpec),
    /// Puts another specification in place of a policy with the same handle.
    UpdatePolicy(PolicySpec),
    /// Takes a policy out. A missing one is no error.
    RemovePolicy(PolicyHandle),
    /// Makes an outbound protecting policy use `sa` from the next packet on.
    Activate {
        /// The policy.
        policy: PolicyHandle,
        /// The installed outbound SA.
        sa: SaHandle,
    },
    /// Puts up the fail-closed guard for a selector; before its first policy.
    InstallGuard(GuardSpec),
    /// Takes the guard down.
    RemoveGuard(GuardSpec),
    /// Removes all SAs and policies of this process, not the guards.
    Flush,
}

/// A successful outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All operations stand.
    Applied(Applied),
    /// State of the SA asked for.
    Status(SaStatus),
    /// State of everything that is installed.
    Installed(Installed),
}

/// What became of the SAs that operations named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// For each SA installed, the mode read back from the device.
    pub modes: Vec<(SaHandle, ModeInUse)>,
    /// For each SA taken out, its last state: every packet that it has carried is counted. So this answer may come later than those to other
    /// requests, when nothing can use the SA any more.
    pub removed: Vec<SaStatus>,
}

/// What a backend holds, as read from the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// SAs.
    pub sas: Vec<SaStatus>,
    /// Policies, without the backend's own for IKE and the guard.
    pub policies: Vec<PolicyStatus>,
}

/// An installed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Which.
    pub policy: PolicyHandle,
    /// The device that holds it.
    pub device: DeviceId,
    /// Outbound SA in use, of a protecting policy.
    pub sa: Option<SaHandle>,
    /// Where it is looked up: in the device with packet offload, in software otherwise. Crypto offload is about SAs only, and what is forwarded is
    /// looked up in software always.
    pub mode: ModeInUse,
}

/// State of an installed SA, from the device's own counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaStatus {
    /// Which.
    pub sa: SaHandle,
    /// The device that holds it.
    pub device: DeviceId,
    /// Its SPI.
    pub spi: Spi,
    /// Octets of inner packets (tunnel mode) or payloads (transport mode) carried.
    pub bytes: u64,
    /// Packets carried.
    pub packets: u64,
    /// Whole seconds since the last packet; `None` before the first.
    pub idle_seconds: Option<u64>,
    /// Highest sequence number sent or accepted.
    pub sequence: u64,
    /// The soft limit that was reached first: whoever missed the event sees it here.
    pub soft_expired: Option<LimitUnit>,
    /// The hard limit that was reached: it carries nothing any more.
    pub hard_expired: Option<LimitUnit>,
    /// Offload really in use.
    pub mode: ModeInUse,
}

/// Unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitUnit {
    /// Time since install.
    Time,
    /// Octets.
    Bytes,
    /// Packets.
    Packets,
}

/// What a backend tells by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet hit a trap policy and is held.
    Acquire {
        /// The trap.
        policy: PolicyHandle,
        /// The packet.
        packet: PacketSelectors,
    },
    /// The first packet passed an inbound SA: the peer has switched to it.
    InboundFirstUse {
        /// The SA.
        sa: SaHandle,
    },
    /// A soft limit was reached; the SA goes on.
    SoftExpire {
        /// The SA.
        sa: SaHandle,
        /// The limit.
        unit: LimitUnit,
    },
    /// A hard limit was reached; the SA carries nothing any more.
    HardExpire {
        /// The SA.
        sa: SaHandle,
        /// The limit.
        unit: LimitUnit,
    },
    /// An authentic packet that advanced the window came from another address or port.
    MappingChange {
        /// The inbound SA.
        sa: SaHandle,
        /// Where the packet came from.
        remote: SocketAddr,
    },
    /// The first packet on this SA came in the other ESP form (UDP or native) than we send.
    PeerForm {
        /// The inbound SA.
        sa: SaHandle,
        /// The peer's ports if it uses UDP, `None` for native ESP.
        encapsulation: Option<UdpEncapsulation>,
    },
    /// A device stopped carrying traffic.
    DeviceDown(DeviceId),
    /// A device carries traffic again; its tables are empty.
    DeviceUp(DeviceId),
    /// A device was removed.
    DeviceGone(DeviceId),
    /// An installed SA is no longer in the device.
    StateLost {
        /// The SA.
        sa: SaHandle,
    },
    /// Reports were lost, or somebody else has changed the tables: ask for a [`Request::List`] and compare.
    Resync,
    /// A drop counter left zero.
    Drops {
        /// Reason in the backend's words, for example `no-policy` or `replay`.
        reason: &'static str,
        /// Packets so far.
        packets: u64,
    },
}

/// Why a backend refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The device cannot carry what was asked.
    #[error("device {device} cannot carry {what}: {reason}")]
    Unsupported {
        /// Device name.
        device: Arc<str>,
        /// What was asked, for example `SA with AES_CBC_128`.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A table is full.
    #[error("device {device} is full: {table} holds {size} entries")]
    Full {
        /// Device name.
        device: Arc<str>,
        /// `SAD` or `SPD`.
        table: &'static str,
        /// Its size.
        size: u32,
    },
    /// Something of this name exists.
    #[error("{0} exists already")]
    Exists(String),
    /// There is nothing of this name.
    #[error("{0} does not exist")]
    Missing(String),
    /// The device is down, gone, or the backend has shut down.
    #[error("device {0} is not available")]
    Unavailable(Arc<str>),
    /// The operating system refused.
    #[error("{action}: {reason}")]
    System {
        /// What was tried, with its object.
        action: String,
        /// The system's words.
        reason: String,
    },
    /// The request makes no sense.
    #[error("invalid request: {0}")]
    Invalid(String),
}

impl OffloadError {
    /// Whether the device works and this rung of it cannot take what was asked: another one may.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unsupported { .. } | Self::Full { .. } => true,
            Self::Exists(_) | Self::Missing(_) | Self::Unavailable(_) | Self::System { .. } | Self::Invalid(_) => false,
        }
    }
}

/// No SPI is free on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no SPI is free")]
pub struct TableFull;

/// Who reads the NAT-T sockets after [`OffloadBackend::adopt_nat_sockets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatReader {
    /// The daemon goes on reading.
    Daemon,
    /// The backend reads and hands IKE up through [`Reports::ike_datagram`].
    Backend,
}

/// What remains in force when the daemon stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// Guards stay: protected traffic is blocked.
    #[default]
    Block,
    /// Guards go: traffic flows in clear.
    Open,
}

/// Holds SAs and policies. Implementations are driven from one router and called from any thread.
///
/// Besides the requests a backend keeps, by itself: IKE bypassed (own addresses and ports only) before the first protecting policy; ESP
/// accepted both native and in UDP on every inbound SA; no packet in clear that a policy or guard forbids.
pub trait OffloadBackend: Send + Sync {
    /// Devices and capabilities as last seen; no I/O.
    fn devices(&self) -> Arc<DeviceTable>;
    /// The device that carries traffic between these outer addresses; no I/O.
    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId>;
    /// An unpredictable free SPI of `device`, taken until an SA with it is removed or [`Self::release_spi`].
    fn reserve_spi(&self, device: DeviceId) -> Result<Spi, TableFull>;
    /// Gives back a reserved SPI that no SA was installed with.
    fn release_spi(&self, device: DeviceId, spi: Spi);
    /// Asks; the outcome comes through [`Reports::done`] with the same tag. Requests are carried out, and answered, in the order in which they
    /// were submitted: a [`Request::List`] shows what all before it have done, and nothing of those after it.
    fn submit(&self, tag: Tag, request: Request);
    /// Packets dropped so far, by reason in the backend's words; nothing where the backend does not count them. No I/O.
    fn drops(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Shows packets to `tap` from now on, to nobody with `None`; whoever was shown them before is forgotten. Gives what of them can be seen. May
    /// do I/O.
    ///
    /// # Errors
    /// Why this data path shows none, and where else to look, in words.
    fn show_packets(&self, _tap: Option<Arc<dyn Tap>>) -> Result<View, String> {
        Err("this data path does not show its packets".into())
    }
    /// Hands over the UDP sockets of the NAT-T port; the answer says who reads them from now on.
    fn adopt_nat_sockets(&self, sockets: Vec<OwnedFd>) -> io::Result<NatReader>;
    /// What an earlier run left in force and nobody has claimed since, in words: traffic that is blocked until somebody says that it may flow.
    /// May do I/O.
    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
    /// Takes that back: the traffic flows from now on. May do I/O.
    ///
    /// # Errors
    /// The system's refusal; some of it may be gone.
    fn drop_leftovers(&self) -> Result<(), OffloadError> {
        Ok(())
    }
    /// Answers everything outstanding and stops. Guards are treated as `on_stop` says.
    fn shut_down(&self, on_stop: OnStop);
}
