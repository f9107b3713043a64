//! Changes of the configuration: what is unchanged is not touched, what can change in place does.
//!
//! Only identities, authentication, addresses and proposals need another IKE SA, which is made before the old one goes. Lifetimes, liveness,
//! actions and children change below the IKE SA that is there.

use std::sync::Arc;

use ike_model::config::FailClosed;
use ike_model::{Actions, Cause, CauseKind, Child, ChildMode, Connection};

use crate::endpoint::Endpoint;
use crate::endpoint::configured::is_concrete;
use crate::established::schedule_lifetime;
use crate::exchange::liveness;
use crate::ike_sa::Phase;
use crate::io::Context;
use crate::route::home;
use crate::turn::Purpose;

/// Whether two configurations of a connection mean the same IKE SA.
pub(crate) fn same_peer(a: &Connection, b: &Connection) -> bool {
    (&a.local_addrs, &a.remote_addrs, a.local_port, a.remote_port, &a.proposals, &a.local, &a.remote, a.encap)
        == (&b.local_addrs, &b.remote_addrs, b.local_port, b.remote_port, &b.proposals, &b.local, &b.remote, b.encap)
}

/// Whether a CHILD SA made under one configuration is also one made under the other.
fn same_sa(a: &Child, b: &Child) -> bool {
    (&a.esp_proposals, &a.local_ts, &a.remote_ts, a.mode, a.hw_offload, a.replay_window, a.reqid)
        == (&b.esp_proposals, &b.local_ts, &b.remote_ts, b.mode, b.hw_offload, b.replay_window, b.reqid)
        && (a.priority, a.copy, a.policies) == (b.priority, b.copy, b.policies)
}

impl Endpoint {
    pub(super) fn reload(&mut self, context: &Context<'_>, changed: &[String], removed: &[String]) {
        for name in removed {
            if let Some(old) = self.applied.remove(name) {
                self.unload(context, &old);
            }
        }
        for name in changed {
            let Some(new) = context.config.connections.get(name).cloned() else { continue };
            match self.applied.insert(name.clone(), new.clone()) {
                Some(old) if old == new => {}
                Some(old) if same_peer(&old, &new) => self.update(context, &old, &new),
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
        if !connection.remote_addrs.iter().any(is_concrete) {
            return tracing::warn!(
                conn = connection.name,
                child = child.name,
                "start_action = start needs a peer address; waiting for the peer"
            );
        }
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.wanted = true;
        }
        self.initiate(context, connection, Some(child.clone()), None);
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
        if let Some(number) = self.keepers.find(&connection.name, &child.name) {
            self.remove_trap(context, number);
            self.shared.deadlines.clear(crate::deadline::Timer::Keeper(number));
        }
        self.keepers.forget(&connection.name, &child.name);
        let ops = self.shared.registry.unguard(&format!("{}/{}", connection.name, child.name));
        self.shared.turn(context).apply(ops, Purpose::Remove);
        if child.start_action.start {
            self.close_children(context, &connection.name, &child.name);
        }
    }

    fn close_children(&mut self, context: &Context<'_>, connection: &str, child: &str) {
        let mut found = Vec::new();
        for (_, ike) in self.ikes.of(connection) {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let live = authenticated.children.iter().filter(|sa| sa.is_up() && sa.config.name == child);
            found.extend(live.map(|sa| sa.unique_id));
        }
        for unique_id in found {
            let cause = Cause::new(CauseKind::Reload, "its configuration was changed or removed");
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

    /// The peer is another one now: a new IKE SA is made, and the old one goes when that is up.
    fn replace_connection(&mut self, context: &Context<'_>, old: &Arc<Connection>, new: &Arc<Connection>) {
        for child in &old.children {
            if let Some(number) = self.keepers.find(&old.name, &child.name) {
                self.remove_trap(context, number);
                self.shared.deadlines.clear(crate::deadline::Timer::Keeper(number));
            }
            self.keepers.forget(&old.name, &child.name);
            if new.child(&child.name).is_none() {
                let ops = self.shared.registry.unguard(&format!("{}/{}", old.name, child.name));
                self.shared.turn(context).apply(ops, Purpose::Remove);
                self.close_children(context, &old.name, &child.name);
            }
        }
        let attempts: Vec<u64> = self
            .ikes
            .of(&old.name)
            .filter(|(_, ike)| matches!(ike.phase, Phase::Initiating(_)))
            .map(|(spi, _)| spi)
            .collect();
        let others = self.ikes.of(&old.name).filter(|(_, ike)| !same_peer(&ike.core.connection, new));
        let others = others.map(|(spi, _)| spi).collect();
        self.obsolete.insert(old.name.clone(), others);
        for spi in attempts {
            let cause = Cause::new(CauseKind::Reload, "its configuration was changed");
            self.with_ike(context, spi, |ike, turn| ike.close(turn, cause, false));
        }
        self.load(context, new, &new.children);
    }

    /// The peer is the same one: what changed changes in place.
    fn update(&mut self, context: &Context<'_>, old: &Arc<Connection>, new: &Arc<Connection>) {
        let mut again = Vec::new();
        for child in &new.children {
            match old.child(&child.name) {
                Some(before) if before == child => self.keep(new, child),
                Some(before) if same_sa(before, child) && before.start_action == child.start_action => {
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
        if let Some(number) = self.keepers.find(&connection.name, &before.name) {
            self.remove_trap(context, number);
            self.shared.deadlines.clear(crate::deadline::Timer::Keeper(number));
        }
        self.keepers.forget(&connection.name, &before.name);
        if (&before.local_ts, &before.remote_ts) != (&after.local_ts, &after.remote_ts) {
            let ops = self.shared.registry.unguard(&format!("{}/{}", connection.name, before.name));
            self.shared.turn(context).apply(ops, Purpose::Remove);
        }
        if !same_sa(before, after) && before.start_action.start {
            self.close_children(context, &connection.name, &before.name);
        }
    }

    /// IKE SAs of a connection take over its new configuration.
    fn adopt(&mut self, context: &Context<'_>, new: &Arc<Connection>) {
        let spis: Vec<u64> = self.ikes.of(&new.name).map(|(spi, _)| spi).collect();
        for spi in spis {
            self.with_ike(context, spi, |ike, turn| {
                if !same_peer(&ike.core.connection, new) {
                    return;
                }
                let old = std::mem::replace(&mut ike.core.connection, new.clone());
                let lifetimes = (old.rekey_time, old.reauth_time, old.over_time, old.rand_time)
                    != (new.rekey_time, new.reauth_time, new.over_time, new.rand_time);
                if let Phase::Authenticated(authenticated) = &mut ike.phase {
                    liveness::schedule(&ike.core, turn);
                    if lifetimes {
                        schedule_lifetime(&ike.core, turn);
                    }
                    for child in &mut authenticated.children {
                        if let Some(config) =
                            new.child(&child.config.name).filter(|config| same_sa(config, &child.config))
                        {
                            child.config = config.clone();
                        }
                    }
                }
            });
        }
    }
}
