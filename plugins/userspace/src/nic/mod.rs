//! Devices as the datapath plays them: itself, and NICs that it simulates with their limits and their faults.
//!
//! There is one datapath; a simulated NIC is a share of its tables with a claim about what fits in. [`NicLimits`] is the claim, from which the rungs of a
//! [`Device`] are made; [`ipsec::carry`] holds every operation against it, and `devices` knows how full each rung is and which link is up. What a NIC's
//! kernel does is done here too: a link that goes down takes what was offloaded to it along, without a word about single SAs.
//!
//! Nothing of this costs a packet anything: rungs differ in what they take on, not in how packets pass.

mod devices;
mod faults;
mod limits;

use std::sync::Arc;

use ipsec::{
    Capabilities, Device, DeviceId, DeviceState, DeviceTable, LimitUnits, ModeInUse, OffloadMode, ReplayWindows, Rung,
    SelectorSupport,
};

use crate::control::MIN_WINDOW;
use crate::crypto;
use crate::esp::MAX_WINDOW;
use ipsec::spi::SLOTS;

pub(crate) use devices::Devices;
pub(crate) use faults::{Faults, Reporter};
pub(crate) use ipsec::carry::{check_outer, effective_limits};
pub use limits::{NicLimits, Preset, cipher_named, cipher_names};

/// Which NICs the backend poses as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulation {
    /// What each of them carries.
    pub limits: NicLimits,
    /// One for each Ethernet-like link of the machine, instead of one that is the tunnel device.
    pub each_link: bool,
}

impl Simulation {
    /// What each NIC carries, best first, and software after it.
    pub fn rungs(&self) -> Vec<Rung> {
        device(DeviceId(0), &"".into(), Some(&self.limits)).rungs
    }
}

/// The devices that a backend with this tunnel device and simulation will have, as far as that is known without starting it: where each link poses
/// as a NIC, one stands for them all.
pub fn expected_devices(device: &str, simulation: Option<&Simulation>) -> DeviceTable {
    let mut devices = Devices::new(&device.into(), simulation);
    if let Some(simulation) = simulation.filter(|simulation| simulation.each_link) {
        devices.add(&"NIC".into(), None, Some(&simulation.limits));
    }
    devices.table().clone()
}

/// What the datapath carries by itself.
pub(crate) fn software() -> Capabilities {
    Capabilities {
        algorithms: crypto::algorithms(),
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(MIN_WINDOW, MAX_WINDOW),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits { time: true, bytes: true, packets: true },
        sa_table: Some(SLOTS),
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: true,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    }
}

/// A device called `link`: a simulated NIC with these limits, or nothing but software.
pub(crate) fn device(id: DeviceId, link: &Arc<str>, nic: Option<&NicLimits>) -> Device {
    let software = software();
    let mode = |mode| ModeInUse { mode, device: Some(Arc::clone(link)), simulated: true };
    let mut rungs = Vec::new();
    if let Some(nic) = nic {
        let packet = nic.packet_rung(&software);
        rungs.extend(packet.map(|capabilities| Rung { mode: mode(OffloadMode::Packet), capabilities }));
        let crypto = nic.crypto_rung(&software);
        rungs.extend(crypto.map(|capabilities| Rung { mode: mode(OffloadMode::Crypto), capabilities }));
    }
    let name = if nic.is_some() { format!("{link} (simulated)").into() } else { Arc::clone(link) };
    rungs.push(Rung { mode: ModeInUse::SOFTWARE, capabilities: software });
    Device { id, name, state: DeviceState::Up, rungs }
}
