//! The end to read from.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::frame::{Decoded, Entry, HEADER, PAYLOAD_MAX, decode, payload_length};
use super::{Shared, private, segment_path, segments};

/// A place between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Octets of it that lie before.
    pub offset: u64,
}

/// Octets read at once, unless a single frame is longer.
const CHUNK: usize = 256 << 10;

/// No more than this is handed out at once, but for the last frame.
const TOGETHER: usize = 8 << 20;

/// Reads what was taken down, once by its position and possibly again after a crash.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    at: Position,
    /// Everything before has been taken over.
    taken_over: Position,
    /// Frames read since.
    frames: u64,
    /// The segment being read, and its octets from `at` on.
    open: Option<(u64, File)>,
    ahead: Vec<u8>,
    consumed: usize,
}

impl Reader {
    pub(super) fn begin(shared: Arc<Shared>, at: Position) -> Self {
        Self { shared, at, taken_over: at, frames: 0, open: None, ahead: Vec::new(), consumed: 0 }
    }

    /// Waits until there is something to read.
    pub async fn ready(&self) {
        while !self.has_more() {
            self.shared.more.notified().await;
        }
    }

    /// Up to `limit` frames from here on, fewer when they are long; none when everything has been read.
    ///
    /// # Errors
    /// The file system refused; nothing is skipped.
    pub fn read(&mut self, limit: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let outcome = self.read_into(&mut entries, limit);
        self.frames += entries.len() as u64;
        outcome.map(|()| entries)
    }

    fn read_into(&mut self, entries: &mut Vec<Entry>, limit: usize) -> io::Result<()> {
        let mut octets = 0;
        while entries.len() < limit && octets < TOGETHER {
            let more = match decode(self.ahead.get(self.consumed..).unwrap_or_default()) {
                Decoded::Frame(entry, length) => {
                    entries.push(entry);
                    self.consumed += length;
                    self.at.offset += length as u64;
                    octets += length;
                    continue;
                }
                Decoded::Short => true,
                Decoded::Broken => false,
            };
            // Looked at once, and only here, where whoever writes is seldom met: what is written meanwhile is not to be mistaken for nothing.
            let written = self.written();
            if more && self.refill(written)? {
                continue;
            }
            if !self.next_segment(written)? {
                break;
            }
        }
        Ok(())
    }

    /// Everything read so far has been taken over: notes the position down and deletes segments that are done with.
    ///
    /// # Errors
    /// The file system refused. Nothing is lost, at most read again.
    pub fn taken_over(&mut self) -> io::Result<()> {
        self.taken_over = self.at;
        self.shared.taken_over(self.at, std::mem::take(&mut self.frames));
        let noted = self.note();
        // On a full disk it is this that makes room for the note.
        let deleted = self.delete()?;
        if noted.is_err() && deleted { self.note() } else { noted }
    }

    fn note(&self) -> io::Result<()> {
        let draft = self.shared.directory.join("position.new");
        let mut file = private().create(true).truncate(true).write(true).open(&draft)?;
        io::Write::write_all(&mut file, format!("{} {}\n", self.at.segment, self.at.offset).as_bytes())?;
        fs::rename(&draft, self.shared.directory.join("position"))
    }

    /// Deletes the segments before this one; tells whether there were any.
    fn delete(&self) -> io::Result<bool> {
        let directory = &self.shared.directory;
        let done: Vec<_> = segments(directory)?.into_iter().filter(|(number, _)| *number < self.at.segment).collect();
        for (number, length) in &done {
            fs::remove_file(segment_path(directory, *number))?;
            let mut used = self.shared.used.lock().unwrap_or_else(PoisonError::into_inner);
            *used = used.saturating_sub(*length);
        }
        Ok(!done.is_empty())
    }

    /// Goes back to what was not yet taken over.
    pub fn start_over(&mut self) {
        self.frames = 0;
        self.rewind(self.taken_over);
    }

    /// There is something to read.
    pub fn has_more(&self) -> bool {
        self.at < self.written()
    }

    fn rewind(&mut self, position: Position) {
        self.at = position;
        self.open = None;
        self.ahead.clear();
        self.consumed = 0;
    }

    /// Where the next frame begins.
    pub fn position(&self) -> Position {
        self.at
    }

    fn written(&self) -> Position {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Reads further octets of the segment; `false` at its end, for now or for ever.
    fn refill(&mut self, written: Position) -> io::Result<bool> {
        let file = match &mut self.open {
            Some((number, file)) if *number == self.at.segment => file,
            Some(_) | None => {
                let path = segment_path(&self.shared.directory, self.at.segment);
                let file = match File::open(path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    Err(error) => return Err(error),
                };
                &mut self.open.insert((self.at.segment, file)).1
            }
        };
        self.ahead.drain(..self.consumed);
        self.consumed = 0;
        let from = self.at.offset + self.ahead.len() as u64;
        // Of the segment that is being written, only what has been written in full.
        let end = if self.at.segment < written.segment { u64::MAX } else { written.offset };
        let wanted = end.saturating_sub(from).min(CHUNK as u64);
        file.seek(SeekFrom::Start(from))?;
        let read = file.take(wanted).read_to_end(&mut self.ahead)?;
        Ok(read > 0)
    }

    /// Goes to the next segment there is; `false` when this is the one being written.
    fn next_segment(&mut self, written: Position) -> io::Result<bool> {
        if self.at.segment >= written.segment {
            return Ok(false);
        }
        let left = self.ahead.len() - self.consumed;
        if left > 0 {
            tracing::warn!(
                segment = self.at.segment,
                offset = self.at.offset,
                octets = left,
                "the spool ends in the middle of an event there, as after a crash"
            );
        }
        let next = segments(&self.shared.directory)?
            .into_iter()
            .map(|(number, _)| number)
            .find(|number| *number > self.at.segment);
        self.rewind(Position { segment: next.unwrap_or(written.segment), offset: 0 });
        Ok(true)
    }
}

/// The position that was noted down last.
pub(super) fn noted(directory: &Path) -> Option<Position> {
    let text = fs::read_to_string(directory.join("position")).ok()?;
    let (segment, offset) = text.trim().split_once(' ')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

impl Shared {
    /// Notes that `frames` more have been taken over, up to `end`.
    fn taken_over(&self, end: Position, frames: u64) {
        *self.taken_over.lock().unwrap_or_else(PoisonError::into_inner) = end;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // At the end nothing waits, whatever the count of a torn segment was.
        written.waiting = if end >= written.end { 0 } else { written.waiting.saturating_sub(frames) };
    }
}

/// How many frames there are from `begin` on, by their lengths alone.
pub(super) fn count(directory: &Path, begin: Position) -> io::Result<u64> {
    let mut frames = 0;
    for (number, length) in segments(directory)?.into_iter().filter(|(number, _)| *number >= begin.segment) {
        let mut at = if number == begin.segment { begin.offset } else { 0 };
        let mut file = BufReader::new(File::open(segment_path(directory, number))?);
        file.seek(SeekFrom::Start(at))?;
        let mut header = [0; HEADER];
        while at + HEADER as u64 <= length {
            file.read_exact(&mut header)?;
            let payload = payload_length(header);
            at += HEADER as u64 + payload as u64;
            if at > length || payload > PAYLOAD_MAX {
                break;
            }
            frames += 1;
            file.seek_relative(i64::try_from(payload).unwrap_or(i64::MAX))?;
        }
    }
    Ok(frames)
}

/// The first frame from `begin` on.
pub(super) fn first(directory: &Path, begin: Position) -> io::Result<Option<Entry>> {
    for (number, _) in segments(directory)?.into_iter().filter(|(number, _)| *number >= begin.segment) {
        let at = if number == begin.segment { begin.offset } else { 0 };
        let mut file = File::open(segment_path(directory, number))?;
        file.seek(SeekFrom::Start(at))?;
        let mut header = [0; HEADER];
        if file.read_exact(&mut header).is_err() {
            continue;
        }
        let mut octets = header.to_vec();
        file.take(payload_length(header).min(PAYLOAD_MAX) as u64).read_to_end(&mut octets)?;
        if let Decoded::Frame(entry, _) = decode(&octets) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
