//! Exchanges for CHILD SAs that meet those for the IKE SA (RFC 7296 §2.25.2, §1.4.1).

use ike_model::Connection;
use scenarios::{A, B, Who, config};

use super::row::{Message::*, Row, Step, Step::*, row};
use super::run::check;

const CLOSED: &[&str] = &["child-sa.closed", "ike-sa.closed"];

pub(super) fn two_children(who: Who, mut connection: Connection) -> Connection {
    let at = if connection.local_addrs == config::connection("gw", A, B).local_addrs { A } else { B };
    let _ = who;
    connection.children.push(config::child("other", at, A + B - at, 1).into());
    connection
}

/// Rows of these scenarios.
pub(super) fn rows() -> Vec<Row> {
    [rekeyed(), made(), closed(), known()].into_iter().flatten().collect()
}

/// C29, C30.
fn rekeyed() -> Vec<Row> {
    const BOTH: &[&str] = &["child-sa.rekeyed", "ike-sa.rekeyed"];
    let crossed = |variant: &str, more: &[Step]| {
        let steps = [RekeyChild(A), RekeyIke(B)].iter().chain(more).cloned().collect();
        row("C29", variant, steps).tells(BOTH, BOTH).in_any_order().asks(2, 2).deletes(1, 1).refused(1, 1).within(31)
    };
    let ended = |variant: &str, more: &[Step]| {
        let steps = [RekeyChild(A), CloseIke(B)].iter().chain(more).cloned().collect();
        row("C30", variant, steps).leaves(0, 0).tells(CLOSED, CLOSED).asks(1, 0).deletes(0, 1)
    };
    vec![
        //= RFC 7296 §2.25.2: either request gets TEMPORARY_FAILURE, and both are made again
        crossed("requests cross", &[]),
        crossed("A is refused first", &[Arrives(Ask(A)), Arrives(Answer(B)), Pass(1_000), Arrives(Ask(B))])
            .asks(2, 1)
            .refused(1, 0),
        crossed("B is refused first", &[Arrives(Ask(B)), Arrives(Answer(A)), Pass(1_000), Arrives(Ask(A))])
            .asks(1, 2)
            .refused(0, 1),
        crossed(
            "both refusals are lost at first",
            &[Arrives(Ask(A)), Arrives(Ask(B)), Lost(Answer(A)), Lost(Answer(B))],
        )
        .within(35),
        ended("requests cross", &[]).refused(1, 0),
        ended("refusal before the DELETE", &[Pass(11), Arrives(Ask(A)), Arrives(Answer(B)), Arrives(Delete(B))])
            .refused(1, 0),
        ended(
            "response of the peer after the end",
            &[Pass(11), Arrives(Ask(A)), Arrives(Delete(B)), Arrives(Answer(B))],
        )
        .refused(1, 0),
        ended("DELETE lost at first", &[Arrives(Ask(A)), Arrives(Answer(B)), Lost(Delete(B))]).refused(1, 0).within(5),
    ]
}

/// C31.
fn made() -> Vec<Row> {
    const BOTH: &[&str] = &["child-sa.installed", "ike-sa.rekeyed"];
    let crossed = |variant: &str, more: &[Step]| {
        let steps = [Initiate(A, "other"), RekeyIke(B)].iter().chain(more).cloned().collect();
        row("C31", variant, steps)
            .configured(two_children)
            .leaves(2, 1)
            .tells(BOTH, BOTH)
            .in_any_order()
            .asks(2, 2)
            .deletes(0, 1)
            .refused(1, 1)
            .within(31)
            .gaps("the responder of a new CHILD SA uses it half a round trip before the initiator knows of it")
    };
    vec![
        crossed("requests cross", &[]),
        crossed("A is refused first", &[Arrives(Ask(A)), Arrives(Answer(B)), Pass(1_000), Arrives(Ask(B))])
            .asks(2, 1)
            .refused(1, 0),
        crossed("B is refused first", &[Arrives(Ask(B)), Arrives(Answer(A)), Pass(1_000), Arrives(Ask(A))])
            .asks(1, 2)
            .refused(0, 1),
        crossed(
            "both refusals are lost at first",
            &[Arrives(Ask(A)), Arrives(Ask(B)), Lost(Answer(A)), Lost(Answer(B))],
        )
        .within(35),
    ]
}

/// C32, C33.
fn closed() -> Vec<Row> {
    const FIRST: &[&str] = &["child-sa.closed", "ike-sa.rekeyed"];
    let crossed = |variant: &str, more: &[Step]| {
        let steps = [Close(A, "net"), RekeyIke(B)].iter().chain(more).cloned().collect();
        row("C32", variant, steps).leaves(0, 1).tells(FIRST, FIRST).asks(0, 2).deletes(1, 1).refused(0, 1).within(16)
    };
    let ended = |variant: &str, more: &[Step]| {
        let steps = [Close(A, "net"), CloseIke(B)].iter().chain(more).cloned().collect();
        row("C33", variant, steps).leaves(0, 0).tells(CLOSED, CLOSED).deletes(1, 1)
    };
    vec![
        crossed("requests cross", &[]),
        crossed("the refusal comes first", &[Arrives(Ask(B)), Arrives(Answer(A)), Pass(11), Arrives(Delete(A))]),
        crossed("the DELETE comes first", &[Pass(11), Arrives(Delete(A)), Arrives(Ask(B))]),
        crossed("the DELETE is lost at first", &[Arrives(Ask(B)), Lost(Delete(A))]),
        ended("requests cross", &[]),
        ended("the IKE SA's DELETE first", &[Pass(11), Arrives(Delete(B)), Arrives(Delete(A))]),
        ended("the CHILD SA's DELETE first", &[Pass(11), Arrives(Delete(A)), Arrives(Deleted(B)), Arrives(Delete(B))]),
        ended("the CHILD SA's DELETE is lost", &[Lost(Delete(A))]),
        ended("the IKE SA's DELETE is lost at first", &[Lost(Delete(B))]).within(5),
    ]
}

/// C36.
fn known() -> Vec<Row> {
    vec![
        row("C36", "wanted again while it stands", vec![Initiate(A, "net"), Initiate(B, "net")]),
        row(
            "C36",
            "wanted again while it is rekeyed",
            vec![RekeyChild(A), Initiate(A, "net"), Flows, Initiate(A, "net")],
        )
        .tells(&["child-sa.rekeyed"], &["child-sa.rekeyed"])
        .asks(1, 0)
        .deletes(1, 0),
        row(
            "C36",
            "wanted again while it is made",
            vec![Initiate(A, "other"), Initiate(A, "other"), Flows, Initiate(A, "other")],
        )
        .configured(two_children)
        .leaves(2, 1)
        .tells(&["child-sa.installed"], &["child-sa.installed"])
        .asks(1, 0)
        .gaps("the responder of a new CHILD SA uses it half a round trip before the initiator knows of it"),
    ]
}

#[test]
fn child_and_ike() {
    check(&rows());
}
