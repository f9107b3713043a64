//! Extended sequence numbers: what both ends agree on, in IKE_AUTH and in CREATE_CHILD_SA, and the packet limit of those without.

use std::time::Duration;

use ike_model::Connection;
use ike_wire::ids::EsnId;
use ipsec::Bounds;
use scenarios::{A, B, Who, World, config};

const ESN: EsnId = EsnId::EXT_SEQ;
const NO: EsnId = EsnId::NO_EXT_SEQ;

fn with(who: Who, other: Who, esn: &[EsnId]) -> Connection {
    config::with_child(config::connection("gw", who, other), |child| child.esp_proposals[0].esn = esn.to_vec())
}

/// Whether the SAs of a gateway have extended sequence numbers; all of them, or none.
fn installed(world: &World, who: Who) -> bool {
    let each: Vec<_> = world.gateway(who).with_tables(|tables| {
        tables.sas.values().map(|sa| (sa.esn, sa.limits.soft.packets, sa.limits.hard.packets)).collect()
    });
    let esn = each[0].0;
    //= RFC 4303 §3.3.3: without extended sequence numbers an SA ends before its number would wrap
    let hard = if esn { Bounds::BLOCK_CIPHER_PACKETS } else { Bounds::SEQUENCE };
    // The soft limit is three quarters of it, less a jitter of up to one.
    let within = |soft: &Option<u64>| soft.is_some_and(|soft| (hard / 2..=hard - hard / 4).contains(&soft));
    let bounded =
        |(of, soft, most): &(bool, Option<u64>, Option<u64>)| *of == esn && within(soft) && *most == Some(hard);
    world.check(each.iter().all(bounded), &format!("{each:?}"));
    esn
}

/// The responder's order decides where both allow both; a rekey at either end agrees on the same.
//= RFC 7296 §3.3.2: ESN is a transform that both ends must agree on
#[test]
fn every_pair() {
    let cases: [(&[EsnId], &[EsnId], Option<bool>); 12] = [
        (&[ESN], &[ESN], Some(true)),
        (&[NO], &[NO], Some(false)),
        (&[ESN], &[NO], None),
        (&[NO], &[ESN], None),
        (&[ESN, NO], &[ESN], Some(true)),
        (&[ESN, NO], &[NO], Some(false)),
        (&[NO, ESN], &[ESN], Some(true)),
        (&[ESN], &[NO, ESN], Some(true)),
        (&[NO], &[ESN, NO], Some(false)),
        (&[ESN, NO], &[NO, ESN], Some(false)),
        (&[NO, ESN], &[ESN, NO], Some(true)),
        (&[ESN, NO], &[ESN, NO], Some(true)),
    ];
    for shards in [1, 2, 7] {
        for (at_a, at_b, expected) in cases {
            let mut world = World::with_shards(1, &[shards, shards]);
            world.configure(A, with(A, B, at_a));
            world.configure(B, with(B, A, at_b));
            let ticket = world.initiate(A, "gw", "net");
            world.run_for(Duration::from_secs(60));
            let what = format!("{at_a:?} to {at_b:?}");
            world.check(world.reply(A, ticket).is_some_and(|done| done.is_ok() == expected.is_some()), &what);
            let Some(esn) = expected else {
                let cause = world.gateway(A).last_cause();
                world.check(world.gateway(A).counts().children == 0, &format!("{what}: {cause:?}"));
                continue;
            };
            world.check_one_tunnel(A, B);
            world.check((installed(&world, A), installed(&world, B)) == (esn, esn), &what);
            let shown = world.gateway(A).children(world.now())[0].algorithms.unwrap().esn;
            world.check(shown == esn, "what is listed is what is installed");
            world.rekey_child(A, "net");
            world.run_for(Duration::from_secs(30));
            world.check_one_tunnel(A, B);
            world.check((installed(&world, A), installed(&world, B)) == (esn, esn), &format!("{what}, rekeyed"));
        }
    }
}

/// Neither configured nor automatic packet limits become larger than what the sequence number allows.
#[test]
fn a_configured_limit_counts_where_it_is_smaller() {
    for (soft, hard, expected) in [(1_000, 2_000, (1_000, 2_000)), (1 << 40, 1 << 41, (3 << 30, u64::from(u32::MAX)))] {
        let limited = config::with_child(with(A, B, &[NO]), |child| {
            child.lifetime.packets = ipsec::limits::Lifetime { soft, hard, jitter: 0 };
        });
        let mut world = World::pair_of(1, limited, with(B, A, &[NO]));
        world.establish();
        world.gateway(A).with_tables(|tables| {
            for sa in tables.sas.values() {
                assert_eq!((sa.limits.soft.packets, sa.limits.hard.packets), (Some(expected.0), Some(expected.1)));
            }
        });
    }
}
