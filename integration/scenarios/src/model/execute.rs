//! Carries a schedule out and looks whether all ends well: with the link whole again both ends agree on what is left, can set up every
//! tunnel, and can close everything.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ike_model::snapshot::{ChildSaState, IkeSaState};
use ike_model::{ChildSaSnapshot, Command, CommandError, Selector};
use ike_wire::Header;
use ike_wire::ids::ExchangeType;
use ipsec::{Event, LimitUnit, OffloadError, PacketSelectors, PolicyAction, Spi};

use super::schedule::{Action, Change, Fits, Kind, Op, Setup, Unit};
use super::setup::{self, CHILDREN, Pairing, changed, connection, delay, pairings};
use crate::clear::{clear_provider, narrow_provider};
use crate::journal::Happening;
use crate::meaning::Meaning;
use crate::packets::ways;
use crate::{Sending, Ticket, Verdict, Who, World};

/// A world in which a schedule is carried out.
pub struct Run {
    /// The world.
    pub world: World,
    /// The connections.
    pub pairings: Vec<Pairing>,
    setup: Setup,
    plan: Rc<RefCell<Plan>>,
    tickets: BTreeMap<(Who, Ticket), String>,
    stopped: BTreeSet<Who>,
    rekeyed: u64,
    read: usize,
}

/// What the link does on purpose.
#[derive(Default)]
struct Plan {
    hold: Option<Fits>,
    drop: Vec<Fits>,
}

impl Fits {
    fn fits(self, from: Who, header: &Header) -> bool {
        let response = header.flags.response;
        let kind = match self.kind {
            Kind::Any => true,
            Kind::FirstRequest | Kind::FirstResponse => {
                matches!(header.exchange, ExchangeType::IKE_SA_INIT | ExchangeType::IKE_AUTH)
                    && response == (self.kind == Kind::FirstResponse)
            }
            Kind::CreateRequest => header.exchange == ExchangeType::CREATE_CHILD_SA && !response,
            Kind::CreateResponse => header.exchange == ExchangeType::CREATE_CHILD_SA && response,
            Kind::InformRequest => header.exchange == ExchangeType::INFORMATIONAL && !response,
            Kind::InformResponse => header.exchange == ExchangeType::INFORMATIONAL && response,
        };
        kind && self.from.is_none_or(|wanted| wanted == from)
    }
}

impl Plan {
    fn decide(&mut self, sending: &Sending<'_>) -> Verdict {
        let fits = |fits: &Fits| fits.fits(sending.from, &sending.header);
        if let Some(at) = self.drop.iter().position(fits) {
            self.drop.remove(at);
            return Verdict::Drop;
        }
        if self.hold.as_ref().is_some_and(fits) { Verdict::Hold } else { Verdict::Pass }
    }
}

/// After healing, until everything must have come to rest.
const REST: Duration = Duration::from_secs(400);
/// Requests that a gateway may still send in the second half of that, liveness left out.
const MOST_REQUESTS: usize = 40;

impl Run {
    /// A fresh world.
    pub fn new(setup: &Setup) -> Self {
        let mut world = setup::world(setup);
        let plan = Rc::new(RefCell::new(Plan::default()));
        let rule = Rc::clone(&plan);
        world.link.rule(move |sending| rule.borrow_mut().decide(sending));
        Self {
            world,
            pairings: pairings(setup),
            setup: setup.clone(),
            plan,
            tickets: BTreeMap::new(),
            stopped: BTreeSet::new(),
            rekeyed: 0,
            read: 0,
        }
    }

    /// Rekeys that both ends have told.
    pub fn rekeys(&mut self) -> u64 {
        let told = self.world.journal()[self.read..].iter().filter(
            |entry| matches!(&entry.what, Happening::Told(_, name) if ["child-sa.rekeyed", "ike-sa.rekeyed"].contains(name)),
        );
        self.rekeyed += told.count() as u64;
        self.read = self.world.journal().len();
        self.rekeyed / 2
    }

    /// Whether a CHILD SA of a connection is up at both ends.
    pub fn is_up(&self, pairing: &Pairing) -> bool {
        pairing.ends.iter().all(|who| !self.live(*who, pairing.name).is_empty())
    }

    /// Whether a gateway was shut down.
    pub fn is_stopped(&self, who: Who) -> bool {
        self.stopped.contains(&who)
    }

    fn live(&self, who: Who, connection: &str) -> Vec<ChildSaSnapshot> {
        let ike_sas = self.world.gateway(who).ike_sas(self.world.now());
        let children = ike_sas.into_iter().filter(|ike| &*ike.connection == connection).flat_map(|ike| ike.children);
        children.filter(|child| matches!(child.state, ChildSaState::Installed | ChildSaState::Rekeying)).collect()
    }

    /// Does one thing.
    pub fn act(&mut self, action: &Action) {
        self.world.run_for(Duration::from_millis(action.pause));
        let who = subject(&action.op);
        if who.is_some_and(|who| who >= self.setup.shards.len()) {
            return;
        }
        let alone = matches!(action.op, Op::Restart(_));
        if !alone && who.is_some_and(|who| self.stopped.contains(&who) || self.world.sleeps(who)) {
            return;
        }
        match &action.op {
            Op::Initiate(..)
            | Op::CloseChild(..)
            | Op::CloseIke(..)
            | Op::RekeyChild(..)
            | Op::RekeyIke(..)
            | Op::Install(..)
            | Op::Uninstall(..)
            | Op::Acquire(..)
            | Op::Reload(..)
            | Op::Restart(_)
            | Op::Shutdown(_) => self.operate(&action.op),
            Op::Soft(..)
            | Op::Hard(..)
            | Op::OldLimit(..)
            | Op::LoseSa(..)
            | Op::LoseDevice(_)
            | Op::DeviceGone(_)
            | Op::Refuse(_)
            | Op::HoldBackend(_)
            | Op::ReleaseBackend(_)
            | Op::Reports(..)
            | Op::Computes(..)
            | Op::Work(..) => self.device(&action.op),
            Op::Wait
            | Op::Nonce(..)
            | Op::Link(..)
            | Op::Cut(..)
            | Op::Mend
            | Op::Hold(_)
            | Op::Flow
            | Op::LetGo(_)
            | Op::LetGoFirst(_)
            | Op::Lose(_)
            | Op::DropNext(_)
            | Op::Suspend(..)
            | Op::Jump(..)
            | Op::Rebind(_)
            | Op::Packets(_)
            | Op::Heal => self.surround(&action.op),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has sorted the operations")]
    fn operate(&mut self, op: &Op) {
        let child_of = |ike: &String, child: &String| Selector {
            ike: Some(ike.clone()),
            child: Some(child.clone()),
            ..Selector::default()
        };
        let ike_of = |ike: &String| Selector { ike: Some(ike.clone()), ..Selector::default() };
        match op {
            Op::Initiate(who, ike, child) => {
                self.mark_initiate(*who, ike, child);
                self.command(*who, Command::Initiate { connection: ike.clone(), child: Some(child.clone()) });
            }
            Op::CloseChild(who, ike, child) => {
                self.command(*who, Command::Terminate { selector: child_of(ike, child), force: false });
            }
            Op::CloseIke(who, ike) => {
                self.command(*who, Command::Terminate { selector: ike_of(ike), force: false });
            }
            Op::RekeyChild(who, ike, child) => {
                self.command(*who, Command::Rekey { selector: child_of(ike, child) });
            }
            Op::RekeyIke(who, ike) => self.command(*who, Command::Rekey { selector: ike_of(ike) }),
            Op::Install(who, ike, child) => {
                self.command(*who, Command::Install { connection: ike.clone(), child: child.clone() });
            }
            Op::Uninstall(who, ike, child) => {
                self.command(*who, Command::Uninstall { connection: ike.clone(), child: child.clone() });
            }
            Op::Acquire(who, ike, child) => self.acquire(*who, &format!("{ike}/{child}")),
            Op::Reload(who, ike, change) => self.reload(*who, ike, *change),
            Op::Restart(who) => self.restart(*who),
            Op::Shutdown(who) => {
                self.command(*who, Command::Shutdown);
                self.stopped.insert(*who);
            }
            _ => {}
        }
    }

    /// Says whether a child that is asked for is there, or asked for already.
    fn mark_initiate(&mut self, who: Who, ike: &str, child: &str) {
        let up = self.live(who, ike).iter().any(|live| &*live.name == child);
        if up {
            self.world.mark("up already");
        } else if self.is_connecting(who, ike) {
            self.world.mark("asked for again");
        }
    }

    fn is_connecting(&self, who: Who, connection: &str) -> bool {
        let connecting = |state| matches!(state, IkeSaState::Created | IkeSaState::Connecting);
        let ike_sas = self.world.gateway(who).ike_sas(self.world.now());
        ike_sas.iter().any(|ike| &*ike.connection == connection && ike.initiator && connecting(ike.state))
    }

    fn command(&mut self, who: Who, command: Command) {
        let text = format!("{command:?}");
        let ticket = self.world.command(who, command);
        self.tickets.insert((who, ticket), text);
    }

    fn acquire(&mut self, who: Who, name: &str) {
        let trap = self.world.gateway(who).with_tables(|tables| {
            let mut traps = tables.policies.values();
            let found =
                traps.find(|policy| matches!(policy.action, PolicyAction::Trap { .. }) && &*policy.name == name);
            found.map(|policy| (policy.handle, policy.selectors))
        });
        if let Some((policy, pair)) = trap {
            let packet = PacketSelectors {
                source: pair.local.addresses.start(),
                destination: pair.remote.addresses.start(),
                protocol: 17,
                ports: Some((1_024, 53)),
            };
            self.world.backend_event(who, Event::Acquire { policy, packet });
        }
    }

    fn reload(&mut self, who: Who, name: &str, change: Change) {
        let Some(pairing) = self.pairings.iter().find(|pairing| pairing.name == name) else { return };
        if !pairing.ends.contains(&who) {
            return;
        }
        if self.is_connecting(who, name) {
            self.world.mark("reload while connecting");
        }
        let config = &mut self.world.gateway_mut(who).config;
        let now = config.connections.get(name).cloned();
        let original = || Arc::new(connection(&self.setup, pairing, who));
        let now = match (now, change) {
            (Some(now), _) => now,
            (None, Change::Restored) => original(),
            (None, _) => return,
        };
        match changed(&self.setup, pairing, who, &now, change) {
            Some(new) => {
                config.connections.insert(name.to_owned(), Arc::new(new));
                self.command(who, Command::Reload { changed: vec![name.to_owned()], removed: Vec::new() });
            }
            None => {
                config.connections.remove(name);
                self.command(who, Command::Reload { changed: Vec::new(), removed: vec![name.to_owned()] });
            }
        }
    }

    fn restart(&mut self, who: Who) {
        self.stopped.remove(&who);
        self.tickets.retain(|(owner, _), _| *owner != who);
        self.world.restart(who);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has sorted the operations")]
    fn device(&mut self, op: &Op) {
        match op {
            Op::Soft(who, nth, unit) => self.limit(*who, *nth, *unit, false),
            Op::Hard(who, nth, unit) => self.limit(*who, *nth, *unit, true),
            Op::OldLimit(who, hard) => self.old_limit(*who, *hard),
            Op::LoseSa(who, nth) => {
                let all = self.world.gateway(*who).with_tables(|tables| tables.sas.keys().copied().collect::<Vec<_>>());
                let Some(sa) = nth.checked_rem(all.len()).and_then(|at| all.get(at)).copied() else { return };
                self.world.lose_sa(*who, sa);
            }
            Op::LoseDevice(who) | Op::DeviceGone(who) => {
                let busy = |child: &ChildSaSnapshot| {
                    matches!(child.state, ChildSaState::Rekeying | ChildSaState::Rekeyed | ChildSaState::Installing)
                };
                if self.world.gateway(*who).children(self.world.now()).iter().any(busy) {
                    self.world.mark("device lost while rekeying");
                }
                self.world.lose_device(*who, matches!(op, Op::DeviceGone(_)));
            }
            Op::Refuse(who) => {
                let error = OffloadError::Full { device: "recorder".into(), table: "SAD", size: 1 };
                self.world.gateway(*who).backend.refuse_next_install(error);
            }
            Op::HoldBackend(who) => self.world.hold_backend(*who),
            Op::ReleaseBackend(who) => self.world.release_backend(*who),
            Op::Reports(who, millis) => self.world.gateway_mut(*who).report_delay = delay(*millis),
            // Not in the middle of an exchange: what was offered has to be carried out.
            Op::Computes(who, _) if !self.is_idle(*who) => {}
            Op::Computes(who, lacks) => {
                self.world.gateway_mut(*who).provider = lacks.map_or_else(clear_provider, narrow_provider);
            }
            Op::Work(who, millis) => self.world.gateway_mut(*who).work_delay = delay(*millis),
            _ => {}
        }
    }

    fn is_idle(&self, who: Who) -> bool {
        let ike_sas = self.world.gateway(who).ike_sas(self.world.now());
        ike_sas.iter().all(|ike| ike.tasks_active.is_empty() && ike.state == IkeSaState::Established)
    }

    fn limit(&mut self, who: Who, nth: usize, unit: Unit, hard: bool) {
        let children = self.world.gateway(who).live_children(self.world.now());
        let at = nth.checked_rem(children.len()).and_then(|at| children.get(at));
        let Some(sa) = at.and_then(|child| child.sa_out) else { return };
        if hard && at.is_some_and(|child| child.state == ChildSaState::Rekeying) {
            self.world.mark("hard limit while rekeying");
        }
        let unit = match unit {
            Unit::Time => LimitUnit::Time,
            Unit::Bytes => LimitUnit::Bytes,
            Unit::Packets => LimitUnit::Packets,
        };
        let event = if hard { Event::HardExpire { sa, unit } } else { Event::SoftExpire { sa, unit } };
        self.world.backend_event(who, event);
    }

    fn old_limit(&mut self, who: Who, hard: bool) {
        let ike_sas = self.world.gateway(who).ike_sas(self.world.now());
        let all = ike_sas.iter().flat_map(|ike| ike.children.iter().map(move |child| (ike, child)));
        let old = all.into_iter().find(|(_, child)| child.state == ChildSaState::Rekeyed);
        let Some((ike, sa)) = old.and_then(|(ike, child)| Some((ike, child.sa_in?))) else { return };
        // The end that has begun the rekeying has its DELETE on the way.
        if !ike.tasks_active.contains(&"CHILD_DELETE") {
            self.world.mark(if hard { "hard limit of the old one" } else { "soft limit of the old one" });
        }
        let unit = LimitUnit::Packets;
        let event = if hard { Event::HardExpire { sa, unit } } else { Event::SoftExpire { sa, unit } };
        self.world.backend_event(who, event);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has sorted the operations")]
    fn surround(&mut self, op: &Op) {
        match op {
            Op::Nonce(who, octet) => self.world.gateway(*who).random.next_nonce(*octet),
            Op::Link(loss, duplicates, jitter) => {
                (self.world.link.loss, self.world.link.duplicates) = (*loss, *duplicates);
                self.world.link.jitter = Duration::from_millis(*jitter);
            }
            Op::Cut(from, to) => drop(self.world.link.cut.insert((*from, *to))),
            Op::Mend => self.world.link.mend(),
            Op::Hold(fits) => self.plan.borrow_mut().hold = Some(*fits),
            Op::Flow => self.plan.borrow_mut().hold = None,
            Op::LetGo(nth) => {
                self.world.let_go_nth(*nth);
            }
            Op::LetGoFirst(fits) => {
                let found = self.world.held().iter().position(|flying| fits.fits(flying.from, &flying.header()));
                if let Some(at) = found {
                    self.world.let_go_nth(at);
                }
            }
            Op::Lose(nth) => self.world.lose_held_nth(*nth),
            Op::DropNext(fits) => self.plan.borrow_mut().drop.push(*fits),
            Op::Suspend(who, seconds) => self.world.suspend(*who, Duration::from_secs(*seconds)),
            Op::Jump(who, seconds) => self.world.jump(*who, Duration::from_secs(*seconds)),
            Op::Rebind(who) => {
                if let Some(nat) = &mut self.world.gateway_mut(*who).nat {
                    nat.rebind();
                }
            }
            Op::Packets(who) => {
                self.mark_same_spis(*who);
                self.world.send_packets(*who);
            }
            Op::Heal => self.heal(),
            _ => {}
        }
    }

    fn mark_same_spis(&mut self, who: Who) {
        let live = self.world.gateway(who).live_children(self.world.now());
        let spis: BTreeSet<_> = live.iter().map(|child| child.spi_out).collect();
        if spis.len() < live.len() {
            self.world.mark("same peer SPI");
        }
    }

    /// An end to all that is out of order.
    fn heal(&mut self) {
        self.world.note("everything is in order again");
        *self.plan.borrow_mut() = Plan::default();
        self.world.link.mend();
        (self.world.link.loss, self.world.link.duplicates) = (0, 0);
        for who in 0..self.setup.shards.len() {
            self.world.wake_up(who);
            self.world.gateway(who).backend.refuse_nothing();
            self.world.release_backend(who);
            self.world.gateway_mut(who).provider = clear_provider();
            self.world.gateway_mut(who).report_delay = delay(self.setup.reports[who]);
            self.world.gateway_mut(who).work_delay = delay(self.setup.work[who]);
        }
        self.world.let_all_go();
        for who in std::mem::take(&mut self.stopped) {
            self.restart(who);
        }
        for pairing in self.pairings.clone() {
            for who in pairing.ends {
                let wanted = connection(&self.setup, &pairing, who);
                let now = self.world.gateway(who).config.connections.get(pairing.name);
                if now.is_none_or(|now| **now != wanted) {
                    self.reload(who, pairing.name, Change::Restored);
                }
            }
        }
    }
}

/// How it ends.
impl Run {
    /// Everything is put in order, comes to rest, and is looked at.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn finish(&mut self) {
        self.heal();
        self.world.run_for(REST / 2);
        let sent = self.world.datagrams().len();
        self.world.run_for(REST / 2);
        self.check_quiet(sent);
        self.check_agreement();
        self.set_up();
        self.check_agreement();
        self.close();
        self.check_answered();
    }

    fn set_up(&mut self) {
        for pairing in self.pairings.clone() {
            let who = pairing.ends[0];
            let ticket = self.world.initiate(who, pairing.name, CHILDREN[0]);
            self.world.run_for(Duration::from_secs(30));
            let done = self.world.reply(who, ticket);
            self.world.check(done.is_some(), &format!("{who} never answers: initiate {}", pairing.name));
            // Whatever came before may have left it up.
            let up = matches!(done, Some(Ok(_) | Err(CommandError::Duplicate(_))));
            self.world.check(up, &format!("{} does not come up after all that: {done:?}", pairing.name));
        }
    }

    fn close(&mut self) {
        for pairing in self.pairings.clone() {
            for who in pairing.ends {
                for child in CHILDREN {
                    self.act(&Action { pause: 0, op: Op::Uninstall(who, pairing.name.into(), child.into()) });
                }
                self.act(&Action { pause: 0, op: Op::CloseIke(who, pairing.name.into()) });
            }
        }
        self.world.run_for(Duration::from_secs(120));
        self.world.check_nothing_left();
    }

    /// No loops.
    fn check_quiet(&self, before: usize) {
        let mut requests: BTreeMap<Who, usize> = BTreeMap::new();
        for sent in &self.world.datagrams()[before..] {
            if !sent.is_response() && sent.meaning != Meaning::Informational {
                *requests.entry(sent.from).or_default() += 1;
            }
        }
        for (who, count) in requests {
            self.world.check(count < MOST_REQUESTS, &format!("{who} sends {count} requests while nothing happens"));
        }
    }

    /// Both ends of each connection list the same live CHILD SAs, and nothing else is installed.
    fn check_agreement(&mut self) {
        // A lifetime may just have come to its end.
        self.world.run_until(Duration::from_secs(60), Self::is_at_rest);
        for pairing in &self.pairings {
            let spis = |who: Who, crossed: bool| -> BTreeSet<(Option<Spi>, Option<Spi>)> {
                let pair = |child: ChildSaSnapshot| match crossed {
                    true => (child.spi_out, child.spi_in),
                    false => (child.spi_in, child.spi_out),
                };
                self.live(who, pairing.name).into_iter().map(pair).collect()
            };
            let (here, there) = (spis(pairing.ends[0], false), spis(pairing.ends[1], true));
            let text = format!("{}: CHILD SAs that are not the same at both ends: {here:x?} {there:x?}", pairing.name);
            self.world.check(here == there, &text);
        }
        self.world.check_sas();
        for who in 0..self.setup.shards.len() {
            self.check_gateway(who);
        }
    }

    fn is_at_rest(world: &World) -> bool {
        (0..world.gateway_count()).flat_map(|who| world.gateway(who).ike_sas(world.now())).all(|ike| {
            let resting = |child: &ChildSaSnapshot| child.state == ChildSaState::Installed;
            ike.state == IkeSaState::Established && ike.tasks_active.is_empty() && ike.children.iter().all(resting)
        })
    }

    fn check_gateway(&self, who: Who) {
        let gateway = self.world.gateway(who);
        let live = gateway.live_children(self.world.now());
        let (sas, used) = gateway.with_tables(|tables| (tables.sas.len(), ways(tables)));
        self.world.check(sas == 2 * live.len(), &format!("{who}: {sas} SAs for {} CHILD SAs", live.len()));
        gateway.with_tables(|tables| {
            for child in &live {
                let there = [child.sa_in, child.sa_out].iter().flatten().all(|sa| tables.sas.contains_key(sa));
                self.world.check(there, &format!("{who}: a CHILD SA of {} without its SAs", child.name));
            }
        });
        for way in used {
            self.world.check(way.sa.is_some(), &format!("{who}: nothing carries {}", way.name));
        }
        let counts = gateway.counts();
        self.world.check(counts.ike_sas == counts.established, &format!("{who}: an IKE SA never came up"));
    }

    /// Every command has come to an end.
    fn check_answered(&self) {
        for ((who, ticket), text) in &self.tickets {
            let done = self.world.reply(*who, *ticket);
            self.world.check(done.is_some(), &format!("{who} never answers {text}"));
        }
    }
}

/// The gateway that an operation is about.
fn subject(op: &Op) -> Option<Who> {
    match op {
        Op::Initiate(who, ..)
        | Op::CloseChild(who, ..)
        | Op::CloseIke(who, _)
        | Op::RekeyChild(who, ..)
        | Op::RekeyIke(who, _)
        | Op::Install(who, ..)
        | Op::Uninstall(who, ..)
        | Op::Acquire(who, ..)
        | Op::Reload(who, ..)
        | Op::Restart(who)
        | Op::Shutdown(who)
        | Op::Soft(who, ..)
        | Op::Hard(who, ..)
        | Op::OldLimit(who, _)
        | Op::LoseSa(who, _)
        | Op::LoseDevice(who)
        | Op::DeviceGone(who)
        | Op::Refuse(who)
        | Op::HoldBackend(who)
        | Op::ReleaseBackend(who)
        | Op::Reports(who, _)
        | Op::Work(who, _)
        | Op::Computes(who, _)
        | Op::Nonce(who, _)
        | Op::Cut(who, _)
        | Op::Suspend(who, _)
        | Op::Jump(who, _)
        | Op::Rebind(who)
        | Op::Packets(who) => Some(*who),
        Op::Wait
        | Op::Link(..)
        | Op::Mend
        | Op::Hold(_)
        | Op::Flow
        | Op::LetGo(_)
        | Op::LetGoFirst(_)
        | Op::Lose(_)
        | Op::DropNext(_)
        | Op::Heal => None,
    }
}
