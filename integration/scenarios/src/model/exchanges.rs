//! The exchanges of a run, put together from what was sent and what arrived.

use std::collections::{BTreeMap, BTreeSet};

use ike_wire::ids::NotifyType;
use ipsec::Instant;

use crate::journal::{Happening, Sent};
use crate::meaning::Meaning;
use crate::{Who, World};

/// A CHILD SA, whichever end names it.
pub(super) type ChildId = usize;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    RekeyChild { old: ChildId, new: Option<ChildId> },
    RekeyIke,
    NewChild,
    DeleteChildren(Vec<ChildId>),
    DeleteIke,
    First,
    Other,
}

/// A request and its response. Moments are positions in the journal.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) ike: (u64, u64),
    pub(super) asker: Who,
    pub(super) peer: Option<Who>,
    pub(super) kind: Kind,
    pub(super) sent: usize,
    pub(super) repeated: bool,
    pub(super) arrived: Option<usize>,
    pub(super) arrived_time: Option<Instant>,
    pub(super) answer_sent: Option<usize>,
    pub(super) answer_arrived: Option<usize>,
    pub(super) answer_time: Option<Instant>,
    /// It is answered, and not with an error.
    pub(super) answered_well: bool,
    refused: Option<NotifyType>,
    nonces: (u64, u64),
}

impl Exchange {
    /// The asker knows that it has succeeded.
    pub(super) fn succeeded(&self) -> bool {
        self.answered_well && self.answer_arrived.is_some()
    }

    /// It is refused so, whether or not the asker knows.
    pub(super) fn is_refused(&self, kind: NotifyType) -> bool {
        self.refused == Some(kind)
    }

    /// It is refused with INVALID_KE_PAYLOAD.
    pub(super) fn is_detour(&self) -> bool {
        self.is_refused(NotifyType::INVALID_KE_PAYLOAD)
    }

    /// It is refused in a way that says nothing of another exchange.
    pub(super) fn refused_for_good(&self) -> bool {
        let passing = [NotifyType::INVALID_KE_PAYLOAD, NotifyType::TEMPORARY_FAILURE, NotifyType::CHILD_SA_NOT_FOUND];
        self.refused.is_some_and(|kind| !passing.contains(&kind))
    }

    /// Each was sent before the other arrived.
    pub(super) fn crosses(&self, other: &Self) -> bool {
        self.sent < other.arrived.unwrap_or(usize::MAX)
            && other.sent < self.arrived.unwrap_or(usize::MAX)
            && self.meets(other)
    }

    /// Both were under way at some moment.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let end = |x: &Self| x.answer_arrived.unwrap_or(usize::MAX);
        self.sent < end(other) && other.sent < end(self)
    }

    /// Where the lowest of the four nonces is: in our request, its answer, the other's request, its answer.
    pub(super) fn lowest_of(&self, other: &Self) -> usize {
        let nonces = [self.nonces.0, self.nonces.1, other.nonces.0, other.nonces.1];
        (0..4).min_by_key(|at| nonces[*at]).unwrap_or(0)
    }
}

/// All exchanges of a run, in the order of their first requests.
pub(super) struct Exchanges {
    pub(super) all: Vec<Exchange>,
    by_ike: BTreeMap<(u64, u64), Vec<usize>>,
    deletes: BTreeMap<ChildId, Vec<usize>>,
}

/// One name for the two SPIs of a CHILD SA.
#[derive(Default)]
struct Children {
    names: BTreeMap<(Who, u32), ChildId>,
    count: ChildId,
}

impl Children {
    fn name(&mut self, who: Who, spi: u32) -> ChildId {
        let count = &mut self.count;
        *self.names.entry((who, spi)).or_insert_with(|| {
            *count += 1;
            *count
        })
    }

    fn same(&mut self, one: (Who, u32), other: (Who, u32)) -> ChildId {
        let name = self.name(one.0, one.1);
        self.names.insert(other, name);
        name
    }
}

type Key = ((u64, u64), Who, u32);

/// The key of the exchange that a message belongs to.
fn key(sent: &Sent) -> Option<Key> {
    let asker = if sent.is_response() { sent.to? } else { sent.from };
    // IKE_SA_INIT begins without the responder's SPI.
    let first = matches!(sent.meaning, Meaning::First { .. }) && sent.header.message_id.0 == 0;
    let ike = if first { (sent.ike().0, 0) } else { sent.ike() };
    Some((ike, asker, sent.header.message_id.0))
}

impl Exchanges {
    pub(super) fn read(world: &World) -> Self {
        let mut reader = Reader::default();
        let datagrams = world.datagrams();
        for (at, entry) in world.journal().iter().enumerate() {
            match &entry.what {
                Happening::Sent(number) => reader.sent(at, &datagrams[*number]),
                Happening::Arrived { number: Some(number), .. } => reader.arrived(at, entry.at, &datagrams[*number]),
                Happening::Arrived { number: None, .. }
                | Happening::Told(..)
                | Happening::Asked(..)
                | Happening::Backend(..)
                | Happening::Refused(_)
                | Happening::Mark(_)
                | Happening::Restarted(_) => {}
            }
        }
        reader.finish()
    }

    /// Exchanges of the other end below the same IKE SA.
    pub(super) fn others<'e>(&'e self, x: &'e Exchange) -> impl Iterator<Item = &'e Exchange> {
        let together = self.by_ike.get(&x.ike).into_iter().flatten().map(|at| &self.all[*at]);
        together.filter(move |y| y.asker != x.asker)
    }

    /// The next exchange of the same end for the same thing.
    pub(super) fn retry_of(&self, x: &Exchange) -> Option<&Exchange> {
        let together = self.by_ike.get(&x.ike)?.iter().map(|at| &self.all[*at]);
        let same = |y: &&Exchange| {
            let same = match (&x.kind, &y.kind) {
                (Kind::RekeyChild { old, .. }, Kind::RekeyChild { old: other, .. }) => old == other,
                (one, other) => one == other,
            };
            y.asker == x.asker && y.sent > x.sent && same
        };
        together.filter(same).min_by_key(|y| y.sent)
    }

    /// Deletes of a CHILD SA, by either end.
    pub(super) fn deletes(&self, child: ChildId) -> impl Iterator<Item = &Exchange> {
        self.deletes.get(&child).into_iter().flatten().map(|at| &self.all[*at])
    }

    /// Deletes of an IKE SA, by either end.
    pub(super) fn ike_deletes(&self, ike: (u64, u64)) -> impl Iterator<Item = &Exchange> {
        let together = self.by_ike.get(&ike).into_iter().flatten().map(|at| &self.all[*at]);
        together.filter(|x| x.kind == Kind::DeleteIke)
    }

    /// Whether a delete follows a rekeying of the same end: it deletes the old SA.
    pub(super) fn is_rekeyed_by(&self, delete: &Exchange) -> bool {
        let Kind::DeleteChildren(gone) = &delete.kind else { return false };
        let together = self.by_ike.get(&delete.ike).into_iter().flatten().map(|at| &self.all[*at]);
        let mut own = together.filter(|x| x.asker == delete.asker && x.sent < delete.sent && x.succeeded());
        own.any(|x| matches!(x.kind, Kind::RekeyChild { old, .. } if gone.contains(&old)))
    }

    /// Whether the backend refuses something at this moment, before the gateway sends anything more.
    pub(super) fn refused_at(&self, world: &World, who: Who, at: usize) -> bool {
        for entry in &world.journal()[at..] {
            if matches!(&entry.what, Happening::Refused(refused) if *refused == who) {
                return true;
            }
            if matches!(&entry.what, Happening::Sent(number) if world.datagrams()[*number].from == who) {
                return false;
            }
        }
        false
    }

    /// Whether a fresh IKE SA is up at the asker, after the end of the one being rekeyed, when the response comes.
    pub(super) fn fresh_one_between(&self, world: &World, x: &Exchange) -> bool {
        let Some(at) = x.answer_arrived else { return false };
        let mut closed = false;
        for entry in &world.journal()[x.sent..at] {
            let Happening::Told(who, event) = &entry.what else { continue };
            closed |= *who == x.asker && *event == "ike-sa.closed";
            if closed && *who == x.asker && *event == "ike-sa.established" {
                return true;
            }
        }
        false
    }

    /// Whether the asker sets up an IKE SA with the same peer while its rekeying has no answer.
    pub(super) fn set_up_meanwhile(&self, world: &World, x: &Exchange) -> bool {
        if x.answer_arrived.is_some() || !x.repeated {
            return false;
        }
        for entry in &world.journal()[x.sent..] {
            if matches!(&entry.what, Happening::Told(who, "ike-sa.closed") if *who == x.asker) {
                return false;
            }
            let Happening::Sent(number) = &entry.what else { continue };
            let sent = &world.datagrams()[*number];
            let first = matches!(sent.meaning, Meaning::First { .. }) && !sent.is_response();
            if first && sent.from == x.asker && sent.to == x.peer {
                return true;
            }
        }
        false
    }
}

#[derive(Default)]
struct Reader {
    all: Vec<Exchange>,
    by_key: BTreeMap<Key, usize>,
    children: Children,
    /// SPIs of requests that make a CHILD SA.
    asked: BTreeMap<usize, u32>,
    /// SPIs named by requests that delete, until all pairs are known.
    named: BTreeMap<usize, Vec<u32>>,
    rekeyed: BTreeMap<usize, (u32, u32)>,
}

impl Reader {
    fn sent(&mut self, at: usize, sent: &Sent) {
        let Some(key) = key(sent) else { return };
        if sent.is_response() {
            if let Some(number) = self.by_key.get(&key).copied() {
                self.answered(at, number, sent);
            }
            return;
        }
        if let Some(number) = self.by_key.get(&key) {
            self.all[*number].repeated = true;
            return;
        }
        let number = self.all.len();
        self.by_key.insert(key, number);
        let mut nonce = 0;
        let kind = match &sent.meaning {
            Meaning::First { spi } => {
                self.asked.extend(spi.map(|spi| (number, spi)));
                Kind::First
            }
            Meaning::NewChild { spi, .. } => {
                self.asked.insert(number, *spi);
                Kind::NewChild
            }
            Meaning::RekeyChild { old, new, nonce: own } => {
                nonce = *own;
                self.rekeyed.insert(number, (*old, *new));
                Kind::RekeyChild { old: 0, new: None }
            }
            Meaning::RekeyIke { nonce: own } => {
                nonce = *own;
                Kind::RekeyIke
            }
            Meaning::DeleteIke => Kind::DeleteIke,
            Meaning::DeleteChildren(spis) => {
                self.named.insert(number, spis.clone());
                Kind::DeleteChildren(Vec::new())
            }
            Meaning::Made { .. }
            | Meaning::MadeIke { .. }
            | Meaning::Refused(_)
            | Meaning::Informational
            | Meaning::Unreadable => Kind::Other,
        };
        self.all.push(Exchange {
            ike: key.0,
            asker: sent.from,
            peer: sent.to,
            kind,
            sent: at,
            repeated: false,
            arrived: None,
            arrived_time: None,
            answer_sent: None,
            answer_arrived: None,
            answer_time: None,
            answered_well: false,
            refused: None,
            nonces: (nonce, u64::MAX),
        });
    }

    fn answered(&mut self, at: usize, number: usize, sent: &Sent) {
        let exchange = &mut self.all[number];
        if exchange.answer_sent.is_some() {
            return;
        }
        exchange.answer_sent = Some(at);
        let asker = exchange.asker;
        match &sent.meaning {
            Meaning::Refused(kind) => exchange.refused = Some(*kind),
            Meaning::Made { spi, nonce } => {
                exchange.answered_well = true;
                exchange.nonces.1 = *nonce;
                let asked = self.rekeyed.get(&number).map(|(_, new)| *new).or(self.asked.get(&number).copied());
                if let Some(asked) = asked {
                    self.children.same((asker, asked), (sent.from, *spi));
                }
            }
            Meaning::First { spi: Some(spi) } => {
                exchange.answered_well = true;
                if let Some(asked) = self.asked.get(&number) {
                    self.children.same((asker, *asked), (sent.from, *spi));
                }
            }
            Meaning::MadeIke { nonce } => {
                exchange.answered_well = true;
                exchange.nonces.1 = *nonce;
            }
            Meaning::First { spi: None }
            | Meaning::NewChild { .. }
            | Meaning::RekeyChild { .. }
            | Meaning::RekeyIke { .. }
            | Meaning::DeleteIke
            | Meaning::DeleteChildren(_)
            | Meaning::Informational
            | Meaning::Unreadable => exchange.answered_well = true,
        }
    }

    fn arrived(&mut self, at: usize, time: Instant, sent: &Sent) {
        let Some(number) = key(sent).and_then(|key| self.by_key.get(&key)) else { return };
        let exchange = &mut self.all[*number];
        if sent.is_response() {
            exchange.answer_arrived.get_or_insert(at);
            exchange.answer_time.get_or_insert(time);
        } else {
            exchange.arrived.get_or_insert(at);
            exchange.arrived_time.get_or_insert(time);
        }
    }

    /// All pairs of SPIs are known: exchanges get the names of the CHILD SAs they are about.
    fn finish(mut self) -> Exchanges {
        for (number, (old, new)) in std::mem::take(&mut self.rekeyed) {
            let who = self.all[number].asker;
            let (old, new) = (self.children.name(who, old), self.children.name(who, new));
            self.all[number].kind = Kind::RekeyChild { old, new: Some(new) };
        }
        let mut deletes: BTreeMap<ChildId, Vec<usize>> = BTreeMap::new();
        for (number, spis) in std::mem::take(&mut self.named) {
            let who = self.all[number].asker;
            let gone: BTreeSet<_> = spis.iter().map(|spi| self.children.name(who, *spi)).collect();
            for child in &gone {
                deletes.entry(*child).or_default().push(number);
            }
            self.all[number].kind = Kind::DeleteChildren(gone.into_iter().collect());
        }
        let mut by_ike: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for (number, exchange) in self.all.iter().enumerate() {
            by_ike.entry(exchange.ike).or_default().push(number);
        }
        Exchanges { all: self.all, by_ike, deletes }
    }
}
