//! The responder of a new CHILD SA sends on an equal one of another IKE SA until the initiator is known to have the new one (RFC 7296 §2.8).

use std::time::Duration;

use ike_wire::ids::ExchangeType;
use ipsec::Spi;
use scenarios::packets::ways;
use scenarios::{A, B, Verdict, Who, World, config};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn sends_on(world: &World, who: Who) -> Spi {
    world.gateway(who).with_tables(|tables| {
        let in_use = ways(tables)[0].sa.unwrap();
        tables.sas[&in_use].spi
    })
}

/// A peer that is authenticated afresh every half minute, and whose backend takes its time.
fn afresh(delay: u64) -> World {
    let mut at_a = config::connection("gw", A, B);
    at_a.reauth_time = Duration::from_secs(30);
    at_a.over_time = Duration::from_secs(600);
    let mut world = World::pair_of(1, at_a, config::connection("gw", B, A));
    world.establish();
    world.gateway_mut(A).report_delay = Some(MS(delay));
    world
}

//= RFC 7296 §2.8: the initiator may not be able to receive on a new SA yet when the responder has answered
#[test]
fn nothing_is_lost_while_a_peer_is_authenticated_afresh() {
    for delay in [0, 20, 200, 700] {
        let mut world = afresh(delay);
        world.traffic_every = Some(MS(3));
        world.run_for(Duration::from_secs(100));
        world.note(format!("backend takes {delay} ms"));
        world.check_one_tunnel(A, B);
        world.check(world.gateway(B).count("ike-sa.established") == 4, "authenticated afresh three times");
        world.check((world.traffic.lost, world.traffic.blocked) == (0, 0), &format!("{:?}", world.traffic));
    }
}

/// Without traffic, and while the older one is not deleted, the switch comes by time; with a packet it comes at once.
#[test]
fn the_switch_comes_by_a_packet_or_by_time() {
    for packet in [false, true] {
        let mut world = afresh(0);
        world.link.rule(|sending| {
            if sending.from == A && sending.is_request(ExchangeType::INFORMATIONAL) {
                Verdict::Drop
            } else {
                Verdict::Pass
            }
        });
        let before = sends_on(&world, B);
        let up = |world: &World| world.gateway(B).count("child-sa.installed") == 2;
        assert!(world.run_until(Duration::from_secs(40), up));
        assert_eq!(sends_on(&world, B), before, "the older one is in use for a moment");
        world.run_for(MS(500));
        assert_eq!(sends_on(&world, B), before);
        assert_ne!(sends_on(&world, A), sends_on(&world, B), "the initiator has switched at once");
        if packet {
            world.send_packets(A);
            world.run_for(MS(20));
        } else {
            world.run_for(MS(510));
        }
        assert_ne!(sends_on(&world, B), before, "by a packet: {packet}");
    }
}
