//! What users of other implementations have met, apart from the plain crossings.

use std::time::Duration;

use ike_model::Connection;
use ike_wire::ids::ExchangeType;
use scenarios::{A, B, C, Verdict, Who, World, config};

use super::child_and_ike::two_children;
use super::row::{Message::*, PLACES, Row, Step, Step::*, row, winner};
use super::run::check;

const REKEYED: &[&str] = &["child-sa.rekeyed"];
const IKE_REKEYED: &[&str] = &["ike-sa.rekeyed"];
const UP: &[&str] = &["ike-sa.established", "child-sa.installed"];
const HALF_A_ROUND_TRIP: &str =
    "the responder of a new CHILD SA uses it half a round trip before the initiator knows of it";

/// Rows of these scenarios.
pub(super) fn rows() -> Vec<Row> {
    [ordered_again(), refused(), out_of_order(), first(), at_the_limit(), flushed()].into_iter().flatten().collect()
}

/// X1: rekeyed again before the first is finished.
fn ordered_again() -> Vec<Row> {
    let mut rows = Vec::new();
    for (milliseconds, times) in [(0, 1), (5, 1), (15, 2), (25, 2), (35, 3)] {
        let again = [RekeyChild(A), Pass(milliseconds), RekeyChild(A), Pass(milliseconds), RekeyChild(A)];
        let steps = [Flows].into_iter().chain(again).collect();
        let told = ["child-sa.rekeyed"; 3];
        let row =
            row("X1", format!("ordered again every {milliseconds} ms"), steps).tells(&told[..times], &told[..times]);
        rows.push(row.asks(times, 0).deletes(times, 0));
    }
    rows
}

/// X2, X3, X13: refused in the middle.
fn refused() -> Vec<Row> {
    const REFUSED: &[&str] = &["child-sa.install-failed", "child-sa.rekeyed"];
    let crossed = [RekeyChild(A), RekeyChild(B)];
    let begin = |more: &[Step]| crossed.iter().chain(more).cloned().collect::<Vec<_>>();
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        for (order, responses) in [
            ("refusal first", vec![Arrives(Answer(B)), Arrives(Answer(A))]),
            ("refusal last", vec![Arrives(Answer(A)), Pass(30), Arrives(Answer(B))]),
        ] {
            let steps: Vec<_> = [Arrives(Ask(B)), Refuses(B), Arrives(Ask(A))].into_iter().chain(responses).collect();
            // The refused exchange takes no part in the decision, wherever the lowest nonce is.
            let row = row("X2", format!("lowest nonce in {name}, {order}"), begin(&steps)).lowest(place);
            rows.push(row.tells(REKEYED, REFUSED).asks(1, 1).deletes(0, 1).refused(1, 0));
        }
    }
    let steps = [
        Lost(Ask(A)),
        Arrives(Ask(B)),
        Arrives(Answer(A)),
        Lost(Delete(B)),
        Pass(4_100),
        Arrives(Ask(A)),
        Arrives(Answer(B)),
        Arrives(Delete(B)),
    ];
    let repeated = row("X3", "A's request is repeated after B's rekeying", begin(&steps));
    rows.push(repeated.tells(REKEYED, REKEYED).asks(1, 1).deletes(0, 1).refused(1, 0));
    let full = |variant: &str, who| row("X13", variant, vec![Refuses(who), RekeyChild(A)]).asks(2, 0).within(16);
    rows.push(
        full("the initiator's table is full", A)
            .tells(&["child-sa.install-failed", "child-sa.rekey-failed", "child-sa.rekeyed"], REKEYED)
            .deletes(2, 0),
    );
    rows.push(
        full("the responder's table is full", B)
            .tells(&["child-sa.rekey-failed", "child-sa.rekeyed"], REFUSED)
            .deletes(1, 0)
            .refused(1, 0),
    );
    rows
}

/// X4, X5: a DELETE or a copy overtakes a response.
fn out_of_order() -> Vec<Row> {
    vec![
        row(
            "X4",
            "a new CHILD SA is deleted before the response that makes it",
            vec![Initiate(A, "other"), Arrives(Ask(A)), Close(B, "other"), Arrives(Delete(B)), Arrives(Answer(B))],
        )
        .configured(two_children)
        .tells(&["child-sa.failed"], &["child-sa.installed", "child-sa.closed"])
        .asks(1, 0)
        .deletes(0, 1)
        .gaps(HALF_A_ROUND_TRIP),
        row(
            "X4",
            "a rekeyed one is deleted before the response that makes its successor",
            vec![
                RekeyChild(A),
                RekeyChild(B),
                Arrives(Ask(B)),
                Arrives(Answer(A)),
                Arrives(Ask(A)),
                Arrives(Delete(B)),
                Arrives(Answer(B)),
            ],
        )
        .tells(REKEYED, REKEYED)
        .asks(1, 1)
        .deletes(0, 1)
        .refused(1, 0),
        row(
            "X5",
            "the link bounces while the IKE SA is rekeyed",
            vec![
                RekeyIke(A),
                Arrives(Ask(A)),
                Lost(Answer(B)),
                Cut,
                Flows,
                Pass(6_000),
                Mended,
                Pass(20_000),
                Again(Answer(B)),
                Again(Deleted(B)),
            ],
        )
        .tells(IKE_REKEYED, IKE_REKEYED)
        .asks(1, 0)
        .deletes(1, 0),
        row(
            "X5",
            "a late copy of everything after the IKE SA is rekeyed",
            vec![RekeyIke(A), Flows, Pass(1_000), Again(Ask(A)), Again(Answer(B)), Again(Delete(A)), Again(Deleted(B))],
        )
        .tells(IKE_REKEYED, IKE_REKEYED)
        .asks(1, 0)
        .deletes(1, 0),
    ]
}

fn tries_for_ever(_: Who, mut connection: Connection) -> Connection {
    connection.keyingtries = 0;
    connection
}

/// X8 to X10: the first exchanges.
fn first() -> Vec<Row> {
    let up = |scenario, variant: &str, steps| {
        row(scenario, variant, steps).nothing_up().tells(UP, UP).gaps(HALF_A_ROUND_TRIP)
    };
    let spam = [Cut, Flows].into_iter().chain((0..20).flat_map(|_| [Initiate(A, "net"), Pass(500)]));
    vec![
        up("X8", "loaded again after the first request", vec![Initiate(A, "net"), Reload(A), Reload(B)]),
        up("X8", "loaded again while authenticating", vec![Flows, Initiate(A, "net"), Pass(25), Reload(A), Reload(B)]),
        up("X9", "wanted twenty times while the peer is away", spam.chain([Mended]).collect())
            .configured(tries_for_ever)
            .within(60),
        up("X10", "both begin, both stay", vec![Initiate(A, "net"), Initiate(B, "net")])
            .leaves(2, 2)
            .tells(&[UP, UP].concat(), &[UP, UP].concat())
            .in_any_order(),
    ]
}

/// X11: the hard limit comes before the rekeying is over.
fn at_the_limit() -> Vec<Row> {
    const LATE: &[&str] = &["child-sa.hard-expired", "child-sa.rekeyed"];
    let mut rows = vec![
        row("X11", "before the request arrives", vec![RekeyChild(A), HardLimit(A)])
            .tells(LATE, REKEYED)
            .asks(1, 0)
            .deletes(1, 0),
        row(
            "X11",
            "before the response arrives",
            vec![RekeyChild(A), Arrives(Ask(A)), HardLimit(A), Arrives(Answer(B))],
        )
        .tells(LATE, REKEYED)
        .asks(1, 0)
        .deletes(1, 0),
    ];
    for (place, name) in PLACES.iter().enumerate() {
        let crossed = [RekeyChild(A), RekeyChild(B), Arrives(Ask(A)), Arrives(Ask(B))];
        for (when, more) in [
            ("before any response", vec![HardLimit(A)]),
            ("after A's response", vec![Arrives(Answer(A)), HardLimit(A)]),
        ] {
            let steps = crossed.iter().cloned().chain(more).collect();
            let row = row("X11", format!("both rekey, lowest nonce in {name}, {when}"), steps).lowest(place);
            // A cannot wait for B to switch, nor for B to delete the old one.
            let row = match winner(place) {
                A => row.deletes(1, 1),
                _ => row.deletes(2, 1).gaps("at its hard limit A must use the new SA before B can have it"),
            };
            rows.push(row.tells(LATE, REKEYED).asks(1, 1));
        }
    }
    rows
}

/// X12: the device loses everything, at rest and in the middle of a rekeying.
fn flushed() -> Vec<Row> {
    // What is lost is known once the backend has listed what it still holds, and that is asked as soon as the device is down.
    const ONE_LOST: &[&str] = &["offload.device-down", "offload.state-lost", "offload.device-up"];
    const BOTH_LOST: &[&str] =
        &["offload.device-down", "offload.state-lost", "offload.state-lost", "offload.device-up"];
    const SWITCHED: &[&str] =
        &["offload.device-down", "offload.state-lost", "offload.state-lost", "child-sa.rekeyed", "offload.device-up"];
    const AGAIN: &[&str] = &["child-sa.closed", "child-sa.installed"];
    const REKEYED_AGAIN: &[&str] = &["child-sa.rekeyed", "child-sa.closed", "child-sa.installed"];
    let flushed = |variant: &str, steps, lost: &[&'static str], events: &[&'static str]| {
        row("X12", variant, steps).tells(&[lost, events].concat(), events).within(3).gaps("the device holds nothing")
    };
    vec![
        flushed("at rest", vec![Flushed(A)], ONE_LOST, AGAIN).asks(1, 0).deletes(1, 0),
        flushed("the request is on its way", vec![RekeyChild(A), Flushed(A)], ONE_LOST, REKEYED_AGAIN)
            .asks(2, 0)
            .deletes(2, 0),
        flushed(
            "the response is on its way",
            vec![RekeyChild(A), Arrives(Ask(A)), Flushed(A)],
            ONE_LOST,
            REKEYED_AGAIN,
        )
        .asks(2, 0)
        .deletes(2, 0),
        row("X12", "of the responder", vec![RekeyChild(B), Arrives(Ask(B)), Flushed(A)])
            .tells(&[SWITCHED, AGAIN].concat(), REKEYED_AGAIN)
            .within(3)
            .gaps("the device holds nothing")
            .asks(1, 1)
            .deletes(1, 1),
        flushed(
            "both rekey",
            vec![RekeyChild(A), RekeyChild(B), Arrives(Ask(A)), Arrives(Ask(B)), Flushed(A)],
            BOTH_LOST,
            REKEYED_AGAIN,
        )
        .lowest(0)
        .asks(2, 1)
        .deletes(3, 1),
    ]
}

/// X1: both, again and again, before anything is finished.
#[test]
fn both_again_and_again() {
    let mut world = World::pair(1);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(3));
    for _ in 0..5 {
        world.rekey_child(A, "net");
        world.rekey_child(B, "net");
        world.run_for(Duration::from_millis(25));
    }
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}

/// X6: the rekeying of an IKE SA dies while the peer is authenticated afresh: nothing is there twice afterwards.
#[test]
fn a_rekeying_dies_while_authenticating_afresh() {
    for rekeyer in [A, B] {
        let mut at_a = config::connection("gw", A, B);
        at_a.reauth_time = Duration::from_secs(100);
        at_a.over_time = Duration::from_secs(600);
        let mut at_b = config::connection("gw", B, A);
        at_b.dpd_delay = Duration::from_secs(20);
        let mut world = World::pair_of(1, at_a, at_b);
        world.establish();
        world.strict(false);
        let old = world.gateway(A).ike_sas(world.now())[0].initiator_spi;
        world.link.rule(move |sending| {
            let of_old = sending.header.initiator_spi.0 == old && sending.is_request(ExchangeType::CREATE_CHILD_SA);
            if of_old { Verdict::Drop } else { Verdict::Pass }
        });
        world.rekey_ike(rekeyer, "gw");
        world.run_for(Duration::from_secs(120));
        // The old IKE SA cannot be closed before its request is answered or given up.
        let established = world.gateway(A).counts().established;
        world.check(established == if rekeyer == A { 2 } else { 1 }, "the new one is up");
        // The rekeying gives up after 165 s; the other end finds out by asking, and the third authentication is still to come.
        world.run_for(Duration::from_secs(270));
        world.check_one_tunnel(A, B);
        for who in [A, B] {
            let counts = world.gateway(who).counts();
            world.check((counts.ike_sas, counts.children) == (1, 1), &format!("{who}: {counts:?}"));
        }
    }
}

/// X7: two peers choose the same SPI. Each CHILD SA is rekeyed and deleted without the other.
#[test]
fn two_children_with_the_same_spi_of_their_peers() {
    let mut world = World::with_shards(1, &[1, 1, 1]);
    let mut to_c = config::connection("to-c", A, C);
    to_c.children[0] = config::child("net-c", A, C, 1).into();
    world.configure(A, config::connection("gw", A, B));
    world.configure(A, to_c);
    world.configure(B, config::connection("gw", B, A));
    let mut at_c = config::connection("gw", C, A);
    at_c.children[0] = config::child("net", C, A, 1).into();
    world.configure(C, at_c);
    world.gateway_mut(C).number_spis_like(B);
    for (connection, child) in [("gw", "net"), ("to-c", "net-c")] {
        world.initiate(A, connection, child);
        world.run_for(Duration::from_secs(1));
    }
    let outbound = |world: &World| {
        let children = world.gateway(A).live_children(world.now());
        children.iter().map(|child| child.spi_out.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(outbound(&world)[0], outbound(&world)[1], "the peers have chosen the same");
    world.strict(true);
    world.traffic_every = Some(Duration::from_millis(50));
    for peer in [B, C] {
        world.rekey_child(peer, "net");
        world.run_for(Duration::from_secs(8));
    }
    let (one, other) = (world.tunnels(B, A), world.tunnels(C, A));
    assert_eq!((one.len(), other.len(), world.gateway(A).live_children(world.now()).len()), (1, 1, 2));
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}

#[test]
fn seen() {
    check(&rows());
}
