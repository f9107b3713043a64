//! Marks and interface ids on their way to the device: policies, SAs, traps, rekeys, lists.

use std::time::Duration;

use ike_model::{Connection, InterfaceIds, MarkConfig, TagConfig, TagValue};
use ipsec::{Direction, Mark, Tags};
use scenarios::{A, B, World, config};

fn mark(value: TagValue) -> Option<MarkConfig> {
    Some(MarkConfig { value, mask: 0xffff })
}

fn tagged(tags: TagConfig) -> Connection {
    config::with_child(config::connection("gw", A, B), |child| child.tags = tags)
}

/// Tags of what A has installed: of SAs and of policies, by direction.
fn installed(world: &World, direction: Direction) -> (Vec<Tags>, Vec<Tags>) {
    world.gateway(A).with_tables(|tables| {
        let sas = tables.sas.values().filter(|sa| sa.direction == direction).map(|sa| sa.tags);
        let policies =
            tables.policies.values().filter(|policy| policy.direction == direction).map(|policy| policy.tags);
        (sas.collect(), policies.collect())
    })
}

#[test]
fn each_where_it_belongs() {
    for mark_in_sa in [false, true] {
        let config = TagConfig {
            mark_in: mark(TagValue::Fixed(1)),
            mark_out: mark(TagValue::Fixed(2)),
            mark_in_sa,
            set_mark_in: mark(TagValue::Same),
            set_mark_out: mark(TagValue::Fixed(4)),
            interface: InterfaceIds { inbound: TagValue::Fixed(5), outbound: TagValue::Fixed(6) },
        };
        let mut world = World::pair_of(1, tagged(config), config::connection("gw", B, A));
        world.establish();
        let at = |value| Some(Mark::new(value, 0xffff));
        for direction in [Direction::Inbound, Direction::Forward] {
            let policy = Tags { mark: at(1), set_mark: None, if_id: 5 };
            assert_eq!(installed(&world, direction).1, [policy]);
        }
        let inbound = Tags { mark: at(1).filter(|_| mark_in_sa), set_mark: at(1), if_id: 5 };
        assert_eq!(installed(&world, Direction::Inbound).0, [inbound]);
        let (sas, policies) = installed(&world, Direction::Outbound);
        assert_eq!(sas, [Tags { mark: at(2), set_mark: at(4), if_id: 6 }]);
        assert_eq!(policies, [Tags { mark: at(2), set_mark: None, if_id: 6 }]);
        let shown = world.gateway(A).children(world.now())[0].tags;
        assert_eq!((shown.mark_in, shown.mark_out, shown.if_id_in, shown.if_id_out), (at(1), at(2), 5, 6));
    }
}

/// `%unique` is drawn once for a CHILD SA, stays over rekeys, and is that of the trap which asked for it.
#[test]
fn drawn_once() {
    let config = TagConfig {
        mark_in: mark(TagValue::Unique),
        mark_out: mark(TagValue::Unique),
        interface: InterfaceIds { inbound: TagValue::UniqueByDirection, outbound: TagValue::UniqueByDirection },
        ..TagConfig::default()
    };
    let trapped = config::with_child(tagged(config), |child| child.start_action = config::TRAP);
    let mut world = World::with_shards(1, &[3, 1]);
    world.configure(A, trapped);
    world.configure(B, config::connection("gw", B, A));
    let trap = installed(&world, Direction::Outbound).1[0];
    assert!(trap.mark.is_some() && trap.if_id != 0);
    let packet = ipsec::PacketSelectors {
        source: config::host(A, 0),
        destination: config::host(B, 0),
        protocol: 6,
        ports: Some((40_000, 80)),
    };
    assert!(world.acquire(A, packet));
    world.run_for(Duration::from_secs(2));
    world.check_one_tunnel(A, B);
    let (sas, policies) = installed(&world, Direction::Outbound);
    assert!(policies.iter().all(|policy| *policy == trap) && sas == [trap], "{sas:?} {policies:?}");
    let inbound = installed(&world, Direction::Inbound).1[0];
    assert_eq!(inbound.mark, trap.mark, "one mark for both directions");
    assert_ne!(inbound.if_id, trap.if_id, "an interface id for each direction");
    world.rekey_child(A, "net");
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(60));
    assert_eq!(installed(&world, Direction::Outbound).0, [trap]);
}

/// Interface ids of the connection serve children that have none; each IKE SA draws its own.
#[test]
fn of_the_connection() {
    let mut connection = config::connection("gw", A, B);
    connection.interface = InterfaceIds { inbound: TagValue::Unique, outbound: TagValue::Unique };
    let mut world = World::pair_of(1, connection, config::connection("gw", B, A));
    world.establish();
    let ike = &world.gateway(A).ike_sas(world.now())[0];
    assert!(ike.if_id_in != 0 && ike.if_id_in == ike.if_id_out);
    assert_eq!(installed(&world, Direction::Outbound).0[0].if_id, ike.if_id_in);
    assert_eq!(installed(&world, Direction::Inbound).0[0].if_id, ike.if_id_in);
    assert!(world.gateway(B).with_tables(|tables| tables.sas.values().all(|sa| sa.tags.is_none())));
}
