//! Takes over what is in the spool, whatever the database does meanwhile.

mod lookout;
mod storm;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ike_model::Rfc3339;
use ike_model::history::{KeepingFigures, Recorder as _, Subscription};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use lookout::{Lookout, News};
use storm::{LOOK, Level, Storm};

use crate::Options;
use crate::spool::{Entry, Reader, Spool};
use crate::status::{Status, count};
use crate::store::{Applied, Location, OpenError, Retention, Store, Subscriptions, in_time, is_damage, may_pass};

/// Events in one transaction at most: many, when there is a backlog, and never so many that a delivery waits for long.
const BATCH: usize = 1024;
/// Events of a part of a batch of which something is refused.
const PART: usize = 32;
/// First and longest wait for a database that is away.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A database that has not taken what it was given by then is taken for one that is away, and is opened anew.
const APPLY_TIME: Duration = Duration::from_secs(10);
/// The same for an answer that somebody waits for.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(8);
/// Nobody waits for the connections of a database that was given up.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// How often a spool that the file system refuses is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Damaged files that a run puts out of the way: one more is no accident, and would fill the disk.
const SET_ASIDE: u32 = 3;
/// How long a daemon of the same name that may be about to end is waited for, and how often it is looked meanwhile.
const RIVAL_PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(50));
/// How long forgetting may take.
const FORGET_TIME: Duration = Duration::from_secs(600);
/// Small transactions take one part of the time of a processor in so many and one.
const RESTS: u32 = 9;
/// And nobody waits longer than this for what was just told.
const LONGEST_REST: Duration = Duration::from_millis(200);
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
    boot_id: String,
    retention: Retention,
    subscriptions: Subscriptions,
    spool: Arc<Spool>,
    status: Status,
    /// Somebody waited for an answer in vain.
    doubt: Notify,
    /// Somebody waits for what is in the spool.
    hurry: Notify,
    /// What an earlier run had claimed is due again.
    began: AtomicBool,
    /// How many damaged files were put out of the way.
    set_aside: AtomicU32,
    /// Other daemons that write under our name.
    lookout: Mutex<Lookout>,
}

impl Keeper {
    pub(crate) fn new(location: Location, options: &Options, boot_id: &str, spool: Arc<Spool>) -> Self {
        Self {
            location,
            gateway: options.gateway.clone(),
            boot_id: boot_id.into(),
            retention: options.retention,
            subscriptions: Subscriptions::new(options.subscriptions.clone()),
            spool,
            status: Status::default(),
            doubt: Notify::new(),
            hurry: Notify::new(),
            began: AtomicBool::new(false),
            set_aside: AtomicU32::new(0),
            lookout: Mutex::default(),
        }
    }

    /// What goes to webhooks from now on.
    pub(crate) fn subscribe(&self, subscriptions: Vec<Subscription>) {
        self.subscriptions.set(subscriptions);
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Somebody waited for an answer in vain: look after the database.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Somebody waits for what is in the spool: it is taken over although more comes.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(crate) fn figures(&self) -> KeepingFigures {
        let (spool_used, spool_size) = self.spool.fill();
        let (database, last_error) = self.status.database();
        KeepingFigures {
            engine: self.location.engine().name(),
            spool_used,
            spool_size,
            has_room: self.spool.has_room(),
            waiting: self.spool.waiting(),
            // That the file cannot be read is told where it is read to be taken over.
            oldest_ms: self.spool.oldest().ok().flatten().as_ref().and_then(time_of),
            taken_over: self.status.taken_over.load(Ordering::Relaxed),
            left_out: self.status.left_out.load(Ordering::Relaxed),
            forgotten: self.status.forgotten.load(Ordering::Relaxed),
            database,
            last_error,
            retain_days: self.retention.days,
            retain_rows: self.retention.rows,
            rival: self.lookout().rival().map(ToString::to_string),
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, mut reader: Reader, mut stop: watch::Receiver<bool>) {
        let trying = tokio::spawn(try_again(Arc::clone(&self.spool)));
        self.work(&mut reader, &mut stop).await;
        trying.abort();
    }

    async fn work(&self, reader: &mut Reader, stop: &mut watch::Receiver<bool>) {
        let mut trouble = Trouble::default();
        loop {
            let store = tokio::select! {
                store = self.open(&mut trouble) => store,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Some(store) = store else {
                // Nothing to do; questions are answered by the reason.
                let _ = stop.wait_for(|stop| *stop).await;
                return;
            };
            if !reader.has_more() {
                self.status.back();
                trouble.over(0);
            }
            let error = tokio::select! {
                error = self.feed(&store, reader, &mut trouble) => Some(error),
                _ = stop.wait_for(|stop| *stop) => None,
            };
            // An attempt that was cut off was rolled back, and is made again.
            reader.start_over();
            let Some(error) = error else { return self.farewell(&store, reader).await };
            self.status.away(error.to_string());
            if is_damage(&error) {
                let _ = timeout(CLOSE_TIME, store.close()).await;
                self.set_aside(&error);
            }
            tokio::select! {
                () = trouble.met(&error) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Takes over the rest as far as that goes quickly.
    async fn farewell(&self, store: &Store, reader: &mut Reader) {
        let rest = async {
            let mut trouble = Trouble::default();
            while reader.has_more() && self.take_over(store, reader, &mut trouble).await.is_ok() {}
        };
        if timeout(FAREWELL, rest).await.is_err() {
            tracing::info!(
                "the history database is slow: the rest of the events waits in the spool for the next start"
            );
        }
        let _ = timeout(CLOSE_TIME, store.close()).await;
    }

    /// Nobody can have claimed deliveries before the first look into the database but a rival: what seems so is of a run that ended.
    async fn begin_deliveries(&self, store: &Store) {
        if self.began.load(Ordering::Relaxed) || !store.is_alone() {
            return;
        }
        match store.release_claims().await {
            Ok(_) => self.began.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "deliveries that an earlier run had claimed wait until their claims run out")
            }
        }
    }

    fn lookout(&self) -> MutexGuard<'_, Lookout> {
        self.lookout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first look into a database that was opened. One that has just ended seems to live for a moment.
    async fn look_first(&self, store: &Store) {
        let (patience, step) = RIVAL_PATIENCE;
        let late = Instant::now() + patience;
        while Instant::now() < late && matches!(in_time(ANSWER_TIME, store.rival(&self.boot_id)).await, Ok(Some(_))) {
            sleep(step).await;
        }
        self.look_for_rival(store).await;
    }

    /// Tells once when somebody else writes under our name, and cleans up once nobody does any more.
    async fn look_for_rival(&self, store: &Store) {
        let found = match in_time(ANSWER_TIME, store.rival(&self.boot_id)).await {
            Ok(found) => found,
            Err(error) => return tracing::debug!(%error, "whether another daemon has our name cannot be found out now"),
        };
        let news = self.lookout().look(found, Instant::now());
        let gateway = &self.gateway;
        let told = match news {
            News::None => return,
            News::Rival(rival) => {
                return tracing::warn!(
                    gateway,
                    "another daemon keeps its history under the same name in this database ({rival}): each needs a gateway.name of its own"
                );
            }
            News::Gone(told) => told,
        };
        if told {
            tracing::info!(gateway, "no other daemon keeps its history under the same name any more");
        }
        if let Err(error) = store.bury_others(&self.boot_id, now_ms()).await {
            tracing::debug!(%error, "what the other daemon left open cannot be closed now");
        }
        self.begin_deliveries(store).await;
    }

    /// Opens the database, as often as it takes; `None` when that can never succeed.
    async fn open(&self, trouble: &mut Trouble) -> Option<Arc<Store>> {
        loop {
            match Store::open(&self.location, &self.gateway, self.subscriptions.clone()).await {
                Ok(store) => {
                    self.look_first(&store).await;
                    self.begin_deliveries(&store).await;
                    let store = Arc::new(store);
                    if let Some(old) = self.status.opened(&store) {
                        tokio::spawn(timeout(CLOSE_TIME, async move { old.close().await }));
                    }
                    return Some(store);
                }
                Err(error @ OpenError::TooNew { .. }) => {
                    tracing::error!("the history database was made by a newer release: {error}; no history is kept");
                    self.status.too_new(error.to_string());
                    self.spool.close();
                    return None;
                }
                Err(OpenError::Database(error)) => {
                    self.status.away(error.to_string());
                    if !(is_damage(&error) && self.set_aside(&error)) {
                        trouble.met(&error).await;
                    }
                }
            }
        }
    }

    /// Puts a damaged file out of the way; tells whether that was done.
    fn set_aside(&self, damage: &sqlx::Error) -> bool {
        if self.set_aside.fetch_add(1, Ordering::Relaxed) >= SET_ASIDE {
            return false;
        }
        match self.location.set_aside(now_ms()) {
            Ok(Some(kept)) => {
                let kept = kept.display();
                tracing::error!(error = %damage, "the history database is damaged: it is kept as {kept}, and a new one is begun");
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%error, "the damaged history database cannot be renamed");
                false
            }
        }
    }

    /// Takes over what comes, and forgets what is too old meanwhile, until the database fails. It is opened anew then: it may be another one, or
    /// an empty one.
    async fn feed(&self, store: &Store, reader: &mut Reader, trouble: &mut Trouble) -> sqlx::Error {
        tokio::select! {
            error = self.take_all(store, reader, trouble) => error,
            damage = self.forget(store) => damage,
        }
    }

    async fn take_all(&self, store: &Store, reader: &mut Reader, trouble: &mut Trouble) -> sqlx::Error {
        let mut rested = Instant::now();
        // The last batch was a full one.
        let mut behind = false;
        let mut look_at = Instant::now() + self.lookout().next();
        loop {
            let begun = async {
                sleep_until(rested).await;
                reader.ready().await;
                if !behind {
                    self.let_storm_pass().await;
                }
                Instant::now()
            };
            tokio::select! {
                begun = begun => match self.take_over(store, reader, trouble).await {
                    Ok(events) => {
                        let now = Instant::now();
                        behind = events >= BATCH as u64;
                        rested = if behind { now } else { now + rest(now - begun) };
                        self.status.back();
                        trouble.over(events);
                    }
                    Err(error) => return error,
                },
                () = self.doubt.notified() => {
                    if let Err(error) = in_time(ANSWER_TIME, store.check()).await {
                        return error;
                    }
                }
                () = sleep_until(look_at) => {
                    self.look_for_rival(store).await;
                    look_at = Instant::now() + self.lookout().next();
                }
            }
        }
    }

    /// Waits while events pour in, as long as that may be.
    async fn let_storm_pass(&self) {
        let level = || {
            let (used, size) = self.spool.fill();
            Level { waiting: self.spool.waiting(), used, size, webhooks: !self.subscriptions.now().is_empty() }
        };
        let Some(mut storm) = Storm::seen(level(), Instant::now()) else { return };
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.hurry.notified() => return,
            }
            if !storm.lasts(level(), Instant::now()) {
                return;
            }
        }
    }

    /// Forgets again and again, until it finds the database damaged.
    async fn forget(&self, store: &Store) -> sqlx::Error {
        loop {
            match in_time(FORGET_TIME, store.forget(self.retention, now_ms())).await {
                Ok(0) => {}
                Ok(rows) => {
                    count(&self.status.forgotten, rows);
                    tracing::debug!(rows, "old history was forgotten");
                }
                Err(error) if is_damage(&error) => return error,
                Err(error) => tracing::debug!(%error, "old history cannot be forgotten now"),
            }
            sleep(FORGET_EVERY).await;
        }
    }

    /// Takes over one batch; tells how many events that were.
    async fn take_over(&self, store: &Store, reader: &mut Reader, trouble: &mut Trouble) -> Result<u64, sqlx::Error> {
        let entries = reader.read(BATCH).map_err(sqlx::Error::Io)?;
        let applied = match apply(store, &entries).await {
            Err(error) if !may_pass(&error) => without_refused(store, &entries).await,
            applied => applied,
        };
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => {
                reader.start_over();
                return Err(error);
            }
        };
        if applied.unreadable > 0 {
            tracing::error!(events = applied.unreadable, "events in the spool cannot be understood and are left out");
        }
        trouble.noted(reader.taken_over());
        count(&self.status.taken_over, applied.events);
        count(&self.status.left_out, applied.unreadable + applied.refused);
        if applied.deliveries > 0 {
            self.status.tell();
        }
        Ok(applied.events)
    }
}

/// Has a spool that the file system refused be tried again: while no new handshakes are begun, there may be no event that would.
async fn try_again(spool: Arc<Spool>) {
    loop {
        sleep(RETRY_EVERY).await;
        if spool.is_failing() && spool.try_again() {
            tracing::info!("the spool takes events again");
        }
    }
}

/// Takes over entries in one transaction. Each has its own time: what takes many is not cut off half-way, with some of it taken over and not counted.
async fn apply(store: &Store, entries: &[Entry]) -> Result<Applied, sqlx::Error> {
    in_time(APPLY_TIME, store.apply(entries)).await
}

/// Takes over a batch of which something is refused, without what is: in parts, and only where something is refused again one by one.
async fn without_refused(store: &Store, entries: &[Entry]) -> Result<Applied, sqlx::Error> {
    let mut sum = Applied::default();
    for part in entries.chunks(PART) {
        match apply(store, part).await {
            Err(error) if !may_pass(&error) => sum += one_by_one(store, part).await?,
            applied => sum += applied?,
        }
    }
    Ok(sum)
}

async fn one_by_one(store: &Store, entries: &[Entry]) -> Result<Applied, sqlx::Error> {
    let mut sum = Applied::default();
    for entry in entries.chunks(1) {
        match apply(store, entry).await {
            Err(error) if !may_pass(&error) => {
                sum.refused += 1;
                tracing::error!(%error, "the history database refuses an event, which is left out");
            }
            applied => sum += applied?,
        }
    }
    Ok(sum)
}

/// When what lies in the spool happened.
fn time_of(entry: &Entry) -> Option<u64> {
    #[derive(Deserialize)]
    struct Times {
        time: Option<String>,
        time_ms: Option<u64>,
    }
    let times: Times = serde_json::from_slice(&entry.payload).ok()?;
    times.time_ms.or_else(|| Rfc3339::parse(&times.time?).map(|time| time.0))
}

/// How long to rest after a transaction that took so long, unless there is a backlog. Handshakes and the database want the same processors: what comes
/// quickly is taken over in few large transactions, which cost a small part of what many small ones do.
fn rest(taken: Duration) -> Duration {
    taken.saturating_mul(RESTS).min(LONGEST_REST)
}

/// A database that is away: told once, tried again ever more slowly.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    /// The last position could not be noted down.
    unnoted: bool,
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

    /// A position that is not noted down costs time only: what is read twice is recognised.
    fn noted(&mut self, outcome: io::Result<()>) {
        let was_unnoted = std::mem::replace(&mut self.unnoted, outcome.is_err());
        if let Err(error) = outcome
            && !was_unnoted
        {
            tracing::warn!(%error, "the spool's position cannot be noted down");
        }
    }
}
