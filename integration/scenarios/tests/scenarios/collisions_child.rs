//! Exchanges for CHILD SAs that cross: rekey against rekey, rekey against delete, late and lost messages (RFC 7296 §2.8.1, §2.25.1).
//!
//! The order of deliveries is forced: what is sent is held and let go by hand.

use std::time::Duration;

use ike_wire::ids::{ExchangeType, KeyExchangeId};
use scenarios::world::Flying;
use scenarios::{A, B, Verdict, Who, World, config};

const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORM: ExchangeType = ExchangeType::INFORMATIONAL;

/// Up, traffic flowing, and everything sent from now on held.
fn held() -> World {
    let mut world = World::pair(1);
    world.establish();
    hold(&mut world);
    world
}

fn hold(world: &mut World) {
    world.traffic_every = Some(Duration::from_millis(3));
    world.link.rule(|_| Verdict::Hold);
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

/// From now on everything flows; after `seconds` one tunnel stands, told once at each end, and no packet was lost.
fn check_settled(world: &mut World, seconds: u64, what: &str) {
    flow(world, seconds);
    world.note(what);
    world.check_one_tunnel(A, B);
    for who in [A, B] {
        let gateway = world.gateway(who);
        let told =
            (gateway.count("child-sa.rekeyed"), gateway.count("child-sa.closed"), gateway.count("child-sa.installed"));
        world.check(told == (1, 0, 1), &format!("{what}: rekeyed, closed, installed at {who}: {told:?}"));
    }
    let traffic = world.traffic;
    world.check(traffic.lost == 0 && traffic.blocked == 0 && traffic.sent > 0, &format!("{what}: {traffic:?}"));
}

fn flow(world: &mut World, seconds: u64) {
    world.link.clear_rules();
    world.let_all_go();
    // Packets flow while something may still happen.
    world.run_for(Duration::from_secs(2));
    world.traffic_every = world.traffic_every.map(|_| Duration::from_millis(200));
    world.run_for(Duration::from_secs(seconds - 2));
}

/// The four nonces of two crossing exchanges: A's request, B's answer to it, B's request, A's answer to it. One is the lowest.
fn lowest_at(world: &World, place: usize) {
    // A draws for its request, then for its answer; B likewise.
    let octet = |at: usize| if at == place { 0x01 } else { 0x80 };
    for at in [0, 3] {
        world.gateway(A).random.next_nonce(octet(at));
    }
    for at in [2, 1] {
        world.gateway(B).random.next_nonce(octet(at));
    }
}

/// C11: requests cross, responses cross.
#[test]
fn both_rekey() {
    for place in 0..4 {
        let mut world = held();
        lowest_at(&world, place);
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        world.let_go(request(A, CREATE));
        world.let_go(request(B, CREATE));
        world.run_for(Duration::from_millis(50));
        world.let_go(response(A, CREATE));
        world.let_go(response(B, CREATE));
        check_settled(&mut world, 8, &format!("lowest at {place}"));
        // The SA whose exchange has the lowest nonce is closed by the end that began that exchange.
        let winner = if place < 2 { B } else { A };
        let deletes: Vec<_> = [A, B].map(|who| of_exchange(&world, who, INFORM)).into();
        assert_eq!(deletes, [1, 1], "the loser deletes the redundant SA, the winner ({winner}) the old one");
    }
}

fn of_exchange(world: &World, who: Who, exchange: ExchangeType) -> usize {
    let headers = world.gateway(who).sent.iter().map(|(_, _, octets)| ike_wire::Header::parse(octets).unwrap());
    headers.filter(|header| header.exchange == exchange && !header.flags.response).count()
}

/// C11 with forward secrecy and slow arithmetic, so that the crossing falls into every step.
#[test]
fn both_rekey_with_key_exchange() {
    for place in 0..4 {
        for (a, b) in [(0, 0), (5, 0), (0, 5), (5, 25), (25, 5), (40, 40)] {
            let pfs = |connection| {
                config::with_child(connection, |child| {
                    child.esp_proposals = vec![config::esp_proposal(&[KeyExchangeId::ECP_256])];
                })
            };
            let mut world = World::pair_of(1, pfs(config::connection("gw", A, B)), pfs(config::connection("gw", B, A)));
            world.establish();
            world.traffic_every = Some(Duration::from_millis(3));
            world.gateway_mut(A).work_delay = Some(Duration::from_millis(a));
            world.gateway_mut(B).work_delay = Some(Duration::from_millis(b));
            lowest_at(&world, place);
            world.rekey_child(A, "net");
            world.rekey_child(B, "net");
            check_settled(&mut world, 20, &format!("lowest at {place}, work takes {a} ms and {b} ms"));
        }
    }
}

/// C14: one response comes after the peer's DELETE, of the old or of the redundant SA.
#[test]
fn a_response_after_the_delete() {
    for place in 0..4 {
        for late in [A, B] {
            let mut world = held();
            lowest_at(&world, place);
            world.rekey_child(A, "net");
            world.rekey_child(B, "net");
            world.let_go(request(A, CREATE));
            world.let_go(request(B, CREATE));
            // The response of `late` is kept; the other end gets its own and deletes.
            let other = A + B - late;
            world.let_go(response(other, CREATE));
            world.run_for(Duration::from_millis(50));
            world.let_go(request(late, INFORM));
            world.run_for(Duration::from_millis(50));
            world.let_go(response(late, CREATE));
            check_settled(&mut world, 8, &format!("lowest at {place}, response of {late} late"));
        }
    }
}

/// C15: and then the peer deletes the new SA too, before the response comes.
#[test]
fn a_response_after_both_deletes() {
    for place in 0..4 {
        let mut world = held();
        world.strict(false);
        lowest_at(&world, place);
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        world.let_go(request(A, CREATE));
        world.let_go(request(B, CREATE));
        world.let_go(response(B, CREATE));
        world.run_for(Duration::from_millis(50));
        world.let_go(request(A, INFORM));
        world.let_go(response(B, INFORM));
        world.terminate_child(A, "net");
        if world.held().iter().any(request(A, INFORM)) {
            world.let_go(request(A, INFORM));
        }
        world.run_for(Duration::from_millis(50));
        flow(&mut world, 30);
        world.note(format!("lowest at {place}"));
        world.check_tunnels(A, B, 0);
        for who in [A, B] {
            assert!(world.gateway(who).tables().sas.is_empty(), "lowest at {place}, {who}");
            assert_eq!(world.gateway(who).count("child-sa.closed"), 1, "lowest at {place}, {who}");
        }
    }
}

/// C17: the peer sees our request only when its own rekeying is over and its DELETE of the old SA is on its way.
#[test]
fn a_request_while_the_old_one_is_deleted() {
    for refusal_first in [false, true] {
        let mut world = held();
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        world.let_go(request(B, CREATE));
        world.let_go(response(A, CREATE));
        // B has its new SA and deletes the old one; now A's request arrives.
        world.let_go(request(A, CREATE));
        if refusal_first {
            world.let_go(response(B, CREATE));
            world.let_go(request(B, INFORM));
        } else {
            world.let_go(request(B, INFORM));
            world.let_go(response(B, CREATE));
        }
        world.run_for(Duration::from_millis(50));
        check_settled(&mut world, 60, &format!("refusal first: {refusal_first}"));
    }
}

/// C18: later still, after the DELETE was answered.
#[test]
fn a_request_after_the_old_one_is_gone() {
    let mut world = held();
    world.rekey_child(A, "net");
    world.rekey_child(B, "net");
    world.let_go(request(B, CREATE));
    world.let_go(response(A, CREATE));
    world.let_go(request(B, INFORM));
    world.let_go(response(A, INFORM));
    world.run_for(Duration::from_millis(50));
    world.let_go(request(A, CREATE));
    world.let_go(response(B, CREATE));
    check_settled(&mut world, 60, "request after the old one is gone");
}

/// C19: and the peer has deleted the new SA as well.
#[test]
fn a_request_after_all_is_gone() {
    let mut world = held();
    world.strict(false);
    world.rekey_child(A, "net");
    world.rekey_child(B, "net");
    world.let_go(request(B, CREATE));
    world.let_go(response(A, CREATE));
    world.let_go(request(B, INFORM));
    world.let_go(response(A, INFORM));
    world.terminate_child(B, "net");
    world.let_go(request(B, INFORM));
    world.let_go(response(A, INFORM));
    world.let_go(request(A, CREATE));
    flow(&mut world, 60);
    world.check_tunnels(A, B, 0);
    for who in [A, B] {
        assert!(world.gateway(who).tables().sas.is_empty());
        assert_eq!(world.gateway(who).count("child-sa.closed"), 1);
    }
}

/// C21: both guesses of the key exchange method are wrong, and the second requests collide.
#[test]
fn both_second_requests_collide() {
    const P256: KeyExchangeId = KeyExchangeId::ECP_256;
    const X25519: KeyExchangeId = KeyExchangeId::CURVE_25519;
    for place in 0..4 {
        let mut world = World::pair(1);
        world.establish();
        // Each end prefers, and asks the other for, what the other does not try first.
        for (who, other, methods) in [(A, B, [P256, X25519]), (B, A, [X25519, P256])] {
            let changed = config::with_child(config::connection("gw", who, other), |child| {
                child.esp_proposals = vec![config::esp_proposal(&methods)];
            });
            world.gateway_mut(who).load(changed);
        }
        for who in [A, B] {
            world.reload(who, &["gw"], &[]);
        }
        world.run_for(Duration::from_secs(1));
        world.traffic_every = Some(Duration::from_millis(3));
        lowest_at(&world, place);
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        flow(&mut world, 60);
        world.check_one_tunnel(A, B);
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    }
}

/// C9: the peer deletes the old SA, here because of its hard limit, before we have seen its answer: the rekeying completes.
#[test]
fn the_old_one_is_deleted_before_the_response() {
    let mut world = held();
    // B must not use the old SA any more, so it uses the new one before A can have it.
    world.strict(false);
    world.traffic_every = None;
    world.rekey_child(A, "net");
    world.let_go(request(A, CREATE));
    world.hard_expire(B);
    world.let_go(request(B, INFORM));
    world.let_go(response(B, CREATE));
    flow(&mut world, 30);
    world.check_one_tunnel(A, B);
    for who in [A, B] {
        assert_eq!((world.gateway(who).count("child-sa.rekeyed"), world.gateway(who).count("child-sa.closed")), (1, 0));
    }
}

/// C24: requests cross; the rekeying is refused, the delete is honoured.
#[test]
fn rekey_against_delete() {
    for (rekeyer, deleter) in [(A, B), (B, A)] {
        let mut world = held();
        world.strict(false);
        world.rekey_child(rekeyer, "net");
        world.terminate_child(deleter, "net");
        flow(&mut world, 60);
        world.check_tunnels(A, B, 0);
        for who in [A, B] {
            assert!(world.gateway(who).tables().sas.is_empty());
            assert_eq!(world.gateway(who).count("child-sa.closed"), 1);
            assert_eq!(world.gateway(who).count("child-sa.installed"), 1);
        }
    }
}

/// C26: the DELETE is lost at first, so that the rekeyer sees only TEMPORARY_FAILURE; its retry finds nothing to do.
#[test]
fn rekey_against_a_lost_delete() {
    for (rekeyer, deleter) in [(A, B), (B, A)] {
        let mut world = held();
        world.strict(false);
        world.rekey_child(rekeyer, "net");
        world.terminate_child(deleter, "net");
        world.let_go(request(rekeyer, CREATE));
        world.let_go(response(deleter, CREATE));
        world.lose_held();
        flow(&mut world, 60);
        world.check_tunnels(A, B, 0);
        for who in [A, B] {
            assert_eq!(world.gateway(who).count("child-sa.closed"), 1);
            assert_eq!(of_exchange(&world, who, CREATE), usize::from(who == rekeyer));
        }
    }
}

/// C27: the rekey request comes after the DELETE is over: no new child is made.
#[test]
fn a_lost_rekey_against_delete() {
    for (rekeyer, deleter) in [(A, B), (B, A)] {
        let mut world = held();
        world.strict(false);
        world.rekey_child(rekeyer, "net");
        world.terminate_child(deleter, "net");
        world.let_go(request(deleter, INFORM));
        world.let_go(response(rekeyer, INFORM));
        world.let_go(request(rekeyer, CREATE));
        flow(&mut world, 60);
        world.check_tunnels(A, B, 0);
        for who in [A, B] {
            assert!(world.gateway(who).tables().sas.is_empty());
            assert_eq!(world.gateway(who).count("child-sa.installed"), 1);
        }
    }
}

/// C28: the peer answers the rekeying, then deletes the new SA; the answer comes last.
#[test]
fn the_new_one_is_deleted_before_the_response() {
    let mut world = held();
    world.strict(false);
    world.rekey_child(A, "net");
    world.let_go(request(A, CREATE));
    world.terminate_child(B, "net");
    while world.held().iter().any(request(B, INFORM)) {
        world.let_go(request(B, INFORM));
        world.let_go(response(A, INFORM));
    }
    world.let_go(response(B, CREATE));
    flow(&mut world, 60);
    world.check_tunnels(A, B, 0);
    for who in [A, B] {
        assert!(world.gateway(who).tables().sas.is_empty());
        assert_eq!(world.gateway(who).count("child-sa.closed"), 1);
    }
}

/// C8: the peer has lost the SA.
#[test]
fn the_peer_does_not_know_it() {
    let mut world = World::pair(1);
    world.establish();
    world.strict(false);
    // B closes the child; its DELETE never arrives and B forgets.
    world
        .link
        .rule(|sending| if sending.from == B && sending.is_request(INFORM) { Verdict::Drop } else { Verdict::Pass });
    let lost = world.gateway(B).children(world.now())[0].sa_in.unwrap();
    world.backend_event(B, ipsec::Event::StateLost { sa: lost });
    world.run_for(Duration::from_secs(5));
    world.rekey_child(A, "net");
    world.link.clear_rules();
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
}

/// X1: two rekeyings of the same child in a row, the second before the first is finished.
#[test]
fn rekeyed_again_at_once() {
    let mut world = World::pair(1);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(3));
    for _ in 0..5 {
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        world.run_for(Duration::from_millis(25));
    }
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}
