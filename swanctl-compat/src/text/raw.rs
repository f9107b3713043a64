//! The raw and the pretty form of messages.

use std::fmt::Write as _;

use super::{printable, show_raw as show};
use crate::vici::{Element, Message};

/// `LABEL {` elements `}` on one line.
#[must_use]
pub fn labelled(label: &str, message: &Message) -> String {
    format!("{label} {{{}}}\n", raw(message))
}

/// Elements on one line: `key=value`, `name {...}`, `list=[a b]`.
#[must_use]
pub fn raw(message: &Message) -> String {
    let one = |element: &Element| match element {
        Element::KeyValue(name, value) => format!("{}={}", printable(name), show(value)),
        Element::List(name, items) => {
            format!("{}=[{}]", printable(name), items.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        // The counters of no connection in particular have a section without a name; the blank behind it stays.
        Element::Section(name, content) => format!("{} {{{}}}", printable(name), raw(content)),
    };
    message.elements().iter().map(one).collect::<Vec<_>>().join(" ")
}

/// One element per line, indented by two blanks per level.
#[must_use]
pub fn pretty(label: &str, message: &Message) -> String {
    let mut out = format!("{label} {{\n");
    elements(message, 1, &mut out);
    out.push_str("}\n");
    out
}

fn elements(message: &Message, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for element in message.elements() {
        let name = printable(element.name());
        match element {
            Element::KeyValue(_, value) => {
                let _ = writeln!(out, "{indent}{name} = {}", show(value));
            }
            Element::List(_, items) => {
                let _ = writeln!(out, "{indent}{name} = [");
                for item in items {
                    let _ = writeln!(out, "{indent}  {}", show(item));
                }
                let _ = writeln!(out, "{indent}]");
            }
            Element::Section(_, content) => {
                let _ = writeln!(out, "{indent}{name} {{");
                elements(content, depth + 1, out);
                let _ = writeln!(out, "{indent}}}");
            }
        }
    }
}
