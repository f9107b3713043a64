//! Where configuration text comes from and where in it something stands.
//!
//! The reader never opens a file itself: everything comes through [`FileSource`], so tests and `cygnetd --check` read from wherever they like.
//! File contents can hold secrets; they are wiped on drop and nothing here prints them.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::glob;

/// Gives the reader its files. Paths are plain strings, as they appear in diagnostics.
pub trait FileSource {
    /// The files that `pattern` names, sorted by name. `pattern` is already absolute or relative to the including file's directory.
    fn expand(&self, pattern: &str) -> Vec<String>;

    /// The content of `path`.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// One name per file whatever way it is written, so that include loops are seen through links and `..`.
    fn canonical(&self, path: &str) -> String;

    /// Whether everybody on the machine may read `path`; asked for files that hold secrets.
    fn world_readable(&self, path: &str) -> bool;

    /// What is wrong with `path` as a program to run with privileges, and what to do; nothing where programs are not known of.
    fn program_trouble(&self, path: &str) -> Option<(&'static str, &'static str)> {
        let _ = path;
        None
    }
}

/// Octets of one file.
const MOST_OCTETS: u64 = 64 << 20;

/// [`FileSource`] over the real file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsFiles;

impl FileSource for OsFiles {
    fn expand(&self, pattern: &str) -> Vec<String> {
        if !glob::has_wildcard(pattern) {
            let path = glob::unescape(pattern);
            return if Path::new(&path).exists() { vec![path] } else { Vec::new() };
        }
        expand_components(pattern)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        // What a device gives may have no end.
        let read = fs::File::open(path)?.take(MOST_OCTETS + 1).read_to_end(&mut text)?;
        if read as u64 > MOST_OCTETS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MOST_OCTETS} octets")));
        }
        Ok(text)
    }

    fn canonical(&self, path: &str) -> String {
        fs::canonicalize(path).map_or_else(|_| path.to_owned(), |p| p.to_string_lossy().into_owned())
    }

    fn world_readable(&self, path: &str) -> bool {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o004 != 0)
    }

    fn program_trouble(&self, path: &str) -> Option<(&'static str, &'static str)> {
        use std::os::unix::fs::PermissionsExt;
        const STICKY: u32 = 0o1000;
        let Ok(file) = fs::metadata(path) else {
            return Some(("does not exist", "correct the path or install the script"));
        };
        let mode = file.permissions().mode();
        let above = Path::new(path).parent().and_then(|parent| fs::metadata(parent).ok());
        let open = above.is_some_and(|m| m.permissions().mode() & 0o002 != 0 && m.permissions().mode() & STICKY == 0);
        match () {
            () if !file.is_file() => Some(("is not a file", "name a program")),
            () if mode & 0o111 == 0 => Some(("is not executable", "chmod +x")),
            () if mode & 0o002 != 0 => {
                Some(("can be changed by everybody", "chmod o-w: it is run with the daemon's privileges"))
            }
            () if open => Some((
                "can be replaced by everybody",
                "chmod o-w its directory: it is run with the daemon's privileges",
            )),
            () => None,
        }
    }
}

/// Walks the file system one pattern component at a time.
fn expand_components(pattern: &str) -> Vec<String> {
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() }];
    for component in pattern.split('/').filter(|c| !c.is_empty()) {
        found = found.iter().flat_map(|base| step(base, component)).collect();
    }
    let mut names: Vec<String> = found.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn step(base: &Path, component: &str) -> Vec<PathBuf> {
    if !glob::has_wildcard(component) {
        let next = base.join(glob::unescape(component));
        return if next.exists() { vec![next] } else { Vec::new() };
    }
    let directory = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| glob::matches(component, name)))
        .map(|entry| base.join(entry.file_name()))
        .collect()
}

/// Number of a file among those read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub(crate) u32);

/// A range of octets in one file. Lines and columns count from 1; a column is an octet of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First octet.
    pub start: u32,
    /// One past the last octet.
    pub end: u32,
    /// Line of `start`.
    pub line: u32,
    /// Column of `start`.
    pub column: u32,
}

/// All files read for one configuration, kept for caret lines.
#[derive(Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

struct SourceFile {
    path: String,
    /// The pattern that it was included by.
    included_at: Option<Span>,
    text: Arc<Zeroizing<Vec<u8>>>,
    /// Ranges inside `secrets { ... }` sections and values of secret keys.
    sensitive: Vec<(u32, u32)>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

impl Sources {
    /// Path of `file` as it was opened.
    #[must_use]
    pub fn path(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |f| f.path.as_str())
    }

    /// Paths of all files in reading order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|f| f.path.as_str())
    }

    /// Where `file` was included.
    pub(super) fn included_at(&self, file: FileId) -> Option<Span> {
        self.files.get(file.0 as usize).and_then(|f| f.included_at)
    }

    pub(crate) fn add(&mut self, path: &str, text: Vec<u8>, included_at: Option<Span>) -> FileId {
        self.files.push(SourceFile {
            path: path.to_owned(),
            included_at,
            text: Arc::new(Zeroizing::new(text)),
            sensitive: Vec::new(),
        });
        FileId(u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX))
    }

    pub(crate) fn shared_text(&self, file: FileId) -> Arc<Zeroizing<Vec<u8>>> {
        self.files.get(file.0 as usize).map(|f| Arc::clone(&f.text)).unwrap_or_default()
    }

    pub(crate) fn mark_sensitive(&mut self, file: FileId, start: u32, end: u32) {
        if let Some(file) = self.files.get_mut(file.0 as usize) {
            file.sensitive.push((start, end));
        }
    }

    /// Ends the range that was marked open at `start`.
    pub(crate) fn end_sensitive(&mut self, file: FileId, start: u32, end: u32) {
        if let Some(range) =
            self.files.get_mut(file.0 as usize).and_then(|f| f.sensitive.iter_mut().find(|r| **r == (start, u32::MAX)))
        {
            range.1 = end;
        }
    }

    /// Whether text at `span` may not be shown: it lies in a secret's value, in a `secrets` section, or shares a line with a secret key. The last rule
    /// also holds for files too broken to know what belongs to what.
    #[must_use]
    pub fn is_sensitive(&self, span: Span) -> bool {
        let Some(file) = self.files.get(span.file.0 as usize) else { return false };
        if file.sensitive.iter().any(|&(start, end)| span.start < end && start < span.end.max(span.start + 1)) {
            return true;
        }
        let (from, _) = line_bounds(&file.text, span.start);
        let (_, to) = line_bounds(&file.text, span.end.saturating_sub(1).max(span.start));
        file.text.get(from..to).is_some_and(mentions_secret)
    }

    /// Whether the line that `span` starts in names a secret.
    pub(crate) fn line_mentions_secret(&self, span: Span) -> bool {
        self.files.get(span.file.0 as usize).is_some_and(|file| {
            let (from, to) = line_bounds(&file.text, span.start);
            file.text.get(from..to).is_some_and(mentions_secret)
        })
    }

    /// The part of `span` that reads `fragment`; all of it when it does not contain it in one piece.
    pub(crate) fn narrow(&self, span: Span, fragment: &str) -> Span {
        let text = self.files.get(span.file.0 as usize).map(|file| file.text.as_slice()).unwrap_or_default();
        let Some(inside) = text.get(span.start as usize..span.end as usize) else { return span };
        let fragment = fragment.as_bytes();
        let found = if fragment.is_empty() { None } else { find_word(inside, fragment) };
        found.map_or(span, |at| shifted(span, inside, at, fragment.len()))
    }

    /// What of `span` comes after `part`.
    pub(crate) fn after(&self, span: Span, part: Span) -> Span {
        let text = self.files.get(span.file.0 as usize).map(|file| file.text.as_slice()).unwrap_or_default();
        let Some(inside) = text.get(span.start as usize..span.end as usize) else { return span };
        let at = part.end.saturating_sub(span.start) as usize;
        shifted(span, inside, at, inside.len().saturating_sub(at))
    }

    /// Characters in the line of `span` before it, and how many of them it covers.
    pub(super) fn characters(&self, span: Span) -> (usize, usize) {
        let text = self.files.get(span.file.0 as usize).map(|file| file.text.as_slice()).unwrap_or_default();
        let (from, to) = line_bounds(text, span.start);
        let count = |from: usize, to: usize| printable(text.get(from..to).unwrap_or_default()).chars().count();
        let start = span.start as usize;
        (count(from, start), count(start, to.min(span.end as usize)))
    }

    /// The line that `span` starts in, with anything secret replaced, and whether something was replaced.
    #[must_use]
    pub(crate) fn shown_line(&self, span: Span) -> (String, bool) {
        let Some(file) = self.files.get(span.file.0 as usize) else { return (String::new(), false) };
        let (from, to) = line_bounds(&file.text, span.start);
        let line = file.text.get(from..to).unwrap_or_default();
        let overlaps = |&(start, end): &(u32, u32)| (start as usize) < to && from < end as usize;
        if file.sensitive.iter().any(overlaps) || mentions_secret(line) {
            return mask(line);
        }
        (mask_userinfo(&printable(line)), false)
    }
}

/// The span of `length` octets at `at` inside `span`, whose text is `inside`.
fn shifted(span: Span, inside: &[u8], at: usize, length: usize) -> Span {
    let before = inside.get(..at).unwrap_or_default();
    let lines = before.iter().filter(|octet| **octet == b'\n').count();
    let column = match before.iter().rposition(|octet| *octet == b'\n') {
        Some(newline) => at - newline,
        None => span.column as usize + at,
    };
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let start = span.start.saturating_add(narrow(at));
    let line = span.line.saturating_add(narrow(lines));
    Span { file: span.file, start, end: start.saturating_add(narrow(length)), line, column: narrow(column) }
}

/// Where `word` stands in `text`, preferably not as a part of a longer word.
fn find_word(text: &[u8], word: &[u8]) -> Option<usize> {
    let is_word = |octet: Option<&u8>| octet.is_some_and(|o| o.is_ascii_alphanumeric() || *o == b'_' || *o == b'.');
    let whole = |at: &usize| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !is_word(before) && !is_word(text.get(at + word.len()))
    };
    let places = || text.windows(word.len()).enumerate().filter(|(_, w)| *w == word).map(|(at, _)| at);
    places().find(whole).or_else(|| places().next())
}

/// Bounds of the line around octet `at`, without its line end.
fn line_bounds(text: &[u8], at: u32) -> (usize, usize) {
    let at = (at as usize).min(text.len());
    let from = text.get(..at).and_then(|t| t.iter().rposition(|&b| b == b'\n')).map_or(0, |p| p + 1);
    let to = text.get(at..).and_then(|t| t.iter().position(|&b| b == b'\n')).map_or(text.len(), |p| at + p);
    (from, to)
}

/// Words whose line is never shown in full.
const SECRET_WORDS: [&str; 5] = ["secret", "pin", "password", "passphrase", "psk"];

/// Whether a line holds a word that starts a secret, such as `secret`, `secret-2` or `pin`.
fn mentions_secret(line: &[u8]) -> bool {
    line.to_ascii_lowercase().split(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-')).any(|word| {
        SECRET_WORDS
            .iter()
            .any(|secret| word.strip_prefix(secret.as_bytes()).is_some_and(|rest| !starts_with_letter(rest)))
    })
}

fn starts_with_letter(rest: &[u8]) -> bool {
    rest.first().is_some_and(u8::is_ascii_alphabetic)
}

/// Keeps the first word of a statement and its separator, hides the rest. A line that does not begin like a statement is hidden whole.
fn mask(line: &[u8]) -> (String, bool) {
    let text = printable(line);
    let indent: String = text.chars().take_while(|c| c.is_whitespace()).collect();
    let rest = text.get(indent.len()..).unwrap_or_default();
    let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-').collect();
    let after = rest.get(word.len()..).unwrap_or_default();
    let body = after.trim();
    match body.chars().next() {
        None if word.is_empty() => (text, false),
        Some('{' | '}') if body.len() == 1 => (text, false),
        Some('=') => (format!("{indent}{word} = ***"), true),
        Some('{') => (format!("{indent}{word} {{ ***"), true),
        Some(_) | None => (format!("{indent}***"), true),
    }
}

/// Replaces control characters so that a caret line stays one line; a tab becomes a blank to keep columns.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Hides `user:password@` in URLs.
fn mask_userinfo(line: &str) -> String {
    let Some(scheme) = line.find("://") else { return line.to_owned() };
    let start = scheme + 3;
    let tail = line.get(start..).unwrap_or_default();
    let end = tail.find(['/', ' ', '"', ',']).unwrap_or(tail.len());
    match tail.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) => {
            let hidden = "*".repeat(tail.get(..at).map_or(0, |hidden| hidden.chars().count()));
            format!("{}{}{}", line.get(..start).unwrap_or_default(), hidden, tail.get(at..).unwrap_or_default())
        }
        None => line.to_owned(),
    }
}
