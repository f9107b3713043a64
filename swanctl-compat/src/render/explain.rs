//! `cygnet-explain`: what is or would be installed, as commands.

use crate::explain::Block;
use crate::vici::Message;

/// The `cygnet-block` event: `CONNECTION/CHILD { of, state, about, commands[] }`; the state is `installed` or `planned`.
#[must_use]
pub fn cygnet_block(block: &Block) -> Message {
    let mut m = Message::new();
    m.set("of", block.of.as_str());
    m.set("state", block.state);
    m.set("about", block.about.as_str());
    m.list("commands", block.commands.iter().map(String::as_str));
    let mut message = Message::new();
    message.section(block.of.as_str(), m);
    message
}
