//! The end to write to.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ike_model::history::NotRecorded;
use ike_model::{EventRecord, Recorder};
use rustix::fs::FallocateFlags;
use serde_json::json;

use super::frame::{self, Kind};
use super::reader::Position;
use super::{Entry, Options, Shared, private, reader, segment_path};

/// Segments a full spool consists of.
const SEGMENTS: u64 = 16;
/// A segment is not longer than this, unless one write is.
const SEGMENT_MAX: u64 = 16 << 20;

/// Takes events down.
#[derive(Debug)]
pub struct Spool {
    size: u64,
    fsync: bool,
    shared: Arc<Shared>,
    current: Mutex<Current>,
    /// The file system refused the last write.
    failing: AtomicBool,
    /// Nobody will ever read it.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Current {
    /// Made with the first write: a full disk does not keep a run from beginning.
    file: Option<File>,
    at: Position,
    buffer: Vec<u8>,
    /// The frame that tells that this run began.
    marker: Vec<u8>,
    /// It is written.
    begun: bool,
}

impl Spool {
    pub(super) fn begin(options: &Options, shared: Arc<Shared>, number: u64) -> Self {
        let at = Position { segment: number, offset: 0 };
        let current = Current { file: None, at, buffer: Vec::new(), marker: Vec::new(), begun: true };
        Self {
            size: options.size,
            fsync: options.fsync,
            shared,
            current: Mutex::new(current),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Notes that a run of the daemon begins: what an earlier one left open was ended by its death. It finds room in a full spool; where the file
    /// system refuses, it goes before the first event that is taken down.
    ///
    /// # Errors
    /// The file system refused.
    pub fn boot(&self, gateway: &str, boot_id: &str, time_ms: u64) -> Result<(), NotRecorded> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let run = json!({
            "gateway": gateway, "boot_id": boot_id, "time_ms": time_ms, "host": host, "pid": std::process::id()
        });
        let mut current = self.current();
        current.marker.clear();
        frame::encode(Kind::Boot, &mut current.marker, |marker| {
            marker.extend_from_slice(run.to_string().as_bytes());
            true
        });
        current.begun = false;
        self.append(&mut current, 0, |_| true)
    }

    /// The file system refused the last write.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Where the last write failed, tries whether there is room again, by telling once more that this run has begun: without new handshakes
    /// nothing else might ever be written. Tells whether there is.
    pub fn try_again(&self) -> bool {
        if !self.is_failing() {
            return true;
        }
        let mut current = self.current();
        current.begun = current.marker.is_empty();
        self.append(&mut current, 0, |_| true).is_ok() && !self.is_failing()
    }

    /// Octets of what is not yet taken over, and how many there may be.
    pub fn fill(&self) -> (u64, u64) {
        (*self.shared.used.lock().unwrap_or_else(PoisonError::into_inner), self.size)
    }

    /// How many events are not yet taken over.
    pub fn waiting(&self) -> u64 {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    /// Up to here everything is written.
    pub fn end(&self) -> Position {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Everything before `end` has been taken over.
    pub fn is_taken_over(&self, end: Position) -> bool {
        *self.shared.taken_over.lock().unwrap_or_else(PoisonError::into_inner) >= end
    }

    /// The first of them. Reads the file.
    ///
    /// # Errors
    /// The file system refused.
    pub fn oldest(&self) -> io::Result<Option<Entry>> {
        let begin = *self.shared.taken_over.lock().unwrap_or_else(PoisonError::into_inner);
        if self.waiting() == 0 { Ok(None) } else { reader::first(&self.shared.directory, begin) }
    }

    /// Nobody will take over anything any more: nothing is written from now on, and nobody is held up by that.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// What is beyond this is kept for SAs that stand.
    fn reserve(&self) -> u64 {
        self.size / 8
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, frames: u64, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<(), NotRecorded> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.append(&mut self.current(), frames, fill)
    }

    fn append(
        &self,
        current: &mut Current,
        frames: u64,
        fill: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Result<(), NotRecorded> {
        current.buffer.clear();
        if !current.begun {
            current.buffer.extend_from_slice(&current.marker);
        }
        let marker = current.buffer.len();
        if !fill(&mut current.buffer) {
            return Err(NotRecorded::Io("an event is too long".into()));
        }
        let length = current.buffer.len() as u64;
        // However full it is, a run may begin.
        if current.buffer.len() > marker && self.fill().0 + length > self.size {
            return Err(NotRecorded::Full);
        }
        if current.at.offset > 0 && current.at.offset + length > self.segment_length() {
            self.next_segment(current);
        }
        let outcome = self.put(current);
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        if let Err(error) = outcome {
            self.take_back(current);
            return Err(NotRecorded::Io(error.to_string()));
        }
        current.begun = true;
        current.at.offset += length;
        *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner) += length;
        self.publish(current.at, frames + u64::from(marker > 0));
        Ok(())
    }

    fn put(&self, current: &mut Current) -> io::Result<()> {
        let file = match &mut current.file {
            Some(file) => file,
            none @ None => none.insert(self.begin_segment(current.at.segment)?),
        };
        file.write_all(&current.buffer)?;
        if self.fsync { file.sync_data() } else { Ok(()) }
    }

    /// Begins a segment with the spare one, whose room on the disk is reserved, and reserves the next: when something else fills the disk, the
    /// database on it above all, there is room for a while yet.
    fn begin_segment(&self, number: u64) -> io::Result<File> {
        let directory = &self.shared.directory;
        let (path, spare) = (segment_path(directory, number), directory.join("spare"));
        if fs::rename(&spare, &path).is_err() {
            self.reserve_room(&path)?;
        }
        // Without a spare, on a full disk or where room cannot be reserved, segments are made when they are due.
        let _ = self.reserve_room(&spare);
        let file = private().append(true).open(path)?;
        if self.fsync {
            File::open(directory)?.sync_all()?;
        }
        Ok(file)
    }

    /// Makes a file that is empty and has room to become a segment.
    fn reserve_room(&self, path: &Path) -> io::Result<()> {
        let file = private().create(true).truncate(true).write(true).open(path)?;
        // A file system that cannot do so, or has no room, is found out by writing.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, self.segment_length());
        Ok(())
    }

    fn segment_length(&self) -> u64 {
        (self.size / SEGMENTS).min(SEGMENT_MAX)
    }

    /// Takes back what was written in part, or else leaves it behind: nothing can follow a torn frame. What is whole is left to be taken over and
    /// deleted, which gives the disk some room.
    fn take_back(&self, current: &mut Current) {
        let Some(file) = &current.file else { return };
        if file.set_len(current.at.offset).is_err() || current.at.offset > 0 {
            self.next_segment(current);
        }
    }

    fn next_segment(&self, current: &mut Current) {
        current.file = None;
        current.at = Position { segment: current.at.segment + 1, offset: 0 };
        self.publish(current.at, 0);
    }

    fn publish(&self, end: Position, frames: u64) {
        let mut written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.end = end;
        written.waiting += frames;
        drop(written);
        self.shared.more.notify_one();
    }
}

impl Recorder for Spool {
    fn record(&self, records: &[EventRecord]) -> Result<(), NotRecorded> {
        self.write(records.len() as u64, |buffer| {
            let write = |record| frame::encode(Kind::Record, buffer, |buffer| frame::append_json(record, buffer));
            records.iter().all(write)
        })
    }

    fn has_room(&self) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return true;
        }
        !self.is_failing() && self.fill().0 + self.reserve() <= self.size
    }
}
