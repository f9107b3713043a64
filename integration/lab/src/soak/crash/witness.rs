//! Event records as clients of the daemon got them, until the moment of its death.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use lab::peer::{Daemon, Vici};

/// Identifier and text of each record.
pub(super) type Records = Vec<(String, String)>;

/// A client that takes down what it is told.
pub(super) struct Witness {
    records: Arc<Mutex<Records>>,
    listening: Vec<JoinHandle<()>>,
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { records: Arc::default(), listening: Vec::new() }
    }

    /// Listens to a run of the daemon, from now to its end. One that is killed before that is not listened to.
    pub(super) fn listen(&mut self, daemon: &Daemon<'_>) {
        let Ok(mut vici) = daemon.vici() else { return };
        let records = Arc::clone(&self.records);
        let listen = move || {
            if vici.register("cygnet-event").is_ok() {
                take_down(&mut vici, &records);
            }
        };
        self.listening.extend(thread::Builder::new().name("witness".into()).spawn(listen));
    }

    /// Waits for the ends of all runs, and gives what was told.
    pub(super) fn finish(self) -> Records {
        for listening in self.listening {
            // What it had taken down before it panicked counts.
            let _ = listening.join();
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn take_down(vici: &mut Vici, records: &Mutex<Records>) {
    while let Ok((_, event)) = vici.event() {
        if let Some(record) = event.get_str("ulid").zip(event.get_str("record")) {
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            records.push((record.0.to_owned(), record.1.to_owned()));
        }
    }
}
