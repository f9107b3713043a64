//! Which of the known situations a run has met, told from its journal: exchanges that crossed, answers that came late, limits and losses in
//! between. The names are those of the scenario tests.

use std::collections::{BTreeMap, BTreeSet};

use ike_wire::ids::NotifyType;
use ipsec::Instant;

use super::exchanges::{ChildId, Exchange, Exchanges, Kind};
use crate::World;
use crate::journal::Happening;

/// A situation, by name.
pub type Class = &'static str;

/// All situations that can be told from a journal, with what they are.
pub const CLASSES: &[(Class, &str)] = &[
    ("C1", "a CHILD SA is rekeyed, nothing else happens"),
    ("C3", "the same after INVALID_KE_PAYLOAD"),
    ("C5", "the responder of a rekeying sees a soft limit of the old SA"),
    ("C6", "a hard limit"),
    ("C7", "the new SA is closed before the DELETE of the old one"),
    ("C9", "the DELETE of the old SA comes before the response"),
    ("C10", "the DELETE of the old SA is never answered"),
    ("C11.1", "rekeyings cross, the lowest nonce is in A's request"),
    ("C11.2", "in B's answer to it"),
    ("C11.3", "in B's request"),
    ("C11.4", "in A's answer to it"),
    ("C14", "one response comes after a DELETE of the peer"),
    ("C15", "and after that of the new SA too"),
    ("C17", "a request comes when the DELETE after the peer's own rekeying is under way"),
    ("C18", "when it is answered"),
    ("C19", "when the new SA is closed too"),
    ("C21", "both get INVALID_KE_PAYLOAD, and the second requests cross"),
    ("C22", "the second requests do not cross"),
    ("C24", "rekeying and DELETE of a CHILD SA cross"),
    ("C26", "the DELETE comes after the TEMPORARY_FAILURE"),
    ("C27", "the request to rekey comes when the DELETE is answered"),
    ("C28", "the new SA is deleted before the response comes"),
    ("C29", "rekeyings of CHILD SA and IKE SA cross"),
    ("C30", "rekeying of a CHILD SA and DELETE of the IKE SA cross"),
    ("C31", "making a CHILD SA and rekeying the IKE SA cross"),
    ("C32", "DELETE of a CHILD SA and rekeying of the IKE SA cross"),
    ("C33", "DELETE of a CHILD SA and of the IKE SA cross"),
    ("C34", "both delete the same CHILD SA"),
    ("C35", "one of the two is late or lost"),
    ("C36", "a child is asked for that is up"),
    ("I1", "an IKE SA is rekeyed, nothing else happens"),
    ("I3", "the same after INVALID_KE_PAYLOAD"),
    ("I5.1", "rekeyings of the IKE SA cross, the lowest nonce is in A's request"),
    ("I5.2", "in B's answer to it"),
    ("I5.3", "in B's request"),
    ("I5.4", "in A's answer to it"),
    ("I8", "both get INVALID_KE_PAYLOAD, and the second requests cross"),
    ("I9", "the second requests do not cross"),
    ("I10", "one response comes after the peer's DELETE"),
    ("I12", "a request to rekey does not arrive before the peer's rekeying and DELETE are over"),
    ("I13", "it arrives when the DELETE is under way; TEMPORARY_FAILURE comes after it"),
    ("I14", "TEMPORARY_FAILURE comes before it"),
    ("I16", "rekeying and DELETE of the IKE SA cross"),
    ("I18", "the DELETE comes after the TEMPORARY_FAILURE"),
    ("I19", "both delete the IKE SA"),
    ("X2", "rekeyings cross, one is refused for good"),
    ("X3", "a repeated request to rekey is refused after the peer's own rekeying"),
    ("X4", "response and DELETE arrive within a millisecond"),
    ("X5", "the response to a rekeying of an IKE SA comes when a fresh one is up"),
    ("X6", "an IKE SA is set up again while the rekeying of the old one is not answered"),
    ("X7", "two CHILD SAs with the same SPI of the peer"),
    ("X8", "the configuration is loaded while connecting"),
    ("X9", "a child is asked for again while connecting"),
    ("X10", "both ends set up the first IKE SA at once"),
    ("X11", "a hard limit before the answer to the rekeying"),
    ("X12", "a device loses its tables while rekeying"),
    ("X13", "the backend refuses what the peer has installed"),
];

/// The situations of [`CLASSES`] that a world has met.
pub fn classes(world: &World) -> BTreeSet<Class> {
    let exchanges = Exchanges::read(world);
    let mut classes = Classes { exchanges: &exchanges, met: BTreeSet::new() };
    classes.marks(world);
    for exchange in &exchanges.all {
        classes.alone(world, exchange);
    }
    let mut by_ike: BTreeMap<(u64, u64), Vec<&Exchange>> = BTreeMap::new();
    for exchange in &exchanges.all {
        by_ike.entry(exchange.ike).or_default().push(exchange);
    }
    for together in by_ike.values() {
        for x in together {
            for y in together.iter().filter(|y| y.asker != x.asker) {
                classes.pair(x, y);
            }
        }
    }
    classes.first_ones(world);
    classes.met
}

struct Classes<'e> {
    exchanges: &'e Exchanges,
    met: BTreeSet<Class>,
}

const TEMPORARY: NotifyType = NotifyType::TEMPORARY_FAILURE;

impl Classes<'_> {
    fn add(&mut self, condition: bool, class: Class) {
        if condition {
            self.met.insert(class);
        }
    }

    fn marks(&mut self, world: &World) {
        for entry in world.journal() {
            let Happening::Mark(mark) = &entry.what else { continue };
            let class = match *mark {
                "up already" => "C36",
                "asked for again" => "X9",
                "reload while connecting" => "X8",
                "hard limit while rekeying" => "X11",
                "soft limit of the old one" => "C5",
                "hard limit of the old one" => "C6",
                "device lost while rekeying" => "X12",
                "same peer SPI" => "X7",
                _ => continue,
            };
            self.met.insert(class);
        }
    }

    /// What can be told from one exchange and what came after it.
    fn alone(&mut self, world: &World, x: &Exchange) {
        let undisturbed = !self.exchanges.others(x).any(|y| y.meets(x));
        let retried = self.exchanges.retry_of(x);
        let made_later = retried.is_some_and(Exchange::succeeded);
        match &x.kind {
            Kind::RekeyChild { .. } => {
                self.add(x.succeeded() && undisturbed, "C1");
                self.add(x.is_detour() && made_later && undisturbed, "C3");
                let refused = x.answer_arrived.is_some_and(|at| self.exchanges.refused_at(world, x.asker, at));
                self.add(x.succeeded() && refused, "X13");
                self.after_rekey(x);
            }
            Kind::RekeyIke => {
                self.add(x.succeeded() && undisturbed, "I1");
                self.add(x.is_detour() && made_later && undisturbed, "I3");
                self.add(self.exchanges.fresh_one_between(world, x), "X5");
                self.add(self.exchanges.set_up_meanwhile(world, x), "X6");
            }
            Kind::NewChild | Kind::DeleteChildren(_) | Kind::DeleteIke | Kind::First | Kind::Other => {}
        }
    }

    /// Deletes after a rekeying of a CHILD SA.
    fn after_rekey(&mut self, x: &Exchange) {
        let Kind::RekeyChild { old, new } = x.kind else { return };
        if !x.answered_well {
            return;
        }
        let deletes = |of: ChildId| self.exchanges.deletes(of).collect::<Vec<_>>();
        let (of_old, of_new) = (deletes(old), new.map(deletes).unwrap_or_default());
        let old_told = of_old.iter().filter_map(|delete| delete.arrived).min().unwrap_or(usize::MAX);
        let answered = x.answer_sent.unwrap_or(usize::MAX);
        let early = of_new.iter().any(|delete| delete.sent > answered && delete.sent < old_told);
        let response = x.answer_arrived.unwrap_or(usize::MAX);
        let before_response = |delete: &&&Exchange| {
            delete.asker != x.asker && delete.sent > answered && delete.arrived.is_some_and(|at| at < response)
        };
        let old_first = of_old.iter().any(|delete| before_response(&delete));
        let new_first = of_new.iter().any(|delete| before_response(&delete));
        let unanswered =
            of_old.iter().any(|delete| delete.asker == x.asker && delete.repeated && delete.answer_arrived.is_none());
        let close = of_old.iter().chain(&of_new).any(|delete| {
            let times = (delete.arrived_time, x.answer_time);
            let (Some(delete_at), Some(answer_at)) = times else { return false };
            delete.asker != x.asker && within_a_millisecond(delete_at, answer_at)
        });
        self.add(early, "C7");
        self.add(old_first, "C9");
        self.add(new_first, "C28");
        self.add(unanswered, "C10");
        self.add(close, "X4");
    }

    /// What can be told from two exchanges of different ends below one IKE SA; both ways are looked at.
    fn pair(&mut self, x: &Exchange, y: &Exchange) {
        match (&x.kind, &y.kind) {
            (Kind::RekeyChild { old: one, .. }, Kind::RekeyChild { old: other, .. }) if one == other => {
                self.rekeys(x, y);
            }
            (Kind::RekeyChild { old, .. }, Kind::DeleteChildren(gone)) if gone.contains(old) => self.rekey_delete(x, y),
            (Kind::RekeyChild { .. }, Kind::RekeyIke) => self.add(x.crosses(y), "C29"),
            (Kind::RekeyChild { .. }, Kind::DeleteIke) => self.add(x.crosses(y), "C30"),
            (Kind::NewChild, Kind::RekeyIke) => self.add(x.crosses(y), "C31"),
            (Kind::DeleteChildren(_), Kind::RekeyIke) => self.add(x.crosses(y), "C32"),
            (Kind::DeleteChildren(_), Kind::DeleteIke) => self.add(x.crosses(y), "C33"),
            (Kind::DeleteChildren(one), Kind::DeleteChildren(other)) => {
                let same = one.iter().any(|child| other.contains(child)) && x.crosses(y);
                self.add(same, "C34");
                self.add(same && (x.repeated || x.arrived > y.answer_arrived), "C35");
            }
            (Kind::RekeyIke, Kind::RekeyIke) => self.ike_rekeys(x, y),
            (Kind::RekeyIke, Kind::DeleteIke) => self.ike_rekey_delete(x, y),
            (Kind::DeleteIke, Kind::DeleteIke) => self.add(x.crosses(y), "I19"),
            (
                Kind::RekeyChild { .. }
                | Kind::NewChild
                | Kind::DeleteChildren(_)
                | Kind::RekeyIke
                | Kind::DeleteIke
                | Kind::First
                | Kind::Other,
                _,
            ) => {}
        }
    }

    fn rekeys(&mut self, x: &Exchange, y: &Exchange) {
        let Kind::RekeyChild { old, new } = y.kind else { return };
        if x.crosses(y) {
            let both = x.answered_well && y.answered_well;
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 0, "C11.1");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 1, "C11.2");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 2, "C11.3");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 3, "C11.4");
            self.add(x.refused_for_good() && y.answered_well, "X2");
            self.detours(x, y, "C21", "C22");
            if both {
                self.late_response(x, y);
            }
        }
        // The peer has rekeyed it itself and is deleting the old one.
        let Some(delete) = self.exchanges.deletes(old).find(|delete| delete.asker == y.asker) else { return };
        if !y.succeeded() || x.sent > delete.arrived.unwrap_or(usize::MAX) {
            return;
        }
        let arrived = x.arrived.unwrap_or(usize::MAX);
        let refused = x.is_refused(TEMPORARY) || x.is_refused(NotifyType::CHILD_SA_NOT_FOUND);
        let under_way = arrived > delete.sent && refused;
        let over = delete.answer_arrived.is_some_and(|at| arrived > at) && refused;
        self.add(under_way && !over, "C17");
        self.add(under_way && x.repeated, "X3");
        self.add(over, "C18");
        let new_gone = new.is_some_and(|new| {
            self.exchanges.deletes(new).any(|delete| delete.asker == y.asker && delete.sent < arrived)
        });
        self.add(over && new_gone, "C19");
    }

    /// Both were sent the long way round.
    fn detours(&mut self, x: &Exchange, y: &Exchange, crossing: Class, apart: Class) {
        if !x.is_detour() || !y.is_detour() {
            return;
        }
        let (Some(again_x), Some(again_y)) = (self.exchanges.retry_of(x), self.exchanges.retry_of(y)) else { return };
        let cross = again_x.crosses(again_y);
        self.add(cross, crossing);
        self.add(!cross, apart);
    }

    /// The response to `x` comes after deletes of the other end.
    fn late_response(&mut self, x: &Exchange, y: &Exchange) {
        let response = x.answer_arrived.unwrap_or(usize::MAX);
        let (Kind::RekeyChild { old, new: x_new }, Kind::RekeyChild { new: y_new, .. }) = (&x.kind, &y.kind) else {
            return;
        };
        let before = |child: ChildId| {
            let mut deletes = self.exchanges.deletes(child);
            deletes.any(|delete| {
                delete.asker == y.asker && delete.sent > x.sent && delete.arrived.is_some_and(|at| at < response)
            })
        };
        let gone = [Some(*old), *x_new, *y_new].into_iter().flatten().filter(|child| before(*child)).count();
        self.add(gone >= 1, "C14");
        self.add(gone >= 2, "C15");
    }

    fn rekey_delete(&mut self, x: &Exchange, delete: &Exchange) {
        if self.exchanges.is_rekeyed_by(delete) {
            return;
        }
        let refused = x.is_refused(TEMPORARY) || x.is_refused(NotifyType::CHILD_SA_NOT_FOUND);
        self.add(x.crosses(delete) && refused, "C24");
        self.add(x.crosses(delete) && x.is_refused(TEMPORARY) && delete.arrived > x.answer_arrived, "C26");
        let over = delete.answer_arrived.is_some_and(|at| x.arrived.is_some_and(|arrived| arrived > at));
        self.add(over && x.sent < delete.arrived.unwrap_or(usize::MAX) && refused, "C27");
    }

    fn ike_rekeys(&mut self, x: &Exchange, y: &Exchange) {
        if x.crosses(y) {
            let both = x.answered_well && y.answered_well;
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 0, "I5.1");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 1, "I5.2");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 2, "I5.3");
            self.add(both && x.asker < y.asker && x.lowest_of(y) == 3, "I5.4");
            self.detours(x, y, "I8", "I9");
            let response = x.answer_arrived.unwrap_or(usize::MAX);
            let late = self
                .exchanges
                .ike_deletes(x.ike)
                .any(|delete| delete.asker == y.asker && delete.arrived.is_some_and(|at| at > x.sent && at < response));
            self.add(both && late, "I10");
        }
        let Some(delete) = self.exchanges.ike_deletes(x.ike).find(|delete| delete.asker == y.asker) else { return };
        let seen = delete.arrived.unwrap_or(usize::MAX);
        if !y.succeeded() || x.sent > seen {
            return;
        }
        let arrived = x.arrived.unwrap_or(usize::MAX);
        self.add(delete.answer_arrived.is_some_and(|at| arrived > at), "I12");
        let under_way = arrived > delete.sent && x.is_refused(TEMPORARY);
        self.add(under_way && x.answer_arrived.is_none_or(|at| at > seen), "I13");
        self.add(under_way && x.answer_arrived.is_some_and(|at| at < seen), "I14");
    }

    fn ike_rekey_delete(&mut self, x: &Exchange, delete: &Exchange) {
        let rekeyed = self.exchanges.others(x).any(|y| y.kind == Kind::RekeyIke && y.succeeded());
        let cross = x.crosses(delete) && !rekeyed;
        self.add(cross, "I16");
        self.add(cross && x.is_refused(TEMPORARY) && delete.arrived > x.answer_arrived, "I18");
    }

    /// Requests for a first IKE SA that cross.
    fn first_ones(&mut self, world: &World) {
        let firsts: Vec<_> = self.exchanges.all.iter().filter(|x| x.kind == Kind::First && x.ike.1 == 0).collect();
        let cross = firsts.iter().any(|x| {
            firsts
                .iter()
                .any(|y| x.asker < y.asker && Some(y.asker) == x.peer && Some(x.asker) == y.peer && x.crosses(y))
        });
        self.add(cross && !world.journal().is_empty(), "X10");
    }
}

fn within_a_millisecond(one: Instant, other: Instant) -> bool {
    one.saturating_since(other).as_micros() < 1_000 && other.saturating_since(one).as_micros() < 1_000
}
