//! What of the log is raised.

use std::time::Duration;

use crate::request::{Detail, Part};
use crate::vici::Message;

/// The `cygnet-raised` event: keys `connection` (`*` = all of them, and what is about none), `group` where it is one only, `level`, `until` (seconds
/// since the epoch, of which `now` is the present one) and `left` (seconds).
#[must_use]
pub fn cygnet_raised(part: &Part, detail: Detail, left: Duration, now: u64) -> Message {
    let mut message = Message::new().with("connection", part.connection.as_deref().unwrap_or("*"));
    if let Some(group) = part.group {
        message.set("group", group);
    }
    message.set_display("level", detail);
    message.set_display("until", now.saturating_add(left.as_secs()));
    message.set_display("left", left.as_secs());
    message
}
