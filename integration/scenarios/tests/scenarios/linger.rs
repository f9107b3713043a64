//! Rekeyed CHILD SAs that only receive: as long as packets may come, and no more of them than there is room for (RFC 7296 §2.8).

use std::time::Duration;

use ipsec::Direction;
use scenarios::{A, B, Who, World};

fn inbound(world: &World, who: Who) -> usize {
    world.gateway(who).with_tables(|tables| tables.sas.values().filter(|sa| sa.direction == Direction::Inbound).count())
}

/// Rekeys again and again while nothing that lingers goes by time.
fn rekey_often(world: &mut World, times: usize) {
    for who in [A, B] {
        world.gateway_mut(who).config.settings.delete_rekeyed_delay = Duration::from_secs(600);
    }
    world.traffic_every = Some(Duration::from_millis(20));
    for _ in 0..times {
        world.rekey_child(A, "net");
        world.run_for(Duration::from_secs(2));
    }
}

fn check_nothing_lost(world: &World) {
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0), "{}", world.trace_text());
}

//= RFC 7296 §2.8: the old SA is still received on after it was replaced
#[test]
fn sixteen_linger_at_most() {
    let mut world = World::pair(1);
    world.establish();
    rekey_often(&mut world, 15);
    assert_eq!([inbound(&world, A), inbound(&world, B)], [16, 16]);
    rekey_often(&mut world, 1);
    assert_eq!([inbound(&world, A), inbound(&world, B)], [17, 17]);
    let oldest = |world: &World, who: Who| world.gateway(who).children(world.now())[0].spi_in.unwrap();
    let before = [A, B].map(|who| oldest(&world, who));
    rekey_often(&mut world, 3);
    assert_eq!([inbound(&world, A), inbound(&world, B)], [17, 17]);
    assert!([A, B].map(|who| oldest(&world, who)).iter().zip(before).all(|(now, before)| now.get() > before.get()));
    check_nothing_lost(&world);
}

/// A device for ten SAs: the CHILD SA has two, two stay free for the next rekeying, and six may linger.
#[test]
fn what_the_device_has_room_for() {
    let mut world = World::pair(1);
    world.gateway_mut(A).bound_sa_table(10);
    world.reload(A, &["gw"], &[]);
    world.establish();
    rekey_often(&mut world, 12);
    assert_eq!([inbound(&world, A), inbound(&world, B)], [7, 13]);
    check_nothing_lost(&world);
}

/// Without any room one still lingers until the packets that were under way have come: two round trips and 100 ms.
#[test]
fn none_goes_too_soon() {
    let mut world = World::pair(1);
    world.gateway_mut(A).bound_sa_table(4);
    world.establish();
    world.link.latency = Duration::from_millis(200);
    world.run_for(Duration::from_millis(500));
    rekey_often(&mut world, 0);
    world.rekey_child(A, "net");
    // Request, response, DELETE and its response: the old one lingers at A after 800 ms, and goes 900 ms after that.
    world.run_for(Duration::from_millis(1_690));
    assert_eq!(inbound(&world, A), 2);
    world.run_for(Duration::from_millis(20));
    assert_eq!(inbound(&world, A), 1);
    assert_eq!(inbound(&world, B), 2);
    check_nothing_lost(&world);
}
