//! INFORMATIONAL with Delete payloads: closing CHILD SAs and the IKE SA, from either side (RFC 7296 §1.4.1, §2.25).

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind};
use ike_wire::ids::{ExchangeType, ProtocolId};
use ike_wire::{Delete, Payload, Payloads};
use ipsec::Spi;

use crate::children::{ChildSa, Outbound};
use crate::core::Core;
use crate::directory::DirectoryMessage;
use crate::error::Error;
use crate::established::{Active, Authenticated, Intent, Standing};
use crate::exchange::create_child;
use crate::io::{Output, Recipient};
use crate::say::{Ends, say};
use crate::turn::{Purpose, Turn};

/// Deletes a CHILD SA: nothing is sent on it from now on.
pub(crate) fn start_child(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    unique_id: u32,
) -> Result<(), Error> {
    // What is being installed goes once that is done, see [`Authenticated::on_install`].
    let early = |child: &ChildSa| matches!(child.state, ChildSaState::Installing | ChildSaState::Deleted);
    if authenticated.child(unique_id).is_none_or(early) {
        return Ok(());
    }
    // A successor that waits for the peer to switch: with its end the predecessor's is told too, so the switch comes first.
    let replaces = authenticated.child(unique_id).and_then(|child| child.replaces);
    let old = replaces.filter(|old| authenticated.child(*old).is_some_and(|old| old.state == ChildSaState::Rekeyed));
    if let Some(old) = old {
        authenticated.activate(turn, unique_id);
        authenticated.finish_replaced(core, turn, unique_id, old);
        authenticated.predecessor_overdue(turn, unique_id, old);
    }
    switch_to_successor(authenticated, core, turn, unique_id);
    // They are told with its end.
    authenticated.count(turn, unique_id);
    let Some(child) = authenticated.child_mut(unique_id) else { return Ok(()) };
    // A rekeyed one keeps its state: it lingers afterwards instead of going at once.
    if child.state != ChildSaState::Rekeyed {
        child.retire(turn, ChildSaState::Deleting);
    }
    let spi = child.spi_in;
    child.say_closing(core);
    let ops = child.remove_outbound_ops(turn.ids);
    turn.apply(ops, Purpose::Remove);
    say!(DEBUG, "IKE 1", core, "sending DELETE for ESP CHILD_SA with SPI {spi}");
    core.request(turn, ExchangeType::INFORMATIONAL, &[esp(&[spi])])?;
    authenticated.active = Some(Active::DeleteChildren(vec![unique_id]));
    Ok(())
}

/// The peer has rekeyed what we delete: it is switched to now.
fn switch_to_successor(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, old: u32) {
    let mut others = authenticated.children.iter();
    let ready = others.find(|other| other.replaces == Some(old) && other.state != ChildSaState::Installing);
    if let Some(new) = ready.map(|child| child.unique_id) {
        authenticated.activate(turn, new);
        authenticated.finish_replaced(core, turn, new, old);
        authenticated.close_successor(old, new);
    }
}

/// Deletes what was agreed on but never installed.
pub(crate) fn start_spi(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    spi: Spi,
) -> Result<(), Error> {
    core.request(turn, ExchangeType::INFORMATIONAL, &[esp(&[spi])])?;
    authenticated.active = Some(Active::DeleteChildren(Vec::new()));
    Ok(())
}

/// Deletes the IKE SA: nothing is sent on its CHILD SAs from now on, as the peer drops them when it sees the request.
pub(crate) fn start_ike(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    let (name, id) = (&core.connection.name, core.unique_id);
    say!(DEBUG, "IKE 0", core, "deleting IKE_SA {name}[{id}] between {}", Ends(core));
    say!(DEBUG, "IKE 1", core, "sending DELETE for IKE_SA {name}[{id}]");
    let ids = &*turn.ids;
    let ops = authenticated.children.iter_mut().flat_map(|child| child.remove_outbound_ops(ids)).collect();
    turn.apply(ops, Purpose::Remove);
    core.request(turn, ExchangeType::INFORMATIONAL, &[Payload::Delete(Delete::ike_sa())])?;
    authenticated.active = Some(Active::DeleteIke);
    if authenticated.standing == Standing::Up {
        authenticated.standing = Standing::Deleting;
    }
    // Nobody is to ask for a child below it any more.
    if turn.ids.shards() > 1 {
        let message = DirectoryMessage::Gone { unique_id: core.unique_id };
        turn.outputs.push_back(Output::Directory(Recipient::Others, message));
    }
    Ok(())
}

fn esp(spis: &[Spi]) -> Payload<'static> {
    let spis: Vec<u32> = spis.iter().map(|spi| spi.get()).collect();
    Payload::Delete(Delete::child_sas(ProtocolId::ESP, &spis))
}

/// The peer has answered the delete of CHILD SAs.
pub(crate) fn children_deleted(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, children: &[u32]) {
    for unique_id in children {
        let Some(child) = authenticated.child(*unique_id) else { continue };
        match child.state {
            ChildSaState::Rekeyed => authenticated.linger(core, turn, *unique_id),
            ChildSaState::Created
            | ChildSaState::Installing
            | ChildSaState::Installed
            | ChildSaState::Rekeying
            | ChildSaState::Deleting => {
                let told = child.cause.clone().unwrap_or_else(|| Cause::new(CauseKind::Operator, "closed"));
                authenticated.remove_child(core, turn, *unique_id, Some(&told));
            }
            ChildSaState::Deleted => {}
        }
    }
}

/// The peer deletes something, or nothing. `answer` goes with the response.
pub(crate) fn on_request(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
    mut answer: Vec<Payload<'static>>,
) -> Result<(), Error> {
    if payloads.deletes().any(Delete::is_ike_sa) {
        let (name, id) = (&core.connection.name, core.unique_id);
        say!(DEBUG, "IKE 1", core, "received DELETE for IKE_SA {name}[{id}]");
        say!(DEBUG, "IKE 0", core, "deleting IKE_SA {name}[{id}] between {}", Ends(core));
        core.respond(turn, ExchangeType::INFORMATIONAL, &answer)?;
        authenticated.on_peer_closed(core, turn);
        return Ok(());
    }
    let named: Vec<u32> =
        payloads.deletes().filter(|delete| delete.protocol == ProtocolId::ESP).flat_map(Delete::spis).collect();
    let mut answered = Vec::new();
    let mut later = Vec::new();
    for spi in named {
        say!(DEBUG, "IKE 1", core, "received DELETE for ESP CHILD_SA with SPI {spi:08x}");
        match authenticated.by_peer_spi(spi) {
            Some(unique_id) => {
                answered.extend(peer_deletes(authenticated, core, turn, unique_id, &mut later));
            }
            // It may be the peer's half of an SA whose making we have not seen the end of.
            None => create_child::note_early_delete(authenticated, spi),
        }
    }
    for spi in &answered {
        say!(DEBUG, "IKE 1", core, "sending DELETE for ESP CHILD_SA with SPI {spi}");
    }
    if !answered.is_empty() {
        answer.push(esp(&answered));
    }
    core.respond(turn, ExchangeType::INFORMATIONAL, &answer)?;
    for (unique_id, cause) in later {
        authenticated.remove_child(core, turn, unique_id, cause.as_ref());
    }
    Ok(())
}

/// One CHILD SA that the peer deletes. Gives our SPI for the answer; what is to be removed once that is sent goes to `later`.
fn peer_deletes(
    authenticated: &mut Authenticated,
    core: &Core,
    turn: &mut Turn<'_>,
    unique_id: u32,
    later: &mut Vec<(u32, Option<Cause>)>,
) -> Option<Spi> {
    let child = authenticated.child(unique_id)?;
    let (spi, state, redundant, replaces) = (child.spi_in, child.state, child.redundant, child.replaces);
    let own_cause = child.cause.clone();
    child.say_closing(core);
    if state == ChildSaState::Installing {
        // Whoever waits for the install sees to it. Traffic may take it already; the peer receives nothing on it any more.
        let child = authenticated.child_mut(unique_id)?;
        child.taken_back = true;
        let ops = if child.outbound == Outbound::Active { child.remove_outbound_ops(turn.ids) } else { Vec::new() };
        turn.apply(ops, Purpose::Remove);
        return Some(spi);
    }
    authenticated.intents.retain(|intent| !matches!(intent, Intent::DeleteChild(id) if *id == unique_id));
    if create_child::old_deleted(authenticated, core, turn, unique_id) {
        return Some(spi);
    }
    let successor =
        authenticated.children.iter().find(|other| other.replaces == Some(unique_id)).map(|other| other.unique_id);
    if let Some(successor) = successor {
        //= RFC 7296 §2.8: the DELETE of the old SA says that the new one is in use
        authenticated.activate(turn, successor);
        authenticated.finish_replaced(core, turn, successor, unique_id);
        authenticated.linger(core, turn, unique_id);
        return Some(spi);
    }
    if redundant {
        later.push((unique_id, None));
        return Some(spi);
    }
    match state {
        //= RFC 7296 §1.4.1: both ends delete the same SA: the answer names nothing
        ChildSaState::Deleting => {
            later.push((unique_id, Some(own_cause.unwrap_or_else(peer_deleted))));
            None
        }
        ChildSaState::Rekeyed => {
            authenticated.linger(core, turn, unique_id);
            Some(spi)
        }
        ChildSaState::Created | ChildSaState::Installing | ChildSaState::Installed | ChildSaState::Rekeying => {
            // The peer takes back its rekeying before we have switched: the old SA is what there is.
            if let Some(old) = replaces.filter(|old| authenticated.child(*old).is_some()) {
                authenticated.go_on(turn, old);
                later.push((unique_id, None));
                return Some(spi);
            }
            later.push((unique_id, Some(peer_deleted())));
            Some(spi)
        }
        ChildSaState::Deleted => None,
    }
}

fn peer_deleted() -> Cause {
    Cause::new(CauseKind::PeerDeleted, "deleted by the peer")
}
