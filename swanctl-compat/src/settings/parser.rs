//! Reads files into the tree: statements, sections, includes.
//!
//! The first syntax error ends the reading of its file; other files are still read, so that one run shows as much as possible.

use std::io::ErrorKind;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::cursor::{Cursor, Mark, RawValue, Unterminated};
use super::diagnostic::{Diagnostic, Severity};
use super::glob;
use super::source::{FileSource, Sources, Span};
use super::tree::{Entry, MAX_DEPTH, Reference, Section, Value};
use super::{Settings, is_secret_key};

/// How deep includes may nest.
const MAX_INCLUDES: usize = 10;

/// How many files are read, those that are read again included. Files that include all of a directory in which they lie themselves make each other
/// be read in every order: of a dozen of them, hundreds of millions.
const MAX_FILES: usize = 65_536;

/// Longest name of a section or key: VICI writes the length in one octet.
const MAX_NAME: usize = 255;

/// Ends the reading of one file; the finding is already recorded.
struct Stop;

pub(super) struct Loader<'s> {
    source: &'s dyn FileSource,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    /// Open sections, the root first.
    stack: Vec<Section>,
    /// Canonical path and shown path of the files being read.
    reading: Vec<(String, String)>,
    /// Files read so far, and how many there may be.
    read: usize,
    pub(super) most: usize,
}

impl<'s> Loader<'s> {
    pub(super) fn new(source: &'s dyn FileSource) -> Self {
        Self {
            source,
            sources: Sources::default(),
            diagnostics: Vec::new(),
            stack: vec![Section::default()],
            reading: Vec::new(),
            read: 0,
            most: MAX_FILES,
        }
    }

    pub(super) fn finish(mut self) -> Settings {
        self.close_down_to(1);
        Settings { root: self.stack.pop().unwrap_or_default(), sources: self.sources, diagnostics: self.diagnostics }
    }

    pub(super) fn root_file(&mut self, path: &str) {
        if let Err(error) = self.file(path, None) {
            self.diagnostics.push(Diagnostic::error("file-unreadable", None, format!("cannot read {path}: {error}")));
        }
    }

    fn file(&mut self, path: &str, included_at: Option<Span>) -> std::io::Result<()> {
        self.read += 1;
        let text = self.source.read(path)?;
        let id = self.sources.add(path, text, included_at);
        let text: Arc<Zeroizing<Vec<u8>>> = self.sources.shared_text(id);
        self.reading.push((self.source.canonical(path), path.to_owned()));
        let base = self.stack.len();
        if self.in_secrets() {
            self.sources.mark_sensitive(id, 0, u32::MAX);
        }
        let _stopped = self.statements(&mut Cursor::new(&text, id), base);
        self.close_down_to(base);
        self.reading.pop();
        Ok(())
    }

    fn statements(&mut self, cursor: &mut Cursor<'_>, base: usize) -> Result<(), Stop> {
        loop {
            cursor.skip_space();
            match cursor.peek() {
                None => return self.end_of_file(base),
                Some(b'}') if self.stack.len() > base => {
                    cursor.bump();
                    self.close(cursor);
                }
                Some(b'}') => {
                    let help = "remove it, or look for a section above that was closed too early";
                    return Err(self.stop(
                        Diagnostic::error("stray-brace", Some(cursor.span_here()), "`}` without an open section")
                            .with_help(help),
                    ));
                }
                Some(_) => self.statement(cursor)?,
            }
        }
    }

    fn end_of_file(&mut self, base: usize) -> Result<(), Stop> {
        if self.stack.len() == base {
            return Ok(());
        }
        let Some(open) = self.stack.last() else { return Ok(()) };
        let message = format!("section `{}` is not closed before the end of the file", open.name());
        let span = open.spans().last().copied();
        Err(self.stop(Diagnostic::error("unclosed-section", span, message).with_help("add the missing `}`")))
    }

    /// `name = value`, `name {`, `name : references {` or `include pattern`.
    fn statement(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
        let start = cursor.mark();
        let name = cursor.name();
        let span = cursor.span_from(start);
        if name.is_empty() {
            return Err(self.expected_name(cursor));
        }
        if name == b"include" && self.include(cursor, span)? {
            return Ok(());
        }
        let name = self.checked_name(name, span)?;
        let after_name = cursor.mark();
        cursor.skip_space();
        match cursor.peek() {
            Some(b'=') => {
                cursor.bump();
                let value = cursor.value().map_err(|error| self.unterminated(&error))?;
                self.assign(name, span, value);
                Ok(())
            }
            Some(b':') => {
                cursor.bump();
                let references = self.references(cursor)?;
                self.open_brace(cursor, name, span, references)
            }
            Some(b'{') => self.open_brace(cursor, name, span, Vec::new()),
            Some(_) | None => {
                cursor.reset(after_name);
                Err(self.expected_assignment(cursor, &name, span))
            }
        }
    }

    fn assign(&mut self, name: String, name_span: Span, raw: RawValue) {
        if self.in_secrets() || is_secret_key(&name) {
            self.sources.mark_sensitive(raw.span.file, raw.span.start, raw.span.end);
        }
        let entry = Entry { name, name_span, value: raw.octets.map(Value::new), value_span: raw.span, replaced: None };
        if let Some(section) = self.stack.last_mut() {
            section.set(entry);
        }
    }

    /// References of a section, up to its `{`.
    fn references(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<Reference>, Stop> {
        let mut references = Vec::new();
        loop {
            cursor.skip_space();
            let start = cursor.mark();
            let text = cursor.dotted();
            let span = cursor.span_from(start);
            let path: Option<Vec<String>> =
                std::str::from_utf8(text).ok().map(|t| t.split('.').map(str::to_owned).collect());
            match path {
                Some(path) if path.iter().all(|name| !name.is_empty()) => references.push(Reference { path, span }),
                Some(_) | None => {
                    let span = if text.is_empty() { cursor.span_here() } else { span };
                    let help =
                        "a reference is a path from the root, such as `defaults.ike`; several are separated by commas";
                    return Err(self.stop(
                        Diagnostic::error(
                            "bad-reference",
                            Some(span),
                            "expected the path of a section to inherit from",
                        )
                        .with_help(help),
                    ));
                }
            }
            cursor.skip_space();
            if cursor.peek() != Some(b',') {
                return Ok(references);
            }
            cursor.bump();
        }
    }

    fn open_brace(
        &mut self,
        cursor: &mut Cursor<'_>,
        name: String,
        span: Span,
        references: Vec<Reference>,
    ) -> Result<(), Stop> {
        cursor.skip_space();
        if cursor.peek() != Some(b'{') {
            let message = "expected `{` after the references of this section";
            return Err(self.stop(Diagnostic::error("expected-brace", Some(cursor.span_here()), message)));
        }
        cursor.bump();
        if self.stack.len() > MAX_DEPTH {
            let message = format!("sections nest deeper than {MAX_DEPTH} levels");
            return Err(self.stop(Diagnostic::error("too-deep", Some(span), message)));
        }
        if name == "secrets" {
            self.sources.mark_sensitive(span.file, span.start, u32::MAX);
        }
        let mut section = Section::new(&name, span);
        section.add_references(references);
        self.stack.push(section);
        Ok(())
    }

    fn close(&mut self, cursor: &Cursor<'_>) {
        let Some(section) = self.stack.pop() else { return };
        if let (true, Some(span)) = (section.name() == "secrets", section.spans().last()) {
            self.sources.end_sensitive(span.file, span.start, cursor.span_here().start);
        }
        if let Some(parent) = self.stack.last_mut() {
            parent.merge_section(section);
        }
    }

    fn close_down_to(&mut self, base: usize) {
        while self.stack.len() > base {
            let Some(section) = self.stack.pop() else { return };
            if let Some(parent) = self.stack.last_mut() {
                parent.merge_section(section);
            }
        }
    }

    /// Reads what an `include` statement names; false when this is no such statement but a key or section of that name.
    fn include(&mut self, cursor: &mut Cursor<'_>, keyword: Span) -> Result<bool, Stop> {
        let after: Mark = cursor.mark();
        if !matches!(cursor.peek(), Some(b' ' | b'\t')) {
            return Ok(false);
        }
        cursor.skip_blanks();
        if matches!(cursor.peek(), None | Some(b'=' | b'\r' | b'\n')) {
            cursor.reset(after);
            return Ok(false);
        }
        let (pattern, span) = cursor.pattern().map_err(|error| self.unterminated(&error))?;
        let Some(pattern) = String::from_utf8(pattern).ok().filter(|p| !p.is_empty()) else {
            self.skipped(
                "bad-include",
                keyword,
                "expected a file name or pattern after `include`",
                "name one, or remove the line",
            );
            return Ok(true);
        };
        self.include_pattern(&pattern, span);
        Ok(true)
    }

    /// What an `include` cannot give is left out and the rest is read, as strongSwan does it; but it is said.
    fn skipped(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: &str) {
        self.diagnostics.push(Diagnostic::warning(code, Some(span), message).with_help(help));
    }

    fn include_pattern(&mut self, pattern: &str, span: Span) {
        let full = self.beside_current_file(pattern);
        let found = self.source.expand(&full);
        if found.is_empty() && !glob::has_wildcard(pattern) {
            let message = format!("included file {} does not exist", glob::unescape(&full));
            let help = "create it, correct the name, or use a pattern such as `conf.d/*.conf`, which may match nothing";
            self.skipped("include-missing", span, message, help);
        }
        for path in found {
            if self.is_beyond_measure(span) {
                return;
            }
            self.include_file(&path, span);
        }
    }

    /// Whether so many files have been read that no more are. That is said once, in place of what was said of includes before.
    fn is_beyond_measure(&mut self, span: Span) -> bool {
        if self.read == self.most {
            self.read += 1;
            self.diagnostics.retain(|finding| finding.severity == Severity::Error);
            let message = format!("more than {} files are included", self.most);
            let help = "let files not include each other: one file may include the others of its directory";
            self.diagnostics.push(Diagnostic::error("include-count", Some(span), message).with_help(help));
        }
        self.read > self.most
    }

    fn include_file(&mut self, path: &str, span: Span) {
        let canonical = self.source.canonical(path);
        if let Some(at) = self.reading.iter().position(|(name, _)| *name == canonical) {
            let chain: Vec<&str> =
                self.reading.iter().skip(at).map(|(_, shown)| shown.as_str()).chain([path]).collect();
            let message = format!("include loop: {}", chain.join(" -> "));
            self.skipped("include-loop", span, message, "remove one of these includes");
            return;
        }
        if self.reading.len() > MAX_INCLUDES {
            let message = format!("includes nest deeper than {MAX_INCLUDES} levels");
            self.skipped("include-depth", span, message, "include this file from a higher one");
            return;
        }
        if let Err(error) = self.file(path, Some(span)) {
            let message = format!("cannot read included file {path}: {error}");
            let help = if error.kind() == ErrorKind::IsADirectory {
                format!("include the files in it: `{path}/*.conf`")
            } else {
                "let it be read by whoever runs this, or remove the line".to_owned()
            };
            self.skipped("include-unreadable", span, message, &help);
        }
    }

    /// A pattern relative to the directory of the file being read.
    fn beside_current_file(&self, pattern: &str) -> String {
        if pattern.starts_with('/') {
            return pattern.to_owned();
        }
        match self.reading.last().and_then(|(_, path)| path.rsplit_once('/')) {
            Some((directory, _)) => format!("{}/{pattern}", glob::escape(directory)),
            None => pattern.to_owned(),
        }
    }

    fn in_secrets(&self) -> bool {
        self.stack.iter().any(|section| section.name() == "secrets")
    }

    fn checked_name(&mut self, name: &[u8], span: Span) -> Result<String, Stop> {
        if name.len() > MAX_NAME {
            let message = format!("this name has {} octets, at most {MAX_NAME} are possible", name.len());
            return Err(self.stop(Diagnostic::error("name-too-long", Some(span), message)));
        }
        match std::str::from_utf8(name) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(self.stop(Diagnostic::error("not-utf8", Some(span), "this name is not UTF-8 text"))),
        }
    }

    fn expected_name(&mut self, cursor: &Cursor<'_>) -> Stop {
        let message = "expected a key, a section name, `include` or `}`";
        let help = "names cannot hold blanks or any of . , : { } = \" #; put text with such characters into quotes on the right of `=`";
        self.stop(Diagnostic::error("expected-name", Some(cursor.span_here()), message).with_help(help))
    }

    fn expected_assignment(&mut self, cursor: &mut Cursor<'_>, name: &str, span: Span) -> Stop {
        cursor.skip_blanks();
        let message = if self.sources.is_sensitive(span) || self.in_secrets() {
            "expected `=` or `{` after this name".to_owned()
        } else {
            format!("expected `=` or `{{` after `{name}`")
        };
        let help = "write `key = value` for a setting and `name {` for a section; a value goes on in the next line only inside quotes";
        self.stop(Diagnostic::error("expected-assignment", Some(cursor.span_here()), message).with_help(help))
    }

    fn unterminated(&mut self, error: &Unterminated) -> Stop {
        let message = "this quote is never closed";
        let help = "add the closing `\"`; a quote inside a quoted string is written `\\\"`";
        self.stop(Diagnostic::error("unterminated-quote", Some(error.0), message).with_help(help))
    }

    fn stop(&mut self, finding: Diagnostic) -> Stop {
        debug_assert_eq!(finding.severity, Severity::Error);
        self.diagnostics.push(finding);
        Stop
    }
}
