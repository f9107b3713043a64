//! CREATE_CHILD_SA for CHILD SAs: further ones and rekeyed ones, in both roles (RFC 7296 §1.3.1, §1.3.3, §2.8, §2.25).
//!
//! Rekeying is make-before-break. The initiator switches to the new SA as soon as it is installed and then deletes the old one; the responder
//! reserves both SAs before it answers and switches on the first packet of the new one or on the DELETE of the old one.

use ike_crypto::{SharedSecret, StartedKeyExchange};
use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, Child, EventBody};
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType, ProtocolId};
use ike_wire::{KeyExchange, Nonce, Notify, Payload, Payloads};
use std::sync::Arc;

use crate::children::{Agreement, ChildKeys, Outbound};
use crate::collision::{Verdict, lowest, verdict};
use crate::core::Core;
use crate::deadline::{ChildTimer, IkeTimer};
use crate::error::Error;
use crate::established::{Active, Authenticated, Incoming, Intent, Pending, Standing};
use crate::negotiation::{self, Answer, ChildRequest, Offer};
use crate::notice::Notice;
use crate::retry;
use crate::suite::{self, ChildKeyExchange};
use crate::turn::Turn;
use crate::work::{Computation, Job, Outcome, WorkId};

/// An exchange that we began.
#[derive(Debug)]
pub(crate) struct Exchange {
    offer: Option<Offer>,
    rekeys: Option<u32>,
    step: Step,
    nonce: Vec<u8>,
    method: Option<KeyExchangeId>,
    started: Option<Box<dyn StartedKeyExchange>>,
    detours: u8,
    agreed: Option<(Agreement, Vec<u8>)>,
    /// The peer has rekeyed the same CHILD SA meanwhile.
    rival: Option<Rival>,
    /// The peer has deleted the old CHILD SA meanwhile.
    old_deleted: bool,
    /// SPIs that the peer has deleted and that we did not know.
    early_deletes: Vec<u32>,
}

/// The peer's rekeying of the CHILD SA that we are rekeying.
#[derive(Debug)]
struct Rival {
    child: u32,
    lowest_nonce: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Starting(WorkId),
    Requested,
    Completing(WorkId),
    Installing(u32),
}

/// INVALID_KE_PAYLOAD answers that are followed in one exchange.
const DETOURS: u8 = 2;

impl Exchange {
    /// Whether it makes a new child of this name.
    pub(crate) fn makes(&self, name: &str) -> bool {
        self.rekeys.is_none() && self.offer.as_ref().is_some_and(|offer| offer.request.child.name == name)
    }

    /// Whether it waits for the install of this CHILD SA.
    pub(crate) fn installs(&self, unique_id: u32) -> bool {
        self.step == Step::Installing(unique_id)
    }

    /// Whether it rekeys this CHILD SA.
    pub(crate) fn rekeys(&self, unique_id: u32) -> bool {
        self.rekeys == Some(unique_id)
    }

    /// Whether it rekeys a CHILD SA.
    pub(crate) fn is_rekey(&self) -> bool {
        self.rekeys.is_some()
    }

    /// It is given up. Gives what was asked for, unless that was a rekeying.
    pub(crate) fn abandon(mut self: Box<Self>, turn: &mut Turn<'_>) -> Option<ChildRequest> {
        let offer = self.offer.take()?;
        // The SPI of an SA that the backend holds is given back when that is removed.
        let request = if matches!(self.step, Step::Installing(_)) { offer.request } else { offer.release(turn) };
        self.rekeys.is_none().then_some(request)
    }
}

/// Begins a further CHILD SA.
pub(crate) fn start(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut request: ChildRequest,
) -> Result<(), Error> {
    if let Some(current) = core.connection.child(&request.child.name) {
        request.child = current.clone();
    }
    if authenticated.is_up(&request.child.name) {
        let (connection, child) = (core.connection.clone(), request.child);
        turn.notices.push_back(Notice::ChildUp { connection, child });
        return Ok(());
    }
    let child = request.child.clone();
    begin(authenticated, core, turn, request, None).inspect_err(|error| {
        authenticated.child_failed(core, turn, &child, &error.cause());
    })
}

/// Begins to rekey a CHILD SA.
pub(crate) fn start_rekey(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    unique_id: u32,
) -> Result<(), Error> {
    let replaced = authenticated.children.iter().any(|other| other.replaces == Some(unique_id));
    let Some(child) = authenticated.child_mut(unique_id) else { return Ok(()) };
    if child.state != ChildSaState::Installed || replaced {
        return Ok(());
    }
    if child.outbound == Outbound::Reserved {
        // The peer has just made it and has not switched yet.
        let at = turn.after(retry::temporary_failure(turn.random()));
        turn.deadlines.set(child.timer(ChildTimer::Retry), at);
        return Ok(());
    }
    child.state = ChildSaState::Rekeying;
    let current = core.connection.child(&child.config.name).cloned().unwrap_or_else(|| child.config.clone());
    let request = ChildRequest { child: current, packet: None, reqid: None };
    begin(authenticated, core, turn, request, Some(unique_id)).inspect_err(|error| {
        rekey_failed(authenticated, core, turn, unique_id, &error.cause());
    })
}

fn begin(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    request: ChildRequest,
    rekeys: Option<u32>,
) -> Result<(), Error> {
    let nonce = turn.nonce()?;
    let method = suite::first_child_method(&request.child.esp_proposals, turn.context.provider);
    let old = rekeys.and_then(|id| authenticated.child(id));
    let offer = Offer::new(turn, core, request, old, ChildKeyExchange::Configured)?;
    let exchange = Box::new(Exchange {
        offer: Some(offer),
        rekeys,
        step: Step::Requested,
        nonce,
        method: None,
        started: None,
        detours: 0,
        agreed: None,
        rival: None,
        old_deleted: false,
        early_deletes: Vec::new(),
    });
    proceed(authenticated, core, turn, exchange, method)
}

/// Sends the request, with a key exchange of `method` begun first where there is one.
fn proceed(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    method: Option<KeyExchangeId>,
) -> Result<(), Error> {
    exchange.method = method;
    match method.and_then(|id| turn.context.provider.key_exchange(id)) {
        Some(method) => {
            let work = turn.work(core.spi(), Job::Compute(Computation::Start(method)));
            exchange.step = Step::Starting(work);
        }
        None => send(authenticated, core, turn, &mut exchange)?,
    }
    authenticated.active = Some(Active::Child(exchange));
    Ok(())
}

fn send(
    authenticated: &Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let Some(offer) = &exchange.offer else { return Ok(()) };
    let mut payloads = Vec::with_capacity(6);
    if let Some(old) = exchange.rekeys.and_then(|id| authenticated.child(id)) {
        //= RFC 7296 §1.3.3: REKEY_SA names the SA by the SPI that the exchange's initiator receives on
        let spi = old.spi_in.get();
        payloads.push(Payload::Notify(Notify::about(NotifyType::REKEY_SA, ProtocolId::ESP, spi)));
    }
    payloads.push(offer.sa());
    payloads.push(Payload::Nonce(Nonce::new(exchange.nonce.clone())));
    if let Some(started) = &exchange.started {
        payloads.push(Payload::KeyExchange(KeyExchange::new(started.id(), started.public_value().to_vec())));
    }
    payloads.extend(offer.selectors());
    core.request(turn, ExchangeType::CREATE_CHILD_SA, &payloads)?;
    exchange.step = Step::Requested;
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
            result.map_err(Error::from).and_then(|started| {
                exchange.started = Some(started);
                send(authenticated, core, turn, &mut exchange)
            })
        }
        (Step::Completing(waiting), Outcome::Completed(result)) if waiting == id => match result {
            Ok(secret) => return agreed(authenticated, core, turn, exchange, Some(&secret)),
            Err(error) => {
                // The responder has installed its half.
                authenticated.intents.extend(exchange.offer.as_ref().map(|offer| Intent::DeleteSpi(offer.spi())));
                Err(error.into())
            }
        },
        _ => Ok(()),
    };
    match result {
        Ok(()) => authenticated.active = Some(Active::Child(exchange)),
        Err(error) => failed(authenticated, core, turn, exchange, &error),
    }
}

/// The peer has answered.
pub(crate) fn on_response(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    payloads: &Payloads<'_>,
) {
    if let Some(kind) = negotiation::refusal(payloads) {
        return refused(authenticated, core, turn, exchange, kind, payloads);
    }
    authenticated.refusals = 0;
    match accept(turn, &exchange, payloads) {
        Ok((agreement, nonce, public)) => {
            exchange.agreed = Some((agreement, nonce));
            match (public, exchange.started.take()) {
                (Some(public), Some(started)) => {
                    let job = Job::Compute(Computation::Complete(started, public));
                    exchange.step = Step::Completing(turn.work(core.spi(), job));
                    authenticated.active = Some(Active::Child(exchange));
                }
                _ => agreed(authenticated, core, turn, exchange, None),
            }
        }
        Err(error) => {
            // The responder has installed its half of something that we cannot use.
            authenticated.intents.extend(exchange.offer.as_ref().map(|offer| Intent::DeleteSpi(offer.spi())));
            failed(authenticated, core, turn, exchange, &error);
        }
    }
}

type Accepted = (Agreement, Vec<u8>, Option<Vec<u8>>);

fn accept(turn: &Turn<'_>, exchange: &Exchange, payloads: &Payloads<'_>) -> Result<Accepted, Error> {
    let offer = exchange.offer.as_ref().ok_or(Error::Temporary("nothing offered"))?;
    let agreement = offer.accept(turn, payloads)?;
    let (nonce, public) = nonce_and_public(payloads);
    let nonce = nonce.ok_or(Error::PeerMisbehaved("the nonce is missing"))?;
    let public = match agreement.suite.method {
        None => None,
        Some(method) if Some(method) == exchange.method => {
            let (_, octets) = public.filter(|(id, _)| *id == method).ok_or(Error::PeerMisbehaved("KE is missing"))?;
            Some(octets.to_vec())
        }
        Some(_) => return Err(Error::PeerMisbehaved("key exchange of another method than the one begun")),
    };
    Ok((agreement, nonce.to_vec(), public))
}

/// Method and value of a KE payload.
type Public<'p> = (KeyExchangeId, &'p [u8]);

fn nonce_and_public<'p>(payloads: &'p Payloads<'_>) -> (Option<&'p [u8]>, Option<Public<'p>>) {
    let (mut nonce, mut public) = (None, None);
    for payload in payloads {
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for two kinds among all")]
        match payload {
            Payload::Nonce(found) => nonce = nonce.or(Some(found.data.as_ref())),
            Payload::KeyExchange(found) => public = public.or(Some((found.method, found.data.as_ref()))),
            _ => {}
        }
    }
    (nonce, public)
}

fn refused(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    kind: NotifyType,
    payloads: &Payloads<'_>,
) {
    match kind {
        NotifyType::INVALID_KE_PAYLOAD => {
            let wanted = payloads.notify(kind).and_then(Notify::data_u16).map(KeyExchangeId);
            let offered = |id: &KeyExchangeId| exchange.offer.as_ref().is_some_and(|offer| offer.offers_method(*id));
            let usable = |id: &KeyExchangeId| turn.context.provider.key_exchange(*id).is_some();
            let method = wanted.filter(offered).filter(usable).filter(|id| Some(*id) != exchange.method);
            if method.is_some() && exchange.detours < DETOURS {
                exchange.detours = exchange.detours.saturating_add(1);
                exchange.started = None;
                if let Err(error) = proceed(authenticated, core, turn, exchange, method) {
                    tracing::warn!(conn = core.connection.name, ike = core.unique_id, "{error}");
                }
                return;
            }
            failed(authenticated, core, turn, exchange, &Error::PeerNotified(kind));
        }
        NotifyType::TEMPORARY_FAILURE => put_off(authenticated, core, turn, exchange),
        NotifyType::CHILD_SA_NOT_FOUND => old_unknown(authenticated, core, turn, exchange),
        NotifyType::TS_UNACCEPTABLE => {
            let offered = exchange.offer.as_ref().map(Offer::describe_selectors).unwrap_or_default();
            failed(authenticated, core, turn, exchange, &Error::PeerRefused { kind, offered });
        }
        NotifyType::NO_PROPOSAL_CHOSEN => {
            let offered = exchange.offer.as_ref().map(Offer::describe_proposals).unwrap_or_default();
            failed(authenticated, core, turn, exchange, &Error::PeerRefused { kind, offered });
        }
        _ => failed(authenticated, core, turn, exchange, &Error::PeerNotified(kind)),
    }
}

//= RFC 7296 §2.25: after TEMPORARY_FAILURE wait; when it goes on for minutes, close the IKE SA
fn put_off(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, mut exchange: Box<Exchange>) {
    let at = turn.after(retry::temporary_failure(turn.random()));
    authenticated.refusals = authenticated.refusals.saturating_add(1);
    if let Some(old) = exchange.rekeys {
        give_up_rekey(authenticated, core, turn, &mut exchange, old);
        if let Some(child) = authenticated.child(old).filter(|child| child.state == ChildSaState::Installed) {
            turn.deadlines.set(child.timer(ChildTimer::Retry), at);
        }
        exchange.abandon(turn);
    } else if let Some(request) = exchange.abandon(turn) {
        authenticated.deferred.push(Intent::CreateChild(request));
        turn.deadlines.set(core.timer(IkeTimer::Resume), at);
    }
    if authenticated.refusals >= retry::TEMPORARY_FAILURES {
        let cause = Cause::new(CauseKind::PeerError, "the peer keeps answering TEMPORARY_FAILURE");
        authenticated.close(core, turn, cause);
    }
}

/// A rekeying of ours ends without result: the old CHILD SA goes on, or goes if the peer has deleted it meanwhile.
fn give_up_rekey(
    authenticated: &mut Authenticated,
    core: &Core,
    turn: &mut Turn<'_>,
    exchange: &mut Exchange,
    old: u32,
) {
    let rival = exchange.rival.take();
    if let Some(rival) = rival.filter(|rival| authenticated.child(rival.child).is_some()) {
        yield_to(authenticated, core, turn, exchange, old, rival.child);
    } else if exchange.old_deleted {
        let cause = Cause::new(CauseKind::PeerDeleted, "deleted by the peer");
        authenticated.remove_child(core, turn, old, Some(&cause));
    } else if let Some(child) = authenticated.child_mut(old).filter(|child| child.state == ChildSaState::Rekeying) {
        child.state = ChildSaState::Installed;
    }
}

/// The peer's new CHILD SA stays: it is switched to now if the peer has done so.
fn yield_to(
    authenticated: &mut Authenticated,
    core: &Core,
    turn: &mut Turn<'_>,
    exchange: &Exchange,
    old: u32,
    new: u32,
) {
    if let Some(child) = authenticated.child_mut(old).filter(|child| child.state == ChildSaState::Rekeying) {
        child.state = ChildSaState::Rekeyed;
    }
    let used = authenticated.child(new).is_some_and(|child| child.used);
    if used || exchange.old_deleted {
        authenticated.activate(turn, new);
        authenticated.finish_replaced(core, turn, new, old);
    }
    if exchange.old_deleted {
        authenticated.linger(core, turn, old);
    }
}

/// The peer does not know the CHILD SA that we want to rekey: it is made again, unless the peer has replaced it itself.
fn old_unknown(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, mut exchange: Box<Exchange>) {
    let Some(old) = exchange.rekeys else {
        return failed(authenticated, core, turn, exchange, &Error::PeerNotified(NotifyType::CHILD_SA_NOT_FOUND));
    };
    let replaced = exchange.rival.is_some() || exchange.old_deleted;
    give_up_rekey(authenticated, core, turn, &mut exchange, old);
    exchange.abandon(turn);
    if replaced {
        return;
    }
    if let Some(child) = authenticated.child(old) {
        let request = ChildRequest { child: child.config.clone(), packet: None, reqid: Some(child.reqid) };
        let cause = Cause::new(CauseKind::PeerDeleted, "the peer does not know it any more");
        authenticated.remove_child(core, turn, old, Some(&cause));
        if !authenticated.has_child(&request.child.name) {
            authenticated.intents.push_back(Intent::CreateChild(request));
        }
    }
}

fn failed(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    error: &Error,
) {
    let cause = error.cause();
    match exchange.rekeys {
        Some(old) => {
            give_up_rekey(authenticated, core, turn, &mut exchange, old);
            exchange.abandon(turn);
            rekey_failed(authenticated, core, turn, old, &cause);
        }
        None => {
            if let Some(request) = exchange.abandon(turn) {
                authenticated.child_failed(core, turn, &request.child, &cause);
            }
        }
    }
}

/// Rekeying came to nothing: the CHILD SA goes on and it is tried again.
fn rekey_failed(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, old: u32, cause: &Cause) {
    let at = turn.after(retry::temporary_failure(turn.random()));
    let (now, shard) = (turn.now(), turn.ids.shard());
    let Some(child) = authenticated.child_mut(old) else { return };
    if child.state == ChildSaState::Rekeying {
        child.state = ChildSaState::Installed;
    }
    if child.state != ChildSaState::Installed {
        return;
    }
    turn.deadlines.set(child.timer(ChildTimer::Retry), at);
    let snapshot = Box::new(child.snapshot(now, shard));
    tracing::warn!(
        conn = core.connection.name,
        child = child.config.name,
        ike = core.unique_id,
        "rekeying failed: {cause}"
    );
    let ike = Box::new(authenticated.snapshot_alone(core, now));
    turn.event(EventBody::ChildSaRekeyFailed { ike, child: snapshot, cause: cause.clone() });
}

/// Everything is agreed on: install, unless the peer's rekeying of the same CHILD SA wins.
fn agreed(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    secret: Option<&SharedSecret>,
) {
    let Some((agreement, peer_nonce)) = exchange.agreed.take() else { return };
    let taken_back = exchange.early_deletes.contains(&agreement.spi_out.get());
    if let Some(old) = exchange.rekeys
        && lost(&exchange, &peer_nonce)
    {
        tracing::debug!(conn = core.connection.name, ike = core.unique_id, old, "collision lost");
        if !taken_back {
            authenticated.intents.push_back(Intent::DeleteSpi(agreement.spi_in));
        }
        give_up_rekey(authenticated, core, turn, &mut exchange, old);
        exchange.abandon(turn);
        return;
    }
    if taken_back {
        return deleted_again(authenticated, core, turn, exchange);
    }
    let keys = core.keys.as_ref().ok_or(Error::Temporary("no keys")).and_then(|keys| {
        let secret = secret.map(AsRef::as_ref);
        Ok(keys.child(agreement.suite.algorithm, secret, &exchange.nonce, &peer_nonce)?)
    });
    match keys {
        Ok((outbound, inbound)) => {
            let unique_id =
                authenticated.install(core, turn, agreement, ChildKeys { inbound, outbound }, exchange.rekeys);
            exchange.step = Step::Installing(unique_id);
            authenticated.active = Some(Active::Child(exchange));
        }
        Err(error) => {
            authenticated.intents.push_back(Intent::DeleteSpi(agreement.spi_in));
            failed(authenticated, core, turn, exchange, &error);
        }
    }
}

/// The peer closed what our exchange made before we knew of it. With a rekeyed CHILD SA it meant the child: the old one goes too.
fn deleted_again(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, mut exchange: Box<Exchange>) {
    let Some(old) = exchange.rekeys else {
        return failed(authenticated, core, turn, exchange, &Error::PeerMisbehaved("deleted again by the peer"));
    };
    make_redundant(authenticated, exchange.rival.take());
    let cause = Cause::new(CauseKind::PeerDeleted, "its successor was deleted by the peer");
    let old_deleted = exchange.old_deleted;
    exchange.abandon(turn);
    if old_deleted {
        authenticated.remove_child(core, turn, old, Some(&cause));
    } else {
        authenticated.close_child(core, turn, old, cause);
    }
}

/// What the peer's exchange made has lost the collision: the peer deletes it.
fn make_redundant(authenticated: &mut Authenticated, rival: Option<Rival>) {
    if let Some(redundant) = rival.and_then(|rival| authenticated.child_mut(rival.child)) {
        redundant.redundant = true;
        redundant.replaces = None;
    }
}

fn lost(exchange: &Exchange, peer_nonce: &[u8]) -> bool {
    let ours = lowest(&exchange.nonce, peer_nonce);
    exchange.rival.as_ref().is_some_and(|rival| verdict(ours, &rival.lowest_nonce) == Verdict::Theirs)
}

/// The backend has answered the install of what our exchange made.
pub(crate) fn installed(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Exchange,
    ok: bool,
) {
    let Step::Installing(new) = exchange.step else { return };
    let Some(old) = exchange.rekeys else {
        if ok {
            authenticated.child_up(core, turn, new);
        }
        return;
    };
    if !ok {
        give_up_rekey(authenticated, core, turn, &mut exchange, old);
        let cause = Cause::new(CauseKind::OffloadFailed, "the backend refused the new CHILD SA");
        return rekey_failed(authenticated, core, turn, old, &cause);
    }
    authenticated.activate(turn, new);
    authenticated.finish_replaced(core, turn, new, old);
    make_redundant(authenticated, exchange.rival.take());
    if exchange.old_deleted {
        return authenticated.linger(core, turn, old);
    }
    if let Some(child) = authenticated.child_mut(old) {
        child.retire(turn, ChildSaState::Rekeyed);
        authenticated.intents.push_front(Intent::DeleteChild(old));
    }
}

/// The peer deletes a CHILD SA that our exchange is rekeying: it stays in our table until the exchange is decided. Gives whether it is so.
pub(crate) fn old_deleted(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, old: u32) -> bool {
    let Some(Active::Child(exchange)) = &mut authenticated.active else { return false };
    if !exchange.rekeys(old) {
        return false;
    }
    exchange.old_deleted = true;
    let rival = exchange.rival.as_ref().map(|rival| rival.child);
    match rival {
        // Only the winner deletes the old SA, so the peer's new one stays.
        Some(new) if authenticated.child(new).is_some() => {
            authenticated.activate(turn, new);
            authenticated.finish_replaced(core, turn, new, old);
        }
        Some(_) | None => {
            let ops = authenticated.child_mut(old).map(|child| child.remove_outbound_ops(turn.ids));
            turn.apply(ops.unwrap_or_default(), crate::turn::Purpose::Remove);
        }
    }
    if let Some(child) = authenticated.child(old) {
        turn.deadlines.clear_child(child.unique_id);
    }
    true
}

/// Remembers the SPI of an unknown CHILD SA that the peer deletes while a CREATE_CHILD_SA of ours is under way.
pub(crate) fn note_early_delete(authenticated: &mut Authenticated, spi: u32) {
    if let Some(Active::Child(exchange)) = &mut authenticated.active
        && exchange.early_deletes.len() < EARLY_DELETES
    {
        exchange.early_deletes.push(spi);
    }
}

/// SPIs remembered for [`note_early_delete`].
const EARLY_DELETES: usize = 8;

/// A request of the peer whose key exchange is being computed.
#[derive(Debug)]
pub(crate) struct KeyExchangePending {
    work: WorkId,
    answer: Answer,
    rekeys: Option<u32>,
    peer_nonce: Vec<u8>,
}

impl KeyExchangePending {
    /// The IKE SA ends before it is done.
    pub(crate) fn abandon(&self, turn: &Turn<'_>) {
        turn.context.spis.release_spi(self.answer.agreed.device, self.answer.agreed.spi_in);
    }
}

/// The peer asks for a CHILD SA.
pub(crate) fn on_request(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) -> Result<(), Error> {
    may_create(authenticated)?;
    let rekeys = rekeyed_child(authenticated, payloads)?;
    if let Some((new, old)) = rekeys.and_then(|id| Some((id, authenticated.child(id)?.replaces?))) {
        // What the peer rekeys it uses: the switch to it is overdue.
        authenticated.activate(turn, new);
        authenticated.finish_replaced(core, turn, new, old);
    }
    let (nonce, public) = nonce_and_public(payloads);
    let peer_nonce = nonce.ok_or(Error::PeerMisbehaved("the nonce is missing"))?.to_vec();
    let old = rekeys.and_then(|id| authenticated.child(id));
    let children = candidates(core, old.map(|old| &old.config));
    let preferred = public.map(|(method, _)| method);
    let configured = ChildKeyExchange::Configured;
    let answer = negotiation::answer(turn, core, payloads, &children, old, configured, preferred)?;
    let Some(method) = answer.agreed.suite.method else {
        return reply(authenticated, core, turn, answer, rekeys, peer_nonce, None);
    };
    let Some((_, public)) = public.filter(|(id, _)| *id == method) else {
        turn.context.spis.release_spi(answer.agreed.device, answer.agreed.spi_in);
        return Err(Error::InvalidKe(method));
    };
    let found = turn.context.provider.key_exchange(method).ok_or(Error::Temporary("key exchange method is gone"))?;
    let work = turn.work(core.spi(), Job::Compute(Computation::Respond(found, public.to_vec())));
    let pending = KeyExchangePending { work, answer, rekeys, peer_nonce };
    authenticated.incoming = Some(Incoming::ChildKeyExchange(Box::new(pending)));
    Ok(())
}

fn candidates(core: &Core, old: Option<&Arc<Child>>) -> Vec<Arc<Child>> {
    match old {
        None => core.connection.children.clone(),
        Some(old) => vec![core.connection.child(&old.name).unwrap_or(old).clone()],
    }
}

//= RFC 7296 §2.25.2: no CHILD SA is made while the IKE SA is rekeyed or closed
fn may_create(authenticated: &Authenticated) -> Result<(), Error> {
    match authenticated.standing {
        Standing::Up => {}
        Standing::Undecided | Standing::Replaced => return Err(Error::Temporary("the IKE SA is being rekeyed")),
        Standing::Deleting => return Err(Error::Temporary("the IKE SA is being closed")),
    }
    match &authenticated.active {
        Some(Active::RekeyIke(_)) => Err(Error::Temporary("the IKE SA is being rekeyed")),
        Some(Active::DeleteIke) => Err(Error::Temporary("the IKE SA is being closed")),
        Some(Active::First(_) | Active::Child(_) | Active::DeleteChildren(_) | Active::Liveness) | None => Ok(()),
    }
}

/// The CHILD SA that a request wants to rekey.
fn rekeyed_child(authenticated: &Authenticated, payloads: &Payloads<'_>) -> Result<Option<u32>, Error> {
    let Some(notify) = payloads.notify(NotifyType::REKEY_SA) else { return Ok(None) };
    let spi = notify.spi_u32().ok_or(Error::PeerMisbehaved("REKEY_SA without an SPI of ESP"))?;
    let known = authenticated.by_peer_spi(spi).filter(|_| notify.protocol == ProtocolId::ESP);
    let unique_id = known.ok_or(Error::ChildNotFound(spi))?;
    let child = authenticated.child(unique_id).ok_or(Error::ChildNotFound(spi))?;
    if authenticated.children.iter().any(|other| other.replaces == Some(unique_id)) {
        return Err(Error::Temporary("it has been rekeyed already"));
    }
    may_rekey(authenticated, unique_id)?;
    match child.state {
        _ if child.redundant => Err(Error::Temporary("it has lost a collision")),
        ChildSaState::Installed | ChildSaState::Rekeying => Ok(Some(unique_id)),
        ChildSaState::Created | ChildSaState::Installing => Err(Error::Temporary("it is being installed")),
        ChildSaState::Rekeyed | ChildSaState::Deleting => Err(Error::Temporary("it is being closed")),
        ChildSaState::Deleted => Err(Error::ChildNotFound(spi)),
    }
}

/// Once our own rekeying of a CHILD SA is answered, the peer's comes too late to be weighed against it.
fn may_rekey(authenticated: &Authenticated, unique_id: u32) -> Result<(), Error> {
    let child = authenticated.child(unique_id).ok_or(Error::Temporary("it is gone"))?;
    let decided = match &authenticated.active {
        Some(Active::Child(exchange)) if exchange.rekeys(unique_id) => {
            matches!(exchange.step, Step::Completing(_) | Step::Installing(_))
        }
        Some(_) | None => false,
    };
    if decided || !child.is_up() { Err(Error::Temporary("it is being rekeyed or closed")) } else { Ok(()) }
}

/// The key exchange for the peer's request is done.
pub(crate) fn on_key_exchange(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    pending: Box<KeyExchangePending>,
    id: WorkId,
    outcome: Outcome,
) -> Result<(), Error> {
    let Outcome::Responded(result) = outcome else {
        authenticated.incoming = Some(Incoming::ChildKeyExchange(pending));
        return Ok(());
    };
    if pending.work != id {
        authenticated.incoming = Some(Incoming::ChildKeyExchange(pending));
        return Ok(());
    }
    let pending = *pending;
    let exchanged = result.inspect_err(|_| {
        turn.context.spis.release_spi(pending.answer.agreed.device, pending.answer.agreed.spi_in);
    })?;
    reply(authenticated, core, turn, pending.answer, pending.rekeys, pending.peer_nonce, Some(exchanged))
}

fn reply(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    answer: Answer,
    rekeys: Option<u32>,
    peer_nonce: Vec<u8>,
    exchanged: Option<(Vec<u8>, SharedSecret)>,
) -> Result<(), Error> {
    // Our own exchange may have gone on while the key exchange was computed.
    let current = may_create(authenticated).and_then(|()| rekeys.map_or(Ok(()), |old| may_rekey(authenticated, old)));
    let keyed = current.and_then(|()| {
        let nonce = turn.nonce()?;
        let keys = core.keys.as_ref().ok_or(Error::Temporary("no keys"))?;
        let secret = exchanged.as_ref().map(|(_, secret)| secret.as_ref());
        let keys = keys.child(answer.agreed.suite.algorithm, secret, &peer_nonce, &nonce)?;
        Ok((nonce, keys))
    });
    let (nonce, (inbound, outbound)) = keyed.inspect_err(|_| {
        turn.context.spis.release_spi(answer.agreed.device, answer.agreed.spi_in);
    })?;
    let public = exchanged.map(|(public, _)| public);
    let lowest_nonce = lowest(&peer_nonce, &nonce).to_vec();
    let mut payloads = vec![answer.sa(), Payload::Nonce(Nonce::new(nonce))];
    if let (Some(method), Some(public)) = (answer.agreed.suite.method, public) {
        payloads.push(Payload::KeyExchange(KeyExchange::new(method, public)));
    }
    payloads.extend(answer.selectors());
    let exchange = ExchangeType::CREATE_CHILD_SA;
    let pending = Pending { exchange, payloads, always: 0, rekeys };
    let keys = ChildKeys { inbound, outbound };
    let child = authenticated.install_then_answer(core, turn, answer.agreed, keys, pending);
    if let (Some(old), Some(Active::Child(exchange))) = (rekeys, &mut authenticated.active)
        && exchange.rekeys(old)
        && exchange.step == Step::Requested
    {
        exchange.rival = Some(Rival { child, lowest_nonce });
    }
    Ok(())
}

/// The peer's rekeying is answered: the new CHILD SA waits for its first packet or for the DELETE of the old one.
pub(crate) fn answered_rekey(authenticated: &mut Authenticated, turn: &mut Turn<'_>, old: u32) {
    match authenticated.active.take() {
        // Ours has not been sent yet: the peer was first.
        Some(Active::Child(exchange)) if exchange.rekeys(old) && matches!(exchange.step, Step::Starting(_)) => {
            exchange.abandon(turn);
        }
        Some(Active::Child(exchange)) if exchange.rekeys(old) => {
            authenticated.active = Some(Active::Child(exchange));
            return;
        }
        other => authenticated.active = other,
    }
    if let Some(child) = authenticated.child_mut(old) {
        child.state = ChildSaState::Rekeyed;
        turn.deadlines.clear(child.timer(ChildTimer::Soft));
        turn.deadlines.clear(child.timer(ChildTimer::Retry));
    }
}
