//! The terminal: a screen of its own while it is watched, keys one by one, and everything as it was at the end.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Somebody has asked the program to end.
#[derive(Debug)]
pub(super) struct Ending(Arc<AtomicBool>);

impl Ending {
    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Notes signals that ask to end, instead of ending at once: the terminal is put right first.
pub(super) fn until_told() -> io::Result<Ending> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&told))?;
    }
    Ok(Ending(told))
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// End.
    Quit,
    /// Another order.
    Sort,
    /// Only those that are not up, or all.
    Down,
    /// So many lines down, or up.
    Lines(isize),
    /// So many pages.
    Pages(isize),
}

/// The terminal while it is ours.
pub(super) struct Terminal {
    before: Termios,
    /// Nothing comes from it any more.
    closed: bool,
}

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Terminal {
    /// Takes it: keys come one by one and are not shown, and the screen that was there comes back at the end.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut ours = before.clone();
        ours.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        ours.special_codes[SpecialCodeIndex::VMIN] = 0;
        ours.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &ours)?;
        let this = Self { before, closed: false };
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(this)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            Ok(_) | Err(_) => (80, 24),
        }
    }

    /// Shows these lines and nothing else, without a flicker.
    pub(super) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            text.push_str(if number == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Keys that are pressed within `limit`.
    pub(super) fn keys(&mut self, limit: Duration) -> io::Result<Vec<Key>> {
        let stdin = io::stdin();
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        let mut wait = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut wait, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut octets = [0; 64];
        // Not through a buffer: what stayed behind in it would wait for the next key.
        let length = rustix::io::read(&stdin, &mut octets)?;
        self.closed = length == 0;
        // The terminal has gone.
        if self.closed { Ok(vec![Key::Quit]) } else { Ok(keys(octets.get(..length).unwrap_or_default())) }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What cannot be put right now cannot be put right at all.
        let _ = io::stdout().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Octets of a terminal as keys; what means nothing is passed over.
fn keys(octets: &[u8]) -> Vec<Key> {
    let (mut keys, mut rest) = (Vec::new(), octets);
    while let Some((first, after)) = rest.split_first() {
        let (key, used) = match (*first, after) {
            (b'q' | b'Q' | 0x03 | 0x04, _) => (Some(Key::Quit), 1),
            (b's', _) => (Some(Key::Sort), 1),
            (b'd', _) => (Some(Key::Down), 1),
            (b'j', _) => (Some(Key::Lines(1)), 1),
            (b'k', _) => (Some(Key::Lines(-1)), 1),
            (b' ', _) => (Some(Key::Pages(1)), 1),
            (0x1b, [b'[' | b'O', rest @ ..]) => sequence(rest),
            _ => (None, 1),
        };
        keys.extend(key);
        rest = rest.get(used..).unwrap_or_default();
    }
    keys
}

/// What follows ESC [ : parameters and the letter that ends them.
fn sequence(rest: &[u8]) -> (Option<Key>, usize) {
    let Some(end) = rest.iter().position(|octet| matches!(octet, 0x40..=0x7e)) else { return (None, 2 + rest.len()) };
    let key = match rest.get(..=end).unwrap_or_default() {
        b"A" => Some(Key::Lines(-1)),
        b"B" => Some(Key::Lines(1)),
        b"5~" => Some(Key::Pages(-1)),
        b"6~" => Some(Key::Pages(1)),
        b"H" | b"1~" => Some(Key::Lines(isize::MIN)),
        b"F" | b"4~" => Some(Key::Lines(isize::MAX)),
        _ => None,
    };
    (key, end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_among_what_a_terminal_sends() {
        assert_eq!(keys(b"sd"), [Key::Sort, Key::Down]);
        assert_eq!(keys(b"\x1b[B\x1b[5~x\x1b[1;5Cq"), [Key::Lines(1), Key::Pages(-1), Key::Quit]);
        assert_eq!(keys(b"\x1bOA\x03"), [Key::Lines(-1), Key::Quit]);
        assert_eq!(keys(b"\x1b[12"), []);
        assert_eq!(keys(b"\x1b"), []);
        assert_eq!(keys(&[0xff, 0x00]), []);
    }
}
