//! Both ends start rekeying in the same instant, over links that lose, double and reorder, and with slow arithmetic and backends.
//!
//! After ten seconds exactly one CHILD SA is usable, with the same SPIs at both ends, or the IKE SA is closed with a cause.

use std::time::Duration;

use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, Dice, World, config};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// After so long nothing is sent any more: ten seconds of losses, and two waits after TEMPORARY_FAILURE.
const SETTLED: Duration = Duration::from_secs(40);

/// What both ends do at once.
#[derive(Clone, Copy, Debug)]
enum Both {
    RekeyChild,
    RekeyChildWithKeyExchange,
    RekeyIke,
    Either,
}

fn up(seed: u64, both: Both) -> (World, Dice) {
    let mut dice = Dice::new(seed.wrapping_mul(7919));
    let pfs = |connection| match both {
        Both::RekeyChildWithKeyExchange => config::with_child(connection, |child| {
            child.esp_proposals = vec![config::esp_proposal(&[KeyExchangeId::ECP_256])];
        }),
        Both::RekeyChild | Both::RekeyIke | Both::Either => connection,
    };
    let mut world = World::pair_of(seed, pfs(config::connection("gw", A, B)), pfs(config::connection("gw", B, A)));
    for who in [A, B] {
        let gateway = world.gateway_mut(who);
        // Repeated after 0.5, 1.2, 2.4, 4.1 ... seconds, so that ten are enough.
        gateway.config.settings.retransmit_timeout = MS(500);
        gateway.config.settings.retransmit_base = 1.5;
        gateway.config.settings.retransmit_tries = 12;
        gateway.work_delay = (dice.below(2) == 0).then(|| dice.span(MS(60)));
        gateway.report_delay = (dice.below(2) == 0).then(|| dice.span(MS(60)));
    }
    world.establish();
    world.link.latency = MS(1) + dice.span(MS(80));
    world.link.jitter = dice.span(MS(120));
    world.link.loss = u32::try_from(dice.below(100)).unwrap();
    world.link.duplicates = u32::try_from(dice.below(200)).unwrap();
    (world, dice)
}

fn start(world: &mut World, dice: &mut Dice, both: Both) {
    for who in [A, B] {
        match both {
            Both::RekeyChild | Both::RekeyChildWithKeyExchange => world.rekey_child(who, "net"),
            Both::RekeyIke => world.rekey_ike(who, "gw"),
            Both::Either if dice.below(2) == 0 => world.rekey_ike(who, "gw"),
            Both::Either => world.rekey_child(who, "net"),
        };
    }
}

fn closed_with_cause(world: &World) -> bool {
    [A, B].iter().all(|who| world.gateway(*who).count("ike-sa.closed") > 0)
}

fn run(both: Both, seeds: std::ops::Range<u64>) {
    let mut closed = 0;
    for seed in seeds {
        let (mut world, mut dice) = up(seed, both);
        world.traffic_every = Some(MS(20));
        let begun = world.elapsed();
        start(&mut world, &mut dice, both);
        world.run_for(Duration::from_secs(3));
        world.traffic_every = Some(MS(500));
        world.run_for(Duration::from_secs(7));
        if closed_with_cause(&world) {
            closed += 1;
            continue;
        }
        // A CHILD SA and an IKE SA rekeyed at once refuse each other, and the second attempts may fall on this very moment.
        if !matches!(both, Both::Either) {
            world.check_one_tunnel(A, B);
        }
        let traffic = world.traffic;
        world.check(traffic.lost == 0 && traffic.blocked == 0, &format!("{traffic:?}"));
        world.link.loss = 0;
        // What was put off after TEMPORARY_FAILURE comes, lingering and reaping end, and nothing is left over.
        world.run_for(Duration::from_secs(120));
        world.check_one_tunnel(A, B);
        let last = [A, B].map(|who| world.sent_at(who).last().copied().unwrap_or_default()).into_iter().max();
        let settled = last.unwrap_or_default().saturating_sub(begun);
        world.check(settled <= SETTLED, &format!("messages for {settled:?}"));
        for who in [A, B] {
            let gateway = world.gateway(who);
            let left =
                (gateway.counts().ike_sas, gateway.counts().children, gateway.with_tables(|tables| tables.sas.len()));
            world.check(left == (1, 1, 2), &format!("{who}: IKE SAs, CHILD SAs, SAs left: {left:?}"));
            world.check(gateway.count("child-sa.closed") == 0, "no child was closed");
            let rekeyed = gateway.count("child-sa.rekeyed") + gateway.count("ike-sa.rekeyed");
            world.check((1..=4).contains(&rekeyed), &format!("{who}: told {rekeyed} times"));
        }
    }
    println!("{both:?}: {closed} closed with a cause");
}

#[test]
fn children() {
    run(Both::RekeyChild, 0..250);
}

#[test]
fn children_with_key_exchange() {
    run(Both::RekeyChildWithKeyExchange, 250..500);
}

#[test]
fn ike_sas() {
    run(Both::RekeyIke, 500..750);
}

#[test]
fn one_of_each() {
    run(Both::Either, 750..1_000);
}
