//! Changes of the configuration while tunnels are up: what is unchanged is not touched.

use std::time::Duration;

use ike_model::{Command, Connection};
use scenarios::{A, B, World, config};

fn two_children(who: usize, other: usize) -> Connection {
    let mut connection = config::connection("gw", who, other);
    connection.children = (0..2)
        .map(|n| {
            let mut child = config::child(&format!("net{n}"), who, other, n);
            if who == A {
                child.start_action = config::START;
            }
            child.into()
        })
        .collect();
    connection
}

fn up() -> World {
    let mut world = World::with_shards(1, &[2, 1]);
    world.configure(B, two_children(B, A));
    world.configure(A, two_children(A, B));
    world.run_for(Duration::from_secs(2));
    world.check_tunnels(A, B, 2);
    world
}

/// Replay windows of A's inbound SAs.
fn windows_at_a(world: &World) -> Vec<u32> {
    world.gateway(A).with_tables(|tables| {
        let inbound = tables.sas.values().filter(|sa| sa.direction == ipsec::Direction::Inbound);
        inbound.map(|sa| sa.replay_window).collect()
    })
}

/// A run of the same length in which nothing happens sends nothing, so every message counts.
#[test]
fn unchanged_touches_nothing() {
    let mut world = up();
    let (tunnels, sent) = (world.tunnels(A, B), (world.sent(A), world.sent(B)));
    for who in [A, B] {
        world.configure(who, two_children(who, if who == A { B } else { A }));
    }
    world.run_for(Duration::from_secs(100));
    assert_eq!((world.tunnels(A, B), (world.sent(A), world.sent(B))), (tunnels, sent));
}

#[test]
fn one_child_changed() {
    let mut world = up();
    world.traffic_every = Some(Duration::from_millis(20));
    let before = world.tunnels(A, B);
    let mut changed = two_children(A, B);
    std::sync::Arc::make_mut(&mut changed.children[1]).replay_window = Some(128);
    world.configure(A, changed);
    world.run_for(Duration::from_secs(30));
    world.check_tunnels(A, B, 2);
    let after = world.tunnels(A, B);
    let of = |all: &[(String, ipsec::Spi, ipsec::Spi)], name: &str| all.iter().find(|tunnel| tunnel.0 == name).cloned();
    assert_eq!(of(&before, "net0"), of(&after, "net0"));
    assert_ne!(of(&before, "net1"), of(&after, "net1"));
    assert_eq!(world.gateway(A).counts().ike_sas, 1);
    assert_eq!(world.gateway(A).count("ike-sa.closed"), 0);
    let windows = windows_at_a(&world);
    assert_eq!(windows, [32, 128]);
}

/// Lifetimes, liveness and actions change in place.
#[test]
fn a_lifetime_changed() {
    let mut world = up();
    let tunnels = world.tunnels(A, B);
    let mut changed = two_children(A, B);
    changed.dpd_delay = Duration::from_secs(10);
    changed.rekey_time = Duration::from_secs(100);
    changed.over_time = Duration::from_secs(10);
    world.configure(A, changed);
    let sent = world.sent(A);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.tunnels(A, B), tunnels);
    assert!((5..=6).contains(&(world.sent(A) - sent)), "liveness is asked for now");
    world.run_for(Duration::from_secs(60));
    assert_eq!((world.tunnels(A, B), world.gateway(A).count("ike-sa.rekeyed")), (tunnels, 1));
}

#[test]
fn a_child_added_and_one_removed() {
    let mut world = up();
    let mut changed = two_children(A, B);
    let mut third = config::child("net2", A, B, 2);
    third.start_action = config::START;
    changed.children[0] = third.into();
    let mut other = two_children(B, A);
    other.children.push(config::child("net2", B, A, 2).into());
    world.configure(B, other);
    world.configure(A, changed);
    world.run_for(Duration::from_secs(10));
    world.check_tunnels(A, B, 2);
    let mut names: Vec<_> = world.tunnels(A, B).into_iter().map(|tunnel| tunnel.0).collect();
    names.sort();
    assert_eq!(names, ["net1", "net2"]);
    assert_eq!(world.gateway(A).count("ike-sa.closed"), 0);
}

/// The connection as it looks at `who` when A calls itself something else.
fn with_new_name(who: usize, mut connection: Connection) -> Connection {
    let round = if who == A { &mut connection.local } else { &mut connection.remote };
    round[0].id = ike_model::Identity::Fqdn("new.a.example".into());
    connection
}

/// A key that serves under any name.
fn one_key_for_all(world: &mut World) {
    for who in [A, B] {
        let shared = ike_model::SharedSecret { owners: Vec::new(), ..config::secret(A, B) };
        world.gateway_mut(who).config.secrets = vec![shared.into()];
    }
}

/// Another identity is another IKE SA: the new one is there before the old one goes.
#[test]
fn an_identity_changed() {
    let mut world = up();
    let renamed = |who: usize, other: usize| with_new_name(who, two_children(who, other));
    one_key_for_all(&mut world);
    world.configure(B, renamed(B, A));
    world.configure(A, renamed(A, B));
    world.run_for(Duration::from_secs(30));
    world.check_tunnels(A, B, 2);
    for who in [A, B] {
        let ike_sas = world.gateway(who).ike_sas(world.now());
        assert_eq!(ike_sas.len(), 1, "{who}");
    }
    assert_eq!(world.gateway(A).ike_sas(world.now())[0].local_id.to_string(), "new.a.example");
}

#[test]
fn a_connection_removed() {
    let mut world = up();
    world.gateway_mut(A).config.connections.clear();
    world.reload(A, &[], &["gw"]);
    world.run_for(Duration::from_secs(60));
    world.check_nothing_left();
    assert!(world.gateway(A).tables().guards.is_empty());
}

/// X8: while the IKE SA is being made.
#[test]
fn while_connecting() {
    for after in [1, 15, 25, 35] {
        let mut world = World::with_shards(1, &[2, 1]);
        world.configure(B, two_children(B, A));
        world.configure(A, two_children(A, B));
        world.run_for(Duration::from_millis(after));
        let mut changed = two_children(A, B);
        changed.dpd_delay = Duration::from_secs(1_000);
        std::sync::Arc::make_mut(&mut changed.children[0]).replay_window = Some(64);
        world.configure(A, changed);
        world.run_for(Duration::from_secs(60));
        world.check_tunnels(A, B, 2);
        assert_eq!(world.gateway(A).counts().ike_sas, 1, "after {after} ms");
    }
}

/// What was being made before a change is made again as it is configured now, whatever moment the change comes at.
#[test]
fn a_child_changed_while_connecting_is_up_as_changed() {
    for after in [1, 15, 25, 35, 45, 55] {
        let mut world = World::with_shards(1, &[2, 1]);
        world.configure(B, two_children(B, A));
        world.configure(A, two_children(A, B));
        world.run_for(Duration::from_millis(after));
        let mut changed = two_children(A, B);
        for child in &mut changed.children {
            std::sync::Arc::make_mut(child).replay_window = Some(64);
        }
        world.configure(A, changed);
        world.run_for(Duration::from_secs(60));
        world.check_tunnels(A, B, 2);
        assert_eq!(world.gateway(A).counts().ike_sas, 1, "after {after} ms");
        let windows = windows_at_a(&world);
        assert_eq!(windows, [64, 64], "after {after} ms");
    }
}

/// A child taken out while it is being made does not stay.
#[test]
fn a_child_removed_while_connecting() {
    for after in [1, 15, 25, 35, 45, 55] {
        let mut world = World::with_shards(1, &[2, 1]);
        world.configure(B, two_children(B, A));
        world.configure(A, two_children(A, B));
        world.run_for(Duration::from_millis(after));
        let mut changed = two_children(A, B);
        changed.children.remove(1);
        world.configure(A, changed);
        world.run_for(Duration::from_secs(60));
        let names: Vec<_> = world.tunnels(A, B).into_iter().map(|tunnel| tunnel.0).collect();
        assert_eq!(names, ["net0"], "after {after} ms");
    }
}

/// One that is changed while it is being made, and no longer started, does not stay as it was configured before, and what had not been begun is
/// not begun.
#[test]
fn a_child_no_longer_started_while_connecting() {
    for after in [1, 15, 25, 35, 45, 55] {
        let mut world = World::with_shards(1, &[2, 1]);
        world.configure(B, two_children(B, A));
        world.configure(A, two_children(A, B));
        world.run_for(Duration::from_millis(after));
        let mut changed = two_children(A, B);
        let child = std::sync::Arc::make_mut(&mut changed.children[1]);
        child.replay_window = Some(64);
        child.start_action = ike_model::Actions::NONE;
        world.configure(A, changed);
        world.run_for(Duration::from_secs(60));
        assert_eq!(windows_at_a(&world), [32], "after {after} ms");
    }
}

/// At A nothing starts `net0`, and `net1` is to be started or not.
fn second_started(started: bool) -> Connection {
    let mut connection = two_children(A, B);
    child_mut(&mut connection, 0).start_action = ike_model::Actions::NONE;
    child_mut(&mut connection, 1).start_action = if started { config::START } else { ike_model::Actions::NONE };
    connection
}

/// `net0` is up, and nothing is to be started.
fn first_up() -> World {
    let mut world = World::with_shards(1, &[2, 1]);
    world.configure(B, two_children(B, A));
    world.configure(A, second_started(false));
    world.initiate(A, "gw", "net0");
    world.run_for(Duration::from_secs(1));
    world.check_tunnels(A, B, 1);
    world
}

fn unload(world: &mut World) {
    world.gateway_mut(A).config.connections.remove("gw");
    world.reload(A, &[], &["gw"]);
}

/// What is done to A's configuration.
type Change = fn(&mut World);

fn names(world: &World) -> Vec<String> {
    world.tunnels(A, B).into_iter().map(|tunnel| tunnel.0).collect()
}

/// What only its start action has asked for, and the peer was not asked for yet, it is not asked for when that is taken out.
#[test]
fn a_child_no_longer_started_while_its_request_waits() {
    let unstart: Change = |world| world.configure(A, second_started(false));
    let cases: [(bool, Change, &[&str]); 4] = [
        (false, |_| {}, &["net0", "net1"]),
        (false, unstart, &["net0"]),
        (false, unload, &["net0"]),
        // An operator has asked for it besides.
        (true, unstart, &["net0", "net1"]),
    ];
    for (at, (asked, change, expected)) in cases.into_iter().enumerate() {
        let mut world = first_up();
        world.link.cut.insert((A, B));
        world.rekey_child(A, "net0");
        world.configure(A, second_started(true));
        let ticket = asked.then(|| world.initiate(A, "gw", "net1"));
        world.run_for(Duration::from_millis(100));
        change(&mut world);
        world.run_for(Duration::from_millis(100));
        world.link.mend();
        world.run_for(Duration::from_secs(60));
        assert_eq!(names(&world), expected, "case {at}");
        let told = world.gateway(B).count("child-sa.installed");
        assert_eq!(told, expected.len(), "case {at}: the peer was asked for no other");
        assert!(ticket.is_none_or(|ticket| matches!(world.reply(A, ticket), Some(Ok(_)))), "case {at}");
    }
}

/// An attempt at an IKE SA that nothing is left of ends, unless an operator waits for that alone.
#[test]
fn an_attempt_with_nothing_left_to_do_ends() {
    for (after, alone) in [(5, false), (15, false), (5, true), (15, true)] {
        let mut world = World::with_shards(1, &[2, 1]);
        world.configure(B, two_children(B, A));
        world.configure(A, second_started(true));
        let command = Command::Initiate { connection: "gw".into(), child: None };
        let ticket = alone.then(|| world.command(A, command));
        world.run_for(Duration::from_millis(after));
        world.configure(A, second_started(false));
        world.run_for(Duration::from_secs(60));
        let counts = [A, B].map(|who| world.gateway(who).counts());
        assert_eq!(counts.map(|counts| (counts.ike_sas, counts.children)), [(usize::from(alone), 0); 2], "{after} ms");
        assert!(ticket.is_none_or(|ticket| matches!(world.reply(A, ticket), Some(Ok(_)))), "after {after} ms");
    }
}

/// What the peer was asked for already is closed once it is made, when the connection goes; and it comes back with that.
#[test]
fn a_started_child_unloaded_while_it_is_made() {
    for after in [1, 5, 12, 18, 25, 35] {
        for again in [false, true] {
            let mut world = first_up();
            world.gateway_mut(A).report_delay = Some(Duration::from_millis(6));
            world.configure(A, second_started(true));
            world.run_for(Duration::from_millis(after));
            unload(&mut world);
            if again {
                world.configure(A, second_started(true));
            }
            world.run_for(Duration::from_secs(60));
            let expected: &[&str] = if again { &["net0", "net1"] } else { &["net0"] };
            assert_eq!(names(&world), expected, "after {after} ms");
        }
    }
}

/// The responder's configuration changes between IKE_SA_INIT and IKE_AUTH: the IKE SA is one of the present configuration.
#[test]
fn the_responder_reloads_while_the_peer_connects() {
    for after in [1, 15, 25, 35] {
        let mut world = World::with_shards(1, &[2, 2]);
        world.configure(B, two_children(B, A));
        world.configure(A, two_children(A, B));
        world.run_for(Duration::from_millis(after));
        let mut changed = two_children(B, A);
        changed.dpd_delay = Duration::from_secs(5);
        world.configure(B, changed);
        world.run_for(Duration::from_secs(60));
        world.check_tunnels(A, B, 2);
        let before = world.sent(B);
        world.run_for(Duration::from_secs(50));
        assert!((9..=11).contains(&(world.sent(B) - before)), "after {after} ms: B asks every 5 s");
    }
}

/// An operator's attempt goes on under another identity when that changes meanwhile; the command gets its answer from there.
#[test]
fn another_identity_while_connecting() {
    for after in [1, 15, 25, 35] {
        let mut world = World::with_shards(1, &[2, 1]);
        let plain = |who: usize, other: usize| config::connection("gw", who, other);
        let renamed = |who: usize, other: usize| with_new_name(who, plain(who, other));
        one_key_for_all(&mut world);
        world.configure(B, renamed(B, A));
        world.configure(A, plain(A, B));
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_millis(after));
        world.configure(A, renamed(A, B));
        world.run_for(Duration::from_secs(60));
        assert!(matches!(world.reply(A, ticket), Some(Ok(_))), "after {after} ms: {:?}", world.reply(A, ticket));
        world.check_tunnels(A, B, 1);
        assert_eq!(world.gateway(A).ike_sas(world.now())[0].local_id.to_string(), "new.a.example");
    }
}

/// Make-before-break: with another IKE SA the old one goes only when its children are up below the new one. No packet is lost.
#[test]
fn a_replaced_connection_loses_nothing() {
    let mut world = up();
    world.traffic_every = Some(Duration::from_millis(5));
    world.run_for(Duration::from_secs(1));
    let mut changed = two_children(A, B);
    changed.encap = true;
    world.configure(A, changed);
    world.run_for(Duration::from_secs(30));
    world.check_tunnels(A, B, 2);
    assert_eq!(world.gateway(A).counts().ike_sas, 1);
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}

/// While the peer is away the replaced IKE SA stays, and so does what it carries.
#[test]
fn a_replacement_that_does_not_come_up_leaves_the_old_one() {
    let mut world = up();
    let tunnels = world.tunnels(A, B);
    let mut changed = two_children(A, B);
    changed.local[0].id = ike_model::Identity::Fqdn("stranger.example".into());
    world.configure(A, changed);
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.tunnels(A, B), tunnels);
}

/// One change of A's configuration, and what it does.
struct Foretold {
    name: &'static str,
    change: fn(&mut Connection),
    restart: u32,
    end: u32,
    stay: u32,
}

fn child_mut(connection: &mut Connection, at: usize) -> &mut ike_model::Child {
    std::sync::Arc::make_mut(&mut connection.children[at])
}

/// Beside `net0` and `net1`, which are started, `net2` was initiated by hand.
const FORETOLD: [Foretold; 9] = [
    Foretold { name: "nothing", change: |_| {}, restart: 0, end: 0, stay: 4 },
    Foretold { name: "settings", change: |c| c.dpd_delay = Duration::from_secs(9), restart: 0, end: 0, stay: 4 },
    Foretold { name: "a lifetime", change: |c| child_mut(c, 0).lifetime.time.soft = 900, restart: 0, end: 0, stay: 4 },
    Foretold { name: "a child", change: |c| child_mut(c, 0).replay_window = Some(64), restart: 1, end: 0, stay: 3 },
    Foretold {
        name: "a child that nothing starts",
        change: |c| child_mut(c, 2).replay_window = Some(64),
        restart: 0,
        end: 0,
        stay: 4,
    },
    Foretold {
        name: "a child that is not started any more",
        change: |c| {
            child_mut(c, 1).replay_window = Some(64);
            child_mut(c, 1).start_action = ike_model::Actions::NONE;
        },
        restart: 0,
        end: 1,
        stay: 3,
    },
    Foretold { name: "a child less", change: |c| drop(c.children.remove(1)), restart: 0, end: 1, stay: 3 },
    Foretold { name: "encapsulation", change: |c| c.encap = true, restart: 2, end: 0, stay: 2 },
    Foretold {
        name: "encapsulation without what is by hand",
        change: |c| {
            c.encap = true;
            c.children.remove(2);
        },
        restart: 3,
        end: 1,
        stay: 0,
    },
];

fn three_children(who: usize, other: usize) -> Connection {
    let mut connection = two_children(who, other);
    connection.children.push(config::child("net2", who, other, 2).into());
    connection
}

/// Unique ids of all SAs that are up.
fn up_at_a(world: &World) -> std::collections::BTreeSet<(char, u32)> {
    let mut ids = std::collections::BTreeSet::new();
    for ike in world.gateway(A).ike_sas(world.now()) {
        ids.insert(('i', ike.unique_id));
        let live = ike.children.iter().filter(|child| child.state == ike_model::ChildSaState::Installed);
        ids.extend(live.map(|child| ('c', child.unique_id)));
    }
    ids
}

#[test]
fn what_is_foretold_happens() {
    for case in FORETOLD {
        let mut world = World::with_shards(1, &[1, 1]);
        world.configure(B, three_children(B, A));
        world.configure(A, three_children(A, B));
        world.run_for(Duration::from_secs(2));
        world.initiate(A, "gw", "net2");
        world.run_for(Duration::from_secs(2));
        world.check_tunnels(A, B, 3);
        let before = up_at_a(&world);
        let (old, mut new) = (three_children(A, B), three_children(A, B));
        (case.change)(&mut new);
        let foretold = ike_model::reload::forecast(Some(&old), Some(&new), &world.gateway(A).ike_sas(world.now()));
        let foretold = foretold.unwrap();
        let counts = (foretold.restart, foretold.end, foretold.stay);
        assert_eq!(counts, (case.restart, case.end, case.stay), "{}", case.name);
        world.configure(A, new);
        world.run_for(Duration::from_secs(60));
        let after = up_at_a(&world);
        let stayed = u32::try_from(before.intersection(&after).count()).unwrap();
        let made = u32::try_from(after.difference(&before).count()).unwrap();
        // A replaced IKE SA that still carries something stays beside its successor.
        let beside = u32::from(case.name == "encapsulation");
        assert_eq!((stayed, made), (case.stay, case.restart + beside), "{}: {before:?} {after:?}", case.name);
    }
}

#[test]
fn removal_is_foretold() {
    let mut world = up();
    world.gateway_mut(A).config.connections.clear();
    let old = two_children(A, B);
    let foretold = ike_model::reload::forecast(Some(&old), None, &world.gateway(A).ike_sas(world.now())).unwrap();
    assert_eq!((foretold.restart, foretold.end, foretold.stay), (0, 3, 0));
    world.reload(A, &[], &["gw"]);
    world.run_for(Duration::from_secs(60));
    assert!(up_at_a(&world).is_empty());
}
