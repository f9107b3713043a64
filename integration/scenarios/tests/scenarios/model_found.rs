//! What random schedules have found, each as the shortest schedule that showed it.

use scenarios::model::schedule::{Action, Change, Fits, Kind, Op, Setup, Unit};
use scenarios::model::{Planted, Schedule, run_schedule};
use scenarios::{A, B, Who};

/// Two gateways of one shard, a clean link, nothing delayed.
fn plain() -> Setup {
    Setup {
        seed: 1,
        shards: vec![1, 1],
        second: false,
        pfs: None,
        ike_methods: vec![false, false],
        nat: false,
        same_spis: false,
        dpd: 60,
        tries: 4,
        ike_rekey: 0,
        reauth: 0,
        child_rekey: 0,
        work: vec![0, 0],
        reports: vec![0, 0],
        latency: 10,
        jitter: 0,
        loss: 0,
        duplicates: 0,
    }
}

fn check(setup: Setup, actions: &[(u64, Op)]) {
    let actions = actions.iter().map(|(pause, op)| Action { pause: *pause, op: op.clone() }).collect();
    let planted = Planted { traced: true, ..Planted::default() };
    let outcome = run_schedule(&Schedule { setup, actions }, planted);
    assert_eq!(outcome.violation, None, "{}", outcome.trace.unwrap_or_default());
}

fn initiate(who: Who) -> Op {
    Op::Initiate(who, "ab".into(), "net".into())
}

fn rekey(who: Who) -> Op {
    Op::RekeyChild(who, "ab".into(), "net".into())
}

fn rekey_ike(who: Who) -> Op {
    Op::RekeyIke(who, "ab".into())
}

fn close(who: Who) -> Op {
    Op::CloseChild(who, "ab".into(), "net".into())
}

/// The next two nonces of each end, so that the exchange which `who` begins has the lowest and loses.
fn loses(who: Who) -> [(u64, Op); 4] {
    let octet = |end: Who| if end == who { 0x01 } else { 0x80 };
    [(0, Op::Nonce(A, octet(A))), (0, Op::Nonce(A, 0x90)), (0, Op::Nonce(B, octet(B))), (0, Op::Nonce(B, 0x90))]
}

/// C29: asked for twice, the second rekeying of the IKE SA came at once after the TEMPORARY_FAILURE that the first one got.
#[test]
fn a_rekeying_that_is_asked_for_twice_waits_too() {
    let actions = [(0, initiate(B)), (100, rekey_ike(A)), (0, rekey(B)), (0, rekey_ike(A))];
    check(plain(), &actions);
}

/// C11: the peer's request is answered between the beginning and the sending of ours. Both new SAs were taken for the only one.
#[test]
fn the_peers_rekeying_is_answered_while_ours_is_prepared() {
    let setup = Setup { pfs: Some(vec![true, true]), latency: 14, work: vec![18, 0], reports: vec![8, 38], ..plain() };
    let mut actions = vec![(0, initiate(A)), (500, Op::Wait)];
    actions.extend(loses(A));
    actions.extend([(500, Op::Soft(B, 0, Unit::Time)), (19, rekey(A)), (100, Op::Packets(B))]);
    check(setup, &actions);
}

/// C11, C6: the old SA reaches its limit after the collision was lost, while the winner is being installed and then refused. Its end was not told.
#[test]
fn the_old_one_ends_while_the_winner_is_installed() {
    let mut actions = vec![(0, initiate(A)), (100, Op::Reports(B, 164))];
    actions.extend(loses(B));
    actions.extend([(0, rekey(A)), (0, rekey(B)), (100, Op::OldLimit(B, true))]);
    check(plain(), &actions);
}

/// X12: the device loses the reserved SA of a rekeying before the switch. The old outbound SA stayed installed without an owner.
#[test]
fn the_reserved_one_is_lost() {
    check(plain(), &[(0, initiate(A)), (100, rekey(B)), (10, Op::LoseSa(A, 3))]);
}

/// C11, C24: an operator closes the child at the loser, which deletes the old SA although its exchange has lost. The peer took the delete for
/// the winner's and ended with two successors.
#[test]
fn the_loser_deletes_the_old_one() {
    let setup = Setup { pfs: Some(vec![true, true]), work: vec![41, 15], ..plain() };
    let mut actions = vec![(0, initiate(A)), (900, Op::Wait)];
    actions.extend(loses(A));
    actions.extend([
        (100, Op::Hold(Fits { from: None, kind: Kind::Any })),
        (0, rekey(A)),
        (0, rekey(B)),
        (60, Op::LetGo(2)),
        (0, Op::LetGo(2)),
        (60, close(A)),
        (0, Op::LetGo(2)),
        (61, Op::LetGo(3)),
    ]);
    check(setup, &actions);
}

/// The same while the winner is being installed at the peer.
#[test]
fn the_loser_deletes_the_old_one_while_the_winner_is_installed() {
    let setup = Setup { reports: vec![38, 0], ..plain() };
    let mut actions = vec![(0, initiate(A))];
    actions.push((100, Op::Wait));
    actions.extend(loses(B));
    actions.extend([
        (0, rekey(A)),
        (0, rekey(B)),
        (0, Op::Hold(Fits { from: None, kind: Kind::Any })),
        (0, rekey_ike(B)),
        (61, close(B)),
    ]);
    check(setup, &actions);
}

/// C11, C7: an operator closes the child while the winner of the collision is being installed. It was switched to before it was there.
#[test]
fn the_winner_is_closed_while_it_is_installed() {
    let mut actions = vec![(0, initiate(A)), (100, Op::Reports(A, 49))];
    actions.extend(loses(A));
    actions.extend([
        (0, Op::Hold(Fits { from: None, kind: Kind::Any })),
        (0, rekey(A)),
        (0, rekey(B)),
        (0, Op::LetGo(3)),
        (0, Op::LetGo(1)),
        (0, Op::LetGo(0)),
        (0, close(A)),
    ]);
    check(plain(), &actions);
}

/// C15: the peer's new SA has taken over and is deleted too, before our response comes; ours has lost, so nothing is left.
#[test]
fn the_winner_is_deleted_before_the_losers_response() {
    let mut actions = vec![(0, initiate(B)), (100, Op::Wait)];
    actions.extend(loses(B));
    actions.extend([
        (0, rekey(A)),
        (0, Op::Hold(Fits { from: Some(A), kind: Kind::Any })),
        (0, rekey(B)),
        (25, close(A)),
        (0, Op::Lose(0)),
        (0, Op::Flow),
        (0, Op::LetGo(0)),
        (1_500, rekey(B)),
    ]);
    check(Setup { latency: 1, ..plain() }, &actions);
}

/// The same when ours has won: it is the one that both ends go on with.
#[test]
fn the_loser_is_deleted_before_the_winners_response() {
    let mut actions = vec![(0, initiate(B)), (100, Op::Wait)];
    actions.extend(loses(A));
    actions.extend([
        (0, rekey(A)),
        (0, Op::Hold(Fits { from: Some(A), kind: Kind::CreateResponse })),
        (0, rekey(B)),
        (2, Op::Hard(A, 0, Unit::Packets)),
        (0, Op::Lose(0)),
        (0, Op::Flow),
        (2_000, Op::Wait),
    ]);
    check(Setup { latency: 1, ..plain() }, &actions);
}

/// X12, X13: one end cannot install the new SA, the other loses all it had. The old SA was waited for for ever, and every further rekeying
/// refused.
#[test]
fn a_rekeying_fails_at_both_ends() {
    let setup = Setup { latency: 18, ..plain() };
    let actions = [
        (0, initiate(B)),
        (100, Op::Soft(B, 0, Unit::Time)),
        (0, Op::Refuse(B)),
        (49, Op::LoseDevice(A)),
        (145_403, rekey_ike(A)),
    ];
    check(setup, &actions);
}

/// X9: a child is asked for several times while the IKE SA, in another shard, is being closed. Each time made an IKE SA of its own.
#[test]
fn a_child_is_asked_for_while_the_ike_sa_is_closed() {
    let setup = Setup { seed: 18_398, shards: vec![1, 7], ..plain() };
    let other = Op::Initiate(A, "ab".into(), "other".into());
    let mut actions = vec![(0, other), (100, Op::CloseIke(B, "ab".into()))];
    actions.extend([(0, initiate(B)), (0, initiate(B)), (0, initiate(B)), (0, initiate(B)), (0, initiate(B))]);
    actions.extend([(100, rekey(B)), (100, rekey(B)), (100, rekey(B))]);
    check(setup, &actions);
}

/// X8: a configuration that means another peer, while the peer goes on with an IKE SA of before: what it asks for again is there already, and what it
/// makes below the old one is left to it.
#[test]
fn a_child_is_asked_for_below_two_ike_sas() {
    let setup = Setup { seed: 1_753_547_892_149_831, shards: vec![2, 1], reports: vec![7, 0], ..plain() };
    let other = Op::Initiate(A, "ab".into(), "other".into());
    let actions = [
        (0, initiate(B)),
        (0, Op::Reload(B, "ab".into(), Change::Methods)),
        (0, initiate(A)),
        (10, Op::CloseIke(A, "ab".into())),
        (0, initiate(A)),
        (0, other),
        (100, Op::Wait),
    ];
    check(setup, &actions);
}

/// C36: a child is asked for that the peer is making, and the IKE SA is closed before it is there. Whoever had asked was never answered.
#[test]
fn an_ike_sa_is_closed_while_the_child_that_the_peer_makes_is_asked_for() {
    let setup = Setup { reports: vec![0, 200], ..plain() };
    let other = |who| Op::Initiate(who, "ab".into(), "other".into());
    let actions =
        [(0, initiate(B)), (1_000, other(A)), (50, other(B)), (0, Op::CloseIke(B, "ab".into())), (500, Op::Wait)];
    check(setup, &actions);
}

/// C7, C30: the old SA is at its limit and deleted while the winner is still being installed, and the IKE SA ends before that is done.
#[test]
fn the_ike_sa_ends_while_the_winner_is_installed() {
    let setup = Setup { seed: 1_753_550_991_540_694, nat: true, reports: vec![0, 43], ..plain() };
    let actions = [
        (0, Op::Reports(A, 158)),
        (0, initiate(A)),
        (0, initiate(B)),
        (736, rekey(A)),
        (0, rekey(B)),
        (25, Op::Hard(A, 3, Unit::Packets)),
        (48, Op::CloseIke(A, "ab".into())),
    ];
    check(setup, &actions);
}

/// C31: a child is asked for again, with other selectors, while it is being made; when that is refused for a time both wait.
#[test]
fn a_changed_child_waits_with_the_one_that_was_refused() {
    let setup = Setup { seed: 1_753_551_257_620_727, ..plain() };
    let other = Op::Initiate(B, "ab".into(), "other".into());
    let actions = [
        (0, initiate(A)),
        (100, other.clone()),
        (0, Op::Reload(B, "ab".into(), Change::Selectors)),
        (0, other),
        (0, rekey_ike(A)),
    ];
    check(setup, &actions);
}

/// Both ends make the same child, and the one that waits for the first packet of the other is rekeyed before that comes. The switch that
/// waited then took the policy away from the successor, and traffic was dropped.
#[test]
fn what_waits_for_its_switch_is_rekeyed() {
    let setup = Setup { seed: 1_753_562_453_311_309, work: vec![0, 47], ..plain() };
    let other = |who| Op::Initiate(who, "ab".into(), "other".into());
    check(setup, &[(0, other(B)), (0, other(A)), (872, Op::Soft(A, 3, Unit::Bytes)), (2_000, Op::Wait)]);
}

/// The peer deletes a new CHILD SA while the backend has let traffic take it, but has not said so yet: nothing is sent on it any more.
#[test]
fn a_new_child_is_deleted_before_its_activation_is_reported() {
    for (setup, initiator, closer, pause) in [
        (Setup { reports: vec![0, 17], latency: 1, ..plain() }, B, A, 30),
        (Setup { reports: vec![0, 23], latency: 10, ..plain() }, B, A, 70),
    ] {
        check(setup, &[(0, initiate(initiator)), (pause, close(closer))]);
    }
}

/// X13, C28: a successor that the peer has made and not switched to reaches its hard limit and is asked to be rekeyed, while both ends rekey the IKE
/// SA. It was rekeyed before it was up, and told down when the peer, which could not install it, took it back.
#[test]
fn a_successor_is_at_its_limit_before_the_switch() {
    let actions = [
        (0, initiate(A)),
        (10, rekey(B)),
        (1, rekey_ike(A)),
        (0, Op::Refuse(B)),
        (0, rekey_ike(B)),
        (0, rekey(A)),
        (0, Op::Hard(A, 3, Unit::Packets)),
        (1, Op::Wait),
    ];
    check(Setup { seed: 20_284_624, latency: 1, ..plain() }, &actions);
}

/// C11, C6: the winner of a collision reaches its hard limit before the switch, and the old SA is deleted while the loser's request is still on its
/// way. The loser went on sending on the old SA until that was answered.
#[test]
fn the_winner_is_at_its_limit_before_the_switch() {
    let requests = Fits { from: Some(B), kind: Kind::CreateRequest };
    let actions = [
        (0, initiate(A)),
        (100, Op::DropNext(requests)),
        (0, Op::DropNext(requests)),
        (0, Op::DropNext(requests)),
        (0, rekey(B)),
        (0, rekey(A)),
        (15, Op::Hard(B, 3, Unit::Packets)),
        (1_000, Op::Packets(B)),
        (5_000, Op::Wait),
    ];
    check(plain(), &actions);
}
