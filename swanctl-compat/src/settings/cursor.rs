//! Octets of one file with a position; the lexical rules of swanctl.conf.
//!
//! A name ends at blanks and at any of `. , : { } = " #`; an unquoted value ends at a blank, `#`, `}` or `"`. Inside quotes `\n`, `\r` and `\t` are
//! escapes, a backslash before a line end joins the lines, before anything else it stands for that character; a raw CR is dropped.

use zeroize::Zeroizing;

use super::source::{FileId, Span};

/// A place to come back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    at: usize,
    line: u32,
    column: u32,
}

/// Reads one file from front to back.
pub(super) struct Cursor<'t> {
    text: &'t [u8],
    file: FileId,
    at: usize,
    line: u32,
    column: u32,
}

/// The closing quote is missing; the span is the opening one.
#[derive(Debug)]
pub(super) struct Unterminated(pub(super) Span);

/// What follows `=`.
#[derive(Debug)]
pub(super) struct RawValue {
    /// `None` for `key =`: hides an inherited value.
    pub(super) octets: Option<Zeroizing<Vec<u8>>>,
    pub(super) span: Span,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t [u8], file: FileId) -> Self {
        Self { text, file, at: 0, line: 1, column: 1 }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { at: self.at, line: self.line, column: self.column }
    }

    pub(super) fn reset(&mut self, mark: Mark) {
        (self.at, self.line, self.column) = (mark.at, mark.line, mark.column);
    }

    /// From `mark` to here.
    pub(super) fn span_from(&self, mark: Mark) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { file: self.file, start: offset(mark.at), end: offset(self.at), line: mark.line, column: mark.column }
    }

    /// The single octet here (empty at the end of the file).
    pub(super) fn span_here(&self) -> Span {
        let mut span = self.span_from(self.mark());
        if self.peek().is_some() {
            span.end += 1;
        }
        span
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn bump(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        if octet == b'\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(octet)
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.bump();
        }
    }

    fn skip_comment(&mut self) {
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.bump();
        }
    }

    /// Skips blanks, line ends and comments.
    pub(super) fn skip_space(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => {
                    self.bump();
                }
                Some(b'#') => self.skip_comment(),
                Some(_) | None => return,
            }
        }
    }

    /// A name of a section or key; empty when none starts here.
    pub(super) fn name(&mut self) -> &'t [u8] {
        self.take_while(is_name_octet)
    }

    /// A dotted path, as references use; empty when none starts here.
    pub(super) fn dotted(&mut self) -> &'t [u8] {
        self.take_while(|octet| octet == b'.' || is_name_octet(octet))
    }

    fn take_while(&mut self, accepts: impl Fn(u8) -> bool) -> &'t [u8] {
        let from = self.at;
        while self.peek().is_some_and(&accepts) {
            self.bump();
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// The value after `=`: quoted and unquoted parts joined by one blank each. Stops before a line end, `#` or `}`.
    pub(super) fn value(&mut self) -> Result<RawValue, Unterminated> {
        self.skip_blanks();
        let start = self.mark();
        let mut end = start;
        let mut joined: Option<Zeroizing<Vec<u8>>> = None;
        loop {
            match self.peek() {
                None | Some(b'\n' | b'#' | b'}') => break,
                Some(b' ' | b'\t' | b'\r') => self.skip_blanks(),
                Some(b'"') => {
                    join(&mut joined, &self.quoted()?);
                    end = self.mark();
                }
                Some(_) => {
                    join(&mut joined, self.take_while(is_value_octet));
                    end = self.mark();
                }
            }
        }
        let here = self.mark();
        self.reset(end);
        let span = self.span_from(start);
        self.reset(here);
        Ok(RawValue { octets: joined, span })
    }

    /// A quoted string, from its opening quote to its closing one.
    fn quoted(&mut self) -> Result<Zeroizing<Vec<u8>>, Unterminated> {
        let opening = self.span_here();
        self.bump();
        let mut out = Zeroizing::new(Vec::new());
        loop {
            match self.bump() {
                None => return Err(Unterminated(opening)),
                Some(b'"') => return Ok(out),
                Some(b'\r') => {}
                Some(b'\\') => {
                    if let Some(octet) = self.escape(opening)? {
                        out.push(octet);
                    }
                }
                Some(octet) => out.push(octet),
            }
        }
    }

    /// What stands after a backslash; nothing for an escaped line end.
    fn escape(&mut self, opening: Span) -> Result<Option<u8>, Unterminated> {
        match self.bump() {
            None => Err(Unterminated(opening)),
            Some(b'n') => Ok(Some(b'\n')),
            Some(b'r') => Ok(Some(b'\r')),
            Some(b't') => Ok(Some(b'\t')),
            Some(b'\n') => Ok(None),
            Some(b'\r') if self.peek() == Some(b'\n') => {
                self.bump();
                Ok(None)
            }
            Some(octet) => Ok(Some(octet)),
        }
    }

    /// The pattern after `include`. A backslash keeps the next character from ending the pattern; wildcards escaped by one stay escaped.
    pub(super) fn pattern(&mut self) -> Result<(Vec<u8>, Span), Unterminated> {
        self.skip_blanks();
        let start = self.mark();
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None | Some(b'\n' | b'\r' | b'#' | b'}' | b' ' | b'\t') => break,
                Some(b'"') => out.extend_from_slice(&self.quoted()?),
                Some(b'\\') => {
                    self.bump();
                    let Some(octet) = self.bump() else { break };
                    if matches!(octet, b'*' | b'?' | b'[' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(octet);
                }
                Some(octet) => {
                    self.bump();
                    out.push(octet);
                }
            }
        }
        Ok((out, self.span_from(start)))
    }
}

fn join(joined: &mut Option<Zeroizing<Vec<u8>>>, part: &[u8]) {
    match joined {
        Some(value) => {
            value.push(b' ');
            value.extend_from_slice(part);
        }
        None => *joined = Some(Zeroizing::new(part.to_vec())),
    }
}

fn is_name_octet(octet: u8) -> bool {
    !matches!(octet, b'.' | b',' | b':' | b'{' | b'}' | b'=' | b'"' | b'#' | b'\r' | b'\n' | b'\t' | b' ')
}

fn is_value_octet(octet: u8) -> bool {
    !matches!(octet, b'#' | b'}' | b'"' | b'\r' | b'\n' | b'\t' | b' ')
}
