//! Rekeyings of the IKE SA: alone, crossing the peer's, and meeting its end (RFC 7296 §1.3.2, §2.8.2, §2.25.2, §1.4.1).

use ike_model::Connection;
use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, Who, config};

use super::row::{Message::*, PLACES, Row, Step, Step::*, row, winner};
use super::run::check;

const REKEYED: &[&str] = &["ike-sa.rekeyed"];
const CLOSED: &[&str] = &["child-sa.closed", "ike-sa.closed"];
const P256: KeyExchangeId = KeyExchangeId::ECP_256;
const P384: KeyExchangeId = KeyExchangeId::ECP_384;
const X25519: KeyExchangeId = KeyExchangeId::CURVE_25519;

fn three_methods(who: Who, mut connection: Connection) -> Connection {
    let methods = if who == A { [P256, P384, X25519] } else { [P256, X25519, P384] };
    connection.proposals = vec![config::ike_proposal(&methods)];
    connection
}

/// Rows of these scenarios.
pub(super) fn rows() -> Vec<Row> {
    [alone(), crossing(), late(), used(), unseen(), guessed(), ended()].into_iter().flatten().collect()
}

/// I1, I3.
fn alone() -> Vec<Row> {
    let plain =
        |scenario, variant: &str, steps| row(scenario, variant, steps).tells(REKEYED, REKEYED).asks(1, 0).deletes(1, 0);
    let begun = || vec![RekeyIke(A), Arrives(Ask(A)), Arrives(Answer(B))];
    let then = |more: &[Step]| begun().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    vec![
        //= RFC 7296 §1.3.2: a CREATE_CHILD_SA exchange, and a DELETE of the old IKE SA by the one who began
        plain("I1", "plain", vec![RekeyIke(A)]),
        plain("I1", "the new one rekeys a CHILD SA at once", vec![RekeyIke(A), Flows, Pass(30), RekeyChild(B)])
            .tells(&["ike-sa.rekeyed", "child-sa.rekeyed"], &["ike-sa.rekeyed", "child-sa.rekeyed"])
            .asks(1, 1)
            .deletes(1, 1),
        plain("I1", "request lost at first", vec![RekeyIke(A), Lost(Ask(A))]).within(5),
        plain("I1", "response lost at first", vec![RekeyIke(A), Arrives(Ask(A)), Lost(Answer(B))]).within(5),
        plain("I1", "DELETE lost at first", then(&[Lost(Delete(A))])).within(5),
        plain("I1", "response to the DELETE lost at first", then(&[Arrives(Delete(A)), Lost(Deleted(B))])).within(5),
        //= RFC 7296 §1.3: INVALID_KE_PAYLOAD names the method that is wanted, and the request is made again with that
        plain(
            "I3",
            "wrong guess of the method",
            vec![Computes(B, &[P384]), RekeyIke(A), Arrives(Ask(A)), Arrives(Answer(B)), OldStands],
        )
        .configured(three_methods)
        .asks(2, 0),
    ]
}

/// I5, both at once.
fn crossing() -> Vec<Row> {
    let mut rows = Vec::new();
    let both = |variant, place: usize, steps| {
        row("I5", variant, steps).lowest(place).tells(REKEYED, REKEYED).asks(1, 1).deletes(1, 1)
    };
    for (place, name) in PLACES.iter().enumerate() {
        let requests = [RekeyIke(A), RekeyIke(B), Arrives(Ask(A)), Arrives(Ask(B)), Pass(50)];
        for (order, responses) in [
            ("A's response first", [Arrives(Answer(A)), Arrives(Answer(B))]),
            ("B's response first", [Arrives(Answer(B)), Arrives(Answer(A))]),
        ] {
            //= RFC 7296 §2.8.2: the IKE SA made with the lowest of the four nonces is deleted by the end that made it
            let steps = requests.iter().chain(&responses).cloned().collect();
            rows.push(both(format!("lowest nonce in {name}, {order}"), place, steps));
        }
        for (a, b) in [(0, 0), (5, 0), (0, 5), (5, 25), (25, 5), (40, 40)] {
            let variant = format!("lowest nonce in {name}, key exchange takes {a} ms and {b} ms");
            // With the loser much slower, the DELETE of the old IKE SA comes before it has made anything.
            rows.push(both(variant, place, vec![RekeyIke(A), RekeyIke(B), Flows]).slow(a, b));
        }
    }
    rows
}

/// I10: a response comes after the DELETE of the peer.
fn late() -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let whose = if winner(place) == A { "the old" } else { "the redundant" };
        let steps = vec![
            RekeyIke(A),
            RekeyIke(B),
            Arrives(Ask(A)),
            Arrives(Ask(B)),
            Arrives(Answer(B)),
            Pass(50),
            Arrives(Delete(A)),
            Pass(50),
            Arrives(Answer(A)),
        ];
        let variant = format!("lowest nonce in {name}, response after the DELETE of {whose} one");
        rows.push(row("I10", variant, steps).lowest(place).tells(REKEYED, REKEYED).asks(1, 1).deletes(1, 1));
    }
    rows
}

/// I10: B has won and uses its new IKE SA before its response comes, or in place of it.
fn used() -> Vec<Row> {
    let begun = [RekeyIke(A), RekeyIke(B), Arrives(Ask(A)), Arrives(Ask(B)), Arrives(Answer(A))];
    let row = |variant: &str, more: &[Step], tells: &[&'static str]| {
        let steps = begun.iter().chain(more).cloned().collect();
        row("I10", variant, steps).lowest(0).tells(tells, tells)
    };
    let both = &["ike-sa.rekeyed", "child-sa.rekeyed"];
    //= RFC 7296 §2.8.2: both ends know which IKE SA stays once they have seen both exchanges, one of them earlier
    let rekeys = [Pass(50), RekeyChild(B), Arrives(Ask(B)), Pass(20), Arrives(Answer(A))];
    let then = |more: &[Step]| rekeys.iter().chain(more).cloned().collect::<Vec<_>>();
    vec![
        row("B rekeys a CHILD SA before its response comes", &then(&[Arrives(Answer(B))]), both)
            .asks(1, 2)
            .deletes(1, 2),
        row(
            "B rekeys a CHILD SA before its response and its DELETE come",
            &then(&[Arrives(Delete(B)), Arrives(Answer(B))]),
            both,
        )
        .asks(1, 2)
        .deletes(1, 2),
        row("B rekeys a CHILD SA, its response is lost", &then(&[Lost(Answer(B))]), both).asks(1, 2).deletes(0, 2),
        row(
            "B rekeys a CHILD SA, its response and its DELETE are lost",
            &then(&[Lost(Answer(B)), Lost(Delete(B))]),
            both,
        )
        .asks(1, 2)
        .deletes(1, 2)
        .within(5),
        row(
            "both rekey the CHILD SA, B before its response comes",
            &[RekeyChild(A), Pass(50), RekeyChild(B), Arrives(Ask(B)), Pass(20)],
            both,
        )
        .asks(2, 2)
        .deletes(2, 2),
    ]
}

/// I12 to I14: the peer never sees our request, or only when its own rekeying is over.
fn unseen() -> Vec<Row> {
    let over = |scenario, variant: &str, more: &[Step]| {
        let begun = [RekeyIke(A), RekeyIke(B), Arrives(Ask(B)), Arrives(Answer(A))];
        let steps = begun.iter().chain(more).cloned().collect();
        row(scenario, variant, steps).tells(REKEYED, REKEYED).asks(1, 1).deletes(0, 1)
    };
    vec![
        over("I12", "the request is lost", &[Lost(Ask(A)), Arrives(Delete(B))]),
        over("I12", "the request is lost, and the DELETE at first", &[Lost(Ask(A)), Lost(Delete(B))])
            .refused(1, 0)
            .within(5),
        over(
            "I12",
            "the request is repeated after the end",
            &[Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Ask(A))],
        ),
        //= RFC 7296 §2.25.2: a request to rekey an IKE SA that is being closed gets TEMPORARY_FAILURE
        over("I13", "refusal after the DELETE", &[Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))])
            .refused(1, 0),
        over(
            "I13",
            "refusal after the DELETE is answered",
            &[Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Answer(B))],
        )
        .refused(1, 0),
        over("I13", "refusal is lost", &[Arrives(Ask(A)), Lost(Answer(B)), Arrives(Delete(B))]),
        over("I14", "refusal before the DELETE", &[Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))])
            .refused(1, 0),
        over(
            "I14",
            "refusal long before the DELETE",
            &[Arrives(Ask(A)), Arrives(Answer(B)), Pass(1_000), Arrives(Delete(B))],
        )
        .refused(1, 0),
        over(
            "I14",
            "refusal before the DELETE, which is lost at first",
            &[Arrives(Ask(A)), Arrives(Answer(B)), Lost(Delete(B))],
        )
        .refused(1, 0)
        .within(5),
    ]
}

/// I8, I9: both guess the key exchange method wrong.
fn guessed() -> Vec<Row> {
    let begin = |more: &[Step]| {
        let computes = [Computes(A, &[P256, P384]), Computes(B, &[X25519, P384])];
        let refused = [
            RekeyIke(A),
            RekeyIke(B),
            Arrives(Ask(A)),
            Arrives(Ask(B)),
            Arrives(Answer(A)),
            Arrives(Answer(B)),
            OldStands,
        ];
        computes.iter().chain(&refused).chain(more).cloned().collect::<Vec<_>>()
    };
    let both = |scenario, variant: String, steps| {
        row(scenario, variant, steps).configured(three_methods).tells(REKEYED, REKEYED).asks(2, 2)
    };
    let mut rows = Vec::new();
    for (place, name) in PLACES.iter().enumerate() {
        let steps = begin(&[Arrives(Ask(A)), Arrives(Ask(B)), Arrives(Answer(A)), Arrives(Answer(B))]);
        rows.push(both("I8", format!("lowest nonce in {name}"), steps).lowest(place).deletes(1, 1));
    }
    let delayed = [Arrives(Ask(B)), Arrives(Answer(A))];
    for (order, refusals, more) in [
        ("refused before the DELETE", 1, vec![Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))]),
        ("refused after the DELETE", 1, vec![Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))]),
        ("comes after the end", 0, vec![Arrives(Delete(B)), Arrives(Deleted(A)), Arrives(Ask(A))]),
    ] {
        let steps: Vec<_> = delayed.iter().cloned().chain(more).collect();
        let variant = format!("A's second request is delayed and {order}");
        rows.push(both("I9", variant, begin(&steps)).deletes(0, 1).refused(refusals, 0));
    }
    rows
}

/// I16, I18, I19: rekeying against the end, and both ends at once.
fn ended() -> Vec<Row> {
    let gone = |scenario, variant: &str, more: &[Step]| {
        let steps = [RekeyIke(A), CloseIke(B)].iter().chain(more).cloned().collect();
        row(scenario, variant, steps).leaves(0, 0).tells(CLOSED, CLOSED).asks(1, 0).deletes(0, 1)
    };
    let both = |variant: &str, more: &[Step]| {
        let steps = [CloseIke(A), CloseIke(B)].iter().chain(more).cloned().collect();
        row("I19", variant, steps).leaves(0, 0).tells(CLOSED, CLOSED).deletes(1, 1)
    };
    vec![
        gone("I16", "requests cross", &[]).refused(1, 0),
        gone("I16", "refusal before the DELETE", &[Pass(11), Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))])
            .refused(1, 0),
        gone("I18", "the DELETE is lost at first", &[Arrives(Ask(A)), Arrives(Answer(B)), Lost(Delete(B))])
            .refused(1, 0)
            .within(5),
        gone("I18", "the DELETE is delayed for three seconds", &[Arrives(Ask(A)), Arrives(Answer(B)), Pass(3_000)])
            .refused(1, 0),
        //= RFC 7296 §1.4.1: each end answers the other's DELETE, and both are gone
        both("requests cross", &[]),
        both(
            "one is answered before the other arrives",
            &[Pass(11), Arrives(Delete(A)), Arrives(Deleted(B)), Arrives(Delete(B))],
        ),
        both("one is lost at first", &[Lost(Delete(A))]).within(5),
        both(
            "responses are lost at first",
            &[Pass(11), Arrives(Delete(A)), Arrives(Delete(B)), Lost(Deleted(A)), Lost(Deleted(B))],
        )
        .within(5),
    ]
}

#[test]
fn rekey_ike() {
    check(&rows());
}
