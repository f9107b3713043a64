//! Full authentication afresh (`reauth_time`, AUTH_LIFETIME, `rekey --reauth`; RFC 7296 §2.8.3, RFC 4478).
//!
//! Make-before-break: a new IKE SA with the same children, then the old one goes. Break-before-make (`make_before_break = false`): the old one
//! goes first, for peers that cannot have two at once.

use std::collections::VecDeque;
use std::sync::Arc;

use ike_model::reload::can_initiate;
use ike_model::{Cause, CauseKind, CommandId, Connection, Selector};

use crate::directory::Wish;
use crate::endpoint::Endpoint;
use crate::endpoint::command::matches_ike;
use crate::established::{Authenticated, Standing};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::Context;
use crate::negotiation::ChildRequest;

/// What is made once an IKE SA is gone.
pub(super) struct Comeback {
    connection: Arc<Connection>,
    requests: VecDeque<ChildRequest>,
}

impl Endpoint {
    /// An operator wants peers authenticated afresh.
    pub(super) fn reauthenticate_command(&mut self, context: &Context<'_>, id: CommandId, selector: &Selector) {
        let live = |ike: &IkeSa| matches!(&ike.phase, Phase::Authenticated(a) if a.standing == Standing::Up);
        let found = self.ikes.iter().filter(|(_, ike)| matches_ike(selector, ike) && live(ike));
        let found: Vec<u64> = found.map(|(spi, _)| *spi).collect();
        let matches = u32::try_from(found.len()).unwrap_or(u32::MAX);
        for spi in found {
            self.reauthenticate(context, spi);
        }
        self.reply(id, Ok(ike_model::CommandOutcome { matches, terminated: 0 }));
    }

    //= RFC 7296 §2.8.3: reauthentication makes a new IKE SA from scratch and its CHILD SAs anew, then closes the old one
    /// Begins to replace an IKE SA; when that is under way, asks again for children that are missing.
    pub(super) fn reauthenticate(&mut self, context: &Context<'_>, old: u64) {
        let Some(IkeSa { core, phase: Phase::Authenticated(authenticated) }) = self.ikes.get(&old) else { return };
        let connection = core.connection.clone();
        if self.stopping || authenticated.standing != Standing::Up || self.comebacks.contains_key(&old) {
            return;
        }
        // A peer of unknown address does it itself; until then the hard lifetime stands.
        if !can_initiate(&connection) {
            return tracing::warn!(
                conn = connection.name,
                "the peer has no configured address: it has to authenticate afresh itself"
            );
        }
        // The peer may have begun; its new IKE SA replaces this one.
        let since = core.authentication.since;
        let twins = self.shared.registry.twins(&connection, &core.local_id, &core.remote_id, core.unique_id);
        if twins.iter().any(|twin| !twin.initiator && Some(twin.since) > since) {
            return;
        }
        let requests = requests(&connection, authenticated);
        if let Some(new) = self.replacing(old) {
            for request in requests {
                self.with_ike(context, new, |ike, turn| ike.want_child(turn, request));
            }
            return;
        }
        if context.config.settings.make_before_break {
            self.begin_successor(context, old, &connection, requests);
        } else {
            self.comebacks.insert(old, Comeback { connection, requests });
            let cause = Cause::new(CauseKind::Replaced, "to be authenticated afresh");
            self.with_ike(context, old, |ike, turn| ike.close(turn, cause, false));
        }
    }

    fn begin_successor(
        &mut self,
        context: &Context<'_>,
        old: u64,
        connection: &Arc<Connection>,
        requests: VecDeque<ChildRequest>,
    ) {
        match IkeSa::initiate(&mut self.shared.turn(context), Arc::clone(connection), requests) {
            Ok(mut ike) => {
                ike.core.reauthenticates = Some(old);
                self.reauthenticating.insert(ike.core.spi().0);
                self.ikes.insert(ike);
            }
            Err(error) => tracing::warn!(conn = connection.name, "{error}"),
        }
    }

    /// An IKE SA is gone; it may have gone to be authenticated afresh.
    pub(super) fn come_back(&mut self, context: &Context<'_>, gone: u64) {
        let Some(Comeback { connection, requests }) = self.comebacks.remove(&gone) else { return };
        let Some(current) = context.config.connections.get(&connection.name).cloned() else { return };
        if self.stopping {
            return;
        }
        let current_child = |mut request: ChildRequest| {
            request.child = current.child(&request.child.name)?.clone();
            Some(request)
        };
        let mut requests = requests.into_iter().filter_map(current_child);
        let first = requests.next();
        let rest: Vec<_> = requests.collect();
        self.initiate(context, &current, first.map(|request| request.child), Wish::Configured);
        for request in rest {
            self.initiate(context, &current, Some(request.child), Wish::Configured);
        }
    }

    /// What is closed by an operator does not come back, and what was to replace it does not come.
    pub(super) fn give_up_successor(&mut self, context: &Context<'_>, old: u64, cause: &Cause) {
        self.comebacks.remove(&old);
        if let Some(new) = self.replacing(old) {
            let cause = cause.clone();
            self.with_ike(context, new, |ike, turn| ike.close(turn, cause, false));
        }
    }

    /// An IKE SA or a child of a connection is up: the IKE SA that was authenticated afresh goes once its successor has all its children.
    pub(super) fn finish_reauthentication(&mut self, context: &Context<'_>, connection: &str) {
        let candidates = self.reauthenticating.iter().filter_map(|spi| self.ikes.get(spi));
        let complete = candidates.filter(|new| new.core.connection.name == connection).filter_map(|new| {
            let (old, after) = (new.core.reauthenticates?, up(new)?);
            // Should the old one have ended by itself, nothing is left to be done.
            let before = self.ikes.get(&old).and_then(up).unwrap_or_default();
            before.iter().all(|name| after.contains(name)).then_some((new.core.spi().0, old))
        });
        for (new, old) in complete.collect::<Vec<_>>() {
            self.reauthenticating.remove(&new);
            self.with_ike(context, new, |ike, _| ike.core.reauthenticates = None);
            //= RFC 4478 §2: the initiator should delete the old IKE SA within a reasonable time of the new one
            let cause = Cause::new(CauseKind::Replaced, "authenticated afresh");
            self.with_ike(context, old, |ike, turn| ike.close(turn, cause, false));
        }
    }

    /// The IKE SA that is to replace another one.
    fn replacing(&self, old: u64) -> Option<u64> {
        let replaces = |spi: &&u64| self.ikes.get(spi).is_some_and(|ike| ike.core.reauthenticates == Some(old));
        self.reauthenticating.iter().find(replaces).copied()
    }

    /// The IKE SA that is being authenticated afresh was rekeyed meanwhile.
    pub(super) fn reauthenticates_instead(&mut self, old: u32, to: u64) {
        let Some(from) = self.ikes.by_unique_id(old) else { return };
        if let Some(ike) = self.replacing(from).and_then(|spi| self.ikes.get_mut(spi)) {
            ike.core.reauthenticates = Some(to);
        }
        if let Some(comeback) = self.comebacks.remove(&from) {
            self.comebacks.insert(to, comeback);
        }
        // It may itself be the one that replaces another.
        if self.reauthenticating.remove(&from) {
            let old = self.ikes.get_mut(from).and_then(|ike| ike.core.reauthenticates.take());
            if let Some(ike) = self.ikes.get_mut(to) {
                ike.core.reauthenticates = old;
                self.reauthenticating.insert(to);
            }
        }
    }
}

/// Its children, to be asked for again; each name once.
fn requests(connection: &Connection, authenticated: &Authenticated) -> VecDeque<ChildRequest> {
    let mut requests: VecDeque<ChildRequest> = VecDeque::new();
    for child in authenticated.children.iter().filter(|child| child.is_up()) {
        if requests.iter().any(|request| request.child.name == child.config.name) {
            continue;
        }
        let config = connection.child(&child.config.name).unwrap_or(&child.config).clone();
        requests.push_back(ChildRequest { child: config, ..ChildRequest::again(child) });
    }
    requests
}

/// Names of the children that are up.
fn up(ike: &IkeSa) -> Option<Vec<&str>> {
    let Phase::Authenticated(authenticated) = &ike.phase else { return None };
    let authenticated: &Authenticated = authenticated;
    Some(authenticated.children.iter().filter(|child| child.is_up()).map(|child| child.config.name.as_str()).collect())
}
