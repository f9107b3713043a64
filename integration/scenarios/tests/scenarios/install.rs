//! The backend refuses or takes its time: the peer is told, and what stood before stands on.

use std::time::Duration;

use ike_model::{CauseKind, CommandError};
use ipsec::{OffloadError, Op, PolicyAction, PolicySpec};
use scenarios::{A, B, World, config};

fn full() -> OffloadError {
    OffloadError::Full { device: "recorder".into(), table: "SAD", size: 2 }
}

#[test]
fn first_child_refused() {
    for who in [A, B] {
        let mut world = World::pair(1);
        world.gateway(who).backend.refuse_next_install(full());
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_secs(30));
        let Some(Err(CommandError::Failed(cause))) = world.reply(A, ticket) else {
            panic!("{:?}", world.reply(A, ticket))
        };
        if who == A {
            assert_eq!(cause.kind, CauseKind::OffloadFailed);
        }
        assert_eq!(world.gateway(who).count("child-sa.install-failed"), 1);
        assert_eq!(world.gateway(A).live_children(world.now()).len(), 0);
        assert_eq!(world.gateway(B).live_children(world.now()).len(), 0);
        for who in [A, B] {
            assert!(world.gateway(who).tables().sas.is_empty(), "no half of it is left");
        }
    }
}

/// X13: the old pair goes on, and the next attempt succeeds.
#[test]
fn rekeyed_child_refused() {
    for who in [A, B] {
        for initiator in [A, B] {
            let mut world = World::pair(1);
            world.establish();
            world.traffic_every = Some(Duration::from_millis(50));
            let before = world.tunnels(A, B);
            world.gateway(who).backend.refuse_next_install(full());
            world.rekey_child(initiator, "net");
            world.run_for(Duration::from_secs(3));
            world.check_one_tunnel(A, B);
            assert_eq!(world.tunnels(A, B), before, "refused at {who}, begun by {initiator}");
            assert_eq!(world.gateway(initiator).count("child-sa.rekey-failed"), 1);
            world.run_for(Duration::from_secs(30));
            world.check_one_tunnel(A, B);
            assert_ne!(world.tunnels(A, B), before);
            assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
        }
    }
}

/// The peer makes a successor, cannot install it and takes it back: the soft limit of the old pair still holds.
#[test]
fn what_the_peer_failed_to_rekey_is_rekeyed_when_its_time_comes() {
    let limits = config::time_limits(20, 80);
    let at_a = config::with_child(config::connection("gw", A, B), |child| child.lifetime = limits);
    let mut world = World::pair_of(1, at_a, config::connection("gw", B, A));
    world.establish();
    let before = world.tunnels(A, B);
    world.rekey_child(B, "net");
    for _ in 0..19 {
        world.gateway(B).backend.refuse_next_install(full());
        world.run_for(Duration::from_secs(1));
    }
    assert!(world.gateway(A).count("child-sa.withdrawn") > 0);
    assert_eq!((world.gateway(A).count("child-sa.soft-expired"), world.tunnels(A, B)), (0, before));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.gateway(A).count("child-sa.soft-expired"), 1);
    world.gateway(B).backend.refuse_nothing();
    world.run_for(Duration::from_secs(20));
    assert!(world.gateway(A).count("child-sa.rekeyed") > 0);
    assert_eq!(world.gateway(A).count("child-sa.closed"), 0);
    world.check_one_tunnel(A, B);
}

/// Waiting for a backend holds up the exchange, and repeated requests meanwhile do no harm.
#[test]
fn a_slow_backend_is_waited_for() {
    for who in [A, B] {
        let mut world = World::pair(1);
        world.hold_backend(who);
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_secs(10));
        assert!(world.reply(A, ticket).is_none());
        world.release_backend(who);
        world.run_for(Duration::from_secs(5));
        assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(A).count("child-sa.installed"), 1);
    }
}

/// Who has the answer may send at once, and what answers that must find an SA that traffic takes.
#[test]
fn traffic_takes_a_child_before_its_peer_knows_of_it() {
    let mut world = World::pair(1);
    world.gateway_mut(B).report_delay = Some(Duration::from_millis(7));
    let ticket = world.initiate(A, "gw", "net");
    let carries = |world: &World, who| {
        let in_use = |policy: &PolicySpec| matches!(policy.action, PolicyAction::Protect { sa: Some(_), .. });
        world.gateway(who).with_tables(|tables| tables.policies.values().any(in_use))
    };
    // IKE_SA_INIT, then the answer of IKE_AUTH.
    assert!(world.run_until(Duration::from_secs(1), |world| world.sent(B) == 2));
    assert_eq!(world.elapsed(), Duration::from_millis(44), "two reports of the backend after the request came");
    assert!(carries(&world, B) && !carries(&world, A));
    assert!(world.run_until(Duration::from_secs(1), |world| world.reply(A, ticket).is_some()));
    assert!(carries(&world, A), "nor is who has asked told before");
}

/// A device that has room for SAs and lets no traffic take them: the peer is told, and nothing is left.
#[test]
fn a_child_that_no_traffic_can_take_is_refused() {
    for who in [A, B] {
        let mut world = World::pair(1);
        world.gateway(who).backend.refuse_next(|op| matches!(op, Op::Activate { .. }), full());
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_secs(30));
        assert!(world.reply(A, ticket).is_some_and(|done| done.is_err()), "refused at {who}");
        assert_eq!(world.gateway(who).count("child-sa.install-failed"), 1);
        for who in [A, B] {
            assert_eq!(world.gateway(who).count("child-sa.installed"), world.gateway(who).count("child-sa.closed"));
            assert!(world.gateway(who).tables().sas.is_empty(), "no half of it is left");
        }
    }
}

/// The IKE SA ends while an install is under way: nothing may be left.
#[test]
fn closed_while_installing() {
    for held in [A, B] {
        for closer in [A, B] {
            let mut world = World::pair(1);
            world.establish();
            world.strict(false);
            world.hold_backend(held);
            world.rekey_child(A, "net");
            world.run_for(Duration::from_millis(100));
            world.terminate_ike(closer, "gw");
            world.run_for(Duration::from_secs(1));
            world.release_backend(held);
            world.run_for(Duration::from_secs(200));
            world.check_nothing_left();
        }
    }
}
