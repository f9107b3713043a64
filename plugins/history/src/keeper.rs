//! Takes over what is in the spool, whatever the database does meanwhile.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ike_model::history::{HistoryError, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Options;
use crate::spool::{Reader, Spool};
use crate::store::{Location, OpenError, Retention, Store, may_pass};

/// Events in one transaction at most.
const BATCH: usize = 256;
/// First and longest wait for a database that is away.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How often what is too old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How long taking over the rest may hold up the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Wall-clock time.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(crate) struct Keeper {
    location: Location,
    gateway: String,
    retention: Retention,
    subscriptions: Vec<Subscription>,
    spool: Arc<Spool>,
    state: Mutex<Result<Arc<Store>, String>>,
}

impl Keeper {
    pub(crate) fn new(location: Location, options: &Options, spool: Arc<Spool>) -> Self {
        Self {
            location,
            gateway: options.gateway.clone(),
            retention: options.retention,
            subscriptions: options.subscriptions.clone(),
            spool,
            state: Mutex::new(Err("it is being opened".into())),
        }
    }

    /// The database, once it is open.
    pub(crate) fn store(&self) -> Result<Arc<Store>, HistoryError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone().map_err(HistoryError::Unreachable)
    }

    fn now_is(&self, state: Result<Arc<Store>, String>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, mut reader: Reader, mut stop: watch::Receiver<bool>) {
        let mut trouble = Trouble::default();
        let store = tokio::select! {
            store = self.open(&mut trouble) => store,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(store) = store else {
            // Nothing to do; questions are answered by the reason.
            let _ = stop.wait_for(|stop| *stop).await;
            return;
        };
        tokio::select! {
            () = self.feed(&store, &mut reader, &mut trouble) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        // An attempt that was cut off was rolled back, and is made again.
        reader.start_over();
        if timeout(FAREWELL, drain(&store, &mut reader)).await.is_err() {
            tracing::info!(
                "the history database is slow: the rest of the events waits in the spool for the next start"
            );
        }
        store.close().await;
    }

    /// Opens the database, as often as it takes; `None` when that can never succeed.
    async fn open(&self, trouble: &mut Trouble) -> Option<Arc<Store>> {
        loop {
            match Store::open(&self.location, &self.gateway, self.subscriptions.clone()).await {
                Ok(store) => {
                    let store = Arc::new(store);
                    self.now_is(Ok(Arc::clone(&store)));
                    return Some(store);
                }
                Err(error @ OpenError::TooNew { .. }) => {
                    tracing::error!("the history database was made by a newer release: {error}; no history is kept");
                    self.now_is(Err(error.to_string()));
                    self.spool.close();
                    return None;
                }
                Err(OpenError::Database(error)) => {
                    self.now_is(Err(error.to_string()));
                    trouble.met(&error).await;
                }
            }
        }
    }

    /// Takes over batch after batch, and forgets what is too old in between.
    async fn feed(&self, store: &Store, reader: &mut Reader, trouble: &mut Trouble) {
        let mut forget_at = Instant::now();
        loop {
            tokio::select! {
                () = reader.ready() => match take_over(store, reader).await {
                    Ok(events) => trouble.over(events),
                    Err(error) => trouble.met(&error).await,
                },
                () = sleep_until(forget_at) => {
                    match store.forget(self.retention, now_ms()).await {
                        Ok(0) => {}
                        Ok(rows) => tracing::debug!(rows, "old history was forgotten"),
                        Err(error) => tracing::debug!(%error, "old history cannot be forgotten now"),
                    }
                    forget_at = Instant::now() + FORGET_EVERY;
                }
            }
        }
    }
}

/// Takes over one batch; tells how many events that were.
async fn take_over(store: &Store, reader: &mut Reader) -> Result<u64, sqlx::Error> {
    let entries = reader.read(BATCH).map_err(sqlx::Error::Io)?;
    let applied = match store.apply(&entries).await {
        Ok(applied) => applied,
        Err(error) if may_pass(&error) => {
            reader.start_over();
            return Err(error);
        }
        Err(_) => {
            let mut sum = crate::store::Applied::default();
            for entry in entries.chunks(1) {
                match store.apply(entry).await {
                    Ok(applied) => sum.events += applied.events,
                    Err(error) if may_pass(&error) => {
                        reader.start_over();
                        return Err(error);
                    }
                    Err(error) => tracing::error!(%error, "the history database refuses an event, which is left out"),
                }
            }
            sum
        }
    };
    if applied.unreadable > 0 {
        tracing::error!(events = applied.unreadable, "events in the spool cannot be understood and are left out");
    }
    // Read twice, they are recognised.
    if let Err(error) = reader.taken_over() {
        tracing::warn!(%error, "the spool's position cannot be noted down");
    }
    Ok(applied.events)
}

async fn drain(store: &Store, reader: &mut Reader) {
    while reader.has_more() && take_over(store, reader).await.is_ok() {}
}

/// A database that is away: told once, tried again ever more slowly.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
}

impl Trouble {
    async fn met(&mut self, error: &sqlx::Error) {
        if self.failures == 0 {
            tracing::warn!(%error, "the history database takes no events: they wait in the spool");
        }
        let (first, longest) = PATIENCE;
        sleep(first.saturating_mul(1 << self.failures.min(8)).min(longest)).await;
        self.failures = self.failures.saturating_add(1);
    }

    fn over(&mut self, events: u64) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(events, "the history database takes events again");
        }
    }
}
