//! The network between the gateways: latency, loss, duplicates, reordering, cuts, address translation and rules for single messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ike_wire::Header;
use ike_wire::ids::ExchangeType;
use ipsec::{Instant, Path};

use crate::Who;
use crate::dice::Dice;

type Rule = dyn FnMut(&Sending<'_>) -> Verdict;

/// How the network behaves. The default: 10 ms each way, nothing lost.
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// Up to this much more, by chance and for each datagram on its own; so it also reorders.
    pub jitter: Duration,
    /// Lost, out of 1,000.
    pub loss: u32,
    /// Delivered twice, out of 1,000.
    pub duplicates: u32,
    /// Ways, from and to, on which nothing passes.
    pub cut: BTreeSet<(Who, Who)>,
    /// Pairs of addresses, the sender's and the one it sends to, between which nothing passes.
    pub dead: BTreeSet<(IpAddr, IpAddr)>,
    rules: Vec<Box<Rule>>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0,
            duplicates: 0,
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            rules: Vec::new(),
        }
    }
}

/// A datagram that is being sent.
pub struct Sending<'a> {
    /// By whom.
    pub from: Who,
    /// Datagrams that this gateway has sent before.
    pub n: usize,
    /// When.
    pub at: Instant,
    /// From where to where, as the sender sees it.
    pub path: Path,
    /// The message.
    pub octets: &'a [u8],
    /// Its header.
    pub header: Header,
}

impl Sending<'_> {
    /// Whether it is a request of this exchange type.
    pub fn is_request(&self, exchange: ExchangeType) -> bool {
        self.header.exchange == exchange && !self.header.flags.response
    }

    /// Whether it is a response of this exchange type.
    pub fn is_response(&self, exchange: ExchangeType) -> bool {
        self.header.exchange == exchange && self.header.flags.response
    }
}

/// What a rule does with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next rule decides, after the last one chance.
    Pass,
    /// It is lost.
    Drop,
    /// It is kept until the test lets it go.
    Hold,
    /// It takes so much longer.
    Delay(Duration),
}

/// What becomes of a datagram.
pub(crate) enum Fate {
    Lost,
    Held,
    /// Delivered after each of these times.
    Delivered(Vec<Duration>),
}

impl Link {
    /// Adds a rule. All rules see every datagram; the first that does not pass decides.
    pub fn rule(&mut self, rule: impl FnMut(&Sending<'_>) -> Verdict + 'static) {
        self.rules.push(Box::new(rule));
    }

    /// Drops what `drop` says, by sender and number of the datagram.
    pub fn drop_if(&mut self, drop: impl Fn(Who, usize) -> bool + 'static) {
        self.rule(move |sending| if drop(sending.from, sending.n) { Verdict::Drop } else { Verdict::Pass });
    }

    /// Takes all rules out.
    pub fn clear_rules(&mut self) {
        self.rules.clear();
    }

    /// Cuts both ways between two gateways.
    pub fn partition(&mut self, one: Who, other: Who) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// Nothing passes between two addresses any more, in either direction.
    pub fn kill(&mut self, one: IpAddr, other: IpAddr) {
        self.dead.extend([(one, other), (other, one)]);
    }

    /// Mends all cuts and revives all ways.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.dead.clear();
    }

    /// How long one datagram takes.
    pub(crate) fn travel(&self, dice: &mut Dice) -> Duration {
        self.latency + dice.span(self.jitter)
    }

    pub(crate) fn fate(&mut self, sending: &Sending<'_>, to: Who, dice: &mut Dice) -> Fate {
        let verdicts: Vec<_> = self.rules.iter_mut().map(|rule| rule(sending)).collect();
        let verdict = verdicts.into_iter().find(|verdict| *verdict != Verdict::Pass);
        let extra = match verdict {
            Some(Verdict::Drop) => return Fate::Lost,
            Some(Verdict::Hold) => return Fate::Held,
            Some(Verdict::Delay(extra)) => extra,
            Some(Verdict::Pass) | None => Duration::ZERO,
        };
        if self.cut.contains(&(sending.from, to)) || dice.per_mille(self.loss) {
            return Fate::Lost;
        }
        let mut times = vec![self.travel(dice) + extra];
        if dice.per_mille(self.duplicates) {
            times.push(self.travel(dice) + extra);
        }
        Fate::Delivered(times)
    }
}

/// An address translator in front of a gateway.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Its outer address.
    pub public: IpAddr,
    /// The only inner address that it translates; `None` = all.
    pub only: Option<IpAddr>,
    next_port: u16,
    ports: BTreeMap<SocketAddr, u16>,
}

impl Nat {
    /// A translator that gives out ports from `first_port` on.
    pub fn new(public: IpAddr, first_port: u16) -> Self {
        Self { public, only: None, next_port: first_port, ports: BTreeMap::new() }
    }

    /// A translator that gives `inner` its outer address for good, ports unchanged, so that it can be reached from outside.
    pub fn forwarding(public: IpAddr, inner: IpAddr) -> Self {
        let ports = [500, 4500].map(|port| (SocketAddr::new(inner, port), port));
        Self { public, only: None, next_port: 50_000, ports: BTreeMap::from(ports) }
    }

    /// Forgets all ports; the next datagrams get others.
    pub fn rebind(&mut self) {
        self.ports.clear();
    }

    /// The outer source of what an inner source sends.
    pub(crate) fn outward(&mut self, inner: SocketAddr) -> SocketAddr {
        if !self.translates(inner.ip()) {
            return inner;
        }
        let port = *self.ports.entry(inner).or_insert_with(|| {
            self.next_port += 1;
            self.next_port
        });
        SocketAddr::new(self.public, port)
    }

    /// Whether it stands in front of this inner address.
    pub(crate) fn translates(&self, inner: IpAddr) -> bool {
        self.only.is_none_or(|only| only == inner)
    }

    /// Where a datagram to this outer address goes inside.
    pub(crate) fn inward(&self, outer: SocketAddr) -> Option<SocketAddr> {
        let (inner, _) = self.ports.iter().find(|(_, port)| **port == outer.port())?;
        (outer.ip() == self.public).then_some(*inner)
    }
}
