//! Changes of the configuration below living SAs.

use std::sync::Arc;
use std::time::Duration;

use ike_model::{Actions, Child, Connection};

use crate::common::*;

const START: Actions = Actions { trap: false, start: true };

fn started(change: impl Fn(&mut Connection, &mut Child)) -> [ike_model::ConfigSnapshot; 2] {
    configs(|who, connection, child| {
        if who == A {
            child.start_action = START;
            change(connection, child);
        }
    })
}

fn up() -> World {
    let [a, b] = started(|_, _| {});
    let mut world = World::new(a, b);
    world.load(A, 1);
    world.run(Duration::from_secs(1));
    world.assert_one_tunnel();
    world
}

#[test]
fn unchanged_tunnels_are_not_touched() {
    let mut world = up();
    let (live, sent) = (world.live(A), world.peers[A].sent);
    let [a, _] = started(|_, _| {});
    world.reload(A, 2, a);
    world.run(Duration::from_secs(30));
    assert_eq!((world.live(A), world.peers[A].sent), (live, sent));
}

#[test]
fn lifetimes_and_liveness_change_in_place() {
    let mut world = up();
    let live = world.live(A);
    let [a, _] = started(|connection, child| {
        connection.dpd_delay = Duration::from_secs(10);
        connection.rekey_time = Duration::from_secs(600);
        connection.rand_time = Duration::ZERO;
        child.lifetime.time.soft = 900;
    });
    world.reload(A, 2, a);
    let sent = world.peers[A].sent;
    world.run(Duration::from_secs(25));
    assert_eq!(world.live(A), live);
    assert!(world.peers[A].sent > sent, "liveness is checked now");
    world.run(Duration::from_secs(600));
    assert_eq!(world.peers[A].endpoint.ike_sas(world.now)[0].generation, 1);
}

#[test]
fn a_changed_child_is_made_again_below_the_same_ike_sa() {
    let mut world = up();
    let live = world.live(A);
    let [a, _] = started(|_, child| child.replay_window = Some(64));
    world.reload(A, 2, a);
    world.run(Duration::from_secs(10));
    assert_eq!(world.live(A).len(), 1);
    assert_ne!(world.live(A), live);
    let sas = world.peers[A].endpoint.ike_sas(world.now);
    assert_eq!((sas.len(), sas[0].unique_id), (1, 1));
}

#[test]
fn another_peer_identity_makes_another_ike_sa() {
    let mut world = up();
    let [a, _] = started(|connection, _| connection.encap = true);
    world.reload(A, 2, a);
    world.run(Duration::from_secs(10));
    assert_eq!(world.live(A).len(), 1);
    let sas = world.peers[A].endpoint.ike_sas(world.now);
    assert_eq!(sas.len(), 1);
    assert!(sas[0].unique_id > 1);
    assert!(sas[0].children[0].encap);
}

#[test]
fn removal_takes_everything_with_it() {
    let mut world = up();
    world.reload(A, 2, ike_model::ConfigSnapshot::default());
    world.run(Duration::from_secs(5));
    assert!(world.peers[A].endpoint.ike_sas(world.now).is_empty());
    let tables = world.peers[A].backend.tables();
    assert!(tables.sas.is_empty() && tables.policies.is_empty() && tables.guards.is_empty());
}

#[test]
fn a_further_child_comes_up_beside_the_first() {
    let mut world = up();
    let live = world.live(A);
    for who in [A, B] {
        let mut config = world.peers[who].config.clone();
        let mut connection = Connection::clone(&config.connections["gw"]);
        let (local, remote) = if who == A { ("10.11.0.0", "10.12.0.0") } else { ("10.12.0.0", "10.11.0.0") };
        let mut second = child(ts(local, 16), ts(remote, 16));
        second.name = "second".into();
        second.start_action = if who == A { START } else { Actions::NONE };
        connection.children.push(Arc::new(second));
        config.connections.insert("gw".into(), Arc::new(connection));
        if who == B {
            world.peers[B].config = config;
            world.load(B, 8);
        } else {
            world.reload(A, 9, config);
        }
    }
    world.run(Duration::from_secs(10));
    assert_eq!(world.live(A).len(), 2, "{:?}", world.types(A));
    assert!(world.live(A).contains(&live[0]));
    assert_eq!(world.peers[A].endpoint.ike_sas(world.now).len(), 1);
}
