//! What a device can do, known before anything is negotiated.

use std::sync::Arc;

use crate::algorithm::EspAlgorithm;
use crate::handle::DeviceId;
use crate::sa::ModeInUse;

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

/// What a device can carry.
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
    /// Smallest and largest replay window, in packets.
    pub replay_window: (u32, u32),
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

/// One device of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub id: DeviceId,
    /// Name users know it by.
    pub name: Arc<str>,
    /// Whether it can be used now.
    pub state: DeviceState,
    /// What it can carry.
    pub capabilities: Capabilities,
    /// How an SA on it is shown when the configuration asks for no offload.
    pub plain_mode: ModeInUse,
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
