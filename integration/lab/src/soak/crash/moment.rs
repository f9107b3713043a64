//! The moments at which the daemon is killed: any, and those at which something has just been begun or let out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use lab::random::Random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, Signal, kill_process};

/// Something that somebody outside the daemon notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cue {
    /// Its IKE_AUTH message has left.
    AuthSent,
    /// Its CREATE_CHILD_SA request has left.
    RekeyAsked,
    /// Its CREATE_CHILD_SA response has left.
    RekeyAnswered,
    /// A CREATE_CHILD_SA response, or that of IKE_AUTH, has come in.
    AnswerHeard,
    /// Its INFORMATIONAL request, which deletes something, has left.
    DeleteSent,
    /// It has written into its spool.
    Spooled,
    /// Its database is being written.
    Storing,
    /// It delivers a webhook.
    Delivering,
}

const CUES: [Cue; 8] = [
    Cue::AuthSent,
    Cue::RekeyAsked,
    Cue::RekeyAnswered,
    Cue::AnswerHeard,
    Cue::DeleteSent,
    Cue::Spooled,
    Cue::Storing,
    Cue::Delivering,
];

/// When to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// Whatever it does then.
    Any,
    /// So early that it may not be ready.
    Start,
    /// Right after this, so manyth time.
    After(Cue),
}

impl Moment {
    /// A third of the kills comes at any moment, one in twelve while the daemon starts, the rest after something.
    pub(super) fn draw(random: &mut Random, webhooks: bool) -> Self {
        match random.below(12) {
            0..=3 => Moment::Any,
            4 => Moment::Start,
            _ => {
                let cues = if webhooks { CUES.len() } else { CUES.len() - 1 };
                let choice = usize::try_from(random.below(cues as u64)).unwrap_or(0);
                CUES.get(choice).map_or(Moment::Any, |cue| Moment::After(*cue))
            }
        }
    }

    /// A word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Moment::Any => "any",
            Moment::Start => "start",
            Moment::After(Cue::AuthSent) => "IKE_AUTH sent",
            Moment::After(Cue::RekeyAsked) => "rekey asked",
            Moment::After(Cue::RekeyAnswered) => "rekey answered",
            Moment::After(Cue::AnswerHeard) => "answer heard",
            Moment::After(Cue::DeleteSent) => "DELETE sent",
            Moment::After(Cue::Spooled) => "spool written",
            Moment::After(Cue::Storing) => "database written",
            Moment::After(Cue::Delivering) => "webhook under way",
        }
    }
}

/// Kills a process as soon as something is noticed, on the thread that notices.
#[derive(Default)]
pub(super) struct Trap {
    armed: Mutex<Option<Armed>>,
    sprung: Condvar,
    /// Somebody wants to know of writes to the database, which costs something to see.
    storing: AtomicBool,
}

struct Armed {
    cue: Cue,
    /// So many times it is let pass.
    passes: u64,
    process: Pid,
}

impl Trap {
    /// Waits for the cue, kills the process then, and tells whether that was in time; it is killed in any case.
    pub(super) fn kill_at(&self, process: Pid, cue: Cue, passes: u64, limit: Duration) -> bool {
        let mut armed = self.lock();
        *armed = Some(Armed { cue, passes, process });
        self.storing.store(cue == Cue::Storing, Ordering::Relaxed);
        let (mut armed, _) = self
            .sprung
            .wait_timeout_while(armed, limit, |armed| armed.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        self.storing.store(false, Ordering::Relaxed);
        match armed.take() {
            Some(missed) => {
                kill(missed.process);
                false
            }
            None => true,
        }
    }

    /// Something has happened.
    pub(super) fn notice(&self, cue: Cue) {
        let mut armed = self.lock();
        let Some(waiting) = armed.as_mut().filter(|waiting| waiting.cue == cue) else { return };
        if waiting.passes > 0 {
            waiting.passes -= 1;
            return;
        }
        kill(waiting.process);
        *armed = None;
        self.sprung.notify_all();
    }

    /// Writes to the database are waited for.
    pub(super) fn wants_storing(&self) -> bool {
        self.storing.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The child has not been waited for, so that its number is its own.
fn kill(process: Pid) {
    // One that has ended by itself is found out when it is waited for.
    let _ = kill_process(process, Signal::KILL);
}

/// Watches files being written.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the spool, and the write-ahead log of an SQLite database beside it.
    pub(super) fn start(spool: &Path, database: Option<&Path>, trap: &Arc<Trap>) -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let of_spool = inotify::add_watch(&queue, spool, WatchFlags::MODIFY)?;
        if let Some(directory) = database {
            inotify::add_watch(&queue, directory, WatchFlags::MODIFY)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, trap) = (Arc::clone(&stop), Arc::clone(trap));
        let worker = thread::Builder::new().name("watch".into()).spawn(move || {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            while !flag.load(Ordering::Relaxed) {
                let mut events = inotify::Reader::new(&queue, &mut buffer);
                while let Ok(event) = events.next() {
                    let name = event.file_name().map(|name| name.to_bytes()).unwrap_or_default();
                    if event.wd() == of_spool && name.ends_with(b".spool") {
                        trap.notice(Cue::Spooled);
                    } else if name.ends_with(b"-wal") {
                        trap.notice(Cue::Storing);
                    }
                }
                let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                // An interruption only looks once more.
                let _ = poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&limit));
            }
        })?;
        Ok(Self { stop, worker: Some(worker) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
