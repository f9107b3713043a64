//! Traps over a life: storms of packets, attempts that fail, ends after which traffic asks again. Packets come to the data path here, which
//! holds them and has one acquire outstanding for each trap, as backends do.

use std::collections::BTreeSet;
use std::time::Duration;

use ike_model::snapshot::ConfiguredState;
use ike_model::{CauseKind, Command, ConfiguredSelector, Connection, HostSpec};
use ike_wire::ids::ExchangeType;
use ipsec::{AddressRange, PacketSelectors, TrafficSelector};
use scenarios::journal::Sent;
use scenarios::world::orders::Met;
use scenarios::{A, B, World, config};

const TICK: Duration = Duration::from_millis(100);
const ASKED: Met = Met::Trap { asked: true };
const HELD: Met = Met::Trap { asked: false };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn trapped_with(at_a: impl FnOnce(Connection) -> Connection, at_b: impl FnOnce(Connection) -> Connection) -> World {
    let trap = config::with_child(config::connection("gw", A, B), |child| child.start_action = config::TRAP);
    let mut world = World::with_shards(1, &[3, 2]);
    world.keep_journal();
    world.configure(A, at_a(trap));
    world.configure(B, at_b(config::connection("gw", B, A)));
    world
}

fn trapped() -> World {
    trapped_with(|connection| connection, |connection| connection)
}

fn flow(port: u16) -> PacketSelectors {
    PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 17,
        ports: Some((port, 53)),
    }
}

/// A packet every 100 ms. Gives how many raised an acquire.
fn traffic(world: &mut World, time: Duration) -> usize {
    let mut asked = 0;
    let end = world.now() + time;
    while world.now() < end {
        asked += usize::from(world.packet(A, flow(1)) == ASKED);
        world.run_for(TICK);
    }
    asked
}

fn acquires(world: &World) -> usize {
    world.gateway(A).count("policy.acquire")
}

fn state(world: &World) -> ConfiguredState {
    world.gateway(A).configured(world.now())[0].state.clone()
}

fn last_cause(world: &World) -> CauseKind {
    world.gateway(A).configured(world.now())[0].last_cause.clone().expect("a cause").1.kind
}

/// So many IKE SAs were begun by A, as the wire shows it: repetitions count once.
fn attempts(world: &World) -> usize {
    let first =
        |sent: &&Sent| sent.from == A && sent.header.exchange == ExchangeType::IKE_SA_INIT && !sent.is_response();
    let spis: BTreeSet<u64> = world.datagrams().iter().filter(first).map(|sent| sent.header.initiator_spi.0).collect();
    spis.len()
}

//= RFC 7296 §2.9: one negotiation, whatever else comes while it goes on
#[test]
fn ten_thousand_packets_of_a_thousand_flows_make_one_negotiation() {
    let mut world = trapped();
    let mut met = [0; 3];
    for number in 0..10_000_u16 {
        match world.packet(A, flow(1_000 + number % 1_000)) {
            ASKED => met[0] += 1,
            HELD => met[1] += 1,
            Met::Sa | Met::Nothing => met[2] += 1,
        }
    }
    assert_eq!(met, [1, 9_999, 0]);
    world.run_for(secs(5));
    world.check_one_tunnel(A, B);
    assert_eq!((acquires(&world), world.sent(A), world.sent(B)), (1, 2, 2));
    assert!((0..1_000).all(|number| world.packet(A, flow(1_000 + number)) == Met::Sa));
}

/// Traps of one connection that are hit together share its IKE SA: the first child comes with it, the others one after another.
#[test]
fn several_traps_of_a_connection_make_one_ike_sa() {
    const CHILDREN: u8 = 5;
    let of = |local, remote, start_action| {
        let mut connection = config::connection("gw", local, remote);
        connection.children = (0..CHILDREN)
            .map(|number| {
                let mut child = config::child(&format!("net{number}"), local, remote, number);
                child.start_action = start_action;
                child.into()
            })
            .collect();
        connection
    };
    let mut world = trapped_with(|_| of(A, B, config::TRAP), |_| of(B, A, ike_model::Actions::NONE));
    for _ in 0..20 {
        for number in 0..CHILDREN {
            let (source, destination) = (config::host(A, number), config::host(B, number));
            world.packet(A, PacketSelectors { source, destination, protocol: 1, ports: Some((0x800, 0x800)) });
        }
    }
    world.run_for(secs(5));
    world.check_tunnels(A, B, CHILDREN.into());
    assert_eq!((acquires(&world), attempts(&world)), (CHILDREN.into(), 1));
    // IKE_SA_INIT and IKE_AUTH, then one CREATE_CHILD_SA for each further child.
    assert_eq!((world.sent(A), world.sent(B)), (2 + 4, 2 + 4));
}

/// Whatever ends the child, the next packet asks for it, although the acquire that brought it up has not aged.
#[test]
fn traffic_asks_again_after_every_end() {
    type End = fn(&mut World);
    let cases: [(&str, End, Duration); 6] = [
        ("closed by an operator", |world| _ = world.terminate_child(A, "net"), secs(1)),
        ("with its IKE SA", |world| _ = world.terminate_ike(A, "gw"), secs(1)),
        // It did not last: a wait of a second comes first.
        ("closed by the peer", |world| _ = world.terminate_child(B, "net"), secs(2)),
        ("IKE SA closed by the peer", |world| _ = world.terminate_ike(B, "gw"), secs(2)),
        ("hard limit", |world| world.hard_expire(A), secs(3)),
        ("not used", |world| world.run_for(secs(12)), secs(1)),
    ];
    for (name, end, limit) in cases {
        let idle = name == "not used";
        let inactive = |connection| {
            config::with_child(connection, |child| child.inactivity = if idle { secs(5) } else { Duration::ZERO })
        };
        let mut world = trapped_with(inactive, |connection| connection);
        assert_eq!(world.packet(A, flow(1)), ASKED, "{name}");
        world.run_for(secs(1));
        world.check_one_tunnel(A, B);
        end(&mut world);
        world.run_for(TICK);
        traffic(&mut world, limit);
        assert_eq!(world.packet(A, flow(1)), Met::Sa, "{name}: not within {limit:?}");
        world.check_one_tunnel(A, B);
    }
}

/// A peer that is away: traffic for half an hour makes few attempts, and between them is told when the next one comes and why.
#[test]
fn attempts_at_a_peer_that_is_away_slow_down() {
    let mut world = trapped();
    world.link.partition(A, B);
    let mut waits = Vec::new();
    for _ in 0..18_000 {
        world.packet(A, flow(1));
        world.run_for(TICK);
        if let ConfiguredState::RetryIn(seconds) = state(&world) {
            assert_eq!(last_cause(&world), CauseKind::PeerUnreachable);
            waits.push(seconds);
        }
    }
    assert!(waits.iter().any(|wait| *wait >= 7) && waits.iter().all(|wait| *wait <= 10), "{:?}", waits.iter().max());
    // Each takes 165 s to be given up.
    let attempts = attempts(&world);
    assert!((10..=11).contains(&attempts), "{attempts}");
    assert_eq!(acquires(&world), attempts);
    world.link.mend();
    traffic(&mut world, secs(80));
    world.check_one_tunnel(A, B);
    assert_eq!((state(&world), world.packet(A, flow(1))), (ConfiguredState::Up, Met::Sa));
}

fn until_it_waits(world: &mut World, failures: u32) {
    let failed = |world: &World| world.gateway(A).configured(world.now())[0].failures;
    for _ in 0..40_000 {
        world.packet(A, flow(1));
        world.run_for(TICK);
        if failed(world) >= failures && matches!(state(world), ConfiguredState::RetryIn(seconds) if seconds > 3) {
            return;
        }
    }
    panic!("never waits: {:?}", state(world));
}

/// While traffic has to wait nothing is asked of the peer. The peer comes and makes an IKE SA itself: the wait is over.
#[test]
fn a_peer_that_is_back_ends_the_wait() {
    let mut world = trapped();
    world.link.partition(A, B);
    until_it_waits(&mut world, 4);
    world.link.mend();
    let sent = world.sent(A);
    world.acquire(A, flow(2));
    assert_eq!((world.sent(A), acquires(&world)), (sent, 4), "it waits");
    world.command(B, Command::Initiate { connection: "gw".into(), child: None });
    world.run_for(TICK);
    assert_eq!(world.packet(A, flow(1)), ASKED);
    world.run_for(secs(1));
    world.check_one_tunnel(A, B);
}

#[test]
fn an_operator_ends_the_wait() {
    let mut world = trapped();
    world.link.partition(A, B);
    until_it_waits(&mut world, 4);
    world.link.mend();
    let ticket = world.initiate(A, "gw", "net");
    assert_eq!(state(&world), ConfiguredState::Connecting);
    world.run_for(secs(1));
    assert!(world.reply(A, ticket).unwrap().is_ok());
    assert_eq!(world.packet(A, flow(1)), Met::Sa);
    // What failed before is forgotten: the end of it is answered at once.
    world.run_for(secs(20));
    world.terminate_child(B, "net");
    world.run_for(TICK);
    assert_eq!(world.packet(A, flow(1)), ASKED);
}

/// A peer that takes the child and closes it at once is not asked ten times a second.
#[test]
fn a_child_that_never_lasts_is_asked_for_ever_more_slowly() {
    let mut world = trapped();
    let mut ups = 0;
    for _ in 0..600 {
        world.packet(A, flow(1));
        world.run_for(TICK);
        if !world.gateway(B).live_children(world.now()).is_empty() {
            ups += 1;
            world.terminate_child(B, "net");
        }
    }
    // After 1, 2, 4, 8, then every 10 s, less a quarter at most.
    assert!((7..=11).contains(&ups), "{ups}");
}

/// An acquire for a child that is up came too late. The trap is touched, nobody is asked anything.
#[test]
fn a_stale_acquire_is_answered_by_touching_the_trap() {
    let narrow = |connection| {
        config::with_child(connection, |child| {
            let half = TrafficSelector::all(AddressRange::prefix([10, 2, 0, 0].into(), 25).unwrap());
            child.local_ts = vec![ConfiguredSelector::Fixed(half)];
        })
    };
    let mut world = trapped_with(|connection| connection, narrow);
    assert_eq!(world.packet(A, flow(1)), ASKED);
    world.run_for(secs(1));
    world.check_one_tunnel(A, B);
    let touched = |world: &World| world.gateway(A).with_tables(|tables| tables.touched.values().sum::<u64>());
    let (before, sent) = (touched(&world), world.sent(A));
    for _ in 0..3 {
        assert!(world.acquire(A, flow(2)));
        world.run_for(TICK);
    }
    assert_eq!((touched(&world), acquires(&world)), (before + 3, 1));
    // What the child does not cover would ask again as soon as the trap is touched.
    let outside = PacketSelectors { destination: [10, 2, 0, 200].into(), ..flow(3) };
    let before = touched(&world);
    for since in ["touched", "aged"] {
        assert_eq!(world.packet(A, outside), ASKED, "{since}");
        world.run_for(secs(29));
        assert_eq!((touched(&world), acquires(&world), world.packet(A, outside)), (before, 1, HELD));
        world.run_for(secs(2));
    }
    assert_eq!(world.sent(A), sent);
    world.check_one_tunnel(A, B);
}

/// The IKE SA that is to carry the child is being rekeyed, closed, or moved when traffic comes.
#[test]
fn an_acquire_meets_an_ike_sa_that_changes() {
    type Change = fn(&mut World);
    let cases: [(&str, Change); 6] = [
        ("rekeyed by us", |world| _ = world.rekey_ike(A, "gw")),
        ("rekeyed by the peer", |world| _ = world.rekey_ike(B, "gw")),
        ("rekeyed by both", |world| {
            world.rekey_ike(A, "gw");
            world.rekey_ike(B, "gw");
        }),
        ("closed by us", |world| _ = world.terminate_ike(A, "gw")),
        ("closed by the peer", |world| _ = world.terminate_ike(B, "gw")),
        ("moved", |world| world.set_addresses(A, &[config::further_address(A, 1)])),
    ];
    for (name, change) in cases {
        for milliseconds in [0, 10, 25, 45, 70] {
            let mobile = |connection| Connection { mobike: true, local_addrs: vec![HostSpec::Any], ..connection };
            let mut world = trapped_with(mobile, mobile);
            world.command(A, Command::Initiate { connection: "gw".into(), child: None });
            world.run_for(secs(1));
            change(&mut world);
            world.run_for(Duration::from_millis(milliseconds));
            world.packet(A, flow(1));
            traffic(&mut world, secs(20));
            let met = world.packet(A, flow(1));
            world.check(met == Met::Sa, &format!("{name}, {milliseconds} ms later"));
            world.check_one_tunnel(A, B);
        }
    }
}
