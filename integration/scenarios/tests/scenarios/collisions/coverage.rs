//! Every scenario has rows, or a reason why it has none; `COLLISIONS.md` shows both and is made here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::row::Row;
use super::{child_and_ike, close_child, rekey_child, rekey_ike, seen};

/// What covers a scenario.
enum Covered {
    /// Rows with its name.
    Rows,
    /// Tests that are no rows: module and function.
    Tests(&'static [(&'static str, &'static str)]),
    /// Rows, and these tests.
    Both(&'static [(&'static str, &'static str)]),
    /// Nothing, for this reason.
    Out(&'static str),
}
use Covered::{Both, Out, Rows, Tests};

/// Multiple key exchanges (RFC 9370) are not implemented.
const MULTIPLE: Covered = Out("needs multiple key exchanges (RFC 9370), which are not implemented");

/// All scenarios.
const SCENARIOS: &[(&str, &str, Covered)] = &[
    (
        "C1",
        "a CHILD SA is rekeyed",
        Both(&[("rekey_child", "from_either_side"), ("rekey_child", "the_responder_switches_on_the_first_packet")]),
    ),
    ("C2", "... with multiple key exchanges", MULTIPLE),
    ("C3", "... with a wrong guess of the key exchange method", Both(&[("invalid_ke", "while_rekeying_a_child")])),
    ("C4", "... with both", MULTIPLE),
    ("C5", "the responder meets a soft limit before the DELETE comes", Rows),
    ("C6", "the responder meets a hard limit before the DELETE comes", Rows),
    (
        "C7",
        "the new CHILD SA is closed before the DELETE of the old one comes",
        Both(&[("rekey_child", "closed_while_rekeyed")]),
    ),
    ("C8", "the peer does not know the CHILD SA any more", Rows),
    ("C9", "the peer deletes the old CHILD SA before its response is seen", Rows),
    ("C10", "nobody answers the DELETE of the old CHILD SA", Rows),
    (
        "C11",
        "both rekey the CHILD SA: requests and responses cross",
        Both(&[("at_once", "children"), ("at_once", "children_with_key_exchange")]),
    ),
    ("C12", "... with multiple key exchanges", MULTIPLE),
    ("C13", "... with multiple key exchanges on one side", MULTIPLE),
    ("C14", "... and one response comes after the peer's DELETE", Rows),
    ("C15", "... and after the DELETE of the new CHILD SA", Rows),
    ("C16", "C14 with multiple key exchanges", MULTIPLE),
    ("C17", "the peer sees our request when it has sent its DELETE: refused", Rows),
    ("C18", "the peer sees our request when its DELETE is answered: not found", Rows),
    ("C19", "... and the new CHILD SA is deleted too", Rows),
    ("C20", "C17 with multiple key exchanges", MULTIPLE),
    ("C21", "both guess the key exchange method wrong, and the second requests collide", Rows),
    ("C22", "... and one of them is delayed, so that one end sees no collision", Rows),
    ("C23", "the loser of a collision deletes the old CHILD SA", Rows),
    ("C24", "rekeying and closing of a CHILD SA cross", Rows),
    ("C25", "... with multiple key exchanges", MULTIPLE),
    ("C26", "... and the DELETE is late", Rows),
    ("C27", "... and the rekey request is late", Rows),
    ("C28", "the new CHILD SA is closed before the response that makes it is seen", Rows),
    ("C29", "rekeying of a CHILD SA and of the IKE SA cross", Both(&[("at_once", "one_of_each")])),
    ("C30", "rekeying of a CHILD SA and closing of the IKE SA cross", Rows),
    ("C31", "making of a CHILD SA and rekeying of the IKE SA cross", Rows),
    ("C32", "closing of a CHILD SA and rekeying of the IKE SA cross", Rows),
    ("C33", "closing of a CHILD SA and of the IKE SA cross", Rows),
    ("C34", "both close the CHILD SA", Rows),
    ("C35", "... and one message is lost or late", Rows),
    ("C36", "a CHILD SA is wanted that is there", Rows),
    ("I1", "the IKE SA is rekeyed", Both(&[("rekey_ike", "from_either_side")])),
    ("I2", "... with multiple key exchanges", MULTIPLE),
    ("I3", "... with a wrong guess of the key exchange method", Rows),
    ("I4", "... with both", MULTIPLE),
    ("I5", "both rekey the IKE SA: requests and responses cross", Both(&[("at_once", "ike_sas")])),
    ("I6", "... with multiple key exchanges", MULTIPLE),
    ("I7", "... with multiple key exchanges on one side", MULTIPLE),
    ("I8", "both guess the key exchange method wrong, and the second requests collide", Rows),
    ("I9", "... and one of them is delayed", Rows),
    ("I10", "a response comes after the peer's DELETE", Rows),
    ("I11", "... with multiple key exchanges", MULTIPLE),
    ("I12", "our request never arrives; the peer's DELETE ends the attempt", Rows),
    ("I13", "our request arrives after the peer's DELETE was sent; the refusal comes after that", Rows),
    ("I14", "... the refusal comes before that", Rows),
    ("I15", "I13 with multiple key exchanges", MULTIPLE),
    ("I16", "rekeying and closing of the IKE SA cross", Rows),
    ("I17", "... with multiple key exchanges", MULTIPLE),
    ("I18", "... and the DELETE is lost at first", Rows),
    ("I19", "both close the IKE SA", Rows),
    (
        "X1",
        "a CHILD SA is rekeyed again before the old one is deleted",
        Both(&[
            ("collisions/seen", "both_again_and_again"),
            ("matrix", "a_second_rekeying_of_the_same_child_is_put_off"),
        ]),
    ),
    ("X2", "one of two crossing rekeyings is refused", Rows),
    ("X3", "a repeated request is refused after the peer's own rekeying", Rows),
    ("X4", "a response and a DELETE are processed in the wrong order", Rows),
    ("X5", "the link bounces while the IKE SA is rekeyed; late copies", Rows),
    (
        "X6",
        "the rekeying of an IKE SA dies while the peer is authenticated afresh",
        Tests(&[("collisions/seen", "a_rekeying_dies_while_authenticating_afresh")]),
    ),
    (
        "X7",
        "two peers choose the same SPI",
        Tests(&[("collisions/seen", "two_children_with_the_same_spi_of_their_peers")]),
    ),
    ("X8", "the configuration is loaded again while connecting", Rows),
    ("X9", "a child is wanted again and again while the peer is away", Rows),
    ("X10", "both begin the first IKE SA at once", Rows),
    ("X11", "a hard limit comes before the rekeying is over, alone and in a collision", Rows),
    (
        "X12",
        "the device loses what it holds in the middle of a rekeying",
        Both(&[("device", "in_the_middle_of_a_rekeying")]),
    ),
    (
        "X13",
        "a table is full when the rekeyed CHILD SA is to be installed",
        Both(&[("install", "rekeyed_child_refused")]),
    ),
    (
        "X14",
        "both make the same child at once: both CHILD SAs stay",
        Tests(&[("several", "both_ends_make_the_same_child_at_once")]),
    ),
];

fn all() -> Vec<Row> {
    [rekey_child::rows(), close_child::rows(), child_and_ike::rows(), rekey_ike::rows(), seen::rows()]
        .into_iter()
        .flatten()
        .collect()
}

/// Names of the rows, by scenario.
fn by_scenario(rows: &[Row]) -> BTreeMap<&str, Vec<&Row>> {
    let mut found: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| found.entry(row.scenario).or_default().push(row));
    found
}

#[test]
fn every_scenario_has_rows_or_a_reason() {
    let rows = all();
    let found = by_scenario(&rows);
    for (scenario, _, covered) in SCENARIOS {
        let has_rows = found.contains_key(scenario);
        match covered {
            Rows => assert!(has_rows, "{scenario} has no row"),
            Both(tests) => {
                assert!(has_rows, "{scenario} has no row");
                tests.iter().for_each(check_test);
            }
            Tests(tests) => {
                assert!(!has_rows, "{scenario} has rows and is not said to");
                tests.iter().for_each(check_test);
            }
            Out(_) => assert!(!has_rows, "{scenario} has rows and is said to be left out"),
        }
    }
    for scenario in found.keys() {
        assert!(SCENARIOS.iter().any(|(known, ..)| known == scenario), "no scenario is called {scenario}");
    }
    let mut names: Vec<_> = rows.iter().map(|row| (row.scenario, &row.variant)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two rows have the same name");
}

fn check_test((module, function): &(&str, &str)) {
    let path = format!("{}/tests/scenarios/{module}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).replace("\r\n", "\n");
    assert!(text.contains(&format!("#[test]\nfn {function}()")), "{path} has no test {function}");
}

fn document() -> String {
    let rows = all();
    let found = by_scenario(&rows);
    let mut text = String::from(
        "# Collisions\n\n\
         Made by the test `collisions::coverage::the_document_is_up_to_date`; `UPDATE_COLLISIONS=1 cargo test -p scenarios coverage` writes it.\n\n\
         C: CHILD SAs. I: the IKE SA. X: seen elsewhere. A row is a sequence of messages and orders in which A and B have given parts; each is \
         run twice, with the parts exchanged, under traffic in both directions. After every step the oracle checks that what may be under way \
         is received, that nothing is installed without an owner, that events come once and in order, and that repeated messages are the same \
         octets. Each row states the events, the numbers of messages and refusals, and when everything has come to rest.\n\n\
         | | scenario | rows and tests |\n|---|---|---|\n",
    );
    for (scenario, what, covered) in SCENARIOS {
        let mut parts: Vec<String> = found.get(scenario).into_iter().flatten().map(|row| variant(row)).collect();
        match covered {
            Tests(tests) | Both(tests) => {
                parts.extend(tests.iter().map(|(module, name)| format!("`{module}.rs: {name}`")))
            }
            Out(reason) => parts.push(format!("*left out: {reason}*")),
            Rows => {}
        }
        let _ = writeln!(text, "| {scenario} | {what} | {} |", parts.join("<br>"));
    }
    let out = SCENARIOS.iter().filter(|(.., covered)| matches!(covered, Out(_))).count();
    let _ = writeln!(
        text,
        "\n{} scenarios, {} of them with {} rows (each run twice) or tests, {out} left out.",
        SCENARIOS.len(),
        SCENARIOS.len() - out,
        rows.len()
    );
    text
}

fn variant(row: &Row) -> String {
    match row.gaps {
        None => row.variant.clone(),
        Some(reason) => format!("{} (packets may be lost: {reason})", row.variant),
    }
}

#[test]
fn the_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/COLLISIONS.md");
    let wanted = document();
    if std::env::var_os("UPDATE_COLLISIONS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        found == wanted,
        "COLLISIONS.md is out of date: run `UPDATE_COLLISIONS=1 cargo test -p scenarios coverage`"
    );
}
