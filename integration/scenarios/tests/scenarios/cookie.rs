//! Under load a responder keeps nothing before it knows that the peer's address is real (RFC 7296 §2.6).

use std::net::SocketAddr;
use std::time::Duration;

use ike_wire::Message;
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType};
use ipsec::Path;
use scenarios::{A, B, World, config};

/// First requests of peers that do not exist, made of A's with other SPIs and addresses.
fn flood(world: &mut World, first: &[u8], count: u8) {
    for number in 1..=count {
        let mut octets = first.to_vec();
        octets[..8].copy_from_slice(&[0, 0xee, 0, 0, 0, 0, 0, number]);
        let source = SocketAddr::new([198, 51, 100, number].into(), 500);
        world.inject(B, Path { local: SocketAddr::new(config::address(B), 500), remote: source }, &octets);
    }
}

fn open_any(world: &mut World) {
    let mut any = config::connection("gw", B, A);
    any.remote_addrs = vec![ike_model::HostSpec::Any];
    world.gateway_mut(B).load(any);
}

//= RFC 7296 §2.6: the request comes again with the cookie and is unchanged otherwise
#[test]
fn a_cookie_costs_one_round_trip() {
    let mut sample = World::pair(9);
    sample.initiate(A, "gw", "net");
    let first = sample.gateway(A).sent[0].2.clone();

    let mut world = World::pair(1);
    open_any(&mut world);
    world.gateway_mut(B).config.settings.cookie_threshold = 4;
    flood(&mut world, &first, 4);
    assert_eq!(world.gateway(B).counts().half_open, 4);
    flood(&mut world, &first[..], 4);
    assert_eq!(world.gateway(B).counts().half_open, 4, "repeated requests make nothing new");
    for number in 100..200 {
        let mut octets = first.clone();
        octets[7] = number;
        let source = SocketAddr::new([198, 51, 100, number].into(), 500);
        world.inject(B, Path { local: SocketAddr::new(config::address(B), 500), remote: source }, &octets);
    }
    assert_eq!(world.gateway(B).counts().half_open, 4, "a request without a cookie leaves nothing behind");

    let before = world.sent(B);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()));
    assert_eq!((world.sent(A), world.sent(B) - before), (3, 3));
    let asked = Message::parse(&world.gateway(B).sent[before].2).map(|message| {
        (
            message.header.exchange,
            message.payloads.notify(NotifyType::COOKIE).is_some(),
            message.header.responder_spi.is_zero(),
        )
    });
    assert_eq!(asked, Ok((ExchangeType::IKE_SA_INIT, true, true)));
    world.check_one_tunnel(A, B);
}

//= RFC 7296 §2.6.1: a wrong guess of the key exchange method and a cookie together cost a round trip each, and there are no circles
#[test]
fn a_cookie_and_another_key_exchange_method() {
    let with = |mut connection: ike_model::Connection, methods: &[KeyExchangeId]| {
        connection.proposals = vec![config::ike_proposal(methods)];
        connection
    };
    let (both, one) = ([KeyExchangeId::ECP_256, KeyExchangeId::CURVE_25519], [KeyExchangeId::CURVE_25519]);
    let at_b = with(config::connection("gw", B, A), &one);
    let mut world = World::pair_of(1, with(config::connection("gw", A, B), &both), at_b);
    world.gateway_mut(B).config.settings.cookie_threshold = 1;
    let mut sample = World::pair_of(9, with(config::connection("gw", A, B), &one), config::connection("gw", B, A));
    sample.initiate(A, "gw", "net");
    let first = sample.gateway(A).sent[0].2.clone();
    let mut any = with(config::connection("any", B, A), &one);
    any.remote_addrs = vec![ike_model::HostSpec::Any];
    world.configure(B, any);
    flood(&mut world, &first, 1);
    assert_eq!(world.gateway(B).counts().half_open, 1);

    let before = world.sent(B);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()), "{:?}", world.reply(A, ticket));
    let answers: Vec<_> = world.gateway(B).sent[before..]
        .iter()
        .map(|sent| {
            let message = Message::parse(&sent.2).unwrap();
            let told = message.payloads.notifies().map(|notify| notify.kind);
            told.into_iter().find(|kind| *kind == NotifyType::COOKIE || *kind == NotifyType::INVALID_KE_PAYLOAD)
        })
        .collect();
    let (cookie, method) = (Some(NotifyType::COOKIE), Some(NotifyType::INVALID_KE_PAYLOAD));
    // The request with the other method is another one: it has a nonce, and so a cookie, of its own.
    assert_eq!(answers, [cookie, method, cookie, None, None]);
    world.check_one_tunnel(A, B);
}

/// A cookie is worth nothing with another address, SPI or nonce.
#[test]
fn a_cookie_is_bound_to_its_request() {
    let mut world = World::pair(1);
    open_any(&mut world);
    world.gateway_mut(B).config.settings.cookie_threshold = 1;
    let mut sample = World::pair(9);
    sample.initiate(A, "gw", "net");
    let first = sample.gateway(A).sent[0].2.clone();
    flood(&mut world, &first, 1);
    world.initiate(A, "gw", "net");
    world.run_until(Duration::from_secs(1), |world| world.sent(A) == 2);
    let with_cookie = world.gateway(A).sent[1].2.clone();
    let path = |host: u8| Path {
        local: SocketAddr::new(config::address(B), 500),
        remote: SocketAddr::new([198, 51, 100, host].into(), 500),
    };
    world.inject(B, path(7), &with_cookie);
    let mut other_spi = with_cookie.clone();
    other_spi[7] ^= 1;
    let real = Path { local: path(0).local, remote: SocketAddr::new(config::address(A), 500) };
    world.inject(B, real, &other_spi);
    assert_eq!(world.gateway(B).counts().half_open, 1);
    world.inject(B, real, &with_cookie);
    assert_eq!(world.gateway(B).counts().half_open, 2);
}

/// Half-open IKE SAs age, so that a flood does not fill the table for ever.
#[test]
fn half_open_sas_age() {
    let mut sample = World::pair(9);
    sample.initiate(A, "gw", "net");
    let first = sample.gateway(A).sent[0].2.clone();
    let mut world = World::pair(1);
    open_any(&mut world);
    flood(&mut world, &first, 20);
    assert_eq!(world.gateway(B).counts().half_open, 20);
    world.run_for(Duration::from_millis(29_900));
    assert_eq!(world.gateway(B).counts().half_open, 20);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.gateway(B).counts().half_open, 0);
    world.check_nothing_left();
}

/// Above the limit first requests are dropped without an answer.
#[test]
fn the_half_open_limit_holds() {
    let mut sample = World::pair(9);
    sample.initiate(A, "gw", "net");
    let first = sample.gateway(A).sent[0].2.clone();
    let mut world = World::pair(1);
    open_any(&mut world);
    world.gateway_mut(B).config.settings.cookie_threshold = 0;
    world.gateway_mut(B).config.settings.half_open_limit = 10;
    flood(&mut world, &first, 50);
    assert_eq!((world.gateway(B).counts().half_open, world.sent(B)), (10, 10));
}
