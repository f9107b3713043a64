//! Rekeyings of the IKE SA that cross, and those that meet exchanges for CHILD SAs or a delete (RFC 7296 §2.8.2, §2.25.2).

use std::time::Duration;

use ike_wire::ids::ExchangeType;
use scenarios::world::Flying;
use scenarios::{A, B, Verdict, Who, World};

const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORM: ExchangeType = ExchangeType::INFORMATIONAL;

fn held() -> World {
    let mut world = World::pair(1);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(3));
    world.link.rule(|_| Verdict::Hold);
    world
}

fn request(from: Who, exchange: ExchangeType) -> impl Fn(&Flying) -> bool {
    move |flying| {
        let header = flying.header();
        flying.from == from && header.exchange == exchange && !header.flags.response
    }
}

fn response(from: Who, exchange: ExchangeType) -> impl Fn(&Flying) -> bool {
    move |flying| {
        let header = flying.header();
        flying.from == from && header.exchange == exchange && header.flags.response
    }
}

fn flow(world: &mut World, seconds: u64) {
    world.link.clear_rules();
    world.let_all_go();
    // Packets flow while something may still happen.
    world.run_for(Duration::from_secs(2));
    world.traffic_every = world.traffic_every.map(|_| Duration::from_millis(200));
    world.run_for(Duration::from_secs(seconds - 2));
}

/// One IKE SA with the one child, told once at each end; no packet lost; and the new IKE SA works.
fn check_settled(world: &mut World, seconds: u64, what: &str) {
    let tunnels = world.tunnels(A, B);
    flow(world, seconds);
    world.note(what);
    world.check_one_tunnel(A, B);
    world.check(world.tunnels(A, B) == tunnels, "the CHILD SA has stayed");
    for who in [A, B] {
        let gateway = world.gateway(who);
        let told = (gateway.count("ike-sa.rekeyed"), gateway.count("ike-sa.closed"), gateway.counts().ike_sas);
        world.check(told == (1, 0, 1), &format!("{what}: rekeyed, closed, IKE SAs at {who}: {told:?}"));
    }
    let spis = [A, B].map(|who| {
        let ike = &world.gateway(who).ike_sas(world.now())[0];
        (ike.initiator_spi, ike.responder_spi)
    });
    world.check(spis[0] == spis[1], &format!("{what}: different IKE SAs are left: {spis:x?}"));
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(8));
    world.rekey_child(B, "net");
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    world.check(world.tunnels(A, B) != tunnels, "the new IKE SA can rekey");
    let traffic = world.traffic;
    world.check(traffic.lost == 0 && traffic.blocked == 0 && traffic.sent > 0, &format!("{what}: {traffic:?}"));
}

fn lowest_at(world: &World, place: usize) {
    let octet = |at: usize| if at == place { 0x01 } else { 0x80 };
    for at in [0, 3] {
        world.gateway(A).random.next_nonce(octet(at));
    }
    for at in [2, 1] {
        world.gateway(B).random.next_nonce(octet(at));
    }
}

/// I5
#[test]
fn both_rekey() {
    for place in 0..4 {
        let mut world = held();
        lowest_at(&world, place);
        world.rekey_ike(A, "gw");
        world.rekey_ike(B, "gw");
        world.let_go(request(A, CREATE));
        world.let_go(request(B, CREATE));
        world.run_for(Duration::from_millis(50));
        world.let_go(response(A, CREATE));
        world.let_go(response(B, CREATE));
        check_settled(&mut world, 60, &format!("lowest at {place}"));
    }
}

/// I5 with arithmetic that takes its time.
#[test]
fn both_rekey_slowly() {
    for place in 0..4 {
        for (a, b) in [(0, 0), (5, 0), (0, 5), (5, 25), (25, 5), (40, 40)] {
            let mut world = World::pair(1);
            world.establish();
            world.traffic_every = Some(Duration::from_millis(3));
            world.gateway_mut(A).work_delay = Some(Duration::from_millis(a));
            world.gateway_mut(B).work_delay = Some(Duration::from_millis(b));
            lowest_at(&world, place);
            world.rekey_ike(A, "gw");
            world.rekey_ike(B, "gw");
            check_settled(&mut world, 60, &format!("lowest at {place}, work takes {a} ms and {b} ms"));
        }
    }
}

/// I10: one response comes after the peer's DELETE, of the old or of the redundant IKE SA.
#[test]
fn a_response_after_the_delete() {
    for place in 0..4 {
        for late in [A, B] {
            let mut world = held();
            lowest_at(&world, place);
            world.rekey_ike(A, "gw");
            world.rekey_ike(B, "gw");
            world.let_go(request(A, CREATE));
            world.let_go(request(B, CREATE));
            let other = A + B - late;
            world.let_go(response(other, CREATE));
            world.run_for(Duration::from_millis(50));
            world.let_go(request(late, INFORM));
            world.run_for(Duration::from_millis(50));
            check_settled(&mut world, 250, &format!("lowest at {place}, response of {late} late"));
        }
    }
}

/// I12: our request never reaches the peer; its own rekeying and DELETE end our attempt.
#[test]
fn a_request_that_never_arrives() {
    for lost in [A, B] {
        let mut world = held();
        world.rekey_ike(A, "gw");
        world.rekey_ike(B, "gw");
        let other = A + B - lost;
        world.let_go(request(other, CREATE));
        world.let_go(response(lost, CREATE));
        world.let_go(request(other, INFORM));
        world.lose_held();
        check_settled(&mut world, 250, &format!("request of {lost} lost"));
    }
}

/// I13, I14: our request arrives when the peer has sent its DELETE of the old IKE SA; the refusal comes after or before that.
#[test]
fn a_request_while_the_old_one_is_deleted() {
    for refusal_first in [false, true] {
        for late in [A, B] {
            let other = A + B - late;
            let mut world = held();
            world.rekey_ike(A, "gw");
            world.rekey_ike(B, "gw");
            world.let_go(request(other, CREATE));
            world.let_go(response(late, CREATE));
            world.let_go(request(late, CREATE));
            if refusal_first {
                world.let_go(response(other, CREATE));
            }
            world.let_go(request(other, INFORM));
            check_settled(&mut world, 250, &format!("request of {late} late, refusal first: {refusal_first}"));
        }
    }
}

/// I16, I18: rekey against delete; the delete wins.
#[test]
fn rekey_against_delete() {
    for (rekeyer, deleter) in [(A, B), (B, A)] {
        for lost in [false, true] {
            let mut world = held();
            world.strict(false);
            world.rekey_ike(rekeyer, "gw");
            world.terminate_ike(deleter, "gw");
            if lost {
                world.let_go(request(rekeyer, CREATE));
                world.let_go(response(deleter, CREATE));
                world.lose_held();
            }
            flow(&mut world, 200);
            world.check_nothing_left();
            for who in [A, B] {
                let gateway = world.gateway(who);
                let told =
                    (gateway.count("ike-sa.rekeyed"), gateway.count("ike-sa.closed"), gateway.count("child-sa.closed"));
                assert_eq!(told, (0, 1, 1), "{rekeyer} rekeys, lost: {lost}");
            }
        }
    }
}

/// C29: each end rekeys something else; both are refused, both try again later.
#[test]
fn child_rekey_against_ike_rekey() {
    for (child, ike) in [(A, B), (B, A)] {
        let mut world = held();
        world.rekey_child(child, "net");
        world.rekey_ike(ike, "gw");
        flow(&mut world, 120);
        world.check_one_tunnel(A, B);
        for who in [A, B] {
            let gateway = world.gateway(who);
            assert_eq!(
                (gateway.count("ike-sa.rekeyed"), gateway.count("child-sa.rekeyed")),
                (1, 1),
                "child by {child}"
            );
            assert_eq!((gateway.count("ike-sa.closed"), gateway.count("child-sa.closed")), (0, 0));
        }
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    }
}

/// C30: child rekey against IKE delete.
#[test]
fn child_rekey_against_ike_delete() {
    for (child, ike) in [(A, B), (B, A)] {
        let mut world = held();
        world.strict(false);
        world.rekey_child(child, "net");
        world.terminate_ike(ike, "gw");
        flow(&mut world, 200);
        world.check_nothing_left();
        for who in [A, B] {
            assert_eq!(
                (world.gateway(who).count("ike-sa.closed"), world.gateway(who).count("child-sa.closed")),
                (1, 1)
            );
        }
    }
}

/// C32: child delete against IKE rekey: the delete is honoured, the rekeying comes later.
#[test]
fn child_delete_against_ike_rekey() {
    for (child, ike) in [(A, B), (B, A)] {
        let mut world = held();
        world.strict(false);
        world.terminate_child(child, "net");
        world.rekey_ike(ike, "gw");
        flow(&mut world, 120);
        world.check_tunnels(A, B, 0);
        for who in [A, B] {
            let gateway = world.gateway(who);
            assert_eq!((gateway.count("ike-sa.rekeyed"), gateway.count("child-sa.closed")), (1, 1), "child by {child}");
            assert_eq!(gateway.counts().ike_sas, 1);
        }
    }
}

/// X5: the answer to an IKE rekeying comes when everything is over: it must not harm the new IKE SA.
#[test]
fn a_late_copy_of_a_response() {
    let mut world = World::pair(1);
    world.establish();
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(40));
    let tunnels = world.tunnels(A, B);
    let copies: Vec<_> = world.gateway(B).sent.iter().map(|(_, path, octets)| (*path, octets.clone())).collect();
    for (path, octets) in copies {
        world.inject(A, ipsec::Path { local: path.remote, remote: path.local }, &octets);
    }
    world.run_for(Duration::from_secs(40));
    world.check_one_tunnel(A, B);
    assert_eq!(world.tunnels(A, B), tunnels);
    assert_eq!(world.gateway(A).counts().ike_sas, 1);
}
