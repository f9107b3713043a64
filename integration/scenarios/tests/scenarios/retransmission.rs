//! Loss and duplicates in the handshake: exact counts and times of the documented schedule.

use std::time::Duration;

use ike_model::{CauseKind, CommandError};
use scenarios::{A, B, Who, World};

struct Case {
    name: &'static str,
    drop: fn(Who, usize) -> bool,
    sent: (usize, usize),
    elapsed_ms: u64,
}

//= RFC 7296 §2.1: the initiator repeats, the responder answers again
//= RFC 7296 §2.1: the initiator of an exchange repeats, the responder only answers again
#[test]
fn lost_messages_are_repeated() {
    let cases = [
        Case { name: "clean", drop: |_, _| false, sent: (2, 2), elapsed_ms: 40 },
        Case { name: "first request lost", drop: |who, n| who == A && n < 1, sent: (3, 2), elapsed_ms: 4_040 },
        Case { name: "first response lost", drop: |who, n| who == B && n < 1, sent: (3, 3), elapsed_ms: 4_040 },
        Case { name: "two requests lost", drop: |who, n| who == A && n < 2, sent: (4, 2), elapsed_ms: 11_240 },
        Case { name: "IKE_AUTH request lost", drop: |who, n| who == A && n == 1, sent: (3, 2), elapsed_ms: 4_040 },
        Case { name: "IKE_AUTH response lost", drop: |who, n| who == B && n == 1, sent: (3, 3), elapsed_ms: 4_040 },
        Case { name: "every other message lost", drop: |_, n| n % 2 == 0, sent: (8, 4), elapsed_ms: 48_360 },
    ];
    for case in cases {
        let mut world = World::pair(1);
        world.link.drop_if(case.drop);
        let ticket = world.initiate(A, "gw", "net");
        assert!(world.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some()), "{}", case.name);
        assert_eq!(world.elapsed(), Duration::from_millis(case.elapsed_ms), "{}", case.name);
        world.run_for(Duration::from_secs(300));
        world.check_one_tunnel(A, B);
        assert_eq!((world.sent(A), world.sent(B)), case.sent, "{}", case.name);
    }
}

#[test]
fn duplicates_change_nothing() {
    let mut world = World::pair(1);
    world.link.duplicates = 1_000;
    world.establish();
    world.run_for(Duration::from_secs(300));
    world.check_one_tunnel(A, B);
    // The second copy of each request is answered again, with the same octets; a second response is dropped.
    assert_eq!((world.sent(A), world.sent(B)), (2, 4));
    let sent: Vec<_> = world.gateway(B).sent.iter().map(|(_, _, octets)| octets).collect();
    assert!(sent[0] == sent[1] && sent[2] == sent[3]);
    assert_eq!(world.gateway(B).event_names(), ["ike-sa.established", "child-sa.installed"]);
}

/// strongSwan's defaults: 4 s, base 1.8, 5 repetitions, then one more wait.
#[test]
fn a_silent_peer_is_given_up_after_165_seconds() {
    let mut world = World::pair(1);
    world.link.partition(A, B);
    let ticket = world.initiate(A, "gw", "net");
    assert!(world.run_until(Duration::from_secs(400), |world| world.reply(A, ticket).is_some()));
    let tenths: Vec<_> = world.sent_at(A).iter().map(|at| at.as_millis() / 100).collect();
    assert_eq!(tenths, [0, 40, 112, 241, 474, 894]);
    assert_eq!(world.elapsed().as_millis() / 100, 1_650);
    let octets: Vec<_> = world.gateway(A).sent.iter().map(|(_, _, octets)| octets).collect();
    assert!(octets.windows(2).all(|pair| pair[0] == pair[1]));
    let Some(Err(CommandError::Failed(cause))) = world.reply(A, ticket) else { panic!("{:?}", world.reply(A, ticket)) };
    assert_eq!(cause.kind, CauseKind::PeerUnreachable);
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.sent(A), 6);
    world.check_nothing_left();
}
