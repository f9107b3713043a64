//! Rekeyings of a CHILD SA that meet its end, and ends that meet each other (RFC 7296 §1.4.1, §2.25.1).

use scenarios::{A, B};

use super::row::{Message::*, Row, Step, Step::*, row};
use super::run::check;

const CLOSED: &[&str] = &["child-sa.closed"];
const REKEYED_CLOSED: &[&str] = &["child-sa.rekeyed", "child-sa.closed"];

/// Rows of these scenarios.
pub(super) fn rows() -> Vec<Row> {
    rekeyed().into_iter().chain(closed_by_both()).collect()
}

/// C24, C26 to C28.
fn rekeyed() -> Vec<Row> {
    let gone = |scenario, variant: &str, steps| {
        row(scenario, variant, steps).leaves(0, 1).tells(CLOSED, CLOSED).asks(1, 0).deletes(0, 1)
    };
    let both = || vec![RekeyChild(A), Close(B, "net")];
    let then = |more: &[Step]| both().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    vec![
        //= RFC 7296 §2.25.1: the rekeying of a CHILD SA that is being closed gets TEMPORARY_FAILURE, its DELETE is honoured
        gone(
            "C24",
            "refusal before the DELETE",
            then(&[Pass(11), Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))]),
        )
        .refused(1, 0),
        gone(
            "C24",
            "DELETE before the refusal",
            then(&[Pass(11), Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))]),
        )
        .refused(1, 0),
        gone("C24", "both are answered at once", then(&[Pass(11), Arrives(Delete(B)), Arrives(Ask(A))])).refused(1, 0),
        gone("C26", "DELETE lost once", then(&[Arrives(Ask(A)), Arrives(Answer(B)), Lost(Delete(B))]))
            .refused(1, 0)
            .within(5),
        gone("C26", "DELETE delayed for five seconds", then(&[Arrives(Ask(A)), Arrives(Answer(B)), Pass(5_000)]))
            .refused(1, 0),
        gone(
            "C27",
            "rekey request after the DELETE",
            then(&[Pass(11), Arrives(Delete(B)), Pass(11), Arrives(Deleted(A)), Arrives(Ask(A))]),
        ),
        gone(
            "C27",
            "rekey request lost until the DELETE is over",
            then(&[Lost(Ask(A)), Pass(11), Arrives(Delete(B)), Pass(11), Arrives(Deleted(A))]),
        )
        .within(5),
        gone(
            "C28",
            "the new one is deleted before the response",
            vec![
                RekeyChild(A),
                Arrives(Ask(A)),
                Close(B, "net"),
                Arrives(Delete(B)),
                Arrives(Deleted(A)),
                Arrives(Answer(B)),
            ],
        )
        .tells(CLOSED, REKEYED_CLOSED)
        .deletes(1, 1),
        gone(
            "C28",
            "the new one is deleted, the response is lost at first",
            vec![RekeyChild(A), Arrives(Ask(A)), Lost(Answer(B)), Close(B, "net")],
        )
        .tells(CLOSED, REKEYED_CLOSED)
        .deletes(1, 1)
        .within(5),
    ]
}

/// C34, C35.
fn closed_by_both() -> Vec<Row> {
    let both = |scenario, variant: &str, more: Vec<Step>| {
        let steps = [Close(A, "net"), Close(B, "net")].into_iter().chain(more).collect();
        row(scenario, variant, steps).leaves(0, 1).tells(CLOSED, CLOSED).deletes(1, 1)
    };
    vec![
        //= RFC 7296 §1.4.1: the answer to the DELETE of what is being deleted names nothing
        both("C34", "requests cross", vec![]),
        both(
            "C34",
            "one is answered before the other arrives",
            vec![Pass(11), Arrives(Delete(A)), Arrives(Deleted(B)), Arrives(Delete(B))],
        ),
        both("C35", "one DELETE is lost at first", vec![Lost(Delete(A))]).within(5),
        both("C35", "one response is lost at first", vec![Pass(11), Arrives(Delete(A)), Lost(Deleted(B))]).within(5),
        both("C35", "one DELETE is delayed", vec![Pass(11), Arrives(Delete(B)), Arrives(Deleted(A)), Pass(1_000)]),
    ]
}

#[test]
fn close_child() {
    check(&rows());
}
