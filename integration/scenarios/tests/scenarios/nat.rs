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

//= RFC 3948 §2.3, §4: keepalives from behind the NAT
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
//= RFC 7296 §2.11, §2.23: answers go where the request came from, and so does what follows
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

/// The translator forgets while something is under way, without MOBIKE: the end outside follows the next authentic message or packet, and
/// neither keys nor SAs are lost by it.
#[test]
fn a_mapping_that_is_forgotten_mid_exchange_costs_nothing() {
    type Act = fn(&mut World);
    let acts: [(&str, Act); 4] = [
        ("child rekeyed inside", |world| {
            world.rekey_child(A, "net");
        }),
        ("child rekeyed outside", |world| {
            world.rekey_child(B, "net");
        }),
        ("IKE SA rekeyed inside", |world| {
            world.rekey_ike(A, "gw");
        }),
        ("IKE SA rekeyed outside", |world| {
            world.rekey_ike(B, "gw");
        }),
    ];
    for (name, act) in acts {
        for after in [0, 5, 12, 22, 32] {
            let mut world = behind_nat();
            world.establish();
            world.note(format!("{name}, forgotten after {after} ms"));
            act(&mut world);
            world.run_for(Duration::from_millis(after));
            world.gateway_mut(A).nat.as_mut().unwrap().rebind();
            // Traffic from inside makes the new mapping.
            world.traffic_every = Some(Duration::from_millis(100));
            world.run_for(Duration::from_secs(60));
            world.traffic_every = None;
            world.run_for(Duration::from_secs(20));
            world.check_one_tunnel(A, B);
            let port = world.gateway(B).ike_sas(world.now())[0].remote.port();
            let tables = world.gateway(B).tables();
            assert!(
                tables.sas.values().all(|sa| sa.encapsulation.is_some_and(|udp| udp.remote_port == port)),
                "{name}"
            );
            for who in [A, B] {
                assert_eq!((world.gateway(who).counts().ike_sas, world.gateway(who).count("child-sa.closed")), (1, 0));
            }
        }
    }
}

//= RFC 7296 §2.23, RFC 3948 §3.1.2: a packet that passed its integrity check and the replay window moves the mapping
#[test]
fn esp_alone_moves_the_mapping() {
    let mut world = behind_nat();
    world.establish();
    world.traffic_every = Some(Duration::from_millis(20));
    world.run_for(Duration::from_secs(1));
    let before = world.gateway(B).ike_sas(world.now())[0].remote;
    for _ in 0..5 {
        world.gateway_mut(A).nat.as_mut().unwrap().rebind();
        world.run_for(Duration::from_secs(1));
    }
    world.traffic_every = None;
    world.run_for(Duration::from_secs(1));
    let after = world.gateway(B).ike_sas(world.now())[0].remote;
    assert!(before.ip() == after.ip() && before.port() != after.port());
    assert_eq!(world.gateway(B).count("ike-sa.updated"), 5);
    // Per change what B sends in the 10 ms until A's packet comes, and what is on its way then.
    let lost = world.traffic.sent - world.traffic.delivered;
    assert!(lost <= 10, "{lost}");
    world.check_one_tunnel(A, B);
}

/// Who is behind NAT does not let the other end move it: addresses of the end outside do not change by a packet.
#[test]
fn the_end_behind_nat_follows_nobody() {
    let mut world = behind_nat();
    world.establish();
    let sa = *world.gateway(A).tables().sas.iter().find(|(_, sa)| sa.direction == ipsec::Direction::Inbound).unwrap().0;
    let remote = "198.51.100.77:4500".parse().unwrap();
    world.backend_event(A, ipsec::Event::MappingChange { sa, remote });
    assert_eq!(world.gateway(A).ike_sas(world.now())[0].remote.ip(), config::address(B));
    assert_eq!(world.gateway(A).count("ike-sa.updated"), 0);
}

//= RFC 3948 §4: no keepalive while something else is sent to the peer
#[test]
fn esp_and_ike_make_keepalives_needless() {
    let mut world = behind_nat();
    world.establish();
    world.gateway_mut(A).backend.pretend_idle(Some(2));
    world.run_for(Duration::from_secs(200));
    assert_eq!(world.gateway(A).keepalives, 0, "ESP is sent");
    world.gateway_mut(A).backend.pretend_idle(Some(500));
    world.run_for(Duration::from_secs(200));
    let idle = world.gateway(A).keepalives;
    assert!((9..=10).contains(&idle), "{idle}");
    // IKE every 15 s.
    let mut asking = config::connection("gw", A, B);
    asking.dpd_delay = Duration::from_secs(15);
    let mut any = config::connection("gw", B, A);
    any.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(1, asking, any);
    world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    world.establish();
    world.run_for(Duration::from_secs(200));
    assert_eq!(world.gateway(A).keepalives, 0, "IKE is sent");
}

/// Forced by either end, in either role, for as long as the IKE SA lives.
#[test]
fn encapsulation_is_forced_by_either_end() {
    for (at_a, at_b) in [(true, false), (false, true), (true, true)] {
        for mobike in [false, true] {
            let of = |local, remote, encap| {
                let connection = config::connection("gw", local, remote);
                ike_model::Connection { encap, mobike, ..connection }
            };
            let mut world = World::pair_of(1, of(A, B, at_a), of(B, A, at_b));
            world.establish();
            let in_udp = |world: &World| {
                [A, B].iter().all(|who| world.gateway(*who).tables().sas.values().all(|sa| sa.encapsulation.is_some()))
            };
            assert!(in_udp(&world), "{at_a} {at_b}");
            world.rekey_ike(A, "gw");
            world.run_for(Duration::from_secs(1));
            world.rekey_child(B, "net");
            world.run_for(Duration::from_secs(1));
            world.check_one_tunnel(A, B);
            assert!(in_udp(&world), "{at_a} {at_b} after rekeying");
        }
    }
}
