//! Limits that hold over all shards, and the pace of an established peer.

use std::net::SocketAddr;
use std::time::Duration;

use ike_model::HostSpec;
use ike_wire::encode_chain;
use ike_wire::ids::{ExchangeType, NotifyType};
use ipsec::Path;
use scenarios::{A, B, World, config};

use crate::matrix::puppet::{Loopback, Puppet, UNKNOWN_CHILD, create_child, error_of};

fn sample() -> Vec<u8> {
    let mut sample = World::pair(9);
    sample.initiate(A, "gw", "net");
    sample.gateway(A).sent[0].2.clone()
}

/// Seven shards at the target, which serves any address.
fn crowd() -> World {
    let mut world = World::with_shards(1, &[1, 7]);
    world.configure(A, config::connection("gw", A, B));
    let mut any = config::connection("gw", B, A);
    any.remote_addrs = vec![HostSpec::Any];
    world.configure(B, any);
    world
}

fn from(world: &mut World, first: &[u8], spi: u8, host: u8) {
    let mut octets = first.to_vec();
    octets[..8].copy_from_slice(&[0, 0xee, 0, 0, 0, 0, 0, spi]);
    let source = SocketAddr::new([198, 51, 100, host].into(), 500);
    world.inject(B, Path { local: SocketAddr::new(config::address(B), 500), remote: source }, &octets);
}

//= RFC 7296 §2.6: the number of half-open IKE SAs is that of the gateway, however many shards share the work
#[test]
fn thresholds_count_all_shards_together() {
    let first = sample();
    let mut world = crowd();
    for number in 1..=100 {
        from(&mut world, &first, number, number);
    }
    assert_eq!((world.gateway(B).counts().half_open, world.gateway(B).admission.half_open()), (30, 30));
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()), "a peer that shows its cookie gets in");
    world.run_for(Duration::from_secs(31));
    assert_eq!(world.gateway(B).admission.half_open(), 0, "they age, and the count with them");
    world.check_one_tunnel(A, B);
}

/// One address in many shards: three half-open IKE SAs without a cookie, whatever shard each is in.
#[test]
fn one_address_counts_in_all_shards() {
    let first = sample();
    let mut world = crowd();
    for spi in 1..=50 {
        from(&mut world, &first, spi, 1);
    }
    assert_eq!(world.gateway(B).counts().half_open, 3);
    from(&mut world, &first, 60, 2);
    assert_eq!(world.gateway(B).counts().half_open, 4);
}

/// What is answered to the puppet's next request of this kind.
fn ask(gateway: &Loopback, puppet: &mut Puppet, exchange: ExchangeType) -> Option<Option<NotifyType>> {
    let payloads =
        if exchange == ExchangeType::CREATE_CHILD_SA { create_child(Some(UNKNOWN_CHILD)) } else { Vec::new() };
    let request = puppet.seal(exchange, puppet.next, false, &encode_chain(&payloads).unwrap());
    let answer = gateway.exchange(&request).pop()?;
    puppet.next += 1;
    let chain = puppet.open(&answer).unwrap();
    Some(error_of(&ike_wire::parse_chain(chain.first, &chain.octets, 0).unwrap()))
}

//= RFC 7296 §2.25: TEMPORARY_FAILURE for what cannot be served now
#[test]
fn a_peer_that_creates_too_fast_is_put_off() {
    let mut gateway = Loopback::new();
    {
        let mut world = gateway.0.borrow_mut();
        let settings = &mut world.gateway_mut(A).config.settings;
        (settings.peer_create_rate, settings.peer_create_burst) = (2, 4);
    }
    let mut puppet = Puppet::established(&mut gateway);
    let create = ExchangeType::CREATE_CHILD_SA;
    let (served, busy) = (Some(Some(NotifyType::CHILD_SA_NOT_FOUND)), Some(Some(NotifyType::TEMPORARY_FAILURE)));
    let answers: Vec<_> = (0..6).map(|_| ask(&gateway, &mut puppet, create)).collect();
    assert_eq!(answers, [served, served, served, served, busy, busy]);
    assert_eq!(ask(&gateway, &mut puppet, ExchangeType::INFORMATIONAL), Some(None), "everything else goes on");
    gateway.0.borrow_mut().run_for(Duration::from_secs(1));
    let answers: Vec<_> = (0..3).map(|_| ask(&gateway, &mut puppet, create)).collect();
    assert_eq!(answers, [served, served, busy], "two more each second");
    let mut puppet = puppet_after_rekey(&mut gateway, puppet);
    assert_eq!(ask(&gateway, &mut puppet, create), busy, "a rekeyed IKE SA goes on with what is left");
}

/// Rekeying takes a token too, so time passes first.
fn puppet_after_rekey(gateway: &mut Loopback, mut puppet: Puppet) -> Puppet {
    gateway.0.borrow_mut().run_for(Duration::from_millis(500));
    puppet.rekey_ike(gateway)
}

/// Beyond its rate a request is as good as lost, and answered when it is repeated later.
#[test]
fn a_peer_that_asks_too_fast_has_to_repeat() {
    let mut gateway = Loopback::new();
    {
        let mut world = gateway.0.borrow_mut();
        let settings = &mut world.gateway_mut(A).config.settings;
        // One of them is IKE_AUTH.
        (settings.peer_request_rate, settings.peer_request_burst) = (2, 6);
    }
    let mut puppet = Puppet::established(&mut gateway);
    let inform = ExchangeType::INFORMATIONAL;
    let answers: Vec<_> = (0..7).map(|_| ask(&gateway, &mut puppet, inform)).collect();
    assert_eq!(answers, [Some(None), Some(None), Some(None), Some(None), Some(None), None, None]);
    let before = gateway.0.borrow().gateway(A).ike_sas(gateway.0.borrow().now());
    assert_eq!(ask(&gateway, &mut puppet, inform), None);
    assert_eq!(gateway.0.borrow().gateway(A).ike_sas(gateway.0.borrow().now()), before);
    gateway.0.borrow_mut().run_for(Duration::from_millis(500));
    assert_eq!(ask(&gateway, &mut puppet, inform), Some(None));
}

/// The default rates leave room for a storm: every child of an IKE SA rekeyed and its predecessor deleted, five times over, in less than three seconds.
#[test]
fn a_storm_of_rekeys_is_not_slowed_down() {
    const CHILDREN: u8 = 40;
    let connection = |local, remote| {
        let mut connection = config::connection("gw", local, remote);
        connection.children =
            (0..CHILDREN).map(|number| config::child(&format!("net{number}"), local, remote, number).into()).collect();
        connection
    };
    let mut world = World::pair_of(1, connection(A, B), connection(B, A));
    world.link.latency = Duration::from_micros(50);
    for number in 0..CHILDREN {
        world.initiate(A, "gw", &format!("net{number}"));
    }
    world.run_for(Duration::from_secs(5));
    world.check_tunnels(A, B, CHILDREN.into());
    for round in 1..=5 {
        for number in 0..CHILDREN {
            world.rekey_child(A, &format!("net{number}"));
        }
        world.run_for(Duration::from_millis(500));
        let told = world.gateway(A).count("child-sa.rekeyed");
        world.check(told == round * usize::from(CHILDREN), &format!("{told} rekeyed in round {round}"));
    }
    world.check(world.gateway(A).count("child-sa.rekey-failed") == 0, "none failed");
}
