//! CREATE_CHILD_SA for CHILD SAs: further ones and rekeyed ones, in both roles (RFC 7296 §1.3.1, §1.3.3, §2.8, §2.25).
//!
//! Rekeying is make-before-break. The initiator switches to the new SA as soon as it is installed and then deletes the old one; the responder
//! reserves both SAs before it answers and switches on the first packet of the new one or on the DELETE of the old one.
//!
//! For new CHILD SAs the RFC knows no collision: when both ends make the same child at once, both CHILD SAs stay, as with other implementations.
//! Each is rekeyed and closed for itself, traffic takes the one that came last, and nothing makes a third one.

mod answer;
mod outcome;

pub(crate) use answer::{KeyExchangePending, answered_rekey, on_key_exchange, on_request, refused_rekey};
use outcome::{deleted_again, failed, give_up_rekey, make_redundant, refused, rekey_failed};
pub(crate) use outcome::{note_early_delete, old_deleted};

use ike_crypto::{SharedSecret, StartedKeyExchange};
use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, Child};
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType, ProtocolId};
use ike_wire::{KeyExchange, Nonce, Notify, Payload, Payloads};

use crate::children::{Agreement, ChildKeys, Outbound};
use crate::collision::{Verdict, lowest, verdict};
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::detour::Detours;
use crate::error::Error;
use crate::established::{Active, Authenticated, Intent, is_made_as};
use crate::negotiation::{self, ChildRequest, Offer};
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
    detours: Detours,
    agreed: Option<(Agreement, Vec<u8>)>,
    /// Why nobody wants any more what it makes.
    unwanted: Option<Cause>,
    /// The peer has rekeyed the same CHILD SA meanwhile.
    rival: Option<Rival>,
    /// The lowest nonce of a rival that has taken over.
    past_rival: Option<Vec<u8>>,
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

impl Exchange {
    /// Whether it makes this child anew.
    pub(crate) fn makes(&self, child: &Child) -> bool {
        self.unwanted.is_none() && self.wish().is_some_and(|wish| is_made_as(&wish.child, child))
    }

    /// What was asked for, unless it is a rekeying.
    pub(crate) fn wish(&self) -> Option<&ChildRequest> {
        self.offer.as_ref().filter(|_| self.rekeys.is_none()).map(|offer| &offer.request)
    }

    /// The same, to be changed.
    pub(crate) fn wish_mut(&mut self) -> Option<&mut ChildRequest> {
        self.offer.as_mut().filter(|_| self.rekeys.is_none()).map(|offer| &mut offer.request)
    }

    /// The CHILD SA whose install it waits for.
    pub(crate) fn installing(&self) -> Option<u32> {
        match self.step {
            Step::Installing(unique_id) => Some(unique_id),
            Step::Starting(_) | Step::Requested | Step::Completing(_) => None,
        }
    }

    /// Whether it waits for the install of this CHILD SA.
    pub(crate) fn installs(&self, unique_id: u32) -> bool {
        self.installing() == Some(unique_id)
    }

    /// Whether it rekeys this CHILD SA.
    pub(crate) fn rekeys(&self, unique_id: u32) -> bool {
        self.rekeys == Some(unique_id)
    }

    /// Whether it rekeys a CHILD SA.
    pub(crate) fn is_rekey(&self) -> bool {
        self.rekeys.is_some()
    }

    /// Nobody wants any more what it makes. Nothing is left of it when the peer was not asked yet; else that is closed where there is a cause for it.
    pub(crate) fn withdraw(mut self: Box<Self>, turn: &mut Turn<'_>, closes: Option<&Cause>) -> Option<Box<Self>> {
        if matches!(self.step, Step::Starting(_)) {
            self.abandon(turn);
            return None;
        }
        self.unwanted = closes.cloned();
        Some(self)
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
    request: ChildRequest,
) -> Result<(), Error> {
    let request = match request.renewed(&core.connection) {
        Ok(request) => request,
        Err(gone) => {
            let cause = Cause::new(CauseKind::Reload, "it is not configured any more");
            authenticated.child_failed(core, turn, &gone.child, &cause);
            return Ok(());
        }
    };
    if authenticated.is_up(&request.child) {
        let (connection, child) = (core.connection.clone(), request.child);
        // Whoever waits has asked for it before it was there.
        turn.notices.push_back(Notice::ChildThere { connection, child, command: None });
        return Ok(());
    }
    let child = request.child.clone();
    begin(authenticated, core, turn, request, None).inspect_err(|error| {
        authenticated.tell_refused(core, turn, error);
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
    if child.state != ChildSaState::Installed || child.is_closing() || replaced {
        return Ok(());
    }
    if child.replaces.is_some() || child.outbound == Outbound::Reserved {
        // The peer has just made it and has not switched yet: it may still come to nothing.
        let at = turn.after(retry::temporary_failure(turn.random()));
        turn.deadlines.set(child.timer(ChildTimer::Retry), at);
        return Ok(());
    }
    child.state = ChildSaState::Rekeying;
    let current = core.connection.child(&child.config.name).cloned().unwrap_or_else(|| child.config.clone());
    let request = ChildRequest { child: current, packet: None, asked: false, reqid: None, tags: None };
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
    let first = suite::first_child_method(&request.child.esp_proposals, turn.context.provider);
    let old = rekeys.and_then(|id| authenticated.child(id));
    // What was agreed on before spares a round trip where the peer does not share our first preference.
    let in_use = old.and_then(|old| old.suite.method);
    let offer = Offer::new(turn, core, request, old, ChildKeyExchange::Configured)?;
    let usable = |id: &KeyExchangeId| offer.offers_method(*id) && turn.context.provider.key_exchange(*id).is_some();
    let method = in_use.filter(usable).or(first);
    let exchange = Box::new(Exchange {
        offer: Some(offer),
        rekeys,
        step: Step::Requested,
        nonce,
        method: None,
        started: None,
        detours: Detours::default(),
        agreed: None,
        unwanted: None,
        rival: None,
        past_rival: None,
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
    offer.say_begun(core);
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
    match accept(turn, core, &mut exchange, payloads) {
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

fn accept(turn: &Turn<'_>, core: &Core, exchange: &mut Exchange, payloads: &Payloads<'_>) -> Result<Accepted, Error> {
    let offer = exchange.offer.as_mut().ok_or(Error::Temporary("nothing offered"))?;
    let agreement = offer.accept(turn, core, payloads)?;
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
    rival_took_over(authenticated, core, turn, &mut exchange);
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
            if let Some(child) = authenticated.child_mut(unique_id) {
                child.cause = exchange.unwanted.take();
            }
            exchange.step = Step::Installing(unique_id);
            authenticated.active = Some(Active::Child(exchange));
        }
        Err(error) => {
            authenticated.intents.push_back(Intent::DeleteSpi(agreement.spi_in));
            failed(authenticated, core, turn, exchange, &error);
        }
    }
}

/// The peer has deleted the old CHILD SA although its rekeying has lost, for a reason of its own, and so its new one took over. What ours
/// has made replaces that one.
fn rival_took_over(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, exchange: &mut Exchange) {
    let Some(old) = exchange.rekeys.filter(|_| exchange.old_deleted) else { return };
    let rival = exchange.rival.as_ref().map(|rival| rival.child).and_then(|rival| authenticated.child_mut(rival));
    let Some(rival) = rival.filter(|rival| rival.replaces.is_none() && rival.state == ChildSaState::Installed) else {
        return;
    };
    rival.state = ChildSaState::Rekeying;
    exchange.rekeys = Some(rival.unique_id);
    exchange.past_rival = exchange.rival.take().map(|rival| rival.lowest_nonce);
    exchange.old_deleted = false;
    authenticated.linger(core, turn, old);
}

fn lost(exchange: &Exchange, peer_nonce: &[u8]) -> bool {
    let ours = lowest(&exchange.nonce, peer_nonce);
    let theirs = exchange.rival.as_ref().map(|rival| &rival.lowest_nonce).or(exchange.past_rival.as_ref());
    theirs.is_some_and(|theirs| verdict(ours, theirs) == Verdict::Theirs)
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
    if ok && authenticated.child(new).is_some_and(|child| child.taken_back) {
        authenticated.remove_child(core, turn, new, None);
        return deleted_again(authenticated, core, turn, Box::new(exchange));
    }
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
    authenticated.close_successor(old, new);
    if exchange.old_deleted {
        return authenticated.linger(core, turn, old);
    }
    if let Some(child) = authenticated.child_mut(old) {
        child.retire(turn, ChildSaState::Rekeyed);
        authenticated.intents.push_front(Intent::DeleteChild(old));
    }
}
