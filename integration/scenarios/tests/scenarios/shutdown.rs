//! The daemon stops: everything is closed in good order, and nothing begins any more.

use std::time::Duration;

use ike_model::{CauseKind, Command};
use scenarios::{A, B, C, World, config};

fn star(shards: u8) -> World {
    let mut world = World::with_shards(1, &[shards, 1, 1]);
    for (other, name) in [(B, "to-b"), (C, "to-c")] {
        let mut connection = config::connection(name, A, other);
        connection = config::with_child(connection, |child| child.start_action = config::START);
        world.configure(other, config::connection("gw", other, A));
        world.configure(A, connection);
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.tunnels(A, B).len(), world.tunnels(A, C).len()), (1, 1));
    world
}

#[test]
fn all_peers_are_told() {
    for shards in [1, 2, 7] {
        let mut world = star(shards);
        let ticket = world.command(A, Command::Shutdown);
        assert!(world.run_until(Duration::from_secs(1), |world| world.reply(A, ticket).is_some()));
        assert!(world.reply(A, ticket).unwrap().is_ok());
        world.check_nothing_left();
        assert_eq!(world.gateway(A).last_cause().unwrap().kind, CauseKind::Shutdown);
        assert_eq!(world.gateway(B).last_cause().unwrap().kind, CauseKind::PeerDeleted);
        world.run_for(Duration::from_secs(1_000));
        world.check_nothing_left();
    }
}

/// One peer is away: the stop waits for it no longer than for any peer.
#[test]
fn a_silent_peer_does_not_stop_it_for_ever() {
    let mut world = star(3);
    world.link.partition(A, C);
    let ticket = world.command(A, Command::Shutdown);
    world.run_for(Duration::from_secs(1));
    assert!(world.reply(A, ticket).is_none());
    assert_eq!(world.gateway(B).counts().ike_sas, 0);
    assert!(world.run_until(Duration::from_secs(200), |world| world.reply(A, ticket).is_some()));
    assert_eq!(world.gateway(A).counts().ike_sas, 0);
}

#[test]
fn nothing_begins_afterwards() {
    let mut world = star(2);
    world.command(A, Command::Shutdown);
    world.run_for(Duration::from_secs(1));
    let ticket = world.initiate(A, "to-b", "net");
    world.run_for(Duration::from_secs(1));
    assert!(world.reply(A, ticket).is_some_and(|done| done.is_err()));
    world.check_nothing_left();
}
