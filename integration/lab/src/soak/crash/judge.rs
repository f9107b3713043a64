//! The judge: what the wire, charon, the witnesses and the receiver of webhooks know, against the rows of the history.
//!
//! What must hold where a run of the daemon was cut off:
//!
//! - It answered: the event is in the spool before the response leaves. An SA whose response was seen on the link, from gateway A, must be there.
//! - It asked: it knows of the SA once it has taken notice of the peer's response. That SA may be missing if the daemon was dead within
//!   [`BOUNDARY`] of that response *and* nothing that it sent later shows that it had noticed: no later request of its own in that IKE SA (it has
//!   one under way at a time), none in the IKE SA that was made, no ESP on the SPI that the response told. These are the excused ones.
//! - The other way round, an SA that is there was answered on the wire, except for one the peer had asked for within [`BOUNDARY`] of the end: the
//!   spool was written and the response did not leave any more. These are the unsent ones.
//! - Of two rekeyings of a CHILD SA that cross, the redundant one (RFC 7296 §2.8.1) is never installed in gateway A if A asked for it, and need not
//!   be there. Of two of an IKE SA, the redundant one is never in use at all; while A does not know which one that is, neither is.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;

use super::kept::{ChildRow, EventRow, IkeRow, Kept};
use super::receiver::Accounts;
use super::truth::{ChildFact, IkeFact, Origin, Truth};
use super::wire::WallTime;
use super::witness::Records;

/// How long before the end of a run a message may come without being noticed any more.
pub(super) const BOUNDARY: Duration = Duration::from_secs(2);
/// How far clocks that are read at different moments of one thing may differ.
const SLACK: Duration = Duration::from_secs(3);

/// One run of the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Not before.
    pub(super) begin: WallTime,
    /// Not after, where it has ended.
    pub(super) end: Option<WallTime>,
    /// By SIGKILL.
    pub(super) killed: bool,
}

/// All that is known.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) truth: Truth,
    /// Pairs of SPIs that charon says it has, as gateway A sees them.
    pub(super) charon: BTreeSet<(u32, u32)>,
    pub(super) lives: Vec<Life>,
    pub(super) records: Records,
    /// Nothing without webhooks.
    pub(super) accounts: Option<Accounts>,
    pub(super) kept: Kept,
}

/// What came of it. Each finding is a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) lost: Vec<String>,
    pub(super) duplicated: Vec<String>,
    pub(super) webhooks_lost: Vec<String>,
    /// Rows that cannot be true, and evidence that does not fit together.
    pub(super) wrong: Vec<String>,
    /// For how long a response had been there that was not noticed any more.
    pub(super) excused: Vec<Duration>,
    pub(super) unsent: u64,
    /// Redundant SAs of crossing rekeyings that were not in use and are not there.
    pub(super) redundant: u64,
    pub(super) ikes: u64,
    pub(super) children: u64,
}

impl Verdict {
    pub(super) fn is_clean(&self) -> bool {
        [&self.lost, &self.duplicated, &self.webhooks_lost, &self.wrong].iter().all(|findings| findings.is_empty())
    }
}

/// Judges.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let mut judge = Judge { evidence, verdict: Verdict::default() };
    judge.reading();
    judge.ikes();
    judge.children();
    judge.numbers();
    judge.told();
    judge.events_of_rows();
    judge.webhooks();
    judge.verdict
}

struct Judge<'a> {
    evidence: &'a Evidence,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    fn life(&self, at: WallTime) -> Option<usize> {
        self.evidence.lives.iter().position(|life| life.begin <= at && life.end.is_none_or(|end| at <= end))
    }

    fn end(&self, origin: &Origin) -> Option<WallTime> {
        self.life(origin.root).and_then(|life| self.evidence.lives.get(life)?.end)
    }

    /// The capture was read as charon sees it.
    fn reading(&mut self) {
        let facts = &self.evidence.truth.children;
        let pairs: BTreeMap<_, _> = facts.iter().filter_map(|fact| Some((pair(fact)?, fact))).collect();
        let unknown = self.evidence.charon.iter().filter(|pair| !pairs.contains_key(pair));
        self.verdict
            .wrong
            .extend(unknown.map(|pair| format!("charon has {}, which the capture does not show", spis(*pair))));
        let unsaid = pairs.iter().filter(|(pair, fact)| fact.origin.by_a && !self.evidence.charon.contains(pair));
        self.verdict
            .wrong
            .extend(unsaid.map(|(pair, _)| format!("the capture shows {}, which charon does not have", spis(*pair))));
        if self.evidence.truth.unread > 0 {
            self.verdict.wrong.push(format!("{} messages could not be decrypted", self.evidence.truth.unread));
        }
    }

    fn ikes(&mut self) {
        let rows = &self.evidence.kept.ikes;
        let mut left: BTreeSet<usize> = (0..rows.len()).collect();
        for fact in &self.evidence.truth.ikes {
            let fits = |row: &IkeRow| row.spis.0 == fact.spis.0 && fact.spis.1.is_none_or(|spi| spi == row.spis.1);
            let found = find(rows, &mut left, fits);
            let name = format!("IKE SA {:016x}_i {:016x}_r", fact.spis.0, fact.spis.1.unwrap_or(0));
            self.verdict.ikes += u64::from(fact.origin.answered.is_some());
            let redundant = fact.origin.lost || fact.origin.undecided;
            if let Some(row) = self.settle(&name, &fact.origin, redundant, &found).and_then(|at| rows.get(at)) {
                self.plausible_ike(&name, fact, row);
            }
        }
        let invented = left.into_iter().filter_map(|at| rows.get(at));
        self.verdict.wrong.extend(invented.map(|row| format!("never on the wire: {row:?}")));
    }

    fn children(&mut self) {
        let rows = &self.evidence.kept.children;
        let mut left: BTreeSet<usize> = (0..rows.len()).collect();
        for fact in &self.evidence.truth.children {
            let fits = |row: &ChildRow| match (fact.spi_in, fact.spi_out) {
                (Some(spi_in), Some(spi_out)) => (row.spi_in, row.spi_out) == (spi_in, spi_out),
                // Without a response of the peer nobody in gateway A can know such an SA.
                (Some(_), None) | (None, None) => false,
                (None, Some(spi_out)) => row.spi_out == spi_out,
            };
            let found = find(rows, &mut left, fits);
            let name = format!("CHILD SA {}", spis((fact.spi_in.unwrap_or(0), fact.spi_out.unwrap_or(0))));
            self.verdict.children += u64::from(fact.origin.answered.is_some());
            let redundant = fact.origin.by_a && fact.origin.lost;
            if let Some(row) = self.settle(&name, &fact.origin, redundant, &found).and_then(|at| rows.get(at)) {
                self.plausible_child(&name, fact, row);
            }
        }
        let invented = left.into_iter().filter_map(|at| rows.get(at));
        self.verdict.wrong.extend(invented.map(|row| format!("never on the wire: {row:?}")));
    }

    /// Whether what was found for an SA is as it must be; gives the row.
    fn settle(&mut self, name: &str, origin: &Origin, redundant: bool, found: &[usize]) -> Option<usize> {
        let since_end =
            |at: WallTime| self.end(origin).map(|end| end.saturating_sub(at)).filter(|since| *since <= BOUNDARY);
        match (found, origin.answered) {
            ([], None) => {}
            ([], Some(_)) if redundant => self.verdict.redundant += 1,
            ([], Some(answered)) => match since_end(answered).filter(|_| origin.by_a && !origin.noticed) {
                Some(since) => self.verdict.excused.push(since),
                None => {
                    let story = self.evidence.truth.stories.get(&origin.within).cloned().unwrap_or_default();
                    let (told, story) = (told(origin, self.end(origin)), story.join("\n      "));
                    self.verdict.lost.push(format!("{name}, {told}\n      {story}"));
                }
            },
            ([_], None) => match since_end(origin.asked) {
                Some(_) => self.verdict.unsent += 1,
                None => {
                    self.verdict.wrong.push(format!("{name} was never answered, {}", told(origin, self.end(origin))))
                }
            },
            ([at], Some(_)) => return Some(*at),
            (several, _) => self.verdict.duplicated.push(format!("{name}: {} rows", several.len())),
        }
        None
    }

    fn plausible_ike(&mut self, name: &str, fact: &IkeFact, row: &IkeRow) {
        let mut wrong = self.plausible(&fact.origin, &row.boot, row.from, row.until, row.cause.as_deref());
        if (row.initiator, row.generation) != (fact.initiator, fact.generation) {
            wrong.push("who began it, or its generation");
        }
        if !wrong.is_empty() {
            self.verdict.wrong.push(format!("{name}: {}; {row:?}, {fact:?}", wrong.join(", ")));
        }
    }

    fn plausible_child(&mut self, name: &str, fact: &ChildFact, row: &ChildRow) {
        let mut wrong = self.plausible(&fact.origin, &row.boot, row.from, row.until, row.cause.as_deref());
        if fact.generation != Some(row.generation) {
            wrong.push("its generation");
        }
        if fact.local.as_ref().is_none_or(|local| !row.local.starts_with(local.as_str())) {
            wrong.push("its selectors");
        }
        let mut successors =
            self.evidence.truth.children.iter().filter(|next| next.replaces.is_some() && next.replaces == pair(fact));
        if row.cause.as_deref() == Some("rekeyed") && successors.next().is_none() {
            wrong.push("it was never rekeyed");
        }
        if row.cause.as_deref() == Some("collision-lost") && !fact.origin.lost {
            wrong.push("it lost no collision");
        }
        if !wrong.is_empty() {
            self.verdict.wrong.push(format!("{name}: {}; {row:?}, {fact:?}", wrong.join(", ")));
        }
    }

    /// What is wrong about the run, the times and the end of an SA.
    fn plausible(
        &self,
        origin: &Origin,
        boot: &str,
        from: WallTime,
        until: Option<WallTime>,
        cause: Option<&str>,
    ) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let life = self.life(origin.root);
        let of_boot = self.evidence.kept.boots.get(boot).and_then(|(started, _)| self.life(*started));
        if life.is_none() || life != of_boot {
            wrong.push("its run of the daemon");
        }
        let answered = origin.answered.unwrap_or(origin.asked);
        if from + SLACK < origin.asked || from > answered + SLACK {
            wrong.push("when it came up");
        }
        let life = life.and_then(|life| self.evidence.lives.get(life));
        let has_ended = life.is_some_and(|life| life.end.is_some());
        if has_ended && (until.is_none() || cause.is_none()) {
            wrong.push("it is still open");
        }
        if cause == Some("daemon-died") && !life.is_some_and(|life| life.killed) {
            wrong.push("the daemon did not die");
        }
        wrong
    }

    /// The events of each run are numbered without a gap up to the last.
    fn numbers(&mut self) {
        let mut runs: BTreeMap<&str, Vec<&EventRow>> = BTreeMap::new();
        for event in &self.evidence.kept.events {
            runs.entry(&event.boot).or_default().push(event);
        }
        for (boot, (_, last)) in &self.evidence.kept.boots {
            let events = runs.remove(boot.as_str()).unwrap_or_default();
            let mut next = 1;
            for event in events {
                if event.seq < next {
                    self.verdict.duplicated.push(format!("event {} of run {boot}", event.seq));
                }
                self.verdict.lost.extend((next..event.seq).map(|seq| format!("event {seq} of run {boot}")));
                next = event.seq.max(next - 1) + 1;
            }
            self.verdict.lost.extend((next..=*last).map(|seq| format!("event {seq} of run {boot}")));
        }
        self.verdict.wrong.extend(runs.keys().map(|boot| format!("events of run {boot}, which is not there")));
    }

    /// What witnesses were told is there, word for word.
    fn told(&mut self) {
        let by_ulid: BTreeMap<&str, &EventRow> =
            self.evidence.kept.events.iter().map(|event| (&*event.ulid, event)).collect();
        for (ulid, record) in &self.evidence.records {
            match by_ulid.get(ulid.as_str()) {
                None => self.verdict.lost.push(format!("event {record}")),
                Some(event) if event.data != *record => {
                    self.verdict.wrong.push(format!("event {ulid} differs: {record} was told, {} is kept", event.data));
                }
                Some(_) => {}
            }
        }
    }

    /// Each SA that is there came up by an event, and the other way round.
    fn events_of_rows(&mut self) {
        let kept = &self.evidence.kept;
        let of_child = |sa: &Json| Some((sa.get("spi_in")?.as_u64()?, sa.get("spi_out")?.as_u64()?));
        let of_ike = |sa: &Json| Some((sa.get("initiator_spi")?.as_u64()?, sa.get("responder_spi")?.as_u64()?));
        let mut children = BTreeSet::new();
        let mut ikes = BTreeSet::new();
        for event in &kept.events {
            let record: Json = serde_json::from_str(&event.data).unwrap_or(Json::Null);
            let Some(kind) = record.get("type").and_then(Json::as_str) else {
                self.verdict.wrong.push(format!("no record: {}", event.data));
                continue;
            };
            let came_up = match kind {
                "child-sa.installed" | "child-sa.prepared" => {
                    record.get("child").and_then(of_child).map(|pair| children.insert(pair))
                }
                "child-sa.rekeyed" => record.get("new").and_then(of_child).map(|pair| children.insert(pair)),
                "ike-sa.established" | "ike-sa.prepared" => {
                    record.get("ike").and_then(of_ike).map(|pair| ikes.insert(pair))
                }
                "ike-sa.rekeyed" => record.get("new").and_then(of_ike).map(|pair| ikes.insert(pair)),
                _ => Some(true),
            };
            if came_up.is_none() {
                self.verdict.wrong.push(format!("no SPIs: {}", event.data));
            }
        }
        let child_rows = kept.children.iter().map(|row| (row.spi_in.into(), row.spi_out.into())).collect();
        let ike_rows = kept.ikes.iter().map(|row| row.spis).collect();
        self.same("CHILD SA", &children, &child_rows);
        self.same("IKE SA", &ikes, &ike_rows);
    }

    fn same(&mut self, what: &str, events: &BTreeSet<(u64, u64)>, rows: &BTreeSet<(u64, u64)>) {
        let name = |pair: &(u64, u64)| format!("{what} {:08x} {:08x}", pair.0, pair.1);
        let lost = &mut self.verdict.lost;
        lost.extend(events.difference(rows).map(|pair| format!("the row of {}, which an event tells of", name(pair))));
        lost.extend(rows.difference(events).map(|pair| format!("the event by which {} came up", name(pair))));
    }

    fn webhooks(&mut self) {
        let Some(accounts) = &self.evidence.accounts else { return };
        let mut unknown: BTreeSet<&str> = accounts.keys().map(String::as_str).collect();
        for event in &self.evidence.kept.events {
            unknown.remove(event.ulid.as_str());
            let Some(account) = accounts.get(&event.ulid).filter(|account| account.accepted > 0) else {
                let seen = accounts.get(&event.ulid).map_or(0, |account| account.seen);
                self.verdict.webhooks_lost.push(format!("{} came {seen} times and was never accepted", event.data));
                continue;
            };
            let body: Json = serde_json::from_str(&account.body).unwrap_or(Json::Null);
            let record: Json = serde_json::from_str(&event.data).unwrap_or(Json::Null);
            if body.get("data") != Some(&record) || body.get("id").and_then(Json::as_str) != Some(&*event.ulid) {
                self.verdict.wrong.push(format!("webhook {} for {}", account.body, event.data));
            }
            let state = self.evidence.kept.deliveries.get(&event.ulid).map(String::as_str);
            if state != Some("delivered") {
                self.verdict.wrong.push(format!("delivery of {} is {state:?}", event.ulid));
            }
        }
        self.verdict.wrong.extend(unknown.iter().map(|ulid| format!("webhook {ulid} is of no event")));
    }
}

fn find<R>(rows: &[R], left: &mut BTreeSet<usize>, fits: impl Fn(&R) -> bool) -> Vec<usize> {
    let found: Vec<usize> = left.iter().copied().filter(|at| rows.get(*at).is_some_and(&fits)).collect();
    for at in &found {
        left.remove(at);
    }
    found
}

pub(super) fn pair(fact: &ChildFact) -> Option<(u32, u32)> {
    fact.origin.answered.and(fact.spi_in.zip(fact.spi_out))
}

fn spis((spi_in, spi_out): (u32, u32)) -> String {
    format!("{spi_in:08x}_i {spi_out:08x}_o")
}

fn told(origin: &Origin, end: Option<WallTime>) -> String {
    let by = if origin.by_a { "A" } else { "charon" };
    let age =
        |at: WallTime| end.map_or("never".into(), |end| format!("{} ms later", end.saturating_sub(at).as_millis()));
    let answered = origin.answered.map_or("not answered".into(), |at| format!("answered at {:.6}", at.as_secs_f64()));
    format!(
        "{by} asked for it, {answered}, dead {}, noticed: {}, lost: {}",
        age(origin.answered.unwrap_or(origin.asked)),
        origin.noticed,
        origin.lost
    )
}
