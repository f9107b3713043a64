//! A section of the settings as the VICI section that swanctl sends, noting where everything stands.

use crate::keys::Scope;
use crate::settings::{Entry, Settings, Span, View};
use crate::vici::{Message, Value};

use super::spans::Spans;

/// Whether swanctl sends key `name` as a list, whatever section it stands in.
fn is_list(name: &str) -> bool {
    [Scope::Connection, Scope::Local, Scope::Remote, Scope::Child]
        .iter()
        .any(|scope| scope.keys().iter().any(|key| key.list && key.name == name))
}

/// How deep a connection's sections may nest. What swanctl knows has four levels.
const MAX_DEPTH: usize = 16;

/// Most sections of one connection.
const MAX_SECTIONS: usize = 10_000;

/// Turns one connection into its message. References can make a section inherit what contains it, without end; that is cut and reported.
pub(super) struct Translation<'s> {
    settings: &'s Settings,
    /// Where everything stands.
    pub(super) spans: Spans,
    sections: usize,
    /// The reference that makes inheritance go on without end.
    pub(super) endless: Option<Span>,
}

impl<'s> Translation<'s> {
    pub(super) fn new(settings: &'s Settings) -> Self {
        Self { settings, spans: Spans::default(), sections: 0, endless: None }
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
            if is_list(&entry.name) {
                let items = items(entry, octets, &path, self.settings, &mut self.spans);
                message.list(entry.name.as_str(), items);
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
