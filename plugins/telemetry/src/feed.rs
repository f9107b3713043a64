//! Events on their way to whoever watches: nobody waits for a slow reader, who loses events and is told how many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ike_model::{EventRecord, Ulid};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::ledger::Ledger;

/// Events that a reader may be behind by.
const BEHIND: usize = 1024;
/// Readers at the same time.
const READERS: usize = 32;
/// Events that are kept for a reader who was interrupted.
const RECENT: usize = 512;
/// How long after the last reader has gone.
const RECENT_TIME: Duration = Duration::from_secs(60);

/// Where the daemon delivers its events.
#[derive(Debug)]
pub struct Feed {
    inner: Mutex<Inner>,
    lost: Arc<AtomicU64>,
    ledger: Ledger,
}

#[derive(Debug)]
struct Inner {
    /// Gone once the server stops.
    sender: Option<broadcast::Sender<Arc<News>>>,
    recent: VecDeque<Arc<News>>,
    /// When somebody last read.
    read: Option<Instant>,
}

impl Default for Feed {
    fn default() -> Self {
        let inner = Inner { sender: Some(broadcast::channel(BEHIND).0), recent: VecDeque::new(), read: None };
        Self { inner: Mutex::new(inner), lost: Arc::default(), ledger: Ledger::default() }
    }
}

/// One event, ready to be sent to many.
#[derive(Debug)]
pub struct News {
    /// Its number within this run.
    pub seq: u64,
    /// Its ULID.
    pub ulid: String,
    /// Its name.
    pub event: &'static str,
    /// The record, JSON.
    pub record: String,
}

/// What a reader missed between two subscriptions.
#[derive(Debug, Default)]
pub struct Missed {
    /// What is still here of it, in the order it came.
    pub news: Vec<Arc<News>>,
    /// That is all.
    pub complete: bool,
}

impl Feed {
    /// One more event. Never waits; nothing is put in writing while nobody has read for a while.
    pub fn deliver(&self, record: &EventRecord) {
        self.ledger.note(record);
        let mut inner = self.inner();
        let Some(readers) = inner.sender.as_ref().map(broadcast::Sender::receiver_count) else { return };
        if readers > 0 {
            inner.read = Some(Instant::now());
        } else if inner.read.is_none_or(|read| read.elapsed() > RECENT_TIME) {
            inner.recent = VecDeque::new();
            return;
        }
        let Ok(json) = serde_json::to_string(record) else { return };
        let news = News { seq: record.seq, ulid: record.ulid.to_string(), event: record.body.name(), record: json };
        inner.push(Arc::new(news));
    }

    /// A reader of all events from now on; `None` when there are too many readers, or no more events.
    pub fn subscribe(&self) -> Option<Subscription> {
        self.subscribe_after(None).map(|(subscription, _)| subscription)
    }

    /// The same for a reader who had everything up to an event; with what came after it and is still here.
    pub fn subscribe_after(&self, after: Option<Ulid>) -> Option<(Subscription, Missed)> {
        let mut inner = self.inner();
        let sender = inner.sender.as_ref().filter(|sender| sender.receiver_count() < READERS)?;
        let subscription = Subscription { receiver: sender.subscribe(), lost: Arc::clone(&self.lost) };
        inner.read = Some(Instant::now());
        let Some(after) = after.map(|ulid| ulid.to_string()) else {
            return Some((subscription, Missed { news: Vec::new(), complete: true }));
        };
        let complete = inner.recent.iter().any(|news| news.ulid == after);
        let news = inner.recent.iter().filter(|news| news.ulid > after).cloned().collect();
        Some((subscription, Missed { news, complete }))
    }

    /// How many read, and how many events all readers together have lost.
    pub fn readers(&self) -> (usize, u64) {
        let readers = self.inner().sender.as_ref().map_or(0, broadcast::Sender::receiver_count);
        (readers, self.lost.load(Ordering::Relaxed))
    }

    /// What the events add up to.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        self.inner().sender = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, news: Arc<News>) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&news));
        if let Some(sender) = &self.sender {
            // The last reader may have gone meanwhile.
            let _ = sender.send(news);
        }
    }
}

/// A reader.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Arc<News>>,
    lost: Arc<AtomicU64>,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Next {
    /// An event.
    News(Arc<News>),
    /// So many events were missed by being slow.
    Lost(u64),
}

impl Subscription {
    /// What comes next; `None` when the server stops.
    pub async fn next(&mut self) -> Option<Next> {
        match self.receiver.recv().await {
            Ok(news) => Some(Next::News(news)),
            Err(RecvError::Lagged(events)) => {
                self.lost.fetch_add(events, Ordering::Relaxed);
                Some(Next::Lost(events))
            }
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::loaded;

    #[tokio::test]
    async fn a_slow_reader_loses_events_and_learns_how_many() {
        let feed = Feed::default();
        feed.deliver(&loaded(1, "before anybody reads"));
        let mut reader = feed.subscribe().unwrap();
        let events = BEHIND as u64 + 10;
        for seq in 2..2 + events {
            feed.deliver(&loaded(seq, "a"));
        }
        assert!(matches!(reader.next().await, Some(Next::Lost(10))));
        let Some(Next::News(news)) = reader.next().await else { panic!() };
        assert_eq!((news.seq, news.event), (12, "config.loaded"));
        assert!(news.record.contains(r#""seq":12,"#), "{}", news.record);
        assert_eq!(feed.readers(), (1, 10));
        feed.close();
        while reader.next().await.is_some() {}
        assert!(feed.subscribe().is_none());
    }

    #[test]
    fn who_was_interrupted_gets_what_came_meanwhile() {
        let feed = Feed::default();
        feed.deliver(&loaded(1, "before anybody reads"));
        let reader = feed.subscribe().unwrap();
        (2..5).for_each(|seq| feed.deliver(&loaded(seq, "a")));
        drop(reader);
        feed.deliver(&loaded(5, "while nobody reads"));
        let missed = |seq: u64| {
            let (_, missed) = feed.subscribe_after(Some(loaded(seq, "").ulid)).unwrap();
            (missed.news.iter().map(|news| news.seq).collect::<Vec<_>>(), missed.complete)
        };
        assert_eq!(missed(3), (vec![4, 5], true));
        assert_eq!(missed(5), (vec![], true));
        assert_eq!(missed(1), (vec![2, 3, 4, 5], false), "what was before is not known here");
        (6..6 + RECENT as u64).for_each(|seq| feed.deliver(&loaded(seq, "many")));
        let (news, complete) = missed(3);
        assert_eq!((news.len(), complete), (RECENT, false));
    }

    #[test]
    fn readers_are_bounded() {
        let feed = Feed::default();
        let readers: Vec<_> = (0..READERS).map(|_| feed.subscribe().unwrap()).collect();
        assert!(feed.subscribe().is_none());
        drop(readers);
        assert!(feed.subscribe().is_some());
    }
}
