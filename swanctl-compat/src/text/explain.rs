//! `cygnet explain`: commands, each block under a comment.

use super::{field, show};
use crate::vici::Message;

/// One block: `# site/net4, installed: why.` and its commands, then an empty line.
#[must_use]
pub fn cygnet_block(event: &Message) -> String {
    let Some((_, block)) = event.sections().next() else { return String::new() };
    let f = |key| field(block, key);
    let mut text = format!("# {}, {}: {}.\n", f("of"), f("state"), f("about"));
    for command in block.get_list("commands").unwrap_or_default() {
        text.push_str(&show(command));
        text.push('\n');
    }
    text.push('\n');
    text
}
