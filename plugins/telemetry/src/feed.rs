//! Events on their way to whoever watches: nobody waits for a slow reader, who loses events and is told how many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ike_model::EventRecord;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Events that a reader may be behind by.
const BEHIND: usize = 1024;
/// Readers at the same time.
const READERS: usize = 32;

/// Where the daemon delivers its events.
#[derive(Debug)]
pub struct Feed {
    /// Gone once the server stops.
    sender: Mutex<Option<broadcast::Sender<Arc<News>>>>,
    lost: Arc<AtomicU64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: Mutex::new(Some(broadcast::channel(BEHIND).0)), lost: Arc::default() }
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

impl Feed {
    /// One more event. Never waits; nothing is put in writing while nobody reads.
    pub fn deliver(&self, record: &EventRecord) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref().filter(|sender| sender.receiver_count() > 0) else { return };
        let Ok(json) = serde_json::to_string(record) else { return };
        let news = News { seq: record.seq, ulid: record.ulid.to_string(), event: record.body.name(), record: json };
        // The last reader may have gone meanwhile.
        let _ = sender.send(Arc::new(news));
    }

    /// A reader of all events from now on; `None` when there are too many readers, or no more events.
    pub fn subscribe(&self) -> Option<Subscription> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref().filter(|sender| sender.receiver_count() < READERS)?;
        Some(Subscription { receiver: sender.subscribe(), lost: Arc::clone(&self.lost) })
    }

    /// How many read, and how many events all readers together have lost.
    pub fn readers(&self) -> (usize, u64) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        (sender.as_ref().map_or(0, broadcast::Sender::receiver_count), self.lost.load(Ordering::Relaxed))
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
    fn readers_are_bounded() {
        let feed = Feed::default();
        let readers: Vec<_> = (0..READERS).map(|_| feed.subscribe().unwrap()).collect();
        assert!(feed.subscribe().is_none());
        drop(readers);
        assert!(feed.subscribe().is_some());
    }
}
