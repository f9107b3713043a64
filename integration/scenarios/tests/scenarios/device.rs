//! The device loses what it held, in rest and in the middle of a rekeying: fresh keys, nothing stale (X12).

use std::time::Duration;

use ipsec::{DeviceId, Event, OffloadBackend, Op, Request, Shard, Tag};
use scenarios::{A, B, Who, World};

/// The device of a gateway comes back with empty tables.
fn flush(world: &mut World, who: Who) {
    let flush = Request::Apply(vec![Op::Flush]);
    world.gateway(who).backend.submit(Tag::new(Shard(0), 1 << 50), flush);
    world.backend_event(who, Event::DeviceDown(DeviceId(0)));
    world.backend_event(who, Event::DeviceUp(DeviceId(0)));
}

#[test]
fn everything_is_made_again() {
    let mut world = World::pair(1);
    world.establish();
    world.strict(false);
    let before = world.tunnels(A, B);
    flush(&mut world, A);
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    assert_eq!(world.gateway(A).count("offload.state-lost"), 1);
    assert_eq!(world.gateway(A).counts().ike_sas, 1, "the IKE SA does not live in the device");
}

#[test]
fn in_the_middle_of_a_rekeying() {
    for rekeyer in [A, B] {
        for after in [0, 5, 10, 15, 20, 25, 30, 40] {
            for delay in [None, Some(Duration::from_millis(8))] {
                let mut world = World::pair(1);
                world.establish();
                world.strict(false);
                world.gateway_mut(A).report_delay = delay;
                world.rekey_child(rekeyer, "net");
                world.run_for(Duration::from_millis(after));
                flush(&mut world, A);
                world.run_for(Duration::from_secs(120));
                world.note(format!("rekeyed by {rekeyer}, flushed after {after} ms, reports take {delay:?}"));
                world.check_one_tunnel(A, B);
            }
        }
    }
}

/// One SA is gone from the device.
#[test]
fn one_sa_is_lost() {
    for who in [A, B] {
        let mut world = World::pair(1);
        world.establish();
        world.strict(false);
        let sa = world.gateway(who).children(world.now())[0].sa_in.unwrap();
        world.gateway(who).backend.submit(Tag::new(Shard(0), 1 << 50), Request::Apply(vec![Op::RemoveSa(sa)]));
        world.backend_event(who, Event::StateLost { sa });
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        assert_eq!(world.gateway(who).count("offload.state-lost"), 1);
    }
}
