//! Peers known by name: resolved at each attempt, all addresses tried, and no answer ends what stands.

use std::time::Duration;

use ike_model::{CauseKind, Connection, HostSpec};
use scenarios::{A, B, C, Who, World, config};

const NAME: &str = "b.example";

fn by_name(names: &[&str]) -> Connection {
    let mut connection = config::connection("gw", A, B);
    connection.remote_addrs = names.iter().map(|name| HostSpec::Name((*name).into())).collect();
    connection
}

fn world(connection: Connection, addresses: &[(&str, &[Who])]) -> World {
    let mut world = World::pair_of(1, connection, config::connection("gw", B, A));
    for (name, whom) in addresses {
        let addresses = whom.iter().map(|who| config::address(*who)).collect();
        world.gateway_mut(A).names.insert((*name).into(), addresses);
    }
    world
}

#[test]
fn a_name_leads_to_its_address() {
    let mut world = world(by_name(&[NAME]), &[(NAME, &[B])]);
    world.establish();
    assert_eq!(world.gateway(A).ike_sas(world.now())[0].remote.ip(), config::address(B));
}

//= RFC 4555 §3.1: one address of the responder after the other
/// All addresses of all names are tried in order, each with a whole sequence of repetitions.
#[test]
fn all_addresses_are_tried() {
    struct Case {
        names: &'static [&'static str],
        answers: &'static [(&'static str, &'static [Who])],
        tried: &'static [Who],
    }
    // Nobody is at C's address.
    let cases = [
        Case { names: &[NAME], answers: &[(NAME, &[B])], tried: &[B] },
        Case { names: &[NAME], answers: &[(NAME, &[C, B])], tried: &[C, B] },
        Case { names: &["first", "second"], answers: &[("first", &[C]), ("second", &[B])], tried: &[C, B] },
        Case { names: &["unknown", NAME], answers: &[(NAME, &[B])], tried: &[B] },
        Case { names: &[NAME, "unknown"], answers: &[(NAME, &[B])], tried: &[B] },
    ];
    for case in cases {
        let mut world = world(by_name(case.names), case.answers);
        let ticket = world.initiate(A, "gw", "net");
        world.run_until(Duration::from_secs(400), |world| world.reply(A, ticket).is_some());
        assert!(matches!(world.reply(A, ticket), Some(Ok(_))), "{:?}", case.names);
        let mut tried: Vec<_> = world.gateway(A).sent.iter().map(|(_, path, _)| path.remote.ip()).collect();
        tried.dedup();
        assert_eq!(tried, case.tried.iter().map(|who| config::address(*who)).collect::<Vec<_>>(), "{:?}", case.names);
    }
}

#[test]
fn a_name_without_address_is_a_clear_failure() {
    let mut world = world(by_name(&[NAME]), &[]);
    let ticket = world.initiate(A, "gw", "net");
    let outcome = world.reply(A, ticket);
    let cause = world.gateway(A).last_cause().unwrap();
    assert_eq!((cause.kind, cause.text.as_str()), (CauseKind::NoAddress, "b.example has no address"));
    assert!(matches!(outcome, Some(Err(_))), "{outcome:?}");
    assert_eq!(world.sent(A), 0);
}

/// A tunnel that is to be up comes up once the name resolves, without anybody's help.
#[test]
fn a_name_that_resolves_later_is_found_by_the_retries() {
    let connection = config::with_child(by_name(&[NAME]), |child| child.start_action = config::START);
    let mut world = world(connection, &[]);
    world.run_for(Duration::from_secs(60));
    let failures = world.gateway(A).count("ike-sa.failed");
    assert!((5..=8).contains(&failures), "{failures}");
    world.gateway_mut(A).names.insert(NAME.into(), vec![config::address(B)]);
    // Attempts are at most five minutes apart.
    assert!(world.run_until(Duration::from_secs(300), |world| !world.tunnels(A, B).is_empty()));
    world.run_for(Duration::from_secs(1));
    world.check_one_tunnel(A, B);
}

#[test]
fn each_attempt_resolves_afresh_and_a_changed_answer_ends_nothing() {
    let mut world = world(by_name(&[NAME]), &[(NAME, &[B])]);
    world.establish();
    let before = world.tunnels(A, B);
    for answer in [vec![config::address(C)], Vec::new()] {
        world.gateway_mut(A).names.insert(NAME.into(), answer);
        world.run_for(Duration::from_secs(3_600));
        world.rekey_ike(A, "gw");
        world.run_for(Duration::from_secs(10));
        world.check_one_tunnel(A, B);
        assert_eq!(world.tunnels(A, B), before);
    }
    // The next attempt goes where the name leads then.
    world.strict(false);
    world.terminate_ike(A, "gw");
    world.run_for(Duration::from_secs(1));
    world.gateway_mut(A).names.insert(NAME.into(), vec![config::address(C)]);
    let sent = world.sent(A);
    world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.gateway(A).sent[sent].1.remote.ip(), config::address(C));
}

/// As responder a name says nothing before it is resolved: the identity decides.
#[test]
fn a_named_peer_may_initiate() {
    let mut named = config::connection("gw", B, A);
    named.remote_addrs = vec![HostSpec::Name("a.example".into())];
    let mut world = World::pair_of(1, config::connection("gw", A, B), named);
    world.establish();
}

/// `%any` beside a name is for whoever comes; we initiate to the name.
#[test]
fn any_and_a_name() {
    let mut connection = by_name(&[NAME]);
    connection.remote_addrs.insert(0, HostSpec::Any);
    let mut world = world(connection, &[(NAME, &[B])]);
    world.establish();
    // Without a name there is nothing to initiate to.
    let mut connection = config::connection("gw", A, B);
    connection.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(1, connection, config::connection("gw", B, A));
    world.initiate(A, "gw", "net");
    let cause = world.gateway(A).last_cause().unwrap();
    assert_eq!(cause.kind, CauseKind::NoAddress, "{cause:?}");
    let ticket = world.initiate(B, "gw", "net");
    world.run_for(Duration::from_secs(1));
    assert!(matches!(world.reply(B, ticket), Some(Ok(_))));
}
