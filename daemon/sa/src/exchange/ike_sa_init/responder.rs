//! The responder: what is refused without state, and the answer.

use std::sync::Arc;

use ike_model::{Cause, CauseKind, Childless, Connection, Counter};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{
    Flags, Header, IkeSpi, KeyExchange, Message, Nonce, Notify, Payload, Proposal, SecurityAssociation, encode,
};
use ipsec::Path;

use super::InitParts;
use crate::choose;
use crate::core::Core;
use crate::counters::Way;
use crate::deadline::IkeTimer;
use crate::error::Error;
use crate::fragmentation;
use crate::io::Context;
use crate::key_schedule::{AuthKeys, Contributions, Keys};
use crate::nat;
use crate::say::{Said, say};
use crate::suite;
use crate::turn::Turn;
use crate::work::{Computation, Job, Outcome, WorkId};

/// An IKE SA that a peer initiates and that is not authenticated yet.
pub(crate) struct Responding {
    /// What it waits for.
    pub(crate) step: RespondStep,
    number: u8,
    /// The peer's nonce.
    pub(crate) peer_nonce: Vec<u8>,
    /// Our nonce.
    pub(crate) nonce: Vec<u8>,
    /// The peer's IKE_SA_INIT message.
    pub(crate) request: Vec<u8>,
    /// Ours.
    pub(crate) response: Vec<u8>,
    /// Keys for AUTH.
    pub(crate) auth: Option<AuthKeys>,
    /// That a first CHILD SA is not needed is announced.
    childless: bool,
}

/// What a responder waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RespondStep {
    /// Our public value and the secret.
    KeyExchange(WorkId),
    /// The IKE_AUTH request.
    Auth,
}

/// What becomes of a first request.
pub(crate) enum FirstRequest {
    /// It is answered and forgotten.
    Stateless(Stateless),
    /// An IKE SA begins.
    Begin(Box<Beginning>),
    /// Nothing.
    Drop(&'static str),
}

/// The answer to a first request that leaves no state.
pub(crate) struct Stateless {
    /// The answer.
    pub(crate) octets: Vec<u8>,
    /// Why, if somebody may want to know.
    pub(crate) reason: Option<String>,
    /// What the request counts as; nothing when it is for no connection.
    pub(crate) counts: Option<Counter>,
}

/// What an IKE SA begins with.
pub(crate) struct Beginning {
    /// Algorithms.
    pub(crate) suite: suite::IkeSuite,
    /// The connection that may serve the peer, until its identity is known.
    first: Arc<Connection>,
    number: u8,
    peer_nonce: Vec<u8>,
    public: Vec<u8>,
    /// We announce fragmentation.
    fragmentation: bool,
    /// Some of these connections do without a first CHILD SA.
    childless: bool,
}

impl Beginning {
    /// The connection to use until identities are known.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        self.first.clone()
    }
}

/// Examines a first request that may begin an IKE SA. `explain` = put a refusal into words, which is the dearest part of it.
pub(crate) fn first_request(context: &Context<'_>, path: Path, message: &Message<'_>, explain: bool) -> FirstRequest {
    match examine(context, path, message, explain) {
        Ok(beginning) => FirstRequest::Begin(Box::new(beginning)),
        Err(Refusal::Answer { payload, reason, counts }) => match stateless(&message.header, &[payload]) {
            Some(octets) => FirstRequest::Stateless(Stateless { octets, reason, counts }),
            None => FirstRequest::Drop("answer cannot be encoded"),
        },
        Err(Refusal::Drop(reason)) => FirstRequest::Drop(reason),
    }
}

enum Refusal {
    Answer { payload: Payload<'static>, reason: Option<String>, counts: Option<Counter> },
    Drop(&'static str),
}

impl Refusal {
    fn answer(notify: Notify<'static>, reason: Option<String>, counts: Option<Counter>) -> Self {
        Self::Answer { payload: Payload::Notify(notify), reason, counts }
    }

    /// What is told of an error; the request counts as `counts`.
    fn of(error: &Error, counts: Counter) -> Self {
        error.notify().map_or(Self::Drop("nothing to answer"), |notify| Self::answer(notify, None, Some(counts)))
    }
}

fn examine(context: &Context<'_>, path: Path, message: &Message<'_>, explain: bool) -> Result<Beginning, Refusal> {
    if let Some(kind) = message.payloads.unsupported_critical() {
        return Err(Refusal::of(&Error::UnsupportedCritical(kind), Counter::Invalid));
    }
    let parts = InitParts::find(&message.payloads).map_err(|error| Refusal::of(&error, Counter::Invalid))?;
    let candidates = choose::by_addresses(context.config, path);
    let peer = path.remote;
    if candidates.is_empty() {
        let reason = explain.then(|| format!("no connection for {} ... {}", path.local.ip(), peer.ip()));
        return Err(Refusal::answer(Notify::plain(NotifyType::NO_PROPOSAL_CHOSEN), reason, None));
    }
    let chosen = candidates.iter().find_map(|connection| {
        let ours = &connection.proposals;
        let chosen = suite::choose_ike(ours, context.provider, &parts.sa.proposals, Some(parts.method))?;
        Some((chosen, connection.clone()))
    });
    let Some((chosen, first)) = chosen else {
        let reason = explain.then(|| no_proposal(context, &candidates, &parts.sa.proposals));
        let notify = Notify::plain(NotifyType::NO_PROPOSAL_CHOSEN);
        return Err(Refusal::answer(notify, reason, Some(Counter::IkeInitInReq)));
    };
    if chosen.suite.method != parts.method {
        tracing::debug!(%peer, wanted = %chosen.suite.method, sent = %parts.method, "asking for another key exchange method");
        return Err(Refusal::of(&Error::InvalidKe(chosen.suite.method), Counter::IkeInitInReq));
    }
    Ok(Beginning {
        suite: chosen.suite,
        first,
        number: chosen.number,
        peer_nonce: parts.nonce.to_vec(),
        public: parts.public.to_vec(),
        fragmentation: fragmentation::any_announces(&candidates),
        childless: candidates.iter().any(|connection| connection.childless != Childless::Never),
    })
}

fn no_proposal(context: &Context<'_>, candidates: &[Arc<Connection>], theirs: &[Proposal]) -> String {
    let sets =
        candidates.iter().map(|c| format!("{}: {}", c.name, suite::describe_ike(&c.proposals, context.provider)));
    let error = Error::NoProposal {
        ours: sets.collect::<Vec<_>>().join("; "),
        theirs: suite::describe(theirs),
        difference: candidates
            .first()
            .map(|first| suite::ike_difference(&first.proposals, context.provider, theirs))
            .unwrap_or_default(),
    };
    error.to_string()
}

//= RFC 7296 §2.21.1: errors in IKE_SA_INIT are answered in clear, without state
/// A response in clear that leaves no state; it repeats both SPIs of the request.
pub(crate) fn stateless(request: &Header, payloads: &[Payload<'_>]) -> Option<Vec<u8>> {
    let flags = Flags { initiator: !request.flags.initiator, version: false, response: true };
    let header = Header::new(request.initiator_spi, request.responder_spi, request.exchange, flags, request.message_id);
    tracing::event!(name: "ENC 1", tracing::Level::TRACE, "generating {}", Said::new(&header, payloads));
    encode(&header, payloads).ok()
}

impl Responding {
    /// Begins: has our public value and the secret computed.
    pub(crate) fn begin(
        core: &mut Core,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        beginning: Beginning,
    ) -> Result<Self, Error> {
        let method = turn.context.provider.key_exchange(beginning.suite.method);
        let method = method.ok_or(Error::Temporary("key exchange method is gone"))?;
        core.suite = Some(beginning.suite);
        core.nat = nat::detect(&message.payloads, core.spi_i, IkeSpi(0), core.path, core.connection.encap);
        say!(DEBUG, "CFG 1", core, "selected proposal: {}", beginning.suite.proposal(beginning.number, None));
        nat::say_found(core);
        core.fragments = fragmentation::is_announced(&message.payloads) && beginning.fragmentation;
        core.window.processing();
        let at = turn.after(turn.context.config.settings.half_open_timeout);
        turn.deadlines.set(core.timer(IkeTimer::HalfOpen), at);
        let job = Job::Compute(Computation::Respond(method, beginning.public));
        Ok(Self {
            step: RespondStep::KeyExchange(turn.work(core.spi(), job)),
            number: beginning.number,
            peer_nonce: beginning.peer_nonce,
            nonce: turn.nonce()?,
            request: message.octets().to_vec(),
            childless: beginning.childless,
            response: Vec::new(),
            auth: None,
        })
    }

    /// The key exchange is done: answer.
    pub(crate) fn on_work(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: WorkId,
        outcome: Outcome,
    ) -> Result<(), Error> {
        let (RespondStep::KeyExchange(waiting), Outcome::Responded(result)) = (self.step, outcome) else {
            return Ok(());
        };
        if waiting != id {
            return Ok(());
        }
        let (public, secret) = result?;
        let suite = core.suite.ok_or(Error::Temporary("no algorithms"))?;
        let from = Contributions {
            nonce_i: &self.peer_nonce,
            nonce_r: &self.nonce,
            spi_i: core.spi_i,
            spi_r: core.spi_r,
            secret: secret.as_ref(),
        };
        let export = turn.context.config.settings.key_export;
        let (keys, auth) = Keys::initial(turn.context.provider, suite, from, false, export)?;
        core.keys = Some(keys);
        self.auth = Some(auth);
        self.step = RespondStep::Auth;
        self.respond(core, turn, suite, public)
    }

    fn respond(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        suite: suite::IkeSuite,
        public: Vec<u8>,
    ) -> Result<(), Error> {
        let mut payloads = vec![
            Payload::Sa(SecurityAssociation::new(vec![suite.proposal(self.number, None)])),
            Payload::KeyExchange(KeyExchange::new(suite.method, public)),
            Payload::Nonce(Nonce::new(self.nonce.clone())),
        ];
        payloads.extend(nat::notifies(core.spi_i, core.spi_r, core.path, core.connection.encap));
        //= RFC 6023 §3: the responder announces it in IKE_SA_INIT; which connection it will be shows only in IKE_AUTH
        if self.childless {
            payloads.push(Payload::Notify(Notify::plain(NotifyType::CHILDLESS_IKEV2_SUPPORTED)));
        }
        //= RFC 7383 §2.3: a responder announces it to an initiator that has announced it
        if core.fragments {
            payloads.push(fragmentation::announcement());
        }
        let id = core.window.processing();
        let octets = core.plain(ExchangeType::IKE_SA_INIT, id, true, &payloads)?;
        self.response.clone_from(&octets);
        core.count_message(turn, ExchangeType::IKE_SA_INIT, Way::ResponseOut);
        core.send_response(turn, octets);
        Ok(())
    }
}

/// Why a half-open IKE SA is forgotten.
pub(crate) fn half_open_cause() -> Cause {
    Cause::new(CauseKind::PeerUnreachable, "the peer did not go on with IKE_AUTH")
}
