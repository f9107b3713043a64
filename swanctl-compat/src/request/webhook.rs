//! `cygnet-webhook-*`: which webhook, which deliveries.

use ike_model::history::{DeliveryState, Redelivery, WantedDeliveries};

use super::{RequestError, number, refuse, required, text};
use crate::vici::Message;

/// The key `name`.
pub(super) fn name(message: &Message) -> Result<String, RequestError> {
    required(message, "name", "missing name of a webhook")
}

/// Keys: `name` (of a webhook), `state`, `event` (its ULID), `ike` (connection), `before` (a place in the list, as `cursor` has it), `limit`.
pub(super) fn wanted(message: &Message) -> Result<WantedDeliveries, RequestError> {
    let state = text(message, "state").map(|name| {
        let known = DeliveryState::ALL.map(DeliveryState::name).join(", ");
        DeliveryState::from_name(&name)
            .ok_or_else(|| refuse(&format!("invalid value for: state, expected one of {known}")))
    });
    let before = text(message, "before").map(|place| place.parse());
    Ok(WantedDeliveries {
        endpoint: text(message, "name"),
        state: state.transpose()?,
        ulid: text(message, "event"),
        connection: text(message, "ike"),
        before: before.transpose().map_err(|error| refuse(&format!("invalid value for: before, {error}")))?,
        limit: number(message, "limit")?.unwrap_or(0),
    })
}

/// Keys: `name` (of a webhook) and `event` (its ULID). One of them is needed, or `all=yes`: a slip shall not send everything again.
pub(super) fn redelivery(message: &Message) -> Result<Redelivery, RequestError> {
    let which = Redelivery { endpoint: text(message, "name"), ulid: text(message, "event") };
    if which == Redelivery::default() && !super::flag(message, "all")? {
        return Err(refuse("missing name, event or all=yes"));
    }
    Ok(which)
}
