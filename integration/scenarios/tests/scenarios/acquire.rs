//! Traps: the first packet asks for the child, its selectors go first, and one packet makes one attempt (RFC 7296 §2.9).

use std::time::Duration;

use ike_model::{Actions, Connection};
use ipsec::{AddressRange, PacketSelectors, PolicyAction};
use scenarios::{A, B, World, config};

fn trapped(at_a: impl FnOnce(Connection) -> Connection) -> World {
    let trap = config::with_child(config::connection("gw", A, B), |child| child.start_action = config::TRAP);
    let mut world = World::with_shards(1, &[3, 1]);
    world.configure(A, at_a(trap));
    world.configure(B, config::connection("gw", B, A));
    world
}

fn packet() -> PacketSelectors {
    PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 6,
        ports: Some((40_000, 80)),
    }
}

fn traps(world: &World) -> usize {
    let trap = |policy: &&ipsec::PolicySpec| matches!(policy.action, PolicyAction::Trap { .. });
    world.gateway(A).with_tables(|tables| tables.policies.values().filter(trap).count())
}

#[test]
fn a_packet_brings_the_child_up() {
    let mut world = trapped(|connection| connection);
    assert_eq!((traps(&world), world.sent(A)), (1, 0));
    assert!(world.acquire(A, packet()));
    assert!(world.acquire(A, packet()), "a second packet while it comes up");
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_eq!((world.sent(A), world.sent(B)), (2, 2));
    assert_eq!(traps(&world), 1, "the trap stays for the next time");
    assert!(world.gateway(A).count("policy.acquire") >= 1);
}

#[test]
fn a_packet_outside_asks_for_nothing() {
    let mut world = trapped(|connection| connection);
    let elsewhere = PacketSelectors { destination: config::host(B, 7), ..packet() };
    assert!(!world.acquire(A, elsewhere));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.sent(A), 0);
}

/// The responder narrows to a child that covers the very packet, although it allows less than was asked for.
#[test]
fn the_packets_selectors_decide_the_narrowing() {
    let wide = |connection| {
        config::with_child(connection, |child| {
            let all = ipsec::TrafficSelector::all(AddressRange::prefix([10, 0, 0, 0].into(), 8).unwrap());
            child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(all)];
        })
    };
    let mut world = trapped(wide);
    // B has three networks in three children.
    let mut three = config::connection("gw", B, A);
    three.children = (0..3)
        .map(|n| {
            let mut child = config::child(&format!("net{n}"), B, A, n);
            child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(config::lan(A, 0))];
            child.into()
        })
        .collect();
    world.configure(B, three);
    let to_third = PacketSelectors { destination: config::host(B, 2), ..packet() };
    assert!(world.acquire(A, to_third));
    world.run_for(Duration::from_secs(5));
    let (a, b) = (world.gateway(A).live_children(world.now()), world.gateway(B).live_children(world.now()));
    assert_eq!((a.len(), b.len()), (1, 1));
    assert_eq!((&*b[0].name, &a[0].remote_ts[..]), ("net2", &[config::lan(B, 2)][..]));
}

/// The child goes down by the operator's wish: the trap is there for the next packet.
#[test]
fn again_after_it_was_closed() {
    let mut world = trapped(|connection| connection);
    for round in 1..=3 {
        assert!(world.acquire(A, packet()));
        world.run_for(Duration::from_secs(1));
        world.check_one_tunnel(A, B);
        world.terminate_child(A, "net");
        world.run_for(Duration::from_secs(1));
        world.check_tunnels(A, B, 0);
        assert_eq!((traps(&world), world.gateway(A).count("child-sa.installed")), (1, round));
    }
}

/// While the peer is away the packets of many seconds make no storm.
#[test]
fn a_peer_that_is_away_is_not_flooded() {
    let mut world = trapped(|connection| connection);
    world.link.partition(A, B);
    for _ in 0..100 {
        world.acquire(A, packet());
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!(world.sent(A), 2, "one attempt and its first repetition");
    world.link.mend();
    world.run_for(Duration::from_secs(20));
    world.acquire(A, packet());
    world.run_for(Duration::from_secs(20));
    world.check_one_tunnel(A, B);
}

#[test]
fn installed_and_taken_out_by_command() {
    let mut world = World::pair(1);
    let (connection, child) = ("gw".to_owned(), "net".to_owned());
    let install = ike_model::Command::Install { connection: connection.clone(), child: child.clone() };
    let ticket = world.command(A, install.clone());
    assert!(world.reply(A, ticket).unwrap().is_ok());
    assert_eq!(traps(&world), 1);
    let ticket = world.command(A, install);
    assert!(world.reply(A, ticket).unwrap().is_ok());
    assert_eq!(traps(&world), 1);
    let ticket = world.command(A, ike_model::Command::Uninstall { connection, child });
    assert!(world.reply(A, ticket).unwrap().is_ok());
    assert_eq!(traps(&world), 0);
}

/// `trap|start`: up at once, and a trap behind it for when it goes.
#[test]
fn trap_and_start() {
    let both = Actions { trap: true, start: true };
    let mut world = World::with_shards(1, &[2, 1]);
    world.configure(B, config::connection("gw", B, A));
    world.configure(A, config::with_child(config::connection("gw", A, B), |child| child.start_action = both));
    world.run_for(Duration::from_secs(1));
    world.check_one_tunnel(A, B);
    assert_eq!(traps(&world), 1);
}
