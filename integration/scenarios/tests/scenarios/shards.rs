//! The same life with 1, 2 and 7 shards at each end: who owns what must not be seen from outside.

use std::time::Duration;

use ike_model::{Command, CommandError, Selector};
use scenarios::{A, B, World, config};

const COUNTS: [u8; 3] = [1, 2, 7];

fn world(seed: u64, shards: [u8; 2]) -> World {
    let mut world = World::with_shards(seed, &shards);
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = config::connection("gw", who, other);
        connection.children.push(config::child("other", who, other, 1).into());
        world.configure(who, connection);
    }
    world
}

/// A child that is up is not made again: whoever asks for it is told so, wherever its IKE SA is; whoever asks while it is being made has it.
#[test]
fn what_is_up_is_asked_for_in_vain() {
    for a in COUNTS {
        for b in COUNTS {
            let mut world = world(1, [a, b]);
            let first = [world.initiate(A, "gw", "net"), world.initiate(A, "gw", "net")];
            world.run_for(Duration::from_secs(1));
            for ticket in first {
                world.check(world.reply(A, ticket).is_some_and(|done| done.is_ok()), "it is being made");
            }
            for who in [A, B] {
                let ticket = world.initiate(who, "gw", "net");
                world.run_for(Duration::from_secs(1));
                let there = matches!(world.reply(who, ticket), Some(Err(CommandError::Duplicate(_))));
                world.check(there, "it is up");
            }
            world.check_tunnels(A, B, 1);
            world.check((world.sent(A), world.sent(B)) == (2, 2), "nothing was said of it");
        }
    }
}

/// Initiated by either end, a second child from the other end, rekeyed from both, closed by name: counted at every turn.
#[test]
fn a_whole_life() {
    for a in COUNTS {
        for b in COUNTS {
            for seed in 0..5 {
                let mut world = world(seed, [a, b]);
                let ticket = world.initiate(A, "gw", "net");
                world.run_for(Duration::from_secs(1));
                world.check(world.reply(A, ticket).is_some_and(|done| done.is_ok()), "initiated by A");
                // B has its IKE SA in any shard, and finds it.
                let ticket = world.initiate(B, "gw", "other");
                world.run_for(Duration::from_secs(1));
                world.check(world.reply(B, ticket).is_some_and(|done| done.is_ok()), "second child from B");
                world.check_tunnels(A, B, 2);
                world.check((world.sent(A), world.sent(B)) == (3, 3), "one IKE SA and one more exchange");
                world.strict(true);
                world.traffic_every = Some(Duration::from_millis(20));
                world.rekey_ike(B, "gw");
                world.run_for(Duration::from_secs(2));
                world.rekey_child(A, "net");
                world.rekey_child(B, "other");
                world.run_for(Duration::from_secs(10));
                world.check_tunnels(A, B, 2);
                world.check((world.traffic.lost, world.traffic.blocked) == (0, 0), "packets lost");
                for who in [A, B] {
                    let gateway = world.gateway(who);
                    let told = (gateway.count("ike-sa.rekeyed"), gateway.count("child-sa.rekeyed"));
                    world.check(told == (1, 2), &format!("told at {who}: {told:?}"));
                }
                world.strict(false);
                let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
                let ticket = world.command(B, Command::Terminate { selector, force: false });
                world.run_for(Duration::from_secs(1));
                let outcome = world.reply(B, ticket).unwrap().unwrap();
                world.check((outcome.matches, outcome.terminated) == (1, 1), "numbers of all shards add up");
                world.check_nothing_left();
            }
        }
    }
}

/// Unique ids, reqids and handles of different shards never meet.
#[test]
fn numbers_never_meet() {
    let mut world = World::with_shards(1, &[7, 1]);
    let mut any = config::connection("any", B, A);
    any.remote[0].id = ike_model::Identity::Any;
    any.children = (0..20).map(|n| config::child(&format!("net{n}"), B, A, n).into()).collect();
    world.configure(B, any);
    for number in 0..20 {
        let mut connection = config::connection(&format!("gw{number}"), A, B);
        connection.local[0].id = ike_model::Identity::Fqdn(format!("a{number}.example"));
        connection.children = vec![config::child("net", A, B, number).into()];
        world.configure(A, connection);
    }
    let shared = ike_model::SharedSecret { owners: Vec::new(), ..config::secret(A, B) };
    for who in [A, B] {
        let config = &mut world.gateway_mut(who).config;
        config.secrets = vec![shared.clone().into()];
        // All twenty come from one address at once.
        (config.settings.cookie_threshold_ip, config.settings.block_threshold) = (0, 0);
    }
    for number in 0..20 {
        world.initiate(A, &format!("gw{number}"), "net");
    }
    world.run_for(Duration::from_secs(3));
    let ike_sas = world.gateway(A).ike_sas(world.now());
    assert_eq!(ike_sas.len(), 20);
    let count = |mut all: Vec<u32>| {
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    assert_eq!(count(ike_sas.iter().map(|ike| ike.unique_id).collect()), 20);
    assert_eq!(count(ike_sas.iter().flat_map(|ike| &ike.children).map(|child| child.unique_id).collect()), 20);
    assert_eq!(count(ike_sas.iter().flat_map(|ike| &ike.children).map(|child| child.reqid.0).collect()), 20);
    let shards = ike_sas.iter().map(|ike| u32::try_from(ike.initiator_spi >> 56).unwrap()).collect();
    assert!(count(shards) > 3, "the connections spread over the shards");
}
