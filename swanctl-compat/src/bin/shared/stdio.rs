//! Standard output and standard error of a program that may stand in a pipe.
//!
//! Rust's own macros panic when nobody reads any more. Here a reader of the output that has gone ends the program without a word, as it ends others
//! in a pipe; what is said on standard error and cannot be heard changes nothing about what is done.

use std::fmt;
use std::io::{self, ErrorKind, StderrLock, StdoutLock, Write};

/// Exit code of a program that a closed pipe ends, as a shell shows it.
const CLOSED_PIPE: i32 = 141;

/// The standard output.
pub(crate) struct Output(StdoutLock<'static>);

/// Takes the standard output.
pub(crate) fn stdout() -> Output {
    Output(io::stdout().lock())
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        unless_closed(self.0.write(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(self.0.flush())
    }
}

fn unless_closed<T>(outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(CLOSED_PIPE),
        outcome => outcome,
    }
}

/// Writes to standard error, in one piece as far as it takes it. What daemons, files and command lines made up does not drive a terminal.
pub(crate) fn tell(words: fmt::Arguments<'_>) {
    let words: String = words.to_string().chars().map(harmless).collect();
    let mut err: StderrLock<'_> = io::stderr().lock();
    // Nobody is left to be told of it.
    let _ = err.write_all(words.as_bytes());
}

fn harmless(c: char) -> char {
    if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c }
}

/// Says a line on standard error.
macro_rules! say {
    ($($words:tt)*) => { $crate::stdio::tell(format_args!("{}\n", format_args!($($words)*))) };
}

pub(crate) use say;
