//! What really happened between the gateways, out of the decrypted capture: exchanges, and the SAs that they made.

use std::collections::BTreeMap;

use ike_wire::ids::{ExchangeType, NotifyType, ProtocolId};
use ike_wire::{AddressRange, Message, Payloads, TrafficSelectors};

use super::keys::{IkeSpis, Keyring};
use super::wire::{Datagram, Seen, WallTime};

/// Part of a message that matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// SPI in the first proposal of ESP.
    esp: Option<u32>,
    /// SPI in the first proposal of IKE.
    ike: Option<u64>,
    /// SPI of the CHILD SA that is rekeyed, as its sender receives on it.
    rekeys: Option<u32>,
    nonce: Vec<u8>,
    has_auth: bool,
    /// SPIs that are deleted; 0 = the IKE SA.
    deletes: Vec<u32>,
    /// Errors that are told.
    errors: Vec<String>,
    /// First addresses of the initiator's and the responder's selectors.
    selectors: [Option<String>; 2],
}

/// One half of an exchange.
#[derive(Clone, Debug)]
struct Half {
    at: WallTime,
    content: Content,
}

/// Which exchange: of what IKE SA, begun by gateway A, message ID.
type ExchangeId = (IkeSpis, bool, u32);

#[derive(Clone, Debug)]
struct Exchange {
    kind: ExchangeType,
    request: Option<Half>,
    response: Option<Half>,
}

/// How an SA came up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Gateway A asked for it.
    pub(super) by_a: bool,
    /// When the request was seen.
    pub(super) asked: WallTime,
    /// When the response was seen, if it was.
    pub(super) answered: Option<WallTime>,
    /// Something that gateway A sent later shows that it had taken notice of the response.
    pub(super) noticed: bool,
    /// Both ends rekeyed the same SA, and this is what is redundant by the nonces (RFC 7296 §2.8.1).
    pub(super) lost: bool,
    /// Both ends rekeyed the same IKE SA, and gateway A never heard what became of its own attempt: nobody there knew which of the two stays.
    pub(super) undecided: bool,
    /// When the first of its line of IKE SAs was begun: that tells in which run of the daemon.
    pub(super) root: WallTime,
    /// The IKE SA that carried the exchange.
    pub(super) within: IkeSpis,
}

/// An IKE SA.
#[derive(Clone, Debug)]
pub(super) struct IkeFact {
    /// Its SPIs; the responder's is unknown where there was no response.
    pub(super) spis: (u64, Option<u64>),
    /// Gateway A is its original initiator.
    pub(super) initiator: bool,
    /// Rekeys before it.
    pub(super) generation: u32,
    /// How it came up.
    pub(super) origin: Origin,
}

/// A CHILD SA.
#[derive(Clone, Debug)]
pub(super) struct ChildFact {
    /// What gateway A receives on; unknown where it did not answer.
    pub(super) spi_in: Option<u32>,
    /// What gateway A sends on; unknown where it got no answer.
    pub(super) spi_out: Option<u32>,
    /// Rekeys before it, where its predecessor was seen.
    pub(super) generation: Option<u32>,
    /// The CHILD SA that it replaces.
    pub(super) replaces: Option<(u32, u32)>,
    /// First address of gateway A's selectors.
    pub(super) local: Option<String>,
    /// How it came up.
    pub(super) origin: Origin,
}

/// Everything that the capture tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// IKE SAs, by the time of their requests.
    pub(super) ikes: Vec<IkeFact>,
    /// CHILD SAs, by the time of their requests.
    pub(super) children: Vec<ChildFact>,
    /// What was said in each IKE SA, in words.
    pub(super) stories: BTreeMap<IkeSpis, Vec<String>>,
    /// Messages that no keys fit.
    pub(super) unread: u64,
    /// Exchanges.
    pub(super) exchanges: usize,
}

impl Exchange {
    fn describe(&self, by_a: bool, number: u32) -> String {
        let half = |half: &Option<Half>| {
            half.as_ref().map_or("never".into(), |half| {
                let Content { esp, ike, rekeys, has_auth, deletes, errors, .. } = &half.content;
                let mut words = format!("{:.6}", half.at.as_secs_f64());
                for (name, spi) in [("ESP", esp), ("rekeys", rekeys)] {
                    words += &spi.map_or(String::new(), |spi| format!(" {name} {spi:08x}"));
                }
                words += &ike.map_or(String::new(), |spi| format!(" IKE {spi:016x}"));
                words += if *has_auth { " AUTH" } else { "" };
                words += &deletes.iter().map(|spi| format!(" D {spi:08x}")).collect::<String>();
                words + &errors.iter().map(|error| format!(" N {error}")).collect::<String>()
            })
        };
        let by = if by_a { "A" } else { "charon" };
        format!("{by} {} {number}: {}; answer {}", self.kind, half(&self.request), half(&self.response))
    }

    /// First address of gateway A's selectors.
    fn local(&self, by_a: bool) -> Option<String> {
        let half = if by_a { 0 } else { 1 };
        self.response.as_ref().or(self.request.as_ref())?.content.selectors.get(half).cloned().flatten()
    }
}

impl Truth {
    /// Reads a capture.
    pub(super) fn read(seen: &Seen, keys: &mut Keyring) -> Self {
        let mut reading = Reading::default();
        for datagram in &seen.ike {
            reading.take(datagram, keys);
        }
        let mut truth = reading.facts(seen);
        truth.unread = reading.unread;
        truth.exchanges = reading.exchanges.len();
        truth
    }
}

#[derive(Default)]
struct Reading {
    exchanges: BTreeMap<ExchangeId, Exchange>,
    /// When each IKE SA was begun by IKE_SA_INIT, by its initiator's SPI.
    begun: BTreeMap<u64, WallTime>,
    /// Highest message ID of a request of gateway A in each IKE SA.
    asked_by_a: BTreeMap<IkeSpis, u32>,
    /// In the order of their requests.
    order: Vec<ExchangeId>,
    unread: u64,
}

impl Reading {
    fn take(&mut self, datagram: &Datagram, keys: &mut Keyring) {
        let Ok(message) = Message::parse(&datagram.octets) else { return };
        let header = message.header;
        let spis = (header.initiator_spi.0, header.responder_spi.0);
        if header.exchange == ExchangeType::IKE_SA_INIT {
            self.begun.entry(spis.0).or_insert(datagram.at);
            return;
        }
        // Errors about unknown IKE SAs are sent in clear and prove nothing.
        if message.encrypted().is_none() {
            return;
        }
        let Some(content) = keys.open(&message).and_then(|buffer| buffer.payloads().ok().map(|all| content(&all)))
        else {
            self.unread += 1;
            return;
        };
        let response = header.flags.response;
        let by_a = datagram.from_a != response;
        let number = header.message_id.0;
        if by_a && !response {
            let highest = self.asked_by_a.entry(spis).or_default();
            *highest = number.max(*highest);
        }
        let id = (spis, by_a, number);
        let half = Half { at: datagram.at, content };
        let exchange = self.exchanges.entry(id).or_insert_with(|| {
            self.order.push(id);
            Exchange { kind: header.exchange, request: None, response: None }
        });
        // Repetitions say the same.
        if response {
            exchange.response.get_or_insert(half)
        } else {
            exchange.request.get_or_insert(half)
        };
    }

    fn facts(&self, seen: &Seen) -> Truth {
        let mut facts = Facts {
            reading: self,
            seen,
            known: BTreeMap::new(),
            generations: BTreeMap::new(),
            truth: Truth::default(),
        };
        for id in &self.order {
            if let Some(exchange) = self.exchanges.get(id) {
                facts.truth.stories.entry(id.0).or_default().push(exchange.describe(id.1, id.2));
            }
            if let Some(exchange) = self.exchanges.get(id)
                && let Some(request) = &exchange.request
            {
                facts.take(id, exchange, request);
            }
        }
        facts.truth
    }

    /// The exchange is the one of two that rekeyed the same SA at once which RFC 7296 §2.8.1 makes redundant: that with the lowest nonce.
    fn lost(&self, (spis, by_a, _): &ExchangeId, exchange: &Exchange) -> bool {
        let lowest = |exchange: &Exchange| -> Option<Vec<u8>> {
            let (asked, answered) = (exchange.request.as_ref()?, exchange.response.as_ref()?);
            Some(asked.content.nonce.clone().min(answered.content.nonce.clone()))
        };
        let spans = |exchange: &Exchange| Some((exchange.request.as_ref()?.at, exchange.response.as_ref()?.at));
        let Some((ours, (begin, end))) = lowest(exchange).zip(spans(exchange)) else { return false };
        let rekeys = |exchange: &Exchange| {
            let content = &exchange.request.as_ref()?.content;
            content.rekeys.map(|_| false).or(content.ike.map(|_| true))
        };
        let Some(is_ike) = rekeys(exchange) else { return false };
        let others = self.exchanges.range((*spis, !*by_a, 0)..=(*spis, !*by_a, u32::MAX));
        others.filter(|(_, other)| rekeys(other) == Some(is_ike)).any(|(_, other)| {
            let crossed = spans(other).is_some_and(|(other_begin, other_end)| begin < other_end && other_begin < end);
            // Two children that are rekeyed at once do not collide.
            let same = is_ike || exchange.local(*by_a) == other.local(!*by_a);
            crossed && same && lowest(other).is_some_and(|theirs| ours < theirs)
        })
    }

    /// Gateway A deletes with its next request what this one made of a CHILD SA that the peer rekeys as well, before it has answered that: the nonce
    /// of its answer, which it knows, has decided, and was never seen.
    fn taken_back(&self, (spis, by_a, number): &ExchangeId, exchange: &Exchange) -> bool {
        let next = self.exchanges.get(&(*spis, true, number.wrapping_add(1))).and_then(|next| next.request.as_ref());
        let Some((asked, next)) = exchange.request.as_ref().zip(next).filter(|_| *by_a) else { return false };
        let deleted = asked.content.esp.is_some_and(|spi| next.content.deletes.contains(&spi));
        let mut others = self.exchanges.range((*spis, false, 0)..=(*spis, false, u32::MAX)).map(|(_, other)| other);
        let crosses = |other: &Exchange| {
            let rekeys = |half: &Half| half.content.rekeys.is_some() && half.at < next.at;
            other.response.is_none()
                && other.request.as_ref().is_some_and(rekeys)
                && other.local(false) == exchange.local(true)
        };
        asked.content.rekeys.is_some() && deleted && others.any(crosses)
    }

    fn undecided(&self, (spis, by_a, _): &ExchangeId, exchange: &Exchange) -> bool {
        let is_ike = |exchange: &Exchange| exchange.request.as_ref().is_some_and(|half| half.content.ike.is_some());
        let Some(answer) = exchange.response.as_ref().filter(|_| !by_a && is_ike(exchange)) else { return false };
        let mut own = self.exchanges.range((*spis, true, 0)..=(*spis, true, u32::MAX)).map(|(_, own)| own);
        own.any(|own| {
            is_ike(own) && own.response.is_none() && own.request.as_ref().is_some_and(|half| half.at < answer.at)
        })
    }
}

/// What is known of an IKE SA.
#[derive(Clone, Copy)]
struct Known {
    /// Rekeys before it.
    generation: u32,
    /// When the first of its line was begun.
    root: WallTime,
}

/// SAs, one exchange after the other.
struct Facts<'a> {
    reading: &'a Reading,
    seen: &'a Seen,
    known: BTreeMap<IkeSpis, Known>,
    /// By what one end receives on, gateway A's or the other: generation and both SPIs of the CHILD SA.
    generations: BTreeMap<(bool, u32), (u32, (u32, u32))>,
    truth: Truth,
}

impl Facts<'_> {
    fn take(&mut self, id: &ExchangeId, exchange: &Exchange, request: &Half) {
        let (spis, by_a, number) = *id;
        if exchange.kind == ExchangeType::IKE_AUTH {
            let root = self.reading.begun.get(&spis.0).copied().unwrap_or(request.at);
            self.known.entry(spis).or_insert(Known { generation: 0, root });
        }
        let Some(known) = self.known.get(&spis).copied() else { return };
        let later = self.reading.asked_by_a.get(&spis).is_some_and(|highest| *highest > number);
        let base = Origin {
            by_a,
            asked: request.at,
            answered: None,
            noticed: by_a && later,
            lost: self.reading.lost(id, exchange) || self.reading.taken_back(id, exchange),
            undecided: self.reading.undecided(id, exchange),
            root: known.root,
            within: spis,
        };
        match (exchange.kind, request.content.ike) {
            (ExchangeType::IKE_AUTH, _) => {
                self.authenticated(spis, exchange, base);
                self.child(exchange, request, base);
            }
            (ExchangeType::CREATE_CHILD_SA, Some(spi)) => self.ike_rekeyed(spi, exchange, base, known),
            (ExchangeType::CREATE_CHILD_SA, None) => self.child(exchange, request, base),
            _ => {}
        }
    }

    fn authenticated(&mut self, spis: IkeSpis, exchange: &Exchange, base: Origin) {
        let answer = exchange.response.as_ref();
        if answer.is_some_and(|half| !half.content.has_auth) {
            return;
        }
        let origin = Origin { answered: answer.map(|half| half.at), ..base };
        self.truth.ikes.push(IkeFact { spis: (spis.0, Some(spis.1)), initiator: base.by_a, generation: 0, origin });
    }

    fn ike_rekeyed(&mut self, asked: u64, exchange: &Exchange, base: Origin, parent: Known) {
        let answer = exchange.response.as_ref();
        let spi = answer.and_then(|half| half.content.ike);
        if answer.is_some() && spi.is_none() {
            // Refused.
            return;
        }
        let generation = parent.generation + 1;
        if let Some(spi) = spi {
            self.known.insert((asked, spi), Known { generation, root: parent.root });
        }
        let used = spi.is_some_and(|spi| self.reading.asked_by_a.contains_key(&(asked, spi)));
        let noticed = base.noticed || base.by_a && used;
        let origin = Origin { answered: answer.map(|half| half.at), noticed, ..base };
        self.truth.ikes.push(IkeFact { spis: (asked, spi), initiator: base.by_a, generation, origin });
    }

    fn child(&mut self, exchange: &Exchange, request: &Half, base: Origin) {
        let Some(asked) = request.content.esp else { return };
        let answer = exchange.response.as_ref();
        let answered = answer.and_then(|half| half.content.esp);
        if answer.is_some() && answered.is_none() {
            // Refused.
            return;
        }
        let (spi_in, spi_out) = if base.by_a { (Some(asked), answered) } else { (answered, Some(asked)) };
        let old = request.content.rekeys.map(|spi| self.generations.get(&(base.by_a, spi)).copied());
        let generation = match old {
            None => Some(0),
            Some(known) => known.map(|(generation, _)| generation + 1),
        };
        if let (Some(spi_in), Some(spi_out), Some(generation)) = (spi_in, spi_out, generation) {
            for key in [(true, spi_in), (false, spi_out)] {
                self.generations.insert(key, (generation, (spi_in, spi_out)));
            }
        }
        let noticed = base.noticed || base.by_a && spi_out.is_some_and(|spi| self.seen.esp_of_a.contains_key(&spi));
        let origin = Origin { answered: answer.map(|half| half.at), noticed, ..base };
        let local = exchange.local(base.by_a);
        let replaces = old.flatten().map(|(_, pair)| pair);
        self.truth.children.push(ChildFact { spi_in, spi_out, generation, replaces, local, origin });
    }
}

fn content(payloads: &Payloads<'_>) -> Content {
    let proposals = payloads.sa().map(|sa| sa.proposals.as_slice()).unwrap_or_default();
    let rekeys = payloads.notify(NotifyType::REKEY_SA).and_then(|notify| notify.spi.as_ref().try_into().ok());
    Content {
        esp: proposals.iter().find(|proposal| proposal.protocol == ProtocolId::ESP).and_then(|first| first.spi_u32()),
        ike: proposals
            .iter()
            .find(|proposal| proposal.protocol == ProtocolId::IKE)
            .and_then(|first| first.ike_spi())
            .map(|spi| spi.0),
        rekeys: rekeys.map(u32::from_be_bytes),
        nonce: payloads.nonce().map(|nonce| nonce.data.to_vec()).unwrap_or_default(),
        has_auth: payloads.auth().is_some(),
        deletes: payloads
            .deletes()
            .flat_map(|delete| if delete.is_ike_sa() { vec![0] } else { delete.spis().collect() })
            .collect(),
        errors: payloads
            .notifies()
            .filter(|notify| notify.kind.0 < 16384)
            .map(|notify| notify.kind.to_string())
            .collect(),
        selectors: [payloads.ts_initiator().and_then(first), payloads.ts_responder().and_then(first)],
    }
}

fn first(selectors: &TrafficSelectors) -> Option<String> {
    Some(match selectors.ranges().next()?.addresses {
        AddressRange::V4 { start, .. } => start.to_string(),
        AddressRange::V6 { start, .. } => start.to_string(),
    })
}
