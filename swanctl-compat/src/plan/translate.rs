//! A section of the settings as the VICI section that swanctl sends, noting where everything stands.

use crate::keys::Scope;
use crate::settings::{Entry, Settings, View};
use crate::vici::{Message, Value};

use super::spans::Spans;

/// Whether swanctl sends key `name` as a list, whatever section it stands in.
fn is_list(name: &str) -> bool {
    [Scope::Connection, Scope::Local, Scope::Remote, Scope::Child]
        .iter()
        .any(|scope| scope.keys().iter().any(|key| key.list && key.name == name))
}

/// The content of `view`: its keys, then its sections, as [`View`] orders them.
pub(super) fn section(view: &View<'_>, path: &str, settings: &Settings, spans: &mut Spans) -> Message {
    if let Some(span) = view.span() {
        spans.add(path.to_owned(), span, span);
    }
    let mut message = Message::new();
    for entry in view.entries() {
        let path = format!("{path}.{}", entry.name);
        spans.add(path.clone(), entry.name_span, entry.value_span);
        let octets = entry.value.as_ref().map(crate::settings::Value::as_bytes).unwrap_or_default();
        if is_list(&entry.name) {
            message.list(entry.name.as_str(), items(entry, octets, &path, settings, spans));
        } else {
            message.set(entry.name.as_str(), octets);
        }
    }
    for child in view.sections() {
        let name = child.name();
        let content = section(&child, &format!("{path}.{name}"), settings, spans);
        message.section(name, content);
    }
    message
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
