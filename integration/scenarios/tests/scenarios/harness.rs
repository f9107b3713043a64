//! The harness itself: a broken judge would let everything pass.

use std::time::Duration;

use ipsec::{Direction, OffloadBackend, Op, Request, Shard, Tag};
use scenarios::{A, B, Dice, World};

#[test]
fn a_seed_decides_everything() {
    let run = |seed| {
        let mut world = World::pair(seed);
        world.link.jitter = Duration::from_millis(15);
        world.establish();
        world.trace_text()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn dice_stay_in_their_bounds() {
    let mut dice = Dice::new(3);
    let throws: Vec<_> = (0..10_000).map(|_| dice.below(6)).collect();
    assert!((0..6).all(|side| throws.iter().filter(|throw| **throw == side).count() > 1_000));
    assert_eq!(dice.below(0), 0);
    assert!((0..100).all(|_| dice.span(Duration::from_millis(3)) <= Duration::from_millis(3)));
    assert!(!dice.per_mille(0) && dice.per_mille(1_000));
}

/// Takes the inbound SA of B away behind the core's back.
fn without_inbound() -> World {
    let mut world = World::pair(1);
    world.establish();
    let tables = world.gateway(B).tables();
    let inbound = tables.sas.values().find(|sa| sa.direction == Direction::Inbound).unwrap().handle;
    world.gateway(B).backend.submit(Tag::new(Shard(0), 1 << 50), Request::Apply(vec![Op::RemoveSa(inbound)]));
    world
}

#[test]
#[should_panic(expected = "which B does not receive")]
fn a_missing_inbound_sa_is_noticed() {
    without_inbound().check_sas();
}

#[test]
fn a_packet_without_an_sa_is_counted_as_lost() {
    let mut world = without_inbound();
    world.strict(false);
    world.send_packets(A);
    world.send_packets(B);
    world.run_for(Duration::from_millis(100));
    let traffic = world.traffic;
    assert_eq!((traffic.sent, traffic.delivered, traffic.lost, traffic.blocked), (2, 1, 1, 0));
}

#[test]
#[should_panic(expected = "nobody owns it")]
fn an_sa_without_an_owner_is_noticed() {
    let mut world = World::pair(1);
    world.establish();
    let mut stray = world.gateway(B).tables().sas.into_values().next().unwrap();
    stray.handle = ipsec::SaHandle::new(Shard(0), 1 << 40);
    stray.spi = ipsec::Spi::new(0xdead_beef).unwrap();
    world.gateway(B).backend.submit(Tag::new(Shard(0), 1 << 50), Request::Apply(vec![Op::InstallSa(Box::new(stray))]));
    world.rekey_child(B, "net");
}
