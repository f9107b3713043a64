//! Rekeying the IKE SA: the children stay, message IDs begin at 0, the old one is deleted by the initiator (RFC 7296 §1.3.2, §2.18).

use std::time::Duration;

use ike_wire::ids::ExchangeType;
use scenarios::{A, B, Verdict, World, config};

fn up() -> World {
    let mut world = World::pair(1);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(3));
    world
}

//= RFC 7296 §1.3.2: CHILD SAs pass to the new IKE SA, whose message IDs begin at zero
/// I1
#[test]
fn from_either_side() {
    for who in [A, B] {
        let other = A + B - who;
        let mut world = up();
        let (tunnels, sent) = (world.tunnels(A, B), (world.sent(who), world.sent(other)));
        let old = world.gateway(A).ike_sas(world.now())[0].initiator_spi;
        world.rekey_ike(who, "gw");
        world.run_for(Duration::from_secs(1));
        assert_eq!((world.sent(who) - sent.0, world.sent(other) - sent.1), (2, 2));
        world.traffic_every = Some(Duration::from_millis(500));
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.tunnels(A, B), tunnels, "the same CHILD SA");
        world.check_one_tunnel(A, B);
        for who in [A, B] {
            let gateway = world.gateway(who);
            assert_eq!(gateway.event_names()[2..], ["ike-sa.rekeyed"]);
            let [ike] = gateway.ike_sas(world.now()).try_into().unwrap();
            assert_ne!(ike.initiator_spi, old);
            assert_eq!(ike.generation, 1);
        }
        // The children can be rekeyed under the new IKE SA, whose message IDs began at 0.
        world.rekey_child(other, "net");
        world.run_for(Duration::from_secs(8));
        world.check_one_tunnel(A, B);
        assert_ne!(world.tunnels(A, B), tunnels);
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    }
}

#[test]
fn by_time_over_and_over() {
    for (a, b) in [(100, 0), (0, 100), (100, 100)] {
        let at = |one, other, seconds| {
            let mut connection = config::connection("gw", one, other);
            connection.rekey_time = Duration::from_secs(seconds);
            connection.over_time = Duration::from_secs(seconds / 10);
            connection
        };
        let mut world = World::pair_of(1, at(A, B, a), at(B, A, b));
        world.establish();
        let tunnels = world.tunnels(A, B);
        world.run_for(Duration::from_secs(1_050));
        world.check_one_tunnel(A, B);
        assert_eq!(world.tunnels(A, B), tunnels);
        let rekeyed = (world.gateway(A).count("ike-sa.rekeyed"), world.gateway(B).count("ike-sa.rekeyed"));
        assert_eq!(rekeyed, (10, 10), "{a} s and {b} s");
        assert_eq!((world.gateway(A).count("ike-sa.closed"), world.gateway(B).count("ike-sa.closed")), (0, 0));
        assert_eq!((world.gateway(A).counts().ike_sas, world.gateway(B).counts().ike_sas), (1, 1));
    }
}

#[test]
fn with_loss() {
    for lost in 0..4 {
        for who in [A, B] {
            let mut world = up();
            let before = world.sent(who);
            world.link.drop_if(move |from, n| from == who && n == before + lost / 2);
            world.rekey_ike(if lost % 2 == 0 { A } else { B }, "gw");
            // A lost answer to the DELETE of the old IKE SA is never repeated: nobody is left to do that.
            world.traffic_every = Some(Duration::from_millis(500));
            world.run_for(Duration::from_secs(200));
            world.check_one_tunnel(A, B);
            assert_eq!((world.gateway(A).count("ike-sa.rekeyed"), world.gateway(B).count("ike-sa.rekeyed")), (1, 1));
            assert_eq!((world.gateway(A).counts().ike_sas, world.gateway(B).counts().ike_sas), (1, 1));
            assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
        }
    }
}

/// The DELETE of the old IKE SA never comes: it is reaped, the new one is not touched.
#[test]
fn the_old_one_is_never_deleted() {
    let mut world = up();
    let old = world.gateway(A).ike_sas(world.now())[0].initiator_spi;
    world.link.rule(move |sending| {
        let of_old = sending.header.initiator_spi.0 == old && sending.header.exchange == ExchangeType::INFORMATIONAL;
        if of_old { Verdict::Drop } else { Verdict::Pass }
    });
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(300));
    world.check_one_tunnel(A, B);
    for who in [A, B] {
        let gateway = world.gateway(who);
        assert_eq!(gateway.counts().ike_sas, 1, "{who}");
        assert_eq!((gateway.count("ike-sa.rekeyed"), gateway.count("ike-sa.closed")), (1, 0), "{who}");
    }
}

/// The hard lifetime comes while the rekeying is under way: the new IKE SA is not at its end.
#[test]
fn the_hard_lifetime_comes_while_rekeying() {
    let mut short = config::connection("gw", A, B);
    short.rekey_time = Duration::from_secs(100);
    let mut world = World::pair_of(1, short, config::connection("gw", B, A));
    world.establish();
    let tunnels = world.tunnels(A, B);
    world.run_for(Duration::from_secs(150));
    world.check_one_tunnel(A, B);
    assert_eq!(world.tunnels(A, B), tunnels);
    for who in [A, B] {
        let gateway = world.gateway(who);
        assert_eq!((gateway.count("ike-sa.rekeyed"), gateway.count("ike-sa.closed")), (1, 0));
    }
}

/// Hard lifetime: an IKE SA that cannot be rekeyed is closed with its children, at the peer when that finds us gone.
#[test]
fn the_hard_lifetime_ends_it() {
    let mut short = config::connection("gw", A, B);
    short.rekey_time = Duration::from_secs(100);
    short.over_time = Duration::from_secs(10);
    let mut asking = config::connection("gw", B, A);
    asking.dpd_delay = Duration::from_secs(30);
    let mut world = World::pair_of(1, short, asking);
    world.establish();
    world.strict(false);
    world.link.rule(
        |sending| {
            if sending.is_request(ExchangeType::CREATE_CHILD_SA) { Verdict::Drop } else { Verdict::Pass }
        },
    );
    let closed = |world: &World| [A, B].map(|who| world.gateway(who).count("ike-sa.closed"));
    assert!(world.run_until(Duration::from_secs(600), |world| closed(world) == [1, 1]), "{:?}", closed(&world));
}
