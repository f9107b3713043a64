//! Reading `cygnetd.toml` and `cygnetd.d/*.toml`, with the place of everything that is wrong.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, SECTIONS};
use super::{Config, DEFAULT_PATH, Finding};
use super::{nic, vici};

/// Reads the settings: `path` must exist when given; without it the default file may be missing. Drop-ins stand beside the file in
/// `cygnetd.d` and are applied in the order of their names, later ones winning.
///
/// # Errors
/// Everything that is wrong in any of the files.
pub(crate) fn load(path: Option<&Path>) -> Result<Config, Vec<Finding>> {
    let mut config = Config::default();
    let mut findings = Vec::new();
    let mut deferred = Vec::new();
    let main = path.unwrap_or(Path::new(DEFAULT_PATH));
    match fs::read_to_string(main) {
        Ok(text) => apply(&mut config, main, &text, &mut findings, &mut deferred),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => {}
        Err(error) => findings.push(whole_file(main, format!("cannot be read: {error}"))),
    }
    for file in drop_ins(main, &mut findings) {
        match fs::read_to_string(&file) {
            Ok(text) => apply(&mut config, &file, &text, &mut findings, &mut deferred),
            Err(error) => findings.push(whole_file(&file, format!("cannot be read: {error}"))),
        }
    }
    let counting = deferred.into_iter().filter(|(condition, _)| (condition.counts)(&config));
    findings.extend(counting.map(|(_, finding)| finding));
    if findings.is_empty() {
        keys::cross_check(&config).map_err(|message| vec![whole_file(main, message)])?;
        return Ok(config);
    }
    Err(findings)
}

/// The files that [`load`] reads, as far as there are any.
pub(crate) fn files(path: Option<&Path>) -> Vec<PathBuf> {
    let main = path.unwrap_or(Path::new(DEFAULT_PATH));
    // What cannot be read is found by whoever reads it.
    let drop_ins = drop_ins(main, &mut Vec::new());
    [main.to_owned()].into_iter().filter(|main| main.exists()).chain(drop_ins).collect()
}

fn drop_ins(main: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    let directory = main.with_file_name("cygnetd.d");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            findings.push(whole_file(&directory, format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("toml")))
        .collect();
    files.sort();
    files
}

fn whole_file(file: &Path, message: String) -> Finding {
    Finding { file: file.display().to_string(), line: 0, column: 0, message }
}

/// When a finding about a key counts: other keys, maybe in other files, decide that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deferred {
    /// What the finding is about. A later file that sets it takes the finding away, and may bring its own.
    pub(super) key: &'static str,
    /// Whether it counts with everything read.
    pub(super) counts: fn(&Config) -> bool,
}

/// Applies one file's text to `config`.
pub(super) fn apply(
    config: &mut Config,
    file: &Path,
    text: &str,
    findings: &mut Vec<Finding>,
    deferred: &mut Vec<(Deferred, Finding)>,
) {
    let mut reader = Reader { file, text, findings, deferred };
    match DeTable::parse(text) {
        Ok(root) => reader.root(config, root.get_ref()),
        Err(error) => reader.report(error.span().unwrap_or_default(), error.message().to_owned()),
    }
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    findings: &'a mut Vec<Finding>,
    deferred: &'a mut Vec<(Deferred, Finding)>,
}

impl Reader<'_> {
    fn report(&mut self, span: Range<usize>, message: String) {
        let finding = self.finding(span, message);
        self.findings.push(finding);
    }

    fn finding(&self, span: Range<usize>, message: String) -> Finding {
        let (line, column) = position(self.text, span.start);
        Finding { file: self.file.display().to_string(), line, column, message }
    }

    fn root(&mut self, config: &mut Config, root: &DeTable<'_>) {
        for (name, value) in root {
            #[cfg(feature = "webhook")]
            if name.get_ref() == keys::WEBHOOK {
                for (at, message) in super::webhook::read(&mut config.webhooks, name.span(), value) {
                    self.report(at, message);
                }
                continue;
            }
            self.section(config, name.get_ref(), name.span(), value);
        }
    }

    /// A section: its keys, and below it sections such as `backend.userspace`.
    fn section(&mut self, config: &mut Config, path: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        if let Some(reason) = keys::absent(path) {
            return self.report(at, reason);
        }
        let is_section = value.get_ref().is_table() || value.get_ref().is_array();
        if !SECTIONS.contains(&path) && !is_section {
            return self.report(at, keys::stray_key(path));
        }
        if !SECTIONS.contains(&path) {
            return self.report(at, keys::unknown_section(path));
        }
        let Some(table) = value.get_ref().as_table() else {
            return self.report(at, format!("`{path}` is a section: write [{path}]"));
        };
        for (name, value) in table {
            let inner = format!("{path}.{}", name.get_ref());
            if SECTIONS.contains(&inner.as_str()) || value.get_ref().is_table() || keys::absent(&inner).is_some() {
                self.section(config, &inner, name.span(), value);
            } else if let Some(set) = keys::find(&inner) {
                if let Err(message) = set(config, value.get_ref()) {
                    self.report(value.span(), format!("`{inner}` {message}"));
                } else {
                    self.defer(&inner, name.span(), value);
                }
            } else {
                self.report(name.span(), keys::unknown_key(path, name.get_ref()));
            }
        }
    }

    /// What is right or wrong only with everything read.
    fn defer(&mut self, key: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        self.deferred.retain(|(condition, _)| condition.key != key);
        if let Some(message) = nic::needs_simulation(key, value.get_ref()) {
            let finding = self.finding(at, message);
            self.deferred.push((nic::SIMULATED, finding));
        }
        for (at, message) in vici::unless_allowed(key, value) {
            let finding = self.finding(at, message);
            self.deferred.push((vici::REMOTE, finding));
        }
    }
}

/// Line and column, from 1, of octet `at`; columns count characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}
