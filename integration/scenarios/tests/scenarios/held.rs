//! The history cannot take down what happens: nothing new begins, what stands goes on.

use std::time::Duration;

use ike_model::{CauseKind, CommandError};
use scenarios::{A, B, World};

const WHILE: Duration = Duration::from_secs(100);

#[test]
fn nothing_is_begun_until_there_is_room() {
    let mut world = World::pair(1);
    world.gateway(A).admission.hold(true);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    let Some(Err(CommandError::Failed(cause))) = world.reply(A, ticket) else { panic!("{:?}", world.reply(A, ticket)) };
    assert_eq!(cause.kind, CauseKind::HistoryFull);
    assert_eq!(world.sent(A), 0);
    let ticket = world.initiate(B, "gw", "net");
    world.run_for(WHILE);
    assert_eq!((world.sent(A), world.gateway(A).counts().half_open), (0, 0), "silence for peers, too");
    world.gateway(A).admission.hold(false);
    assert!(world.run_until(WHILE, |world| world.reply(B, ticket).is_some()));
    world.initiate(B, "gw", "net");
    world.run_for(WHILE);
    world.check_one_tunnel(A, B);
}

#[test]
fn what_stands_is_rekeyed() {
    let mut world = World::pair(1);
    world.establish();
    for gateway in [A, B] {
        world.gateway(gateway).admission.hold(true);
    }
    for who in [A, B] {
        world.rekey_child(who, "net");
        world.run_for(Duration::from_secs(10));
        world.rekey_ike(who, "gw");
        world.run_for(Duration::from_secs(10));
    }
    for who in [A, B] {
        let rekeyed = ["child-sa.rekeyed", "ike-sa.rekeyed"].map(|event| world.gateway(who).count(event));
        assert_eq!(rekeyed, [2, 2]);
    }
    world.check_one_tunnel(A, B);
}
