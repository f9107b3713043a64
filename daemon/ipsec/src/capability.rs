//! What a device can do, known before anything is negotiated.
//!
//! A device offers one or more ways of carrying an SA, from best to plainest: the whole data path in the device, its cryptography only, or
//! nothing but software. Each such [`Rung`] has capabilities of its own. What the configuration asks for picks one rung, or with
//! [`OffloadMode::Auto`] the best that can carry what is asked.

use std::sync::Arc;

use crate::algorithm::EspAlgorithm;
use crate::handle::DeviceId;
use crate::sa::{ModeInUse, OffloadMode};

/// Whether a device can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Carries traffic.
    Up,
    /// Present, but carries nothing; its table contents are to be taken as lost.
    Down,
    /// Was removed.
    Gone,
}

/// Which limits a device raises by itself; the others are emulated from counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUnits {
    /// Time since install.
    pub time: bool,
    /// Octets.
    pub bytes: bool,
    /// Packets.
    pub packets: bool,
}

impl LimitUnits {
    /// Everything.
    pub const ALL: Self = Self { time: true, bytes: true, packets: true };
    /// Nothing: whoever installs the SA watches its counters.
    pub const NONE: Self = Self { time: false, bytes: false, packets: false };
}

/// Anti-replay windows of inbound SAs, in packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayWindows {
    /// From the smallest to the largest, and 0 for none.
    Range(u32, u32),
    /// These only; 0 = none must be named where it is allowed.
    Only(Vec<u32>),
}

impl ReplayWindows {
    /// Whether an SA with this window can be had.
    pub fn allow(&self, window: u32) -> bool {
        match self {
            Self::Range(least, most) => window == 0 || (*least..=*most).contains(&window),
            Self::Only(windows) => windows.contains(&window),
        }
    }
}

/// Selectors of policies beyond plain prefixes of any protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorSupport {
    /// Address ranges that are no prefixes.
    pub ranges: bool,
    /// Ports, or ICMP type and code.
    pub ports: bool,
    /// Protocols besides any; `None` = all.
    pub protocols: Option<Vec<u8>>,
}

impl SelectorSupport {
    /// Everything a traffic selector can say.
    pub const FULL: Self = Self { ranges: true, ports: true, protocols: None };
}

/// What one rung of a device can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// ESP algorithms.
    pub algorithms: Vec<EspAlgorithm>,
    /// Tunnel mode.
    pub tunnel: bool,
    /// Transport mode.
    pub transport: bool,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay windows.
    pub replay_windows: ReplayWindows,
    /// Selectors of policies.
    pub selectors: SelectorSupport,
    /// ESP in UDP.
    pub udp_encapsulation: bool,
    /// Limits raised by the device.
    pub limits: LimitUnits,
    /// SAD entries it holds at most; `None` when bounded by memory only.
    pub sa_table: Option<u32>,
    /// SPD entries it holds at most; `None` when bounded by memory only.
    pub policy_table: Option<u32>,
    /// Bypass, discard and trap policies, besides protect.
    pub all_policy_kinds: bool,
    /// Outer addresses of an SA can change in place.
    pub in_place_move: bool,
    /// Installing an outbound SA and switching to it are separate steps.
    pub separate_activation: bool,
    /// Policies and SAs can be bound to packet marks, and SAs can set them.
    pub marks: bool,
    /// Policies and SAs can be bound to an interface id.
    pub interface_ids: bool,
}

/// One way in which a device carries SAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// How an SA on it is shown.
    pub mode: ModeInUse,
    /// What it can carry.
    pub capabilities: Capabilities,
}

/// One device of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub id: DeviceId,
    /// Name users know it by.
    pub name: Arc<str>,
    /// Whether it can be used now.
    pub state: DeviceState,
    /// How it carries SAs, best first: packet offload, crypto offload, none. Each mode at most once, at least one.
    pub rungs: Vec<Rung>,
}

impl Device {
    /// The rung of one mode, if the device has it; none for [`OffloadMode::Auto`], which is a choice and not a mode.
    pub fn rung(&self, mode: OffloadMode) -> Option<&Rung> {
        self.rungs.iter().find(|rung| rung.mode.mode == mode)
    }

    /// The rungs that may be tried for what the configuration asks, best first.
    pub fn ladder(&self, wanted: OffloadMode) -> impl Iterator<Item = &Rung> {
        self.rungs.iter().filter(move |rung| wanted == OffloadMode::Auto || rung.mode.mode == wanted)
    }

    /// Capabilities of the first rung for what the configuration asks.
    pub fn capabilities(&self, wanted: OffloadMode) -> Option<&Capabilities> {
        self.ladder(wanted).next().map(|rung| &rung.capabilities)
    }
}

/// The devices of a backend as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceTable {
    /// All devices; those that are gone stay until restart.
    pub devices: Vec<Device>,
}

impl DeviceTable {
    /// The device called `id`.
    pub fn get(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }
}
