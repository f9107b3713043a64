//! Events under VICI's names, for the clients that registered.

use std::sync::Arc;

use ike_model::EventRecord;
use swanctl_compat::render;

use super::EventSink;
use crate::subscribers::Subscribers;

pub(super) struct ViciSink {
    subscribers: Arc<Subscribers>,
}

impl ViciSink {
    pub(super) fn new(subscribers: Arc<Subscribers>) -> Self {
        Self { subscribers }
    }
}

impl EventSink for ViciSink {
    fn deliver(&self, record: &EventRecord) {
        // As a rule nobody listens, and those who tell of events need not wait for messages that nobody gets.
        if !self.subscribers.anybody_listens() {
            return;
        }
        for (name, message) in render::events(&record.body) {
            self.subscribers.emit(name, &message);
        }
        if self.subscribers.anybody_wants("cygnet-event")
            && let Ok(json) = serde_json::to_string(record)
        {
            self.subscribers.emit("cygnet-event", &render::cygnet_event(&record.ulid.to_string(), &json));
        }
    }
}
