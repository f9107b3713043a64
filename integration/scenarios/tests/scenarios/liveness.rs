//! Is the peer there? Asked only after silence, and a dead peer is found after the documented time (RFC 7296 §2.4).

use std::time::Duration;

use ike_model::CauseKind;
use scenarios::{A, B, World, config};

fn asking_every(seconds: u64) -> World {
    let mut asking = config::connection("gw", A, B);
    asking.dpd_delay = Duration::from_secs(seconds);
    let mut world = World::pair_of(1, asking, config::connection("gw", B, A));
    world.establish();
    world
}

//= RFC 7296 §1.4, §2.4: an empty INFORMATIONAL when nothing was heard
#[test]
fn a_silent_peer_is_asked() {
    let mut world = asking_every(30);
    let before = (world.sent(A), world.sent(B));
    world.run_for(Duration::from_secs(301) - Duration::from_millis(500));
    let asked = world.sent(A) - before.0;
    assert!((9..=10).contains(&asked), "{asked}");
    assert_eq!(world.sent(B) - before.1, asked);
    world.check_one_tunnel(A, B);
}

#[test]
fn a_peer_that_speaks_is_not_asked() {
    let mut world = asking_every(30);
    let before = world.sent(A);
    for _ in 0..10 {
        world.run_for(Duration::from_secs(20));
        world.rekey_child(B, "net");
    }
    world.run_for(Duration::from_secs(1));
    // Only answers to B's CREATE_CHILD_SA and DELETE.
    assert_eq!(world.sent(A) - before, 20);
}

//= RFC 7296 §2.4: the IKE SA and its CHILD SAs end when the peer does not answer
#[test]
fn a_dead_peer_is_found() {
    let mut world = asking_every(30);
    world.strict(false);
    world.link.partition(A, B);
    let gone = world.run_until(Duration::from_secs(600), |world| world.gateway(A).counts().ike_sas == 0);
    assert!(gone);
    let names = world.gateway(A).event_names();
    assert_eq!(names[2..], ["peer.unreachable", "child-sa.closed", "ike-sa.closed", "child-sa.removed"]);
    assert_eq!(world.gateway(A).last_cause().unwrap().kind, CauseKind::PeerUnreachable);
    // Established, silence, then the whole schedule.
    let elapsed = world.elapsed().as_secs();
    assert!((30 + 165..=30 + 166).contains(&elapsed), "{elapsed}");
    assert!(world.gateway(A).tables().sas.is_empty());
}

/// A short outage costs nothing but repetitions.
#[test]
fn an_outage_shorter_than_the_schedule_is_survived() {
    let mut world = asking_every(30);
    world.link.partition(A, B);
    world.run_for(Duration::from_secs(110));
    world.link.mend();
    world.run_for(Duration::from_secs(120));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(A).count("peer.unreachable"), 0);
}

/// An end that has given its peer up, all responses of which were lost, must not let it believe that the IKE SA lives: no request is answered any
/// more, and the peer gives up in turn.
#[test]
fn an_ended_ike_sa_answers_no_liveness() {
    let mut watching = config::connection("gw", B, A);
    watching.dpd_delay = Duration::from_secs(5);
    let mut world = World::pair_of(1, config::connection("gw", A, B), watching);
    world.gateway_mut(A).config.settings.retransmit_tries = 1;
    world.establish();
    world.strict(false);
    // Everything of A still reaches B and is answered until A ends its IKE SA for want of an answer.
    world.link.cut.insert((B, A));
    world.rekey_child(A, "net");
    let gone = world.run_until(Duration::from_secs(60), |world| world.gateway(A).counts().ike_sas == 0);
    assert!(gone && world.gateway(B).counts().ike_sas == 1);
    world.link.mend();
    // While A still holds the keys, in case that B deletes what it has ended; later the SPI is merely unknown.
    let sent = world.sent(A);
    world.run_for(Duration::from_secs(25));
    assert_eq!(world.sent(A), sent, "A answers for an IKE SA that it has ended");
    world.run_until(Duration::from_secs(400), |world| world.gateway(B).counts().ike_sas == 0);
    // Silence since 0.55 s, 5 s, then the whole schedule.
    let elapsed = world.elapsed().as_secs();
    assert!((170..=171).contains(&elapsed), "B believed for {elapsed} s in an IKE SA that A had ended");
    world.check_nothing_left();
}
