//! Several children, several connections to one peer, and peers of unknown address.

use std::time::Duration;

use ike_model::{Command, HostSpec, Identity, Selector};
use scenarios::{A, B, C, World, config};

fn with_children(count: u8) -> World {
    let mut world = World::with_shards(1, &[2, 3]);
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = config::connection("gw", who, other);
        connection.children = (0..count).map(|n| config::child(&format!("net{n}"), who, other, n).into()).collect();
        world.configure(who, connection);
    }
    world
}

#[test]
fn several_children_share_an_ike_sa() {
    let mut world = with_children(5);
    let tickets: Vec<_> = (0..5).map(|n| world.initiate(A, "gw", &format!("net{n}"))).collect();
    world.run_for(Duration::from_secs(2));
    assert!(tickets.into_iter().all(|ticket| world.reply(A, ticket).is_some_and(|done| done.is_ok())));
    world.check_tunnels(A, B, 5);
    // IKE_SA_INIT, IKE_AUTH with the first child, CREATE_CHILD_SA for each other one.
    assert_eq!((world.sent(A), world.sent(B)), (6, 6));
    assert_eq!((world.gateway(A).counts().ike_sas, world.gateway(B).counts().ike_sas), (1, 1));
    world.strict(true);
    world.traffic_every = Some(Duration::from_millis(10));
    world.rekey_ike(B, "gw");
    world.run_for(Duration::from_secs(2));
    for n in 0..5 {
        world.rekey_child(if n % 2 == 0 { A } else { B }, &format!("net{n}"));
    }
    world.run_for(Duration::from_secs(60));
    world.check_tunnels(A, B, 5);
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    world.terminate_child(B, "net3");
    world.run_for(Duration::from_secs(1));
    world.check_tunnels(A, B, 4);
}

/// Both ends ask for the same child at once: two CHILD SAs, of which neither end may take back the one that the other has asked for. Each is rekeyed
/// for itself and is never doubled; traffic takes one, and the other one when that goes.
#[test]
fn both_ends_make_the_same_child_at_once() {
    let mut world = World::with_shards(1, &[2, 3]);
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = config::connection("gw", who, other);
        let mut second = config::child("net1", who, other, 1);
        second.lifetime = config::time_limits(100, 160);
        connection.children.push(second.into());
        world.configure(who, connection);
    }
    world.establish();
    // The responder of a new CHILD SA uses it half a round trip before its initiator can.
    world.strict(false);
    let tickets = [A, B].map(|who| (who, world.initiate(who, "gw", "net1")));
    world.run_for(Duration::from_secs(1));
    for (who, ticket) in tickets {
        assert!(matches!(world.reply(who, ticket), Some(Ok(_))), "{who}: {:?}", world.reply(who, ticket));
    }
    check_twins(&world, 2);
    world.strict(true);
    world.traffic_every = Some(Duration::from_millis(50));
    world.run_for(Duration::from_secs(1_050));
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(30));
    check_twins(&world, 2);
    for who in [A, B] {
        let live = world.gateway(who).live_children(world.now());
        let generations: Vec<_> = live.iter().filter(|child| &*child.name == "net1").map(|c| c.generation).collect();
        assert_eq!(generations, [10, 10], "{who}");
        assert_eq!(world.gateway(who).count("child-sa.closed"), 0);
    }
    for left in [1, 0] {
        let twin = world.gateway(B).live_children(world.now()).into_iter().find(|child| &*child.name == "net1");
        let selector = Selector { child_id: twin.map(|child| child.unique_id), ..Selector::default() };
        world.command(B, Command::Terminate { selector, force: false });
        world.run_for(Duration::from_secs(1));
        check_twins(&world, left);
    }
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}

/// Besides `net` there are so many CHILD SAs of `net1`, the same at both ends, and what each end sends on the other receives.
fn check_twins(world: &World, count: usize) {
    let twins = world.tunnels(A, B).into_iter().filter(|tunnel| tunnel.0 == "net1").count();
    let live = [A, B].map(|who| world.gateway(who).live_children(world.now()).len());
    assert_eq!((twins, live), (count, [1 + count; 2]));
    world.check_sas();
}

/// Two connections between the same two gateways, told apart by their identities.
#[test]
fn two_connections_to_one_peer() {
    let mut world = World::with_shards(1, &[3, 3]);
    for (who, other) in [(A, B), (B, A)] {
        for (number, name) in [(0, "one"), (1, "two")] {
            let mut connection = config::connection(name, who, other);
            connection.children = vec![config::child(&format!("net-{name}"), who, other, number).into()];
            let id = |who| Identity::Fqdn(format!("{name}.{}", if who == A { "a.example" } else { "b.example" }));
            (connection.local[0].id, connection.remote[0].id) = (id(who), id(other));
            world.configure(who, connection);
        }
        let shared = ike_model::SharedSecret { owners: Vec::new(), ..config::secret(A, B) };
        world.gateway_mut(who).config.secrets = vec![shared.into()];
    }
    for (connection, child) in [("one", "net-one"), ("two", "net-two")] {
        let ticket = world.initiate(A, connection, child);
        world.run_for(Duration::from_secs(1));
        assert!(world.reply(A, ticket).unwrap().is_ok(), "{connection}");
    }
    world.check_tunnels(A, B, 2);
    assert_eq!((world.gateway(A).counts().ike_sas, world.gateway(B).counts().ike_sas), (2, 2));
    let mut names: Vec<_> =
        world.gateway(B).ike_sas(world.now()).iter().map(|ike| ike.connection.to_string()).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    world.strict(false);
    world.terminate_ike(B, "one");
    world.run_for(Duration::from_secs(1));
    world.check_tunnels(A, B, 1);
}

/// The responder knows neither address nor identity of its peers, only the key.
#[test]
fn peers_of_unknown_address() {
    let mut world = World::with_shards(1, &[2, 1, 1]);
    let mut any = config::connection("any", A, B);
    any.remote_addrs = vec![HostSpec::Any];
    any.remote[0].id = Identity::Any;
    let all = ipsec::TrafficSelector::all(ipsec::AddressRange::prefix([10, 0, 0, 0].into(), 8).unwrap());
    any = config::with_child(any, |child| child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(all)]);
    world.configure(A, any);
    for who in [B, C] {
        world.configure(who, config::connection("gw", who, A));
        let ticket = world.initiate(who, "gw", "net");
        world.run_for(Duration::from_secs(1));
        assert!(world.reply(who, ticket).unwrap().is_ok());
    }
    assert_eq!((world.tunnels(A, B).len(), world.tunnels(A, C).len()), (1, 1));
    world.check_sas();
    assert_eq!(world.gateway(A).counts().ike_sas, 2);
    // To a peer without an address nothing can be initiated.
    let ticket = world.initiate(A, "any", "net");
    assert!(world.run_until(Duration::from_secs(1), |world| world.reply(A, ticket).is_some()));
}

/// The peer has started again and says so: the old IKE SA goes without a word.
#[test]
fn a_restarted_peer_replaces_its_old_self() {
    let mut world = World::with_shards(1, &[1, 3]);
    world.configure(A, config::connection("gw", A, B));
    world.configure(B, config::connection("gw", B, A));
    world.establish();
    world.strict(false);
    world.restart(A);
    world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(B).counts().ike_sas, 1);
    assert_eq!((world.gateway(B).count("ike-sa.closed"), world.gateway(B).count("child-sa.closed")), (1, 1));
}

/// What an end is doing is listed under its name while it lasts, and nothing afterwards.
#[test]
fn what_is_under_way_is_listed() {
    let mut with_other = config::connection("gw", A, B);
    with_other.children.push(config::child("other", A, B, 1).into());
    let mut answering = config::connection("gw", B, A);
    answering.children.push(config::child("other", B, A, 1).into());
    let mut world = World::pair_of(1, with_other, answering);
    world.establish();
    // A child that is new has no older SA to be sent on until both ends have it.
    world.strict(false);
    let mut during = |name: &str, act: fn(&mut World)| {
        act(&mut world);
        let active = world.gateway(A).ike_sas(world.now())[0].tasks_active.clone();
        assert_eq!(active, [name]);
        world.run_for(Duration::from_secs(10));
        let left: Vec<_> = world.gateway(A).ike_sas(world.now()).iter().map(|ike| ike.tasks_active.len()).collect();
        assert!(left.iter().all(|tasks| *tasks == 0), "{name}: {left:?}");
    };
    during("CHILD_CREATE", |world| {
        world.initiate(A, "gw", "other");
    });
    during("CHILD_REKEY", |world| {
        world.rekey_child(A, "net");
    });
    during("IKE_REKEY", |world| {
        world.rekey_ike(A, "gw");
    });
    during("CHILD_DELETE", |world| {
        world.terminate_child(A, "net");
    });
    during("IKE_DELETE", |world| {
        world.terminate_ike(A, "gw");
    });
}
