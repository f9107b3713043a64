//! Findings about configuration, and their printed form: `file:line:column`, the line, a caret, and what to do.

use std::fmt::Write as _;

use super::source::{Sources, Span};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Legal, but likely not what was meant.
    Warning,
    /// Cannot be loaded.
    Error,
}

impl Severity {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding. `message` never quotes text from a sensitive place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable short name of the kind of finding, for scripts.
    pub code: &'static str,
    /// Where, if it has a place in a file.
    pub span: Option<Span>,
    /// Configuration path, such as `connections.a.children.net.local_ts`.
    pub path: Option<String>,
    /// One sentence: what is wrong and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without help or path.
    #[must_use]
    pub fn error(code: &'static str, span: Option<Span>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, span, path: None, message: message.into(), help: None }
    }

    /// A warning without help or path.
    #[must_use]
    pub fn warning(code: &'static str, span: Option<Span>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the configuration path.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The printed form, ending in a newline.
    #[must_use]
    pub fn render(&self, sources: &Sources) -> String {
        let mut out = String::new();
        let severity = self.severity.as_str();
        match self.span {
            Some(span) => {
                let path = sources.path(span.file);
                let _ = writeln!(out, "{path}:{}:{}: {severity}: {}", span.line, span.column, self.message);
                out.push_str(&caret_lines(sources, span));
            }
            None => {
                let _ = writeln!(out, "{severity}: {}", self.message);
            }
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  help: {help}");
        }
        out
    }
}

/// Characters of a line that are shown; of a longer one, those around the caret.
const MOST_SHOWN: usize = 160;
/// Of a longer line, characters shown before the caret.
const SHOWN_BEFORE: usize = 60;

/// The source line with a gutter, and the caret line below it.
fn caret_lines(sources: &Sources, span: Span) -> String {
    let (line, masked) = sources.shown_line(span);
    // Columns count octets, carets stand below characters.
    let (column, marked) = sources.characters(span);
    let length = line.chars().count();
    // A masked line has other columns: the caret then points at the first hidden character unless it stands before it.
    let column = if masked {
        column.min(line.find("***").map_or(0, |at| line.get(..at).map_or(0, |t| t.chars().count())))
    } else {
        column
    };
    let width = marked.max(1).min(length.saturating_sub(column).max(1));
    let (line, column, width) = excerpt(line, column, width);
    let number = span.line.to_string();
    let gutter = " ".repeat(number.len());
    format!(" {number} | {line}\n {gutter} | {}{}\n", " ".repeat(column), "^".repeat(width))
}

/// What of a long line is shown, where the caret stands below that, and how many of them fit.
fn excerpt(line: String, column: usize, width: usize) -> (String, usize, usize) {
    if line.chars().count() <= MOST_SHOWN {
        return (line, column, width);
    }
    let from = column.saturating_sub(SHOWN_BEFORE);
    let mut shown: String = line.chars().skip(from).take(MOST_SHOWN).collect();
    let column = column - from;
    let width = width.min(shown.chars().count().saturating_sub(column).max(1));
    if line.chars().nth(from + MOST_SHOWN).is_some() {
        shown.push('…');
    }
    if from == 0 { (shown, column, width) } else { (format!("…{shown}"), column + 1, width) }
}

/// The candidate that looks most like `word`, if one is close enough to be a likely slip of the keyboard.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance counting insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&row, j) + usize::from(ca != cb)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_need_to_be_close() {
        let keys = ["esp_proposals", "local_ts", "remote_ts", "rekey_time"];
        assert_eq!(did_you_mean("esp_proposal", keys), Some("esp_proposals"));
        assert_eq!(did_you_mean("loacl_ts", keys), Some("local_ts"));
        assert_eq!(did_you_mean("Rekey_Time", keys), Some("rekey_time"));
        assert_eq!(did_you_mean("bogus", keys), None);
    }

    #[test]
    fn of_a_long_line_what_is_around_the_caret_is_shown() {
        let line = |before: usize, after: usize| format!("{}HERE{}", "a".repeat(before), "b".repeat(after));
        assert_eq!(excerpt(line(80, 76), 80, 4), (line(80, 76), 80, 4));
        assert_eq!(excerpt(line(10, 200), 10, 4), (format!("{}…", line(10, 146)), 10, 4));
        assert_eq!(excerpt(line(500, 0), 500, 4), (format!("…{}", line(60, 0)), 61, 4));
        assert_eq!(excerpt(line(500, 500), 500, 400), (format!("…{}…", line(60, 96)), 61, 100));
        assert_eq!(excerpt(line(500, 0), 504, 1), (format!("…{}", line(60, 0).split_off(4)), 61, 1));
    }

    #[test]
    fn distance_counts_swaps_as_one() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
