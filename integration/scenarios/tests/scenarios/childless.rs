//! IKE SAs without a first CHILD SA (RFC 6023): who begins so, who refuses what, and what both ends are told.

use std::time::Duration;

use ike_model::{CauseKind, Childless, Command, CommandError, Connection, Identity};
use scenarios::{A, B, Ticket, Who, World, config};

use Childless::{Allow, Force, Never, Prefer};

fn with(who: Who, other: Who, childless: Childless) -> Connection {
    let mut connection = config::connection("gw", who, other);
    connection.childless = childless;
    connection
}

fn alone(world: &mut World) -> Ticket {
    world.command(A, Command::Initiate { connection: "gw".into(), child: None })
}

/// What comes of one attempt at a child: messages sent by A until it is up, or the words of the refusal, where they are told, and messages.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Up(usize),
    Refused(Who, &'static str, usize),
}

use Outcome::{Refused, Up};

//= RFC 6023 §3: the responder announces it, the initiator makes use of it, and children follow in CREATE_CHILD_SA
#[test]
fn every_pair_of_policies() {
    let announced = "does not announce";
    let unwanted = "asks for a first CHILD SA in IKE_AUTH, and childless = force";
    let cases = [
        (Allow, Allow, Up(2)),
        (Allow, Prefer, Up(2)),
        (Allow, Never, Up(2)),
        (Allow, Force, Refused(B, unwanted, 2)),
        (Prefer, Allow, Up(3)),
        (Prefer, Prefer, Up(3)),
        (Prefer, Never, Up(2)),
        (Prefer, Force, Up(3)),
        (Force, Allow, Up(3)),
        (Force, Prefer, Up(3)),
        (Force, Never, Refused(A, announced, 1)),
        (Force, Force, Up(3)),
        (Never, Allow, Up(2)),
        (Never, Prefer, Up(2)),
        (Never, Never, Up(2)),
        (Never, Force, Refused(B, unwanted, 2)),
    ];
    for shards in [1, 2, 7] {
        for (at_a, at_b, outcome) in cases {
            let mut world = World::with_shards(1, &[shards, shards]);
            world.configure(A, with(A, B, at_a));
            world.configure(B, with(B, A, at_b));
            let ticket = world.initiate(A, "gw", "net");
            world.run_for(Duration::from_secs(60));
            let what = format!("{at_a:?} to {at_b:?}");
            match outcome {
                Up(messages) => {
                    world.check(world.sent(A) == messages, &what);
                    world.check(world.reply(A, ticket).is_some_and(|done| done.is_ok()), &what);
                    world.check_one_tunnel(A, B);
                }
                Refused(who, words, messages) => {
                    world.check(world.sent(A) == messages, &what);
                    let cause = world.gateway(who).last_cause().unwrap();
                    world.check(
                        cause.kind == CauseKind::PeerError && cause.text.contains(words),
                        &format!("{what}: {cause}"),
                    );
                    let failed = matches!(world.reply(A, ticket), Some(Err(CommandError::Failed(_))));
                    world.check(failed, &what);
                    world.check_nothing_left();
                }
            }
        }
    }
}

/// An IKE SA alone, as an operator may ask for it.
#[test]
fn an_ike_sa_alone() {
    for (at_a, at_b, up) in [
        (Allow, Allow, true),
        (Allow, Force, true),
        (Prefer, Prefer, true),
        (Allow, Never, false),
        (Never, Allow, false),
    ] {
        let mut world = World::pair_of(1, with(A, B, at_a), with(B, A, at_b));
        let ticket = alone(&mut world);
        world.run_for(Duration::from_secs(60));
        world.check(world.reply(A, ticket).is_some_and(|done| done.is_ok() == up), &format!("{at_a:?} to {at_b:?}"));
        let counts = world.gateway(A).counts();
        assert_eq!((counts.established, counts.children), (usize::from(up), 0));
        if up {
            // It takes children later, with a key exchange of their own, and keeps none from the peer.
            world.initiate(B, "gw", "net");
            world.run_for(Duration::from_secs(2));
            world.check_one_tunnel(A, B);
        } else {
            world.check_nothing_left();
        }
    }
}

/// It was announced for one connection of that address, and the peer turns out to be another one that does not want it.
#[test]
fn announced_for_another_connection() {
    let mut world = World::pair_of(1, with(A, B, Force), with(B, A, Never));
    let mut open = with(B, A, Allow);
    open.name = "another".into();
    open.remote[0].id = Identity::Fqdn("c.example".into());
    world.configure(B, open);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(60));
    assert!(matches!(world.reply(A, ticket), Some(Err(CommandError::Failed(_)))));
    let cause = world.gateway(B).last_cause().unwrap();
    assert!(cause.text.contains("without a first CHILD SA, and childless = never"), "{cause}");
    assert_eq!(world.sent(A), 2);
    world.check_nothing_left();
}

/// Children in any number follow, over a link that loses much.
#[test]
fn children_follow_over_a_bad_link() {
    for (seed, shards) in (0..24).zip([1, 2, 7].into_iter().cycle()) {
        let mut world = World::with_shards(seed, &[shards, shards]);
        world.link.loss = 250;
        world.link.jitter = Duration::from_millis(30);
        for (who, other) in [(A, B), (B, A)] {
            let mut connection = with(who, other, Force);
            connection.keyingtries = 0;
            connection.children = (0..4).map(|n| config::child(&format!("net{n}"), who, other, n).into()).collect();
            world.configure(who, connection);
        }
        for n in 0..4 {
            world.initiate(A, "gw", &format!("net{n}"));
        }
        world.run_for(Duration::from_secs(400));
        world.check_tunnels(A, B, 4);
        world.check(world.gateway(A).counts().ike_sas == 1, "one IKE SA");
    }
}
