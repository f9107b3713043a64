//! Ways to the peer: NAT, forced encapsulation, `%any` peers, several tunnels to one peer.

use std::sync::Arc;
use std::time::Duration;

use ike_model::config::HostSpec;
use ike_model::{Child, Command, Connection};
use ipsec::Path;

use crate::common::*;

#[test]
fn forced_encapsulation_floats_to_the_nat_port() {
    for who in [A, B] {
        let [a, b] = configs(|side, connection, _| connection.encap = side == who);
        let world = World::up(a, b);
        world.assert_one_tunnel();
        for side in [A, B] {
            let sas = world.peers[side].endpoint.ike_sas(world.now);
            assert_eq!((sas[0].local.port(), sas[0].remote.port()), (4500, 4500));
            assert!(sas[0].children[0].encap, "side {side}, forced by {who}");
        }
    }
}

/// Puts a NAT before A: B sees 198.51.100.1 and a port of its choice.
fn translate(world: &mut World, port: u16) {
    for flying in &mut world.link {
        let public = format!("198.51.100.1:{port}").parse().unwrap();
        if flying.to == B && flying.path.remote.ip() == world.peers[A].address {
            flying.path.remote = public;
        } else if flying.to == A && flying.path.local.ip().to_string() == "198.51.100.1" {
            flying.path.local.set_ip(world.peers[A].address);
            let inside = if flying.path.remote.port() == 4500 { 4500 } else { 500 };
            flying.path.local.set_port(inside);
        }
    }
}

fn run_translated(world: &mut World, span: Duration, port: u16) {
    let until = world.now + span;
    loop {
        translate(world, port);
        if !world.step(until) {
            break;
        }
    }
}

fn behind_nat() -> World {
    let [a, b] = configs(|who, connection, _| {
        if who == B {
            connection.remote_addrs = vec![HostSpec::Any];
        }
    });
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    run_translated(&mut world, Duration::from_secs(1), 61_000);
    world
}

#[test]
fn initiator_behind_nat() {
    let world = behind_nat();
    world.assert_one_tunnel();
    let (a, b) = (world.peers[A].endpoint.ike_sas(world.now), world.peers[B].endpoint.ike_sas(world.now));
    assert!(a[0].nat_local && !a[0].nat_remote && b[0].nat_remote && !b[0].nat_local);
    assert_eq!(b[0].remote, socket("198.51.100.1:61000"));
    let sa = world.peers[B].backend.tables().sas.into_values().next().unwrap();
    assert_eq!(sa.encapsulation.unwrap().remote_port, 61_000);
}

#[test]
fn responder_follows_a_new_mapping() {
    let mut world = behind_nat();
    let selector = ike_model::Selector { child: Some("net".into()), ..Default::default() };
    world.command(A, 2, Command::Rekey { selector });
    run_translated(&mut world, Duration::from_secs(20), 62_000);
    world.assert_one_tunnel();
    assert_eq!(world.peers[B].endpoint.ike_sas(world.now)[0].remote, socket("198.51.100.1:62000"));
    for sa in world.peers[B].backend.tables().sas.values() {
        assert_eq!(sa.encapsulation.unwrap().remote_port, 62_000);
    }
    assert!(world.types(B).contains(&"IkeSaUpdated".to_owned()));
}

#[test]
fn forged_address_moves_nothing() {
    let mut world = behind_nat();
    // A datagram of A, seen and sent again by somebody else with one octet changed.
    world.hold[A] = true;
    let selector = ike_model::Selector { child: Some("net".into()), ..Default::default() };
    world.command(A, 2, Command::Rekey { selector });
    let mut octets = world.held[A][0].octets.clone();
    *octets.last_mut().unwrap() ^= 1;
    let path = Path { local: socket("192.0.2.2:4500"), remote: socket("203.0.113.66:4500") };
    let before = world.peers[B].sent;
    world.input(B, ike_sa::Input::Datagram { path, octets: &octets });
    assert_eq!(world.peers[B].sent, before);
    assert_eq!(world.peers[B].endpoint.ike_sas(world.now)[0].remote, socket("198.51.100.1:61000"));
}

#[test]
fn two_tunnels_to_one_peer() {
    let [mut a, mut b] = plain();
    for (who, config) in [(A, &mut a), (B, &mut b)] {
        let first: &Arc<Connection> = &config.connections["gw"];
        let mut second = Connection::clone(first);
        second.name = "other".into();
        let (local, remote) = if who == A { ("10.11.0.0", "10.12.0.0") } else { ("10.12.0.0", "10.11.0.0") };
        let only: Child = child(ts(local, 16), ts(remote, 16));
        second.children = vec![Arc::new(only)];
        let ids = if who == A { ("a2.example", "b2.example") } else { ("b2.example", "a2.example") };
        second.local[0].id = ike_model::Identity::Fqdn(ids.0.into());
        second.remote[0].id = ike_model::Identity::Fqdn(ids.1.into());
        config.connections.insert("other".into(), Arc::new(second));
        config.secrets.push(psk(&["a2.example", "b2.example"], "another key"));
    }
    let mut world = World::up(a, b);
    world.command(A, 2, Command::Initiate { connection: "other".into(), child: Some("net".into()) });
    world.run(Duration::from_secs(1));
    assert!(world.peers[A].replies[&2].is_ok(), "{:?}", world.peers[A].replies);
    assert_eq!((world.live(A).len(), world.live(B).len()), (2, 2));
    let names: Vec<_> =
        world.peers[B].endpoint.ike_sas(world.now).iter().map(|ike| ike.connection.to_string()).collect();
    assert_eq!(names, ["gw", "other"]);
}
