//! A section of the settings as the VICI section that swanctl sends, noting where everything stands.

use crate::keys::Scope;
use crate::secret;
use crate::settings::{Entry, FileSource, Settings, Span, View};
use crate::vici::{Message, Value};

use super::spans::Spans;

/// Which keys are lists, and which name files whose content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `connections.<conn>`: a key has the same form wherever it stands below.
    Connection,
    /// `pools.<name>`: everything but the addresses is a list.
    Pool,
    /// `authorities.<name>`
    Authority,
}

impl Form {
    fn is_list(self, name: &str) -> bool {
        match self {
            Self::Connection => [Scope::Connection, Scope::Local, Scope::Remote, Scope::Child]
                .iter()
                .any(|scope| scope.keys().iter().any(|key| key.list && key.name == name)),
            Self::Pool => name != "addrs",
            Self::Authority => matches!(name, "crl_uris" | "ocsp_uris"),
        }
    }

    /// The directory beside `swanctl.conf` that holds the files which a key names.
    fn directory(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Self::Connection, "certs") => Some("x509"),
            (Self::Connection, "cacerts") | (Self::Authority, "cacert") => Some("x509ca"),
            (Self::Connection, "pubkeys") => Some("pubkey"),
            (Self::Connection | Self::Pool | Self::Authority, _) => None,
        }
    }
}

/// How deep a connection's sections may nest. What swanctl knows has four levels.
const MAX_DEPTH: usize = 16;

/// Most sections of one connection.
const MAX_SECTIONS: usize = 10_000;

/// Turns one section into its message. References can make a section inherit what contains it, without end; that is cut and reported.
pub(super) struct Translation<'s> {
    settings: &'s Settings,
    source: &'s dyn FileSource,
    form: Form,
    /// Where everything stands.
    pub(super) spans: Spans,
    sections: usize,
    /// The reference that makes inheritance go on without end.
    pub(super) endless: Option<Span>,
    /// The first file that cannot be read, and why.
    pub(super) unreadable: Option<String>,
}

impl<'s> Translation<'s> {
    pub(super) fn new(settings: &'s Settings, source: &'s dyn FileSource, form: Form) -> Self {
        Self { settings, source, form, spans: Spans::default(), sections: 0, endless: None, unreadable: None }
    }

    /// The content of `view`: its keys, then its sections, as [`View`] orders them.
    pub(super) fn section(&mut self, view: &View<'_>, path: &str) -> Message {
        self.content(view, path, 0, None)
    }

    fn content(&mut self, view: &View<'_>, path: &str, depth: usize, inherited_at: Option<Span>) -> Message {
        let reference = view.layers().first().and_then(|section| section.references().first()).map(|r| r.span);
        let inherited_at = reference.or(inherited_at);
        if let Some(span) = view.span() {
            self.spans.add(path.to_owned(), span, span);
        }
        let mut message = Message::new();
        self.sections += 1;
        if depth > MAX_DEPTH || self.sections > MAX_SECTIONS {
            self.endless = self.endless.or(inherited_at).or(view.span());
            return message;
        }
        for entry in view.entries() {
            let path = format!("{path}.{}", entry.name);
            self.spans.add(path.clone(), entry.name_span, entry.value_span);
            let octets = entry.value.as_ref().map(crate::settings::Value::as_bytes).unwrap_or_default();
            let directory = self.form.directory(&entry.name);
            if self.form.is_list(&entry.name) {
                let mut items = items(entry, octets, &path, self.settings, &mut self.spans);
                if let Some(directory) = directory {
                    items = items.iter().map(|item| self.content_of(item.as_bytes(), directory)).collect();
                }
                message.list(entry.name.as_str(), items);
            } else if let Some(directory) = directory {
                let content = self.content_of(octets, directory);
                message.set(entry.name.as_str(), content);
            } else {
                message.set(entry.name.as_str(), octets);
            }
        }
        for child in view.sections() {
            let name = child.name();
            let content = self.content(&child, &format!("{path}.{name}"), depth + 1, inherited_at);
            message.section(name, content);
        }
        message
    }
}

impl Translation<'_> {
    /// What a value that names a file stands for: inline octets behind `0x` or `0s`, or the file's content.
    fn content_of(&mut self, name: &[u8], directory: &str) -> Value {
        if name.starts_with(b"0x") || name.starts_with(b"0s") {
            return match secret::decode(name) {
                Ok(octets) => Value::from(octets.as_slice()),
                Err(error) => self.cannot_read(format!("expected {}", error.expected())),
            };
        }
        let name = String::from_utf8_lossy(name);
        let file = self.settings.sources().paths().next().unwrap_or_default();
        let path = match file.rsplit_once('/') {
            _ if name.starts_with('/') => name.into_owned(),
            Some((beside, _)) => format!("{beside}/{directory}/{name}"),
            None => format!("{directory}/{name}"),
        };
        match self.source.read(&path) {
            Ok(octets) => Value::from(octets),
            Err(error) => self.cannot_read(format!("{path}: {error}")),
        }
    }

    fn cannot_read(&mut self, why: String) -> Value {
        self.unreadable.get_or_insert(why);
        Value::from("")
    }
}

/// The items of a list: separated by commas, blanks around them trimmed, empty ones left out.
fn items(entry: &Entry, octets: &[u8], path: &str, settings: &Settings, spans: &mut Spans) -> Vec<Value> {
    let mut from = entry.value_span;
    let mut out = Vec::new();
    for item in octets.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()) {
        let place = std::str::from_utf8(item).map_or(entry.value_span, |text| settings.sources().narrow(from, text));
        if place.start > from.start || place.end < from.end {
            from = settings.sources().after(from, place);
        }
        spans.add(format!("{path}[{}]", out.len()), entry.name_span, place);
        out.push(Value::from(item));
    }
    out
}
