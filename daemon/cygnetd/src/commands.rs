//! Commands to the core: handed to the shards they are for, their outcomes put together again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ike_model::{Command, CommandError, CommandId, CommandOutcome};
use ike_sa::{CommandRoute, command_route};
use tokio::sync::oneshot;

use crate::router::{Message, Router};

/// What came of a command.
pub(crate) type Done = Result<CommandOutcome, CommandError>;

/// Commands on their way.
pub(crate) struct Commands {
    router: Arc<Router>,
    next: AtomicU64,
    pending: Mutex<HashMap<CommandId, Pending>>,
}

struct Pending {
    /// Shards that have not answered.
    waiting: u8,
    so_far: Merge,
    to: oneshot::Sender<Done>,
}

impl Commands {
    /// None yet.
    pub(crate) fn new(router: Arc<Router>) -> Self {
        Self { router, next: AtomicU64::new(1), pending: Mutex::default() }
    }

    /// Hands `command` to its shards. Without an answer the daemon is stopping.
    pub(crate) fn submit(&self, command: Command) -> oneshot::Receiver<Done> {
        let id = CommandId(self.next.fetch_add(1, Ordering::Relaxed));
        let (to, done) = oneshot::channel();
        let route = command_route(&command, self.router.shards());
        let waiting = match route {
            CommandRoute::Shard(_) => 1,
            CommandRoute::All => self.router.shards(),
        };
        let pending = Pending { waiting, so_far: Merge::default(), to };
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, pending);
        match route {
            CommandRoute::Shard(shard) => self.router.tell(shard, Message::Command(id, command)),
            CommandRoute::All => self.router.tell_all(|| Message::Command(id, command.clone())),
        }
        done
    }

    /// A shard answers.
    pub(crate) fn reply(&self, id: CommandId, done: Done) {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pending) = all.get_mut(&id) else {
            tracing::error!(command = id.0, "a shard answered a command twice");
            return;
        };
        pending.so_far.add(done);
        pending.waiting = pending.waiting.saturating_sub(1);
        if pending.waiting == 0
            && let Some(pending) = all.remove(&id)
        {
            // Whoever asked may have gone.
            let _ = pending.to.send(pending.so_far.finish());
        }
    }
}

/// Outcomes of several shards: numbers are added up, a real failure counts, "nothing here" counts only when it is so everywhere.
#[derive(Default)]
struct Merge {
    sum: Option<CommandOutcome>,
    failure: Option<CommandError>,
    nothing: Option<CommandError>,
}

impl Merge {
    fn add(&mut self, done: Done) {
        match done {
            Ok(outcome) => {
                let sum = self.sum.get_or_insert_default();
                sum.matches += outcome.matches;
                sum.terminated += outcome.terminated;
            }
            Err(error @ CommandError::NotFound(_)) => self.nothing = Some(error),
            Err(error @ (CommandError::Duplicate(_) | CommandError::Failed(_) | CommandError::Invalid(_))) => {
                self.failure = Some(error);
            }
        }
    }

    fn finish(self) -> Done {
        match (self.failure, self.sum, self.nothing) {
            (Some(failure), _, _) => Err(failure),
            (None, Some(sum), _) => Ok(sum),
            (None, None, Some(nothing)) => Err(nothing),
            (None, None, None) => Ok(CommandOutcome::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ike_model::Selector;
    use ipsec::Shard;

    use super::*;

    fn terminate() -> Command {
        Command::Terminate { selector: Selector { ike: Some("a".into()), ..Selector::default() }, force: false }
    }

    fn ids(router: &Router) -> Vec<CommandId> {
        let shards = (0..router.shards()).map(Shard);
        let messages =
            shards.flat_map(|shard| router.inbox(shard).unwrap().turn(Some(ipsec::Instant::START), true).control);
        messages.filter_map(|message| if let Message::Command(id, _) = message { Some(id) } else { None }).collect()
    }

    #[test]
    fn outcomes_of_all_shards_are_added_up() {
        let router = Arc::new(Router::new(3).unwrap());
        let commands = Commands::new(Arc::clone(&router));
        let mut done = commands.submit(terminate());
        let ids = ids(&router);
        assert_eq!(ids.len(), 3);
        commands.reply(ids[0], Ok(CommandOutcome { matches: 2, terminated: 1 }));
        commands.reply(ids[1], Err(CommandError::NotFound("nothing".into())));
        assert!(done.try_recv().is_err());
        commands.reply(ids[2], Ok(CommandOutcome { matches: 1, terminated: 1 }));
        assert_eq!(done.try_recv().unwrap(), Ok(CommandOutcome { matches: 3, terminated: 2 }));
        commands.reply(ids[2], Ok(CommandOutcome::default()));
    }

    #[test]
    fn nothing_anywhere_is_an_error_and_a_failure_wins() {
        let nothing = || Err(CommandError::NotFound("nothing".into()));
        let mut merge = Merge::default();
        merge.add(nothing());
        merge.add(nothing());
        assert_eq!(merge.finish(), nothing());
        let mut merge = Merge::default();
        merge.add(Ok(CommandOutcome { matches: 1, terminated: 1 }));
        merge.add(Err(CommandError::Invalid("no".into())));
        assert_eq!(merge.finish(), Err(CommandError::Invalid("no".into())));
    }
}
