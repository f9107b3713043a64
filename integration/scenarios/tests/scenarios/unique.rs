//! One IKE SA for a pair of identities: INITIAL_CONTACT, `unique`, both ends at once, peers that forget (RFC 7296 §2.4).

use std::time::Duration;

use ike_model::{CauseKind, Connection, Unique};
use ike_wire::ids::ExchangeType;
use scenarios::{A, B, C, Verdict, Who, World, config};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn with(who: Who, other: Who, unique: Unique) -> Connection {
    let mut connection = config::connection("gw", who, other);
    connection.unique = unique;
    connection
}

fn starting(connection: Connection) -> Connection {
    config::with_child(connection, |child| child.start_action = config::START)
}

/// So many CHILD SAs of the same child, the same at both ends; traffic takes one of them.
fn check_same(world: &World, count: usize) {
    for who in [A, B] {
        world.check(world.gateway(who).live_children(world.now()).len() == count, &format!("{count} CHILD SAs"));
    }
    world.check(world.tunnels(A, B).len() == count, "the same at both ends");
    world.check_sas();
}

/// X10: both ends start in the same instant, over links that lose and reorder. With `replace` and `keep` one IKE SA with one child stays, the
/// same at both ends; with `no` one or two.
#[test]
fn both_ends_at_once() {
    for unique in [Unique::Replace, Unique::Keep, Unique::No] {
        for seed in 0..45 {
            let shards = [1, 2, 7][usize::try_from(seed % 3).unwrap()];
            let mut world = World::with_shards(seed, &[shards, 8 - shards]);
            world.link.jitter = MS(seed % 9);
            world.link.loss = u32::try_from(seed % 4 * 60).unwrap();
            if seed % 2 == 0 {
                world.gateway_mut(A).work_delay = Some(MS(seed % 7));
            }
            world.configure(A, starting(with(A, B, unique)));
            world.run_for(MS(seed % 5));
            world.configure(B, starting(with(B, A, unique)));
            world.run_for(S(200));
            world.link.loss = 0;
            world.run_for(S(60));
            let count = world.gateway(A).live_children(world.now()).len();
            let allowed = if unique == Unique::No { 1..=2 } else { 1..=1 };
            world.check(allowed.contains(&count), &format!("{unique:?}: {count} CHILD SAs"));
            check_same(&world, count);
            let ike_sas = [A, B].map(|who| world.gateway(who).counts().ike_sas);
            world.check(ike_sas == [count, count], &format!("{unique:?}: {ike_sas:?} IKE SAs"));
            world.traffic_every = Some(MS(20));
            world.run_for(S(3));
            world.check((world.traffic.lost, world.traffic.blocked) == (0, 0), "traffic flows");
            world.traffic_every = Some(S(1));
            world.run_for(S(60));
            check_same(&world, count);
        }
    }
}

/// Each end starts another child at once: what remains carries both, and nothing is lost while the other one goes.
#[test]
fn both_ends_at_once_with_different_children() {
    for unique in [Unique::Replace, Unique::Keep] {
        for seed in 0..30 {
            let mut world = World::with_shards(seed, &[1, 1]);
            world.link.jitter = MS(seed % 6);
            for (who, other) in [(A, B), (B, A)] {
                let mut connection = with(who, other, unique);
                connection.children = (0..2)
                    .map(|n| {
                        let mut child = config::child(&format!("net{n}"), who, other, u8::try_from(n).unwrap());
                        if n == who {
                            child.start_action = config::START;
                        }
                        child.into()
                    })
                    .collect();
                world.configure(who, connection);
            }
            world.traffic_every = Some(MS(5));
            world.run_for(S(60));
            world.check_tunnels(A, B, 2);
            let ike_sas = [A, B].map(|who| world.gateway(who).counts().ike_sas);
            world.check(ike_sas == [1, 1], &format!("{unique:?}: {ike_sas:?} IKE SAs"));
            // A packet may overtake the answer that tells the other end of a new CHILD SA; the change-over loses none.
            let traffic = world.traffic;
            world.check(traffic.lost <= 4 && traffic.blocked == 0, &format!("{traffic:?}"));
        }
    }
}

/// A peer crashes and starts again: its INITIAL_CONTACT ends what it has forgotten, and traffic flows from the moment the new one is up.
//= RFC 7296 §2.4: INITIAL_CONTACT lets the other end close what the sender has forgotten
#[test]
fn a_crashed_peer() {
    for unique in [Unique::No, Unique::Keep, Unique::Replace] {
        for shards in [1, 2, 7] {
            let mut world = World::with_shards(1, &[shards, shards]);
            world.configure(A, with(A, B, unique));
            world.configure(B, with(B, A, unique));
            world.establish();
            world.strict(false);
            world.restart(A);
            world.initiate(A, "gw", "net");
            world.run_for(MS(200));
            world.check_one_tunnel(A, B);
            let told = world.gateway(B).events.iter().any(|(_, body)| {
                matches!(body, ike_model::EventBody::IkeSaClosed { cause, .. } if cause.kind == CauseKind::Replaced)
            });
            world.check(told && world.gateway(B).counts().ike_sas == 1, "the old one is gone");
            world.traffic_every = Some(MS(5));
            world.run_for(S(20));
            world.check((world.traffic.lost, world.traffic.blocked) == (0, 0), "traffic flows");
        }
    }
}

/// The crashed peer says nothing of it (`unique = never`): the old one makes way all the same with `replace` and `keep`, later.
#[test]
fn a_crashed_peer_that_is_silent_about_it() {
    for unique in [Unique::Keep, Unique::Replace] {
        let mut world = World::pair_of(1, with(A, B, Unique::Never), with(B, A, unique));
        world.establish();
        world.strict(false);
        world.restart(A);
        world.initiate(A, "gw", "net");
        world.run_for(S(2));
        assert_eq!(world.gateway(B).counts().ike_sas, 2);
        world.traffic_every = Some(MS(5));
        // The DELETE of the old one finds nobody and is given up.
        world.run_for(S(200));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(B).counts().ike_sas, 1);
        world.check((world.traffic.lost, world.traffic.blocked) == (0, 0), "traffic takes the new one");
    }
}

/// `keep` refuses a second peer of the same identity from another address; `replace` lets the new one in and closes the old one.
#[test]
fn the_same_identity_from_elsewhere() {
    for unique in [Unique::Keep, Unique::Replace, Unique::No] {
        for shards in [1, 2, 7] {
            let mut world = World::with_shards(1, &[1, shards, 1]);
            let mut open = with(B, A, unique);
            open.remote_addrs = vec![ike_model::HostSpec::Any];
            world.configure(B, open);
            world.configure(A, with(A, B, unique));
            let mut twin = with(C, B, Unique::Never);
            twin.local[0].id = config::identity(A);
            let lan = vec![ike_model::ConfiguredSelector::Fixed(config::lan(A, 0))];
            world.configure(C, config::with_child(twin, |child| child.local_ts = lan));
            world.gateway_mut(C).config.secrets = vec![config::secret(A, B).into()];
            world.initiate(A, "gw", "net");
            world.run_for(S(1));
            let ticket = world.initiate(C, "gw", "net");
            world.run_for(S(60));
            let up = |who: Who| world.gateway(who).live_children(world.now()).len();
            let refused = world.reply(C, ticket).unwrap().is_err();
            // Told once, by the end that makes it so.
            let told = [A, B, C].map(|who| world.gateway(who).count("ike-sa.duplicate"));
            assert_eq!(told, [0, usize::from(unique == Unique::Replace), 0], "{unique:?}");
            match unique {
                Unique::Keep => {
                    assert!(refused);
                    assert_eq!((up(A), up(C)), (1, 0));
                    let cause = world.gateway(B).last_cause().unwrap();
                    assert!(cause.text.contains("from 192.0.2.1 already and unique = keep"), "{cause}");
                }
                Unique::Replace => assert_eq!((refused, up(A), up(C)), (false, 0, 1)),
                Unique::No => assert_eq!((refused, up(A), up(C)), (false, 1, 1)),
                Unique::Never => {}
            }
        }
    }
}

/// INITIAL_CONTACT that arrives late does not end what came up after the peer had begun to make this one.
#[test]
fn a_late_initial_contact_harms_nothing() {
    let mut world = World::pair_of(1, with(A, B, Unique::No), with(B, A, Unique::No));
    // A's IKE_AUTH is held until B's own IKE SA is up.
    world.link.rule(|sending| {
        let held =
            sending.from == A && sending.header.exchange == ExchangeType::IKE_AUTH && sending.header.flags.initiator;
        if held && !sending.header.flags.response && sending.n < 3 { Verdict::Hold } else { Verdict::Pass }
    });
    world.initiate(A, "gw", "net");
    world.run_for(MS(30));
    world.initiate(B, "gw", "net");
    world.run_for(MS(500));
    world.check(world.gateway(B).counts().established == 1, "B's own is up");
    world.link.clear_rules();
    world.run_for(S(30));
    world.check(world.gateway(B).count("ike-sa.closed") == 0, "and stays");
    check_same(&world, 2);
}

/// Three connections with the same identities to one peer, all starting at once: none ends another, whatever the shards and the losses.
#[test]
fn three_connections_with_the_same_identities() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        for seed in 0..18 {
            let shards = [1, 2, 7][usize::try_from(seed % 3).unwrap()];
            let mut world = World::with_shards(seed, &[shards, shards]);
            world.link.jitter = MS(seed % 20);
            world.link.loss = u32::try_from(seed % 4 * 80).unwrap();
            for (who, other) in [(B, A), (A, B)] {
                for n in 0..3 {
                    let mut connection = with(who, other, unique);
                    connection.name = format!("gw{n}");
                    connection.children = vec![config::child(&format!("net{n}"), who, other, n).into()];
                    world.configure(who, if who == A { starting(connection) } else { connection });
                }
            }
            world.run_for(S(300));
            world.check_tunnels(A, B, 3);
            for who in [A, B] {
                world.check(world.gateway(who).counts().ike_sas == 3, "three IKE SAs");
                world.check(world.gateway(who).count("ike-sa.closed") == 0, "none was ended by another");
            }
        }
    }
}

/// An attempt to a peer that cannot be called does not keep that peer from calling.
#[test]
fn one_way_only() {
    for unique in [Unique::Keep, Unique::Replace] {
        let mut patient = starting(with(A, B, unique));
        patient.keyingtries = 0;
        let mut world = World::with_shards(1, &[1, 1]);
        world.link.rule(|sending| {
            let first = sending.header.exchange == ExchangeType::IKE_SA_INIT && !sending.header.flags.response;
            if first && sending.from == A { Verdict::Drop } else { Verdict::Pass }
        });
        // What it starts by itself is dropped from the first message on.
        world.configure(A, patient);
        world.configure(B, with(B, A, unique));
        world.run_for(S(20));
        assert_eq!(world.gateway(B).counts().ike_sas, 0);
        let ticket = world.initiate(B, "gw", "net");
        world.run_for(S(1));
        assert!(world.reply(B, ticket).unwrap().is_ok());
        world.check_one_tunnel(A, B);
        world.run_for(S(400));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(A).counts().ike_sas, 1, "its own attempt has ended");
    }
}
