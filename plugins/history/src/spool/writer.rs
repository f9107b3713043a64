//! The end to write to.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ike_model::history::NotRecorded;
use ike_model::{EventRecord, Recorder};
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
    /// The last write failed.
    failing: AtomicBool,
    /// Nobody will ever read it.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Current {
    file: File,
    at: Position,
    buffer: Vec<u8>,
}

impl Spool {
    pub(super) fn begin(options: &Options, shared: Arc<Shared>, number: u64) -> io::Result<Self> {
        let file = private().create_new(true).append(true).open(segment_path(&shared.directory, number))?;
        let at = Position { segment: number, offset: 0 };
        Ok(Self {
            size: options.size,
            fsync: options.fsync,
            shared,
            current: Mutex::new(Current { file, at, buffer: Vec::new() }),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Notes that a run of the daemon begins: what an earlier one left open was ended by its death.
    ///
    /// # Errors
    /// As for events.
    pub fn boot(&self, gateway: &str, boot_id: &str, time_ms: u64) -> Result<(), NotRecorded> {
        let marker = json!({ "gateway": gateway, "boot_id": boot_id, "time_ms": time_ms });
        self.write(1, |buffer| frame::encode(Kind::Boot, marker.to_string().as_bytes(), buffer))
    }

    /// Octets of what is not yet taken over, and how many there may be.
    pub fn fill(&self) -> (u64, u64) {
        (*self.shared.used.lock().unwrap_or_else(PoisonError::into_inner), self.size)
    }

    /// How many events are not yet taken over.
    pub fn waiting(&self) -> u64 {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).waiting
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

    fn write(&self, frames: u64, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<(), NotRecorded> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.append(&mut current, frames, fill);
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    fn append(
        &self,
        current: &mut Current,
        frames: u64,
        fill: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Result<(), NotRecorded> {
        current.buffer.clear();
        if !fill(&mut current.buffer) {
            return Err(NotRecorded::Io("an event is too long".into()));
        }
        let length = current.buffer.len() as u64;
        if self.fill().0 + length > self.size {
            return Err(NotRecorded::Full);
        }
        let failed = |error: io::Error| NotRecorded::Io(error.to_string());
        if current.at.offset > 0 && current.at.offset + length > (self.size / SEGMENTS).min(SEGMENT_MAX) {
            self.next_segment(current).map_err(failed)?;
        }
        if let Err(error) = self.put(current) {
            // What was written in part is taken back, or else left behind: nothing can follow a torn frame.
            if current.file.set_len(current.at.offset).is_err() {
                self.next_segment(current).map_err(failed)?;
            }
            return Err(failed(error));
        }
        current.at.offset += length;
        *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner) += length;
        let mut written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.end = current.at;
        written.waiting += frames;
        drop(written);
        self.shared.more.notify_one();
        Ok(())
    }

    fn put(&self, current: &mut Current) -> io::Result<()> {
        current.file.write_all(&current.buffer)?;
        if self.fsync { current.file.sync_data() } else { Ok(()) }
    }

    fn next_segment(&self, current: &mut Current) -> io::Result<()> {
        let number = current.at.segment + 1;
        let path = segment_path(&self.shared.directory, number);
        current.file = private().create_new(true).append(true).open(path)?;
        if self.fsync {
            File::open(&self.shared.directory)?.sync_all()?;
        }
        current.at = Position { segment: number, offset: 0 };
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).end = current.at;
        Ok(())
    }
}

impl Recorder for Spool {
    fn record(&self, records: &[EventRecord]) -> Result<(), NotRecorded> {
        self.write(records.len() as u64, |buffer| {
            records.iter().all(|record| match serde_json::to_vec(record) {
                Ok(json) => frame::encode(Kind::Record, &json, buffer),
                Err(_) => false,
            })
        })
    }

    fn has_room(&self) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return true;
        }
        !self.failing.load(Ordering::Relaxed) && self.fill().0 + self.reserve() <= self.size
    }
}
