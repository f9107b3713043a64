//! The machine sleeps, or its wall clock jumps.

use std::time::Duration;

use ike_model::{Identity, Secret, SharedSecret};
use scenarios::{A, B, World, config};

/// Tunnels `net` of connections `gw0`, `gw1`, ... between A and B, each with a soft limit at A after `soft` seconds.
fn tunnels(count: u8, soft: u64) -> World {
    let mut world = World::with_shards(1, &[1, 1]);
    for who in [A, B] {
        let owners = vec![config::identity(B)];
        world.gateway_mut(who).load_secret(SharedSecret { id: "all".into(), owners, secret: Secret::new(b"all") });
    }
    for number in 0..count {
        let one = |local, remote, limits| {
            let name = format!("gw{number}");
            let mut connection = config::connection(&name, local, remote);
            // Of its own name at A, so that B can tell the connections apart.
            let id = Identity::Fqdn(format!("a{number}.example"));
            let round = if local == A { &mut connection.local } else { &mut connection.remote };
            round[0].id = id;
            let mut child = config::child("net", local, remote, number);
            child.lifetime = limits;
            connection.children = vec![std::sync::Arc::new(child)];
            connection
        };
        world.configure(A, one(A, B, config::time_limits(soft, 100 * soft)));
        world.configure(B, one(B, A, config::no_limits()));
    }
    for number in 0..count {
        let name = format!("gw{number}");
        let ticket = world.initiate(A, &name, "net");
        world.run_until(Duration::from_secs(5), |world| world.reply(A, ticket).is_some());
    }
    world.run_for(Duration::from_secs(1));
    world.check_tunnels(A, B, count.into());
    world
}

/// DESIGN section 3: liveness at once for every established IKE SA, overdue rekeys spread over 10 s.
#[test]
fn after_sleep_peers_are_asked_and_rekeys_are_spread() {
    const COUNT: u8 = 20;
    let mut world = tunnels(COUNT, 600);
    world.strict(true);
    let begun = world.sent(A);
    world.suspend(A, Duration::from_secs(3_000));
    world.run_for(Duration::from_secs(3_000));
    let woken = world.elapsed();
    world.run_for(Duration::from_secs(30));
    world.check_tunnels(A, B, usize::from(COUNT));
    assert_eq!(world.gateway(A).count("child-sa.rekeyed"), usize::from(COUNT));
    let times: Vec<_> = world.sent_at(A).split_off(begun);
    let at_once = times.iter().filter(|at| **at == woken).count();
    assert_eq!(at_once, usize::from(COUNT), "every peer is asked at once");
    let is_rekey = |body: &ike_model::EventBody| matches!(body, ike_model::EventBody::ChildSaRekeyed { .. });
    let rekeys: Vec<f64> = world
        .gateway(A)
        .events
        .iter()
        .filter(|(_, body)| is_rekey(body))
        .map(|(at, _)| (at.since_start() - Duration::from_secs(1)).as_secs_f64() - woken.as_secs_f64())
        .collect();
    assert!(rekeys.iter().all(|after| *after < 10.5), "{rekeys:?}");
    let halves =
        (rekeys.iter().filter(|after| **after < 5.0).count(), rekeys.iter().filter(|after| **after > 5.0).count());
    assert!(halves.0 >= 3 && halves.1 >= 3, "not spread: {rekeys:?}");
}

#[test]
fn a_peer_that_went_away_meanwhile_is_found() {
    let mut world = tunnels(1, 600_000);
    world.suspend(A, Duration::from_secs(100));
    world.run_for(Duration::from_secs(50));
    world.restart(B);
    world.run_for(Duration::from_secs(50 + 166));
    assert_eq!(world.gateway(A).counts().ike_sas, 0);
    assert_eq!(world.gateway(A).count("peer.unreachable"), 1);
}

/// An SA whose hard limit came while the machine slept carries nothing more.
#[test]
fn hard_limits_hold_through_sleep() {
    let mut limited = config::connection("gw", A, B);
    limited = config::with_child(limited, |child| {
        child.lifetime = config::time_limits(600, 660);
        child.start_action = config::START;
        child.close_action = config::START;
    });
    let mut world = World::pair_of(1, limited, config::connection("gw", B, A));
    world.run_for(Duration::from_secs(5));
    let before = world.tunnels(A, B);
    world.suspend(A, Duration::from_secs(3_000));
    world.run_for(Duration::from_secs(3_030));
    assert_eq!(world.gateway(A).count("child-sa.hard-expired"), 1);
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
}

/// A request that was under way when the machine fell asleep is made good afterwards.
#[test]
fn falling_asleep_in_the_middle_of_a_rekeying() {
    for after in [0, 5, 15, 25, 35] {
        let mut world = tunnels(1, 600_000);
        world.rekey_child(A, "net");
        world.run_for(Duration::from_millis(after));
        world.suspend(A, Duration::from_secs(60));
        world.run_for(Duration::from_secs(120));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(A).counts().ike_sas, 1, "asleep after {after} ms");
    }
}

/// Nothing is reckoned with the wall clock.
#[test]
fn jumps_of_the_wall_clock_change_nothing() {
    let run = |jumps: [i64; 3]| {
        let mut world = tunnels(2, 600);
        for jump in jumps {
            world.gateway_mut(A).wall_off += jump;
            world.gateway_mut(B).wall_off -= jump;
            world.run_for(Duration::from_secs(500));
        }
        world.check_tunnels(A, B, 2);
        (world.sent_at(A), world.sent_at(B), world.gateway(A).event_names(), world.gateway(B).event_names())
    };
    let calm = run([0, 0, 0]);
    assert!(calm.2.contains(&"child-sa.rekeyed"));
    assert_eq!(calm, run([86_400 * 365, -86_400 * 700, 3]));
}
