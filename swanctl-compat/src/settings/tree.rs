//! The tree that the files describe, and views of it with references resolved.
//!
//! Keys and sections of one section live in separate name spaces, each in order of first appearance. References are kept as text and followed
//! when somebody looks: [`View`] stacks a section's own content above what it inherits.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::source::Span;

/// How deep sections may nest.
pub const MAX_DEPTH: usize = 64;

/// Sections looked at while following the references of one look-up, after which the rest is cut.
const MAX_REFERENCE_STEPS: usize = 10_000;

/// A key's value, wiped on drop and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Zeroizing<Vec<u8>>);

impl Value {
    pub(crate) fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }

    /// The octets as written, quotes and escapes removed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `key = value`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub name_span: Span,
    /// The value; `None` for `key =`, which hides an inherited value.
    pub value: Option<Value>,
    /// Where the value stands (empty behind the `=` when there is none).
    pub value_span: Span,
    /// An earlier statement for the same key in this section that this one replaced.
    pub replaced: Option<Span>,
}

/// `: path`.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Absolute path from the root.
    pub path: Vec<String>,
    /// Where it stands.
    pub span: Span,
}

/// One section with everything said about it in all files.
#[derive(Debug, Clone, Default)]
pub struct Section {
    name: String,
    spans: Vec<Span>,
    references: Vec<Reference>,
    entries: Vec<Entry>,
    entry_index: BTreeMap<String, usize>,
    sections: Vec<Section>,
    section_index: BTreeMap<String, usize>,
}

impl Section {
    pub(super) fn new(name: &str, span: Span) -> Self {
        Self { name: name.to_owned(), spans: vec![span], ..Self::default() }
    }

    /// The name; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the section's name stands, once per appearance.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// References in order.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Own keys in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Own sections in order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Own key `name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entry_index.get(name).and_then(|&at| self.entries.get(at))
    }

    /// Own section `name`.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.section_index.get(name).and_then(|&at| self.sections.get(at))
    }

    pub(super) fn add_references(&mut self, references: Vec<Reference>) {
        self.references.extend(references);
    }

    /// The last statement wins and keeps the place of the first.
    pub(super) fn set(&mut self, mut entry: Entry) {
        if let Some(slot) = self.entry_index.get(&entry.name).and_then(|&at| self.entries.get_mut(at)) {
            entry.replaced = Some(slot.name_span);
            *slot = entry;
            return;
        }
        self.entry_index.insert(entry.name.clone(), self.entries.len());
        self.entries.push(entry);
    }

    /// Adds `section`, merging it into one of the same name.
    pub(super) fn merge_section(&mut self, section: Section) {
        if let Some(existing) = self.section_index.get(&section.name).and_then(|&at| self.sections.get_mut(at)) {
            existing.merge(section);
            return;
        }
        self.section_index.insert(section.name.clone(), self.sections.len());
        self.sections.push(section);
    }

    fn merge(&mut self, other: Section) {
        self.spans.extend(other.spans);
        self.references.extend(other.references);
        for entry in other.entries {
            self.set(entry);
        }
        for section in other.sections {
            self.merge_section(section);
        }
    }
}

/// A section as it looks with its references followed: its own content first, then what it inherits.
#[derive(Debug, Clone)]
pub struct View<'t> {
    root: &'t Section,
    layers: Vec<&'t Section>,
}

impl<'t> View<'t> {
    /// The view of the root section.
    #[must_use]
    pub fn root(root: &'t Section) -> Self {
        Self { root, layers: vec![root] }
    }

    /// The name of the section itself.
    #[must_use]
    pub fn name(&self) -> &'t str {
        self.layers.first().map_or("", |s| s.name())
    }

    /// Where the section begins (its first own appearance, or that of the section it is inherited from).
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.layers.first().and_then(|s| s.spans().first().copied())
    }

    /// The section itself and the sections that it inherits from, nearest first.
    #[must_use]
    pub fn layers(&self) -> &[&'t Section] {
        &self.layers
    }

    /// The nearest statement for `name`; nothing if that one is `name =`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'t Entry> {
        self.layers.iter().find_map(|s| s.entry(name)).filter(|entry| entry.value.is_some())
    }

    /// All keys that have a value: own ones first, then inherited ones that are not hidden.
    #[must_use]
    pub fn entries(&self) -> Vec<&'t Entry> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.layers.iter().flat_map(|s| s.entries());
        all.filter(|entry| seen.insert(entry.name.as_str())).filter(|entry| entry.value.is_some()).collect()
    }

    /// All sections: own ones first, then inherited ones.
    #[must_use]
    pub fn sections(&self) -> Vec<View<'t>> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.layers.iter().flat_map(|s| s.sections());
        let names: Vec<&str> = all.map(Section::name).filter(|name| seen.insert(*name)).collect();
        names.into_iter().filter_map(|name| self.section(name)).collect()
    }

    /// Section `name`, own or inherited.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<View<'t>> {
        let mut walk = Walk { root: self.root, in_progress: Vec::new(), steps: 0 };
        let layers = walk.child(&self.layers, name);
        if layers.is_empty() { None } else { Some(View { root: self.root, layers }) }
    }

    /// The section at an absolute path.
    #[must_use]
    pub fn at(&self, path: &[String]) -> Option<View<'t>> {
        let mut walk = Walk { root: self.root, in_progress: Vec::new(), steps: 0 };
        let layers = walk.resolve(path);
        if layers.is_empty() { None } else { Some(View { root: self.root, layers }) }
    }
}

/// One look-up: follows references depth first and cuts loops.
struct Walk<'t> {
    root: &'t Section,
    in_progress: Vec<*const Section>,
    steps: usize,
}

impl<'t> Walk<'t> {
    fn child(&mut self, layers: &[&'t Section], name: &str) -> Vec<&'t Section> {
        let mut out = Vec::new();
        for layer in layers {
            if let Some(section) = layer.section(name) {
                self.add(section, &mut out);
            }
        }
        out
    }

    fn add(&mut self, section: &'t Section, out: &mut Vec<&'t Section>) {
        self.steps += 1;
        let pointer: *const Section = section;
        let known = self.in_progress.contains(&pointer) || out.iter().any(|s| std::ptr::eq(*s, section));
        if known || self.steps > MAX_REFERENCE_STEPS {
            return;
        }
        out.push(section);
        self.in_progress.push(pointer);
        for reference in section.references() {
            for inherited in self.resolve(&reference.path) {
                if !out.iter().any(|s| std::ptr::eq(*s, inherited)) {
                    out.push(inherited);
                }
            }
        }
        self.in_progress.pop();
    }

    fn resolve(&mut self, path: &[String]) -> Vec<&'t Section> {
        let mut layers = vec![self.root];
        for name in path {
            layers = self.child(&layers, name);
        }
        layers
    }
}
