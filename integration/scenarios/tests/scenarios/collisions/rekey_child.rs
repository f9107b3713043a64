//! Rekeyings of a CHILD SA: alone, and crossing the peer's (RFC 7296 §1.3.3, §2.8, §2.8.1, §2.25.1).

use std::time::Duration;

use ike_model::Connection;
use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, Who, config};

use super::row::{Message::*, PLACES, Row, Step, Step::*, row, winner};
use super::run::check;

const REKEYED: &[&str] = &["child-sa.rekeyed"];
const REKEYED_CLOSED: &[&str] = &["child-sa.rekeyed", "child-sa.closed"];
const GAVE_UP: &[&str] = &["child-sa.rekeyed", "peer.unreachable", "child-sa.closed", "ike-sa.closed"];
const P256: KeyExchangeId = KeyExchangeId::ECP_256;
const P384: KeyExchangeId = KeyExchangeId::ECP_384;
const X25519: KeyExchangeId = KeyExchangeId::CURVE_25519;

/// Both guess wrong at first: each prefers a method that the other does not have.
fn other_guesses(who: Who, connection: Connection) -> Connection {
    let methods = if who == A { [P256, P384] } else { [X25519, P384] };
    config::with_child(connection, |child| child.esp_proposals = vec![config::esp_proposal(&methods)])
}

fn forward_secrecy(_: Who, connection: Connection) -> Connection {
    config::with_child(connection, |child| child.esp_proposals = vec![config::esp_proposal(&[P256])])
}

fn asks_whether_the_peer_is_there(who: Who, mut connection: Connection) -> Connection {
    connection.dpd_delay = Duration::from_secs(if who == B { 30 } else { 0 });
    connection
}

/// Rows of these scenarios.
pub(super) fn rows() -> Vec<Row> {
    [alone(), crossing(), late(), unseen(), guessed(), reminded()].into_iter().flatten().collect()
}

/// C1, C3, C5 to C10.
fn alone() -> Vec<Row> {
    let plain =
        |scenario, variant: &str, steps| row(scenario, variant, steps).tells(REKEYED, REKEYED).asks(1, 0).deletes(1, 0);
    let begun = || vec![RekeyChild(A), Arrives(Ask(A)), Arrives(Answer(B))];
    let then = |more: &[Step]| begun().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    vec![
        //= RFC 7296 §1.3.3: rekeying is a CREATE_CHILD_SA exchange and a DELETE of the old SA by the one who began
        plain("C1", "plain", vec![RekeyChild(A)]),
        plain("C1", "request lost at first", vec![RekeyChild(A), Lost(Ask(A))]).within(5),
        plain("C1", "response lost at first", vec![RekeyChild(A), Arrives(Ask(A)), Lost(Answer(B))]).within(5),
        plain("C1", "DELETE lost at first", then(&[Lost(Delete(A))])).within(5),
        plain("C1", "response to the DELETE lost at first", then(&[Arrives(Delete(A)), Lost(Deleted(B))])).within(5),
        plain("C3", "wrong guess of the method", vec![RekeyChild(A), Arrives(Ask(A)), Arrives(Answer(B)), OldStands])
            .configured(other_guesses)
            .asks(2, 0),
        plain("C5", "soft limit at the responder before its first packet", then(&[SoftLimit(B)])),
        plain("C5", "soft limit at the responder after its first packet", then(&[Pass(30), SoftLimit(B)])),
        plain("C6", "hard limit at the responder before its first packet", then(&[HardLimit(B)]))
            .tells(REKEYED, &["child-sa.hard-expired", "child-sa.rekeyed"])
            .deletes(1, 1),
        plain("C6", "hard limit at the responder after its first packet", then(&[Pass(30), HardLimit(B)]))
            .tells(REKEYED, &["child-sa.rekeyed", "child-sa.hard-expired"])
            .deletes(1, 1),
        plain("C7", "the responder closes the new one before the switch", then(&[Close(B, "net")]))
            .leaves(0, 1)
            .tells(REKEYED_CLOSED, REKEYED_CLOSED)
            .deletes(1, 1),
        plain("C7", "the initiator closes the new one before the switch", then(&[Close(A, "net")]))
            .leaves(0, 1)
            .tells(REKEYED_CLOSED, REKEYED_CLOSED)
            .deletes(2, 0),
        //= RFC 7296 §2.25.1: a request to rekey a CHILD SA that does not exist is answered with CHILD_SA_NOT_FOUND
        row("C8", "the peer has forgotten it", vec![ForgetChild(B), Lost(Delete(B)), RekeyChild(A), Flows])
            .tells(&["child-sa.closed", "child-sa.installed"], &["child-sa.closed", "child-sa.installed"])
            .asks(2, 0)
            .deletes(0, 1)
            .within(5)
            .gaps("the peer has no SA any more"),
        plain(
            "C9",
            "the responder deletes the old one first",
            vec![
                RekeyChild(A),
                Arrives(Ask(A)),
                HardLimit(B),
                Arrives(Delete(B)),
                Arrives(Deleted(A)),
                Arrives(Answer(B)),
            ],
        )
        .tells(REKEYED, &["child-sa.hard-expired", "child-sa.rekeyed"])
        .deletes(0, 1)
        .gaps("the responder is at its hard limit and must use the new SA before the initiator can have it"),
        plain("C10", "nobody answers the DELETE", then(&[Swallowed(Delete(A)), Lost(Delete(A))]))
            .configured(asks_whether_the_peer_is_there)
            .leaves(0, 0)
            .tells(GAVE_UP, GAVE_UP)
            .deletes(1, 6)
            .within(400)
            .gaps("B goes on sending until it finds that A has given up"),
    ]
}

/// C11, both at once.
fn crossing() -> Vec<Row> {
    let mut rows = Vec::new();
    let both = |variant, place: usize, steps| {
        row("C11", variant, steps).lowest(place).tells(REKEYED, REKEYED).asks(1, 1).deletes(1, 1)
    };
    for (place, name) in PLACES.iter().enumerate() {
        let requests = [RekeyChild(A), RekeyChild(B), Arrives(Ask(A)), Arrives(Ask(B))];
        for (order, responses) in [
            ("A's response first", [Arrives(Answer(A)), Arrives(Answer(B))]),
            ("B's response first", [Arrives(Answer(B)), Arrives(Answer(A))]),
        ] {
            let pause = [Pass(50)];
            let steps = requests.iter().chain(&pause).chain(&responses).cloned().collect();
            //= RFC 7296 §2.8.1: the SA made with the lowest of the four nonces is closed by the end that made it
            rows.push(both(format!("lowest nonce in {name}, {order}"), place, steps));
        }
        for (a, b) in [(0, 0), (5, 0), (0, 5), (5, 25), (25, 5), (40, 40)] {
            let variant = format!("lowest nonce in {name}, with key exchange of {a} ms and {b} ms");
            rows.push(
                both(variant, place, vec![RekeyChild(A), RekeyChild(B), Flows]).configured(forward_secrecy).slow(a, b),
            );
        }
    }
    rows
}

/// C14, C15: a response comes after deletes of the peer. C23: the loser deletes the old one.
fn late() -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let crossed = [RekeyChild(A), RekeyChild(B), Arrives(Ask(A)), Arrives(Ask(B))];
        let begin = |more: &[Step]| crossed.iter().chain(more).cloned().collect::<Vec<_>>();
        let whose = if winner(place) == A { "the old" } else { "the redundant" };
        // A has decided and deletes before B can decide.
        let decided = [Arrives(Answer(B)), Pass(50), Arrives(Delete(A)), Pass(50)];
        let steps = begin(&decided).into_iter().chain([Arrives(Answer(A))]).collect();
        let variant = format!("lowest nonce in {name}, response after the DELETE of {whose} one");
        rows.push(row("C14", variant, steps).lowest(place).tells(REKEYED, REKEYED).asks(1, 1).deletes(1, 1));
        let steps =
            begin(&decided).into_iter().chain([Arrives(Deleted(B)), Close(A, "net"), Pass(10), Flows]).collect();
        let variant = format!("lowest nonce in {name}, response after the DELETE of {whose} one and of the new one");
        rows.push(
            row("C15", variant, steps)
                .lowest(place)
                .leaves(0, 1)
                .tells(REKEYED_CLOSED, REKEYED_CLOSED)
                .asks(1, 1)
                .deletes(2, 1),
        );
    }
    // The loser is at the hard limit of the old one and does not wait for the winner to delete it.
    let lost = [RekeyChild(A), RekeyChild(B), Arrives(Ask(A)), Arrives(Ask(B)), Arrives(Answer(A)), HardLimit(B)];
    let seen = |more: &[Step]| lost.iter().chain(more).cloned().collect::<Vec<_>>();
    for place in [2, 3] {
        let name = PLACES[place];
        let early = seen(&[Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Delete(B)), Pass(20), Arrives(Answer(B))]);
        let late = seen(&[Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Answer(B)), Arrives(Delete(B))]);
        for (when, a, steps) in [("before the winner has decided", 0, early), ("when the winner does so", 1, late)] {
            let variant = format!("lowest nonce in {name}, the loser deletes the old one {when}");
            rows.push(
                row("C23", variant, steps)
                    .lowest(place)
                    .tells(REKEYED, &["child-sa.hard-expired", "child-sa.rekeyed"])
                    .asks(1, 1)
                    .deletes(a, 2)
                    .gaps("the loser is at its hard limit and must use the new SA before the winner can have it"),
            );
        }
    }
    rows
}

/// C17 to C19: the peer sees our request only when its own rekeying is over.
fn unseen() -> Vec<Row> {
    let begin = |more: &[Step]| {
        let begun = [RekeyChild(A), RekeyChild(B), Arrives(Ask(B)), Arrives(Answer(A))];
        begun.iter().chain(more).cloned().collect::<Vec<_>>()
    };
    let over = |scenario, variant: String, steps| {
        row(scenario, variant, steps).tells(REKEYED, REKEYED).asks(1, 1).deletes(0, 1)
    };
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let orders = [
            ("refusal before the DELETE", vec![Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))]),
            ("refusal after the DELETE", vec![Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))]),
            (
                "refusal after the DELETE is answered",
                vec![Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Answer(B))],
            ),
            (
                "refusal long before the DELETE",
                vec![Arrives(Ask(A)), Arrives(Answer(B)), Pass(100), Arrives(Delete(B))],
            ),
        ];
        for (order, steps) in orders {
            //= RFC 7296 §2.25.1: a request to rekey what is being closed is answered with TEMPORARY_FAILURE
            rows.push(
                over("C17", format!("lowest nonce in {name}, {order}"), begin(&steps)).lowest(place).refused(1, 0),
            );
        }
    }
    for (order, steps) in [
        ("not found comes at once", vec![Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Ask(A)), Arrives(Answer(B))]),
        (
            "after packets on the new one",
            vec![Pass(30), Arrives(Delete(B)), Arrives(Deleted(A)), Pass(30), Arrives(Ask(A))],
        ),
        ("not found is lost at first", vec![Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Ask(A)), Lost(Answer(B))]),
    ] {
        let seconds = if order.contains("lost") { 5 } else { 1 };
        rows.push(over("C18", order.into(), begin(&steps)).within(seconds));
    }
    for (order, more) in [
        ("not found comes at once", vec![Arrives(Ask(A)), Arrives(Answer(B))]),
        ("after the DELETE of the new one is answered", vec![Pass(11), Arrives(Deleted(A)), Arrives(Ask(A))]),
        ("not found is lost at first", vec![Arrives(Ask(A)), Lost(Answer(B))]),
    ] {
        let gone = [Arrives(Delete(B)), Arrives(Deleted(A)), Close(B, "net"), Pass(11), Arrives(Delete(B))];
        let steps: Vec<_> = gone.into_iter().chain(more).collect();
        let seconds = if order.contains("lost") { 5 } else { 1 };
        let row = over("C19", order.into(), begin(&steps)).within(seconds);
        rows.push(row.leaves(0, 1).tells(REKEYED_CLOSED, REKEYED_CLOSED).deletes(0, 2));
    }
    rows
}

/// C21, C22: both guess the key exchange method wrong.
fn guessed() -> Vec<Row> {
    let refused = [
        RekeyChild(A),
        RekeyChild(B),
        Arrives(Ask(A)),
        Arrives(Ask(B)),
        Arrives(Answer(A)),
        Arrives(Answer(B)),
        OldStands,
    ];
    let begin = |more: &[Step]| refused.iter().chain(more).cloned().collect::<Vec<_>>();
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let steps = begin(&[Arrives(Ask(A)), Arrives(Ask(B)), Arrives(Answer(A)), Arrives(Answer(B))]);
        let variant = format!("lowest nonce in {name}");
        rows.push(row("C21", variant, steps).lowest(place).tells(REKEYED, REKEYED).asks(2, 2).deletes(1, 1));
    }
    let delayed = [Arrives(Ask(B)), Arrives(Answer(A))];
    for (order, refusals, more) in [
        ("refused before the DELETE", 1, vec![Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))]),
        ("refused after the DELETE", 1, vec![Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))]),
        (
            "not found after the DELETE",
            0,
            vec![Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Ask(A)), Arrives(Answer(B))],
        ),
    ] {
        let steps: Vec<_> = delayed.iter().cloned().chain(more).collect();
        let variant = format!("A's second request is delayed and {order}");
        rows.push(
            row("C22", variant, begin(&steps)).tells(REKEYED, REKEYED).asks(2, 2).deletes(0, 1).refused(refusals, 0),
        );
    }
    rows.into_iter().map(|row| row.configured(other_guesses)).collect()
}

/// X3: the DELETE of what A has rekeyed is lost, and B, whose own request to rekey that was lost as well, repeats it.
fn reminded() -> Vec<Row> {
    let begun = [
        RekeyChild(A),
        RekeyChild(B),
        Lost(Ask(B)),
        Arrives(Ask(A)),
        Pass(50),
        Arrives(Answer(B)),
        Lost(Delete(A)),
        Pass(3_970),
    ];
    // The DELETE is repeated ahead of the refusal, before its own time.
    let steps = begun.into_iter().chain([Arrives(Ask(B)), Arrives(Delete(A)), Arrives(Answer(A))]).collect();
    let variant = "request and DELETE are lost at first, the DELETE comes before the refusal";
    vec![row("X3", variant, steps).tells(REKEYED, REKEYED).asks(1, 1).deletes(1, 0).refused(0, 1)]
}

#[test]
fn rekey_child() {
    check(&rows());
}
