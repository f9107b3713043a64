//! Scripts that are told when CHILD SAs come up and go (`updown` of swanctl.conf).
//!
//! ```text
//!  shards ─► events ─► [Sink] ─► runner (a thread) ══ socket pair ══► helper (a process) ─► /bin/sh -c SCRIPT
//!                                  │  ▲ order, limits      lines, ends                      in a clean environment
//!              updown.failed, log ◄┘  └────────────────────────────────
//! ```
//!
//! The daemon never runs a script itself. A process that it starts first of all, before there is another thread and before privileges are
//! given up, does so: [`helper`]. It is our own program started anew (`/proc/self/exe`), not a mere fork: so nothing of the daemon's memory is in
//! it, and it can be started again from among our threads when somebody has killed it, unless we have given up the privileges that it had. [`protocol`] is what both speak of.
//!
//! What happens to a CHILD SA never waits for a script: the sink only puts it into a queue. [`queue`] keeps the order, [`runner`] carries it out,
//! [`environment`] is what a script is told.

mod environment;
pub(crate) mod helper;
mod protocol;
mod queue;
mod runner;
mod script;

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use ike_model::{Cause, ChildSaSnapshot, ConfiguredChildStatus, EventBody, EventRecord, IkeSaSnapshot};
use tokio::sync::oneshot;

use crate::events::{EventSink, Hub};
use helper::Helper;
use runner::{Message, Runner};

/// How far scripts may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A script that runs longer is killed.
    pub(crate) time: Duration,
    /// So many run at once.
    pub(crate) at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), at_once: 16 }
    }
}

/// A beginning or an end of a CHILD SA that a script is to be told.
#[derive(Debug)]
struct Told {
    ike: Box<IkeSaSnapshot>,
    child: Box<ChildSaSnapshot>,
    /// Why it has ended; nothing at its beginning.
    cause: Option<Cause>,
}

/// Failures that are remembered. Connections that are no more may be among them: of too many the oldest is forgotten.
const REMEMBERED: usize = 10_000;

/// Why the scripts of children last failed, by connection and child: seconds since the epoch, and the cause.
#[derive(Debug, Default)]
struct Failures(Mutex<HashMap<(String, String), (u64, Cause)>>);

impl Failures {
    fn note(&self, connection: &str, child: &str, failed: Option<(u64, Cause)>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (connection.to_owned(), child.to_owned());
        match failed {
            Some(failed) => all.insert(key, failed),
            None => all.remove(&key),
        };
        if all.len() > REMEMBERED {
            let oldest = all.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
    }
}

/// Scripts and what is known of them.
pub(crate) struct Updown {
    to_runner: Sender<Message>,
    failures: Arc<Failures>,
    /// What the runner is made of, and then the runner.
    runner: Mutex<Stage>,
}

/// What becomes of scripts when the helper has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Successor {
    /// Another one runs them.
    Possible,
    /// None could have its privileges, which are not ours any more.
    Unprivileged,
}

enum Stage {
    Prepared(Helper, Successor, Receiver<Message>),
    Running(JoinHandle<()>),
    Stopped,
}

impl Updown {
    /// Takes what is told from now on; scripts run once it is [started](Self::start).
    pub(crate) fn new(helper: Helper, successor: Successor) -> Self {
        let (to_runner, messages) = mpsc::channel();
        let stage = Stage::Prepared(helper, successor, messages);
        Self { to_runner, failures: Arc::default(), runner: Mutex::new(stage) }
    }

    /// What puts events into the queue.
    pub(crate) fn sink(&self) -> Box<dyn EventSink> {
        Box::new(Sink(self.to_runner.clone()))
    }

    /// Runs scripts. What fails is published in `hub`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(&self, limits: Limits, hub: Arc<Hub>) -> anyhow::Result<()> {
        let mut stage = self.stage();
        if let Stage::Prepared(helper, successor, messages) = std::mem::replace(&mut *stage, Stage::Stopped) {
            let failures = Arc::clone(&self.failures);
            let mut runner = Runner::new(limits, hub, failures, self.to_runner.clone(), helper, successor)
                .context("cannot listen to the helper that runs updown scripts")?;
            let thread = std::thread::Builder::new().name("updown".into());
            *stage = Stage::Running(thread.spawn(move || runner.run(&messages)).context("cannot start a thread")?);
        }
        Ok(())
    }

    /// Waits until every script that has been asked for by now has ended.
    pub(crate) async fn settled(&self) {
        let (to, settled) = oneshot::channel();
        if self.to_runner.send(Message::Settled(to)).is_ok() {
            // A runner that has gone has nothing to wait for.
            let _ = settled.await;
        }
    }

    /// Ends the helper. Scripts that still run are killed; those that had to wait are told as failed.
    pub(crate) fn stop(&self) {
        let stage = std::mem::replace(&mut *self.stage(), Stage::Stopped);
        if let Stage::Running(thread) = stage {
            // It goes on until it has taken this.
            let _ = self.to_runner.send(Message::Stop);
            if thread.join().is_err() {
                tracing::error!("the thread that has updown scripts run ended in a panic");
            }
        }
    }

    /// Adds failed scripts to the state of children, where nothing has gone wrong since.
    pub(crate) fn complete(&self, all: &mut [ConfiguredChildStatus]) {
        let failures = self.failures.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.is_empty() {
            return;
        }
        for status in all {
            let failed = failures.get(&(status.connection.clone(), status.child.clone()));
            let Some(failed) = failed else { continue };
            if status.last_cause.as_ref().is_none_or(|(at, _)| *at <= failed.0) {
                status.last_cause = Some(failed.clone());
            }
        }
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sink(Sender<Message>);

impl EventSink for Sink {
    fn deliver(&self, record: &EventRecord) {
        if let Some(told) = told(&record.body) {
            // Nobody takes it any more when the daemon ends.
            let _ = self.0.send(Message::Told(told));
        }
    }
}

/// What a script is to be told of an event: the same that is `child-updown` for VICI clients.
fn told(body: &EventBody) -> Option<Told> {
    let (ike, child, cause) = match body {
        EventBody::ChildSaInstalled { ike, child } => (ike, child, None),
        EventBody::ChildSaClosed { ike, child, cause } => (ike, child, Some(cause)),
        EventBody::IkeSaEstablished { .. }
        | EventBody::IkeSaRekeyed { .. }
        | EventBody::IkeSaClosed { .. }
        | EventBody::IkeSaAuthFailed { .. }
        | EventBody::IkeSaFailed { .. }
        | EventBody::IkeSaUpdated { .. }
        | EventBody::IkeSaRekeyFailed { .. }
        | EventBody::IkeSaDuplicate { .. }
        | EventBody::ChildSaPrepared { .. }
        | EventBody::ChildSaWithdrawn { .. }
        | EventBody::ChildSaRekeyed { .. }
        | EventBody::ChildSaRemoved { .. }
        | EventBody::ChildSaRekeyFailed { .. }
        | EventBody::ChildSaInstallFailed { .. }
        | EventBody::ChildSaFailed { .. }
        | EventBody::ChildSaSoftExpired { .. }
        | EventBody::ChildSaHardExpired { .. }
        | EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::Degraded { .. }
        | EventBody::Repaired { .. }
        | EventBody::StateLost { .. }
        | EventBody::PeerUnreachable { .. }
        | EventBody::PeerReachable { .. }
        | EventBody::UpdownFailed { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. }
        | EventBody::KeysExported { .. }
        | EventBody::EventsGap { .. } => return None,
    };
    child.updown.as_ref()?;
    Some(Told { ike: ike.clone(), child: child.clone(), cause: cause.cloned() })
}

#[cfg(test)]
mod tests {
    use ike_model::CauseKind;

    use super::*;

    #[test]
    fn not_every_failure_is_remembered_for_ever() {
        let failures = Failures::default();
        let cause = Cause::new(CauseKind::ScriptFailed, "it ended with status 1");
        let more = REMEMBERED as u64 + 5;
        for at in 1..=more {
            failures.note(&format!("c{at}"), "net", Some((at, cause.clone())));
        }
        let all = failures.0.lock().unwrap();
        assert_eq!((all.len(), all.values().map(|(at, _)| *at).min()), (REMEMBERED, Some(6)));
    }
}
