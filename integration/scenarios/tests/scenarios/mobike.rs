//! MOBIKE (RFC 4555): gateways move to other addresses while their tunnel stands, whatever else is under way.

use std::net::IpAddr;
use std::time::Duration;

use ike_model::{CauseKind, ConfiguredSelector, Connection, HostSpec};
use ike_wire::ids::ExchangeType;
use ipsec::{Spi, TrafficSelector};
use scenarios::config::further_address;
use scenarios::{A, B, Nat, Verdict, Who, World, config};

/// A connection that takes any local address and announces MOBIKE.
fn mobile(local: Who, remote: Who) -> Connection {
    Connection { mobike: true, local_addrs: vec![HostSpec::Any], ..config::connection("gw", local, remote) }
}

fn addresses(who: Who, numbers: &[u8]) -> Vec<IpAddr> {
    numbers.iter().map(|number| further_address(who, *number)).collect()
}

/// Two gateways that can move and have these addresses, with a tunnel.
fn world_of(at_a: Connection, at_b: Connection, a: &[u8], b: &[u8]) -> World {
    let mut world = World::pair_of(1, at_a, at_b);
    world.set_addresses(A, &addresses(A, a));
    world.set_addresses(B, &addresses(B, b));
    world.establish();
    world
}

fn world(a: &[u8], b: &[u8]) -> World {
    world_of(mobile(A, B), mobile(B, A), a, b)
}

/// A moves from its first address to its second one.
fn move_a(world: &mut World) {
    world.set_addresses(A, &addresses(A, &[1]));
}

/// Both ends use exactly this pair of addresses, in IKE and in every SA.
#[track_caller]
fn check_way(world: &World, a: IpAddr, b: IpAddr) {
    for (who, ways) in [(A, (a, b)), (B, (b, a))] {
        for ike in world.gateway(who).ike_sas(world.now()) {
            assert_eq!((ike.local.ip(), ike.remote.ip()), ways, "IKE SA of {who}");
        }
        for sa in world.gateway(who).tables().sas.values() {
            assert_eq!((sa.outer.local, sa.outer.remote), ways, "{:?} SA {} of {who}", sa.direction, sa.spi);
        }
    }
}

fn spis(world: &World) -> Vec<(String, Spi, Spi)> {
    world.tunnels(A, B)
}

/// Runs so long with a packet each way every millisecond, lets the last ones arrive and gives how many were lost.
fn lost_during(world: &mut World, span: Duration, act: impl FnOnce(&mut World)) -> u64 {
    world.traffic_every = Some(Duration::from_millis(1));
    world.run_for(Duration::from_millis(100));
    act(world);
    world.run_for(span);
    world.traffic_every = None;
    world.run_for(Duration::from_secs(1));
    world.traffic.sent - world.traffic.delivered
}

//= RFC 4555 §3.2, §3.3: both ends must say so; whoever could use it moves to port 4500 at once
#[test]
fn mobike_is_agreed_only_by_both() {
    for (a, b, port, moves) in [(true, true, 4500, true), (true, false, 4500, false), (false, true, 500, false)] {
        let with = |connection: Connection, mobike| Connection { mobike, ..connection };
        let mut at_b = with(mobile(B, A), b);
        at_b.remote_addrs = vec![HostSpec::Any];
        let mut world = world_of(with(mobile(A, B), a), at_b, &[0], &[0]);
        for who in [A, B] {
            let ike = &world.gateway(who).ike_sas(world.now())[0];
            assert_eq!((ike.local.port(), ike.remote.port()), (port, port), "{a} {b}");
            assert!(!ike.children[0].encap, "ESP goes in UDP without NAT");
        }
        let before = spis(&world);
        // The two ends of a new IKE SA are up at different moments.
        world.strict(moves);
        move_a(&mut world);
        world.run_for(Duration::from_secs(20));
        world.check_one_tunnel(A, B);
        // Without MOBIKE the initiator begins afresh, with new keys.
        assert_eq!(spis(&world) == before, moves, "{a} {b}");
        check_way(&world, further_address(A, 1), further_address(B, 0));
        assert_eq!(world.gateway(B).count("ike-sa.established"), if moves { 1 } else { 2 });
    }
}

/// Who moves, what was there before and after, what the world looks like then, and how many packets are lost with 10 ms each way.
#[test]
fn whoever_moves_keeps_the_tunnel() {
    struct Case {
        name: &'static str,
        before: [&'static [u8]; 2],
        after: [&'static [u8]; 2],
        way: [u8; 2],
        updates: [usize; 2],
        lost: u64,
    }
    let cases = [
        // B sends to the old address for as long as the update takes.
        Case {
            name: "the initiator moves",
            before: [&[0], &[0]],
            after: [&[1], &[0]],
            way: [1, 0],
            updates: [1, 1],
            lost: 10,
        },
        Case {
            name: "the initiator gains an address",
            before: [&[0], &[0]],
            after: [&[0, 1], &[0]],
            way: [0, 0],
            updates: [0, 0],
            lost: 0,
        },
        Case {
            name: "the initiator loses a spare one",
            before: [&[0, 1], &[0]],
            after: [&[0], &[0]],
            way: [0, 0],
            updates: [0, 0],
            lost: 0,
        },
        Case {
            name: "the initiator loses the one in use",
            before: [&[0, 1], &[0]],
            after: [&[1], &[0]],
            way: [1, 0],
            updates: [1, 1],
            lost: 10,
        },
        // The initiator must be told first, and checks the new address before its packets go there.
        Case {
            name: "the responder moves",
            before: [&[0], &[0]],
            after: [&[0], &[1]],
            way: [0, 1],
            updates: [1, 1],
            lost: 30,
        },
        Case {
            name: "the responder gains an address",
            before: [&[0], &[0]],
            after: [&[0], &[0, 1]],
            way: [0, 0],
            updates: [0, 0],
            lost: 0,
        },
        Case {
            name: "the responder loses the one in use",
            before: [&[0], &[0, 1]],
            after: [&[0], &[1]],
            way: [0, 1],
            updates: [1, 1],
            lost: 30,
        },
    ];
    for case in cases {
        let mut world = world(case.before[0], case.before[1]);
        let before = spis(&world);
        let lost = lost_during(&mut world, Duration::from_secs(20), |world| {
            world.note(case.name);
            for who in [A, B] {
                if case.before[who] != case.after[who] {
                    world.set_addresses(who, &addresses(who, case.after[who]));
                }
            }
        });
        world.check_one_tunnel(A, B);
        assert_eq!(spis(&world), before, "{}: keys changed", case.name);
        check_way(&world, further_address(A, case.way[0]), further_address(B, case.way[1]));
        let updates = [A, B].map(|who| world.gateway(who).count("ike-sa.updated"));
        assert_eq!(updates, case.updates, "{}", case.name);
        assert!(lost.abs_diff(case.lost) <= 1, "{}: {lost} packets lost, expected are {}", case.name, case.lost);
    }
}

//= RFC 4555 §3.5: outstanding requests go on between the new addresses, and UPDATE_SA_ADDRESSES follows when the window allows
#[test]
fn moving_meets_whatever_is_under_way() {
    type Act = fn(&mut World);
    let acts: [(&str, Act); 8] = [
        ("nothing", |_| {}),
        ("the initiator rekeys the child", |world| {
            world.rekey_child(A, "net");
        }),
        ("the responder rekeys the child", |world| {
            world.rekey_child(B, "net");
        }),
        ("both rekey the child", |world| {
            world.rekey_child(A, "net");
            world.rekey_child(B, "net");
        }),
        ("the initiator rekeys the IKE SA", |world| {
            world.rekey_ike(A, "gw");
        }),
        ("the responder rekeys the IKE SA", |world| {
            world.rekey_ike(B, "gw");
        }),
        ("both rekey the IKE SA", |world| {
            world.rekey_ike(A, "gw");
            world.rekey_ike(B, "gw");
        }),
        ("soft limits of both", |world| {
            world.soft_expire(A);
            world.soft_expire(B);
        }),
    ];
    // When the move comes, counted from the act: before the request arrives, just after, before the answer arrives, during the deletes.
    for (name, act) in acts {
        for delay in [0, 5, 12, 19, 22, 35, 45] {
            for (mover, numbers) in [(A, [1, 0]), (B, [0, 1])] {
                let mut world = world(&[0], &[0]);
                world.note(format!("{name}, {mover} moves after {delay} ms"));
                act(&mut world);
                world.run_for(Duration::from_millis(delay));
                world.set_addresses(mover, &addresses(mover, &[1]));
                world.run_for(Duration::from_secs(120));
                world.check_one_tunnel(A, B);
                check_way(&world, further_address(A, numbers[0]), further_address(B, numbers[1]));
                for who in [A, B] {
                    assert_eq!(world.gateway(who).counts().ike_sas, 1, "{name}, {mover} after {delay} ms");
                    assert_eq!(world.gateway(who).count("child-sa.closed"), 0, "{name}, {mover} after {delay} ms");
                }
            }
        }
    }
}

/// Messages of the update are lost or come twice.
#[test]
fn an_update_survives_loss_and_repetition() {
    for lost in 0..6 {
        let mut world = world(&[0], &[0]);
        let first = world.sent(A) + world.sent(B);
        let mut count = 0;
        world.link.rule(move |_| {
            count += 1;
            if count == lost + 1 { Verdict::Drop } else { Verdict::Pass }
        });
        move_a(&mut world);
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        check_way(&world, further_address(A, 1), further_address(B, 0));
        assert!(world.sent(A) + world.sent(B) > first);
    }
    let mut world = world(&[0], &[0]);
    world.link.duplicates = 1_000;
    move_a(&mut world);
    world.run_for(Duration::from_secs(60));
    check_way(&world, further_address(A, 1), further_address(B, 0));
    assert_eq!(world.gateway(B).count("ike-sa.updated"), 1);
}

//= RFC 4555 §3.5: if a new address change occurs while waiting for the response, it starts again and the response is ignored
#[test]
fn only_the_newest_way_counts() {
    for between in [0, 5, 10, 15, 20, 25] {
        let mut world = world(&[0], &[0]);
        for number in [1, 2, 3, 1, 2] {
            world.set_addresses(A, &addresses(A, &[number]));
            world.run_for(Duration::from_millis(between));
        }
        world.run_for(Duration::from_secs(30));
        world.check_one_tunnel(A, B);
        check_way(&world, further_address(A, 2), further_address(B, 0));
    }
}

/// Both move at the same moment: nothing of the one reaches the other, until each tries what the other has announced before.
#[test]
fn both_move_at_once() {
    // Each knows the other's second address from IKE_AUTH.
    let mut world = world(&[0, 1], &[0, 1]);
    let before = spis(&world);
    world.set_addresses(A, &addresses(A, &[1]));
    world.set_addresses(B, &addresses(B, &[1]));
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    check_way(&world, further_address(A, 1), further_address(B, 1));
    assert_eq!(spis(&world), before);
}

//= RFC 4555 §3.10, §3.11: before a peer counts as dead the initiator tries all pairs of addresses
//= RFC 4555 §3.4: by the additional addresses that the ends have told
#[test]
fn a_dead_way_is_left_for_one_that_works() {
    let pairs: Vec<(u8, u8)> = (0..2).flat_map(|a| (0..2).map(move |b| (a, b))).collect();
    for alive in &pairs[1..] {
        let mut asking = mobile(A, B);
        asking.dpd_delay = Duration::from_secs(10);
        let mut world = world_of(asking, mobile(B, A), &[0, 1], &[0, 1]);
        let before = spis(&world);
        for (a, b) in pairs.iter().filter(|pair| *pair != alive) {
            world.link.kill(further_address(A, *a), further_address(B, *b));
        }
        // Silence of 10 s, two repetitions after 4 and 11.2 s, then the others are tried.
        world.run_for(Duration::from_secs(25));
        world.check_one_tunnel(A, B);
        check_way(&world, further_address(A, alive.0), further_address(B, alive.1));
        assert_eq!((spis(&world), world.gateway(A).count("peer.unreachable")), (before, 0), "{alive:?}");
    }
}

/// A peer that tells of every address it has: one inside of what we send through the tunnel is no other end of it.
#[test]
fn an_address_behind_the_peer_is_no_way_to_it() {
    for (protected, remote) in [(true, 0), (false, 1)] {
        let mut asking = mobile(A, B);
        asking.dpd_delay = Duration::from_secs(10);
        let asking = config::with_child(asking, |child| {
            if protected {
                let behind = TrafficSelector::prefix(further_address(B, 1), 24).unwrap();
                child.remote_ts.push(ConfiguredSelector::Fixed(behind));
            }
        });
        let mut world = world_of(asking, mobile(B, A), &[0], &[0, 1]);
        world.strict(false);
        world.link.kill(further_address(A, 0), further_address(B, 0));
        world.run_for(Duration::from_secs(60));
        let used = world.gateway(A).ike_sas(world.now())[0].remote.ip();
        assert_eq!(used, further_address(B, remote), "protected: {protected}");
    }
}

//= RFC 4555 §3.12: dead is a peer that answers on no way
#[test]
fn a_peer_dead_on_all_ways_is_found_after_the_same_time() {
    let mut asking = mobile(A, B);
    asking.dpd_delay = Duration::from_secs(30);
    let mut world = world_of(asking, mobile(B, A), &[0, 1], &[0, 1]);
    world.strict(false);
    world.link.partition(A, B);
    assert!(world.run_until(Duration::from_secs(600), |world| world.gateway(A).counts().ike_sas == 0));
    let elapsed = world.elapsed().as_secs();
    assert!((30 + 165..=30 + 166).contains(&elapsed), "{elapsed}");
    assert_eq!(world.gateway(A).last_cause().unwrap().kind, CauseKind::PeerUnreachable);
}

//= RFC 4555 §3.5: UNACCEPTABLE_ADDRESSES: other addresses are tried, or those before are kept, or the IKE SA ends
//= RFC 4555 §4.1: UNACCEPTABLE_ADDRESSES
#[test]
fn an_unacceptable_address_is_not_used() {
    // B takes its peer only from 192.0.2.0/24 and 100.64.0.0/10, which 198.51.100.1 is not in.
    let networks = |specs: &[(&str, u8)]| {
        let range = |(start, bits): &(&str, u8)| ipsec::AddressRange::prefix(start.parse().unwrap(), *bits).unwrap();
        specs.iter().map(|spec| HostSpec::Range(range(spec))).collect::<Vec<_>>()
    };
    let mut picky = mobile(B, A);
    picky.remote_addrs = networks(&[("192.0.2.0", 24), ("100.64.0.0", 10)]);
    // Another address takes its place.
    let mut world = world_of(mobile(A, B), picky.clone(), &[0, 1, 2], &[0]);
    world.set_addresses(A, &addresses(A, &[1, 2]));
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    check_way(&world, further_address(A, 2), further_address(B, 0));
    // The old one is still there, only its route was away for a moment.
    let mut world = world_of(mobile(A, B), picky.clone(), &[0, 1], &[0]);
    world.gateway_mut(A).unroutable.insert((further_address(A, 0), further_address(B, 0)));
    world.network_changed(A);
    world.run_for(Duration::from_secs(10));
    check_way(&world, further_address(A, 0), further_address(B, 0));
    // There is none.
    let mut world = world_of(mobile(A, B), picky, &[0], &[0]);
    world.strict(false);
    move_a(&mut world);
    world.run_for(Duration::from_secs(10));
    world.check_nothing_left();
    assert_eq!(world.gateway(A).last_cause().unwrap().kind, CauseKind::PeerError);
}

//= RFC 4555 §3.5, §3.8: NAT traversal is enabled and disabled with the move
#[test]
fn nat_appears_and_disappears() {
    let mut world = world(&[0], &[0]);
    let mut nat = Nat::new([203, 0, 113, 1].into(), 40_000);
    nat.only = Some(further_address(A, 1));
    world.behind_nat(A, nat);
    let lost = lost_during(&mut world, Duration::from_secs(10), move_a);
    let forms = |world: &World| {
        let encap = |who: Who| world.gateway(who).children(world.now())[0].encap;
        let ike = |who: Who| world.gateway(who).ike_sas(world.now())[0].clone();
        (encap(A), encap(B), ike(A).nat_local, ike(B).nat_remote)
    };
    assert_eq!(forms(&world), (true, true, true, true));
    // A's native packets do not pass the translator before A knows of it, 20 ms later; B's go to the old address for 10 ms.
    assert!(lost.abs_diff(30) <= 2, "{lost}");
    world.run_for(Duration::from_secs(60));
    let keepalives = world.gateway(A).keepalives;
    assert!((3..=4).contains(&keepalives), "{keepalives}");
    // Away from the translator again.
    world.set_addresses(A, &addresses(A, &[0]));
    world.run_for(Duration::from_secs(60));
    assert_eq!(forms(&world), (false, false, false, false));
    assert_eq!(world.gateway(A).keepalives, keepalives);
    world.check_one_tunnel(A, B);
    check_way(&world, further_address(A, 0), further_address(B, 0));
}

//= RFC 4555 §3.8: an initiator behind NAT sees by its liveness checks that the mapping has changed, and updates
#[test]
fn a_changed_mapping_is_seen_by_liveness() {
    let mut asking = mobile(A, B);
    asking.dpd_delay = Duration::from_secs(10);
    let mut any = mobile(B, A);
    any.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(1, asking, any);
    world.set_addresses(A, &addresses(A, &[0]));
    world.set_addresses(B, &addresses(B, &[0]));
    world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    world.establish();
    // The first check only learns the mapping of port 4500, which costs one update.
    world.run_for(Duration::from_secs(15));
    let before = world.gateway(B).ike_sas(world.now())[0].remote;
    world.gateway_mut(A).nat.as_mut().unwrap().rebind();
    world.run_for(Duration::from_secs(15));
    let after = world.gateway(B).ike_sas(world.now())[0].remote;
    assert!(before.ip() == after.ip() && before.port() != after.port(), "{before} {after}");
    let tables = world.gateway(B).tables();
    assert!(tables.sas.values().all(|sa| sa.encapsulation.is_some_and(|udp| udp.remote_port == after.port())));
    world.check_one_tunnel(A, B);
}

/// With MOBIKE the responder does not follow ESP by itself: it lets the initiator see its new mapping, which then updates.
#[test]
fn a_changed_mapping_is_shown_to_the_initiator() {
    let mut any = mobile(B, A);
    any.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(1, mobile(A, B), any);
    world.set_addresses(A, &addresses(A, &[0]));
    world.set_addresses(B, &addresses(B, &[0]));
    world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    world.establish();
    let lost = lost_during(&mut world, Duration::from_secs(5), |world| {
        world.gateway_mut(A).nat.as_mut().unwrap().rebind();
    });
    world.check_one_tunnel(A, B);
    let tables = world.gateway(B).tables();
    let port = world.gateway(B).ike_sas(world.now())[0].remote.port();
    assert!(tables.sas.values().all(|sa| sa.encapsulation.is_some_and(|udp| udp.remote_port == port)));
    // B to A only: A's packet 10 ms, B's question and A's update 10 ms each, and what was on its way.
    assert!(lost <= 45, "{lost}");
}

/// A backend that cannot move an SA in place gets it rekeyed, never installed again with a sequence that starts over.
#[test]
fn what_cannot_be_moved_is_rekeyed() {
    for stuck in [vec![A], vec![B], vec![A, B]] {
        let mut world = World::pair_of(1, mobile(A, B), mobile(B, A));
        for who in &stuck {
            world.gateway_mut(*who).backend.forbid_moves();
        }
        world.set_addresses(A, &addresses(A, &[0]));
        world.set_addresses(B, &addresses(B, &[0]));
        world.establish();
        let before = spis(&world);
        move_a(&mut world);
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        check_way(&world, further_address(A, 1), further_address(B, 0));
        assert_ne!(spis(&world), before);
        for who in stuck {
            let moved = world.gateway(who).backend.log().iter().filter(|line| line.starts_with("update SA")).count();
            assert_eq!((moved, world.gateway(who).count("child-sa.closed")), (0, 0));
        }
    }
}

/// The peer that keeps its address answers where it is asked, on whichever way (RFC 7296 §2.11).
#[test]
fn a_repeated_request_is_answered_where_it_comes_from() {
    let mut world = world(&[0], &[0]);
    // A's request is answered, the answer is lost, and A has moved when it asks again.
    world.rekey_child(A, "net");
    let mut answers = 0;
    world.link.rule(move |sending| {
        answers += usize::from(sending.is_response(ExchangeType::CREATE_CHILD_SA));
        if answers == 1 && sending.is_response(ExchangeType::CREATE_CHILD_SA) { Verdict::Drop } else { Verdict::Pass }
    });
    world.run_for(Duration::from_millis(15));
    move_a(&mut world);
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    check_way(&world, further_address(A, 1), further_address(B, 0));
}

/// IPv4 to IPv6 and back.
#[test]
fn the_family_can_change() {
    let v6 = |who: Who| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, who as u16 + 1]);
    let mut world = World::pair_of(1, mobile(A, B), mobile(B, A));
    for who in [A, B] {
        world.set_addresses(who, &[config::address(who), v6(who)]);
    }
    world.establish();
    let before = spis(&world);
    world.set_addresses(A, &[v6(A)]);
    world.run_for(Duration::from_secs(10));
    check_way(&world, v6(A), v6(B));
    world.set_addresses(A, &[config::address(A)]);
    world.run_for(Duration::from_secs(10));
    check_way(&world, config::address(A), config::address(B));
    assert_eq!(spis(&world), before);
}
