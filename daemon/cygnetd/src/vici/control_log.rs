//! `control-log` while a command runs, whatever way it ends.

use std::sync::Arc;

use crate::subscribers::{Client, ControlLog, Subscribers};

/// As long as this lives the client gets the lines about its command.
pub(super) struct Scope<'a> {
    subscribers: &'a Subscribers,
    client: Arc<Client>,
}

impl<'a> Scope<'a> {
    /// Lines up to `level` about `connection`, or about all connections.
    pub(super) fn new(
        subscribers: &'a Subscribers,
        client: &Arc<Client>,
        level: u8,
        connection: Option<String>,
    ) -> Self {
        subscribers.set_control_log(client, Some(ControlLog { level, connection }));
        Self { subscribers, client: Arc::clone(client) }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.subscribers.set_control_log(&self.client, None);
    }
}
