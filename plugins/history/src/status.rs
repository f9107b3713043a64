//! What the keeper is doing, for whoever asks meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ike_model::Rfc3339;
use ike_model::history::{Database, HistoryError};
use tokio::sync::watch;

use crate::keeper::now_ms;
use crate::store::Store;

#[derive(Debug)]
pub(crate) struct Status {
    now: Mutex<Now>,
    /// Counts the occasions on which deliveries may have become due.
    news: watch::Sender<u64>,
    pub(crate) taken_over: AtomicU64,
    pub(crate) left_out: AtomicU64,
    pub(crate) forgotten: AtomicU64,
}

#[derive(Debug)]
struct Now {
    /// The database, once it is open.
    store: Option<Arc<Store>>,
    database: Database,
    last_error: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            now: Mutex::new(Now { store: None, database: Database::Opening, last_error: None }),
            news: watch::Sender::new(0),
            taken_over: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Status {
    /// The database to ask. One that takes nothing may still answer.
    pub(crate) fn store(&self) -> Result<Arc<Store>, HistoryError> {
        let store = self.now().store.clone();
        store.ok_or_else(|| self.trouble().unwrap_or_else(|| HistoryError::Unreachable("it is being opened".into())))
    }

    /// Why the database takes nothing at present.
    pub(crate) fn trouble(&self) -> Option<HistoryError> {
        match &self.now().database {
            Database::Opening | Database::Open => None,
            Database::Away { since_ms, error } => {
                let since = Rfc3339(*since_ms);
                Some(HistoryError::Unreachable(format!("{error} (since {since}; events wait in the spool meanwhile)")))
            }
            Database::TooNew { error } => Some(HistoryError::Unreachable(error.clone())),
        }
    }

    /// What the database does, and what it said last.
    pub(crate) fn database(&self) -> (Database, Option<String>) {
        let now = self.now();
        (now.database.clone(), now.last_error.clone())
    }

    /// The database is there, with its schema up to date; gives the one of before. After trouble, only [`Self::back`] tells that it takes events.
    pub(crate) fn opened(&self, store: &Arc<Store>) -> Option<Arc<Store>> {
        let mut now = self.now();
        let old = now.store.replace(Arc::clone(store));
        if now.database == Database::Opening {
            now.database = Database::Open;
        }
        drop(now);
        self.tell();
        old
    }

    /// The database takes events again.
    pub(crate) fn back(&self) {
        self.now().database = Database::Open;
    }

    /// The database takes nothing now.
    pub(crate) fn away(&self, error: String) {
        let mut now = self.now();
        now.last_error = Some(error.clone());
        let since_ms = match now.database {
            Database::Away { since_ms, .. } => since_ms,
            Database::Opening | Database::Open | Database::TooNew { .. } => now_ms(),
        };
        now.database = Database::Away { since_ms, error };
    }

    /// The database is of a newer release.
    pub(crate) fn too_new(&self, error: String) {
        let mut now = self.now();
        now.last_error = Some(error.clone());
        now.store = None;
        now.database = Database::TooNew { error };
    }

    /// Deliveries may be due that were not.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More of something.
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
