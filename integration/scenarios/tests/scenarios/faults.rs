//! The fault matrix: devices that go down in every phase, vanish, are emptied or tampered with, and backends that refuse at every step.
//!
//! After every fault both ends have the same SAs with fresh keys (the oracle sees to it that no key is installed twice), nothing is left over,
//! and the guard stood all the time.

mod devices;
mod phases;
mod tampering;

use std::time::Duration;

use ike_model::Connection;
use ipsec::{DeviceId, DeviceState, OffloadError};
use scenarios::{A, B, Who, World, config};

/// The device of a gateway that has only one.
const DEVICE: DeviceId = DeviceId(0);

/// Two gateways; A is to be up always.
fn kept() -> World {
    kept_as(|connection| connection)
}

fn kept_as(change: impl Fn(Connection) -> Connection) -> World {
    let at_a = config::with_child(config::connection("gw", A, B), |child| child.start_action = config::START);
    World::pair_of(1, change(at_a), change(config::connection("gw", B, A)))
}

/// The same, up, with packets on their way.
fn kept_up() -> World {
    let mut world = kept();
    world.run_for(Duration::from_secs(15));
    world.check_one_tunnel(A, B);
    world
}

/// Nothing of what is protected can leave in clear.
#[track_caller]
fn check_guarded(world: &World, who: Who) {
    let guards = world.gateway(who).with_tables(|tables| tables.guards.len());
    world.check(guards == 1, &format!("{guards} guards"));
}

fn down(world: &mut World, who: Who) {
    world.set_device(who, DEVICE, DeviceState::Down);
}

fn up(world: &mut World, who: Who) {
    world.set_device(who, DEVICE, DeviceState::Up);
}

fn full() -> OffloadError {
    OffloadError::Full { device: "recorder".into(), table: "SAD", size: 2 }
}
