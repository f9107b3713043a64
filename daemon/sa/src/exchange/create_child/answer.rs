//! The responder's half: checks, key exchange, install, answer.

use ike_crypto::SharedSecret;
use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, Child};
use ike_wire::ids::{ExchangeType, NotifyType, ProtocolId};
use ike_wire::{KeyExchange, Nonce, Payload, Payloads};
use std::sync::Arc;

use crate::children::{ChildKeys, ChildSa};
use crate::collision::lowest;
use crate::core::Core;
use crate::deadline::ChildTimer;
use crate::error::Error;
use crate::established::{Active, Authenticated, Incoming, Pending, Standing};
use crate::negotiation::{self, Answer};
use crate::suite::ChildKeyExchange;
use crate::turn::Turn;
use crate::work::{Computation, Job, Outcome, WorkId};

use super::{Rival, Step, nonce_and_public};
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
    let rekeys =
        rekeyed_child(authenticated, payloads).inspect_err(|_| repeat_delete(authenticated, core, turn, payloads))?;
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
    let answer = negotiation::answer(turn, core, payloads, &children, old, configured, preferred)
        .inspect_err(|error| authenticated.tell_refused(core, turn, error))?;
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

/// CHILD SAs below one IKE SA at most, so that no peer can fill our tables.
const CHILDREN: usize = 1024;

//= RFC 7296 §2.25.2: no CHILD SA is made while the IKE SA is rekeyed or closed
fn may_create(authenticated: &Authenticated) -> Result<(), Error> {
    if authenticated.children.len() >= CHILDREN {
        return Err(Error::NoAdditionalSas(format!("{CHILDREN} CHILD SAs below one IKE SA are enough")));
    }
    match authenticated.standing {
        Standing::Up => {}
        Standing::Undecided | Standing::Redundant | Standing::Replaced => {
            return Err(Error::Temporary("the IKE SA is being rekeyed"));
        }
        Standing::Deleting => return Err(Error::Temporary("the IKE SA is being closed")),
    }
    match &authenticated.active {
        Some(Active::RekeyIke(_)) => Err(Error::Temporary("the IKE SA is being rekeyed")),
        Some(Active::DeleteIke) => Err(Error::Temporary("the IKE SA is being closed")),
        Some(
            Active::First(_)
            | Active::Child(_)
            | Active::DeleteChildren(_)
            | Active::AuthLifetime
            | Active::Liveness
            | Active::Mobike(_),
        )
        | None => Ok(()),
    }
}

//= RFC 7296 §2.1: a request is repeated until it is answered; when is left to its sender
/// A peer that wants to rekey what our DELETE should have taken from it long ago has not got that. It gets it once more, ahead of the refusal:
/// there are peers that after a refusal do not know any more that they have a successor, and stop sending when the DELETE comes later.
fn repeat_delete(authenticated: &Authenticated, core: &mut Core, turn: &mut Turn<'_>, payloads: &Payloads<'_>) {
    let spi = payloads.notify(NotifyType::REKEY_SA).and_then(|notify| notify.spi_u32());
    let named = spi.and_then(|spi| authenticated.by_peer_spi(spi));
    let deleted = matches!((&authenticated.active, named), (Some(Active::DeleteChildren(all)), Some(named)) if all.contains(&named));
    let asked = turn.now().saturating_since(core.asked_at);
    // Until it could have been answered it may well be on its way.
    if deleted && core.round_trip.is_some_and(|round_trip| asked > round_trip.saturating_mul(2)) {
        core.resend_in_place(turn);
    }
}

/// The CHILD SA that a request wants to rekey.
fn rekeyed_child(authenticated: &Authenticated, payloads: &Payloads<'_>) -> Result<Option<u32>, Error> {
    let Some(notify) = payloads.notify(NotifyType::REKEY_SA) else { return Ok(None) };
    let spi = notify.spi_u32().ok_or(Error::PeerMisbehaved("REKEY_SA without an SPI of ESP"))?;
    let known = authenticated.by_peer_spi(spi).filter(|_| notify.protocol == ProtocolId::ESP);
    let Some(unique_id) = known else {
        // It may be the very one that our own exchange is making: not to be called unknown before the answer has come.
        let making = matches!(authenticated.active, Some(Active::Child(_)));
        return Err(if making { Error::Temporary("it may be the one being made") } else { Error::ChildNotFound(spi) });
    };
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
    if decided || !child.is_up() || child.is_closing() {
        Err(Error::Temporary("it is being rekeyed or closed"))
    } else {
        Ok(())
    }
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
        && matches!(exchange.step, Step::Starting(_) | Step::Requested)
    {
        exchange.rival = Some(Rival { child, lowest_nonce });
    }
    Ok(())
}

/// The peer's rekeying has come to nothing at our end: its CHILD SA is no rival to ours, and the old one goes on, or has ended for good.
pub(crate) fn refused_rekey(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, new: u32, old: u32) {
    if let Some(Active::Child(exchange)) = &mut authenticated.active {
        exchange.rival.take_if(|rival| rival.child == new);
    }
    authenticated.go_on(turn, old);
    let ended = |child: &&ChildSa| child.state == ChildSaState::Deleted && child.successor.is_none();
    if let Some(child) = authenticated.child(old).filter(ended) {
        let cause = child.cause.clone().unwrap_or_else(|| Cause::new(CauseKind::PeerDeleted, "deleted by the peer"));
        authenticated.remove_child(core, turn, old, Some(&cause));
    }
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
