//! Rekeying of CHILD SAs and IKE SAs when only one end begins.

use std::time::Duration;

use ike_model::{Command, EventBody, Selector};
use ike_wire::ids::KeyExchangeId;
use ipsec::{Event, LimitUnit};

use crate::common::*;

fn rekey_child(world: &mut World, who: usize, id: u64) {
    let selector = Selector { child: Some("net".into()), ..Selector::default() };
    world.command(who, id, Command::Rekey { selector });
}

fn rekey_ike(world: &mut World, who: usize, id: u64) {
    let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
    world.command(who, id, Command::Rekey { selector });
}

#[test]
fn child_is_replaced_by_either_end() {
    for who in [A, B] {
        let [a, b] = plain();
        let mut world = World::up(a, b);
        let before = world.live(A);
        rekey_child(&mut world, who, 7);
        world.run(Duration::from_secs(20));
        world.assert_one_tunnel();
        assert_ne!(world.live(A), before);
        for side in [A, B] {
            let mut types = world.types(side);
            // Whoever answers has told of the successor before.
            let prepared = types.iter().position(|name| name == "ChildSaPrepared").map(|at| types.remove(at));
            assert_eq!(prepared.is_some(), side != who);
            assert_eq!(types, ["IkeSaEstablished", "ChildSaInstalled", "ChildSaRekeyed", "ChildSaRemoved"]);
        }
    }
}

#[test]
fn responder_switches_on_the_first_packet_or_the_delete() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    rekey_child(&mut world, A, 7);
    world.hold[A] = false;
    // Until B has answered.
    while world.peers[B].sent < 3 {
        assert!(world.step(world.now + Duration::from_secs(1)));
    }
    let log = world.peers[B].backend.log();
    assert!(log.last().unwrap().starts_with("install Outbound SA"), "reserved before the answer: {log:#?}");
    let Some(EventBody::ChildSaPrepared { child, replaces, .. }) = world.peers[B].events.last() else {
        panic!("not told with the answer: {:?}", world.types(B))
    };
    assert_eq!((child.generation, *replaces < child.unique_id), (1, true));
    let activations =
        |world: &World| world.peers[B].backend.log().iter().filter(|line| line.starts_with("activate")).count();
    assert_eq!(activations(&world), 1);
    let tables = world.peers[B].backend.tables();
    let newest = tables.sas.values().filter(|sa| sa.direction == ipsec::Direction::Inbound).map(|sa| sa.handle).max();
    world.input(B, ike_sa::Input::Backend(Event::InboundFirstUse { sa: newest.unwrap() }));
    assert_eq!(activations(&world), 2);
    world.run(Duration::from_secs(20));
    assert_eq!(activations(&world), 2);
    world.assert_one_tunnel();
}

#[test]
fn forward_secrecy_and_another_method() {
    let [a, b] = configs(|who, _, child| {
        child.esp_proposals[0].key_exchange = if who == A {
            vec![KeyExchangeId::CURVE_25519, KeyExchangeId::ECP_256]
        } else {
            vec![KeyExchangeId::ECP_256]
        };
    });
    let mut world = World::up(a, b);
    rekey_child(&mut world, A, 7);
    world.run(Duration::from_secs(20));
    world.assert_one_tunnel();
    let sas = world.peers[A].endpoint.ike_sas(world.now);
    assert_eq!(sas[0].children[0].algorithms.unwrap().key_exchange, Some(19));
    assert_eq!(sas[0].children[0].generation, 1);
}

#[test]
fn soft_limit_leads_to_rekeying_once() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    let tables = world.peers[A].backend.tables();
    for sa in tables.sas.keys() {
        world.input(A, ike_sa::Input::Backend(Event::SoftExpire { sa: *sa, unit: LimitUnit::Packets }));
    }
    world.run(Duration::from_secs(20));
    world.assert_one_tunnel();
    let expected = ["IkeSaEstablished", "ChildSaInstalled", "ChildSaSoftExpired", "ChildSaRekeyed", "ChildSaRemoved"];
    assert_eq!(world.types(A), expected);
}

#[test]
fn time_limits_are_kept_for_a_day() {
    let [a, b] = configs(|_, connection, _| connection.dpd_delay = Duration::from_secs(30));
    let mut world = World::up(a, b);
    world.run(Duration::from_secs(24 * 3600));
    world.assert_one_tunnel();
    for who in [A, B] {
        let types = world.types(who);
        let count = |name: &str| types.iter().filter(|other| *other == name).count();
        assert!(count("ChildSaRekeyed") >= 23, "{types:?}");
        assert!(count("IkeSaRekeyed") >= 5, "{types:?}");
        assert_eq!(count("ChildSaClosed") + count("IkeSaClosed") + count("ChildSaHardExpired"), 0, "{types:?}");
        assert_eq!(world.peers[who].endpoint.ike_sas(world.now).len(), 1);
    }
}

#[test]
fn ike_sa_is_replaced_and_children_pass() {
    for who in [A, B] {
        let [a, b] = plain();
        let mut world = World::up(a, b);
        let before = world.live(A);
        rekey_ike(&mut world, who, 7);
        world.run(Duration::from_secs(2));
        world.assert_one_tunnel();
        assert_eq!(world.live(A), before);
        for side in [A, B] {
            assert_eq!(world.types(side), ["IkeSaEstablished", "ChildSaInstalled", "IkeSaRekeyed"]);
            let sas = world.peers[side].endpoint.ike_sas(world.now);
            assert_eq!((sas.len(), sas[0].generation), (1, 1));
        }
        rekey_child(&mut world, 1 - who, 8);
        world.run(Duration::from_secs(20));
        world.assert_one_tunnel();
    }
}

#[test]
fn refusal_by_the_backend_leaves_the_old_sa() {
    for who in [A, B] {
        let [a, b] = plain();
        let mut world = World::up(a, b);
        let before = world.live(A);
        world.peers[who].backend.refuse_next_install(ipsec::OffloadError::Full {
            device: "nic".into(),
            table: "SAD",
            size: 2,
        });
        rekey_child(&mut world, A, 7);
        world.run(Duration::from_secs(3));
        world.assert_one_tunnel();
        assert_eq!(world.live(A), before);
        assert!(world.types(A).contains(&"ChildSaRekeyFailed".to_owned()));
        world.run(Duration::from_secs(40));
        world.assert_one_tunnel();
        assert_ne!(world.live(A), before, "tried again");
    }
}

#[test]
fn lost_datagrams_do_not_matter() {
    for lost in 2..8 {
        for loser in [A, B] {
            let [a, b] = plain();
            let mut world = World::up(a, b);
            world.drop = Box::new(move |sender, number| sender == loser && number == lost);
            rekey_child(&mut world, A, 7);
            rekey_ike(&mut world, A, 8);
            world.run(Duration::from_secs(60));
            world.assert_one_tunnel();
            assert_eq!(world.peers[A].endpoint.ike_sas(world.now).len(), 1);
        }
    }
}

//= RFC 7296 §2.8.3: a new IKE SA with its own CHILD SAs, then the old one goes
#[test]
fn reauthentication_makes_before_it_breaks() {
    let [a, b] = configs(|who, connection, _| {
        connection.rekey_time = Duration::ZERO;
        if who == A {
            connection.reauth_time = Duration::from_secs(1_000);
            connection.rand_time = Duration::ZERO;
        }
    });
    let mut world = World::up(a, b);
    let before = world.live(A);
    world.run(Duration::from_secs(900));
    assert_eq!(world.live(A), before);
    assert_eq!(world.peers[A].endpoint.ike_sas(world.now)[0].reauth_seconds, Some(99));
    world.run(Duration::from_secs(110));
    world.assert_one_tunnel();
    assert_ne!(world.live(A), before);
    let types = world.types(A);
    let at = |name: &str| types.iter().rposition(|other| other == name).unwrap();
    assert!(at("ChildSaInstalled") < at("ChildSaClosed"), "{types:?}");
    assert_eq!(world.peers[B].endpoint.ike_sas(world.now).len(), 1);
}
