//! SAD entries (RFC 4301 §4.4.2).

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::algorithm::{EspAlgorithm, KeyMaterial};
use crate::handle::{DeviceId, Reqid, SaHandle, Spi};
use crate::limits::Limits;
use crate::selector::SelectorPair;
use crate::tags::Tags;

/// Which way an SA or a policy works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the peer to us.
    Inbound,
    /// From us to the peer.
    Outbound,
    /// From the peer, forwarded to another host (policies only; backends without forward policies ignore it).
    Forward,
}

/// What ESP encloses (RFC 4303 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaMode {
    /// A whole IP packet.
    Tunnel,
    /// The payload of an IP packet.
    Transport,
}

/// Offload the configuration asks for (`hw_offload`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffloadMode {
    /// No device.
    #[default]
    No,
    /// The device does cryptography; install fails without one.
    Crypto,
    /// The device does the whole data path; install fails without one.
    Packet,
    /// The best the device can do, down to none.
    Auto,
}

/// Offload really in use, read back from the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeInUse {
    /// `No`, `Crypto` or `Packet`; never `Auto`.
    pub mode: OffloadMode,
    /// Name of the device, where there is one.
    pub device: Option<Arc<str>>,
    /// The device is a simulation.
    pub simulated: bool,
}

impl ModeInUse {
    /// No offload.
    pub const SOFTWARE: Self = Self { mode: OffloadMode::No, device: None, simulated: false };
}

/// Outer addresses of a tunnel, or the addresses of a transport-mode packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OuterAddresses {
    /// Ours.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UdpEncapsulation {
    /// Our port, usually 4500.
    pub local_port: u16,
    /// The peer's port as seen by us.
    pub remote_port: u16,
}

/// What `copy_dscp` says about the DSCP field (RFC 4301 §5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyDscp {
    /// Inner to outer on encapsulation only.
    #[default]
    Out,
    /// Outer to inner on decapsulation only.
    In,
    /// Both ways.
    Yes,
    /// Never.
    No,
}

/// How outer header fields relate to inner ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderCopy {
    /// Copy the don't-fragment bit to the outer header.
    pub df: bool,
    /// Treat ECN by RFC 6040; when false the outer field is Not-ECT.
    pub ecn: bool,
    /// DSCP.
    pub dscp: CopyDscp,
}

impl Default for HeaderCopy {
    fn default() -> Self {
        Self { df: true, ecn: true, dscp: CopyDscp::Out }
    }
}

/// An SAD entry as the core wants it installed.
#[derive(Clone, Debug)]
pub struct SaSpec {
    /// The core's name for the entry.
    pub handle: SaHandle,
    /// Device that holds it.
    pub device: DeviceId,
    /// `Inbound` or `Outbound`.
    pub direction: Direction,
    /// SPI of the receiver: ours (from [`crate::OffloadBackend::reserve_spi`]) for inbound, the peer's for outbound.
    pub spi: Spi,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// Outer addresses. In transport mode they are those of the packets themselves, so `selectors` name no others.
    pub outer: OuterAddresses,
    /// Transport mode with NAT on the way: the addresses in the peer's view, ours as it sends to it and its own as it knows it. Its checksums
    /// are made with them, so the receiver puts them right (RFC 3948 §3.1.2). `None` when both ends see the same addresses.
    pub peer_view: Option<OuterAddresses>,
    /// Send ESP in UDP. Inbound SAs accept both forms whatever this says.
    pub encapsulation: Option<UdpEncapsulation>,
    /// Transforms.
    pub algorithm: EspAlgorithm,
    /// Keys; [`KeyMaterial::fits`] the algorithm.
    pub key: KeyMaterial,
    /// 64-bit sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Anti-replay window in packets, inbound; 0 = off.
    pub replay_window: u32,
    /// Negotiated selectors: a decapsulated packet that matches none of them is dropped (RFC 4301 §5.2 step 4).
    pub selectors: Arc<[SelectorPair]>,
    /// Soft and hard limits; each end acts on its own.
    pub limits: Limits,
    /// Groups the SAs of one child.
    pub reqid: Reqid,
    /// Header field rules.
    pub copy: HeaderCopy,
    /// The rung of the device that is to carry it: `No`, `Crypto` or `Packet`. `Auto` is a choice of the configuration and never comes here: the
    /// core tries one rung after the other, and a backend refuses it as [`crate::OffloadError::Invalid`].
    pub offload: OffloadMode,
    /// Marks and interface id; a device without [`crate::Capabilities::marks`] or [`crate::Capabilities::interface_ids`] is not asked for them.
    pub tags: Tags,
    /// Last sequence number already used (outbound) or received (inbound); 0 for a fresh SA.
    pub initial_sequence: u64,
    /// Connection and child the SA belongs to, for logs and refusals.
    pub name: Arc<str>,
}
