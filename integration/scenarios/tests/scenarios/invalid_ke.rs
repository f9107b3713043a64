//! The initiator's guess of the key exchange method is wrong: INVALID_KE_PAYLOAD and one more round trip (RFC 7296 §1.2, §1.3, §2.7).

use std::time::Duration;

use ike_model::Connection;
use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, World, config};

const P256: KeyExchangeId = KeyExchangeId::ECP_256;
const X25519: KeyExchangeId = KeyExchangeId::CURVE_25519;

fn with_methods(mut connection: Connection, ike: &[KeyExchangeId], esp: &[KeyExchangeId]) -> Connection {
    connection.proposals = vec![config::ike_proposal(ike)];
    config::with_child(connection, |child| child.esp_proposals = vec![config::esp_proposal(esp)])
}

fn world(esp: bool) -> World {
    let (ours, theirs): (&[_], &[_]) = if esp { (&[P256, X25519], &[X25519]) } else { (&[], &[]) };
    World::pair_of(
        1,
        with_methods(config::connection("gw", A, B), &[P256, X25519], ours),
        with_methods(config::connection("gw", B, A), &[X25519], theirs),
    )
}

#[test]
fn in_the_first_exchange() {
    let mut world = world(false);
    world.establish();
    assert_eq!((world.sent(A), world.sent(B)), (3, 3));
    assert_eq!(world.sent_at(A), [0, 20, 40].map(Duration::from_millis));
    let shown = world.gateway(A).ike_sas(world.now())[0].algorithms.unwrap();
    assert_eq!(shown.key_exchange, X25519.0);
}

/// C3
#[test]
fn while_rekeying_a_child() {
    let mut world = world(true);
    world.establish();
    let before = (world.sent(A), world.sent(B));
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    // CREATE_CHILD_SA, again with the other method, DELETE.
    assert_eq!((world.sent(A) - before.0, world.sent(B) - before.1), (3, 3));
    assert_eq!((world.gateway(A).count("child-sa.rekeyed"), world.gateway(B).count("child-sa.rekeyed")), (1, 1));
    let shown = world.gateway(A).live_children(world.now())[0].algorithms.unwrap();
    assert_eq!(shown.key_exchange, Some(X25519.0));
    // What was agreed on is tried first from now on: CREATE_CHILD_SA, DELETE.
    let before = (world.sent(A), world.sent(B));
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    assert_eq!((world.sent(A) - before.0, world.sent(B) - before.1), (2, 2));
}

/// I3: the method in use is tried first, so B's configuration changes in between.
#[test]
fn while_rekeying_the_ike_sa() {
    let mut world = world(false);
    world.establish();
    world.gateway_mut(A).load(with_methods(config::connection("gw", A, B), &[X25519, P256], &[]));
    world.reload(A, &["gw"], &[]);
    world.run_for(Duration::from_secs(5));
    let before = world.gateway(A).count("ike-sa.rekeyed");
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(8));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(A).count("ike-sa.rekeyed"), before + 1);
}
