//! CREATE_CHILD_SA for the IKE SA itself, in both roles (RFC 7296 §1.3.2, §2.8, §2.8.2, §2.18, §2.25.2).
//!
//! The new IKE SA inherits the CHILD SAs; the old one is deleted by whoever began the exchange. When both begin at once, the new IKE SA of
//! the peer's exchange stands undecided until our own exchange is answered, or the peer shows that it uses it.

use std::time::Duration;

use ike_crypto::{SharedSecret, StartedKeyExchange};
use ike_model::{Cause, CauseKind, EventBody};
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType, ProtocolId};
use ike_wire::{IkeSpi, KeyExchange, Nonce, Payload, Payloads, SecurityAssociation};

use crate::collision::{Verdict, lowest, verdict};
use crate::core::Core;
use crate::deadline::IkeTimer;
use crate::detour::Detours;
use crate::error::Error;
use crate::established::{Active, Authenticated, Incoming, Intent, Standing};
use crate::ike_sa::IkeSa;
use crate::key_schedule::Contributions;
use crate::negotiation;
use crate::notice::{Estate, Notice};
use crate::reassembly::Reassembly;
use crate::retry;
use crate::say::{self, say};
use crate::suite::{self, IkeSuite};
use crate::turn::Turn;
use crate::window::Window;
use crate::work::{Computation, Job, Outcome, WorkId};

/// An exchange that we began.
#[derive(Debug)]
pub(crate) struct Exchange {
    spi: IkeSpi,
    step: Step,
    nonce: Vec<u8>,
    method: KeyExchangeId,
    started: Option<Box<dyn StartedKeyExchange>>,
    detours: Detours,
    agreed: Option<Agreed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Starting(WorkId),
    Requested,
    Completing(WorkId),
}

#[derive(Debug)]
struct Agreed {
    suite: IkeSuite,
    peer_spi: IkeSpi,
    peer_nonce: Vec<u8>,
}

/// The new IKE SA of the peer's exchange while ours is under way.
#[derive(Debug)]
pub(crate) struct Rival {
    spi: IkeSpi,
    lowest_nonce: Vec<u8>,
    claim: Claim,
}

/// What the peer has shown of its decision before our exchange was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing.
    None,
    /// It uses its new IKE SA, which has taken over.
    InUse,
    /// It has deleted the old one besides: our exchange can be answered only by what is under way already.
    Closed,
}

impl Rival {
    /// Our SPI.
    pub(crate) fn spi(&self) -> u64 {
        self.spi.0
    }
}

/// A request of the peer whose key exchange is being computed.
#[derive(Debug)]
pub(crate) struct KeyExchangePending {
    work: WorkId,
    number: u8,
    agreed: Agreed,
}

/// A replaced IKE SA that the peer does not delete goes after this many seconds.
const REAP: Duration = Duration::from_secs(30);
/// A new IKE SA about which nothing is decided goes after this long; by then our own exchange has been answered or the peer is dead.
const UNDECIDED: Duration = Duration::from_secs(300);
/// A response that the peer's DELETE has overtaken comes within this time, or never.
const OVERTAKEN: Duration = Duration::from_secs(2);

/// Begins.
pub(crate) fn start(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    let current = core.suite.map(|suite| suite.method);
    let listed = |id: &KeyExchangeId| core.connection.proposals.iter().any(|p| p.key_exchange.contains(id));
    let usable = |id: &KeyExchangeId| turn.context.provider.key_exchange(*id).is_some();
    let method = current
        .filter(listed)
        .filter(usable)
        .or_else(|| suite::first_ike_method(&core.connection.proposals, turn.context.provider))
        .ok_or(Error::Temporary("no key exchange method"))?;
    let exchange = Exchange {
        spi: turn.ids.ike_spi(turn.context)?,
        step: Step::Requested,
        nonce: turn.nonce()?,
        method,
        started: None,
        detours: Detours::default(),
        agreed: None,
    };
    begin_key_exchange(authenticated, core, turn, Box::new(exchange))
}

fn begin_key_exchange(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
) -> Result<(), Error> {
    let method = turn.context.provider.key_exchange(exchange.method);
    let method = method.ok_or(Error::Temporary("key exchange method is gone"))?;
    let (name, id) = (&core.connection.name, core.unique_id);
    say!(DEBUG, "IKE 0", core, "rekeying IKE_SA {name}[{id}] to {}", core.path.remote.ip());
    exchange.step = Step::Starting(turn.work(core.spi(), Job::Compute(Computation::Start(method))));
    authenticated.active = Some(Active::RekeyIke(exchange));
    Ok(())
}

/// Work for our exchange is done.
pub(crate) fn on_work(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    id: WorkId,
    outcome: Outcome,
) {
    let result = match (exchange.step, outcome) {
        (Step::Starting(waiting), Outcome::Started(result)) if waiting == id => {
            result.map_err(Error::from).and_then(|started| send(core, turn, &mut exchange, started))
        }
        (Step::Completing(waiting), Outcome::Completed(result)) if waiting == id => match result {
            Ok(secret) => match complete(authenticated, core, turn, &mut exchange, &secret) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Err(error) => Err(error.into()),
        },
        _ => Ok(()),
    };
    match result {
        Ok(()) => authenticated.active = Some(Active::RekeyIke(exchange)),
        Err(error) => failed(authenticated, core, turn, &error),
    }
}

//= RFC 7296 §1.3.2: SA with the new SPI, nonce and KE; no selectors
fn send(
    core: &mut Core,
    turn: &mut Turn<'_>,
    exchange: &mut Exchange,
    started: Box<dyn StartedKeyExchange>,
) -> Result<(), Error> {
    let proposals = suite::offer_ike(&core.connection.proposals, turn.context.provider, Some(exchange.spi));
    let payloads = [
        Payload::Sa(SecurityAssociation::new(proposals)),
        Payload::Nonce(Nonce::new(exchange.nonce.clone())),
        Payload::KeyExchange(KeyExchange::new(started.id(), started.public_value().to_vec())),
    ];
    core.request(turn, ExchangeType::CREATE_CHILD_SA, &payloads)?;
    exchange.started = Some(started);
    exchange.step = Step::Requested;
    Ok(())
}

/// The peer has answered.
pub(crate) fn on_response(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    payloads: &Payloads<'_>,
) {
    let result = match negotiation::refusal(payloads) {
        Some(NotifyType::INVALID_KE_PAYLOAD) if !is_closed(authenticated) => {
            other_method(core, turn, &mut exchange, payloads)
        }
        Some(kind) => {
            say!(DEBUG, "IKE 1", core, "received {kind} notify error");
            Err(Error::PeerNotified(kind))
        }
        None => accept(core, turn, &mut exchange, payloads).map(|()| false),
    };
    match result {
        Ok(true) => {
            if let Err(error) = begin_key_exchange(authenticated, core, turn, exchange) {
                failed(authenticated, core, turn, &error);
            }
        }
        Ok(false) => authenticated.active = Some(Active::RekeyIke(exchange)),
        Err(error) => failed(authenticated, core, turn, &error),
    }
}

fn other_method(core: &Core, turn: &Turn<'_>, exchange: &mut Exchange, payloads: &Payloads<'_>) -> Result<bool, Error> {
    let acceptable = |id: KeyExchangeId| {
        turn.context.provider.key_exchange(id).is_some()
            && core.connection.proposals.iter().any(|proposal| proposal.key_exchange.contains(&id))
    };
    let method = exchange.detours.follow(payloads, Some(exchange.method), acceptable);
    exchange.method = method.ok_or(Error::PeerNotified(NotifyType::INVALID_KE_PAYLOAD))?;
    exchange.started = None;
    Ok(true)
}

fn accept(core: &Core, turn: &mut Turn<'_>, exchange: &mut Exchange, payloads: &Payloads<'_>) -> Result<(), Error> {
    let (agreed, _, public) = examine(core, turn, payloads, Some(exchange.method))?;
    if agreed.suite.method != exchange.method {
        return Err(Error::PeerMisbehaved("key exchange of another method than the one begun"));
    }
    let started = exchange.started.take().ok_or(Error::Temporary("no key exchange"))?;
    exchange.agreed = Some(agreed);
    let job = Job::Compute(Computation::Complete(started, public));
    exchange.step = Step::Completing(turn.work(core.spi(), job));
    Ok(())
}

/// What a message with SA, nonce and KE for an IKE SA says: the choice, the number of the proposal, the public value.
fn examine(
    core: &Core,
    turn: &Turn<'_>,
    payloads: &Payloads<'_>,
    expected: Option<KeyExchangeId>,
) -> Result<(Agreed, u8, Vec<u8>), Error> {
    let (mut sa, mut nonce, mut ke) = (None, None, None);
    for payload in payloads {
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for three kinds among all")]
        match payload {
            Payload::Sa(found) => sa = sa.or(Some(found)),
            Payload::Nonce(found) => nonce = nonce.or(Some(found)),
            Payload::KeyExchange(found) => ke = ke.or(Some(found)),
            _ => {}
        }
    }
    let (Some(sa), Some(nonce), Some(ke)) = (sa, nonce, ke) else {
        return Err(Error::PeerMisbehaved("SA, nonce or KE is missing"));
    };
    let configured = &core.connection.proposals;
    let preferred = expected.or(Some(ke.method));
    let chosen = suite::choose_ike(configured, turn.context.provider, &sa.proposals, preferred);
    let chosen = chosen.ok_or_else(|| Error::NoProposal {
        ours: suite::describe_ike(configured, turn.context.provider),
        theirs: suite::describe(&sa.proposals),
        difference: suite::ike_difference(configured, turn.context.provider, &sa.proposals),
    })?;
    if ke.method != chosen.suite.method {
        return Err(Error::InvalidKe(chosen.suite.method));
    }
    say!(DEBUG, "CFG 1", core, "selected proposal: {}", chosen.suite.proposal(chosen.number, chosen.spi));
    let peer_spi = chosen.spi.filter(|spi| !spi.is_zero()).ok_or(Error::PeerMisbehaved("the new SPI is missing"))?;
    let agreed = Agreed { suite: chosen.suite, peer_spi, peer_nonce: nonce.data.to_vec() };
    Ok((agreed, chosen.number, ke.data.to_vec()))
}

/// The shared secret is there: the new IKE SA takes over, unless the peer's wins.
fn complete(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    exchange: &mut Exchange,
    secret: &SharedSecret,
) -> Result<(), Error> {
    let agreed = exchange.agreed.take().ok_or(Error::Temporary("nothing agreed on"))?;
    let from = Contributions {
        nonce_i: &exchange.nonce,
        nonce_r: &agreed.peer_nonce,
        spi_i: exchange.spi,
        spi_r: agreed.peer_spi,
        secret: secret.as_ref(),
    };
    let new = successor_core(core, turn, agreed.suite, from, true)?;
    let ours = lowest(&exchange.nonce, &agreed.peer_nonce);
    let rival = authenticated.rival.take();
    authenticated.refusals = 0;
    let (winner, redundant) = match rival {
        Some(rival) if rival.claim != Claim::None || verdict(ours, &rival.lowest_nonce) == Verdict::Theirs => {
            (Some(rival), None)
        }
        other => (None, other),
    };
    if let Some(redundant) = redundant {
        turn.notices.push_back(Notice::Redundant { spi: redundant.spi.0 });
    }
    match winner {
        None => {
            let ike = Box::new(IkeSa::authenticated(new, Authenticated::new()));
            let to = ike.core.spi().0;
            turn.notices.push_back(Notice::Successor { ike });
            hand_over(authenticated, core, turn, to);
            authenticated.intents.push_front(Intent::DeleteIke);
        }
        Some(rival) => {
            //= RFC 7296 §2.8.2: the redundant IKE SA is deleted by the end that made it
            let mut redundant = Authenticated::new();
            redundant.standing = Standing::Redundant;
            redundant.cause = Some(Cause::new(CauseKind::CollisionLost, "both ends rekeyed at once"));
            redundant.intents.push_back(Intent::DeleteIke);
            let ike = Box::new(IkeSa::authenticated(new, redundant));
            turn.notices.push_back(Notice::Successor { ike });
            yield_to(authenticated, core, turn, &rival);
        }
    }
    Ok(())
}

/// The peer's new IKE SA stays.
fn yield_to(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, rival: &Rival) {
    match rival.claim {
        Claim::None => hand_over(authenticated, core, turn, rival.spi.0),
        Claim::InUse => {}
        Claim::Closed => return authenticated.finish(core, turn, Cause::new(CauseKind::Rekeyed, "replaced")),
    }
    let at = turn.after(REAP);
    turn.deadlines.set(core.timer(IkeTimer::Reap), at);
}

fn is_closed(authenticated: &Authenticated) -> bool {
    authenticated.rival.as_ref().is_some_and(|rival| rival.claim == Claim::Closed)
}

/// Everything passes to the IKE SA with our SPI `to`.
fn hand_over(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, to: u64) {
    authenticated.standing = Standing::Replaced;
    authenticated.successor = Some(to);
    let resume = turn.deadlines.get(core.timer(IkeTimer::Resume));
    for timer in
        [IkeTimer::Rekey, IkeTimer::Reauth, IkeTimer::Expire, IkeTimer::Liveness, IkeTimer::Keepalive, IkeTimer::Resume]
    {
        turn.deadlines.clear(core.timer(timer));
    }
    let cause = authenticated.cause.take();
    // Only the old one is at its hard lifetime.
    let expired = cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::HardLimit);
    let intents = std::mem::take(&mut authenticated.intents).into_iter();
    let estate = Estate {
        way: Box::new((core.path, core.nat, core.mobility.successor())),
        children: std::mem::take(&mut authenticated.children),
        intents: intents.filter(|intent| !(expired && matches!(intent, Intent::DeleteIke))).collect(),
        deferred: std::mem::take(&mut authenticated.deferred),
        resume,
        cause: cause.filter(|_| !expired),
    };
    let old = Box::new(authenticated.snapshot_alone(core, turn.now()));
    turn.notices.push_back(Notice::Inherit { old, to, estate });
}

fn successor_core(
    core: &Core,
    turn: &mut Turn<'_>,
    suite: IkeSuite,
    from: Contributions<'_>,
    initiator: bool,
) -> Result<Core, Error> {
    let old = core.keys.as_ref().ok_or(Error::Temporary("no keys"))?;
    let export = turn.context.config.settings.key_export;
    let new = Core {
        spi_i: from.spi_i,
        spi_r: from.spi_r,
        initiator,
        unique_id: turn.ids.ike(),
        generation: core.generation.saturating_add(1),
        connection: core.connection.clone(),
        chosen: core.chosen,
        path: core.path,
        nat: core.nat,
        mobility: core.mobility.successor(),
        reply: core.path,
        sent_at: turn.now(),
        window: Window::default(),
        fragments: core.fragments,
        reassembly: Reassembly::default(),
        keys: Some(old.rekeyed(turn.context.provider, suite, from, initiator, export)?),
        suite: Some(suite),
        local_id: core.local_id.clone(),
        remote_id: core.remote_id.clone(),
        heard_at: turn.now(),
        asked_at: turn.now(),
        round_trip: core.round_trip,
        reauthenticates: None,
        established_at: None,
        superseded: core.superseded,
        unwanted: false,
        begun_at: core.begun_at,
        authentication: core.authentication,
        interface: core.interface,
        pace: core.pace,
    };
    say::succeeds(&new, core.unique_id);
    Ok(new)
}

fn failed(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, error: &Error) {
    let temporary = matches!(error, Error::PeerNotified(NotifyType::TEMPORARY_FAILURE));
    if let Some(rival) = authenticated.rival.take() {
        // The peer's own rekeying is what is left.
        return yield_to(authenticated, core, turn, &rival);
    }
    let at = turn.after(retry::temporary_failure(turn.random()));
    turn.deadlines.set(core.timer(IkeTimer::Rekey), at);
    authenticated.refusals = authenticated.refusals.saturating_add(1);
    tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, "rekeying failed: {error}");
    if !temporary {
        let ike = Box::new(authenticated.snapshot_due(core, turn));
        turn.event(EventBody::IkeSaRekeyFailed { ike, cause: error.cause() });
    }
    if authenticated.refusals >= retry::TEMPORARY_FAILURES {
        authenticated.close(core, turn, Cause::new(CauseKind::PeerError, "the peer refuses to rekey"));
    }
}

/// The peer wants to rekey the IKE SA.
pub(crate) fn on_request(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) -> Result<(), Error> {
    may_rekey(authenticated)?;
    let (agreed, number, public) = examine(core, turn, payloads, None)?;
    let method = turn.context.provider.key_exchange(agreed.suite.method);
    let method = method.ok_or(Error::Temporary("key exchange method is gone"))?;
    let work = turn.work(core.spi(), Job::Compute(Computation::Respond(method, public)));
    authenticated.incoming = Some(Incoming::IkeKeyExchange(Box::new(KeyExchangePending { work, number, agreed })));
    Ok(())
}

//= RFC 7296 §2.25.1, §2.25.2: not while CHILD SAs are made, rekeyed or closed, nor while the IKE SA is closed
fn may_rekey(authenticated: &Authenticated) -> Result<(), Error> {
    match authenticated.standing {
        Standing::Up if authenticated.rival.is_none() => {}
        Standing::Up | Standing::Undecided | Standing::Redundant | Standing::Replaced => {
            return Err(Error::Temporary("the IKE SA is being rekeyed"));
        }
        Standing::Deleting => return Err(Error::Temporary("the IKE SA is being closed")),
    }
    match &authenticated.active {
        Some(Active::First(_) | Active::Child(_) | Active::DeleteChildren(_)) => {
            Err(Error::Temporary("CHILD SAs are being made, rekeyed or closed"))
        }
        Some(Active::DeleteIke) => Err(Error::Temporary("the IKE SA is being closed")),
        // The update moves the IKE SA that it is sent in: it must not be replaced meanwhile.
        Some(Active::Mobike(_)) => Err(Error::Temporary("the IKE SA is being moved")),
        Some(Active::RekeyIke(exchange)) if matches!(exchange.step, Step::Completing(_)) => {
            Err(Error::Temporary("the IKE SA has just been rekeyed"))
        }
        Some(Active::RekeyIke(_) | Active::AuthLifetime | Active::Liveness) | None => Ok(()),
    }
}

/// The key exchange for the peer's request is done: answer, and have the new IKE SA take over.
pub(crate) fn on_key_exchange(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    pending: Box<KeyExchangePending>,
    id: WorkId,
    outcome: Outcome,
) -> Result<(), Error> {
    let Outcome::Responded(result) = outcome else {
        authenticated.incoming = Some(Incoming::IkeKeyExchange(pending));
        return Ok(());
    };
    if pending.work != id {
        authenticated.incoming = Some(Incoming::IkeKeyExchange(pending));
        return Ok(());
    }
    may_rekey(authenticated)?;
    let (public, secret) = result?;
    let (spi, nonce) = (turn.ids.ike_spi(turn.context)?, turn.nonce()?);
    let agreed = pending.agreed;
    let from = Contributions {
        nonce_i: &agreed.peer_nonce,
        nonce_r: &nonce,
        spi_i: agreed.peer_spi,
        spi_r: spi,
        secret: secret.as_ref(),
    };
    let new = successor_core(core, turn, agreed.suite, from, false)?;
    let payloads = [
        Payload::Sa(SecurityAssociation::new(vec![agreed.suite.proposal(pending.number, Some(spi))])),
        Payload::Nonce(Nonce::new(nonce.clone())),
        Payload::KeyExchange(KeyExchange::new(agreed.suite.method, public)),
    ];
    core.respond(turn, ExchangeType::CREATE_CHILD_SA, &payloads)?;
    let lowest_nonce = lowest(&agreed.peer_nonce, &nonce).to_vec();
    take_over(authenticated, core, turn, new, lowest_nonce);
    Ok(())
}

fn take_over(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, new: Core, lowest_nonce: Vec<u8>) {
    let spi = new.spi();
    let mut next = Authenticated::new();
    // Ours is under way: which of the two stays is decided when it is answered, or by the peer's DELETE of the old IKE SA.
    let sent = match &authenticated.active {
        Some(Active::RekeyIke(exchange)) => exchange.step == Step::Requested,
        Some(_) | None => false,
    };
    if sent {
        next.standing = Standing::Undecided;
        let at = turn.after(UNDECIDED);
        turn.deadlines.set(new.timer(IkeTimer::Reap), at);
        turn.notices.push_back(Notice::Successor { ike: Box::new(IkeSa::authenticated(new, next)) });
        authenticated.rival = Some(Rival { spi, lowest_nonce, claim: Claim::None });
        return;
    }
    if matches!(authenticated.active, Some(Active::RekeyIke(_))) {
        authenticated.active = None;
    }
    turn.notices.push_back(Notice::Successor { ike: Box::new(IkeSa::authenticated(new, next)) });
    hand_over(authenticated, core, turn, spi.0);
    let at = turn.after(REAP);
    turn.deadlines.set(core.timer(IkeTimer::Reap), at);
}

/// The peer deletes this IKE SA while ours is being rekeyed by both ends: only the winner does so, hence the peer's new one stays. True when
/// there was such a thing, and this IKE SA goes on for the moment: with a response that is under way we learn what the peer has made for us,
/// and can delete that; it would be left over there otherwise.
pub(crate) fn peer_closed(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>) -> bool {
    let Some(rival) = &mut authenticated.rival else { return false };
    let (before, to) = (rival.claim, rival.spi());
    rival.claim = Claim::Closed;
    if before == Claim::None {
        hand_over(authenticated, core, turn, to);
    }
    turn.deadlines.clear(core.timer(IkeTimer::Retransmit));
    let at = turn.after(OVERTAKEN);
    turn.deadlines.set(core.timer(IkeTimer::Reap), at);
    true
}

/// Whether a request on an undecided IKE SA shows that its sender has decided for it: nobody asks about CHILD SAs on one that is to go.
pub(crate) fn shows_use(exchange: ExchangeType, payloads: &Payloads<'_>) -> bool {
    exchange == ExchangeType::CREATE_CHILD_SA || payloads.deletes().any(|delete| !delete.is_ike_sa())
}

//= RFC 7296 §2.8.2: whoever has seen both exchanges answered knows which IKE SA stays, and may use it at once
/// The peer uses the IKE SA of its own exchange while ours is not answered: its response was lost or is late, and it stays, unless the
/// nonces, which are known while our key exchange is being computed, say otherwise.
pub(crate) fn peer_uses_rival(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>) {
    let Some(rival) = authenticated.rival.as_mut().filter(|rival| rival.claim == Claim::None) else { return };
    if let Some(Active::RekeyIke(exchange)) = &authenticated.active
        && let Some(agreed) = &exchange.agreed
        && verdict(lowest(&exchange.nonce, &agreed.peer_nonce), &rival.lowest_nonce) == Verdict::Ours
    {
        return;
    }
    rival.claim = Claim::InUse;
    let to = rival.spi();
    hand_over(authenticated, core, turn, to);
}

/// Both exchanges are answered and this IKE SA, made by the peer's, does not stay.
pub(crate) fn lost(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>) {
    authenticated.standing = Standing::Redundant;
    // The peer deletes it, unless our DELETE of the old IKE SA ends its attempt first.
    let at = turn.after(REAP);
    turn.deadlines.set(core.timer(IkeTimer::Reap), at);
}

/// Whether a CREATE_CHILD_SA request is about the IKE SA itself.
pub(crate) fn is_meant(payloads: &Payloads<'_>) -> bool {
    payloads.iter().any(|payload| {
        let Payload::Sa(sa) = payload else { return false };
        sa.proposals.first().is_some_and(|proposal| proposal.protocol == ProtocolId::IKE)
    })
}
