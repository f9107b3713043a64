//! Tables that somebody else changes, and reports that are lost: noticed by comparing, within a second, and put right.

use std::time::Duration;

use ike_model::HostSpec;
use ipsec::recording::Tables;
use ipsec::{DeviceId, Direction, Event, LimitUnit, ModeInUse, Op, PolicyAction, PolicyHandle, SaHandle, Shard, Spi};
use scenarios::{A, B, World, config};

use super::{check_guarded, down, kept_up, up};

const EVERY: Duration = Duration::from_secs(1);

/// What is found within a second is put right within another.
const SOON: Duration = Duration::from_secs(2);

fn compared() -> World {
    let mut world = kept_up();
    world.check_regularly(A, EVERY);
    world.run_for(EVERY);
    world
}

fn policy(tables: &Tables, direction: Direction) -> PolicyHandle {
    tables.policies.values().find(|policy| policy.direction == direction).unwrap().handle
}

fn outbound(tables: &Tables) -> SaHandle {
    tables.sas.values().find(|sa| sa.direction == Direction::Outbound).unwrap().handle
}

type Change = fn(&mut Tables);

/// The SAs are there, policies are not what they should be: put back as they were, with the same SAs.
#[test]
fn policies_are_put_back() {
    let cases: [(&str, Change); 6] = [
        ("all policies flushed", |tables| tables.policies.clear()),
        ("the outbound one gone", |tables| drop(tables.policies.remove(&policy(tables, Direction::Outbound)))),
        ("the inbound one gone", |tables| drop(tables.policies.remove(&policy(tables, Direction::Inbound)))),
        ("the forward one gone", |tables| drop(tables.policies.remove(&policy(tables, Direction::Forward)))),
        ("the outbound one uses no SA", |tables| {
            let handle = policy(tables, Direction::Outbound);
            let entry = tables.policies.get_mut(&handle).unwrap();
            if let PolicyAction::Protect { sa, .. } = &mut entry.action {
                *sa = None;
            }
        }),
        ("all on another device", |tables| {
            tables.policies.values_mut().for_each(|policy| policy.device = DeviceId(7));
        }),
    ];
    for (what, change) in cases {
        let mut world = compared();
        let before = (world.tunnels(A, B), world.gateway(A).tables().policies.len());
        world.tamper(A, change);
        world.run_for(SOON);
        world.note(what);
        world.check_one_tunnel(A, B);
        let tables = world.gateway(A).tables();
        assert_eq!((world.tunnels(A, B), tables.policies.len()), before, "{what}");
        assert!(tables.policies.values().all(|policy| policy.device == DeviceId(0)), "{what}");
        world.send_packets(A);
        assert_eq!((world.traffic.sent, world.traffic.blocked), (1, 0), "{what}");
        assert_eq!(world.gateway(A).count("offload.repaired"), 1, "{what}");
        assert_eq!(world.gateway(A).count("offload.state-lost"), 0, "{what}");
        check_guarded(&world, A);
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.gateway(A).count("offload.repaired"), 1, "{what}: told once");
    }
}

/// An SA is gone or is not what was installed: nothing is installed again under its keys.
#[test]
fn lost_sas_are_made_again() {
    let cases: [(&str, Change); 5] = [
        ("flushed", |tables| {
            tables.sas.clear();
            tables.policies.clear();
        }),
        ("all SAs", |tables| tables.sas.clear()),
        ("the outbound SA", |tables| drop(tables.sas.remove(&outbound(tables)))),
        ("the inbound SA", |tables| tables.sas.retain(|_, sa| sa.direction == Direction::Outbound)),
        ("moved to another device", |tables| tables.sas.values_mut().for_each(|sa| sa.device = DeviceId(7))),
    ];
    for (what, change) in cases {
        let mut world = compared();
        let before = world.tunnels(A, B);
        world.tamper(A, change);
        let fresh = |world: &World| {
            let now = world.tunnels(A, B);
            now.len() == 1 && now != before
        };
        let back = world.run_until(SOON, fresh);
        world.check(back, &format!("{what}: not there again within {SOON:?}"));
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        check_guarded(&world, A);
        assert_eq!(world.gateway(A).count("offload.state-lost"), 1, "{what}: told once");
    }
}

/// Policies that cannot be put back: the CHILD SA is made again.
#[test]
fn what_cannot_be_repaired_is_made_again() {
    let mut world = compared();
    let before = world.tunnels(A, B);
    world.gateway(A).backend.refuse_next(|op| matches!(op, Op::InstallPolicy(_)), super::full());
    world.tamper(A, |tables| tables.policies.clear());
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    assert_eq!(world.gateway(A).count("offload.repaired"), 0);
}

/// What carries our handles and belongs to nobody is taken out; what belongs to another shard is not looked at.
#[test]
fn strangers_are_taken_out() {
    let mut world = compared();
    let before = world.gateway(A).tables();
    world.gateway(A).backend.tamper(|tables| {
        for shard in [Shard(0), Shard(5)] {
            let mut sa = tables.sas.values().next().unwrap().clone();
            (sa.handle, sa.spi) = (SaHandle::new(shard, 1 << 40), Spi::new(0xdead_be00 + u32::from(shard.0)).unwrap());
            tables.sas.insert(sa.handle, sa);
            let mut policy = tables.policies.values().next().unwrap().clone();
            policy.handle = PolicyHandle::new(shard, 1 << 40);
            tables.policies.insert(policy.handle, policy);
        }
    });
    world.quiet(); // nobody owns them: that is the point
    world.run_for(SOON);
    let tables = world.gateway(A).tables();
    assert_eq!((tables.sas.len(), tables.policies.len()), (before.sas.len() + 1, before.policies.len() + 1));
    assert!(tables.sas.contains_key(&SaHandle::new(Shard(5), 1 << 40)));
}

/// The report of a limit was lost: the list shows it.
#[test]
fn limits_that_nobody_told_of() {
    for (soft, hard) in [(Some(LimitUnit::Packets), None), (Some(LimitUnit::Packets), Some(LimitUnit::Packets))] {
        let mut world = compared();
        let before = world.tunnels(A, B);
        let sa = world.gateway(A).with_tables(outbound);
        world.gateway(A).backend.expire_unheard(sa, soft, hard);
        world.run_for(Duration::from_secs(30));
        world.check_one_tunnel(A, B);
        assert_ne!(world.tunnels(A, B), before);
        let counts = ["child-sa.soft-expired", "child-sa.hard-expired"].map(|name| world.gateway(A).count(name));
        assert_eq!(counts, [usize::from(hard.is_none()), usize::from(hard.is_some())]);
    }
}

/// Told that reports were lost, it compares at once, without any regular comparison.
#[test]
fn asked_to_compare() {
    let mut world = kept_up();
    world.tamper(A, |tables| tables.policies.clear());
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.gateway(A).count("offload.repaired"), 0);
    world.backend_event(A, Event::Resync);
    assert_eq!(world.gateway(A).count("offload.repaired"), 1);
    world.check_one_tunnel(A, B);
}

/// The same tables seen while everything is under way: nothing is ever wrong with them.
#[test]
fn no_false_alarms() {
    for delay in [None, Some(Duration::from_millis(8)), Some(Duration::from_millis(90))] {
        for seed in 1..=6 {
            let mut at_a =
                config::with_child(config::connection("gw", A, B), |child| child.start_action = config::TRAP);
            (at_a.mobike, at_a.local_addrs) = (true, vec![HostSpec::Any]);
            let mut at_b = config::connection("gw", B, A);
            (at_b.mobike, at_b.remote_addrs) = (true, vec![HostSpec::Any]);
            let mut world = World::pair_of(seed, at_a, at_b);
            world.link.jitter = Duration::from_millis(15);
            for who in [A, B] {
                world.gateway_mut(who).report_delay = delay;
                world.check_regularly(who, Duration::from_millis(7));
            }
            world.initiate(A, "gw", "net");
            world.traffic_every = Some(Duration::from_millis(3));
            for round in 0..6 {
                world.run_for(Duration::from_millis(400));
                let who = if world.dice.below(2) == 0 { A } else { B };
                match round % 3 {
                    0 => drop(world.rekey_child(who, "net")),
                    1 => drop((world.rekey_child(A, "net"), world.rekey_child(B, "net"))),
                    _ => drop(world.rekey_ike(who, "gw")),
                }
            }
            world.run_for(Duration::from_secs(2));
            world.set_addresses(A, &[config::further_address(A, 1)]);
            world.run_for(Duration::from_secs(10));
            world.check_one_tunnel(A, B);
            let lists = world.gateway(A).backend.lists();
            assert!(lists > 100, "{lists} comparisons");
            for who in [A, B] {
                for event in ["offload.repaired", "offload.state-lost"] {
                    world.check(world.gateway(who).count(event) == 0, &format!("{event}, reports take {delay:?}"));
                }
            }
            world.terminate_ike(A, "gw");
            world.run_for(Duration::from_secs(10));
            world.check_nothing_left();
        }
    }
}

/// Comparing costs next to nothing where there is nothing, and ends with what there was.
#[test]
fn nothing_to_compare() {
    let mut world = World::pair(1);
    world.check_regularly(A, EVERY);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.gateway(A).backend.lists(), 0);
    world.establish();
    world.run_for(Duration::from_secs(60));
    let lists = world.gateway(A).backend.lists();
    assert!((58..=62).contains(&lists), "{lists} in a minute");
    world.strict(false);
    world.terminate_ike(A, "gw");
    world.run_for(Duration::from_secs(5));
    let lists = world.gateway(A).backend.lists();
    world.run_for(Duration::from_secs(60));
    assert!(world.gateway(A).backend.lists() <= lists + 1);
}

/// A device that bounces again and again: what comes up and goes at once is not made again ever faster.
#[test]
fn a_link_that_flaps() {
    let mut world = kept_up();
    let sent = world.sent(A);
    for _ in 0..120 {
        down(&mut world, A);
        world.run_for(Duration::from_millis(250));
        up(&mut world, A);
        world.run_for(Duration::from_millis(250));
    }
    let asked = world.sent(A) - sent;
    assert!(asked < 400, "{asked} messages in a minute");
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_eq!(ModeInUse::SOFTWARE, world.gateway(A).live_children(world.now())[0].offload);
}
