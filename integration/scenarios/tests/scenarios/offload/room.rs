//! Table space: what all children together hold of a rung is known before anything is negotiated, and rekeying always finds room.

use super::*;

/// A device whose packet offload holds so many SAs and policies.
fn small(sas: u32, policies: u32) -> Device {
    let packet = Capabilities { sa_table: Some(sas), policy_table: Some(policies), ..packet() };
    device("eth0", [(Packet, packet), (No, able())])
}

/// Connections `gw0`, `gw1` ... of one child `net0`, `net1` ... each, with so many shards at A.
fn several(device: Device, wanted: OffloadMode, shards: u8, count: u8) -> World {
    let mut world = World::with_shards(1, &[shards, 1]);
    world.gateway_mut(A).use_device(device);
    for (who, other) in [(A, B), (B, A)] {
        for number in 0..count {
            let mut connection = config::connection(&format!("gw{number}"), who, other);
            let mut child = config::child(&format!("net{number}"), who, other, number);
            child.hw_offload = if who == A { wanted } else { No };
            connection.children = vec![child.into()];
            world.configure(who, connection);
        }
    }
    world
}

fn ask(world: &mut World, initiator: Who, number: u8) -> Result<(), String> {
    let ticket = world.initiate(initiator, &format!("gw{number}"), &format!("net{number}"));
    world.run_for(Duration::from_secs(5));
    match world.reply(initiator, ticket) {
        Some(Ok(_)) => Ok(()),
        Some(Err(CommandError::Failed(cause))) => Err(cause.text),
        other => world.fail(&format!("{other:?}")),
    }
}

fn modes(world: &World) -> Vec<OffloadMode> {
    let mut children = world.gateway(A).live_children(world.now());
    children.sort_by(|one, other| one.name.cmp(&other.name));
    children.into_iter().map(|child| child.offload.mode).collect()
}

/// Six SAs: two children and one rekey at a time. The third child finds no room, whichever shard it belongs to.
#[test]
fn a_further_child_leaves_room_for_rekeying() {
    let text = "device eth0 with packet offload is full: of 6 SAs 6 are in use or kept for rekeying and 2 more are needed: set \
                `hw_offload = auto` or use fewer children";
    for shards in [1, 2, 7] {
        for initiator in [A, B] {
            let mut alone = several(small(6, 100), Packet, shards, 3);
            assert_eq!((ask(&mut alone, initiator, 0), ask(&mut alone, initiator, 1)), (Ok(()), Ok(())));
            let told = ask(&mut alone, initiator, 2).unwrap_err();
            assert!(told.contains(if initiator == A { text } else { "NO_ADDITIONAL_SAS" }), "{told}");
            if initiator == A {
                assert_eq!(alone.sent(A), 4, "of the third one nothing was said");
            }

            let mut auto = several(small(6, 100), Auto, shards, 3);
            (0..3).for_each(|number| assert_eq!(ask(&mut auto, initiator, number), Ok(())));
            assert_eq!(modes(&auto), [Packet, Packet, No]);
            assert_eq!(degraded(&auto), [(No, text.to_owned())]);
            auto.traffic_every = Some(Duration::from_millis(50));
            for round in 0..4 {
                for number in 0..3 {
                    auto.rekey_child(if round % 2 == 0 { A } else { B }, &format!("net{number}"));
                    auto.run_for(Duration::from_secs(15));
                }
                auto.check_tunnels(A, B, 3);
                assert_eq!(modes(&auto), [Packet, Packet, No]);
            }
            assert_eq!(degraded(&auto).len(), 1, "told once");
            assert_eq!((auto.traffic.lost, auto.traffic.blocked), (0, 0));
            // Room is made: the next generation takes it.
            auto.terminate_child(A, "net0");
            auto.run_for(Duration::from_secs(10));
            auto.rekey_child(B, "net2");
            auto.run_for(Duration::from_secs(15));
            assert_eq!(modes(&auto), [Packet, Packet]);
            assert_eq!((auto.traffic.lost, auto.traffic.blocked), (0, 0));
        }
    }
}

/// Policies are counted like SAs: two of a child are in the device, the forward one is a matter of software.
#[test]
fn policies_are_counted_too() {
    let mut world = several(small(100, 3), Packet, 1, 2);
    assert_eq!(ask(&mut world, A, 0), Ok(()));
    let text = "device eth0 with packet offload is full: of 3 policies 2 are in use and 2 more are needed: set `hw_offload = auto` or \
                use fewer selectors";
    assert_eq!(ask(&mut world, A, 1), Err(text.into()));
    // A rekey takes over those of its predecessor.
    world.rekey_child(A, "net0");
    world.run_for(Duration::from_secs(15));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(A).count("child-sa.rekeyed"), 1);
    world.terminate_child(A, "net0");
    world.run_for(Duration::from_secs(10));
    assert_eq!(ask(&mut world, A, 1), Ok(()));
}

/// A device without any room for a successor: the old CHILD SA goes on, and both ends are told why it is not rekeyed.
#[test]
fn no_room_for_a_successor() {
    for initiator in [A, B] {
        let mut world = several(small(4, 100), Packet, 1, 1);
        assert_eq!(ask(&mut world, A, 0), Ok(()));
        world.gateway_mut(A).backend.change_device(|device| device.rungs[0].capabilities.sa_table = Some(3));
        let (before, sent) = (world.tunnels(A, B), world.sent(initiator));
        world.traffic_every = Some(Duration::from_millis(50));
        world.rekey_child(initiator, "net0");
        world.run_for(Duration::from_secs(3));
        world.check_one_tunnel(A, B);
        assert_eq!(world.tunnels(A, B), before);
        assert_eq!(world.gateway(initiator).count("child-sa.rekey-failed"), 1);
        let text = "device eth0 with packet offload is full: of 3 SAs 2 are in use or kept for rekeying and 2 more are needed: set \
                    `hw_offload = auto` or use fewer children";
        assert_eq!(world.gateway(A).last_cause().unwrap().text, text);
        assert_eq!(world.sent(initiator) - sent, usize::from(initiator == B), "the refusal is local at A");
        world.gateway_mut(A).backend.change_device(|device| device.rungs[0].capabilities.sa_table = Some(4));
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        assert_ne!(world.tunnels(A, B), before);
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    }
}

/// Both ends rekey at once with room for one pair only: one of the two comes to nothing, and no packet is lost.
#[test]
fn a_collision_without_room_for_a_third_pair() {
    let mut world = several(small(4, 100), Packet, 1, 1);
    assert_eq!(ask(&mut world, A, 0), Ok(()));
    world.traffic_every = Some(Duration::from_millis(20));
    let before = world.tunnels(A, B);
    world.rekey_child(A, "net0");
    world.rekey_child(B, "net0");
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
    assert_eq!(world.gateway(A).tables().sas.len(), 2);
}

/// Whatever ends, and however it ends, gives back what it held.
#[test]
fn what_ends_gives_its_room_back() {
    let mut world = several(small(4, 2), Packet, 2, 1);
    for round in 0..6 {
        assert_eq!(ask(&mut world, if round % 2 == 0 { A } else { B }, 0), Ok(()), "round {round}");
        world.rekey_child(A, "net0");
        world.run_for(Duration::from_secs(15));
        world.rekey_ike(B, "gw0");
        world.run_for(Duration::from_secs(15));
        match round % 3 {
            0 => world.terminate_child(A, "net0"),
            1 => world.terminate_ike(B, "gw0"),
            _ => world.terminate_child(B, "net0"),
        };
        world.run_for(Duration::from_secs(15));
        assert!(world.gateway(A).tables().sas.is_empty());
    }
}
