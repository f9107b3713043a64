//! Changes of the configuration: what is unchanged is not touched, what can change in place does.
//!
//! Only identities, authentication, addresses and proposals need another IKE SA, which is made before the old one goes. Lifetimes, liveness,
//! actions and children change below the IKE SA that is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use ike_model::config::FailClosed;
use ike_model::reload::{can_initiate, same_child_sa, same_ike_sa};
use ike_model::{Actions, Cause, CauseKind, Child, ChildMode, Connection};

use crate::children::inactivity_step;
use crate::deadline::ChildTimer;
use crate::directory::Wish;
use crate::endpoint::Endpoint;
use crate::established::{Intent, schedule_lifetime};
use crate::exchange::{auth_lifetime, liveness};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::Context;
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::route::home;
use crate::turn::Purpose;

impl Endpoint {
    pub(super) fn reload(&mut self, context: &Context<'_>, changed: &[String], removed: &[String]) {
        for name in removed {
            self.mixed.remove(name);
            if let Some(old) = self.applied.remove(name) {
                self.unload(context, &old);
            }
        }
        for name in changed {
            let Some(new) = context.config.connections.get(name).cloned() else { continue };
            let old = self.applied.insert(name.clone(), new.clone());
            if old.as_ref() != Some(&new) && self.ikes.of(name).next().is_some() {
                self.mixed.insert(name.clone());
            }
            match old {
                Some(old) if old == new => {}
                Some(old) if same_ike_sa(&old, &new) => self.update(context, &old, &new),
                Some(old) => self.replace_connection(context, &old, &new),
                None => {
                    self.adopt(context, &new);
                    self.load(context, &new, &new.children);
                }
            }
        }
    }

    fn is_home(&self, connection: &str) -> bool {
        home(connection, self.shared.ids.shards()) == self.shared.ids.shard()
    }

    /// Carries out the start actions of children.
    fn load(&mut self, context: &Context<'_>, connection: &Arc<Connection>, children: &[Arc<Child>]) {
        if !self.is_home(&connection.name) {
            return;
        }
        for child in children {
            let number = self.keepers.number(connection, child);
            let shunt = matches!(child.mode, ChildMode::Pass | ChildMode::Drop);
            let Actions { trap, start } = child.start_action;
            let guard = match context.config.settings.fail_closed {
                FailClosed::Always => true,
                FailClosed::OnceUp => trap || start,
                FailClosed::Off => false,
            };
            if guard {
                self.guard(context, number);
            }
            // A shunt has no other state than installed.
            if trap || (shunt && start) {
                self.install_trap(context, number);
            }
            if start && !shunt {
                self.start(context, connection, child, number);
            }
        }
    }

    fn start(&mut self, context: &Context<'_>, connection: &Arc<Connection>, child: &Arc<Child>, number: u32) {
        if !can_initiate(connection) {
            return tracing::warn!(
                conn = connection.name,
                child = child.name,
                "start_action = start needs a peer address; waiting for the peer"
            );
        }
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.wanted = true;
        }
        self.on_retry(context, number);
    }

    /// A connection is gone: traps, guards and what was started go; other SAs stay until they expire.
    fn unload(&mut self, context: &Context<'_>, old: &Arc<Connection>) {
        for child in &old.children {
            self.drop_child(context, old, child);
        }
        self.close_idle(context, &old.name);
    }

    /// Takes back what the start action of a child did, and its guard.
    fn drop_child(&mut self, context: &Context<'_>, connection: &Connection, child: &Child) {
        self.forget_child(context, connection, child);
        self.unguard_child(context, connection, child);
        self.withdraw_wishes(context, connection, child, true);
        if child.start_action.start {
            self.close_children(context, &connection.name, |sa| sa.name == child.name);
        }
    }

    /// Takes the trap of a child out; it is not kept up any more.
    fn forget_child(&mut self, context: &Context<'_>, connection: &Connection, child: &Child) {
        if let Some(number) = self.keepers.find(&connection.name, &child.name) {
            self.remove_trap(context, number);
            self.shared.deadlines.clear(crate::deadline::Timer::Keeper(number));
            self.shared.deadlines.clear(crate::deadline::Timer::Trap(number));
        }
        self.keepers.forget(&connection.name, &child.name);
    }

    fn unguard_child(&mut self, context: &Context<'_>, connection: &Connection, child: &Child) {
        let ops = self.shared.registry.unguard(&format!("{}/{}", connection.name, child.name));
        self.shared.turn(context).apply(ops, Purpose::Remove);
    }

    fn close_children(&mut self, context: &Context<'_>, connection: &str, which: impl Fn(&Child) -> bool) {
        let mut found = Vec::new();
        for (_, ike) in self.ikes.of(connection) {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let live = authenticated.children.iter().filter(|sa| sa.is_up() && !sa.is_closing() && which(&sa.config));
            found.extend(live.map(|sa| sa.unique_id));
        }
        for unique_id in found {
            let cause = changed_or_removed();
            self.with_child(context, unique_id, |ike, core, turn| ike.close_child(core, turn, unique_id, cause));
        }
    }

    /// IKE SAs of a connection that nothing uses any more are closed, and attempts at one are given up.
    fn close_idle(&mut self, context: &Context<'_>, connection: &str) {
        let idle: Vec<u64> = self
            .ikes
            .of(connection)
            .filter(|(_, ike)| match &ike.phase {
                Phase::Authenticated(authenticated) => {
                    !authenticated.children.iter().any(|child| child.is_up() && !child.is_closing())
                }
                Phase::Initiating(_) => true,
                Phase::Responding(_) | Phase::Closed => false,
            })
            .map(|(spi, _)| spi)
            .collect();
        for spi in idle {
            let cause = Cause::new(CauseKind::Reload, "its configuration was removed");
            self.with_ike(context, spi, |ike, turn| ike.close(turn, cause, false));
        }
    }

    /// The peer is another one now. What is started or being made is so under a new IKE SA; the old one stays until all it carries is up below
    /// that, so what only the peer can bring back is not lost.
    fn replace_connection(&mut self, context: &Context<'_>, old: &Arc<Connection>, new: &Arc<Connection>) {
        for child in &old.children {
            self.forget_child(context, old, child);
            if new.child(&child.name).is_none() {
                self.unguard_child(context, old, child);
                self.close_children(context, &old.name, |sa| sa.name == child.name);
            }
        }
        let cause = Cause::new(CauseKind::Reload, "its configuration was changed");
        let again = self.give_up_attempts(context, old, |_| true, &cause);
        self.load(context, new, &new.children);
        for request in again {
            match (request.as_ref().map(|request| (request, new.child(&request.child.name))), can_initiate(new)) {
                (Some((request, Some(child))), _) if request.lapses(child) => {}
                (Some((request, Some(child))), true) => {
                    self.initiate(context, new, Some(child.clone()), request.wish());
                }
                (None, true) => self.initiate(context, new, None, Wish::Again),
                (Some((_, None)) | None, _) | (Some((_, Some(_))), false) => {
                    self.not_again(old, request.map(|request| request.child));
                }
            }
        }
    }

    /// Ends the attempts at an IKE SA of a connection without a word to those who wait. Gives what was asked for; `None` = the IKE SA alone.
    pub(super) fn give_up_attempts(
        &mut self,
        context: &Context<'_>,
        connection: &Connection,
        which: impl Fn(&IkeSa) -> bool,
        cause: &Cause,
    ) -> Vec<Option<ChildRequest>> {
        let attempts = self.ikes.of(&connection.name);
        let attempts = attempts.filter(|(_, ike)| matches!(ike.phase, Phase::Initiating(_)) && which(ike));
        let attempts: Vec<u64> = attempts.map(|(spi, _)| spi).collect();
        let mut asked = Vec::new();
        for spi in attempts {
            self.with_ike(context, spi, |ike, turn| {
                let Phase::Initiating(init) = &mut ike.phase else { return };
                let offered = init.offer.take().map(|offer| offer.release(turn));
                let requests: Vec<ChildRequest> = offered.into_iter().chain(init.requests.drain(..)).collect();
                if requests.is_empty() {
                    asked.push(None);
                }
                asked.extend(requests.into_iter().map(Some));
                ike.withdraw(turn, cause);
            });
        }
        asked
    }

    /// What was asked for cannot be tried again under the new configuration.
    fn not_again(&mut self, old: &Arc<Connection>, child: Option<Arc<Child>>) {
        let cause = changed_or_removed();
        self.shared.notices.push_back(Notice::ChildFailed { connection: old.clone(), child, cause });
    }

    /// What was made under a configuration that means another peer goes once it is up under the present one: each CHILD SA, and the IKE SA with
    /// the last of them.
    pub(super) fn retire_outdated(&mut self, context: &Context<'_>, made_by: &Connection) {
        // What the peer makes below an outdated IKE SA is its own choice; only what comes up under the present one takes a place.
        let Some(current) = self.applied.get(&made_by.name).cloned() else { return };
        if !same_ike_sa(made_by, &current) {
            self.mixed.insert(current.name.clone());
        } else if self.mixed.contains(&current.name) {
            self.retire_all_outdated(context, &current);
        }
    }

    fn retire_all_outdated(&mut self, context: &Context<'_>, current: &Connection) {
        let (mut present, mut outdated, mut mixed) = (None, Vec::new(), false);
        for (spi, ike) in self.ikes.of(&current.name) {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let up = authenticated.children.iter().filter(|child| child.is_up() && !child.is_closing());
            mixed |= up.clone().any(|sa| is_outdated(&sa.config, current));
            let up: Vec<(u32, String)> = up.map(|child| (child.unique_id, child.config.name.clone())).collect();
            if same_ike_sa(&ike.core.connection, current) {
                present.get_or_insert_with(BTreeSet::new).extend(up.into_iter().map(|(_, name)| name));
            } else {
                outdated.push((spi, up));
            }
        }
        // What is still to come up as it was configured before shows itself then.
        if !mixed && outdated.is_empty() {
            self.mixed.remove(&current.name);
        }
        let Some(present) = present else { return };
        let cause = Cause::new(CauseKind::Reload, "replaced after a change of the configuration");
        for (spi, up) in outdated {
            let replaced = |(_, name): &&(u32, String)| present.contains(name) || current.child(name).is_none();
            let gone: Vec<u32> = up.iter().filter(replaced).map(|(unique_id, _)| *unique_id).collect();
            if gone.len() == up.len() {
                self.with_ike(context, spi, |ike, turn| ike.close(turn, cause.clone(), false));
                continue;
            }
            for child in gone {
                self.with_child(context, child, |ike, core, turn| ike.close_child(core, turn, child, cause.clone()));
            }
        }
    }

    /// A child came up. CHILD SAs of it that were made as it was configured before go now that one is there as it is configured today; and
    /// one that was still asked for before it was taken out of the configuration goes at once.
    pub(super) fn retire_outdated_children(&mut self, context: &Context<'_>, connection: &Connection, made: &Child) {
        let Some(current) = self.applied.get(&connection.name).filter(|current| same_ike_sa(connection, current))
        else {
            return;
        };
        if is_outdated(made, current) {
            self.mixed.insert(current.name.clone());
        }
        match current.child(&made.name) {
            Some(_) if !self.mixed.contains(&current.name) => {}
            // It is there as it is wanted, or it is not to be started any more as what it is now.
            Some(child) if same_child_sa(made, child) || (made.start_action.start && !child.start_action.start) => {
                let child = child.clone();
                self.close_children(context, &connection.name, |sa| {
                    sa.name == child.name && !same_child_sa(sa, &child)
                });
            }
            // The one that is wanted is on its way.
            Some(_) => {}
            None if made.start_action.start => {
                self.close_children(context, &connection.name, |sa| sa.name == made.name);
            }
            None => {}
        }
    }

    /// The peer is the same one: what changed changes in place.
    fn update(&mut self, context: &Context<'_>, old: &Arc<Connection>, new: &Arc<Connection>) {
        let mut again = Vec::new();
        for child in &new.children {
            match old.child(&child.name) {
                Some(before) if before == child => self.keep(new, child),
                Some(before) if same_child_sa(before, child) && before.start_action == child.start_action => {
                    self.keep(new, child);
                }
                Some(before) => {
                    self.drop_changed(context, old, before, child);
                    again.push(child.clone());
                }
                None => again.push(child.clone()),
            }
        }
        for child in old.children.iter().filter(|child| new.child(&child.name).is_none()) {
            self.drop_child(context, old, child);
        }
        self.adopt(context, new);
        self.load(context, new, &again);
    }

    /// A child goes on under its new configuration.
    fn keep(&mut self, connection: &Arc<Connection>, child: &Arc<Child>) {
        if let Some(number) = self.keepers.find(&connection.name, &child.name)
            && let Some(keeper) = self.keepers.by_number.get_mut(&number)
        {
            keeper.connection = connection.clone();
            keeper.child = child.clone();
        }
    }

    fn drop_changed(&mut self, context: &Context<'_>, connection: &Connection, before: &Child, after: &Child) {
        self.forget_child(context, connection, before);
        if (&before.local_ts, &before.remote_ts) != (&after.local_ts, &after.remote_ts) {
            self.unguard_child(context, connection, before);
        }
        if !before.start_action.start || after.start_action.start {
            // One that is started again goes when its successor is up.
            return;
        }
        self.withdraw_wishes(context, connection, before, false);
        if !same_child_sa(before, after) {
            self.close_children(context, &connection.name, |sa| sa.name == before.name);
        }
    }

    /// What only its configuration has asked for is not asked of the peer any more. An attempt at an IKE SA that nothing is left of ends. What the
    /// peer was asked for already stays as it is, or goes once it is made if the child is `gone` and was started.
    fn withdraw_wishes(&mut self, context: &Context<'_>, connection: &Connection, child: &Child, gone: bool) {
        let alone = self.waits_for_ike_sa(&connection.name);
        let cause = changed_or_removed();
        let closes = (gone && child.start_action.start).then_some(&cause);
        let spis: Vec<u64> = self.ikes.of(&connection.name).map(|(spi, _)| spi).collect();
        for spi in spis {
            self.with_ike(context, spi, |ike, turn| {
                if ike.withdraw_wish(turn, &child.name, closes) && !alone {
                    ike.close(turn, cause.clone(), false);
                }
            });
        }
    }

    /// IKE SAs of a connection take over its new configuration.
    fn adopt(&mut self, context: &Context<'_>, new: &Arc<Connection>) {
        let spis: Vec<u64> = self.ikes.of(&new.name).map(|(spi, _)| spi).collect();
        for spi in spis {
            self.with_ike(context, spi, |ike, turn| {
                if !same_ike_sa(&ike.core.connection, new) {
                    return;
                }
                let old = std::mem::replace(&mut ike.core.connection, new.clone());
                let lifetimes = (old.rekey_time, old.reauth_time, old.over_time, old.rand_time)
                    != (new.rekey_time, new.reauth_time, new.over_time, new.rand_time);
                if let Phase::Authenticated(authenticated) = &mut ike.phase {
                    liveness::schedule(&ike.core, turn);
                    if lifetimes {
                        auth_lifetime::configured(&mut ike.core, turn);
                        schedule_lifetime(&ike.core, turn);
                        //= RFC 4478 §2: if the policy changes, the responder may send it again
                        if ike.core.authentication.own.is_some() && ike.core.authentication.responder {
                            authenticated.intend(&mut ike.core, turn, Intent::AuthLifetime);
                        }
                    }
                    for child in &mut authenticated.children {
                        if let Some(config) =
                            new.child(&child.config.name).filter(|config| same_child_sa(config, &child.config))
                        {
                            if config.inactivity != child.config.inactivity && !config.inactivity.is_zero() {
                                let at = turn.after(inactivity_step(config.inactivity));
                                turn.deadlines.set(child.timer(ChildTimer::Inactivity), at);
                            }
                            child.config = with_its_script(config, &child.config);
                        }
                    }
                }
            });
        }
    }
}

/// The child is configured, and not as it was made.
fn is_outdated(made: &Child, current: &Connection) -> bool {
    current.child(&made.name).is_some_and(|child| !same_child_sa(made, child))
}

fn changed_or_removed() -> Cause {
    Cause::new(CauseKind::Reload, "its configuration was changed or removed")
}

/// The configuration of a CHILD SA that goes on. Its end is told to the script that was told of its beginning.
fn with_its_script(now: &Arc<Child>, before: &Child) -> Arc<Child> {
    if now.updown == before.updown {
        return now.clone();
    }
    Arc::new(Child { updown: before.updown.clone(), ..(**now).clone() })
}
