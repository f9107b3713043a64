//! The judge judged: histories in which one thing is amiss, each of which it has to notice.

use lab::random::Random;

use super::judge::{Evidence, Verdict, judge};

/// What is amiss, and where it has to show.
type Tamper = (&'static str, fn(&mut Evidence, &mut Random) -> bool, fn(&Verdict) -> bool);

const TAMPERS: [Tamper; 10] = [
    ("a CHILD SA is missing", |all, random| take(&mut all.kept.children, random), |verdict| !verdict.lost.is_empty()),
    ("an IKE SA is missing", |all, random| take(&mut all.kept.ikes, random), |verdict| !verdict.lost.is_empty()),
    (
        "a CHILD SA is there twice",
        |all, random| again(&mut all.kept.children, random),
        |verdict| !verdict.duplicated.is_empty(),
    ),
    (
        "an IKE SA is there twice",
        |all, random| again(&mut all.kept.ikes, random),
        |verdict| !verdict.duplicated.is_empty(),
    ),
    ("a CHILD SA has another SPI", other_spi, |verdict| !verdict.lost.is_empty() && !verdict.wrong.is_empty()),
    ("a CHILD SA is of another generation", other_generation, |verdict| !verdict.wrong.is_empty()),
    ("an event is missing", |all, random| take(&mut all.kept.events, random), |verdict| !verdict.lost.is_empty()),
    ("an event is there twice", event_again, |verdict| !verdict.duplicated.is_empty()),
    ("an event says something else", other_event, |verdict| !verdict.wrong.is_empty()),
    ("a webhook was never accepted", unaccepted, |verdict| !verdict.webhooks_lost.is_empty()),
];

/// Tries all; gives how many there were and those that were not noticed.
pub(super) fn unnoticed(evidence: &Evidence, seed: u64) -> (usize, Vec<&'static str>) {
    let mut random = Random::new(seed);
    let (mut tried, mut unnoticed) = (0, Vec::new());
    for (what, tamper, shows) in TAMPERS {
        let mut tampered = evidence.clone();
        if tamper(&mut tampered, &mut random) {
            tried += 1;
            if !shows(&judge(&tampered)) {
                unnoticed.push(what);
            }
        }
    }
    (tried, unnoticed)
}

fn draw<T>(from: &[T], random: &mut Random) -> Option<usize> {
    usize::try_from(random.below(from.len() as u64)).ok().filter(|at| *at < from.len())
}

fn take<T>(from: &mut Vec<T>, random: &mut Random) -> bool {
    draw(from, random).map(|at| from.remove(at)).is_some()
}

fn again<T: Clone>(rows: &mut Vec<T>, random: &mut Random) -> bool {
    let row = draw(rows, random).and_then(|at| rows.get(at).cloned());
    row.map(|row| rows.push(row)).is_some()
}

fn other_spi(all: &mut Evidence, random: &mut Random) -> bool {
    let rows = &mut all.kept.children;
    draw(rows, random).and_then(|at| rows.get_mut(at)).map(|row| row.spi_out ^= 1).is_some()
}

fn other_generation(all: &mut Evidence, random: &mut Random) -> bool {
    let rows = &mut all.kept.children;
    draw(rows, random).and_then(|at| rows.get_mut(at)).map(|row| row.generation += 1).is_some()
}

fn event_again(all: &mut Evidence, random: &mut Random) -> bool {
    let rows = &mut all.kept.events;
    let Some(at) = draw(rows, random) else { return false };
    let Some(row) = rows.get(at).cloned() else { return false };
    rows.insert(at, row);
    true
}

fn other_event(all: &mut Evidence, random: &mut Random) -> bool {
    let Some((ulid, _)) = draw(&all.records, random).and_then(|at| all.records.get(at)) else { return false };
    let row = all.kept.events.iter_mut().find(|row| row.ulid == *ulid);
    row.map(|row| row.data = row.data.replace("\"seq\":", "\"seq\": ")).is_some()
}

fn unaccepted(all: &mut Evidence, random: &mut Random) -> bool {
    let ulid = draw(&all.kept.events, random).and_then(|at| all.kept.events.get(at)).map(|row| row.ulid.clone());
    let account = all.accounts.as_mut().zip(ulid).and_then(|(accounts, ulid)| accounts.get_mut(&ulid));
    account.map(|account| account.accepted = 0).is_some()
}
