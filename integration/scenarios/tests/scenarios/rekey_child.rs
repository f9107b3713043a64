//! Rekeying a CHILD SA without a collision: make before break, no packet lost, told once (RFC 7296 §1.3.3, §2.8).

use std::time::Duration;

use ike_model::{CauseKind, Connection};
use ike_wire::ids::{ExchangeType, KeyExchangeId};
use ipsec::Direction;
use scenarios::{A, B, Verdict, Who, World, config};

fn up() -> World {
    let mut world = World::pair(1);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(3));
    world
}

fn inbound(world: &World, who: Who) -> usize {
    world.gateway(who).tables().sas.values().filter(|sa| sa.direction == Direction::Inbound).count()
}

fn check_nothing_lost(world: &World) {
    let traffic = world.traffic;
    assert!(traffic.sent > 0 && traffic.lost == 0 && traffic.blocked == 0, "{traffic:?}\n{}", world.trace_text());
}

/// C1
#[test]
fn from_either_side() {
    for who in [A, B] {
        let other = A + B - who;
        let mut world = up();
        let (before, sent) = (world.tunnels(A, B), (world.sent(who), world.sent(other)));
        world.rekey_child(who, "net");
        world.run_for(Duration::from_millis(500));
        world.check_one_tunnel(A, B);
        assert_ne!(world.tunnels(A, B), before);
        // CREATE_CHILD_SA and INFORMATIONAL with the DELETE.
        assert_eq!((world.sent(who) - sent.0, world.sent(other) - sent.1), (2, 2));
        assert_eq!((inbound(&world, A), inbound(&world, B)), (2, 2), "the old inbound SAs linger");
        world.run_for(Duration::from_millis(4_000));
        assert_eq!((inbound(&world, A), inbound(&world, B)), (2, 2), "for five seconds");
        world.run_for(Duration::from_millis(1_000));
        assert_eq!((inbound(&world, A), inbound(&world, B)), (1, 1));
        for side in [A, B] {
            let gateway = world.gateway(side);
            let told = ["child-sa.prepared", "child-sa.rekeyed", "child-sa.removed"];
            assert_eq!(gateway.event_names()[2..], told[usize::from(side == who)..]);
            assert_eq!(gateway.live_children(world.now())[0].generation, 1);
            let tables = gateway.tables();
            assert_eq!((tables.sas.len(), tables.policies.len()), (2, 3));
        }
        check_nothing_lost(&world);
    }
}

/// Between the response and the first packet the responder sends on the old SA, which its peer still has.
#[test]
fn the_responder_switches_on_the_first_packet() {
    let mut world = World::pair(1);
    world.establish();
    world.link.rule(|sending| {
        if sending.from == A && sending.is_request(ExchangeType::INFORMATIONAL) { Verdict::Drop } else { Verdict::Pass }
    });
    let sending_on = |world: &World| {
        let tables = world.gateway(B).tables();
        scenarios::packets::ways(&tables)[0].sa.and_then(|sa| tables.sas.get(&sa).map(|sa| sa.spi))
    };
    let old = sending_on(&world);
    world.rekey_child(A, "net");
    world.run_for(Duration::from_millis(200));
    assert_eq!(sending_on(&world), old);
    world.send_packets(A);
    world.run_for(Duration::from_millis(200));
    assert_ne!(sending_on(&world), old);
    assert_eq!(world.gateway(B).count("child-sa.rekeyed"), 1);
}

fn with_soft(connection: Connection, soft: u64) -> Connection {
    config::with_child(connection, |child| child.lifetime = config::time_limits(soft, soft + 60))
}

#[test]
fn by_time_over_and_over() {
    let at_a = with_soft(config::connection("gw", A, B), 100);
    let mut world = World::pair_of(1, at_a, config::connection("gw", B, A));
    world.establish();
    world.traffic_every = Some(Duration::from_millis(500));
    world.run_for(Duration::from_secs(1_010));
    world.check_one_tunnel(A, B);
    for who in [A, B] {
        assert_eq!(world.gateway(who).count("child-sa.rekeyed"), 10);
        assert_eq!(world.gateway(who).count("child-sa.closed"), 0);
        assert_eq!(world.gateway(who).live_children(world.now())[0].generation, 10);
    }
    assert_eq!(
        (world.gateway(A).count("child-sa.soft-expired"), world.gateway(B).count("child-sa.soft-expired")),
        (10, 0)
    );
    check_nothing_lost(&world);
}

/// The same soft limit at both ends, so that they collide every time.
#[test]
fn by_time_at_both_ends() {
    for seed in 0..8 {
        let at = |one, other| with_soft(config::connection("gw", one, other), 100);
        let mut world = World::pair_of(seed, at(A, B), at(B, A));
        world.establish();
        world.traffic_every = Some(Duration::from_millis(500));
        world.run_for(Duration::from_secs(1_050));
        world.check_one_tunnel(A, B);
        for who in [A, B] {
            assert_eq!(world.gateway(who).count("child-sa.closed"), 0);
        }
        check_nothing_lost(&world);
    }
}

#[test]
fn with_forward_secrecy() {
    let pfs = |connection| {
        config::with_child(connection, |child| {
            child.esp_proposals = vec![config::esp_proposal(&[KeyExchangeId::ECP_384])]
        })
    };
    let mut world = World::pair_of(1, pfs(config::connection("gw", A, B)), pfs(config::connection("gw", B, A)));
    world.establish();
    for who in [A, B] {
        world.gateway_mut(who).work_delay = Some(Duration::from_millis(30));
    }
    world.traffic_every = Some(Duration::from_millis(3));
    world.rekey_child(B, "net");
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    let shown = world.gateway(A).live_children(world.now())[0].algorithms.unwrap();
    assert_eq!(shown.key_exchange, Some(KeyExchangeId::ECP_384.0));
    check_nothing_lost(&world);
}

/// Lost messages in every place.
#[test]
fn with_loss() {
    for lost in 0..4 {
        for who in [A, B] {
            let mut world = up();
            let before = world.sent(who);
            world.link.drop_if(move |from, n| from == who && n == before + lost / 2);
            world.rekey_child(if lost % 2 == 0 { A } else { B }, "net");
            world.run_for(Duration::from_secs(20));
            world.check_one_tunnel(A, B);
            assert_eq!(
                (world.gateway(A).count("child-sa.rekeyed"), world.gateway(B).count("child-sa.rekeyed")),
                (1, 1)
            );
            check_nothing_lost(&world);
        }
    }
}

#[test]
fn a_soft_limit_rekeys_once() {
    let mut world = up();
    world.soft_expire(A);
    world.soft_expire(A);
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    assert_eq!((world.gateway(A).count("child-sa.soft-expired"), world.gateway(A).count("child-sa.rekeyed")), (1, 1));
    check_nothing_lost(&world);
}

/// A hard limit without a rekeying: the child is closed and made again.
#[test]
fn a_hard_limit_makes_the_child_again() {
    let mut world = World::pair(1);
    world.establish();
    let before = world.tunnels(A, B);
    // A new child is used by the responder as soon as it has answered.
    world.strict(false);
    world.hard_expire(A);
    world.run_for(Duration::from_secs(30));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    assert_eq!(world.gateway(A).count("child-sa.hard-expired"), 1);
    let closed = world.gateway(A).events.iter().find(|(_, body)| body.name() == "child-sa.closed");
    let closed = closed.and_then(|(_, body)| scenarios::gateway::cause(body)).map(|cause| cause.kind);
    assert_eq!(closed, Some(CauseKind::HardLimit));
}

/// The operator closes the child while either end's rekeying is under way: nothing of it may stay.
#[test]
fn closed_while_rekeyed() {
    for rekeyer in [A, B] {
        for closer in [A, B] {
            for (wait, slow) in [(0, None), (0, Some(30)), (15, None), (15, Some(30)), (25, Some(30)), (45, Some(30))] {
                let mut world = World::pair(1);
                world.establish();
                world.strict(false);
                world.gateway_mut(A).report_delay = slow.map(Duration::from_millis);
                world.gateway_mut(B).report_delay = slow.map(Duration::from_millis);
                world.rekey_child(rekeyer, "net");
                world.run_for(Duration::from_millis(wait));
                let ticket = world.terminate_child(closer, "net");
                world.run_for(Duration::from_secs(60));
                world.note(format!("rekeyed by {rekeyer}, closed by {closer} after {wait} ms, backend {slow:?} ms"));
                world.check_tunnels(A, B, 0);
                assert!(world.reply(closer, ticket).unwrap().is_ok());
                for who in [A, B] {
                    world.check(world.gateway(who).tables().sas.is_empty(), "SAs are left");
                    world.check(world.gateway(who).count("child-sa.closed") == 1, "not told once");
                }
            }
        }
    }
}

/// The IKE SA ends between the answer and the switch: every event comes, and once.
#[test]
fn the_ike_sa_ends_while_half_switched() {
    let mut world = World::pair(1);
    world.establish();
    world.strict(false);
    world.link.rule(
        |sending| {
            if sending.from == A && sending.header.message_id.0 == 3 { Verdict::Drop } else { Verdict::Pass }
        },
    );
    world.rekey_child(A, "net");
    world.run_for(Duration::from_millis(50));
    world.terminate_ike(B, "gw");
    world.run_for(Duration::from_secs(300));
    world.check_nothing_left();
    for who in [A, B] {
        let gateway = world.gateway(who);
        assert_eq!((gateway.count("child-sa.rekeyed"), gateway.count("child-sa.closed")), (1, 1), "{who}");
    }
}
