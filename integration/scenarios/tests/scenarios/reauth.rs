//! Full authentication afresh: by time, by the peer's AUTH_LIFETIME, by command; make-before-break and break-before-make.

use std::time::Duration;

use ike_model::{Command, Connection, EventBody, HostSpec, Selector};
use ike_wire::ids::ExchangeType;
use scenarios::{A, B, Verdict, Who, World, config};

const S: fn(u64) -> Duration = Duration::from_secs;

fn connection(who: Who, other: Who, reauth: u64) -> Connection {
    let mut connection = config::connection("gw", who, other);
    connection.children = (0..3).map(|n| config::child(&format!("net{n}"), who, other, n).into()).collect();
    (connection.reauth_time, connection.over_time) = (S(reauth), S(reauth / 10));
    connection
}

/// All three children are up; reauthentication after so many seconds at each end, 0 = never.
fn up(seed: u64, shards: u8, times: [u64; 2], make_before_break: bool) -> World {
    let mut world = World::with_shards(seed, &[shards, shards]);
    for (who, other) in [(A, B), (B, A)] {
        world.gateway_mut(who).config.settings.make_before_break = make_before_break;
        world.configure(who, connection(who, other, times[who]));
    }
    for n in 0..3 {
        world.initiate(A, "gw", &format!("net{n}"));
    }
    world.run_for(S(2));
    world.check_tunnels(A, B, 3);
    world
}

fn ike_ids(world: &World, who: Who) -> Vec<u32> {
    world.gateway(who).ike_sas(world.now()).iter().map(|ike| ike.unique_id).collect()
}

fn reauthenticate(world: &mut World, who: Who) {
    let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
    let ticket = world.command(who, Command::Reauthenticate { selector });
    let done = world.reply(who, ticket);
    world.check(done.is_some_and(|done| done.is_ok_and(|outcome| outcome.matches == 1)), "one IKE SA matches");
}

/// Every child is back below one new IKE SA at both ends.
fn check_replaced(world: &World, before: &[Vec<u32>; 2]) {
    world.check_tunnels(A, B, 3);
    for who in [A, B] {
        let after = ike_ids(world, who);
        world.check(after.len() == 1 && !before[who].contains(&after[0]), &format!("one new IKE SA: {after:?}"));
        world.check(world.gateway(who).count("ike-sa.rekeyed") == 0, "not rekeyed but authenticated");
    }
}

/// By command at either end: make-before-break loses no packet; break-before-make has a gap that ends.
#[test]
fn by_command() {
    for shards in [1, 2, 7] {
        for who in [A, B] {
            for make_before_break in [true, false] {
                let mut world = up(1, shards, [0, 0], make_before_break);
                world.traffic_every = Some(Duration::from_millis(5));
                world.run_for(S(1));
                let before = [ike_ids(&world, A), ike_ids(&world, B)];
                reauthenticate(&mut world, who);
                world.run_for(S(20));
                check_replaced(&world, &before);
                let traffic = world.traffic;
                if make_before_break {
                    world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{traffic:?}"));
                } else {
                    // A gap of a few round trips, in which nothing is sent that nobody receives.
                    world.check(traffic.lost == 0 && (1..=40).contains(&traffic.blocked), &format!("{traffic:?}"));
                }
                let told = |(_, body): &(_, EventBody)| matches!(body, EventBody::IkeSaClosed { cause, .. } if cause.text.contains("authenticated afresh"));
                world.check(world.gateway(who).events.iter().any(told), "the cause is told");
            }
        }
    }
}

/// `reauth_time` of the initiator alone, of the responder alone, of both: once in each period, begun by one end only.
#[test]
fn by_time() {
    for shards in [1, 2, 7] {
        for times in [[600, 0], [0, 600], [600, 600], [300, 900]] {
            let mut world = up(2, shards, times, true);
            world.traffic_every = Some(Duration::from_millis(100));
            let shortest = times.into_iter().filter(|time| *time > 0).min().unwrap();
            world.run_for(S(shortest * 4));
            let established = world.gateway(A).count("ike-sa.established");
            world.check((4..=6).contains(&established), &format!("{times:?}: {established} IKE SAs"));
            world.run_for(S(30));
            world.check_tunnels(A, B, 3);
            world.check(world.gateway(A).counts().ike_sas == 1, "one IKE SA");
            let traffic = world.traffic;
            world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{times:?}: {traffic:?}"));
        }
    }
}

/// Rekeying the IKE SA does not put the authentication off.
//= RFC 4478 §2: if the IKE SA is rekeyed, the time limit applies to the new SA
#[test]
fn rekeying_does_not_put_it_off() {
    let mut world = World::with_shards(3, &[1, 1]);
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = connection(who, other, if who == A { 1_000 } else { 0 });
        connection.rekey_time = S(150);
        world.configure(who, connection);
    }
    world.initiate(A, "gw", "net0");
    world.run_for(S(950));
    assert_eq!(world.gateway(A).count("ike-sa.established"), 1);
    assert!(world.gateway(A).count("ike-sa.rekeyed") >= 6);
    world.run_for(S(60));
    assert_eq!(world.gateway(A).count("ike-sa.established"), 2);
    world.check_tunnels(A, B, 1);
}

/// A responder without an address of its peer can only tell it and, should that not help, close.
//= RFC 4478 §2: the responder sends a DELETE soon after the end of the lifetime
#[test]
fn a_responder_that_cannot_call() {
    let mut world = World::with_shards(4, &[1, 1]);
    world.configure(A, connection(A, B, 0));
    let mut waiting = connection(B, A, 600);
    waiting.remote_addrs = vec![HostSpec::Any];
    world.configure(B, waiting);
    world.initiate(A, "gw", "net0");
    world.run_for(S(5));
    // A knows when, and does it before: with margins from a twentieth to a quarter.
    let due = world.gateway(A).ike_sas(world.now())[0].reauth_seconds.unwrap();
    assert!((450 - 6..=570).contains(&due), "{due}");
    world.run_for(S(600));
    assert_eq!(world.gateway(A).count("ike-sa.established"), 2);
    world.check_tunnels(A, B, 1);
    // The second one is not authenticated again: A cannot reach B any more with a first request.
    world.link.rule(
        |sending| {
            if sending.header.exchange == ExchangeType::IKE_SA_INIT { Verdict::Drop } else { Verdict::Pass }
        },
    );
    world.run_for(S(700));
    let ends = |who: Who| {
        let hard = |(_, body): &&(_, EventBody)| matches!(body, EventBody::IkeSaClosed { cause, .. } if cause.text.contains("hard lifetime"));
        world.gateway(who).events.iter().filter(hard).count()
    };
    assert_eq!(ends(A) + ends(B), 1);
    world.check_tunnels(A, B, 0);
}

/// The responder's configuration changes while the IKE SA is up: it tells, and only what is shorter counts.
//= RFC 4478 §5: the notification does not override a stricter policy of the initiator
//= RFC 4478 §3: the lifetime told in a notification
#[test]
fn told_again_when_it_changes() {
    let mut world = up(5, 1, [0, 3_000], true);
    let due = |world: &World| world.gateway(A).ike_sas(world.now())[0].reauth_seconds.unwrap();
    let first = due(&world);
    assert!((2_200..=2_900).contains(&first), "{first}");
    world.configure(B, connection(B, A, 1_000));
    world.run_for(S(1));
    let shorter = due(&world);
    assert!((700..=1_000).contains(&shorter), "{shorter}");
    world.configure(B, connection(B, A, 9_000));
    world.run_for(S(1));
    assert_eq!(due(&world), shorter - 1, "a longer one changes nothing");
    world.check(world.gateway(A).counts().ike_sas == 1, "nothing was replaced by that");
}

/// X6: rekeying the IKE SA goes unanswered and it dies while it is being authenticated afresh: no child twice.
#[test]
fn the_old_one_dies_meanwhile() {
    for seed in 0..12 {
        for make_before_break in [true, false] {
            let mut world = up(seed, 1, [0, 0], make_before_break);
            // Messages of the old IKE SA are lost from now on, both ways.
            let spi = world.gateway(A).ike_sas(world.now())[0].initiator_spi;
            world.link.rule(
                move |sending| {
                    if sending.header.initiator_spi.0 == spi { Verdict::Drop } else { Verdict::Pass }
                },
            );
            world.rekey_ike(A, "gw");
            world.run_for(S(1 + seed));
            reauthenticate(&mut world, A);
            world.run_for(S(400));
            let (a, b) = (world.gateway(A).live_children(world.now()), world.gateway(B).live_children(world.now()));
            let names = |children: &[ike_model::ChildSaSnapshot]| {
                let mut names: Vec<_> = children.iter().map(|child| child.name.to_string()).collect();
                names.sort();
                names
            };
            world.check(names(&a) == ["net0", "net1", "net2"], &format!("at A: {:?}", names(&a)));
            world.check(world.tunnels(A, B).len() == 3, "each has its counterpart");
            world.check(names(&b).len() <= 6, "at B the old ones go when they are found dead");
        }
    }
}

/// Over links that lose and reorder, again and again.
#[test]
fn over_a_bad_link() {
    for (seed, shards) in (0..18).zip([1, 2, 7].into_iter().cycle()) {
        for make_before_break in [true, false] {
            let mut world = up(seed, shards, [0, 0], make_before_break);
            world.link.loss = 150;
            world.link.duplicates = 100;
            world.link.jitter = Duration::from_millis(80);
            for round in 0..3 {
                let before = [ike_ids(&world, A), ike_ids(&world, B)];
                reauthenticate(&mut world, if round % 2 == 0 { A } else { B });
                world.run_for(S(300));
                check_replaced(&world, &before);
            }
        }
    }
}

/// What an operator closes while it is being replaced stays closed.
#[test]
fn closed_by_the_operator_meanwhile() {
    for make_before_break in [true, false] {
        for after in [0, 15, 25, 45] {
            let mut world = up(6, 1, [0, 0], make_before_break);
            reauthenticate(&mut world, A);
            world.run_for(Duration::from_millis(after));
            world.terminate_ike(A, "gw");
            world.run_for(S(120));
            world.check_nothing_left();
        }
    }
}
