//! Several devices, traps, and ways that lead elsewhere.

use std::time::Duration;

use ike_model::Connection;
use ike_model::snapshot::ConfiguredState;
use ipsec::{DeviceId, DeviceState, PacketSelectors, PolicyAction};
use scenarios::{A, B, World, config};

use super::{DEVICE, check_guarded, down, kept_up, up};

fn trapped() -> World {
    let trap = |connection: Connection| config::with_child(connection, |child| child.start_action = config::TRAP);
    World::pair_of(1, trap(config::connection("gw", A, B)), config::connection("gw", B, A))
}

fn traps(world: &World) -> Vec<DeviceId> {
    let trap = |policy: &&ipsec::PolicySpec| matches!(policy.action, PolicyAction::Trap { .. });
    world.gateway(A).with_tables(|tables| tables.policies.values().filter(trap).map(|policy| policy.device).collect())
}

fn packet() -> PacketSelectors {
    PacketSelectors { source: config::host(A, 0), destination: config::host(B, 0), protocol: 6, ports: Some((1, 80)) }
}

/// The way moves to another device: the CHILD SA follows with fresh keys, make before break, with its policies.
#[test]
fn the_way_leads_through_another_device() {
    let mut world = kept_up();
    world.traffic_every = Some(Duration::from_millis(5));
    world.run_for(Duration::from_secs(1));
    let before = world.tunnels(A, B);
    let second = world.gateway(A).backend.add_device("eth1");
    world.lead_through(A, Some(second));
    world.run_for(Duration::from_secs(20));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    let tables = world.gateway(A).tables();
    assert!(tables.sas.values().all(|sa| sa.device == second));
    assert!(tables.policies.values().all(|policy| policy.device == second));
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    assert_eq!(world.gateway(A).count("child-sa.rekeyed"), 1, "once");
}

/// A way that leads nowhere moves nothing: what is installed may still work.
#[test]
fn no_way_moves_nothing() {
    let mut world = kept_up();
    let before = world.tunnels(A, B);
    world.gateway(A).backend.add_device("eth1");
    world.lead_through(A, None);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.tunnels(A, B), before);
    world.lead_through(A, Some(DEVICE));
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.tunnels(A, B), before);
}

/// A device that is down loses the tunnel to the one that carries the way then, and does not get it back by itself.
#[test]
fn another_device_takes_over() {
    let mut world = kept_up();
    let second = world.gateway(A).backend.add_device("eth1");
    world.gateway(A).backend.lead_through(Some(second));
    down(&mut world, A);
    let back = world.run_until(Duration::from_secs(1), |world| world.tunnels(A, B).len() == 1);
    world.check(back, "not up on the second device within a second");
    assert!(world.gateway(A).tables().sas.values().all(|sa| sa.device == second));
    let there = world.tunnels(A, B);
    up(&mut world, A);
    world.run_for(Duration::from_secs(30));
    world.check_one_tunnel(A, B);
    assert_eq!(world.tunnels(A, B), there);
}

/// The other device of a gateway is no business of a tunnel.
#[test]
fn another_device_goes_down() {
    let mut world = kept_up();
    let before = world.tunnels(A, B);
    let second = world.gateway(A).backend.add_device("eth1");
    for state in [DeviceState::Down, DeviceState::Up, DeviceState::Gone] {
        world.set_device(A, second, state);
        world.run_for(Duration::from_secs(5));
    }
    assert_eq!(world.tunnels(A, B), before);
    assert_eq!(world.gateway(A).count("offload.state-lost"), 0);
    assert_eq!((world.gateway(A).count("offload.device-down"), world.gateway(A).count("offload.device-up")), (2, 1));
}

/// Traps are lost with their device and come back with it; meanwhile the guard holds.
#[test]
fn traps_come_back_with_their_device() {
    let mut world = trapped();
    assert_eq!(traps(&world), [DEVICE]);
    down(&mut world, A);
    world.run_for(Duration::from_secs(5));
    assert!(traps(&world).is_empty());
    check_guarded(&world, A);
    let status = world.gateway(A).configured(world.now()).remove(0);
    assert_eq!(status.state, ConfiguredState::Refused("device recorder is down".into()));
    up(&mut world, A);
    world.run_for(Duration::from_millis(50));
    assert_eq!(traps(&world), [DEVICE]);
    assert!(world.acquire(A, packet()));
    world.run_for(Duration::from_secs(5));
    world.check_one_tunnel(A, B);
}

/// A trap that cannot be installed at load, for want of its device, is installed when that comes up.
#[test]
fn traps_wait_for_their_device() {
    let mut world = World::with_shards(1, &[1, 1]);
    down(&mut world, A);
    let trap = config::with_child(config::connection("gw", A, B), |child| child.start_action = config::TRAP);
    world.configure(A, trap);
    world.run_for(Duration::from_secs(5));
    assert!(traps(&world).is_empty());
    check_guarded(&world, A);
    up(&mut world, A);
    assert_eq!(traps(&world), [DEVICE]);
}

/// A trap stands where the way leads through.
#[test]
fn traps_follow_the_way() {
    let mut world = trapped();
    world.check_regularly(A, Duration::from_secs(1));
    let second = world.gateway(A).backend.add_device("eth1");
    world.lead_through(A, Some(second));
    world.run_for(Duration::from_secs(2));
    assert_eq!(traps(&world), [second]);
    assert_eq!(world.gateway(A).count("offload.repaired"), 0, "nothing was wrong with it");
}

/// Many tunnels at once: all are made again, below the IKE SAs that are there.
#[test]
fn many_are_lost_at_once() {
    const COUNT: u8 = 40;
    let many = |local, remote| {
        let mut connection = config::connection("gw", local, remote);
        let child = |number| {
            let mut child = config::child(&format!("net{number}"), local, remote, number);
            child.start_action = if local == A { config::START } else { child.start_action };
            child.into()
        };
        connection.children = (0..COUNT).map(child).collect();
        connection
    };
    let mut world = World::pair_of(1, many(A, B), many(B, A));
    world.run_for(Duration::from_secs(60));
    world.check_tunnels(A, B, COUNT.into());
    let before = world.tunnels(A, B);
    down(&mut world, A);
    world.run_for(Duration::from_secs(2));
    up(&mut world, A);
    world.run_for(Duration::from_secs(60));
    world.check_tunnels(A, B, COUNT.into());
    assert!(world.tunnels(A, B).iter().all(|tunnel| !before.contains(tunnel)));
    assert_eq!(world.gateway(A).count("offload.state-lost"), usize::from(COUNT));
}
