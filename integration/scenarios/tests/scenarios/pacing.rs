//! Many tunnels down at once, peers that are away for long, tunnels that come up and go again: attempts are spread, bounded and told.

use std::collections::BTreeMap;
use std::time::Duration;

use ike_model::snapshot::ConfiguredState;
use ike_model::{Actions, Connection, Identity};
use ike_wire::Header;
use ike_wire::ids::ExchangeType;
use scenarios::{A, B, Who, World, config};

const S: fn(u64) -> Duration = Duration::from_secs;

fn starting(connection: Connection) -> Connection {
    config::with_child(connection, |child| child.start_action = config::START)
}

/// First requests of a gateway that were not sent before, by the second in which they were sent.
fn attempts_by_second(world: &World, who: Who) -> BTreeMap<u64, u32> {
    let mut seen = std::collections::BTreeSet::new();
    let mut each = BTreeMap::new();
    for (at, _, octets) in &world.gateway(who).sent {
        let header = Header::parse(octets).unwrap();
        if header.exchange == ExchangeType::IKE_SA_INIT && seen.insert(header.initiator_spi.0) {
            *each.entry(at.since_start().as_secs()).or_default() += 1;
        }
    }
    each
}

/// `count` connections of A to B, each with identities and a child of its own.
fn many(count: u8, shards: u8) -> World {
    let mut world = World::with_shards(1, &[shards, shards]);
    for (who, other) in [(B, A), (A, B)] {
        let settings = &mut world.gateway_mut(who).config.settings;
        // What the peer does about too many at once is not what is looked at here.
        (settings.cookie_threshold_ip, settings.block_threshold, settings.init_rate_ip) = (0, 0, 0);
        settings.attempts_per_second = 5;
        let shared = ike_model::SharedSecret { owners: Vec::new(), ..config::secret(A, B) };
        world.gateway_mut(who).config.secrets = vec![shared.into()];
        for n in 0..count {
            let mut connection = config::connection(&format!("gw{n}"), who, other);
            let id = |who| Identity::Fqdn(format!("{n}.{}.example", if who == A { "a" } else { "b" }));
            (connection.local[0].id, connection.remote[0].id) = (id(who), id(other));
            connection.children = vec![config::child(&format!("net{n}"), who, other, n).into()];
            world.gateway_mut(who).load(if who == A { starting(connection) } else { connection });
        }
    }
    let names: Vec<String> = (0..count).map(|n| format!("gw{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.reload(B, &names, &[]);
    world.reload(A, &names, &[]);
    world
}

/// Two dozen tunnels are started, then all die at once: never more than the rate and its burst in a second, and all come back.
#[test]
fn no_storm() {
    for shards in [1, 2, 7] {
        let mut world = many(24, shards);
        world.run_for(S(20));
        world.check_tunnels(A, B, 24);
        let most = |world: &World| attempts_by_second(world, A).into_values().max().unwrap();
        let bound = u32::from(shards) * (5 + 10);
        world.check(most(&world) <= bound, &format!("{} in a second, {shards} shards", most(&world)));
        if shards == 1 {
            // Ten at once, then one each 200 ms.
            assert_eq!(attempts_by_second(&world, A).into_values().collect::<Vec<_>>(), [14, 5, 5]);
        }
        // B dies and forgets; its packets find nobody. A finds out by asking.
        world.link.partition(A, B);
        for n in 0..24 {
            let mut watching = (*world.gateway(A).config.connections[&format!("gw{n}")]).clone();
            watching.dpd_delay = S(10);
            world.configure(A, config::with_child(watching, |child| child.dpd_action = config::START));
        }
        world.run_for(S(400));
        world.restart(B);
        world.link.mend();
        world.run_for(S(700));
        world.check_tunnels(A, B, 24);
        world.check(most(&world) <= bound, &format!("{} in a second, {shards} shards", most(&world)));
    }
}

/// What is told while it waits: when the next attempt comes, how many have failed, and the last cause with its time.
#[test]
fn the_wait_is_told() {
    let mut world = World::pair_of(1, starting(config::connection("gw", A, B)), config::connection("gw", B, A));
    world.gateway_mut(B).config.secrets.clear();
    world
        .gateway_mut(B)
        .load_secret(ike_model::SharedSecret { secret: ike_model::Secret::new(b"another"), ..config::secret(A, B) });
    let status = |world: &World| world.gateway(A).configured(world.now())[0].clone();
    let mut last = 0;
    for failures in 1..=7 {
        assert!(world.run_until(S(400), |world| status(world).failures == failures));
        let told = status(&world);
        let ConfiguredState::RetryIn(seconds) = told.state else { panic!("{told:?}") };
        // Doubled each time, at most a quarter off, never above five minutes.
        let whole = (1_u64 << failures).min(300);
        assert!((whole * 3 / 4 - 1..=whole).contains(&seconds), "{seconds} after {failures} failures");
        let (time, cause) = told.last_cause.unwrap();
        assert!(time > last && cause.kind == ike_model::CauseKind::AuthenticationFailed, "{cause}");
        last = time;
    }
    // It comes right: nothing of that is left.
    world.gateway_mut(B).config.secrets = vec![config::secret(A, B).into()];
    world.run_for(S(310));
    let told = status(&world);
    assert_eq!((told.state, told.failures), (ConfiguredState::Up, 0));
}

/// A tunnel that comes up and is closed at once by the peer is no success: it is tried ever more slowly.
#[test]
fn up_and_down_at_once() {
    let closing = config::with_child(starting(config::connection("gw", A, B)), |child| {
        child.close_action = config::START;
    });
    let mut world = World::pair_of(1, closing, config::connection("gw", B, A));
    let end = S(1_200);
    while world.elapsed() < end {
        world.run_until(end - world.elapsed(), |world| world.gateway(B).counts().established > 0);
        world.run_for(S(1));
        world.terminate_ike(B, "gw");
        world.run_for(S(1));
    }
    let ups = world.gateway(A).count("ike-sa.established");
    assert!((7..=14).contains(&ups), "{ups} times in twenty minutes");
    // Left alone it stays.
    world.run_for(S(400));
    world.check_one_tunnel(A, B);
    // One that has lasted comes back soon.
    world.terminate_ike(B, "gw");
    world.run_for(S(3));
    world.check_one_tunnel(A, B);
}

/// Traffic does not hammer a peer that refuses: its packets ask again at most every ten seconds.
#[test]
fn traffic_does_not_hammer() {
    let trapped = config::with_child(config::connection("gw", A, B), |child| {
        child.start_action = Actions { trap: true, start: false };
    });
    let mut world = World::pair_of(1, trapped, config::connection("gw", B, A));
    world.gateway_mut(B).config.secrets.clear();
    let packet = ipsec::PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 6,
        ports: Some((40_000, 80)),
    };
    for _ in 0..1_000 {
        world.acquire(A, packet);
        world.run_for(Duration::from_millis(100));
    }
    let attempts: u32 = attempts_by_second(&world, A).into_values().sum();
    assert!((10..=16).contains(&attempts), "{attempts} in 100 s");
}
