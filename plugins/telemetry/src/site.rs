//! What all requests share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::feed::Feed;
use crate::view::{Daemon, View};

/// How old a view may be that is shown again.
const FRESH: Duration = Duration::from_secs(1);

/// How the server behaves.
#[derive(Clone, Default)]
pub struct Options {
    /// Who shows it may change things. Without a token nobody may.
    pub token: Option<Zeroizing<String>>,
    /// Names besides addresses, `localhost` and the gateway's own by which browsers may call the server.
    pub hosts: Vec<String>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "[redacted]");
        f.debug_struct("Options").field("token", &token).field("hosts", &self.hosts).finish()
    }
}

/// What a request can be answered from.
#[derive(Clone)]
pub struct Site {
    /// The daemon.
    pub daemon: Arc<dyn Daemon>,
    /// Its events.
    pub feed: Arc<Feed>,
    /// Settings.
    pub options: Arc<Options>,
    last: Arc<Mutex<Option<Taken>>>,
}

type Taken = (Instant, Arc<View>);

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Site {
    /// Of one daemon.
    pub fn new(daemon: Arc<dyn Daemon>, feed: Arc<Feed>, options: Options) -> Self {
        Self { daemon, feed, options: Arc::new(options), last: Arc::default() }
    }

    /// The daemon's state, at most a second old, and none of before its configuration was loaded. Whoever asks while it is being taken waits for
    /// the same one: the daemon is not asked more often because many ask.
    pub async fn view(&self) -> Arc<View> {
        let mut last = self.last.lock().await;
        if let Some((_, view)) = last.as_ref().filter(|(taken, view)| view.loaded && taken.elapsed() < FRESH) {
            return Arc::clone(view);
        }
        let view = Arc::new(self.daemon.view().await);
        self.feed.ledger().look(&view);
        *last = Some((Instant::now(), Arc::clone(&view)));
        view
    }
}
