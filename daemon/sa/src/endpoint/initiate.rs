//! A child, or an IKE SA alone, is asked for: below an IKE SA that is there, here or in another shard, or below a new one.

use std::sync::Arc;

use ike_model::reload::same_ike_sa;
use ike_model::{Cause, CauseKind, Child, CommandId, Connection};

use crate::directory::{DirectoryMessage, Wish};
use crate::endpoint::Endpoint;
use crate::established::Standing;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Recipient};
use crate::negotiation::ChildRequest;
use crate::notice::Notice;

impl Endpoint {
    /// Asks for a child, or for the IKE SA alone, below an IKE SA that is there or a new one.
    pub(super) fn initiate(
        &mut self,
        context: &Context<'_>,
        connection: &Arc<Connection>,
        child: Option<Arc<Child>>,
        wish: Wish,
    ) {
        if self.stopping {
            let cause = Cause::new(CauseKind::Shutdown, "the daemon stops");
            let name = child.as_ref().map(|child| child.name.as_str());
            return self.watch_failed(&connection.name, name, &cause);
        }
        let existing = self.usable_ike(connection, child.as_deref());
        let request = child.map(|child| {
            let keeper = self.keepers.find(&connection.name, &child.name);
            let keeper = keeper.and_then(|number| self.keepers.by_number.get(&number));
            let (reqid, tags) = keeper.map_or((None, None), |keeper| (keeper.reqid, keeper.tags));
            ChildRequest { child, packet: wish.packet(), asked: wish.is_asked(), reqid, tags }
        });
        match (existing, request) {
            (Some(spi), Some(request)) => self.initiate_below_spi(context, connection, spi, request, wish.command()),
            (Some(spi), None) => {
                if matches!(self.ikes.get(&spi), Some(IkeSa { phase: Phase::Authenticated(_), .. })) {
                    self.watch_up(&connection.name, None);
                }
            }
            (None, Some(request)) => {
                if let Err(request) = self.initiate_elsewhere(connection, request, wish) {
                    self.initiate_new(context, connection, Some(request));
                }
            }
            (None, None) if self.is_established_elsewhere(&connection.name) => self.watch_up(&connection.name, None),
            (None, None) => self.initiate_new(context, connection, None),
        }
    }

    /// An IKE SA of a connection that can take a child: one that has it before any authenticated one before one that is being made.
    pub(super) fn usable_ike(&self, connection: &Arc<Connection>, child: Option<&Child>) -> Option<u64> {
        let usable = |ike: &IkeSa| !ike.core.superseded && same_ike_sa(&ike.core.connection, connection);
        let of_connection = self.ikes.of(&connection.name).filter(|(_, ike)| usable(ike));
        let rank = |ike: &IkeSa| match &ike.phase {
            Phase::Authenticated(authenticated) if authenticated.standing == Standing::Up => {
                Some(if child.is_some_and(|child| authenticated.has_child(child)) { 2 } else { 1 })
            }
            Phase::Initiating(_) => Some(0),
            Phase::Authenticated(_) | Phase::Responding(_) | Phase::Closed => None,
        };
        let ranked = of_connection.filter_map(|(spi, ike)| Some((rank(ike)?, ike.core.unique_id, spi)));
        ranked.max().map(|(_, _, spi)| spi)
    }

    /// Asks for a child below an IKE SA of ours, or below a new one when that cannot take it any more.
    fn initiate_below_spi(
        &mut self,
        context: &Context<'_>,
        connection: &Arc<Connection>,
        spi: u64,
        request: ChildRequest,
        command: Option<CommandId>,
    ) {
        let up = match self.ikes.get(&spi) {
            Some(IkeSa { phase: Phase::Authenticated(authenticated), .. }) => authenticated.is_up(&request.child),
            Some(_) | None => false,
        };
        if up {
            // Whoever waits for it may do so in the home shard of the connection.
            let (connection, child) = (connection.clone(), request.child);
            return self.shared.notices.push_back(Notice::ChildThere { connection, child, command });
        }
        let Some(request) = self.with_ike(context, spi, |ike, turn| ike.want_child(turn, request)).flatten() else {
            return;
        };
        // One wish after the other may come for an IKE SA that is being closed: a single new one serves them all.
        let other = self.usable_ike(connection, Some(&request.child)).filter(|other| *other != spi);
        let left = match other {
            Some(other) => self.with_ike(context, other, |ike, turn| ike.want_child(turn, request)).flatten(),
            None => Some(request),
        };
        if let Some(request) = left {
            self.initiate_new(context, connection, Some(request));
        }
    }

    pub(super) fn is_established_elsewhere(&self, connection: &str) -> bool {
        let shard = self.shared.ids.shard();
        self.shared.registry.established.of(connection).any(|entry| entry.shard != shard)
    }

    /// Hands the wish to the shard that has an IKE SA of the connection.
    fn initiate_elsewhere(
        &mut self,
        connection: &Connection,
        request: ChildRequest,
        wish: Wish,
    ) -> Result<(), ChildRequest> {
        let entries = self.shared.registry.established.of(&connection.name);
        let shard = self.shared.ids.shard();
        let found = entries.filter(|e| e.shard != shard).max_by_key(|e| e.unique_id);
        let Some(entry) = found else { return Err(request) };
        let message = DirectoryMessage::Initiate {
            unique_id: entry.unique_id,
            connection: connection.name.clone(),
            child: request.child.name.clone(),
            wish,
        };
        self.shared.outputs.push_back(Output::Directory(Recipient::Shard(entry.shard), message));
        Ok(())
    }

    /// Another shard asks for a child below an IKE SA of ours.
    pub(super) fn initiate_below(
        &mut self,
        context: &Context<'_>,
        unique_id: u32,
        connection: &str,
        child: &str,
        wish: Wish,
    ) {
        let Some(connection) = context.config.connections.get(connection).cloned() else { return };
        let Some(child) = connection.child(child).cloned() else { return };
        let request = ChildRequest { child, packet: wish.packet(), asked: wish.is_asked(), reqid: None, tags: None };
        let command = wish.command();
        // It may have ended while the message was on its way.
        match self.by_unique_id(unique_id) {
            Some(spi) => self.initiate_below_spi(context, &connection, spi, request, command),
            None => match self.usable_ike(&connection, Some(&request.child)) {
                Some(spi) => self.initiate_below_spi(context, &connection, spi, request, command),
                None => self.initiate_new(context, &connection, Some(request)),
            },
        }
    }

    fn initiate_new(&mut self, context: &Context<'_>, connection: &Arc<Connection>, request: Option<ChildRequest>) {
        let child = request.as_ref().map(|request| request.child.clone());
        if self.admission.is_held() {
            let cause =
                Cause::new(CauseKind::HistoryFull, "the history cannot take down what happens: nothing new is begun");
            let connection = connection.clone();
            return self.shared.notices.push_back(Notice::ChildFailed { connection, child, cause });
        }
        let requests = request.into_iter().collect();
        match IkeSa::initiate(&mut self.shared.turn(context), connection.clone(), requests) {
            Ok(ike) => {
                self.ikes.insert(ike);
            }
            Err(error) => {
                tracing::warn!(conn = connection.name, "{error}");
                let (connection, cause) = (connection.clone(), error.cause());
                self.shared.notices.push_back(Notice::ChildFailed { connection, child, cause });
            }
        }
    }
}
