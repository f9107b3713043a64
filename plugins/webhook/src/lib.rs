//! Signed delivery of events to webhooks, from a durable outbox.

pub mod signature;
