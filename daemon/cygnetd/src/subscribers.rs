//! VICI clients as receivers of events: who registered for what, and the bounded queue to each.
//!
//! Filling a queue never waits. A client that does not keep up is cut off rather than let anything else stall; its session says so in the log
//! (not here: log lines are themselves events).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use swanctl_compat::vici::{Message, Packet, frame};
use tokio::sync::{Notify, mpsc};

/// Packets waiting for one client at most.
pub(crate) const QUEUE: usize = 4096;

/// Octets of one packet with its length in front.
pub(crate) type Frame = Arc<[u8]>;

/// Which log lines a client wants during its own command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlLog {
    /// Most detailed level.
    pub(crate) level: u8,
    /// Connection; `None` = every one.
    pub(crate) connection: Option<String>,
}

/// One client.
pub(crate) struct Client {
    queue: mpsc::Sender<Frame>,
    registered: Mutex<BTreeMap<String, usize>>,
    control_log: Mutex<Option<ControlLog>>,
    cut: Notify,
}

impl Client {
    /// Registers for an event, once more if it is already.
    pub(crate) fn register(&self, event: &str) {
        *self.registered.lock().unwrap_or_else(PoisonError::into_inner).entry(event.to_owned()).or_default() += 1;
    }

    /// Takes one registration back; `false` when there is none.
    pub(crate) fn unregister(&self, event: &str) -> bool {
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = registered.get_mut(event) else { return false };
        *times -= 1;
        if *times == 0 {
            registered.remove(event);
        }
        true
    }

    /// How often the client wants to get this event.
    pub(crate) fn registrations(&self, event: &str) -> usize {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).get(event).copied().unwrap_or(0)
    }

    /// Waits for room and queues a packet; `false` when the client is gone. For answers: they may keep their own session waiting.
    pub(crate) async fn send(&self, frame: Frame) -> bool {
        self.queue.send(frame).await.is_ok()
    }

    /// Waits until the client is cut off.
    pub(crate) async fn cut_off(&self) {
        self.cut.notified().await;
    }

    fn offer(&self, frame: &Frame, times: usize) {
        for _ in 0..times {
            if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(Arc::clone(frame)) {
                self.cut.notify_one();
                return;
            }
        }
    }
}

/// All clients.
#[derive(Default)]
pub(crate) struct Subscribers {
    clients: Mutex<Vec<Arc<Client>>>,
    /// Most detailed log level anybody wants, plus one; 0 = nobody wants any.
    log_wanted: AtomicU8,
    /// Clients that did not keep up.
    cut_off: AtomicU64,
}

impl Subscribers {
    /// A new client and the queue of packets for it.
    pub(crate) fn join(&self) -> (Arc<Client>, mpsc::Receiver<Frame>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let client =
            Arc::new(Client { queue, registered: Mutex::default(), control_log: Mutex::default(), cut: Notify::new() });
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&client));
        (client, receiver)
    }

    /// A client did not keep up and was cut off.
    pub(crate) fn lost(&self) {
        self.cut_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that are connected, and how many were cut off so far.
    #[cfg(feature = "telemetry")]
    pub(crate) fn figures(&self) -> (usize, u64) {
        (self.clients().len(), self.cut_off.load(Ordering::Relaxed))
    }

    /// A client went away.
    pub(crate) fn leave(&self, client: &Arc<Client>) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, client));
        self.refresh_log_level();
    }

    /// Which log lines `client` gets as `control-log` from now on.
    pub(crate) fn set_control_log(&self, client: &Client, control_log: Option<ControlLog>) {
        *client.control_log.lock().unwrap_or_else(PoisonError::into_inner) = control_log;
        self.refresh_log_level();
    }

    /// Looks again at what level of log is wanted; after every change of registrations.
    pub(crate) fn refresh_log_level(&self) {
        let wanted = self.clients().iter().filter_map(|client| wanted_level(client)).max();
        let wanted = wanted.map_or(0, |level| level.saturating_add(1));
        if self.log_wanted.swap(wanted, Ordering::Relaxed) != wanted {
            // What was decided for each place in the code that logs depends on this level.
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Most detailed log level anybody wants.
    pub(crate) fn log_wanted(&self) -> Option<u8> {
        self.log_wanted.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Somebody registered for this event.
    pub(crate) fn anybody_wants(&self, event: &str) -> bool {
        self.clients().iter().any(|client| client.registrations(event) > 0)
    }

    /// Queues an event for all who registered.
    pub(crate) fn emit(&self, event: &str, message: &Message) {
        self.emit_where(event, message, |_| true);
    }

    /// Queues a `control-log` event for those whose command the line belongs to.
    pub(crate) fn emit_control_log(&self, level: u8, connection: Option<&str>, message: &Message) {
        self.emit_where("control-log", message, |client| {
            let filter = client.control_log.lock().unwrap_or_else(PoisonError::into_inner);
            filter.as_ref().is_some_and(|filter| {
                level <= filter.level
                    && connection.is_some()
                    && filter.connection.as_deref().is_none_or(|c| Some(c) == connection)
            })
        });
    }

    fn emit_where(&self, event: &str, message: &Message, wanted: impl Fn(&Client) -> bool) {
        let clients = self.clients();
        let mut receivers = clients.iter().map(|client| (client, client.registrations(event)));
        let mut receivers = receivers.by_ref().filter(|(client, times)| *times > 0 && wanted(client)).peekable();
        if receivers.peek().is_none() {
            return;
        }
        let Ok(octets) = frame::encode(&Packet::Event(event.to_owned(), message.clone())) else { return };
        let frame: Frame = octets.into();
        for (client, times) in receivers {
            client.offer(&frame, times);
        }
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn wanted_level(client: &Client) -> Option<u8> {
    let log = (client.registrations("log") > 0).then_some(1);
    let filter = client.control_log.lock().unwrap_or_else(PoisonError::into_inner);
    let control = filter.as_ref().filter(|_| client.registrations("control-log") > 0).map(|filter| filter.level);
    log.max(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_as_often_as_it_was_registered() {
        let all = Subscribers::default();
        let (client, mut queue) = all.join();
        client.register("alert");
        client.register("alert");
        all.emit("alert", &Message::new());
        all.emit("log", &Message::new());
        assert_eq!(queue.len(), 2);
        assert!(client.unregister("alert") && client.unregister("alert") && !client.unregister("alert"));
        all.emit("alert", &Message::new());
        assert_eq!(queue.len(), 2);
        assert!(queue.try_recv().is_ok());
        all.leave(&client);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let all = Subscribers::default();
        let (client, queue) = all.join();
        client.register("alert");
        for _ in 0..QUEUE {
            all.emit("alert", &Message::new());
        }
        let soon = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, client.cut_off()).await.is_err());
        all.emit("alert", &Message::new());
        client.cut_off().await;
        assert_eq!(queue.len(), QUEUE);
    }

    #[test]
    fn control_log_is_for_ones_own_command() {
        let all = Subscribers::default();
        let (client, queue) = all.join();
        client.register("control-log");
        assert_eq!(all.log_wanted(), None);
        all.emit_control_log(1, Some("a"), &Message::new());
        all.set_control_log(&client, Some(ControlLog { level: 2, connection: Some("a".into()) }));
        assert_eq!(all.log_wanted(), Some(2));
        all.emit_control_log(2, Some("a"), &Message::new());
        all.emit_control_log(3, Some("a"), &Message::new());
        all.emit_control_log(1, Some("b"), &Message::new());
        all.emit_control_log(1, None, &Message::new());
        assert_eq!(queue.len(), 1);
        all.leave(&client);
        assert_eq!(all.log_wanted(), None);
    }
}
