//! What may reach a terminal: names and texts come from files and from peers.

use std::borrow::Cow;

/// The text with control characters, and those that are not seen or change the direction of writing, written out.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmless(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    Cow::Owned(out)
}

pub(super) fn is_printable(text: &str) -> bool {
    text.chars().all(is_harmless)
}

fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfeff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;
    use crate::vici::Message;

    #[test]
    fn what_drives_a_terminal_is_written_out() {
        assert!(matches!(printable("gw-ü.example"), Cow::Borrowed("gw-ü.example")));
        assert_eq!(printable("a\u{1b}[2J\r\nb\u{202e}c\u{9b}"), "a\\u{1b}[2J\\r\\nb\\u{202e}c\\u{9b}");
    }

    /// Names of sections and keys, and values, in every form.
    #[test]
    fn no_form_lets_it_through() {
        const EVIL: &str = "x\u{1b}[2J\u{9b}31m\r\nforged: #1\u{202e}";
        let mut leaf = Message::new().with("local-id", EVIL).with(EVIL, EVIL).with("state", EVIL).with("msg", EVIL);
        leaf.list("local-ts", [EVIL]);
        leaf.list("algorithms", [EVIL]);
        let mut children = Message::new();
        children.section(EVIL, leaf.clone());
        let mut branch = leaf.clone();
        branch.section("child-sas", children.clone());
        branch.section("children", children.clone());
        branch.section("leases", children.clone());
        branch.section("last-cause", leaf.clone().with("text", EVIL));
        branch.section(format!("local-{EVIL}"), leaf);
        let mut event = Message::new();
        event.section(EVIL, branch);
        let mut counters = Message::new();
        counters.section("counters", event.clone());
        let rows = || std::slice::from_ref(&event);
        let table = |table: text::Table| table.lines().1.into_iter().map(|(_, line)| line + "\n").collect::<String>();
        let all = [
            text::list_sa(&event),
            text::list_conn(&event),
            text::list_policy(&event),
            text::list_authority(&event),
            text::pools(&event),
            text::algorithms(&event),
            text::counters(&counters),
            text::cygnet_child(&event, 0, 4, &|_| String::new()),
            text::cygnet_backend_sa(&event),
            text::cygnet_block(&event),
            text::cygnet_check(&event),
            text::cygnet_devices(rows()),
            text::cygnet_step(&event),
            text::cygnet_webhook(&event),
            text::cygnet_delivery(&event),
            text::forecast(EVIL, &event),
            table(text::cygnet_totals(rows(), &|_| String::new())),
            table(text::cygnet_generations(rows(), &|_| String::new())),
            table(text::cygnet_past_ikes(rows(), &|_| String::new())),
            table(text::cygnet_raised(&[Message::new().with("connection", EVIL).with("group", EVIL)], |_| {
                String::new()
            })),
            text::labelled("list-sa event", &event),
            text::pretty("list-sa event", &event),
        ];
        for (number, shown) in all.iter().enumerate() {
            let harmless = shown.lines().all(|line| is_printable(line) && !line.starts_with("forged"));
            assert!(harmless && !shown.is_empty(), "{number}: {shown:?}");
        }
    }
}
