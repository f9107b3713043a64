//! IKE over IPv6: the same life as over IPv4, with the outer addresses of the SAs and the messages where they belong.

use std::time::Duration;

use ike_model::HostSpec;
use scenarios::{A, B, World, config};

fn both_families(shards: [u8; 2]) -> World {
    let mut world = World::with_shards(1, &shards);
    for who in [A, B] {
        world.set_addresses(who, &[config::address(who), config::address_v6(who)]);
    }
    world
}

#[test]
fn a_tunnel_over_ipv6_lives_as_one_over_ipv4() {
    for shards in [[1, 1], [2, 7]] {
        let mut world = both_families(shards);
        world.configure(A, config::connection_v6("gw", A, B));
        world.configure(B, config::connection_v6("gw", B, A));
        world.establish();
        for who in [A, B] {
            assert!(world.gateway(who).sent.iter().all(|(_, path, _)| path.local.is_ipv6() && path.remote.is_ipv6()));
            let tables = world.gateway(who).tables();
            assert_eq!(tables.sas.len(), 2);
            assert!(tables.sas.values().all(|sa| sa.outer.local.is_ipv6() && sa.encapsulation.is_none()));
            assert!(!world.gateway(who).ike_sas(world.now())[0].nat_local);
        }
        world.traffic_every = Some(Duration::from_millis(20));
        world.rekey_child(A, "net");
        world.run_for(Duration::from_secs(10));
        world.rekey_ike(B, "gw");
        world.run_for(Duration::from_secs(10));
        world.check_one_tunnel(A, B);
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
        world.strict(false);
        world.terminate_ike(A, "gw");
        world.run_for(Duration::from_secs(60));
        world.check_nothing_left();
    }
}

/// Our address is the one the route to the peer has; a name may stand for addresses of both families.
#[test]
fn the_source_is_of_the_family_of_the_peer() {
    let mut at_a = config::connection("gw", A, B);
    at_a.local_addrs = vec![HostSpec::Any];
    at_a.remote_addrs = vec![HostSpec::Name("b.example".into())];
    let mut at_b = config::connection("gw", B, A);
    at_b.local_addrs = vec![HostSpec::Any];
    at_b.remote_addrs = vec![HostSpec::Any];
    for (addresses, v6) in [
        (vec![config::address_v6(B), config::address(B)], true),
        (vec![config::address(B), config::address_v6(B)], false),
    ] {
        let mut world = both_families([1, 1]);
        world.gateway_mut(A).names.insert("b.example".into(), addresses);
        world.configure(A, at_a.clone());
        world.configure(B, at_b.clone());
        world.establish();
        let (local, remote) =
            if v6 { (config::address_v6(A), config::address_v6(B)) } else { (config::address(A), config::address(B)) };
        let ike = &world.gateway(A).ike_sas(world.now())[0];
        assert_eq!((ike.local.ip(), ike.remote.ip()), (local, remote));
    }
}

/// The first address does not answer: the next one is tried, whatever its family.
#[test]
fn the_other_family_is_tried_when_the_first_does_not_answer() {
    let mut at_a = config::connection("gw", A, B);
    at_a.local_addrs = vec![HostSpec::Any];
    at_a.remote_addrs = vec![HostSpec::Address(config::address_v6(B)), HostSpec::Address(config::address(B))];
    let mut at_b = config::connection("gw", B, A);
    at_b.local_addrs = vec![HostSpec::Any];
    at_b.remote_addrs = vec![HostSpec::Any];
    let mut world = both_families([1, 1]);
    world.configure(A, at_a);
    world.configure(B, at_b);
    world.link.rule(
        |sending| {
            if sending.path.remote.is_ipv6() { scenarios::Verdict::Drop } else { scenarios::Verdict::Pass }
        },
    );
    let ticket = world.initiate(A, "gw", "net");
    assert!(world.run_until(Duration::from_secs(300), |world| world.reply(A, ticket).is_some()));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(A).ike_sas(world.now())[0].remote.ip(), config::address(B));
}
