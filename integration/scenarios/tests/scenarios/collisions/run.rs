//! Playing a row.
//!
//! Everything sent is held, and a row lets the messages arrive one by one; at its end everything flows. Every row runs twice, the second time
//! with the parts of A and B exchanged, so that each part is played by the initiator of the IKE SA and by its responder. Traffic runs in both
//! directions all the time, and the oracle looks at both ends after every step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ike_model::{Command, EventBody, IkeSaState, Selector};
use ike_wire::Header;
use ike_wire::ids::ExchangeType;
use ipsec::{DeviceId, Event, LimitUnit, OffloadBackend, OffloadError, Op, Request, SaHandle, Shard, Spi, Tag};
use scenarios::world::Flying;
use scenarios::{A, B, Sending, Verdict, Who, World, config, gateway};

use super::row::{Message, Row, Step};

/// Runs all rows, and names all that fail. The trace of the first is printed. `COLLISION_ROW=text` runs only rows with that in their names.
pub(super) fn check(rows: &[Row]) {
    let only = std::env::var("COLLISION_ROW");
    let mut failed = Vec::new();
    for row in rows {
        for exchanged in [false, true] {
            let mut run = Run::new(row, exchanged);
            if only.as_ref().is_ok_and(|only| !run.title().contains(only)) {
                continue;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run.whole())) {
                if failed.is_empty() {
                    eprintln!("{}", run.world.trace_text());
                }
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failed.push(format!("{}: {why}", run.title()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), 2 * rows.len(), failed.join("\n"));
}

/// How long a world is watched after the last step.
const WATCHED: Duration = Duration::from_secs(600);

struct Run<'r> {
    row: &'r Row,
    exchanged: bool,
    world: World,
    events: [usize; 2],
    sent: [usize; 2],
    /// SPIs at A and B and handles of the CHILD SA that stood at the beginning.
    old: Option<[(Spi, Spi, SaHandle, SaHandle); 2]>,
    swallowed: Vec<Message>,
}

impl<'r> Run<'r> {
    fn new(row: &'r Row, exchanged: bool) -> Self {
        let part = |who: Who| if exchanged { A + B - who } else { who };
        let at = |who: Who| (row.connection)(part(who), config::connection("gw", who, A + B - who));
        let mut world = World::pair_of(1, at(A), at(B));
        for who in [A, B] {
            world.gateway_mut(who).work_delay = row.delays[part(who)].map(Duration::from_millis);
        }
        Self { row, exchanged, world, events: [0, 0], sent: [0, 0], old: None, swallowed: Vec::new() }
    }

    fn title(&self) -> String {
        let exchanged = if self.exchanged { " (A and B exchanged)" } else { "" };
        format!("{}, {}{exchanged}", self.row.scenario, self.row.variant)
    }

    /// The gateway that plays a part, and the part that a gateway plays.
    fn who(&self, part: Who) -> Who {
        if self.exchanged { A + B - part } else { part }
    }

    fn whole(&mut self) {
        self.world.note(self.title());
        self.begin();
        for step in self.row.steps.clone() {
            self.world.note(format!("* {step:?}"));
            self.perform(step);
            self.check_guards();
        }
        self.flow();
        let begun = self.world.elapsed();
        self.world.run_for(Duration::from_secs(3));
        self.check_listed();
        for (every, until) in [(50, 20), (1_000, WATCHED.as_secs())] {
            self.world.traffic_every = Some(Duration::from_millis(every));
            let rest = (begun + Duration::from_secs(until)).saturating_sub(self.world.elapsed());
            self.world.run_for(rest);
        }
        self.judge(begun);
    }

    fn begin(&mut self) {
        if self.row.begins_up {
            self.world.establish();
        }
        self.world.strict(self.row.gaps.is_none());
        self.world.paced();
        for who in [A, B] {
            self.events[who] = self.world.gateway(who).events.len();
            self.sent[who] = self.world.sent(who);
        }
        self.old = self.row.begins_up.then(|| {
            [A, B].map(|who| {
                let child = &self.world.gateway(who).children(self.world.now())[0];
                (child.spi_in.unwrap(), child.spi_out.unwrap(), child.sa_in.unwrap(), child.sa_out.unwrap())
            })
        });
        if let Some(place) = self.row.lowest {
            self.draw(place);
        }
        self.world.traffic_every = Some(Duration::from_millis(3));
        self.world.link.rule(|_| Verdict::Hold);
    }

    /// A draws for its request, then for its response; B likewise.
    fn draw(&self, place: usize) {
        let octet = |at: usize| if at == place { 0x01 } else { 0x80 };
        for (part, at) in [(A, 0), (A, 3), (B, 2), (B, 1)] {
            self.world.gateway(self.who(part)).random.next_nonce(octet(at));
        }
    }

    fn perform(&mut self, step: Step) {
        let of = |part: Who| if self.exchanged { A + B - part } else { part };
        let world = &mut self.world;
        match step {
            Step::RekeyChild(part) => drop(world.rekey_child(of(part), "net")),
            Step::RekeyIke(part) => drop(world.rekey_ike(of(part), "gw")),
            Step::Close(part, child) => drop(world.terminate_child(of(part), child)),
            Step::ForgetChild(part) => {
                let selector = Selector { child: Some("net".into()), ..Selector::default() };
                world.command(of(part), Command::Terminate { selector, force: true });
            }
            Step::CloseIke(part) => drop(world.terminate_ike(of(part), "gw")),
            Step::Initiate(part, child) => drop(world.initiate(of(part), "gw", child)),
            Step::Reload(part) => drop(world.reload(of(part), &["gw"], &[])),
            Step::Arrives(message) => world.let_go(fits(message, self.exchanged)),
            Step::Again(message) => self.repeat(message),
            Step::Lost(message) => world.lose(fits(message, self.exchanged)),
            Step::Swallowed(message) => self.swallow(message),
            Step::Pass(milliseconds) => world.run_for(Duration::from_millis(milliseconds)),
            Step::Flows => self.flow(),
            Step::Cut => world.link.partition(A, B),
            Step::Mended => world.link.mend(),
            Step::SoftLimit(part) => self.limit(part, |sa| Event::SoftExpire { sa, unit: LimitUnit::Packets }),
            Step::HardLimit(part) => self.limit(part, |sa| Event::HardExpire { sa, unit: LimitUnit::Packets }),
            Step::Refuses(part) => {
                let error = OffloadError::Full { device: "recorder".into(), table: "SAD", size: 2 };
                world.gateway(of(part)).backend.refuse_next_install(error);
            }
            Step::Flushed(part) => {
                let (who, flush) = (of(part), Request::Apply(vec![Op::Flush]));
                world.gateway(who).backend.submit(Tag::new(Shard(0), 1 << 50), flush);
                world.backend_event(who, Event::DeviceDown(DeviceId(0)));
                world.backend_event(who, Event::DeviceUp(DeviceId(0)));
            }
            Step::Computes(part, methods) => world.gateway_mut(of(part)).provider = gateway::provider_with(methods),
            Step::OldStands => self.check_old(),
        }
    }

    fn limit(&mut self, part: Who, event: impl Fn(SaHandle) -> Event) {
        let who = self.who(part);
        let (_, _, _, sa) = self.old.unwrap()[who];
        self.world.backend_event(who, event(sa));
    }

    fn repeat(&mut self, message: Message) {
        let (from, _) = sender_and_kind(message, self.exchanged);
        let copies = |octets: &[u8]| fits_octets(message, self.exchanged, from, octets);
        let sent = self.world.gateway(from).sent.iter().rev().find(|(_, _, octets)| copies(octets));
        let (_, path, octets) = sent.unwrap().clone();
        let back = ipsec::Path { local: path.remote, remote: path.local };
        self.world.inject(A + B - from, back, &octets);
    }

    fn swallow(&mut self, message: Message) {
        self.swallowed.push(message);
        self.set_rules(true);
    }

    fn set_rules(&mut self, hold: bool) {
        self.world.link.clear_rules();
        for message in self.swallowed.clone() {
            let exchanged = self.exchanged;
            self.world.link.rule(move |sending: &Sending<'_>| {
                if fits_octets(message, exchanged, sending.from, sending.octets) {
                    Verdict::Drop
                } else {
                    Verdict::Pass
                }
            });
        }
        if hold {
            self.world.link.rule(|_| Verdict::Hold);
        }
    }

    fn flow(&mut self) {
        self.set_rules(false);
        // Held messages arrive at once; packets that were sent before them must not be overtaken by that alone.
        self.world.run_for(self.world.link.latency + Duration::from_millis(1));
        self.world.let_all_go();
    }

    /// Whatever happens, what was once protected never leaves in clear.
    fn check_guards(&self) {
        for who in [A, B].into_iter().filter(|_| self.row.begins_up) {
            let guarded = self.world.gateway(who).with_tables(|tables| tables.guards.len());
            let flushed = self.row.steps.iter().any(|step| matches!(step, Step::Flushed(_)));
            self.world.check(guarded > 0 || flushed, "no guard stands any more");
        }
    }

    /// Once everything has been answered nothing that only lingers looks as if it were in use.
    fn check_listed(&self) {
        if self.row.outcome.ikes != 1 || self.row.outcome.within > Duration::from_secs(1) {
            return;
        }
        for who in [A, B] {
            let states: Vec<_> =
                self.world.gateway(who).ike_sas(self.world.now()).iter().map(|ike| ike.state).collect();
            let in_use = |state: &&IkeSaState| matches!(state, IkeSaState::Established | IkeSaState::Rekeying);
            self.world.check(states.iter().filter(in_use).count() == 1, &format!("IKE SAs are listed as {states:?}"));
        }
    }

    fn check_old(&self) {
        self.world.check_one_tunnel(A, B);
        let (spi_in, spi_out, _, _) = self.old.unwrap()[A];
        self.world.check(self.world.tunnels(A, B)[0].1 == spi_in, "the old CHILD SA does not stand any more");
        self.world.check(self.world.tunnels(A, B)[0].2 == spi_out, "the old CHILD SA does not stand any more");
    }
}

/// What has come of it.
impl Run<'_> {
    fn judge(&self, begun: Duration) {
        let outcome = &self.row.outcome;
        // Of CHILD SAs with the same selectors under several IKE SAs only one is in use.
        if outcome.ikes < 2 {
            self.world.check_tunnels(A, B, outcome.children);
        }
        for who in [A, B] {
            let gateway = self.world.gateway(who);
            let counts = gateway.counts();
            let left = (counts.ike_sas, counts.established, counts.children, gateway.with_tables(|t| t.sas.len()));
            let wanted = (outcome.ikes, outcome.ikes, outcome.children, 2 * outcome.children);
            self.world
                .check(left == wanted, &format!("IKE SAs, established, CHILD SAs, SAs: {left:?}, not {wanted:?}"));
        }
        self.judge_spis();
        [A, B].into_iter().for_each(|part| self.judge_events(part));
        let asks = [A, B].map(|part| self.requests(part, ExchangeType::CREATE_CHILD_SA));
        let deletes = [A, B].map(|part| self.requests(part, ExchangeType::INFORMATIONAL));
        let refusals = [A, B].map(|part| self.world.refusals(self.who(part)));
        let (found, wanted) = ([asks, deletes, refusals], [outcome.asks, outcome.deletes, outcome.refusals]);
        self.world
            .check(found == wanted, &format!("CREATE_CHILD_SA, INFORMATIONAL, refused: {found:?}, not {wanted:?}"));
        let last = [A, B].map(|who| self.world.sent_at(who).last().copied().unwrap_or_default()).into_iter().max();
        let took = last.unwrap_or_default().saturating_sub(begun);
        self.world.check(took <= outcome.within, &format!("messages for {took:?}, not {:?}", outcome.within));
        let traffic = self.world.traffic;
        // Nothing passes any more on what is at a hard limit, but the new one is on its way: it is a matter of milliseconds.
        let at_limit = self.row.scenario == "X11";
        self.world.check(!at_limit || traffic.blocked <= 8, &format!("{traffic:?}"));
        if self.row.gaps.is_none() {
            // What is closed holds traffic back rather than let it out in clear.
            let whole = traffic.lost == 0 && (traffic.blocked == 0 || outcome.children == 0 || at_limit);
            self.world.check(whole, &format!("{traffic:?}"));
        }
    }

    fn judge_spis(&self) {
        let spis = [A, B].map(|who| {
            let ikes = self.world.gateway(who).ike_sas(self.world.now());
            let mut spis: Vec<_> = ikes.iter().map(|ike| (ike.initiator_spi, ike.responder_spi)).collect();
            spis.sort_unstable();
            spis
        });
        self.world.check(spis[0] == spis[1], &format!("different IKE SAs are left: {spis:x?}"));
    }

    /// The names in order, and each rekeying leads from what stood before to what stands afterwards.
    fn judge_events(&self, part: Who) {
        let who = self.who(part);
        let mut told: Vec<_> = self.world.gateway(who).event_names()[self.events[who]..].to_vec();
        // When the last straggler of what has ended is no longer waited for is no matter of the collision; that it is told, the oracle sees.
        // So it is of what was prepared for the peer and what is made of it.
        told.retain(|name| !["child-sa.removed", "child-sa.prepared", "child-sa.withdrawn"].contains(name));
        let mut wanted = self.row.outcome.events[part].clone();
        if self.row.outcome.any_order {
            told.sort_unstable();
            wanted.sort_unstable();
        }
        let name = ["A", "B"][part];
        self.world.check(told == wanted, &format!("part {name} told {told:?}, not {wanted:?}"));
        let mut standing = self.old.map(|old| (old[who].0, old[who].1));
        for (_, body) in &self.world.gateway(who).events[self.events[who]..] {
            #[expect(clippy::wildcard_enum_match_arm, reason = "looks for two kinds among all")]
            match body {
                EventBody::ChildSaRekeyed { old, new, .. } if &*new.name == "net" => {
                    let before = old.spi_in.zip(old.spi_out);
                    self.world.check(before == standing, &format!("{name} told another old one: {before:?}"));
                    standing = new.spi_in.zip(new.spi_out);
                }
                EventBody::ChildSaInstalled { child, .. } if &*child.name == "net" => {
                    standing = child.spi_in.zip(child.spi_out);
                }
                _ => {}
            }
        }
        let children = self.world.gateway(who).live_children(self.world.now());
        if let Some(net) = children.iter().find(|child| &*child.name == "net") {
            self.world.check(net.spi_in.zip(net.spi_out) == standing, &format!("{name} told another new one"));
        }
    }

    fn requests(&self, part: Who, exchange: ExchangeType) -> usize {
        let who = self.who(part);
        let sent = self.world.gateway(who).sent[self.sent[who]..].iter();
        let headers = sent.map(|(_, _, octets)| Header::parse(octets).unwrap());
        let requests = headers.filter(|header| header.exchange == exchange && !header.flags.response);
        let ids: std::collections::BTreeSet<_> =
            requests.map(|header| (header.initiator_spi.0, header.message_id.0)).collect();
        ids.len()
    }
}

fn sender_and_kind(message: Message, exchanged: bool) -> (Who, (ExchangeType, bool)) {
    let (part, kind) = match message {
        Message::Ask(part) => (part, (ExchangeType::CREATE_CHILD_SA, false)),
        Message::Answer(part) => (part, (ExchangeType::CREATE_CHILD_SA, true)),
        Message::Delete(part) => (part, (ExchangeType::INFORMATIONAL, false)),
        Message::Deleted(part) => (part, (ExchangeType::INFORMATIONAL, true)),
    };
    (if exchanged { A + B - part } else { part }, kind)
}

fn fits_octets(message: Message, exchanged: bool, from: Who, octets: &[u8]) -> bool {
    let (who, kind) = sender_and_kind(message, exchanged);
    let header = Header::parse(octets).unwrap();
    from == who && (header.exchange, header.flags.response) == kind
}

fn fits(message: Message, exchanged: bool) -> impl Fn(&Flying) -> bool {
    move |flying| fits_octets(message, exchanged, flying.from, &flying.octets)
}
