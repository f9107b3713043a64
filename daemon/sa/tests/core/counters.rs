//! Counters of messages and rekeyings, as strongSwan counts.

use std::time::Duration;

use ike_model::{Command, CounterScope, Selector};
use ike_sa::Input;
use ike_wire::ids::KeyExchangeId;
use ipsec::Path;

use crate::common::*;

/// The counters that are not zero, in one line.
fn counted(world: &World, who: usize, scope: &CounterScope) -> String {
    let mut lines = Vec::new();
    for (name, counters) in world.peers[who].endpoint.counters(scope) {
        let some = counters.all().filter(|(_, number)| *number > 0);
        let shown: Vec<_> = some.map(|(what, number)| format!("{}={number}", what.name())).collect();
        lines.push(format!("{name}: {}", shown.join(" ")));
    }
    lines.join("; ")
}

fn global(world: &World, who: usize) -> String {
    counted(world, who, &CounterScope::Global)
}

fn each(world: &World, who: usize) -> String {
    counted(world, who, &CounterScope::Each)
}

fn reset(world: &mut World) {
    for who in [A, B] {
        world.peers[who].endpoint.reset_counters(&CounterScope::Global);
        world.peers[who].endpoint.reset_counters(&CounterScope::Each);
        assert_eq!((global(world, who), each(world, who)), (": ".into(), String::new()));
    }
}

fn of_child() -> Selector {
    Selector { child: Some("net".into()), ..Selector::default() }
}

fn of_ike() -> Selector {
    Selector { ike: Some("gw".into()), ..Selector::default() }
}

#[test]
fn a_responder_knows_the_connection_with_its_answer_to_ike_auth() {
    let [a, b] = plain();
    let world = World::up(a, b);
    let ours = "ike-init-in-resp=1 ike-init-out-req=1 ike-auth-in-resp=1 ike-auth-out-req=1";
    assert_eq!((global(&world, A), each(&world, A)), (format!(": {ours}"), format!("gw: {ours}")));
    assert_eq!(global(&world, B), ": ike-init-in-req=1 ike-init-out-resp=1 ike-auth-in-req=1 ike-auth-out-resp=1");
    assert_eq!(each(&world, B), "gw: ike-auth-out-resp=1");
}

#[test]
fn each_rekeying_counts_at_both_ends() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    for (who, selector, ours, theirs) in [
        (A, of_child(), "child-rekey=1", "child-rekey=1"),
        (B, of_child(), "child-rekey=1", "child-rekey=1"),
        (A, of_ike(), "ike-rekey-init=1", "ike-rekey-resp=1"),
        (B, of_ike(), "ike-rekey-init=1", "ike-rekey-resp=1"),
    ] {
        reset(&mut world);
        world.command(who, 10 + who as u64, Command::Rekey { selector });
        world.run(Duration::from_secs(20));
        world.peers[who].replies.clear();
        // One CREATE_CHILD_SA, and the delete of what it replaces.
        let ours = format!("{ours} create-child-in-resp=1 create-child-out-req=1 info-in-resp=1 info-out-req=1");
        let theirs = format!("{theirs} create-child-in-req=1 create-child-out-resp=1 info-in-req=1 info-out-resp=1");
        assert_eq!((global(&world, who), each(&world, who)), (format!(": {ours}"), format!("gw: {ours}")));
        assert_eq!((global(&world, 1 - who), each(&world, 1 - who)), (format!(": {theirs}"), format!("gw: {theirs}")));
    }
}

#[test]
fn what_is_sent_again_counts_once() {
    for (who, lost) in [(A, 0), (B, 0), (A, 1), (B, 1)] {
        let [a, b] = plain();
        let mut world = World::new(a, b);
        world.drop = Box::new(move |sender, number| sender == who && number == lost);
        world.initiate(A, 1);
        world.run(Duration::from_secs(5));
        world.assert_one_tunnel();
        assert_eq!(each(&world, A), "gw: ike-init-in-resp=1 ike-init-out-req=1 ike-auth-in-resp=1 ike-auth-out-req=1");
        assert_eq!(global(&world, B), ": ike-init-in-req=1 ike-init-out-resp=1 ike-auth-in-req=1 ike-auth-out-resp=1");
    }
}

#[test]
fn a_first_request_made_anew_counts_again() {
    let [a, b] = configs(|who, connection, _| {
        if who == B {
            connection.proposals[0].key_exchange = vec![KeyExchangeId::ECP_256];
        }
    });
    let world = World::up(a, b);
    assert_eq!(each(&world, A), "gw: ike-init-in-resp=2 ike-init-out-req=2 ike-auth-in-resp=1 ike-auth-out-req=1");
    assert_eq!(global(&world, B), ": ike-init-in-req=2 ike-init-out-resp=2 ike-auth-in-req=1 ike-auth-out-resp=1");
}

#[test]
fn a_request_for_nobody_counts_by_its_answer_alone() {
    let [a, b] = configs(|who, connection, _| {
        if who == B {
            connection.remote_addrs = vec![ike_model::HostSpec::Address("192.0.2.77".parse().unwrap())];
        }
    });
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(2));
    assert_eq!((global(&world, B), each(&world, B)), (": ike-init-out-resp=1".into(), String::new()));
    assert_eq!(each(&world, A), "gw: ike-init-in-resp=1 ike-init-out-req=1");
}

#[test]
fn a_failed_authentication_counts_for_its_connection_where_there_is_one() {
    let [a, mut b] = plain();
    b.secrets = vec![psk(&["a.example", "b.example"], "another")];
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(2));
    assert_eq!(each(&world, B), "gw: ike-auth-out-resp=1");

    let [mut a, b] = plain();
    let mut stranger = (*a.connections["gw"]).clone();
    stranger.local[0].id = ike_model::Identity::Fqdn("stranger.example".into());
    a.connections.insert("gw".into(), std::sync::Arc::new(stranger));
    a.secrets.push(psk(&["stranger.example", "b.example"], "x"));
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(2));
    assert_eq!(global(&world, B), ": ike-init-in-req=1 ike-init-out-resp=1 ike-auth-in-req=1 ike-auth-out-resp=1");
    assert_eq!(each(&world, B), "");
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_for_nobody() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    reset(&mut world);
    let path = Path { local: socket("192.0.2.2:500"), remote: socket("192.0.2.1:500") };
    let ike = world.peers[B].endpoint.ike_sas(world.now).pop().unwrap();
    let message = |spis: [u64; 2], exchange: u8, id: u32| {
        let mut octets: Vec<u8> = spis.iter().flat_map(|spi| spi.to_be_bytes()).collect();
        octets.extend([46, 0x20, exchange, 0x08]);
        octets.extend(id.to_be_bytes());
        octets.extend(60_u32.to_be_bytes());
        octets.extend([0, 0, 0, 32]);
        octets.extend([0xaa; 28]);
        octets
    };
    let ours = [ike.initiator_spi, ike.responder_spi];
    for (octets, expected, of_connection) in [
        (vec![0; 5], ": invalid=1", ""),
        (message([1, 2], 37, 1), ": invalid-spi=1", ""),
        (message([1, 2], 99, 1), ": invalid=1", ""),
        (message([1, 0], 34, 0), ": invalid=1 ike-init-out-resp=1", ""),
        (message([1, ours[1]], 37, 2), ": invalid-spi=1", ""),
        (message(ours, 37, 2), ": invalid=1", "gw: invalid=1"),
        (message(ours, 37, 9), ": ", ""),
        (message(ours, 37, 1), ": ", ""),
    ] {
        world.input(B, Input::Datagram { path, octets: &octets });
        assert_eq!((global(&world, B), each(&world, B)), (expected.into(), of_connection.into()), "{octets:02x?}");
        reset(&mut world);
    }
}

#[test]
fn numbers_outlive_the_configuration() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    let before = each(&world, A);
    let empty = ike_model::ConfigSnapshot::default();
    world.reload(A, 5, empty);
    world.run(Duration::from_secs(2));
    let after = each(&world, A);
    assert!(after.starts_with(&before) && !before.is_empty(), "{before} / {after}");
    world.peers[A].endpoint.reset_counters(&CounterScope::Connection("gw".into()));
    assert_eq!(each(&world, A), "");
    assert_ne!(global(&world, A), ": ");
}
