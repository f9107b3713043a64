//! Full authentication afresh (`reauth_time`), make-before-break: a new IKE SA with the same children, then the old one goes.

use std::collections::VecDeque;
use std::sync::Arc;

use ike_model::reload::can_initiate;
use ike_model::{Cause, CauseKind};

use crate::endpoint::Endpoint;
use crate::established::Authenticated;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::Context;
use crate::negotiation::ChildRequest;

impl Endpoint {
    /// Begins the successor of an IKE SA, unless that is under way.
    pub(super) fn reauthenticate(&mut self, context: &Context<'_>, old: u64) {
        let Some(IkeSa { core, phase: Phase::Authenticated(authenticated) }) = self.ikes.get(&old) else { return };
        let connection = core.connection.clone();
        let begun = self.replacing(old).is_some();
        // A peer of unknown address does it itself; until then the hard lifetime stands.
        if begun || self.stopping || !can_initiate(&connection) {
            return;
        }
        let requests: VecDeque<ChildRequest> = authenticated
            .children
            .iter()
            .filter(|child| child.is_up())
            .map(|child| ChildRequest { child: child.config.clone(), packet: None, reqid: Some(child.reqid) })
            .collect();
        match IkeSa::initiate(&mut self.shared.turn(context), Arc::clone(&connection), requests) {
            Ok(mut ike) => {
                ike.core.reauthenticates = Some(old);
                self.reauthenticating.insert(ike.core.spi().0);
                self.ikes.insert(ike);
            }
            Err(error) => tracing::warn!(conn = connection.name, "{error}"),
        }
    }

    /// A child of a connection is up: the IKE SA that was authenticated afresh goes once its successor has all its children.
    pub(super) fn finish_reauthentication(&mut self, context: &Context<'_>, connection: &str) {
        let candidates = self.reauthenticating.iter().filter_map(|spi| self.ikes.get(spi));
        let complete = candidates.filter(|new| new.core.connection.name == connection).filter_map(|new| {
            let old = new.core.reauthenticates?;
            let (before, after) = (up(self.ikes.get(&old)?)?, up(new)?);
            before.iter().all(|name| after.contains(name)).then_some((new.core.spi().0, old))
        });
        for (new, old) in complete.collect::<Vec<_>>() {
            self.reauthenticating.remove(&new);
            self.with_ike(context, new, |ike, _| ike.core.reauthenticates = None);
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
    }
}

/// Names of the children that are up.
fn up(ike: &IkeSa) -> Option<Vec<&str>> {
    let Phase::Authenticated(authenticated) = &ike.phase else { return None };
    let authenticated: &Authenticated = authenticated;
    Some(authenticated.children.iter().filter(|child| child.is_up()).map(|child| child.config.name.as_str()).collect())
}
