//! Address translation between the gateways: it is noticed, ports float, keepalives go out, and a new mapping is followed.

use std::time::Duration;

use ike_model::HostSpec;
use scenarios::{A, B, Nat, World, config};

fn behind_nat() -> World {
    let mut any = config::connection("gw", B, A);
    any.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(1, config::connection("gw", A, B), any);
    world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    world
}

#[test]
fn ports_float_and_esp_goes_in_udp() {
    let mut world = behind_nat();
    world.establish();
    assert_eq!((world.sent(A), world.sent(B)), (2, 2));
    let ports: Vec<_> =
        world.gateway(A).sent.iter().map(|(_, path, _)| (path.local.port(), path.remote.port())).collect();
    assert_eq!(ports, [(500, 500), (4500, 4500)]);
    let (a, b) = (&world.gateway(A).ike_sas(world.now())[0], &world.gateway(B).ike_sas(world.now())[0]);
    assert_eq!((a.nat_local, a.nat_remote, b.nat_local, b.nat_remote), (true, false, false, true));
    assert!(a.children[0].encap && b.children[0].encap);
    let tables = world.gateway(B).tables();
    assert!(tables.sas.values().all(|sa| sa.encapsulation.is_some_and(|udp| udp.remote_port > 40_000)));
}

#[test]
fn only_the_end_behind_nat_sends_keepalives() {
    let mut world = behind_nat();
    world.establish();
    let before = world.gateway(A).keepalives;
    world.run_for(Duration::from_secs(200));
    assert_eq!((world.gateway(A).keepalives - before, world.gateway(B).keepalives), (10, 0));
}

#[test]
fn without_nat_nothing_floats() {
    let mut world = World::pair(1);
    world.establish();
    world.run_for(Duration::from_secs(200));
    let ports: Vec<_> = world.gateway(A).sent.iter().map(|(_, path, _)| path.local.port()).collect();
    assert_eq!((ports, world.gateway(A).keepalives), (vec![500, 500], 0));
    assert!(!world.gateway(A).children(world.now())[0].encap);
}

#[test]
fn encapsulation_can_be_forced() {
    let mut forced = config::connection("gw", A, B);
    forced.encap = true;
    let mut world = World::pair_of(1, forced, config::connection("gw", B, A));
    world.establish();
    assert!(world.gateway(A).children(world.now())[0].encap && world.gateway(B).children(world.now())[0].encap);
}

//= RFC 7296 §2.23: the end that is not behind NAT follows an authentic message to a new mapping
#[test]
fn a_new_mapping_is_followed() {
    let mut world = behind_nat();
    world.establish();
    world.gateway_mut(A).nat.as_mut().unwrap().rebind();
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    let b = &world.gateway(B).ike_sas(world.now())[0];
    assert_eq!(world.gateway(B).count("ike-sa.updated"), 1);
    assert!(b.remote.port() > 40_002, "{}", b.remote);
    let tables = world.gateway(B).tables();
    assert!(tables.sas.values().all(|sa| sa.encapsulation.is_some_and(|udp| udp.remote_port == b.remote.port())));
}
