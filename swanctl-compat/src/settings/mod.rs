//! The settings language of swanctl.conf: files, sections, keys, includes, references, and where each of them stands.
//!
//! [`Settings::load`] reads a file with everything it includes. Whatever is wrong becomes a [`Diagnostic`] with file, line and column; the tree then
//! holds what could be read. What the keys *mean* is left to [`crate::keys`] and [`crate::load_conn`].

mod cursor;
mod diagnostic;
mod glob;
mod parser;
mod source;
mod tree;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use glob::escape as escape_pattern;

pub use diagnostic::{Diagnostic, Severity, did_you_mean};
pub use source::{FileId, FileSource, OsFiles, Sources, Span};
pub use tree::{Entry, MAX_DEPTH, Reference, Section, Value, View};

/// Everything that one configuration file and its includes say.
pub struct Settings {
    pub(crate) root: Section,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
}

impl std::fmt::Debug for Settings {
    /// Without the tree: in a broken file even a name may be a piece of a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("sources", &self.sources)
            .field("diagnostics", &self.diagnostics)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads `path` and what it includes.
    #[must_use]
    pub fn load(source: &dyn FileSource, path: &str) -> Self {
        let mut loader = parser::Loader::new(source);
        loader.root_file(path);
        loader.finish()
    }

    /// The root with references followed.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::root(&self.root)
    }

    /// The root section as written.
    #[must_use]
    pub fn root(&self) -> &Section {
        &self.root
    }

    /// The files, for printing diagnostics.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Whether what is written at `span` belongs where it seems to: no mistake in the form of the files comes before it. Of a file with a brace too
    /// many nothing does, for the section that was closed too early lies above it.
    #[must_use]
    pub fn stands(&self, span: Span) -> bool {
        let mistakes = || self.diagnostics.iter().filter(|finding| finding.severity == Severity::Error);
        let mut here = Some(span);
        while let Some(span) = here {
            let moved = |mistake: Span| mistake.file == span.file && mistake.start <= span.start;
            if mistakes().any(|finding| {
                finding
                    .span
                    .is_some_and(|mistake| moved(mistake) || finding.code == "stray-brace" && mistake.file == span.file)
            }) {
                return false;
            }
            here = self.sources.included_at(span.file);
        }
        true
    }

    /// What was wrong with the text.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}

/// Whether a key's value is a secret wherever it appears.
#[must_use]
pub fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "pin", "password", "passphrase", "psk"]
        .iter()
        .any(|word| name.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic())))
}
