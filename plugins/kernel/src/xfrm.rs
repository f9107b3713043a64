//! What is asked of the kernel's XFRM, in its own terms: states (SAs), policies and what it tells of them.
//!
//! One kernel policy is one [`PolicyKey`]: what the core calls a policy may be several of them, and several of the core's may share one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipsec::sa::HeaderCopy;
use ipsec::{Direction, EspAlgorithm, KeyMaterial, Mark, PacketSelectors, Reqid, SaMode, Spi, Tags, UdpEncapsulation};
use offload_host::HostError;
use offload_host::KernelError;
use offload_host::xfrm::{PolicyKey, Verdict};

/// What the kernel tells states apart by; the protocol is ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateId {
    /// Outer destination.
    pub destination: IpAddr,
    /// SPI.
    pub spi: Spi,
    /// Mark that packets need to find it.
    pub mark: Option<Mark>,
}

/// XFRMA_OFFLOAD_DEV of a state or policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOffload {
    /// Interface index.
    pub link: u32,
    /// Packet offload; crypto offload otherwise. Policies know packet offload only.
    pub packet: bool,
}

/// Limits that the kernel or the device is to raise; `None` = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLimits {
    /// Octets, soft.
    pub soft_bytes: Option<u64>,
    /// Octets, hard.
    pub hard_bytes: Option<u64>,
    /// Packets, soft.
    pub soft_packets: Option<u64>,
    /// Packets, hard.
    pub hard_packets: Option<u64>,
    /// Time since install after which the kernel asks for another.
    pub soft_time: Option<Duration>,
    /// Time since install after which the kernel deletes it.
    pub hard_time: Option<Duration>,
}

/// A state to be added.
#[derive(Clone, Debug)]
pub struct NewState<'k> {
    /// Destination, SPI, mark.
    pub id: StateId,
    /// Outer source.
    pub source: IpAddr,
    /// Inbound or outbound.
    pub direction: Direction,
    /// Group; never 0.
    pub reqid: Reqid,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// Transforms.
    pub algorithm: EspAlgorithm,
    /// Keys.
    pub key: &'k KeyMaterial,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Anti-replay window, inbound; 0 = none.
    pub replay_window: u32,
    /// Last number already used or received.
    pub initial_sequence: u64,
    /// ESP in UDP.
    pub encapsulation: Option<UdpEncapsulation>,
    /// Transport mode behind NAT: the addresses in the peer's view.
    pub original_source: Option<IpAddr>,
    /// Header field rules.
    pub copy: HeaderCopy,
    /// Marks set on packets, interface id.
    pub tags: Tags,
    /// Limits.
    pub limits: KernelLimits,
    /// Device.
    pub offload: Option<DeviceOffload>,
    /// CPU that this outbound state is for (RFC 9611), where the kernel knows XFRMA_SA_PCPU.
    pub cpu: Option<u32>,
    /// Outbound and ESP in UDP: how long after the last packet the kernel itself sends a NAT keepalive, in whole seconds; `None` = it sends none.
    pub nat_keepalive: Option<Duration>,
    /// What the packets inside may be, as the inbound policy's selector (its way, mark and interface id play no part); `None` = the policies alone
    /// say. Other packets are dropped when the state has opened them (RFC 4301 §5.2).
    pub selector: Option<PolicyKey>,
}

impl<'k> NewState<'k> {
    /// A state in software and tunnel mode with nothing beyond what every state has; inbound it has a window of 32 packets.
    pub fn plain(
        id: StateId,
        source: IpAddr,
        direction: Direction,
        reqid: Reqid,
        algorithm: EspAlgorithm,
        key: &'k KeyMaterial,
    ) -> Self {
        Self {
            id,
            source,
            direction,
            reqid,
            mode: SaMode::Tunnel,
            algorithm,
            key,
            esn: false,
            replay_window: if direction == Direction::Inbound { 32 } else { 0 },
            initial_sequence: 0,
            encapsulation: None,
            original_source: None,
            copy: HeaderCopy::default(),
            tags: Tags::NONE,
            limits: KernelLimits::default(),
            offload: None,
            cpu: None,
            nat_keepalive: None,
            selector: None,
        }
    }
}

/// A state as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Destination, SPI, mark.
    pub id: StateId,
    /// Outer source.
    pub source: IpAddr,
    /// Group.
    pub reqid: u32,
    /// Interface id; 0 = none.
    pub if_id: u32,
    /// Tunnel or transport; `None` = another mode, not one of ours.
    pub mode: Option<SaMode>,
    /// Direction, where it was given at install and the kernel keeps it.
    pub direction: Option<Direction>,
    /// Device, as the kernel shows it.
    pub offload: Option<DeviceOffload>,
    /// Octets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Highest number sent.
    pub sent_sequence: u64,
    /// Highest number received.
    pub received_sequence: u64,
    /// Wall clock at install, seconds since 1970.
    pub added: u64,
    /// Wall clock of the last packet, where software carried it.
    pub last_used: Option<u64>,
    /// Limits.
    pub limits: KernelLimits,
    /// How it was made.
    pub detail: StateDetail,
}

/// How a state was made, as the kernel shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateDetail {
    /// Transforms; `None` = others than ours.
    pub algorithm: Option<EspAlgorithm>,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Anti-replay window.
    pub replay_window: u32,
    /// ESP in UDP; which port is ours shows only where the direction does.
    pub encapsulation: Option<UdpEncapsulation>,
    /// Transport mode behind NAT: the source in the peer's view.
    pub original_source: Option<IpAddr>,
    /// Header field rules; what concerns only the other direction is as in the default.
    pub copy: HeaderCopy,
    /// Mark set on packets.
    pub set_mark: Option<Mark>,
    /// CPU.
    pub cpu: Option<u32>,
    /// NAT keepalives sent by the kernel.
    pub nat_keepalive: Option<Duration>,
    /// What the packets inside may be, where that is not everything of the families it carries; without mark and interface id.
    pub selector: Option<PolicyKey>,
}

/// The template of a policy that protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Outer source; unspecified = any.
    pub source: IpAddr,
    /// Outer destination; unspecified = any.
    pub destination: IpAddr,
    /// SPI of the state in use; `None` = any of the group.
    pub spi: Option<Spi>,
    /// Group.
    pub reqid: Reqid,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// Packets without the transform are let in too.
    pub optional: bool,
}

/// A policy, to be installed or as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Selector, direction, mark, interface id.
    pub key: PolicyKey,
    /// The lowest number is looked at first; those in a device before all others.
    pub priority: u32,
    /// The kernel's number; 0 = let the kernel choose.
    pub index: u32,
    /// Allow (with the template, protect) or block.
    pub verdict: Verdict,
    /// What protects; none = in clear.
    pub template: Option<Template>,
    /// Interface that holds it (packet offload).
    pub device: Option<u32>,
    /// Each CPU asks for a state of its own (RFC 9611); until it has one it uses one that is bound to none.
    pub per_cpu: bool,
}

/// What the kernel tells by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A packet met a policy whose state is missing.
    Acquire {
        /// Index of the policy.
        index: u32,
        /// Group of its template.
        reqid: u32,
        /// The packet.
        packet: PacketSelectors,
        /// The kernel's number of this acquire.
        sequence: u32,
        /// Interface of an offloaded policy.
        device: Option<u32>,
        /// CPU, where per-CPU states are asked for.
        cpu: Option<u32>,
    },
    /// A limit was reached.
    Expired {
        /// Which.
        id: StateId,
        /// The hard one: the state is gone.
        hard: bool,
        /// Counters at that moment.
        bytes: u64,
        /// Packets at that moment.
        packets: u64,
    },
    /// A state was added by anybody.
    StateAdded(StateId),
    /// A state was deleted by anybody.
    StateDeleted(StateId),
    /// All states were deleted.
    StatesFlushed,
    /// A policy was added or changed by anybody.
    PolicyChanged(PolicyKey),
    /// A policy was deleted by anybody, or expired.
    PolicyDeleted(PolicyKey),
    /// All policies were deleted.
    PoliciesFlushed,
    /// An authentic ESP-in-UDP packet came from another address or port.
    Mapping {
        /// The inbound state.
        id: StateId,
        /// New source.
        remote: SocketAddr,
    },
    /// Messages were lost: only a dump tells what is there.
    Lost,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum XfrmError {
    /// The kernel or the driver refused; its words are in the error.
    #[error("{0}")]
    Refused(#[from] KernelError),
    /// The netlink socket failed.
    #[error("{0}")]
    Socket(#[from] HostError),
    /// The kernel took the request and ignored a part of it.
    #[error("the kernel ignored {0}")]
    Ignored(&'static str),
}

/// The kernel's states and policies. Called by one thread.
pub trait Xfrm: Send {
    /// Adds a state (NEWSA). A larval one of the same group is replaced.
    ///
    /// # Errors
    /// The kernel's or the driver's refusal.
    fn add_state(&mut self, state: &NewState<'_>) -> Result<(), XfrmError>;
    /// Deletes a state; false when there was none.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn delete_state(&mut self, id: &StateId) -> Result<bool, XfrmError>;
    /// A state with fresh counters, or nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn state(&mut self, id: &StateId) -> Result<Option<State>, XfrmError>;
    /// All ESP states, larval ones left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn states(&mut self) -> Result<Vec<State>, XfrmError>;
    /// Adds a policy; with `replace` it takes the place of the one with the same key in one step.
    ///
    /// # Errors
    /// The kernel's or the driver's refusal.
    fn put_policy(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError>;
    /// Deletes the policy with this key and index; false when there was none.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn delete_policy(&mut self, key: &PolicyKey, index: u32) -> Result<bool, XfrmError>;
    /// The policy with this key, or nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn policy(&mut self, key: &PolicyKey) -> Result<Option<Policy>, XfrmError>;
    /// All policies that are not of a single socket.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn policies(&mut self) -> Result<Vec<Policy>, XfrmError>;
}
