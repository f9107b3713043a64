//! Devices the double poses as.

use crate::algorithm::EspAlgorithm;
use crate::capability::{
    Capabilities, Device, DeviceState, DeviceTable, LimitUnits, ReplayWindows, Rung, SelectorSupport,
};
use crate::handle::DeviceId;
use crate::sa::{ModeInUse, OffloadMode};

/// Two NICs, each with packet offload and software, both of which carry everything but marks; the tables are small enough to be filled.
pub fn able() -> DeviceTable {
    let device = |number: u16| {
        let name = format!("nic{number}");
        let packet = Rung { mode: offloaded(&name), capabilities: everything() };
        let software = Rung { mode: ModeInUse::SOFTWARE, capabilities: everything() };
        Device { id: DeviceId(number), name: name.into(), state: DeviceState::Up, rungs: vec![packet, software] }
    };
    DeviceTable { devices: vec![device(0), device(1)] }
}

/// One NIC whose packet offload carries little: one cipher, tunnel mode, short sequence numbers, native ESP, protecting policies of plain
/// prefixes, and limits in packets.
pub fn modest() -> DeviceTable {
    let little = Capabilities {
        algorithms: vec![EspAlgorithm::AES_128_GCM],
        tunnel: true,
        transport: false,
        esn: false,
        replay_windows: ReplayWindows::Only(vec![32, 128]),
        selectors: SelectorSupport { ranges: false, ports: false, protocols: Some(vec![6, 17]) },
        udp_encapsulation: false,
        limits: LimitUnits { time: false, bytes: false, packets: true },
        sa_table: Some(6),
        policy_table: Some(4),
        all_policy_kinds: false,
        in_place_move: false,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    };
    let packet = Rung { mode: offloaded("nic0"), capabilities: little };
    let software = Rung { mode: ModeInUse::SOFTWARE, capabilities: everything() };
    let (id, name, state) = (DeviceId(0), "nic0".into(), DeviceState::Up);
    DeviceTable { devices: vec![Device { id, name, state, rungs: vec![packet, software] }] }
}

fn offloaded(device: &str) -> ModeInUse {
    ModeInUse { mode: OffloadMode::Packet, device: Some(device.into()), simulated: true }
}

fn everything() -> Capabilities {
    let gcm = [128, 192, 256].into_iter().filter_map(|bits| EspAlgorithm::from_ids(20, Some(bits), None));
    let integrity = [12, 13, 14];
    let cbc = [128, 256].into_iter().flat_map(|bits| {
        integrity.into_iter().filter_map(move |integrity| EspAlgorithm::from_ids(12, Some(bits), Some(integrity)))
    });
    Capabilities {
        algorithms: gcm.chain([EspAlgorithm::CHACHA20_POLY1305]).chain(cbc).collect(),
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(32, 1024),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits { time: true, bytes: true, packets: true },
        sa_table: Some(24),
        policy_table: Some(24),
        all_policy_kinds: true,
        in_place_move: true,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    }
}
