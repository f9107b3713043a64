//! What does not come up, and what both ends are told: the cause, and nothing left behind.

use std::time::Duration;

use ike_model::{CauseKind, Command, CommandError, Connection, Identity, Secret, SharedSecret};
use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, World, config};

/// Initiates at A and gives the kind of cause that comes back, after everything has come to rest.
fn attempt(world: &mut World) -> CauseKind {
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(300));
    match world.reply(A, ticket) {
        Some(Err(CommandError::Failed(cause))) => cause.kind,
        other => panic!("{other:?}"),
    }
}

//= RFC 7296 §2.21.2: AUTHENTICATION_FAILED, and both ends forget
#[test]
fn wrong_key() {
    let mut world = World::pair(1);
    let wrong = SharedSecret { secret: Secret::new(b"another key"), ..config::secret(A, B) };
    world.gateway_mut(B).config.secrets = vec![wrong.into()];
    assert_eq!(attempt(&mut world), CauseKind::AuthenticationFailed);
    assert_eq!((world.sent(A), world.sent(B)), (2, 2));
    assert_eq!(world.gateway(B).count("ike-sa.auth-failed"), 1);
    let cause = world.gateway(B).last_cause().unwrap();
    assert!(cause.text.contains("b.example") && cause.text.contains("a.example"), "{cause}");
    world.check_nothing_left();
}

//= RFC 7296 §2.21.2: the initiator tells of it by itself
/// The responder proves itself with another key: the initiator says so, and the responder, which is up already, closes.
#[test]
fn wrong_key_of_the_responder() {
    let mut world = World::pair(1);
    let a_to_b = SharedSecret { owners: vec![config::identity(B)], ..config::secret(A, B) };
    world.gateway_mut(A).config.secrets = vec![a_to_b.into()];
    let mut other = config::connection("gw", B, A);
    other.local[0].id = Identity::Fqdn("c.example".into());
    other.remote[0].id = Identity::Any;
    world.gateway_mut(B).load(other);
    let mut initiator = config::connection("gw", A, B);
    initiator.remote[0].id = Identity::Any;
    world.gateway_mut(A).load(initiator);
    let kind = attempt(&mut world);
    assert!(matches!(kind, CauseKind::AuthenticationFailed | CauseKind::NoSecret), "{kind:?}");
    world.check_nothing_left();
}

#[test]
fn no_key_at_all() {
    let mut world = World::pair(1);
    world.gateway_mut(A).config.secrets.clear();
    assert_eq!(attempt(&mut world), CauseKind::NoSecret);
    let cause = world.gateway(A).last_cause().unwrap();
    assert!(cause.text.contains("'a.example' - 'b.example'"), "{cause}");
    world.check_nothing_left();
}

//= RFC 7296 §2.21.1: NO_PROPOSAL_CHOSEN in clear ends the attempt
#[test]
fn no_proposal_in_common() {
    let mut world = World::pair(1);
    let mut other = config::connection("gw", B, A);
    other.proposals = vec![config::ike_proposal(&[KeyExchangeId::ECP_384])];
    world.gateway_mut(B).load(other);
    assert_eq!(attempt(&mut world), CauseKind::NoProposal);
    assert_eq!((world.sent(A), world.sent(B)), (1, 1));
    world.check_nothing_left();
}

#[test]
fn nobody_configured_for_the_address() {
    let mut world = World::pair(1);
    world.gateway_mut(B).config.connections.clear();
    let kind = attempt(&mut world);
    assert!(matches!(kind, CauseKind::NoProposal | CauseKind::NoConfiguration), "{kind:?}");
    world.check_nothing_left();
}

#[test]
fn identity_that_nobody_wants() {
    let mut world = World::pair(1);
    let mut other = config::connection("gw", B, A);
    other.remote[0].id = Identity::Fqdn("somebody.else".into());
    world.gateway_mut(B).load(other);
    assert_eq!(attempt(&mut world), CauseKind::AuthenticationFailed);
    assert_eq!(world.gateway(B).last_cause().unwrap().kind, CauseKind::NoConfiguration);
    world.check_nothing_left();
}

fn with_selector(connection: Connection, number: u8) -> Connection {
    config::with_child(connection, |child| {
        child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(config::lan(A, number))];
    })
}

/// Neither end has a CHILD SA; the IKE SA stands and can take another one.
fn check_ike_sa_alone(world: &World) {
    for who in [A, B] {
        let counts = world.gateway(who).counts();
        assert_eq!((counts.established, counts.children), (1, 0));
        assert!(world.gateway(who).tables().sas.is_empty());
    }
}

//= RFC 7296 §1.2: a failed first CHILD SA does not undo the IKE SA
#[test]
fn selectors_unacceptable() {
    let mut world = World::pair(1);
    world.gateway_mut(B).load(with_selector(config::connection("gw", B, A), 99));
    assert_eq!(attempt(&mut world), CauseKind::SelectorsUnacceptable);
    check_ike_sa_alone(&world);
}

#[test]
fn esp_proposals_without_common_element() {
    let mut world = World::pair(1);
    let other = config::with_child(config::connection("gw", B, A), |child| {
        let chacha = ike_model::Encryption { id: ike_wire::ids::EncryptionId::CHACHA20_POLY1305, key_bits: None };
        child.esp_proposals[0].encryption = vec![chacha];
    });
    world.gateway_mut(B).load(other);
    assert_eq!(attempt(&mut world), CauseKind::NoProposal);
    check_ike_sa_alone(&world);
}

//= RFC 7296 §2.9: the responder narrows to what it allows
#[test]
fn selectors_are_narrowed() {
    let mut world = World::pair(1);
    let wide = config::with_child(config::connection("gw", A, B), |child| {
        let all = ipsec::TrafficSelector::all(ipsec::AddressRange::ANY_V4);
        child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(all)];
    });
    world.gateway_mut(A).load(wide);
    world.establish();
    let child = &world.gateway(A).live_children(world.now())[0];
    assert_eq!((&child.local_ts[..], &child.remote_ts[..]), (&[config::lan(A, 0)][..], &[config::lan(B, 0)][..]));
}

#[test]
fn what_is_not_configured_is_not_found() {
    let mut world = World::pair(1);
    for (connection, child) in [("none", "net"), ("gw", "none")] {
        let ticket = world.initiate(A, connection, child);
        assert!(matches!(world.reply(A, ticket), Some(Err(CommandError::NotFound(_)))), "{connection}/{child}");
    }
    let ticket = world.terminate_ike(A, "gw");
    assert_eq!(world.reply(A, ticket), Some(Ok(ike_model::CommandOutcome::default())));
    let install = Command::Install { connection: "gw".into(), child: "none".into() };
    let ticket = world.command(A, install);
    assert!(matches!(world.reply(A, ticket), Some(Err(CommandError::NotFound(_)))));
}
