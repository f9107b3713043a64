//! An IKE SA and its first CHILD SA come up.

use std::time::Duration;

use crate::common::*;
use ike_model::{CauseKind, Command, CommandError, Selector};

#[test]
fn psk_and_first_child_in_four_messages() {
    let [a, b] = plain();
    let world = World::up(a, b);
    world.assert_one_tunnel();
    assert_eq!((world.peers[A].sent, world.peers[B].sent), (2, 2));
    for who in [A, B] {
        assert_eq!(world.types(who), ["IkeSaEstablished", "ChildSaInstalled"]);
        assert_eq!(world.peers[who].backend.tables().guards.len(), 1);
    }
}

#[test]
fn lost_datagrams_are_repeated() {
    for (who, lost) in [(A, 0), (B, 0), (A, 1), (B, 1)] {
        let [a, b] = plain();
        let mut world = World::new(a, b);
        world.drop = Box::new(move |sender, number| sender == who && number == lost);
        world.initiate(A, 1);
        world.run(Duration::from_secs(5));
        world.assert_one_tunnel();
    }
}

#[test]
fn terminate_tells_the_peer() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
    world.command(B, 2, Command::Terminate { selector, force: false });
    world.run(Duration::from_secs(1));
    assert_eq!(world.peers[B].replies[&2].as_ref().unwrap().terminated, 1);
    for who in [A, B] {
        assert!(world.peers[who].endpoint.ike_sas(world.now).is_empty());
        let tables = world.peers[who].backend.tables();
        assert!(tables.sas.is_empty() && tables.policies.is_empty());
        assert_eq!(tables.guards.len(), 1, "the guard stays");
    }
}

#[test]
fn wrong_key_names_the_pair() {
    let [a, mut b] = plain();
    b.secrets = vec![psk(&["a.example", "b.example"], "another")];
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(1));
    let Err(CommandError::Failed(cause)) = &world.peers[A].replies[&1] else { panic!("must fail") };
    assert_eq!(cause.kind, CauseKind::AuthenticationFailed);
    assert!(world.types(B).contains(&"IkeSaAuthFailed".to_owned()));
    assert!(world.peers[B].endpoint.ike_sas(world.now).is_empty());
}
