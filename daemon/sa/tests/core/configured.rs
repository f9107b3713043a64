//! Configured children: traps, start actions, retries, and what follows when one ends.

use std::net::IpAddr;
use std::time::Duration;

use ike_model::snapshot::ConfiguredState;
use ike_model::{Actions, CauseKind, ChildMode, Command, CommandError, EventBody, Selector};
use ike_sa::Input;
use ipsec::{Event, LimitUnit, PacketSelectors, PolicyAction};

use crate::common::*;

const TRAP: Actions = Actions { trap: true, start: false };
const START: Actions = Actions { trap: false, start: true };

fn packet() -> PacketSelectors {
    let source: IpAddr = "10.1.0.7".parse().unwrap();
    PacketSelectors { source, destination: "10.2.0.9".parse().unwrap(), protocol: 6, ports: Some((40_000, 443)) }
}

#[test]
fn traffic_brings_a_trapped_child_up() {
    let [a, b] = configs(|_, _, child| child.start_action = TRAP);
    let mut world = World::new(a, b);
    world.load(A, 1);
    assert_eq!(world.configured(A).state, ConfiguredState::Trapped);
    let tables = world.peers[A].backend.tables();
    assert_eq!((tables.policies.len(), tables.guards.len()), (1, 1));
    let policy = *tables.policies.keys().next().unwrap();
    for _ in 0..3 {
        world.input(A, Input::Backend(Event::Acquire { policy, packet: packet() }));
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.live(A).len(), 1);
    assert_eq!(world.configured(A).state, ConfiguredState::Up);
    let tables = world.peers[A].backend.tables();
    assert_eq!((tables.sas.len(), tables.policies.len()), (2, 4));
    let reqids: std::collections::BTreeSet<_> = tables
        .policies
        .values()
        .map(|policy| match policy.action {
            PolicyAction::Protect { reqid, .. } | PolicyAction::Trap { reqid, .. } => reqid,
            PolicyAction::Bypass | PolicyAction::Discard => panic!("no shunt here"),
        })
        .collect();
    assert_eq!(reqids.len(), 1, "the SAs serve the trap");
    let protect = tables.policies.values().find(|policy| matches!(policy.action, PolicyAction::Protect { .. }));
    let trap = tables.policies.values().find(|policy| matches!(policy.action, PolicyAction::Trap { .. }));
    assert!(protect.unwrap().priority < trap.unwrap().priority);
    let children = &world.peers[A].endpoint.ike_sas(world.now)[0].children;
    assert_eq!(children[0].local_ts, [ts("10.1.0.0", 16)], "the packet is contained in the network");
    assert_eq!(world.peers[A].endpoint.policies().len(), 1);
}

#[test]
fn shunts_are_policies_in_all_directions() {
    for (mode, expected) in [(ChildMode::Pass, PolicyAction::Bypass), (ChildMode::Drop, PolicyAction::Discard)] {
        let [a, b] = configs(|_, _, child| {
            child.mode = mode;
            child.start_action = TRAP;
        });
        let mut world = World::new(a, b);
        world.load(A, 1);
        let tables = world.peers[A].backend.tables();
        assert_eq!(tables.policies.values().filter(|policy| policy.action == expected).count(), 3);
        assert!(tables.guards.is_empty());
        assert_eq!(world.configured(A).state, ConfiguredState::Shunt);
        let (connection, child) = ("gw".to_owned(), "net".to_owned());
        world.command(A, 2, Command::Uninstall { connection, child });
        world.initiate(A, 3);
        assert!(matches!(world.peers[A].replies[&3], Err(ike_model::CommandError::Invalid(_))));
        assert!(world.peers[A].backend.tables().policies.is_empty());
    }
}

#[test]
fn a_started_child_is_tried_again_ever_more_slowly() {
    let [a, mut b] = configs(|who, _, child| child.start_action = if who == A { START } else { Actions::NONE });
    let secrets = std::mem::take(&mut b.secrets);
    let mut world = World::new(a, b);
    world.load(A, 1);
    world.run(Duration::from_millis(500));
    let ConfiguredState::RetryIn(_) = world.configured(A).state else { panic!("{:?}", world.configured(A)) };
    assert_eq!(world.configured(A).last_cause.unwrap().1.kind, CauseKind::AuthenticationFailed);
    world.run(Duration::from_secs(600));
    let failed = world.types(A).iter().filter(|name| *name == "IkeSaAuthFailed").count();
    assert!((8..=13).contains(&failed), "{failed} attempts in ten minutes");
    world.peers[B].config.secrets = secrets;
    world.run(Duration::from_secs(310));
    assert_eq!(world.configured(A).state, ConfiguredState::Up);
    let selector = Selector { ike: Some("gw".into()), ..Selector::default() };
    world.command(A, 2, Command::Terminate { selector, force: false });
    world.run(Duration::from_secs(900));
    assert_eq!(world.configured(A).state, ConfiguredState::Down, "an operator closed it");
}

#[test]
fn dead_peer_is_noticed_and_waited_for() {
    let [a, b] = configs(|_, connection, child| {
        connection.dpd_delay = Duration::from_secs(10);
        connection.keyingtries = 0;
        child.dpd_action = START;
    });
    let mut world = World::up(a, b);
    world.load(A, 2);
    world.drop = Box::new(|_, _| true);
    world.run(Duration::from_secs(180));
    let types = world.types(A);
    assert!(types.contains(&"PeerUnreachable".to_owned()) && types.contains(&"ChildSaClosed".to_owned()), "{types:?}");
    world.drop = Box::new(|_, _| false);
    world.run(Duration::from_secs(400));
    assert_eq!(world.live(A).len(), 1, "{:?}", world.types(A));
    assert_eq!(world.types(A).iter().filter(|name| *name == "PeerReachable").count(), 1);
}

#[test]
fn liveness_asks_only_in_silence() {
    let [a, b] = configs(|who, connection, _| {
        connection.dpd_delay = if who == A { Duration::from_secs(10) } else { Duration::ZERO };
    });
    let mut world = World::up(a, b);
    let before = world.peers[A].sent;
    world.run(Duration::from_secs(101));
    assert_eq!(world.peers[A].sent - before, 10);
    assert_eq!(world.types(A).len(), 2);
}

#[test]
fn close_action_start_brings_it_back() {
    let [a, b] = configs(|_, _, child| child.close_action = START);
    let mut world = World::up(a, b);
    world.load(A, 2);
    let selector = Selector { child: Some("net".into()), ..Selector::default() };
    world.command(B, 3, Command::Terminate { selector, force: false });
    world.run(Duration::from_secs(5));
    world.assert_one_tunnel();
    assert_eq!(world.peers[A].endpoint.ike_sas(world.now).len(), 1);
}

#[test]
fn hard_limit_closes_and_makes_it_again() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    world.load(A, 2);
    let before = world.live(A);
    let sa = *world.peers[A].backend.tables().sas.keys().next().unwrap();
    world.input(A, Input::Backend(Event::HardExpire { sa, unit: LimitUnit::Packets }));
    world.run(Duration::from_secs(5));
    world.assert_one_tunnel();
    assert_ne!(world.live(A), before);
    assert!(world.types(A).contains(&"ChildSaHardExpired".to_owned()));
}

#[test]
fn what_a_device_lost_is_made_again() {
    let [a, b] = plain();
    let mut world = World::up(a, b);
    world.load(A, 2);
    let before = world.live(A);
    world.peers[A].backend.lose_all();
    world.input(A, Input::Backend(Event::DeviceUp(ipsec::DeviceId(0))));
    world.run(Duration::from_secs(5));
    world.assert_one_tunnel();
    assert_ne!(world.live(A), before);
    let kept = world.live(A);
    world.input(A, Input::Backend(Event::DeviceUp(ipsec::DeviceId(0))));
    world.run(Duration::from_secs(5));
    assert_eq!(world.live(A), kept, "a device that still holds everything is left alone");
}

#[test]
fn shutdown_tells_the_peer() {
    let [a, b] = configs(|_, _, child| child.start_action = START);
    let mut world = World::new(a, b);
    world.load(A, 1);
    world.run(Duration::from_secs(1));
    world.command(A, 2, Command::Shutdown);
    world.run(Duration::from_secs(1));
    assert!(world.peers[A].replies.contains_key(&2));
    assert!(world.peers[B].endpoint.ike_sas(world.now).is_empty());
    world.run(Duration::from_secs(60));
    assert!(world.peers[A].endpoint.ike_sas(world.now).is_empty(), "nothing comes back");
}

/// Without an answer of the peer everything is told nevertheless, the last counters included.
#[test]
fn the_second_shutdown_waits_for_no_peer() {
    let [a, b] = configs(|_, _, child| child.start_action = START);
    let mut world = World::new(a, b);
    world.load(A, 1);
    world.run(Duration::from_secs(1));
    world.drop = Box::new(|_, _| true);
    world.command(A, 2, Command::Shutdown);
    world.run(Duration::from_secs(4));
    assert!(!world.peers[A].replies.contains_key(&2));
    let sas: Vec<_> = world.peers[A].backend.tables().sas.keys().copied().collect();
    for sa in sas {
        world.peers[A].backend.count(sa, 7, 700);
    }
    world.command(A, 3, Command::Shutdown);
    world.run(Duration::from_millis(1));
    assert!([2, 3].iter().all(|id| world.peers[A].replies.contains_key(id)));
    assert_eq!(world.types(A)[2..], ["ChildSaClosed", "IkeSaClosed", "ChildSaRemoved"]);
    let Some(EventBody::ChildSaRemoved { child, successor: None, .. }) = world.peers[A].events.last() else {
        panic!("{:?}", world.types(A))
    };
    assert_eq!(
        [child.traffic_in, child.traffic_out].map(|traffic| (traffic.packets, traffic.bytes)),
        [(7, 700), (0, 0)]
    );
}

#[test]
fn initiate_is_done_once_for_many() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    for id in 1..6 {
        world.initiate(A, id);
    }
    world.run(Duration::from_secs(1));
    world.initiate(A, 6);
    world.assert_one_tunnel();
    assert_eq!(world.peers[A].replies.len(), 6);
    assert!((1..6).all(|id| world.peers[A].replies[&id].is_ok()));
    assert!(matches!(world.peers[A].replies[&6], Err(CommandError::Duplicate(_))), "it is up already");
}

#[test]
fn ike_sa_alone_then_a_child() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.command(A, 1, Command::Initiate { connection: "gw".into(), child: None });
    world.run(Duration::from_secs(1));
    assert!(world.peers[A].replies[&1].is_ok());
    assert!(world.live(A).is_empty());
    world.initiate(A, 2);
    world.run(Duration::from_secs(1));
    world.assert_one_tunnel();
    assert_eq!(world.peers[B].endpoint.ike_sas(world.now).len(), 1);
}
