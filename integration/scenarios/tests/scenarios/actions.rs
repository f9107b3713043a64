//! `start_action`, `close_action`, `dpd_action`: what each does when, and what it leaves alone; shunts beside tunnels.

use std::time::Duration;

use ike_model::{Actions, ChildMode, Command, Connection};
use ipsec::{Direction, PacketSelectors, PolicyAction};
use scenarios::{A, B, Who, World, config};

const S: fn(u64) -> Duration = Duration::from_secs;
const BOTH: Actions = Actions { trap: true, start: true };

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer closes the CHILD SA.
    PeerClosesChild,
    /// The peer closes the IKE SA.
    PeerClosesAll,
    /// The peer is away for ten minutes.
    PeerDies,
    /// Our operator closes it.
    Operator,
}

fn traps(world: &World, who: Who) -> usize {
    let trap = |policy: &&ipsec::PolicySpec| matches!(policy.action, PolicyAction::Trap { .. });
    world.gateway(who).with_tables(|tables| tables.policies.values().filter(trap).count())
}

fn bring(world: &mut World, end: End) {
    match end {
        End::PeerClosesChild => drop(world.terminate_child(B, "net")),
        End::PeerClosesAll => drop(world.terminate_ike(B, "gw")),
        End::PeerDies => {
            world.link.partition(A, B);
            world.run_for(S(600));
            world.link.mend();
        }
        End::Operator => drop(world.terminate_ike(A, "gw")),
    }
}

/// Every action against every end: whether it is up again, and whether a trap is there.
#[test]
fn every_action_and_every_end() {
    use End::{Operator, PeerClosesAll, PeerClosesChild, PeerDies};
    let (none, trap, start) = (Actions::NONE, config::TRAP, config::START);
    // Start, close and DPD action; how it ends; up again, trapped.
    let cases = [
        (none, none, none, PeerClosesChild, false, false),
        (none, start, none, PeerClosesChild, true, false),
        (none, trap, none, PeerClosesChild, false, true),
        (none, BOTH, none, PeerClosesChild, true, true),
        (none, start, none, PeerClosesAll, true, false),
        (none, trap, none, PeerClosesAll, false, true),
        // What is started comes back unless something else is said about this end.
        (start, none, none, PeerClosesAll, true, false),
        (start, none, none, PeerDies, true, false),
        (start, trap, none, PeerClosesChild, false, true),
        (start, none, trap, PeerDies, false, true),
        (none, start, none, PeerDies, false, false),
        (none, none, start, PeerDies, true, false),
        (none, none, trap, PeerDies, false, true),
        (none, none, BOTH, PeerDies, true, true),
        (trap, none, none, PeerClosesChild, false, true),
        (BOTH, none, none, PeerClosesChild, true, true),
        (BOTH, start, start, PeerClosesAll, true, true),
        (BOTH, start, start, Operator, false, true),
        (start, start, start, Operator, false, false),
        (none, BOTH, BOTH, Operator, false, false),
    ];
    for shards in [1, 2, 7] {
        for (start_action, close_action, dpd_action, end, up, trapped) in cases {
            let mut watching = config::with_child(config::connection("gw", A, B), |child| {
                (child.start_action, child.close_action, child.dpd_action) = (start_action, close_action, dpd_action);
            });
            watching.dpd_delay = S(10);
            let mut other = config::connection("gw", B, A);
            other.dpd_delay = S(10);
            let mut world = World::with_shards(1, &[shards, shards]);
            world.configure(B, other);
            world.configure(A, watching);
            if !start_action.start {
                world.initiate(A, "gw", "net");
            }
            world.run_for(S(2));
            world.check_one_tunnel(A, B);
            bring(&mut world, end);
            world.run_for(S(400));
            let what = format!("{start_action:?} {close_action:?} {dpd_action:?} {end:?} {shards}");
            world.check(world.gateway(A).live_children(world.now()).len() == usize::from(up), &what);
            world.check(traps(&world, A) == usize::from(trapped), &format!("{what}: traps"));
            world.check_tunnels(A, B, usize::from(up));
        }
    }
}

/// The peer's daemon is started again, in good order and not: a tunnel that is to be up comes back by itself.
#[test]
fn the_peer_starts_again() {
    for orderly in [true, false] {
        let mut watching = config::with_child(config::connection("gw", A, B), |child| {
            (child.start_action, child.close_action, child.dpd_action) = (BOTH, config::START, config::START);
        });
        watching.dpd_delay = S(10);
        let mut world = World::pair_of(1, watching, config::connection("gw", B, A));
        world.run_for(S(30));
        world.check_one_tunnel(A, B);
        if orderly {
            world.command(B, Command::Shutdown);
            world.run_for(S(1));
        }
        world.restart(B);
        world.run_for(S(600));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(A).counts().ike_sas, 1);
    }
}

/// A trap beside an SA that is up: traffic takes the SA and asks for nothing; when the SA goes the trap is what it meets.
#[test]
fn a_trap_behind_an_sa() {
    let both = config::with_child(config::connection("gw", A, B), |child| child.start_action = BOTH);
    let mut world = World::pair_of(1, both, config::connection("gw", B, A));
    world.run_for(S(1));
    world.check_one_tunnel(A, B);
    let priorities = |world: &World| {
        world.gateway(A).with_tables(|tables| {
            let of = |trap: bool| {
                let mut found = tables.policies.values().filter(move |policy| {
                    policy.direction == Direction::Outbound
                        && matches!(policy.action, PolicyAction::Trap { .. }) == trap
                });
                found.next().map(|policy| policy.priority)
            };
            (of(false), of(true))
        })
    };
    let (protect, trap) = priorities(&world);
    assert!(protect < trap, "{protect:?} is looked at before {trap:?}");
    // A packet that met the trap before the SA was there asks late: nothing more is made.
    let packet = PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 6,
        ports: Some((40_000, 80)),
    };
    let sent = world.sent(A);
    assert!(world.acquire(A, packet));
    world.run_for(S(5));
    assert_eq!(world.sent(A), sent);
    world.check_one_tunnel(A, B);
    world.terminate_child(A, "net");
    world.run_for(S(1));
    world.check_tunnels(A, B, 0);
    assert!(world.acquire(A, packet));
    world.run_for(S(1));
    world.check_one_tunnel(A, B);
}

fn with_shunts(modes: &[(&str, ChildMode, u8)]) -> Connection {
    let mut connection = config::connection("gw", A, B);
    for (name, mode, net) in modes {
        let mut child = config::child(name, A, B, *net);
        (child.mode, child.start_action) = (*mode, config::TRAP);
        connection.children.push(child.into());
    }
    connection
}

/// What shunts are listed, by name, and what they do to packets.
fn shunts(world: &World) -> Vec<(String, ChildMode)> {
    let listed = world.gateway(A).policies();
    let shunt = |policy: &ike_model::snapshot::PolicySnapshot| matches!(policy.mode, ChildMode::Pass | ChildMode::Drop);
    let mut all: Vec<_> = listed.iter().filter(|p| shunt(p)).map(|p| (p.child.to_string(), p.mode)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Pass and drop shunts stand before every tunnel, in all directions, and come and go with the configuration, not with the tunnels.
#[test]
fn shunts_beside_a_tunnel() {
    for shards in [1, 2, 7] {
        let mut world = World::with_shards(1, &[shards, 1]);
        world.configure(B, config::connection("gw", B, A));
        world.configure(A, with_shunts(&[("clear", ChildMode::Pass, 7), ("none", ChildMode::Drop, 8)]));
        world.initiate(A, "gw", "net");
        world.run_for(S(1));
        world.check_one_tunnel(A, B);
        let both = vec![("clear".to_owned(), ChildMode::Pass), ("none".to_owned(), ChildMode::Drop)];
        assert_eq!(shunts(&world), both);
        world.gateway(A).with_tables(|tables| {
            let is_shunt =
                |policy: &&ipsec::PolicySpec| matches!(policy.action, PolicyAction::Bypass | PolicyAction::Discard);
            let (shunts, others): (Vec<_>, Vec<_>) = tables.policies.values().partition(is_shunt);
            assert_eq!(shunts.len(), 6, "inbound, forward and outbound of each");
            let worst = shunts.iter().map(|policy| policy.priority).max();
            let best = others.iter().map(|policy| policy.priority).min();
            assert!(worst < best, "{worst:?} before {best:?}");
        });
        world.terminate_ike(A, "gw");
        world.run_for(S(1));
        assert_eq!(shunts(&world), both, "they stay when tunnels go");
        // One is taken out of the configuration, the other becomes its opposite.
        world.configure(A, with_shunts(&[("none", ChildMode::Pass, 8)]));
        world.run_for(S(1));
        assert_eq!(shunts(&world), [("none".to_owned(), ChildMode::Pass)]);
        world.gateway(A).with_tables(|tables| {
            assert_eq!(tables.policies.values().filter(|policy| policy.action == PolicyAction::Discard).count(), 0);
            assert_eq!(tables.policies.values().filter(|policy| policy.action == PolicyAction::Bypass).count(), 3);
        });
        world.gateway_mut(A).config.connections.clear();
        world.reload(A, &[], &["gw"]);
        world.run_for(S(1));
        assert_eq!(world.gateway(A).tables().policies.len(), 0);
    }
}
