//! Looking at the daemon, on a thread of its own: the screen and its keys do not wait for a daemon that is slow or gone.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;
use swanctl_compat::watch::Look;

use crate::connect::{self, Client};

/// What came of a look.
#[derive(Debug)]
pub(super) enum Seen {
    /// Children and their SAs.
    Children(Box<Look>),
    /// No daemon, and when that was seen.
    Nothing {
        /// Seconds since the epoch.
        wall: u64,
        /// Why.
        why: String,
    },
}

/// Looks, one after the other.
pub(super) struct Looks(Receiver<Seen>);

/// Between two attempts to reach a daemon that is gone.
const RETRY: Duration = Duration::from_millis(500);

impl Looks {
    /// Begins to look. The thread ends when nobody takes its looks any more, or with the program.
    pub(super) fn start(uri: &str, connection: Option<String>, interval: Duration) -> Self {
        let (to, looks) = mpsc::sync_channel(1);
        let uri = uri.to_owned();
        thread::spawn(move || Looker { uri, connection, interval, began: Instant::now(), to }.run());
        Self(looks)
    }

    /// The next one, if it comes in time.
    pub(super) fn next(&self, limit: Duration) -> Option<Seen> {
        match self.0.recv_timeout(limit) {
            Ok(seen) => Some(seen),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(limit);
                None
            }
        }
    }
}

struct Looker {
    uri: String,
    connection: Option<String>,
    interval: Duration,
    began: Instant,
    to: SyncSender<Seen>,
}

impl Looker {
    fn run(&self) {
        let mut client = None;
        loop {
            let began = Instant::now();
            let (seen, wait) = match self.look(&mut client) {
                Ok(look) => (Seen::Children(Box::new(look)), self.interval),
                Err(error) => {
                    client = None;
                    (Seen::Nothing { wall: wall(), why: error.to_string() }, self.interval.min(RETRY))
                }
            };
            if self.to.send(seen).is_err() {
                return;
            }
            thread::sleep(wait.saturating_sub(began.elapsed()));
        }
    }

    fn look(&self, client: &mut Option<Client>) -> Result<Look, ClientError> {
        let connected = match client.take() {
            Some(connected) => connected,
            None => {
                let mut fresh = connect::connect(&self.uri)?;
                fresh.register("cygnet-child")?;
                fresh.register("list-sa")?;
                fresh
            }
        };
        let client = client.insert(connected);
        let mut filter = Message::new();
        if let Some(connection) = &self.connection {
            filter.set("ike", connection.as_str());
        }
        let mut look = Look::default();
        client.command("cygnet-status", filter.clone(), |event, message| {
            if event == "cygnet-child" {
                look.children.push(message.clone());
            }
            Ok(())
        })?;
        client.command("list-sas", filter, |event, message| {
            if event == "list-sa" {
                look.ike_sas.push(message.clone());
            }
            Ok(())
        })?;
        look.at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        look.wall = wall();
        Ok(look)
    }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
