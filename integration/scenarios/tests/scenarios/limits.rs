//! Limits on octets and packets: raised by the device or found in its counters, told once, made up for when their event is lost; and what all
//! generations of a child have carried (RFC 4301 §4.4.2.1).

use std::time::Duration;

use ike_model::snapshot::Carried;
use ike_model::{CauseKind, ChildSaSnapshot, Connection, EventBody};
use ipsec::limits::Lifetime;
use ipsec::{Direction, Event, LifetimeConfig, LimitUnit, LimitUnits, SaHandle};
use scenarios::{A, B, Who, World, config};

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A connection whose child has these limits.
fn limited(who: Who, lifetime: LifetimeConfig) -> Connection {
    config::with_child(config::connection("gw", who, A + B - who), |child| child.lifetime = lifetime)
}

fn packets(soft: u64, hard: u64) -> LifetimeConfig {
    LifetimeConfig { packets: Lifetime { soft, hard, jitter: 0 }, ..config::no_limits() }
}

/// Limits in octets; packets have a hundred.
fn bytes(soft: u64, hard: u64) -> LifetimeConfig {
    LifetimeConfig { bytes: Lifetime { soft, hard, jitter: 0 }, ..config::no_limits() }
}

/// A tunnel whose end A has limits, on a device that raises these units.
fn up(lifetime: LifetimeConfig, raised: LimitUnits) -> World {
    let mut world = World::pair_of(1, limited(A, lifetime), config::connection("gw", B, A));
    world.gateway_mut(A).raise_only(raised);
    world.establish();
    world
}

fn child(world: &World, who: Who) -> ChildSaSnapshot {
    world.gateway(who).live_children(world.now()).remove(0)
}

fn told<'w>(world: &'w World, who: Who, name: &'w str) -> impl Iterator<Item = &'w EventBody> {
    world.gateway(who).events.iter().map(|(_, body)| body).filter(move |body| body.name() == name)
}

/// The generations that were replaced, as they were told.
fn replaced(world: &World, who: Who) -> Vec<ChildSaSnapshot> {
    let old = told(world, who, "child-sa.rekeyed");
    old.filter_map(|body| if let EventBody::ChildSaRekeyed { old, .. } = body { Some((**old).clone()) } else { None })
        .collect()
}

/// A device is handed what it raises and nothing else, the soft limit below the hard one in every unit.
#[test]
fn a_device_is_handed_its_own_units() {
    let all = LifetimeConfig { bytes: Lifetime { soft: 0, hard: 10_000, jitter: 0 }, ..packets(50, 60) };
    let handed = |raised| {
        let world = up(all, raised);
        world.gateway(A).with_tables(|tables| {
            let limits = tables.sas.values().map(|sa| sa.limits);
            limits.map(|l| (l.soft.bytes, l.hard.bytes, l.soft.packets, l.hard.packets)).collect::<Vec<_>>()
        })
    };
    let only = |bytes, packets| LimitUnits { time: false, bytes, packets };
    let (octets, count) = ((Some(9_999), Some(10_000)), (Some(50), Some(60)));
    assert_eq!(handed(LimitUnits::ALL), [(octets.0, octets.1, count.0, count.1); 2]);
    assert_eq!(handed(only(false, true)), [(None, None, count.0, count.1); 2]);
    assert_eq!(handed(only(true, false)), [(octets.0, octets.1, None, None); 2]);
    assert_eq!(handed(LimitUnits::NONE), [(None, None, None, None); 2]);
}

/// The same limits, raised by the device and found in its counters: rekeyed over and over, nothing lost, each generation within its limits.
#[test]
fn rekeyed_by_packets_and_octets_on_any_device() {
    for raised in [LimitUnits::ALL, LimitUnits::NONE] {
        for lifetime in [packets(1_000, 1_200), bytes(100_000, 120_000)] {
            let mut world = up(lifetime, raised);
            world.strict(true);
            world.traffic_every = Some(MS(5));
            world.run_for(SECONDS(101));
            world.check_one_tunnel(A, B);
            let each: Vec<u64> = replaced(&world, A).iter().map(|old| old.traffic_out.packets).collect();
            world.check((18..=20).contains(&each.len()), &format!("{raised:?}: {} rekeys", each.len()));
            // What is sent until the peer has answered is little.
            let within = each.iter().all(|sent| (1_000..=1_060).contains(sent));
            world.check(within, &format!("{raised:?}: generations of {each:?} packets"));
            let counts = ["child-sa.soft-expired", "child-sa.hard-expired", "child-sa.closed"];
            let counts = counts.map(|name| world.gateway(A).count(name));
            world.check(counts == [each.len(), 0, 0], &format!("{raised:?}: {counts:?}"));
            let traffic = world.traffic;
            world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{raised:?}: {traffic:?}"));
        }
    }
}

/// A hard limit that nothing comes before: traffic stops there, whoever finds it; one event, and a new CHILD SA with other keys.
#[test]
fn a_hard_limit_alone_ends_the_sa_and_makes_another() {
    for (raised, most) in [(LimitUnits::ALL, 0), (LimitUnits::NONE, 20)] {
        for lifetime in [packets(0, 2_000), bytes(0, 200_000)] {
            let mut world = up(lifetime, raised);
            let before = world.tunnels(A, B);
            world.strict(false);
            world.traffic_every = Some(MS(1));
            let ended = world.run_until(SECONDS(10), |world| world.gateway(A).count("child-sa.closed") == 1);
            world.check(ended, "it goes on");
            let [EventBody::ChildSaClosed { child, cause, .. }] =
                told(&world, A, "child-sa.closed").collect::<Vec<_>>()[..]
            else {
                world.fail("not one end")
            };
            assert_eq!(cause.kind, CauseKind::HardLimit);
            let passed = child.traffic_out.packets.max(child.traffic_in.packets);
            let over = passed.saturating_sub(2_000);
            println!("{raised:?}: {passed} packets passed over an SA for 2,000");
            world.check(over <= most && passed >= 1_995, &format!("{raised:?}: {passed} packets passed"));
            let again = world.run_until(SECONDS(5), |world| !world.tunnels(A, B).is_empty());
            world.check(again && world.tunnels(A, B) != before, "it does not come again");
            let told = ["child-sa.hard-expired", "child-sa.soft-expired"].map(|name| world.gateway(A).count(name));
            world.check(told == [1, 0], &format!("{raised:?}: hard and soft told {told:?} times"));
        }
    }
}

/// What the peer is told may wait for the window; what passes may not.
#[test]
fn a_hard_limit_takes_hold_while_the_peer_is_silent() {
    let mut world = up(packets(0, 1_000), LimitUnits::NONE);
    world.link.drop_if(|from, _| from == B);
    world.rekey_ike(A, "gw");
    world.traffic_every = Some(MS(1));
    world.run_for(SECONDS(3));
    let sending = world
        .gateway(A)
        .with_tables(|tables| tables.sas.values().filter(|sa| sa.direction == Direction::Outbound).count());
    assert_eq!((sending, world.gateway(A).count("child-sa.hard-expired")), (0, 1), "{}", world.trace_text());
    // The policies stay: nothing goes out in clear.
    let held_back =
        world.gateway(A).with_tables(|tables| scenarios::packets::ways(tables).iter().all(|way| way.sa.is_none()));
    assert!(held_back && world.traffic.blocked > 1_000);
}

fn sas(world: &World, who: Who) -> [SaHandle; 2] {
    let child = child(world, who);
    [child.sa_in.unwrap(), child.sa_out.unwrap()]
}

/// Events that come twice, for both directions, in the wrong order, or for what is gone: told once, acted on once.
#[test]
fn events_that_come_again_or_too_late_change_nothing() {
    let soft = |sa| Event::SoftExpire { sa, unit: LimitUnit::Packets };
    let hard = |sa| Event::HardExpire { sa, unit: LimitUnit::Packets };
    let counts = |world: &World| {
        ["child-sa.soft-expired", "child-sa.hard-expired", "child-sa.rekeyed", "child-sa.closed"]
            .map(|name| world.gateway(A).count(name))
    };
    // Soft in both directions, twice; again once it is replaced.
    let mut world = up(packets(1_000, 1_100), LimitUnits::ALL);
    let old = sas(&world, A);
    for _ in 0..2 {
        old.into_iter().for_each(|sa| world.backend_event(A, soft(sa)));
    }
    world.run_for(SECONDS(1));
    old.into_iter().for_each(|sa| world.backend_event(A, soft(sa)));
    old.into_iter().for_each(|sa| world.backend_event(A, hard(sa)));
    world.run_for(SECONDS(10));
    old.into_iter().for_each(|sa| world.backend_event(A, hard(sa)));
    world.run_for(SECONDS(10));
    world.check_one_tunnel(A, B);
    assert_eq!(counts(&world), [1, 0, 1, 0], "{}", world.trace_text());
    // Hard in both directions, twice, then soft.
    let mut world = up(packets(1_000, 1_100), LimitUnits::ALL);
    world.strict(false);
    let old = sas(&world, A);
    for _ in 0..2 {
        old.into_iter().for_each(|sa| world.backend_event(A, hard(sa)));
    }
    old.into_iter().for_each(|sa| world.backend_event(A, soft(sa)));
    world.run_for(SECONDS(10));
    world.check_one_tunnel(A, B);
    assert_eq!(counts(&world), [0, 1, 0, 1], "{}", world.trace_text());
    // A soft limit that stands in for none: the device wants one.
    let mut world = up(packets(0, 1_100), LimitUnits::ALL);
    let stand_in = sas(&world, A);
    stand_in.into_iter().for_each(|sa| world.backend_event(A, soft(sa)));
    world.run_for(SECONDS(10));
    assert_eq!(counts(&world), [0, 0, 0, 0], "{}", world.trace_text());
}

/// The device raises its limits and nobody hears of it: the soft one is found in time, so that there is no stop at the hard one.
#[test]
fn a_lost_soft_expire_is_found_before_the_hard_limit() {
    for every in [MS(10), MS(40), MS(100)] {
        let mut world = up(packets(2_000, 2_400), LimitUnits::ALL);
        world.gateway_mut(A).loses_expires = true;
        world.traffic_every = Some(every);
        world.run_for(every * 20_000);
        world.check_one_tunnel(A, B);
        let (rekeyed, closed) = (world.gateway(A).count("child-sa.rekeyed"), world.gateway(A).count("child-sa.closed"));
        world.check(rekeyed >= 8 && closed == 0, &format!("{every:?}: {rekeyed} rekeys, {closed} ends"));
        let traffic = world.traffic;
        world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{every:?}: {traffic:?}"));
    }
}

/// The hard expire is lost too: the tunnel is down until the counters are read next, not for good.
#[test]
fn a_lost_hard_expire_is_found() {
    let mut world = up(packets(0, 500), LimitUnits::ALL);
    world.strict(false);
    world.gateway_mut(A).loses_expires = true;
    world.traffic_every = Some(MS(5));
    world.run_for(SECONDS(60));
    let again = world.run_until(SECONDS(20), |world| !world.tunnels(A, B).is_empty());
    world.check(again, "it does not come again");
    let (hard, closed) = (world.gateway(A).count("child-sa.hard-expired"), world.gateway(A).count("child-sa.closed"));
    world.check(hard >= 2 && hard == closed, &format!("{hard} times at the limit, {closed} ends"));
}

/// A limit that is reached before the backend's answer to the install arrives.
#[test]
fn an_expire_that_overtakes_the_answer_to_the_install() {
    let mut world = World::pair_of(1, limited(A, packets(1_000, 1_100)), config::connection("gw", B, A));
    world.gateway_mut(A).report_delay = Some(MS(50));
    world.initiate(A, "gw", "net");
    let there = world.run_until(SECONDS(5), |world| !world.gateway(A).tables().sas.is_empty());
    assert!(there && world.gateway(A).live_children(world.now()).is_empty());
    let sa = world.gateway(A).with_tables(|tables| tables.sas.keys().next_back().copied()).unwrap();
    world.gateway(A).backend.count(sa, 1_000, 1_000);
    world.backend_event(A, Event::SoftExpire { sa, unit: LimitUnit::Packets });
    assert_eq!(world.gateway(A).count("child-sa.soft-expired"), 0);
    world.run_for(SECONDS(2));
    assert_eq!((world.gateway(A).count("child-sa.soft-expired"), world.gateway(A).count("child-sa.rekeyed")), (1, 1));
}

/// Limits at both ends that are reached in the same instant, over and over: whoever wins, one pair stays, and nothing is lost.
#[test]
fn both_ends_reach_their_limits_at_once() {
    let mut refused = 0;
    for seed in 0..12 {
        for raised in [LimitUnits::ALL, LimitUnits::NONE] {
            let mut world = World::pair_of(seed, limited(A, packets(400, 600)), limited(B, packets(400, 600)));
            for who in [A, B] {
                world.gateway_mut(who).raise_only(raised);
            }
            world.link.jitter = MS(seed * 2);
            world.establish();
            world.traffic_every = Some(MS(10));
            world.run_for(SECONDS(60));
            world.traffic_every = None;
            world.run_for(SECONDS(20));
            world.check_one_tunnel(A, B);
            for who in [A, B] {
                let gateway = world.gateway(who);
                let counts =
                    ["child-sa.rekeyed", "child-sa.closed", "child-sa.hard-expired"].map(|name| gateway.count(name));
                world.check(counts[0] >= 10 && counts[1..] == [0, 0], &format!("{raised:?}: {counts:?}"));
                let tables = gateway.tables();
                world.check(tables.sas.len() == 2 && tables.policies.len() == 3, "something is left over");
                refused += world.refusals(who);
            }
            let traffic = world.traffic;
            world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{raised:?}: {traffic:?}"));
        }
    }
    println!("{refused} refusals");
}

fn carried(packets: u64) -> Carried {
    Carried { packets, bytes: packets * 100 }
}

/// Over rekeys of the CHILD SA and of the IKE SA not one packet is forgotten, also none that comes late or while SAs are removed.
#[test]
fn totals_outlive_rekeying() {
    let mut world = up(packets(150, 300), LimitUnits::ALL);
    world.link.latency = MS(30);
    world.traffic_every = Some(MS(10));
    world.run_for(SECONDS(10));
    world.rekey_ike(B, "gw");
    world.run_for(SECONDS(10));
    world.traffic_every = None;
    // Everything has arrived, what lingers is gone, and the counters of what is left are asked for with one more rekeying.
    world.run_for(SECONDS(20));
    world.rekey_child(A, "net");
    world.run_for(SECONDS(10));
    let (ends, traffic) = ([child(&world, A), child(&world, B)], world.traffic);
    assert!(ends[0].generation >= 10 && traffic.lost == 0, "{traffic:?}");
    let (sent, received) =
        (ends[0].total_out.packets + ends[1].total_out.packets, ends[0].total_in.packets + ends[1].total_in.packets);
    assert_eq!((sent, received), (traffic.sent, traffic.delivered));
    for (one, other) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        assert_eq!(one.total_out, other.total_in);
        assert_eq!(one.total_out, carried(one.total_out.packets));
        assert_eq!(one.traffic_out.packets, 0, "of this generation");
    }
    // A child made anew begins anew.
    world.strict(false);
    world.terminate_child(A, "net");
    world.run_for(SECONDS(1));
    world.initiate(A, "gw", "net");
    world.run_for(SECONDS(1));
    assert_eq!(child(&world, A).total_out, Carried::default());
}

/// Events tell what was carried: of the old generation with a rekeying, of the last one at the end.
#[test]
fn events_tell_the_counters() {
    let mut world = up(config::no_limits(), LimitUnits::ALL);
    let send = |world: &mut World, times| {
        for _ in 0..times {
            world.send_packets(A);
            world.run_for(MS(10));
        }
        world.run_for(MS(100));
    };
    send(&mut world, 30);
    world.rekey_child(A, "net");
    world.run_for(SECONDS(10));
    for (who, sent, received) in [(A, 30, 0), (B, 0, 30)] {
        let old = replaced(&world, who).remove(0);
        assert_eq!((old.traffic_out.packets, old.traffic_in.packets), (sent, received), "{who}");
        assert_eq!((old.total_out, old.total_in), (carried(sent), carried(received)), "{who}");
    }
    send(&mut world, 12);
    world.terminate_child(A, "net");
    world.run_for(SECONDS(1));
    let Some(EventBody::ChildSaClosed { child, .. }) = told(&world, A, "child-sa.closed").next() else {
        world.fail("no end told")
    };
    assert_eq!((child.traffic_out.packets, child.total_out), (12, carried(42)));
}

/// The peer ends it before anybody has looked at its counters; what it has carried is told nevertheless, and what a generation before it has.
#[test]
fn the_last_word_tells_all_that_was_carried() {
    let mut world = up(config::no_limits(), LimitUnits::ALL);
    let send = |world: &mut World, times| (0..times).for_each(|_| world.send_packets(A));
    send(&mut world, 30);
    world.rekey_child(A, "net");
    world.run_for(SECONDS(10));
    send(&mut world, 12);
    world.terminate_child(B, "net");
    world.run_for(SECONDS(1));
    for (who, sent, received) in [(A, [30, 12], [0, 0]), (B, [0, 0], [30, 12])] {
        let removed = told(&world, who, "child-sa.removed").map(|body| {
            let EventBody::ChildSaRemoved { child, successor, .. } = body else { world.fail("another event") };
            ((**child).clone(), *successor)
        });
        let removed: Vec<_> = removed.collect();
        let [(old, replaced_by), (new, None)] = &removed[..] else { world.fail("the second one was replaced") };
        assert_eq!(*replaced_by, Some(new.unique_id), "{who}");
        let out = [old.traffic_out, new.traffic_out].map(|traffic| traffic.packets);
        assert_eq!((out, [old.traffic_in, new.traffic_in].map(|traffic| traffic.packets)), (sent, received), "{who}");
        assert_eq!((old.total_out, old.total_in), (carried(sent[0]), carried(received[0])), "{who}");
        let all = (carried(sent.iter().sum()), carried(received.iter().sum()));
        assert_eq!((new.total_out, new.total_in), all, "{who}");
    }
}

/// Counters are not read in vain: an idle tunnel's a dozen times in an hour.
#[test]
fn idle_tunnels_are_left_alone() {
    let mut world = up(config::no_limits(), LimitUnits::ALL);
    world.run_for(SECONDS(3_600));
    let steps = world.steps();
    world.run_for(SECONDS(3_600));
    let readings = world.steps() - steps;
    println!("{readings} inputs in an idle hour");
    assert!((12..=90).contains(&readings), "{readings} inputs in an idle hour");
    // IKE_SA_INIT and IKE_AUTH: nothing is said to the peer since.
    assert_eq!((world.sent(A), world.sent(B)), (2, 2));
}
