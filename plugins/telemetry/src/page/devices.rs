//! `/api/devices`: what the backend's devices can carry, rung by rung.

use axum::Json;
use axum::extract::State as Shared;
use ike_model::device::{Device, DeviceState, OffloadMode, ReplayWindows, Rung};
use serde::Serialize;

use crate::site::Site;

#[derive(Serialize)]
pub(super) struct Devices {
    v: u32,
    backend: &'static str,
    devices: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    rungs: Vec<ShownRung>,
}

#[derive(Serialize)]
struct ShownRung {
    /// `packet`, `crypto` or `software`.
    mode: &'static str,
    simulated: bool,
    algorithms: Vec<String>,
    tunnel: bool,
    transport: bool,
    esn: bool,
    replay_windows: Vec<String>,
    ranges: bool,
    ports: bool,
    all_protocols: bool,
    /// Where not all: these.
    protocols: Vec<u8>,
    udp_encapsulation: bool,
    /// Limits that the device watches itself.
    limits: Vec<&'static str>,
    /// Entries; `null` = bounded by memory only.
    sa_table: Option<u32>,
    policy_table: Option<u32>,
    all_policy_kinds: bool,
    in_place_move: bool,
    separate_activation: bool,
    marks: bool,
    interface_ids: bool,
}

pub(super) async fn devices(Shared(site): Shared<Site>) -> Json<Devices> {
    let view = site.view().await;
    Json(Devices { v: 1, backend: view.backend, devices: view.devices.devices.iter().map(shown).collect() })
}

fn shown(device: &Device) -> Shown {
    let state = match device.state {
        DeviceState::Up => "up",
        DeviceState::Down => "down",
        DeviceState::Gone => "gone",
    };
    Shown { name: device.name.to_string(), state, rungs: device.rungs.iter().map(rung).collect() }
}

fn rung(rung: &Rung) -> ShownRung {
    let has = &rung.capabilities;
    let limits = [("time", has.limits.time), ("bytes", has.limits.bytes), ("packets", has.limits.packets)];
    ShownRung {
        mode: match rung.mode.mode {
            OffloadMode::Packet => "packet",
            OffloadMode::Crypto => "crypto",
            OffloadMode::No | OffloadMode::Auto => "software",
        },
        simulated: rung.mode.simulated,
        algorithms: has.algorithms.iter().map(ToString::to_string).collect(),
        tunnel: has.tunnel,
        transport: has.transport,
        esn: has.esn,
        replay_windows: match &has.replay_windows {
            ReplayWindows::Range(least, most) => vec!["0".to_owned(), format!("{least}-{most}")],
            ReplayWindows::Only(only) => only.iter().map(ToString::to_string).collect(),
        },
        ranges: has.selectors.ranges,
        ports: has.selectors.ports,
        all_protocols: has.selectors.protocols.is_none(),
        protocols: has.selectors.protocols.clone().unwrap_or_default(),
        udp_encapsulation: has.udp_encapsulation,
        limits: limits.into_iter().filter_map(|(name, has)| has.then_some(name)).collect(),
        sa_table: has.sa_table,
        policy_table: has.policy_table,
        all_policy_kinds: has.all_policy_kinds,
        in_place_move: has.in_place_move,
        separate_activation: has.separate_activation,
        marks: has.marks,
        interface_ids: has.interface_ids,
    }
}
