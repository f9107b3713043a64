//! Everything in any order: initiating, rekeying, closing, limits, refusals, cuts and losses, with the oracle watching. Afterwards the link
//! heals, and both ends must agree on what is left, be able to set up a tunnel, and to close everything.

use std::time::Duration;

use ipsec::OffloadError;
use scenarios::{A, B, Dice, Who, World, config};

/// Operations per seed.
const OPERATIONS: usize = 40;

fn operate(world: &mut World, dice: &mut Dice) {
    let who: Who = usize::try_from(dice.below(2)).unwrap();
    let in_use = !world.gateway(who).live_children(world.now()).is_empty();
    match dice.below(20) {
        0..=3 => drop(world.initiate(who, "gw", "net")),
        4 => drop(world.initiate(who, "gw", "other")),
        5..=7 => drop(world.rekey_child(who, "net")),
        8..=10 => drop(world.rekey_ike(who, "gw")),
        11 => drop(world.terminate_child(who, "net")),
        12 => drop(world.terminate_ike(who, "gw")),
        13 | 14 if in_use => limit(world, who, false),
        15 if in_use => limit(world, who, true),
        16 => {
            let error = OffloadError::Full { device: "recorder".into(), table: "SAD", size: 1 };
            world.gateway(who).backend.refuse_next_install(error);
        }
        17 => world.link.partition(A, B),
        18 => world.link.mend(),
        _ => world.send_packets(who),
    }
}

fn limit(world: &mut World, who: Who, hard: bool) {
    let children = world.gateway(who).live_children(world.now());
    let Some(sa) = children.iter().find_map(|child| child.sa_out) else { return };
    let unit = ipsec::LimitUnit::Packets;
    let event = if hard { ipsec::Event::HardExpire { sa, unit } } else { ipsec::Event::SoftExpire { sa, unit } };
    world.backend_event(who, event);
}

fn world(seed: u64, dice: &mut Dice) -> World {
    let shards = [1, 2, 7].map(|count| (dice.throw(), count)).into_iter().min().unwrap().1;
    let mut world = World::with_shards(seed, &[shards, 1]);
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = config::connection("gw", who, other);
        connection.children.push(config::child("other", who, other, 1).into());
        connection.dpd_delay = Duration::from_secs(40);
        world.configure(who, connection);
        let gateway = world.gateway_mut(who);
        gateway.config.settings.retransmit_timeout = Duration::from_secs(1);
        gateway.config.settings.retransmit_tries = 4;
        gateway.work_delay = (dice.below(2) == 0).then(|| dice.span(Duration::from_millis(50)));
        gateway.report_delay = (dice.below(2) == 0).then(|| dice.span(Duration::from_millis(50)));
    }
    world.link.jitter = dice.span(Duration::from_millis(100));
    world.link.loss = u32::try_from(dice.below(150)).unwrap();
    world.link.duplicates = u32::try_from(dice.below(150)).unwrap();
    world
}

/// Both ends list the same live CHILD SAs, each can send on what it uses, and nothing else is installed.
fn check_agreement(world: &World) {
    let counts = [A, B].map(|who| world.gateway(who).live_children(world.now()).len());
    world.check(counts[0] == counts[1], &format!("different numbers of CHILD SAs: {counts:?}"));
    world.check(world.tunnels(A, B).len() == counts[0], "CHILD SAs that are not the same at both ends");
    world.check_sas();
    for who in [A, B] {
        let gateway = world.gateway(who);
        let sas = gateway.with_tables(|tables| tables.sas.len());
        world.check(sas == 2 * counts[who], &format!("{who}: {sas} SAs for {} CHILD SAs", counts[who]));
        let established = gateway.counts();
        world.check(established.ike_sas == established.established, "an IKE SA never came up");
    }
}

fn run(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut dice = Dice::new(seed.wrapping_mul(104_729));
        let mut world = world(seed, &mut dice);
        for _ in 0..OPERATIONS {
            operate(&mut world, &mut dice);
            let pause = if dice.below(3) == 0 { Duration::ZERO } else { dice.span(Duration::from_millis(1_500)) };
            world.run_for(pause);
        }
        world.link.mend();
        (world.link.loss, world.link.duplicates) = (0, 0);
        world.note("the link is whole again");
        let sent = [world.sent(A), world.sent(B)];
        world.run_for(Duration::from_secs(600));
        check_agreement(&world);
        // No loops: liveness at most, and what was put off.
        for who in [A, B] {
            let more = world.sent(who) - sent[who];
            world.check(more < 200, &format!("{who} sent {more} more messages"));
        }
        // Refusals that were not used up come first.
        let comes_up = (0..OPERATIONS).any(|_| {
            let ticket = world.initiate(A, "gw", "net");
            world.run_for(Duration::from_secs(30));
            let done = world.reply(A, ticket);
            world.check(done.is_some(), "initiating has no end");
            done.is_some_and(|done| done.is_ok())
        });
        world.check(comes_up, "no tunnel comes up after all that");
        check_agreement(&world);
        for who in [A, B] {
            world.terminate_ike(who, "gw");
        }
        world.run_for(Duration::from_secs(300));
        world.check_nothing_left();
    }
}

#[test]
fn ends_in_order() {
    run(0..500);
}

#[test]
fn ends_in_order_too() {
    run(500..1_000);
}
