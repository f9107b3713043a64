//! A clean handshake: four messages, one tunnel, each event once.

use std::time::Duration;

use ike_model::CommandError;
use scenarios::{A, B, World, config};

struct Case {
    name: &'static str,
    shards: [u8; 2],
    work: Option<u64>,
    reports: Option<u64>,
    /// When the reply to the command comes.
    done_ms: u64,
}

//= RFC 7296 §1.2, §2.10: IKE_SA_INIT and IKE_AUTH, each with fresh nonces
#[test]
fn four_messages_make_a_tunnel() {
    let cases = [
        Case { name: "plain", shards: [1, 1], work: None, reports: None, done_ms: 40 },
        Case { name: "two shards, seven shards", shards: [2, 7], work: None, reports: None, done_ms: 40 },
        Case { name: "seven shards, two shards", shards: [7, 2], work: None, reports: None, done_ms: 40 },
        // Start at A, Respond at B, Complete at A.
        Case { name: "slow arithmetic", shards: [1, 1], work: Some(5), reports: None, done_ms: 55 },
        // At B before the answer, and at A before anybody is told: an install, and traffic taking it.
        Case { name: "slow backends", shards: [1, 1], work: None, reports: Some(7), done_ms: 68 },
    ];
    for case in cases {
        let mut world = World::with_shards(1, &case.shards);
        world.configure(A, config::connection("gw", A, B));
        world.configure(B, config::connection("gw", B, A));
        for who in [A, B] {
            world.gateway_mut(who).work_delay = case.work.map(Duration::from_millis);
            world.gateway_mut(who).report_delay = case.reports.map(Duration::from_millis);
        }
        let ticket = world.initiate(A, "gw", "net");
        assert!(world.run_until(Duration::from_secs(9), |world| world.reply(A, ticket).is_some()), "{}", case.name);
        assert_eq!(world.elapsed(), Duration::from_millis(case.done_ms), "{}", case.name);
        assert!(world.reply(A, ticket).unwrap().is_ok(), "{}", case.name);
        world.run_for(Duration::from_secs(3600));
        world.check_one_tunnel(A, B);
        assert_eq!((world.sent(A), world.sent(B)), (2, 2), "{}", case.name);
        for who in [A, B] {
            assert_eq!(world.gateway(who).event_names(), ["ike-sa.established", "child-sa.installed"], "{}", case.name);
        }
    }
}

#[test]
fn both_ends_show_the_same() {
    let mut world = World::pair(7);
    world.establish();
    let (a, b) = (world.gateway(A).ike_sas(world.now()), world.gateway(B).ike_sas(world.now()));
    let ([a], [b]) = (a.as_slice(), b.as_slice()) else { panic!("one IKE SA at each end") };
    assert_eq!((a.initiator_spi, a.responder_spi), (b.initiator_spi, b.responder_spi));
    assert_eq!((&a.local_id, &a.remote_id), (&b.remote_id, &b.local_id));
    assert_eq!((a.local, a.remote), (b.remote, b.local));
    assert_eq!((a.local.port(), a.nat_local, a.nat_remote), (500, false, false));
    assert!(a.initiator && !b.initiator);
    assert_eq!(a.algorithms, b.algorithms);
    assert_eq!(a.children[0].local_ts, [config::lan(A, 0)]);
    assert_eq!(a.children[0].local_ts, b.children[0].remote_ts);
    assert_eq!(a.children[0].algorithms, b.children[0].algorithms);
}

/// An IKE SA is initiated once, whatever is asked for how often.
#[test]
fn asking_twice_makes_one_tunnel() {
    let mut world = World::pair(3);
    let tickets = [world.initiate(A, "gw", "net"), world.initiate(A, "gw", "net")];
    world.run_for(Duration::from_secs(1));
    let third = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(60));
    for ticket in tickets {
        assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()));
    }
    assert!(matches!(world.reply(A, third), Some(Err(CommandError::Duplicate(_)))));
    world.check_one_tunnel(A, B);
    assert_eq!((world.sent(A), world.sent(B)), (2, 2));
}
