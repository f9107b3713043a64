//! Children that are to be up: started at load, tried again ever more slowly, brought back after the peer closed them or died.

use std::time::Duration;

use ike_model::{Actions, Connection};
use scenarios::{A, B, World, config};

fn starting(connection: Connection) -> Connection {
    config::with_child(connection, |child| child.start_action = config::START)
}

#[test]
fn started_at_load() {
    for shards in [1, 2, 7] {
        let mut world = World::with_shards(1, &[shards, 1]);
        world.configure(B, config::connection("gw", B, A));
        world.configure(A, starting(config::connection("gw", A, B)));
        world.run_for(Duration::from_secs(1));
        world.check_one_tunnel(A, B);
        assert_eq!((world.sent(A), world.sent(B)), (2, 2));
    }
}

/// X10: both ends start in the same instant. Both IKE SAs may stay, but traffic flows, and nothing goes round in circles.
#[test]
fn both_ends_at_once() {
    for seed in 0..40 {
        let mut world = World::with_shards(seed, &[2, 3]);
        world.link.jitter = Duration::from_millis(5);
        world.configure(A, starting(config::connection("gw", A, B)));
        world.configure(B, starting(config::connection("gw", B, A)));
        world.run_for(Duration::from_secs(120));
        let count = world.gateway(A).live_children(world.now()).len();
        world.check((1..=2).contains(&count), "one or two tunnels");
        world.check(world.gateway(B).live_children(world.now()).len() == count, "the same at both ends");
        world.check(world.tunnels(A, B).len() == count, "the same SPIs at both ends");
        world.check_sas();
        world.check(world.sent(A) + world.sent(B) <= 16, "no more messages than needed");
        world.traffic_every = Some(Duration::from_millis(10));
        world.run_for(Duration::from_secs(1));
        let traffic = world.traffic;
        world.check(traffic.lost == 0 && traffic.blocked == 0 && traffic.delivered > 100, "traffic flows");
    }
}

/// Attempts at a peer that is away come ever more slowly, up to one in five minutes.
#[test]
fn attempts_slow_down() {
    let mut world = World::pair_of(1, starting(config::connection("gw", A, B)), config::connection("gw", B, A));
    world.link.partition(A, B);
    world.run_for(Duration::from_secs(4 * 3600));
    let attempts: Vec<_> = world.gateway(A).events.iter().map(|(at, _)| at.since_start().as_secs()).collect();
    assert!((30..=60).contains(&attempts.len()), "{} attempts", attempts.len());
    let gaps: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last = gaps.last().unwrap();
    // The schedule of 165 s, then 225 to 300 s.
    assert!(gaps.iter().all(|gap| (165..=466).contains(gap)) && (165 + 225..=466).contains(last), "{gaps:?}");
    world.link.mend();
    world.run_for(Duration::from_secs(500));
    world.check_one_tunnel(A, B);
}

/// `keyingtries`: so many sequences of repetitions in one attempt; 0 = endless.
#[test]
fn keyingtries() {
    for (tries, sent) in [(1, 6), (3, 18)] {
        let mut patient = config::connection("gw", A, B);
        patient.keyingtries = tries;
        let mut world = World::pair_of(1, patient, config::connection("gw", B, A));
        world.link.partition(A, B);
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_secs(166 * u64::from(tries)));
        assert!(world.reply(A, ticket).is_some_and(|done| done.is_err()));
        assert_eq!(world.sent(A), sent);
    }
    let mut endless = config::connection("gw", A, B);
    endless.keyingtries = 0;
    let mut world = World::pair_of(1, endless, config::connection("gw", B, A));
    world.link.partition(A, B);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(3_000));
    assert!(world.reply(A, ticket).is_none());
    world.link.mend();
    world.run_for(Duration::from_secs(100));
    assert!(world.reply(A, ticket).unwrap().is_ok());
}

/// X9: initiated again and again while the peer is away: one tunnel when it comes back.
#[test]
fn many_wishes_make_one_tunnel() {
    let mut world = World::with_shards(1, &[3, 1]);
    let mut patient = config::connection("gw", A, B);
    patient.keyingtries = 0;
    world.configure(A, patient);
    world.configure(B, config::connection("gw", B, A));
    world.link.partition(A, B);
    let tickets: Vec<_> = (0..20)
        .map(|_| {
            world.run_for(Duration::from_millis(700));
            world.initiate(A, "gw", "net")
        })
        .collect();
    world.link.mend();
    world.run_for(Duration::from_secs(100));
    world.check_one_tunnel(A, B);
    assert!(tickets.into_iter().all(|ticket| world.reply(A, ticket).is_some_and(|done| done.is_ok())));
}

#[test]
fn the_peer_closes_it() {
    for (action, up) in [(Actions::NONE, false), (config::START, true)] {
        let closing = config::with_child(config::connection("gw", A, B), |child| child.close_action = action);
        let mut world = World::pair_of(1, closing, config::connection("gw", B, A));
        world.establish();
        world.strict(false);
        world.terminate_ike(B, "gw");
        world.run_for(Duration::from_secs(30));
        world.check_tunnels(A, B, usize::from(up));
    }
}

#[test]
fn the_peer_dies() {
    for (action, up) in [(Actions::NONE, false), (config::START, true)] {
        let mut watching = config::with_child(config::connection("gw", A, B), |child| child.dpd_action = action);
        watching.dpd_delay = Duration::from_secs(10);
        let mut other = config::connection("gw", B, A);
        other.dpd_delay = Duration::from_secs(10);
        let mut world = World::pair_of(1, watching, other);
        world.establish();
        world.strict(false);
        world.link.partition(A, B);
        world.run_for(Duration::from_secs(300));
        world.link.mend();
        world.run_for(Duration::from_secs(600));
        world.check_tunnels(A, B, usize::from(up));
    }
}

/// What the operator closes stays closed.
#[test]
fn closed_by_the_operator() {
    let mut world = World::pair_of(1, starting(config::connection("gw", A, B)), config::connection("gw", B, A));
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    world.terminate_ike(A, "gw");
    world.run_for(Duration::from_secs(1_000));
    world.check_nothing_left();
}
