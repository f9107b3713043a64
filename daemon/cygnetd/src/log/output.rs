//! A file for log lines, such as standard error, at which nobody waits for whoever reads it.
//!
//! Lines come from the threads that run IKE. What the system takes at once is written at once, so that nothing is lost when the process dies. What it
//! does not take (a full pipe, a stopped terminal) is kept, [`ROOM`] octets of it, and written by a thread of its own. Lines beyond that are lost
//! and counted; how many is told as soon as there is room again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Octets that wait at most.
const ROOM: usize = 1 << 20;
/// Octets that a pipe takes as a whole once it takes any: pipe(7), and poll(2) of it.
const AT_ONCE: usize = 4096;

/// See the module. A duplicate is the same file.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    file: Box<dyn File>,
}

trait File: AsFd + Send + Sync {}
impl<F: AsFd + Send + Sync> File for F {}

#[derive(Default)]
struct Waiting {
    octets: VecDeque<u8>,
    /// Lines that were lost since that was told last; while there are any, more are.
    lost: u64,
}

impl Output {
    /// Begins; `told` is called with the number of lines that were lost, from where lines may be written.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start(
        file: impl AsFd + Send + Sync + 'static,
        told: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let output =
            Self(Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new(), file: Box::new(file) }));
        let shared = Arc::clone(&output.0);
        std::thread::Builder::new().name("log".into()).spawn(move || shared.write_on(&told))?;
        Ok(output)
    }

    /// Waits until everything is written, for so long.
    pub(super) fn settle(&self, limit: Duration) {
        let settled = self.0.changed.wait_timeout_while(self.0.waiting(), limit, |waiting| !waiting.octets.is_empty());
        // Whoever does not read by then does without.
        drop(settled);
    }
}

/// One line for each call.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        let rest = if waiting.octets.is_empty() { self.write_now(line) } else { line };
        if rest.is_empty() {
            return;
        }
        let begun = rest.len() < line.len();
        if !begun && (waiting.lost > 0 || waiting.octets.len() + rest.len() > ROOM) {
            waiting.lost += 1;
        } else {
            waiting.octets.extend(rest);
        }
        self.changed.notify_all();
    }

    /// Writes what is taken at once; gives what is not.
    fn write_now<'l>(&self, mut line: &'l [u8]) -> &'l [u8] {
        while !line.is_empty() && self.takes_some() {
            let part = line.get(..line.len().min(AT_ONCE)).unwrap_or(line);
            match rustix::io::write(&self.file, part) {
                Ok(written) => line = line.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody will ever read it.
                Err(_) => return &[],
            }
        }
        line
    }

    fn takes_some(&self) -> bool {
        let mut file = [PollFd::new(&self.file, PollFlags::OUT)];
        matches!(poll(&mut file, Some(&Timespec::default())), Ok(1..))
    }

    /// Writes what waits. Nobody else writes as long as anything does.
    fn write_on(&self, told: &dyn Fn(u64)) {
        loop {
            let waiting = self.changed.wait_while(self.waiting(), |waiting| waiting.octets.is_empty());
            let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let part: Vec<u8> = waiting.octets.iter().take(AT_ONCE).copied().collect();
            drop(waiting);
            let written = self.write(&part);
            let mut waiting = self.waiting();
            waiting.octets.drain(..written);
            let lost = if waiting.octets.len() <= ROOM / 2 { std::mem::take(&mut waiting.lost) } else { 0 };
            drop(waiting);
            self.changed.notify_all();
            if lost > 0 {
                told(lost);
            }
        }
    }

    /// Writes some of it, whenever that may be; how much.
    fn write(&self, part: &[u8]) -> usize {
        loop {
            match rustix::io::write(&self.file, part) {
                Ok(written) => return written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Somebody else has made it so that it does not wait.
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
                }
                Err(_) => return part.len(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_lost_is_counted() {
        const LINES: u64 = 40_000;
        let (reader, writer) = std::io::pipe().unwrap();
        let (to, told) = mpsc::channel();
        let mut output = Output::start(writer, move |lost| to.send(lost).unwrap()).unwrap();
        // More than the pipe and we together keep: with a reader that never comes this would not end.
        let (done, all_said) = mpsc::channel();
        let talking = std::thread::spawn(move || {
            for number in 0..LINES {
                output.write_all(format!("{number:08} {}\n", "x".repeat(90)).as_bytes()).unwrap();
            }
            done.send(()).unwrap();
            output
        });
        all_said.recv_timeout(SOON).unwrap();
        let mut output = talking.join().unwrap();
        let lost = output.0.waiting().lost;
        assert!(lost > LINES / 2, "{lost}");
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        for number in 0..LINES - lost {
            assert!(lines.next().unwrap().starts_with(&format!("{number:08} x")));
        }
        assert_eq!(told.recv_timeout(SOON).unwrap(), lost);
        output.settle(SOON);
        output.write_all(b"again\n").unwrap();
        assert_eq!(lines.next().unwrap(), "again");
        drop(lines);
        // And nobody minds that there is no reader at all.
        output.write_all(b"for nobody\n").unwrap();
        assert!(output.0.waiting().octets.is_empty());
    }

    #[test]
    fn a_line_longer_than_a_pipe_takes_at_once_stays_whole() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut output = Output::start(writer, |_| {}).unwrap();
        let long = format!("{}\n", "y".repeat(200_000));
        output.write_all(long.as_bytes()).unwrap();
        output.write_all(b"next\n").unwrap();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap().len(), 200_000);
        assert_eq!(lines.next().unwrap(), "next");
    }
}
