//! CHILD SAs that nobody uses go (`inactivity`): what counts is the counters of the device, in either direction, also over rekeys.

use std::time::Duration;

use ike_model::{CauseKind, Connection, EventBody};
use scenarios::{A, B, Who, World, config};

const S: fn(u64) -> Duration = Duration::from_secs;

fn idle_after(seconds: u64, who: Who, other: Who) -> Connection {
    config::with_child(config::connection("gw", who, other), |child| child.inactivity = S(seconds))
}

/// When a gateway told that a CHILD SA was closed for want of traffic, in seconds since the start of the world.
fn closed_at(world: &World, who: Who) -> Option<u64> {
    let idle = |(at, body): &(ipsec::Instant, EventBody)| {
        let closed = matches!(body, EventBody::ChildSaClosed { cause, .. } if cause.kind == CauseKind::Inactive);
        closed.then(|| at.since_start().as_secs() - 1)
    };
    world.gateway(who).events.iter().find_map(idle)
}

#[test]
fn an_unused_child_goes() {
    for shards in [1, 2, 7] {
        let mut world = World::with_shards(1, &[shards, 1]);
        world.configure(A, idle_after(60, A, B));
        world.configure(B, config::connection("gw", B, A));
        world.establish();
        world.strict(false);
        world.run_for(S(200));
        let at = closed_at(&world, A).unwrap();
        assert!((60..=75).contains(&at), "{at}");
        world.check_tunnels(A, B, 0);
        assert_eq!((world.gateway(A).counts().established, world.gateway(B).counts().established), (1, 1));
    }
}

/// Packets of one direction alone keep it, at the end that sends and at the end that receives.
#[test]
fn either_direction_keeps_it() {
    for who in [A, B] {
        let mut world = World::pair_of(1, idle_after(40, A, B), idle_after(40, B, A));
        world.establish();
        for _ in 0..30 {
            world.send_packets(who);
            world.run_for(S(20));
        }
        world.check_one_tunnel(A, B);
        world.strict(false);
        world.run_for(S(60));
        world.check_tunnels(A, B, 0);
    }
}

/// The last packet counts, not the first look: it goes when it was idle for the whole time.
#[test]
fn the_time_runs_from_the_last_packet() {
    let mut world = World::pair_of(1, idle_after(100, A, B), config::connection("gw", B, A));
    world.establish();
    world.run_for(S(90));
    world.send_packets(A);
    world.strict(false);
    world.run_for(S(300));
    let at = closed_at(&world, A).unwrap();
    assert!((190..=230).contains(&at), "{at}");
}

/// A CHILD SA that is rekeyed more often than it may be idle is idle all the same.
#[test]
fn rekeying_is_no_use() {
    let mut watching = idle_after(100, A, B);
    watching = config::with_child(watching, |child| child.lifetime = config::time_limits(30, 60));
    let mut world = World::pair_of(1, watching, config::connection("gw", B, A));
    world.establish();
    world.strict(false);
    world.run_for(S(140));
    let at = closed_at(&world, A).unwrap();
    assert!((100..=135).contains(&at), "{at}");
    assert!(world.gateway(A).count("child-sa.rekeyed") >= 2);
    world.check_tunnels(A, B, 0);
}

/// What went for want of traffic comes back with the next packet, not before.
#[test]
fn traffic_brings_it_back() {
    let trapped = config::with_child(idle_after(30, A, B), |child| {
        child.start_action = ike_model::Actions { trap: true, start: true };
    });
    let mut world = World::pair_of(1, trapped, config::connection("gw", B, A));
    world.run_for(S(1));
    world.check_one_tunnel(A, B);
    world.run_for(S(300));
    world.check_tunnels(A, B, 0);
    let packet = ipsec::PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 17,
        ports: Some((1, 2)),
    };
    assert!(world.acquire(A, packet));
    world.run_for(S(1));
    world.check_one_tunnel(A, B);
}

/// It can be configured while the CHILD SA is up.
#[test]
fn configured_while_it_is_up() {
    let mut world = World::pair_of(1, idle_after(0, A, B), config::connection("gw", B, A));
    world.establish();
    world.strict(false);
    world.run_for(S(500));
    world.check_one_tunnel(A, B);
    world.configure(A, idle_after(40, A, B));
    world.run_for(S(70));
    world.check_tunnels(A, B, 0);
    assert_eq!(world.gateway(A).counts().established, 1);
}
