//! The durable past: who was up when, over which SAs, and why it ended.
//!
//! Events go to a [`spool`] before what they describe is released. A thread of its own takes them over into a database, SQLite or PostgreSQL, in
//! batches, each event once: rows of IKE SAs and of every generation of every CHILD SA, the events themselves, and what is to be delivered to
//! webhooks, all in one transaction. A database that is away or full holds up nobody; events wait in the spool meanwhile, as they do for a few
//! seconds while handshakes come in a storm. No table and no record has room for key material.

mod answers;
mod keeper;
pub mod spool;
mod sql;
mod status;
mod store;
mod told;

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod scratch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use ike_model::history::{Answer, HistoryError, Subscription};
use ike_model::{Recorder, Rfc3339};
use tokio::runtime::Handle;
use tokio::sync::watch;

use keeper::Keeper;
use spool::Spool;
pub use store::Retention;
use store::{Location, Store};

/// How much less urgent the database's work is, as of nice(2).
const NICE: i32 = 10;

/// How the past is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `sqlite:///PATH` or `postgres://...`.
    pub url: String,
    /// Name of this gateway, by which several share a PostgreSQL.
    pub gateway: String,
    /// How much is kept.
    pub retention: Retention,
    /// The spool.
    pub spool: spool::Options,
    /// What goes to webhooks.
    pub subscriptions: Vec<Subscription>,
}

/// Why the history cannot be kept at all. A database that is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The URL means nothing.
    #[error("history.url {0}")]
    Url(String),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// No thread.
    #[error("cannot start the history's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Says what is wrong with a URL.
///
/// # Errors
/// What is wrong.
pub fn check_url(url: &str) -> Result<(), String> {
    Location::parse(url).map(|_| ())
}

/// The past, being kept.
#[derive(Debug)]
pub struct History {
    spool: Arc<Spool>,
    keeper: Arc<Keeper>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl History {
    /// Begins a run that is known as `boot_id`.
    ///
    /// # Errors
    /// The URL is wrong or the spool cannot be used.
    pub fn start(options: &Options, boot_id: &str, now: Rfc3339) -> Result<Self, StartError> {
        let location = Location::parse(&options.url).map_err(StartError::Url)?;
        let (spool, reader) = spool::open(&options.spool)?;
        if let Err(error) = spool.boot(&options.gateway, boot_id, now.0) {
            tracing::warn!(%error, "the spool takes no events: no new handshakes are begun until it does");
        }
        let spool = Arc::new(spool);
        let keeper = Arc::new(Keeper::new(location, options, boot_id, Arc::clone(&spool)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = watch::channel(false);
        let working = Arc::clone(&keeper);
        let thread = thread::Builder::new().name("history".into()).spawn(move || {
            step_back();
            runtime.block_on(working.run(reader, stopping));
        })?;
        Ok(Self { spool, keeper, runtime: handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Where events are taken down.
    pub fn recorder(&self) -> Arc<dyn Recorder> {
        Arc::<Spool>::clone(&self.spool)
    }

    /// Ends it: what has been taken down is taken over as far as that goes quickly; the rest waits for the next run.
    pub fn stop(&self) {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the history's thread ended in a panic");
        }
    }

    /// Has the database answer, on the thread that it belongs to.
    fn ask<'a, T, F>(&'a self, question: impl FnOnce(Arc<Store>) -> F + Send + 'a) -> Answer<'a, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HistoryError>> + Send + 'static,
    {
        Box::pin(async move {
            let store = self.keeper.status().store()?;
            let status = self.keeper.status();
            let question = question(store);
            // The limit belongs to the history's own clock: whoever asks may be gone before the answer.
            let answer = async move { tokio::time::timeout(keeper::ANSWER_TIME, question).await };
            match self.runtime.spawn(answer).await {
                Ok(Ok(answer)) => answer.map_err(|error| status.trouble().unwrap_or(error)),
                Ok(Err(_)) => {
                    self.keeper.doubt();
                    let late = format!("no answer within {} s", keeper::ANSWER_TIME.as_secs());
                    Err(status.trouble().unwrap_or(HistoryError::Unreachable(late)))
                }
                Err(_) => Err(HistoryError::Unreachable("the history is stopping".into())),
            }
        })
    }
}

/// Lets negotiations go first where processors are short: events wait in the spool as long as they have to. On Linux this is about the calling
/// thread, and about those that it starts, such as SQLite's.
fn step_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the history's thread keeps its priority");
    }
}
