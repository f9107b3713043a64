//! Webhooks and deliveries as messages.

use ike_model::history::PastDelivery;
use ike_model::{WebhookSnapshot, WebhookTried};

use super::sas::set_some;
use crate::vici::Message;

/// The `cygnet-webhook` event: `NAME { ... }`.
///
/// Fields: `name`, `state` (`untried`, `up`, `down`, `disabled`, `unconfigured`), `url`, lists `events` and `connections` (empty = all), `waiting`
/// and `dead` messages unless the database does not say, `disabled-since` and `reason`; since the daemon's start `attempts`, `delivered`,
/// `given-up`, `failures` (by what went wrong), `in-flight`, and of the last ones `last-latency` (microseconds), `last-success`, `last-failure`
/// and `last-error`. Times are milliseconds since the epoch.
#[must_use]
pub fn cygnet_webhook(webhook: &WebhookSnapshot) -> Message {
    let figures = &webhook.figures;
    let mut m = Message::new();
    m.set("name", webhook.name.as_str());
    m.set("state", figures.health.name());
    set_some(&mut m, "url", webhook.url.as_deref());
    for (key, list) in [("events", &webhook.events), ("connections", &webhook.connections)] {
        m.list(key, list.iter().map(String::as_str));
    }
    set_some(&mut m, "waiting", webhook.waiting);
    set_some(&mut m, "dead", webhook.dead);
    if let Some(disabled) = &webhook.disabled {
        m.set_display("disabled-since", disabled.since_ms);
        m.set("reason", disabled.reason.as_str());
    }
    m.set_display("attempts", figures.attempts);
    m.set_display("delivered", figures.delivered);
    m.set_display("given-up", figures.given_up);
    m.set_display("in-flight", figures.in_flight);
    let mut failures = Message::new();
    for (class, count) in &figures.failures {
        failures.set_display(*class, count);
    }
    m.section("failures", failures);
    set_some(&mut m, "last-latency", figures.last_latency.map(|took| took.as_micros()));
    set_some(&mut m, "last-success", figures.last_success_ms);
    set_some(&mut m, "last-failure", figures.last_failure_ms);
    set_some(&mut m, "last-error", figures.last_error.as_deref());
    let mut message = Message::new();
    message.section(webhook.name.as_str(), m);
    message
}

/// Answer to `cygnet-webhook-test`: `success`, `id` of the message, `status` of the answer where there was one, `time` in microseconds; when it
/// did not arrive, `failed` (what went wrong, as in `failures`) and `errmsg`.
#[must_use]
pub fn cygnet_webhook_tried(tried: &WebhookTried) -> Message {
    let mut m = Message::new();
    m.set("success", if tried.failure.is_none() { "yes" } else { "no" });
    m.set("id", tried.id.as_str());
    set_some(&mut m, "status", tried.status);
    m.set_display("time", tried.took.as_micros());
    if let Some((class, text)) = &tried.failure {
        m.set("failed", *class);
        m.set("errmsg", text.as_str());
    }
    m
}

/// The `cygnet-delivery` event: `ULID { ... }`.
///
/// Fields: `event` (its ULID), `name` of the webhook, `type` and `connection` of the event, `time`, `state` (`waiting`, `delivered`, `dead`),
/// `attempts`, `due` of one that waits, `delivered`, `last-error`, and `cursor`, where the list goes on after it.
#[must_use]
pub fn cygnet_delivery(delivery: &PastDelivery) -> Message {
    let mut m = Message::new();
    m.set("event", delivery.ulid.as_str());
    m.set("name", delivery.endpoint.as_str());
    m.set("type", delivery.event.as_str());
    set_some(&mut m, "connection", delivery.connection.as_deref());
    m.set_display("time", delivery.time_ms);
    m.set("state", delivery.state.name());
    m.set_display("attempts", delivery.attempts);
    if delivery.state == ike_model::history::DeliveryState::Waiting {
        m.set_display("due", delivery.due_ms);
    }
    set_some(&mut m, "delivered", delivery.delivered_ms);
    set_some(&mut m, "last-error", delivery.last_error.as_deref());
    m.set_display("cursor", delivery.cursor());
    let mut message = Message::new();
    message.section(delivery.ulid.as_str(), m);
    message
}
