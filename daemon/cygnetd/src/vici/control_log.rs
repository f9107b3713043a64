//! `control-log` while a command runs, whatever way it ends.

use std::sync::Arc;

use crate::subscribers::{About, Client, ControlLog, Subscribers};

/// As long as this lives the client gets the lines about its command.
pub(super) struct Scope<'a> {
    subscribers: &'a Subscribers,
    client: Arc<Client>,
}

impl<'a> Scope<'a> {
    /// Lines up to `level`, which is none below 0, `about` the command's own SAs.
    pub(super) fn new(subscribers: &'a Subscribers, client: &Arc<Client>, level: i8, about: About) -> Self {
        let control_log = u8::try_from(level).ok().map(|level| ControlLog { level, about });
        subscribers.set_control_log(client, control_log);
        Self { subscribers, client: Arc::clone(client) }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.subscribers.set_control_log(&self.client, None);
    }
}
