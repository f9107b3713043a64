//! The initiator: addresses, the request with its detours, the response.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ike_crypto::{SharedSecret, StartedKeyExchange};
use ike_model::{Counter, HostSpec};
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType};
use ike_wire::{IkeSpi, KeyExchange, Message, Nonce, Notify, Payload, SecurityAssociation};
use ipsec::Path;

use super::InitParts;
use crate::choose;
use crate::core::Core;
use crate::counters::Way;
use crate::directory::DirectoryMessage;
use crate::error::Error;
use crate::fragmentation;
use crate::io::{Output, Recipient};
use crate::key_schedule::{AuthKeys, Contributions, Keys};
use crate::ladder;
use crate::mobility;
use crate::nat;
use crate::negotiation::{ChildRequest, Offer};
use crate::say::say;
use crate::suite;
use crate::turn::Turn;
use crate::work::{Computation, Job, Outcome, WorkId};

/// An IKE SA that we initiate and that is not authenticated yet.
pub(crate) struct Initiating {
    pub(crate) step: Step,
    /// Children that wait for it; the first goes into IKE_AUTH.
    pub(crate) requests: VecDeque<ChildRequest>,
    /// Retransmission sequences that came to nothing.
    sequences: u32,
    names: VecDeque<String>,
    addresses: VecDeque<IpAddr>,
    method: Option<KeyExchangeId>,
    /// Our nonce.
    pub(crate) nonce: Vec<u8>,
    started: Option<Box<dyn StartedKeyExchange>>,
    cookie: Option<Vec<u8>>,
    /// COOKIE and INVALID_KE_PAYLOAD answers followed so far.
    detours: u8,
    /// Our IKE_SA_INIT message.
    pub(crate) request: Vec<u8>,
    /// The peer's.
    pub(crate) response: Vec<u8>,
    /// The peer's nonce.
    pub(crate) peer_nonce: Vec<u8>,
    /// Keys for AUTH.
    pub(crate) auth: Option<AuthKeys>,
    /// What IKE_AUTH offers.
    pub(crate) offer: Option<Offer>,
    /// The peer can do without a first child.
    pub(crate) childless: bool,
    /// The peer does NAT detection.
    detects_nat: bool,
}

/// What an initiator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Addresses of a name.
    Resolving(WorkId),
    /// Our address.
    Routing(WorkId),
    /// Our public value.
    Starting(WorkId),
    /// The IKE_SA_INIT response.
    InitSent,
    /// The shared secret.
    Completing(WorkId),
    /// The IKE_AUTH response.
    AuthSent,
    /// Nothing: it is just being made.
    New,
}

/// COOKIE and INVALID_KE_PAYLOAD answers that are followed in one attempt.
const DETOURS: u8 = 4;

impl Initiating {
    pub(crate) fn new(requests: VecDeque<ChildRequest>) -> Self {
        Self {
            step: Step::New,
            requests,
            sequences: 0,
            names: VecDeque::new(),
            addresses: VecDeque::new(),
            method: None,
            nonce: Vec::new(),
            started: None,
            cookie: None,
            detours: 0,
            request: Vec::new(),
            response: Vec::new(),
            peer_nonce: Vec::new(),
            auth: None,
            offer: None,
            childless: false,
            detects_nat: false,
        }
    }

    /// Begins an attempt: names are resolved each time.
    pub(crate) fn begin(&mut self, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        self.addresses.clear();
        self.names.clear();
        for spec in &core.connection.remote_addrs {
            match spec {
                HostSpec::Address(address) => self.addresses.push_back(*address),
                HostSpec::Name(name) => self.names.push_back(name.clone()),
                HostSpec::Any | HostSpec::Range(_) => {}
            }
        }
        self.resolve_next(core, turn)
    }

    fn resolve_next(&mut self, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        match self.names.pop_front() {
            Some(name) => {
                self.step = Step::Resolving(turn.work(core.spi(), Job::Resolve(name)));
                Ok(())
            }
            None => self.try_next_address(core, turn),
        }
    }

    //= RFC 4555 §3.1: the addresses of the responder are tried one after the other
    fn try_next_address(&mut self, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        let Some(remote) = self.addresses.pop_front() else {
            let name = &core.connection.name;
            return Err(Error::NoAddress(format!("connection {name} has no peer address to initiate to")));
        };
        let settings = &turn.context.config.settings;
        // Another port than 500 at the peer is taken to expect the non-ESP marker, so our NAT-T port is used.
        let local_port = if core.connection.remote_port == settings.port { settings.port } else { settings.nat_port };
        core.path.remote = SocketAddr::new(remote, core.connection.remote_port);
        let configured = core.connection.local_addrs.iter().find_map(|spec| match spec {
            HostSpec::Address(address) => (address.is_ipv4() == remote.is_ipv4()).then_some(*address),
            HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
        });
        match configured {
            Some(local) => {
                core.path.local = SocketAddr::new(local, local_port);
                self.start(core, turn)
            }
            None => {
                core.path.local.set_port(local_port);
                self.step = Step::Routing(turn.work(core.spi(), Job::SourceFor(remote)));
                Ok(())
            }
        }
    }

    /// Has our public value computed, for a new first request.
    fn start(&mut self, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        self.check_requests(core, turn)?;
        let (name, id, peer) = (&core.connection.name, core.unique_id, core.path.remote.ip());
        say!(DEBUG, "IKE 0", core, "initiating IKE_SA {name}[{id}] to {peer}");
        announce(core, turn);
        core.window.restart();
        core.spi_r = IkeSpi(0);
        self.cookie = None;
        self.nonce = turn.nonce()?;
        let proposals = &core.connection.proposals;
        let wanted = self.method.or_else(|| suite::first_ike_method(proposals, turn.context.provider));
        let method = wanted.and_then(|id| turn.context.provider.key_exchange(id)).ok_or_else(|| Error::NoProposal {
            ours: "nothing that this build can do".into(),
            theirs: "nothing".into(),
            difference: String::new(),
        })?;
        self.step = Step::Starting(turn.work(core.spi(), Job::Compute(Computation::Start(method))));
        Ok(())
    }

    /// What the device on this way can never carry is refused before a word is said; the rest goes on.
    ///
    /// # Errors
    /// That is all that is asked for.
    fn check_requests(&mut self, core: &Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        let mut last = None;
        for request in std::mem::take(&mut self.requests) {
            match ladder::check_early(turn, &core.connection, core.path, &request) {
                Ok(()) => self.requests.push_back(request),
                Err(error) => {
                    if let Some((request, error)) = last.replace((request, error)) {
                        core.child_failed(turn, request, &error.cause());
                    }
                }
            }
        }
        let Some((request, error)) = last else { return Ok(()) };
        if self.requests.is_empty() {
            // Told with the attempt that ends.
            self.requests.push_back(request);
            return Err(error);
        }
        core.child_failed(turn, request, &error.cause());
        Ok(())
    }

    /// Work for us is done.
    pub(crate) fn on_work(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: WorkId,
        outcome: Outcome,
    ) -> Result<bool, Error> {
        match (self.step, outcome) {
            (Step::Resolving(waiting), Outcome::Resolved(result)) if waiting == id => {
                match result {
                    Ok(addresses) => self.addresses.extend(addresses),
                    Err(reason) if self.names.is_empty() && self.addresses.is_empty() => {
                        return Err(Error::NoAddress(reason));
                    }
                    Err(reason) => tracing::warn!(conn = core.connection.name, "{reason}"),
                }
                self.resolve_next(core, turn)?;
            }
            (Step::Routing(waiting), Outcome::Source(result)) if waiting == id => match result {
                Ok(local) => {
                    core.path.local.set_ip(local);
                    self.start(core, turn)?;
                }
                Err(reason) if self.addresses.is_empty() => return Err(Error::NoAddress(reason)),
                Err(_) => self.try_next_address(core, turn)?,
            },
            (Step::Starting(waiting), Outcome::Started(result)) if waiting == id => {
                self.started = Some(result?);
                self.send(core, turn)?;
            }
            (Step::Completing(waiting), Outcome::Completed(result)) if waiting == id => {
                self.derive(core, turn, &result?)?;
                return Ok(true);
            }
            _ => tracing::debug!(ike = core.unique_id, work = %id, "late outcome ignored"),
        }
        Ok(false)
    }

    fn send(&mut self, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
        let Some(started) = &self.started else { return Ok(()) };
        let proposals = suite::offer_ike(&core.connection.proposals, turn.context.provider, None);
        let mut payloads = Vec::with_capacity(6);
        if let Some(cookie) = &self.cookie {
            //= RFC 7296 §2.6: the COOKIE notification comes first, all else is unchanged
            payloads.push(Payload::Notify(Notify::new(NotifyType::COOKIE, cookie.clone())));
        }
        payloads.push(Payload::Sa(SecurityAssociation::new(proposals)));
        payloads.push(Payload::KeyExchange(KeyExchange::new(started.id(), started.public_value().to_vec())));
        payloads.push(Payload::Nonce(Nonce::new(self.nonce.clone())));
        payloads.extend(nat::notifies(core.spi_i, IkeSpi(0), core.path, core.connection.encap));
        if core.connection.fragmentation.is_announced() {
            payloads.push(fragmentation::announcement());
        }
        let id = ike_wire::MessageId(0);
        let octets = core.plain(ExchangeType::IKE_SA_INIT, id, false, &payloads)?;
        self.request.clone_from(&octets);
        self.step = Step::InitSent;
        core.count_message(turn, ExchangeType::IKE_SA_INIT, Way::RequestOut);
        if core.window.is_waiting() {
            core.replace_request(turn, octets)
        } else {
            core.send_request(turn, octets)
        }
        Ok(())
    }

    /// The IKE_SA_INIT response, which nothing protects.
    pub(crate) fn on_response(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Error> {
        if self.step != Step::InitSent || !core.window.awaits(message.header.message_id) {
            return Err(Error::Unauthentic("IKE_SA_INIT response that nobody waits for"));
        }
        let payloads = &message.payloads;
        let refuses = payloads.notifies().any(|notify| notify.kind == NotifyType::COOKIE || notify.kind.is_error());
        if refuses || InitParts::find(payloads).is_ok() {
            core.count_message(turn, ExchangeType::IKE_SA_INIT, Way::ResponseIn);
        } else {
            core.count(turn, Counter::Invalid);
        }
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            return self.follow_cookie(core, turn, &cookie.data);
        }
        if let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD) {
            return self.follow_method(core, turn, notify.data_u16());
        }
        if let Some(kind) = payloads.notifies().map(|notify| notify.kind).find(|kind| kind.is_error()) {
            say!(DEBUG, "IKE 1", core, "received {kind} notify error");
            let offered = suite::describe_ike(&core.connection.proposals, turn.context.provider);
            return Err(Error::PeerRefused { kind, offered });
        }
        //= RFC 7296 §2.21.1: nothing protects the answer: what makes no sense may come from anybody, and the peer's own may still come
        self.accept(core, turn, path, message)
            .map_err(|error| if let Error::PeerMisbehaved(reason) = error { Error::Unauthentic(reason) } else { error })
    }

    fn follow_cookie(&mut self, core: &mut Core, turn: &mut Turn<'_>, cookie: &[u8]) -> Result<(), Error> {
        //= RFC 7296 §3.10.1: a cookie has 1 to 64 octets
        if cookie.is_empty() || cookie.len() > 64 {
            return Err(Error::Unauthentic("cookie of illegal length"));
        }
        self.detour()?;
        self.cookie = Some(cookie.to_vec());
        self.send(core, turn)
    }

    //= RFC 7296 §2.6.1: with another method it is another request, for which a cookie may be asked again
    fn follow_method(&mut self, core: &mut Core, turn: &mut Turn<'_>, wanted: Option<u16>) -> Result<(), Error> {
        let method = wanted.map(KeyExchangeId).filter(|id| self.method != Some(*id));
        //= RFC 7296 §2.7: the method must be one that was offered
        let offered = |id: &KeyExchangeId| core.connection.proposals.iter().any(|p| p.key_exchange.contains(id));
        let Some(method) = method.filter(offered).filter(|id| turn.context.provider.key_exchange(*id).is_some()) else {
            let offered = suite::describe_ike(&core.connection.proposals, turn.context.provider);
            return Err(Error::PeerRefused { kind: NotifyType::INVALID_KE_PAYLOAD, offered });
        };
        self.detour()?;
        let begun = self.started.as_ref().map_or_else(String::new, |started| format!(" {}", started.id()));
        say!(DEBUG, "IKE 1", core, "peer didn't accept key exchange method{begun}, it requested {method}");
        core.answered(turn);
        self.method = Some(method);
        self.start(core, turn)
    }

    fn detour(&mut self) -> Result<(), Error> {
        self.detours = self.detours.saturating_add(1);
        if self.detours > DETOURS { Err(Error::PeerMisbehaved("peer sends us round in circles")) } else { Ok(()) }
    }

    fn accept(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) -> Result<(), Error> {
        let parts = InitParts::find(&message.payloads)?;
        let (method, proposals) = (parts.method, &parts.sa.proposals);
        if message.header.responder_spi.is_zero() {
            return Err(Error::Unauthentic("IKE_SA_INIT response without a responder's SPI"));
        }
        let chosen = match proposals.as_slice() {
            [one] => {
                suite::choose_ike(&core.connection.proposals, turn.context.provider, std::slice::from_ref(one), None)
            }
            _ => return Err(Error::PeerMisbehaved("the answer does not hold exactly one IKE proposal")),
        };
        let chosen = chosen.ok_or_else(|| Error::NoProposal {
            ours: suite::describe_ike(&core.connection.proposals, turn.context.provider),
            theirs: suite::describe(proposals),
            difference: suite::ike_difference(&core.connection.proposals, turn.context.provider, proposals),
        })?;
        say!(TRACE, "CFG 2", core, "received proposals: {}", suite::describe(proposals));
        let configured = &core.connection.proposals;
        say!(TRACE, "CFG 2", core, "configured proposals: {}", suite::describe_ike(configured, turn.context.provider));
        say!(DEBUG, "CFG 1", core, "selected proposal: {}", chosen.suite.proposal(chosen.number, None));
        let Some(started) = self.started.take_if(|started| started.id() == method && chosen.suite.method == method)
        else {
            return Err(Error::PeerMisbehaved("key exchange of another method than the one begun"));
        };
        core.answered(turn);
        core.spi_r = message.header.responder_spi;
        core.suite = Some(chosen.suite);
        core.nat = nat::detect(&message.payloads, core.spi_i, core.spi_r, path, core.connection.encap);
        nat::say_found(core);
        let announced = core.connection.fragmentation.is_announced();
        core.fragments = announced && fragmentation::is_announced(&message.payloads);
        core.mobility.seen_as = mobility::seen_as(&message.payloads);
        self.detects_nat = nat::is_present(&message.payloads);
        core.heard_at = turn.now();
        self.peer_nonce = parts.nonce.to_vec();
        self.response = message.octets().to_vec();
        self.childless = message.payloads.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some();
        let job = Job::Compute(Computation::Complete(started, parts.public.to_vec()));
        self.step = Step::Completing(turn.work(core.spi(), job));
        Ok(())
    }

    fn derive(&mut self, core: &mut Core, turn: &mut Turn<'_>, secret: &SharedSecret) -> Result<(), Error> {
        let suite = core.suite.ok_or(Error::PeerMisbehaved("no algorithms"))?;
        let from = Contributions {
            nonce_i: &self.nonce,
            nonce_r: &self.peer_nonce,
            spi_i: core.spi_i,
            spi_r: core.spi_r,
            secret: secret.as_ref(),
        };
        let export = turn.context.config.settings.key_export;
        let (keys, auth) = Keys::initial(turn.context.provider, suite, from, true, export)?;
        core.keys = Some(keys);
        self.auth = Some(auth);
        float(core, turn, self.detects_nat);
        Ok(())
    }

    /// The peer did not answer: another address, another sequence, or the end.
    pub(crate) fn unanswered(&mut self, core: &mut Core, turn: &mut Turn<'_>, error: Error) -> Result<(), Error> {
        if self.step != Step::InitSent {
            return Err(error);
        }
        if !self.addresses.is_empty() {
            return self.try_next_address(core, turn);
        }
        self.sequences = self.sequences.saturating_add(1);
        let tries = core.connection.keyingtries;
        if tries != 0 && self.sequences >= tries {
            return Err(error);
        }
        tracing::info!(conn = core.connection.name, ike = core.unique_id, "{error}; trying again");
        self.begin(core, turn)
    }
}

/// Tells all shards between which identities an IKE SA is being made, so that none of them claims to be the first (INITIAL_CONTACT).
fn announce(core: &Core, turn: &mut Turn<'_>) {
    let pair = (choose::local_identity(&core.connection, core.path), choose::remote_pattern(&core.connection));
    if turn.registry.connecting.insert(core.unique_id, pair.clone()).as_ref() == Some(&pair) || turn.ids.shards() == 1 {
        return;
    }
    let message = DirectoryMessage::Connecting { unique_id: core.unique_id, local_id: pair.0, remote_id: pair.1 };
    turn.outputs.push_back(Output::Directory(Recipient::Others, message));
}

//= RFC 4555 §3.3: with MOBIKE also without NAT, so that ports need not change when there is one on some other way
/// Moves to the NAT-T port when there is NAT on the way (RFC 7296 §2.23), or may be on another one.
fn float(core: &mut Core, turn: &Turn<'_>, detects_nat: bool) {
    let settings = &turn.context.config.settings;
    let may_move = core.connection.mobike && detects_nat && core.path.remote.port() == PORT;
    let wanted = core.nat.encapsulates() || may_move;
    if wanted && settings.nat_port != 0 && core.path.local.port() == settings.port {
        core.path.local.set_port(settings.nat_port);
        core.path.remote.set_port(NAT_PORT);
    }
}

/// UDP port of IKE.
const PORT: u16 = 500;
/// UDP port that peers behind NAT are reached at (RFC 7296 §2.23).
const NAT_PORT: u16 = 4500;
