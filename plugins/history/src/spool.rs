//! The append-only spool: what happened, on disk before it can be seen outside.
//!
//! A directory of segments, each a file of frames: length, checksum, kind, octets. Frames are written with one write(2) each time, so they survive
//! the end of the process; power loss only with `fsync`. A run never writes into a segment of an earlier one, whose last frame may be torn: the
//! reader stops at the first frame that does not hold, and goes on with the next segment. Segments are deleted when all of them has been
//! taken over; the next one is made beforehand, its room on the disk reserved. What is read twice, because the position was not yet noted down, is
//! recognised by its run and number further on.

mod frame;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use frame::{Entry, Kind};
pub use reader::{Position, Reader};
pub use writer::Spool;

use ike_model::Rfc3339;
use rustix::fs::FlockOperation;
use thiserror::Error;
use tokio::sync::Notify;

/// How long the lock of a run that is ending is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Octets that are read of what the owner of a lock has written down.
const OWNER_MAX: u64 = 256;

/// How a spool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory; nobody else's.
    pub directory: PathBuf,
    /// Octets that the segments may take together.
    pub size: u64,
    /// Have each write reach the disk before it counts.
    pub fsync: bool,
}

/// Why a spool cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it: which and since when, where that is known.
    #[error(
        "the spool {0} is in use by another process{1}: give this one another `history.spool`, and a `gateway.name` of its own"
    )]
    InUse(PathBuf, String),
    /// The file system refused.
    #[error("the spool {0} cannot be used: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Opens a spool: the end to write to and the end to read from, which begins where the last reader stopped.
///
/// # Errors
/// The directory cannot be made or written, or somebody else has it.
pub fn open(options: &Options) -> Result<(Spool, Reader), OpenError> {
    let directory = &options.directory;
    let failed = |error| OpenError::Io(directory.clone(), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let lock = private().create(true).truncate(false).write(true).read(true).open(directory.join("lock"));
    let mut lock = lock.map_err(failed)?;
    if !take(&lock).map_err(failed)? {
        return Err(OpenError::InUse(directory.clone(), owner(&mut lock)));
    }
    // What cannot be written on a full disk is missed by nobody but who is told of us.
    let _ = sign(&mut lock);
    let segments = segments(directory).map_err(failed)?;
    let used = segments.iter().map(|(_, length)| length).sum();
    let noted = reader::noted(directory);
    let last = segments.last().map(|(number, _)| *number).max(noted.map(|noted| noted.segment));
    let number = last.map_or(1, |last| last + 1);
    let oldest = Position { segment: segments.first().map_or(number, |(oldest, _)| *oldest), offset: 0 };
    let begin = noted.unwrap_or_default().max(oldest);
    let waiting = reader::count(directory, begin).map_err(failed)?;
    let shared = Arc::new(Shared {
        directory: directory.clone(),
        used: Mutex::new(used),
        written: Mutex::new(Written { end: Position { segment: number, offset: 0 }, waiting }),
        taken_over: Mutex::new(begin),
        more: Notify::new(),
        _lock: Lock(lock),
    });
    let spool = Spool::begin(options, Arc::clone(&shared), number);
    Ok((spool, Reader::begin(shared, begin)))
}

/// What both ends see.
#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Octets of all segments.
    used: Mutex<u64>,
    written: Mutex<Written>,
    /// Everything before has been taken over.
    taken_over: Mutex<Position>,
    /// More has been written.
    more: Notify,
    /// Locked as long as either end lives.
    _lock: Lock,
}

/// The file of a lock that is ours. It is given up here: a process that is being forked in this moment has the file as well, and would keep it
/// locked until it runs its own program.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::debug!(%error, "the spool stays locked as long as somebody has its file");
        }
    }
}

#[derive(Debug)]
struct Written {
    /// Up to here everything is written.
    end: Position,
    /// Frames that are not yet taken over.
    waiting: u64,
}

/// Locks the spool; `false` where somebody else keeps it.
///
/// A process that is killed while it forks leaves its locks to the child until that one runs its own program: what a run that has just ended seems
/// to hold is waited for.
fn take(lock: &File) -> io::Result<bool> {
    let patience = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(PATIENCE / 100),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes down whose the lock is.
fn sign(lock: &mut File) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Rfc3339(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{} on {host} since {now}", std::process::id())
}

/// What its owner has written down.
fn owner(lock: &mut File) -> String {
    let mut octets = Vec::new();
    match lock.take(OWNER_MAX).read_to_end(&mut octets) {
        Ok(0) | Err(_) => String::new(),
        Ok(_) => format!(", {}", String::from_utf8_lossy(&octets).trim_end()),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.spool"))
}

/// Numbers and lengths of all segments, in order.
fn segments(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".spool")).and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
