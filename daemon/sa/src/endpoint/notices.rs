//! What IKE SAs tell: new ones, ended ones, and what that means for configured children and commands.

use std::time::Duration;

use ike_model::snapshot::IkeSaState;
use ike_model::{Cause, CauseKind, Counter, EventBody, IkeSaSnapshot};
use ike_wire::ids::ExchangeType;
use ipsec::Path;

use crate::core::{Core, Opened};
use crate::deadline::{IkeTimer, Timer};
use crate::directory::DirectoryMessage;
use crate::endpoint::Endpoint;
use crate::endpoint::unique::SUPERSEDED;
use crate::established::{Authenticated, Standing, say_lifetimes};
use crate::exchange::rekey_ike;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Recipient};
use crate::notice::{Estate, Notice};
use crate::route::home;
use crate::say::{Ends, say};
use crate::turn::Turn;

/// IKE SAs that have ended and still answer repeated requests, at most.
const DEPARTED: usize = 256;
/// How long they do: the first repetitions of a peer come within it.
const DEPARTED_FOR: Duration = Duration::from_secs(30);

/// The successor of an IKE SA has its place.
fn say_rekeyed(core: &Core, old: u32, turn: &Turn<'_>) {
    let (name, id) = (&core.connection.name, core.unique_id);
    say!(INFO, "IKE 0", core, "IKE_SA {name}[{id}] rekeyed between {}, replaces [{old}]", Ends(core));
    say_lifetimes(core, turn);
}

impl Endpoint {
    /// Acts on everything that was told, and on what that leads to.
    pub(super) fn settle(&mut self, context: &Context<'_>) {
        while let Some(notice) = self.shared.notices.pop_front() {
            match notice {
                Notice::Established { spi } => self.established(context, spi),
                Notice::Successor { ike } => {
                    let spi = ike.core.spi().0;
                    self.ikes.insert(*ike);
                    self.with_ike(context, spi, |ike, turn| ike.with_authenticated(turn, |_, _, _| {}));
                }
                Notice::Redundant { spi } => {
                    self.with_ike(context, spi, |ike, turn| {
                        ike.with_authenticated(turn, |one, core, turn| rekey_ike::lost(one, core, turn))
                    });
                }
                Notice::InUse { spi, exchange, request } => self.in_use(context, spi, exchange, request),
                Notice::Request { spi, exchange, request } => {
                    self.with_ike(context, spi, |ike, turn| ike.serve(turn, exchange, &request));
                }
                Notice::Inherit { old, to, estate } => self.inherit(context, &old, to, estate),
                Notice::Moved { spi, from, to } => self.move_replaced(context, spi, (from, to)),
                Notice::MoveSuccessor { spi, path, nat } => {
                    self.with_ike(context, spi, |ike, turn| {
                        ike.with_authenticated(turn, |authenticated, core, turn| {
                            authenticated.follow_predecessor(core, turn, path, nat);
                        });
                    });
                }
                Notice::Reauthenticate { spi } => self.reauthenticate(context, spi),
                Notice::Unreachable { connection } => {
                    self.unreachable.insert(connection);
                }
                Notice::Replace { unique_id, silently } => self.replace(context, unique_id, silently),
                Notice::ChildUp { connection, child } => {
                    self.retire_outdated_children(context, &connection, &child);
                    self.retire_outdated(context, &connection);
                    let (connection, child) = (connection.name.clone(), child.name.clone());
                    self.finish_reauthentication(context, &connection);
                    self.tell_home(
                        &connection.clone(),
                        DirectoryMessage::ChildUp { connection, child, from: self.shared.ids.shard() },
                        context,
                    );
                }
                Notice::ChildThere { connection, child, command } => {
                    let (connection, child) = (connection.name.clone(), child.name.clone());
                    let message = DirectoryMessage::ChildThere { connection: connection.clone(), child, command };
                    self.tell_home(&connection, message, context);
                }
                Notice::Supersede { unique_id } => self.supersede(context, unique_id, SUPERSEDED),
                Notice::ChildFailed { connection, child, cause } => {
                    let child = child.map(|child| child.name.clone());
                    let connection = connection.name.clone();
                    let message = DirectoryMessage::ChildFailed { connection: connection.clone(), child, cause };
                    self.tell_home(&connection, message, context);
                }
                Notice::ChildDown { connection, child, unique_id, cause } => {
                    tracing::debug!(conn = connection.name, child = child.name, unique_id, "down: {cause}");
                    let (connection, child) = (connection.name.clone(), child.name.clone());
                    let from = self.shared.ids.shard();
                    let message = DirectoryMessage::ChildDown { connection: connection.clone(), child, from, cause };
                    self.tell_home(&connection, message, context);
                }
                Notice::ChildGone { unique_id } => self.watch_child_gone(unique_id),
                Notice::Closed { spi, unique_id } => self.closed(context, spi, unique_id),
            }
        }
    }

    /// What an IKE SA has replaced, and what lost a collision against it, can be closed only where the peer is now.
    fn move_replaced(&mut self, context: &Context<'_>, spi: u64, (from, to): (Path, Path)) {
        let Some(connection) = self.ikes.get(&spi).map(|ike| ike.core.connection.name.clone()) else { return };
        let replaced = |ike: &IkeSa| {
            let Phase::Authenticated(authenticated) = &ike.phase else { return false };
            authenticated.standing != Standing::Up && ike.core.path == from
        };
        let found: Vec<u64> = self.ikes.of(&connection).filter(|(_, ike)| replaced(ike)).map(|(spi, _)| spi).collect();
        for spi in found {
            self.with_ike(context, spi, |ike, turn| {
                ike.core.path = to;
                ike.core.resend(turn);
            });
        }
    }

    /// The IKE SA that both ends rekey learns that the peer uses its own new one. What follows from that comes before the request.
    fn in_use(&mut self, context: &Context<'_>, spi: u64, exchange: ExchangeType, request: Opened) {
        let connection = self.ikes.get(&spi).map(|ike| ike.core.connection.name.clone()).unwrap_or_default();
        let has_rival = |ike: &IkeSa| {
            let Phase::Authenticated(authenticated) = &ike.phase else { return false };
            authenticated.rival.as_ref().is_some_and(|rival| rival.spi() == spi)
        };
        let old = self.ikes.of(&connection).find(|(_, ike)| has_rival(ike)).map(|(old, _)| old);
        if let Some(old) = old {
            self.with_ike(context, old, |ike, turn| {
                ike.with_authenticated(turn, |one, core, turn| rekey_ike::peer_uses_rival(one, core, turn))
            });
        }
        self.shared.notices.push_back(Notice::Request { spi, exchange, request });
    }

    /// Tells the home shard of a connection, which may be this one.
    fn tell_home(&mut self, connection: &str, message: DirectoryMessage, context: &Context<'_>) {
        let shard = home(connection, self.shared.ids.shards());
        if shard == self.shared.ids.shard() {
            self.on_directory(context, message);
        } else {
            self.shared.outputs.push_back(Output::Directory(Recipient::Shard(shard), message));
        }
    }

    fn established(&mut self, context: &Context<'_>, spi: u64) {
        self.firsts.forget(&self.admission, context.now, spi);
        self.ikes.file(spi);
        let Some(ike) = self.ikes.get(&spi) else { return };
        let connection = ike.core.connection.clone();
        self.settle_uniqueness(context, spi);
        self.watch_up(&connection.name, None);
        self.peer_is_back(context, &connection.name);
        self.finish_reauthentication(context, &connection.name);
        if self.unreachable.remove(&connection.name) {
            self.with_ike(context, spi, |ike, turn| {
                let ike = Box::new(ike.core.snapshot(turn.now(), IkeSaState::Established));
                turn.event(EventBody::PeerReachable { ike });
            });
        }
        self.retire_outdated(context, &connection);
    }

    fn inherit(&mut self, context: &Context<'_>, old: &IkeSaSnapshot, to: u64, estate: Estate) {
        self.shared.registry.established.remove(old.unique_id);
        self.tell_others(DirectoryMessage::Gone { unique_id: old.unique_id });
        for child in &estate.children {
            self.shared.registry.home.insert(child.unique_id, to);
        }
        if !self.ikes.contains_key(&to) {
            return self.ended_with_successor(context, old, estate);
        }
        if let Some(at) = self
            .by_unique_id(old.unique_id)
            .and_then(|old| self.shared.deadlines.get(Timer::Ike(old, IkeTimer::Superseded)))
        {
            self.shared.deadlines.set(Timer::Ike(to, IkeTimer::Superseded), at);
        }
        self.watch_rekeyed(old.unique_id, self.ikes.get(&to).map(|ike| ike.core.unique_id));
        self.reauthenticates_instead(old.unique_id, to);
        let old = Box::new(old.clone());
        self.with_ike(context, to, |ike, turn| {
            if let Phase::Authenticated(authenticated) = &mut ike.phase {
                authenticated.standing = Standing::Up;
                (ike.core.path, ike.core.nat, ike.core.mobility) = (*estate.way).clone();
                authenticated.take_over(estate, &ike.core, turn);
                authenticated.enter(&mut ike.core, turn);
                let new = Box::new(authenticated.snapshot_due(&ike.core, turn));
                let counter = if new.initiator { Counter::IkeRekeyInit } else { Counter::IkeRekeyResp };
                ike.core.count(turn, counter);
                say_rekeyed(&ike.core, old.unique_id, turn);
                turn.event(EventBody::IkeSaRekeyed { old, new });
                authenticated.advance(&mut ike.core, turn);
            }
        });
    }

    /// The peer had switched to a successor and closed that before we knew that it was the one: everything has ended.
    fn ended_with_successor(&mut self, context: &Context<'_>, old: &IkeSaSnapshot, estate: Estate) {
        let Some(spi) = self.by_unique_id(old.unique_id) else { return };
        self.with_ike(context, spi, |ike, turn| {
            let mut rest = Authenticated::new();
            rest.take_over(estate, &ike.core, turn);
            rest.finish(&ike.core, turn, Cause::new(CauseKind::PeerDeleted, "closed by the peer"));
        });
    }

    pub(super) fn replace(&mut self, context: &Context<'_>, unique_id: u32, silently: bool) {
        let Some(spi) = self.by_unique_id(unique_id) else {
            let owner = self.shared.registry.established.get(unique_id).map(|entry| entry.shard);
            if let Some(shard) = owner.filter(|shard| *shard != self.shared.ids.shard()) {
                let message = DirectoryMessage::Replace { unique_id, silently };
                self.shared.outputs.push_back(Output::Directory(Recipient::Shard(shard), message));
            }
            return;
        };
        let cause = Cause::new(CauseKind::Replaced, "the peer has made another IKE SA");
        self.with_ike(context, spi, |ike, turn| ike.close(turn, cause, silently));
    }

    fn closed(&mut self, context: &Context<'_>, spi: u64, unique_id: u32) {
        self.firsts.forget(&self.admission, context.now, spi);
        self.reauthenticating.remove(&spi);
        let ended = self.ikes.remove(spi);
        self.shared.deadlines.clear_ike(spi);
        if let Some(mut ike) = ended.filter(|ike| ike.core.keys.is_some())
            && self.departed.len() < DEPARTED
        {
            // Only the answers to the peer's requests are of use now, and the answer to an IKE_AUTH that is not wanted any more.
            if !ike.core.unwanted {
                ike.core.window.answered();
            }
            self.departed.insert(spi, ike);
            self.shared.deadlines.set(Timer::Ike(spi, IkeTimer::Reap), context.now + DEPARTED_FOR);
        }
        let registry = &mut self.shared.registry;
        let connecting = registry.connecting.remove(&unique_id).is_some();
        let known = registry.established.remove(unique_id).is_some() || connecting;
        let works: Vec<_> = registry.working.iter().filter(|(_, owner)| **owner == spi).map(|(id, _)| *id).collect();
        for id in works {
            self.shared.registry.working.remove(&id);
            self.shared.outputs.push_back(Output::CancelWork(id));
        }
        if known {
            self.tell_others(DirectoryMessage::Gone { unique_id });
        }
        self.watch_ike_gone(unique_id);
        self.come_back(context, spi);
    }

    pub(super) fn tell_others(&mut self, message: DirectoryMessage) {
        if self.shared.ids.shards() > 1 {
            self.shared.outputs.push_back(Output::Directory(Recipient::Others, message));
        }
    }
}
