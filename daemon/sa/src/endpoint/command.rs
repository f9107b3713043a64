//! Commands, and who waits for what they lead to.

use std::collections::BTreeSet;

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, ChildMode, Command, CommandError, CommandId, CommandOutcome, Selector};

use crate::directory::Wish;
use crate::endpoint::Endpoint;
use crate::established::{Intent, Standing};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output};

/// A command that is not done yet.
#[derive(Debug)]
pub(super) enum Watch {
    /// Until a child, or the IKE SA alone, is up or has failed.
    Up {
        /// The command.
        id: CommandId,
        /// Connection.
        connection: String,
        /// Child.
        child: Option<String>,
    },
    /// Until SAs are gone.
    Gone {
        /// The command.
        id: CommandId,
        /// IKE SAs that are still there.
        ikes: BTreeSet<u32>,
        /// CHILD SAs that are still there.
        children: BTreeSet<u32>,
        /// SAs that were there.
        matches: u32,
    },
}

/// Commands that wait at most. One whose client has gone waits on, with `keyingtries = 0` for ever.
const WATCHES: usize = 4096;

impl Endpoint {
    pub(super) fn on_command(&mut self, context: &Context<'_>, id: CommandId, command: Command) {
        let waits = matches!(command, Command::Initiate { .. } | Command::Terminate { .. });
        if waits && self.watches.len() >= WATCHES {
            let text = format!("{WATCHES} commands wait already; try again when some of them are done");
            return self.reply(id, Err(CommandError::Failed(Cause::new(CauseKind::Internal, text))));
        }
        match command {
            Command::Initiate { connection, child } => self.initiate_command(context, id, connection, child),
            Command::Terminate { selector, force } => self.terminate(context, id, &selector, force),
            Command::Rekey { selector } => self.rekey(context, id, &selector),
            Command::Reauthenticate { selector } => self.reauthenticate_command(context, id, &selector),
            Command::Install { connection, child } => {
                let result = self.install_command(context, &connection, &child);
                self.reply(id, result);
            }
            Command::Uninstall { connection, child } => {
                let result = self.uninstall_command(context, &connection, &child);
                self.reply(id, result);
            }
            Command::Reload { changed, removed } => {
                self.reload(context, &changed, &removed);
                self.reply(id, Ok(CommandOutcome::default()));
            }
            Command::Shutdown => self.shutdown(context, id),
        }
    }

    pub(super) fn reply(&mut self, id: CommandId, result: Result<CommandOutcome, CommandError>) {
        self.shared.outputs.push_back(Output::Reply(id, result));
    }

    fn initiate_command(&mut self, context: &Context<'_>, id: CommandId, connection: String, child: Option<String>) {
        let Some(found) = context.config.connections.get(&connection).cloned() else {
            return self.reply(id, Err(CommandError::NotFound(format!("connection '{connection}' is not loaded"))));
        };
        let request = match &child {
            None => None,
            Some(name) => match found.child(name) {
                Some(child) => Some(child.clone()),
                None => {
                    let text = format!("connection '{connection}' has no child '{name}'");
                    return self.reply(id, Err(CommandError::NotFound(text)));
                }
            },
        };
        if request.as_ref().is_some_and(|child| matches!(child.mode, ChildMode::Pass | ChildMode::Drop)) {
            let text = format!("'{}' is a shunt: it is installed, not initiated", child.unwrap_or_default());
            return self.reply(id, Err(CommandError::Invalid(text)));
        }
        if let Some(child) = &child {
            self.forgive(&connection, child);
        }
        self.watches.push(Watch::Up { id, connection, child });
        self.initiate(context, &found, request, Wish::Command(id));
    }

    /// Whether a command waits for an IKE SA of a connection, whatever becomes of its children.
    pub(super) fn waits_for_ike_sa(&self, name: &str) -> bool {
        self.watches.iter().any(|watch| match watch {
            Watch::Up { connection, child: None, .. } => connection == name,
            Watch::Up { child: Some(_), .. } | Watch::Gone { .. } => false,
        })
    }

    /// An SA that commands wait for is up.
    pub(super) fn watch_up(&mut self, connection: &str, child: Option<&str>) {
        self.finish_up(connection, child, |id| Output::Reply(id, Ok(CommandOutcome { matches: 1, terminated: 0 })));
    }

    /// What a command asks for is up already: it changes nothing, and says so.
    pub(super) fn watch_vain(&mut self, command: Option<CommandId>, child: &str) {
        let outputs = &mut self.shared.outputs;
        self.watches.retain(|watch| match watch {
            Watch::Up { id, .. } if command == Some(*id) => {
                let there = CommandError::Duplicate(format!("'{child}' is up already"));
                outputs.push_back(Output::Reply(*id, Err(there)));
                false
            }
            Watch::Up { .. } | Watch::Gone { .. } => true,
        });
    }

    /// An SA that commands wait for does not come up.
    pub(super) fn watch_failed(&mut self, connection: &str, child: Option<&str>, cause: &Cause) {
        self.finish_up(connection, child, |id| Output::Reply(id, Err(CommandError::Failed(cause.clone()))));
    }

    fn finish_up(&mut self, name: &str, wanted: Option<&str>, reply: impl Fn(CommandId) -> Output) {
        let outputs = &mut self.shared.outputs;
        self.watches.retain(|watch| match watch {
            Watch::Up { id, connection, child } if connection == name && child.as_deref() == wanted => {
                outputs.push_back(reply(*id));
                false
            }
            Watch::Up { .. } | Watch::Gone { .. } => true,
        });
    }

    /// A CHILD SA that commands wait for is gone.
    pub(super) fn watch_child_gone(&mut self, unique_id: u32) {
        self.note_gone(|_, children| {
            children.remove(&unique_id);
        });
    }

    /// An IKE SA that commands wait for is gone.
    pub(super) fn watch_ike_gone(&mut self, unique_id: u32) {
        self.note_gone(|ikes, _| {
            ikes.remove(&unique_id);
        });
    }

    /// An IKE SA that commands wait for was rekeyed: they wait for its successor.
    pub(super) fn watch_rekeyed(&mut self, old: u32, new: Option<u32>) {
        self.note_gone(|ikes, _| {
            if ikes.contains(&old) {
                ikes.extend(new);
            }
        });
    }

    /// Nothing more is to come of SAs that are gone.
    pub(super) fn watch_told(&mut self) {
        if self.stopping && self.shared.registry.farewells.is_over() {
            self.note_gone(|_, _| {});
        }
    }

    fn note_gone(&mut self, change: impl Fn(&mut BTreeSet<u32>, &mut BTreeSet<u32>)) {
        // The end of the daemon waits until everything is told.
        let told = !self.stopping || self.shared.registry.farewells.is_over();
        let outputs = &mut self.shared.outputs;
        self.watches.retain_mut(|watch| match watch {
            Watch::Gone { id, ikes, children, matches } => {
                change(ikes, children);
                let done = told && ikes.is_empty() && children.is_empty();
                if done {
                    let outcome = CommandOutcome { matches: *matches, terminated: *matches };
                    outputs.push_back(Output::Reply(*id, Ok(outcome)));
                }
                !done
            }
            Watch::Up { .. } => true,
        });
    }

    fn await_gone(&mut self, id: CommandId, ikes: BTreeSet<u32>, children: BTreeSet<u32>) {
        let matches = u32::try_from(ikes.len() + children.len()).unwrap_or(u32::MAX);
        self.watches.push(Watch::Gone { id, ikes, children, matches });
    }

    fn terminate(&mut self, context: &Context<'_>, id: CommandId, selector: &Selector, force: bool) {
        self.unwant(selector);
        let cause = Cause::new(CauseKind::Operator, "terminated by command");
        if selector.child.is_some() || selector.child_id.is_some() {
            let found = self.matching_children(selector);
            self.await_gone(id, BTreeSet::new(), found.iter().map(|(_, child)| *child).collect());
            for (_, child) in found {
                let cause = cause.clone();
                self.with_child(context, child, |ike, core, turn| {
                    ike.close_child(core, turn, child, cause.clone());
                    if force {
                        ike.remove_child(core, turn, child, Some(&cause));
                    }
                });
            }
        } else {
            let found: Vec<(u64, u32)> = self
                .ikes
                .iter()
                .filter(|(_, ike)| matches_ike(selector, ike))
                .map(|(spi, ike)| (*spi, ike.core.unique_id))
                .collect();
            self.await_gone(id, found.iter().map(|(_, unique_id)| *unique_id).collect(), BTreeSet::new());
            for (spi, _) in found {
                self.give_up_successor(context, spi, &cause);
                let cause = cause.clone();
                self.with_ike(context, spi, |ike, turn| ike.close(turn, cause, force));
            }
        }
        // Nothing matched: done at once.
        self.note_gone(|_, _| {});
    }

    /// CHILD SAs that commands are about: not those that have a successor, nor those that lost a collision, which whoever made them deletes.
    fn matching_children(&self, selector: &Selector) -> Vec<(u64, u32)> {
        let mut found = Vec::new();
        for (spi, ike) in self.ikes.iter().filter(|(_, ike)| matches_ike(selector, ike)) {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let named = authenticated.children.iter().filter(|child| {
                selector.child.as_ref().is_none_or(|name| *name == child.config.name)
                    && selector.child_id.is_none_or(|id| id == child.unique_id)
                    && !matches!(child.state, ChildSaState::Deleted | ChildSaState::Rekeyed)
                    && !child.redundant
            });
            found.extend(named.map(|child| (*spi, child.unique_id)));
        }
        found
    }

    fn rekey(&mut self, context: &Context<'_>, id: CommandId, selector: &Selector) {
        let mut matches = 0_u32;
        if selector.child.is_some() || selector.child_id.is_some() {
            for (_, child) in self.matching_children(selector) {
                matches = matches.saturating_add(1);
                self.with_child(context, child, |ike, core, turn| ike.rekey_child(core, turn, child));
            }
        } else {
            let live = |ike: &IkeSa| matches!(&ike.phase, Phase::Authenticated(a) if a.standing == Standing::Up);
            let found = self.ikes.iter().filter(|(_, ike)| matches_ike(selector, ike) && live(ike));
            for spi in found.map(|(spi, _)| *spi).collect::<Vec<_>>() {
                matches = matches.saturating_add(1);
                self.with_ike(context, spi, |ike, turn| {
                    ike.with_authenticated(turn, |ike, core, turn| ike.intend(core, turn, Intent::RekeyIke));
                });
            }
        }
        self.reply(id, Ok(CommandOutcome { matches, terminated: 0 }));
    }

    fn shutdown(&mut self, context: &Context<'_>, id: CommandId) {
        // Whoever says it twice does not wait for peers any more.
        let at_once = std::mem::replace(&mut self.stopping, true);
        self.unwant(&Selector::default());
        let found: Vec<(u64, u32)> = self.ikes.iter().map(|(spi, ike)| (*spi, ike.core.unique_id)).collect();
        self.await_gone(id, found.iter().map(|(_, unique_id)| *unique_id).collect(), BTreeSet::new());
        for (spi, _) in found {
            let cause = Cause::new(CauseKind::Shutdown, "the daemon stops");
            self.with_ike(context, spi, |ike, turn| ike.close(turn, cause, at_once));
        }
        self.note_gone(|_, _| {});
    }
}

pub(super) fn matches_ike(selector: &Selector, ike: &IkeSa) -> bool {
    selector.ike.as_ref().is_none_or(|name| *name == ike.core.connection.name)
        && selector.ike_id.is_none_or(|id| id == ike.core.unique_id)
}
