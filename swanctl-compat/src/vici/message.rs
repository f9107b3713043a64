//! A VICI message: an ordered tree of sections, lists and key/value pairs.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The octets of one value or list item. Wiped on drop, since any message may carry a secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Value(Vec<u8>);

impl Value {
    /// The octets.
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

impl From<Vec<u8>> for Value {
    fn from(octets: Vec<u8>) -> Self {
        Self(octets)
    }
}

impl From<&[u8]> for Value {
    fn from(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} octets]", self.0.len())
    }
}

/// One element of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// A named group of elements.
    Section(String, Message),
    /// A named list of values.
    List(String, Vec<Value>),
    /// A named value.
    KeyValue(String, Value),
}

impl Element {
    /// The value of a key.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::KeyValue(_, value) => Some(value),
            Self::Section(..) | Self::List(..) => None,
        }
    }

    /// The element's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Section(name, _) | Self::List(name, _) | Self::KeyValue(name, _) => name,
        }
    }
}

/// A message, or the content of a section: elements in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    elements: Vec<Element>,
}

impl Message {
    /// A message without elements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The elements in order.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Appends an element.
    pub fn push(&mut self, element: Element) {
        self.elements.push(element);
    }

    /// Appends a key/value pair.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.push(Element::KeyValue(key.into(), value.into()));
    }

    /// Appends a key/value pair holding a decimal number or anything else that prints itself.
    pub fn set_display(&mut self, key: impl Into<String>, value: impl fmt::Display) {
        self.set(key, value.to_string());
    }

    /// Appends `key=yes` if `value` holds; VICI leaves out what is false.
    pub fn set_if(&mut self, key: &str, value: bool) {
        if value {
            self.set(key, "yes");
        }
    }

    /// Appends a list.
    pub fn list<V: Into<Value>>(&mut self, name: impl Into<String>, items: impl IntoIterator<Item = V>) {
        self.push(Element::List(name.into(), items.into_iter().map(Into::into).collect()));
    }

    /// Appends a section.
    pub fn section(&mut self, name: impl Into<String>, content: Message) {
        self.push(Element::Section(name.into(), content));
    }

    /// Like [`Self::set`], for building in one expression.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.elements.iter().find_map(|element| match element {
            Element::KeyValue(name, value) if name == key => Some(value),
            Element::KeyValue(..) | Element::List(..) | Element::Section(..) => None,
        })
    }

    /// The value of `key` as text.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Whether `key` is `yes`.
    #[must_use]
    pub fn is_yes(&self, key: &str) -> bool {
        self.get_str(key) == Some("yes")
    }

    /// The items of list `name`.
    #[must_use]
    pub fn get_list(&self, name: &str) -> Option<&[Value]> {
        self.elements.iter().find_map(|element| match element {
            Element::List(list, items) if list == name => Some(items.as_slice()),
            Element::KeyValue(..) | Element::List(..) | Element::Section(..) => None,
        })
    }

    /// The text items of list `name`; empty when there is no such list.
    pub fn list_strs<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get_list(name).unwrap_or_default().iter().filter_map(Value::as_str)
    }

    /// Section `name`.
    #[must_use]
    pub fn get_section(&self, name: &str) -> Option<&Message> {
        self.sections().find(|(section, _)| *section == name).map(|(_, content)| content)
    }

    /// All sections in order.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Message)> {
        self.elements.iter().filter_map(|element| match element {
            Element::Section(name, content) => Some((name.as_str(), content)),
            Element::KeyValue(..) | Element::List(..) => None,
        })
    }

    /// The first name that stands twice among the elements of one section, here or below.
    #[must_use]
    pub fn duplicate_name(&self) -> Option<&str> {
        let mut seen = std::collections::BTreeSet::new();
        let twice = self.elements.iter().map(Element::name).find(|name| !seen.insert(*name));
        twice.or_else(|| self.sections().find_map(|(_, content)| content.duplicate_name()))
    }
}
