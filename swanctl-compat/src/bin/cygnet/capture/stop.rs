//! Ending a capture from outside of its stream: VICI answers one command after the other, so it takes a second connection.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use swanctl_compat::vici::Message;

use crate::connect;
use crate::stdio::say;

/// Exit code of whoever is interrupted twice, as shells have it.
const INTERRUPTED: i32 = 130;

/// The end of a capture, shared by all who may bring it about.
#[derive(Clone)]
pub(super) struct Stop(Arc<Shared>);

struct Shared {
    uri: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The capture's number, once it has begun.
    id: Option<u32>,
    /// Why it ends, once it does.
    reason: Option<&'static str>,
}

impl Stop {
    pub(super) fn new(uri: &str) -> Self {
        Self(Arc::new(Shared { uri: uri.to_owned(), state: Mutex::default() }))
    }

    /// Ends it at the first signal, and this program at the second one.
    pub(super) fn on_signals(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let stop = self.clone();
        thread::spawn(move || {
            for (number, _) in signals.forever().enumerate() {
                if number > 0 {
                    std::process::exit(INTERRUPTED);
                }
                stop.end("signal");
            }
        });
        Ok(())
    }

    /// Ends it after some time.
    pub(super) fn after(&self, time: Duration) {
        let stop = self.clone();
        thread::spawn(move || {
            thread::sleep(time);
            stop.end("duration");
        });
    }

    /// It has begun, and may have been told to end before.
    pub(super) fn is_for(&self, id: u32) {
        let told = {
            let mut state = self.0.lock();
            state.id = Some(id);
            state.reason.is_some()
        };
        if told {
            self.tell(id);
        }
    }

    /// Ends it for this reason, unless it ends already.
    pub(super) fn end(&self, reason: &'static str) {
        let id = {
            let mut state = self.0.lock();
            if state.reason.is_some() {
                return;
            }
            state.reason = Some(reason);
            state.id
        };
        if let Some(id) = id {
            self.tell(id);
        }
    }

    /// It has ended by itself.
    pub(super) fn note(&self, reason: &'static str) {
        self.0.lock().reason.get_or_insert(reason);
    }

    /// Whether it ends by a limit: what comes now is not to be written any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0.lock().reason, Some("packets" | "size" | "reader"))
    }

    /// Why it ended.
    pub(super) fn reason(&self) -> &'static str {
        self.0.lock().reason.unwrap_or("command")
    }

    /// In a thread of its own: whoever reads packets goes on doing so until the daemon has sent the last one.
    fn tell(&self, id: u32) {
        let uri = self.0.uri.clone();
        thread::spawn(move || {
            let mut request = Message::new();
            request.set_display("id", id);
            let told = connect::connect(&uri)
                .and_then(|mut client| client.command("cygnet-capture-stop", request, |_, _| Ok(())));
            if let Err(error) = told {
                // Without its daemon it ends anyway.
                say!("cygnet: the capture was not told to end: {error}");
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
