//! `cygnet-history` and `cygnet-events`: which part of the past.

use ike_model::history::Wanted;

use super::{RequestError, number, refuse, selected, text};
use crate::units;
use crate::vici::Message;

/// Keys: `ike`, `child`, `gateway` (`*` = all), `type` (names of events with commas between, `*` at the end of one for any rest), `cause`, `since`
/// and `until` (milliseconds since the epoch), `limit`.
pub(super) fn wanted(message: &Message) -> Result<Wanted, RequestError> {
    Ok(Wanted {
        gateway: text(message, "gateway"),
        connection: selected(message, "ike"),
        child: selected(message, "child"),
        event: text(message, "type"),
        cause: text(message, "cause"),
        since_ms: moment(message, "since")?,
        until_ms: moment(message, "until")?,
        up: false,
        limit: number(message, "limit")?.unwrap_or(0),
    })
}

fn moment(message: &Message, key: &str) -> Result<Option<u64>, RequestError> {
    let Some(text) = text(message, key) else { return Ok(None) };
    units::u64(&text).map(Some).ok_or_else(|| refuse(&format!("invalid number for: {key}")))
}
