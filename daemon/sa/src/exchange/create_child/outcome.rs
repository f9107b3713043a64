//! What becomes of an exchange that does not simply succeed: errors of the peer, collisions, deletes that cross it.

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ike_wire::Payloads;
use ike_wire::ids::{KeyExchangeId, NotifyType};

use crate::core::Core;
use crate::deadline::{ChildTimer, IkeTimer};
use crate::error::Error;
use crate::established::{Active, Authenticated, Intent};
use crate::negotiation::{ChildRequest, Offer};
use crate::retry;
use crate::say::say;
use crate::turn::{Purpose, Turn};

use super::{Exchange, Rival, Step, proceed, rival_took_over};
pub(super) fn refused(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
    kind: NotifyType,
    payloads: &Payloads<'_>,
) {
    say!(DEBUG, "IKE 1", core, "received {kind} notify error");
    match kind {
        NotifyType::INVALID_KE_PAYLOAD => {
            let acceptable = |id: KeyExchangeId| {
                turn.context.provider.key_exchange(id).is_some()
                    && exchange.offer.as_ref().is_some_and(|offer| offer.offers_method(id))
            };
            let method = exchange.detours.follow(payloads, exchange.method, acceptable);
            if method.is_some() {
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
        // The same child, asked for again since its configuration changed, waits with it: both mean what is configured by then.
        let name = &request.child.name;
        authenticated
            .intents
            .retain(|intent| !matches!(intent, Intent::CreateChild(other) if other.child.name == *name));
        authenticated.deferred.push(Intent::CreateChild(request));
        turn.deadlines.set(core.timer(IkeTimer::Resume), at);
    }
    if authenticated.refusals >= retry::TEMPORARY_FAILURES {
        let cause = Cause::new(CauseKind::PeerError, "the peer keeps answering TEMPORARY_FAILURE");
        authenticated.close(core, turn, cause);
    }
}

/// A rekeying of ours ends without result: the old CHILD SA goes on, or goes if the peer has deleted it meanwhile.
pub(super) fn give_up_rekey(
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
        let request = ChildRequest::again(child);
        let cause = Cause::new(CauseKind::PeerDeleted, "the peer does not know it any more");
        authenticated.remove_child(core, turn, old, Some(&cause));
        if !authenticated.has_child(&request.child) {
            authenticated.intents.push_back(Intent::CreateChild(request));
        }
    }
}

pub(super) fn failed(
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
                authenticated.tell_failed(core, turn, Some(&request.child), &cause);
                authenticated.child_failed(core, turn, &request.child, &cause);
            }
        }
    }
}

/// Rekeying came to nothing: the CHILD SA goes on and it is tried again.
pub(super) fn rekey_failed(
    authenticated: &mut Authenticated,
    core: &Core,
    turn: &mut Turn<'_>,
    old: u32,
    cause: &Cause,
) {
    let (now, shard, random) = (turn.now(), turn.ids.shard(), turn.random());
    let Some(child) = authenticated.child_mut(old) else { return };
    if child.state == ChildSaState::Rekeying {
        child.state = ChildSaState::Installed;
    }
    if child.state != ChildSaState::Installed {
        return;
    }
    child.rekey_failures = child.rekey_failures.saturating_add(1);
    let at = turn.after(retry::rekeying(child.rekey_failures, child.time_left(now), random));
    turn.deadlines.set(child.timer(ChildTimer::Retry), at);
    let snapshot = Box::new(child.snapshot(now, shard));
    tracing::warn!(
        conn = core.connection.name,
        child = child.config.name,
        ike = core.unique_id,
        "rekeying failed: {cause}"
    );
    let ike = Box::new(authenticated.snapshot_due(core, turn));
    turn.event(EventBody::ChildSaRekeyFailed { ike, child: snapshot, cause: cause.clone() });
}

/// The peer closed what our exchange made before we knew of it. With a rekeyed CHILD SA it meant the child: the old one goes too.
pub(super) fn deleted_again(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut exchange: Box<Exchange>,
) {
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
pub(super) fn make_redundant(authenticated: &mut Authenticated, rival: Option<Rival>) {
    if let Some(redundant) = rival.and_then(|rival| authenticated.child_mut(rival.child)) {
        redundant.redundant = true;
        redundant.replaces = None;
    }
}

/// The peer deletes a CHILD SA that our exchange is rekeying: it stays in our table until the exchange is decided. Gives whether it is so.
pub(crate) fn old_deleted(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, old: u32) -> bool {
    match authenticated.active.take() {
        // That one has taken over already, so ours replaces it now, however it ends.
        Some(Active::Child(mut exchange)) if exchange.rival.as_ref().is_some_and(|rival| rival.child == old) => {
            rival_took_over(authenticated, core, turn, &mut exchange);
            authenticated.active = Some(Active::Child(exchange));
        }
        active => authenticated.active = active,
    }
    let Some(Active::Child(exchange)) = &mut authenticated.active else { return false };
    if !exchange.rekeys(old) {
        return false;
    }
    exchange.old_deleted = true;
    // Ours is being installed once it has won; the peer deletes the old SA for a reason of its own.
    let undecided = !matches!(exchange.step, Step::Installing(_));
    let rival = exchange.rival.as_ref().filter(|_| undecided).map(|rival| rival.child);
    // Only the winner deletes the old SA, so the peer's new one stays.
    if let Some(new) = rival.filter(|new| authenticated.child(*new).is_some()) {
        authenticated.activate(turn, new);
        authenticated.finish_replaced(core, turn, new, old);
    }
    // Nothing goes where the peer does not receive any more, be it that there is nothing new to take, or that this has reached a limit already.
    let ops = authenticated.child_mut(old).map(|child| child.remove_outbound_ops(turn.ids));
    turn.apply(ops.unwrap_or_default(), Purpose::Remove);
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
