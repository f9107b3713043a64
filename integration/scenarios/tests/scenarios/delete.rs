//! Closing CHILD SAs and IKE SAs, from either side and from both at once (RFC 7296 §1.4.1).

use std::time::Duration;

use ike_model::{CauseKind, Command, Selector};
use scenarios::{A, B, C, Who, World, config};

fn up() -> World {
    let mut world = World::pair(1);
    world.establish();
    world
}

/// The cause with which an event of this name was told last.
fn told(world: &World, who: Who, event: &str) -> CauseKind {
    let found = world.gateway(who).events.iter().rev().find(|(_, body)| body.name() == event);
    scenarios::gateway::cause(&found.unwrap_or_else(|| panic!("no {event}")).1).unwrap().kind
}

#[test]
fn a_child_from_either_side() {
    for who in [A, B] {
        let other = A + B - who;
        let mut world = up();
        let before = (world.sent(A), world.sent(B));
        let ticket = world.terminate_child(who, "net");
        world.run_for(Duration::from_secs(1));
        let outcome = world.reply(who, ticket).unwrap().unwrap();
        assert_eq!((outcome.matches, outcome.terminated), (1, 1));
        world.check_tunnels(A, B, 0);
        assert_eq!((world.sent(A) - before.0, world.sent(B) - before.1), (1, 1));
        assert_eq!(told(&world, who, "child-sa.closed"), CauseKind::Operator);
        assert_eq!(told(&world, other, "child-sa.closed"), CauseKind::PeerDeleted);
        assert_eq!((world.gateway(A).counts().established, world.gateway(B).counts().established), (1, 1));
        for who in [A, B] {
            assert!(world.gateway(who).tables().sas.is_empty());
        }
    }
}

#[test]
fn an_ike_sa_from_either_side() {
    for who in [A, B] {
        let other = A + B - who;
        let mut world = up();
        world.strict(false);
        let ticket = world.terminate_ike(who, "gw");
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.reply(who, ticket).unwrap().unwrap().terminated, 1);
        world.check_nothing_left();
        assert_eq!(told(&world, who, "ike-sa.closed"), CauseKind::Operator);
        assert_eq!(told(&world, other, "ike-sa.closed"), CauseKind::PeerDeleted);
        for who in [A, B] {
            assert_eq!(
                (world.gateway(who).count("child-sa.closed"), world.gateway(who).count("ike-sa.closed")),
                (1, 1)
            );
        }
    }
}

/// C34, I19
#[test]
fn both_at_once() {
    let mut world = up();
    let tickets = [world.terminate_child(A, "net"), world.terminate_child(B, "net")];
    world.run_for(Duration::from_secs(1));
    world.check_tunnels(A, B, 0);
    for (who, ticket) in [A, B].into_iter().zip(tickets) {
        assert!(world.reply(who, ticket).unwrap().is_ok());
        assert_eq!(world.gateway(who).count("child-sa.closed"), 1);
    }
    world.strict(false);
    let tickets = [world.terminate_ike(A, "gw"), world.terminate_ike(B, "gw")];
    world.run_for(Duration::from_secs(1));
    for (who, ticket) in [A, B].into_iter().zip(tickets) {
        assert!(world.reply(who, ticket).unwrap().is_ok());
        assert_eq!(world.gateway(who).count("ike-sa.closed"), 1);
    }
    world.check_nothing_left();
}

#[test]
fn by_force_without_an_answer() {
    let mut world = up();
    world.strict(false);
    world.link.partition(A, B);
    let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
    let ticket = world.command(A, Command::Terminate { selector, force: true });
    assert_eq!(world.reply(A, ticket).unwrap().unwrap().terminated, 1);
    assert_eq!(world.gateway(A).counts().ike_sas, 0);
    assert!(world.gateway(A).tables().sas.is_empty());
}

/// A DELETE that the peer never answers ends with the peer counted as gone.
#[test]
fn unanswered() {
    let mut world = up();
    world.strict(false);
    world.link.partition(A, B);
    let ticket = world.terminate_ike(A, "gw");
    world.run_for(Duration::from_secs(200));
    assert!(world.reply(A, ticket).is_some());
    assert_eq!(world.gateway(A).counts().ike_sas, 0);
    assert!(world.gateway(A).tables().sas.is_empty());
    assert_eq!(world.gateway(A).count("ike-sa.closed"), 1);
}

/// A third gateway is not touched by what two others do.
#[test]
fn only_the_one_that_is_meant() {
    let mut world = World::with_shards(1, &[2, 1, 1]);
    let mut to_c = config::connection("to-c", A, C);
    to_c.children[0] = config::child("net-c", A, C, 1).into();
    world.configure(A, config::connection("gw", A, B));
    world.configure(A, to_c);
    world.configure(B, config::connection("gw", B, A));
    let mut at_c = config::connection("gw", C, A);
    at_c.children[0] = config::child("net", C, A, 1).into();
    world.configure(C, at_c);
    for (connection, child) in [("gw", "net"), ("to-c", "net-c")] {
        let ticket = world.initiate(A, connection, child);
        world.run_for(Duration::from_secs(1));
        assert!(world.reply(A, ticket).unwrap().is_ok());
    }
    world.terminate_ike(A, "gw");
    world.run_for(Duration::from_secs(1));
    world.check_one_tunnel(A, C);
    assert_eq!((world.gateway(B).counts().ike_sas, world.gateway(C).counts().ike_sas), (0, 1));
}
