//! The rules at the end of a run, one by one.

use super::*;

const SPIS: (u32, u32) = (0xc000_0001, 0xd000_0001);

fn at(milliseconds: u64) -> WallTime {
    Duration::from_millis(milliseconds)
}

/// A CHILD SA that was asked for at 8 s and answered 10 ms later, in a run that is killed at `end`.
fn fact(by_a: bool, noticed: bool) -> ChildFact {
    let origin = Origin {
        by_a,
        asked: at(8_000),
        answered: Some(at(8_010)),
        noticed,
        lost: false,
        undecided: false,
        root: at(5_000),
        within: (1, 2),
    };
    let (spi_in, spi_out) = SPIS;
    let local = Some("10.1.0.16".into());
    ChildFact { spi_in: Some(spi_in), spi_out: Some(spi_out), generation: Some(0), replaces: None, local, origin }
}

fn row() -> ChildRow {
    ChildRow {
        boot: "b1".into(),
        spi_in: SPIS.0,
        spi_out: SPIS.1,
        generation: 0,
        local: "10.1.0.16/28".into(),
        from: at(8_005),
        until: Some(at(20_000)),
        cause: Some("daemon-died".into()),
    }
}

fn verdict(fact: ChildFact, rows: &[ChildRow], end: u64) -> Verdict {
    let charon = pair(&fact).into_iter().collect();
    let truth = Truth { children: vec![fact], ..Truth::default() };
    let event = |(seq, row): (u64, &ChildRow)| EventRow {
        ulid: format!("{seq}"),
        boot: "b1".into(),
        seq,
        data: format!(
            r#"{{"type":"child-sa.installed","child":{{"spi_in":{},"spi_out":{}}}}}"#,
            row.spi_in, row.spi_out
        ),
    };
    let events: Vec<EventRow> = (1..).zip(rows).map(event).collect();
    let boots = [("b1".to_owned(), (at(1_000), events.len() as u64))].into();
    let kept = Kept { boots, children: rows.to_vec(), events, ..Kept::default() };
    let lives = vec![Life { begin: at(500), end: Some(at(end)), killed: true }];
    judge(&Evidence { truth, charon, lives, records: Vec::new(), accounts: None, kept })
}

#[test]
fn what_was_answered_has_to_be_there() {
    let late = verdict(fact(false, false), &[], 8_011);
    assert_eq!((late.lost.len(), late.excused.len()), (1, 0), "{late:?}");
    let kept = verdict(fact(false, false), &[row()], 8_011);
    assert!(kept.is_clean() && kept.children == 1, "{kept:?}");
}

#[test]
fn what_was_asked_for_may_be_missing_only_if_the_answer_was_not_noticed_any_more() {
    let count = |noticed, end| {
        let verdict = verdict(fact(true, noticed), &[], end);
        (verdict.lost.len(), verdict.excused.len())
    };
    assert_eq!(count(false, 8_100), (0, 1));
    assert_eq!(count(false, 8_005), (0, 1), "dead before it came");
    assert_eq!(count(true, 8_100), (1, 0), "something that was sent later shows that it was noticed");
    assert_eq!(count(false, 10_500), (1, 0), "there was time enough");
}

#[test]
fn what_was_never_answered_may_be_there_only_if_the_answer_was_cut_off() {
    let unanswered = || {
        let mut fact = fact(false, false);
        (fact.spi_in, fact.origin.answered) = (None, None);
        fact
    };
    let cut_off = verdict(unanswered(), &[row()], 8_100);
    assert!(cut_off.is_clean() && cut_off.unsent == 1, "{cut_off:?}");
    assert_eq!(verdict(unanswered(), &[row()], 10_500).wrong.len(), 1);
    assert!(verdict(unanswered(), &[], 10_500).is_clean());
}

#[test]
fn what_nobody_has_seen_or_is_there_twice_is_found() {
    let other = ChildRow { spi_out: 7, ..row() };
    assert_eq!(verdict(fact(false, false), &[row(), other], 8_100).wrong.len(), 1);
    assert_eq!(verdict(fact(false, false), &[row(), row()], 8_100).duplicated.len(), 1);
}

#[test]
fn what_cannot_be_true_of_a_row_is_found() {
    let changes: [fn(&mut ChildRow); 6] = [
        |row| row.generation = 1,
        |row| row.local = "10.1.0.32/28".into(),
        |row| row.from = at(12_000),
        |row| row.until = None,
        |row| row.cause = Some("rekeyed".into()),
        |row| row.cause = Some("collision-lost".into()),
    ];
    for change in changes {
        let mut row = row();
        change(&mut row);
        assert_eq!(verdict(fact(false, false), &[row.clone()], 8_100).wrong.len(), 1, "{row:?}");
    }
}
