//! VICI clients as receivers of events: who registered for what, and the bounded queue to each.
//!
//! Emitting an event never waits. A client that does not read loses events once so many octets wait for it, and nothing else: they are counted,
//! and it is told how many before the first event that it gets again ([`LOST`]). Its session says so in the log (not here: log lines are
//! themselves events). Answers are not lost; they wait for room, which holds up the client's own session only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use swanctl_compat::request::LOST;
use swanctl_compat::vici::frame::MAX_PACKET;
use swanctl_compat::vici::{Message, Packet, frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use zeroize::Zeroizing;

/// Octets that wait for one client at most; the longest packet with its length fits.
pub(crate) const ROOM: usize = MAX_PACKET + 4;

/// What a short packet counts for at least, so that many of them do not take more than they seem to.
const LEAST: usize = 128;

/// Octets of one packet with its length in front. Wiped on drop: there may be a key among them.
pub(crate) type Frame = Arc<Zeroizing<Vec<u8>>>;

/// A packet as a frame.
pub(crate) fn framed(octets: Vec<u8>) -> Frame {
    Arc::new(Zeroizing::new(octets))
}

/// A packet that waits to be written, and the room that it takes until then.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) frame: Frame,
    _room: OwnedSemaphorePermit,
}

/// Which log lines a client wants during its own command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlLog {
    /// Most detailed level.
    pub(crate) level: u8,
    /// What they are about.
    pub(crate) about: About,
}

/// What a client's command is about: its own IKE SAs, not those of others that use the same connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A child that is to come up, or an IKE SA alone.
    Attempt {
        /// The connection.
        connection: String,
        /// The child.
        child: Option<String>,
        /// IKE SAs that were taken for it so far.
        ikes: BTreeSet<u32>,
    },
    /// These IKE SAs.
    Known(BTreeSet<u32>),
}

impl About {
    /// Whether a line is about it. What is told of a connection and of no IKE SA is about every attempt.
    fn includes(&self, connection: Option<&str>, ike: Option<u32>) -> bool {
        match (self, ike) {
            (Self::Attempt { ikes, .. } | Self::Known(ikes), Some(ike)) => ikes.contains(&ike),
            (Self::Attempt { connection: own, .. }, None) => connection == Some(own.as_str()),
            (Self::Known(_), None) => false,
        }
    }
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this machine, as the system says.
    Process {
        /// Its user.
        uid: u32,
        /// Its number, unless it lives in another namespace.
        pid: Option<i32>,
    },
    /// One that came over the network, or that the system says nothing of.
    Elsewhere(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid: Some(pid) } => write!(f, "pid {pid}, uid {uid}"),
            Self::Process { uid, pid: None } => write!(f, "a process elsewhere, uid {uid}"),
            Self::Elsewhere(text) => f.write_str(text),
        }
    }
}

/// One client.
pub(crate) struct Client {
    queue: mpsc::UnboundedSender<Queued>,
    /// Octets that may still be queued.
    room: Arc<Semaphore>,
    registered: Mutex<BTreeMap<String, usize>>,
    control_log: Mutex<Option<ControlLog>>,
    /// Events lost and not yet told of.
    untold: AtomicU64,
    /// Events lost in all.
    lost: AtomicU64,
    losing: Notify,
    peer: OnceLock<Peer>,
    /// How long an answer waits for room; `None` = for ever.
    patience: Option<Duration>,
    /// An answer has waited for that long.
    stuck: AtomicBool,
}

impl Client {
    /// Says who it is.
    pub(crate) fn introduce(&self, peer: Peer) {
        // It is introduced once.
        let _ = self.peer.set(peer);
    }

    /// Who it is, once it was introduced.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.get()
    }

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

    /// Waits for room and queues a packet; `false` when the client is gone or takes nothing. For answers: they may keep their own session waiting.
    pub(crate) async fn send(&self, frame: Frame) -> bool {
        let room = Arc::clone(&self.room).acquire_many_owned(weight(&frame));
        let room = match self.patience {
            None => room.await,
            Some(patience) => match tokio::time::timeout(patience, room).await {
                Ok(room) => room,
                Err(_) => {
                    self.stuck.store(true, Ordering::Relaxed);
                    self.close();
                    return false;
                }
            },
        };
        room.is_ok_and(|room| self.queue.send(Queued { frame, _room: room }).is_ok())
    }

    /// Whether it has been given up because it did not take an answer.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// No room any more: what waits for it ends.
    pub(crate) fn close(&self) {
        self.room.close();
    }

    /// Waits until the client has begun to lose events.
    pub(crate) async fn losing(&self) {
        self.losing.notified().await;
    }

    /// How many events it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Queues an event so many times; gives how many of them are lost. Once one is, the others are: a client that registers without end shall not
    /// keep those busy who tell of events.
    fn offer(&self, frame: &Frame, times: usize) -> u64 {
        let queued = (0..times).take_while(|_| self.tell_loss() && self.try_send(frame)).count();
        let lost = (times - queued) as u64;
        if lost > 0 {
            self.untold.fetch_add(lost, Ordering::Relaxed);
            if self.lost.fetch_add(lost, Ordering::Relaxed) == 0 {
                self.losing.notify_one();
            }
        }
        lost
    }

    /// Tells of events lost before; `false` when there is no room even for that.
    fn tell_loss(&self) -> bool {
        let untold = self.untold.swap(0, Ordering::Relaxed);
        if untold == 0 || self.registrations(LOST) == 0 {
            return true;
        }
        let mut message = Message::new();
        message.set_display("lost", untold);
        message.set_display("lost-total", self.lost());
        let event = frame::encode(&Packet::Event(LOST.to_owned(), message));
        let told = event.is_ok_and(|octets| self.try_send(&framed(octets)));
        if !told {
            self.untold.fetch_add(untold, Ordering::Relaxed);
        }
        told
    }

    /// Queues a packet if there is room for it.
    pub(crate) fn try_send(&self, frame: &Frame) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(frame));
        room.is_ok_and(|room| self.queue.send(Queued { frame: Arc::clone(frame), _room: room }).is_ok())
    }
}

/// The room that a packet takes.
fn weight(frame: &Frame) -> u32 {
    u32::try_from(frame.len().clamp(LEAST, ROOM)).unwrap_or(u32::MAX)
}

/// All clients.
#[derive(Default)]
pub(crate) struct Subscribers {
    clients: Mutex<Vec<Arc<Client>>>,
    /// Most detailed log level anybody wants, plus one; 0 = nobody wants any.
    log_wanted: AtomicU8,
    /// Events that clients have lost.
    lost: AtomicU64,
}

impl Subscribers {
    /// Waits until every client has been written all that is queued for it.
    pub(crate) async fn written(&self) {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let whole = u32::try_from(ROOM).unwrap_or(u32::MAX);
        for client in clients {
            // Only what has been written makes room. One that has gone has none, and nothing to wait for.
            drop(client.room.acquire_many(whole).await);
        }
    }

    /// A new client and the queue of packets for it; an answer waits for room for so long at most.
    pub(crate) fn join(&self, patience: Option<Duration>) -> (Arc<Client>, mpsc::UnboundedReceiver<Queued>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let client = Arc::new(Client {
            queue,
            room: Arc::new(Semaphore::new(ROOM)),
            registered: Mutex::default(),
            control_log: Mutex::default(),
            untold: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            losing: Notify::new(),
            peer: OnceLock::new(),
            patience,
            stuck: AtomicBool::new(false),
        });
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&client));
        (client, receiver)
    }

    /// Clients that are connected, and how many events clients have lost so far.
    #[cfg(feature = "telemetry")]
    pub(crate) fn figures(&self) -> (usize, u64) {
        (self.clients().len(), self.lost.load(Ordering::Relaxed))
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

    /// Somebody registered for some event.
    pub(crate) fn anybody_listens(&self) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().any(|client| !client.registered.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Queues an event for all who registered.
    pub(crate) fn emit(&self, event: &str, message: &Message) {
        self.emit_where(event, message, |_| true);
    }

    /// An IKE SA is used for a child, or for itself: lines about it are for those who wait for that.
    pub(crate) fn serves(&self, name: &str, wanted: Option<&str>, ike: u32) {
        for client in self.clients() {
            let mut filter = client.control_log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ControlLog { about: About::Attempt { connection, child, ikes }, .. }) = filter.as_mut()
                && connection == name
                && child.as_deref() == wanted
            {
                ikes.insert(ike);
            }
        }
    }

    /// An IKE SA takes the place of another one: lines about it are for those who have lines about that.
    pub(crate) fn succeeds(&self, old: u32, new: u32) {
        for client in self.clients() {
            let mut filter = client.control_log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ControlLog { about: About::Attempt { ikes, .. } | About::Known(ikes), .. }) = filter.as_mut()
                && ikes.contains(&old)
            {
                ikes.insert(new);
            }
        }
    }

    /// Queues a `control-log` event for those whose command the line belongs to.
    pub(crate) fn emit_control_log(
        &self,
        level: u8,
        connection: Option<&str>,
        ike: Option<u32>,
        message: impl Fn() -> Message,
    ) {
        let wants = |client: &Client| {
            let filter = client.control_log.lock().unwrap_or_else(PoisonError::into_inner);
            filter.as_ref().is_some_and(|filter| level <= filter.level && filter.about.includes(connection, ike))
        };
        if self.clients().iter().any(|client| wants(client)) {
            self.emit_where("control-log", &message(), wants);
        }
    }

    fn emit_where(&self, event: &str, message: &Message, wanted: impl Fn(&Client) -> bool) {
        let clients = self.clients();
        let mut receivers = clients.iter().map(|client| (client, client.registrations(event)));
        let mut receivers = receivers.by_ref().filter(|(client, times)| *times > 0 && wanted(client)).peekable();
        if receivers.peek().is_none() {
            return;
        }
        let Ok(octets) = frame::encode(&Packet::Event(event.to_owned(), message.clone())) else { return };
        let frame = framed(octets);
        for (client, times) in receivers {
            self.lost.fetch_add(client.offer(&frame, times), Ordering::Relaxed);
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
        let (client, mut queue) = all.join(None);
        assert!(!all.anybody_listens());
        client.register("alert");
        client.register("alert");
        assert!(all.anybody_listens());
        all.emit("alert", &Message::new());
        all.emit("log", &Message::new());
        assert_eq!(queue.len(), 2);
        assert!(client.unregister("alert") && client.unregister("alert") && !client.unregister("alert"));
        all.emit("alert", &Message::new());
        assert_eq!(queue.len(), 2);
        assert!(queue.try_recv().is_ok() && !all.anybody_listens());
        all.leave(&client);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_events_and_is_told_how_many() {
        let all = Subscribers::default();
        let (client, mut queue) = all.join(None);
        client.register("alert");
        client.register(LOST);
        let fitting = ROOM / LEAST;
        for _ in 0..fitting {
            all.emit("alert", &Message::new());
        }
        let soon = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, client.losing()).await.is_err());
        for _ in 0..7 {
            all.emit("alert", &Message::new());
        }
        client.losing().await;
        assert_eq!((queue.len(), client.lost()), (fitting, 7));
        for _ in 0..fitting {
            queue.recv().await.unwrap();
        }
        all.emit("alert", &Message::new());
        let told = queue.recv().await.unwrap();
        let expected = Message::new().with("lost", "7").with("lost-total", "7");
        assert_eq!(Packet::decode(&told.frame[4..]).unwrap(), Packet::Event(LOST.into(), expected));
        let next = queue.recv().await.unwrap();
        assert_eq!(Packet::decode(&next.frame[4..]).unwrap(), Packet::Event("alert".into(), Message::new()));
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn who_registers_without_end_keeps_nobody_busy() {
        let all = Subscribers::default();
        let (client, queue) = all.join(None);
        let times = 1 << 40;
        client.registered.lock().unwrap().insert("alert".into(), times);
        all.emit("alert", &Message::new());
        assert_eq!((queue.len(), client.lost()), (ROOM / LEAST, (times - ROOM / LEAST) as u64));
    }

    #[tokio::test]
    async fn everything_is_written_once_the_queues_are_empty() {
        let all = Subscribers::default();
        let (client, mut queue) = all.join(None);
        let (gone, _) = all.join(None);
        gone.close();
        all.written().await;
        assert!(client.send(framed(vec![0; 8])).await);
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, all.written()).await.is_err(), "one packet is queued");
        drop(queue.recv().await);
        all.written().await;
    }

    #[tokio::test]
    async fn an_answer_waits_for_room_and_ends_with_the_session() {
        let all = Subscribers::default();
        let (client, mut queue) = all.join(None);
        let long = framed(vec![0; ROOM]);
        assert!(client.send(Arc::clone(&long)).await);
        let waiting = tokio::spawn({
            let (client, long) = (Arc::clone(&client), Arc::clone(&long));
            async move { (client.send(Arc::clone(&long)).await, client.send(long).await) }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.len(), 1);
        drop(queue.recv().await);
        tokio::task::yield_now().await;
        assert_eq!(queue.len(), 1);
        client.close();
        assert_eq!(waiting.await.unwrap(), (true, false));
    }

    #[test]
    fn control_log_is_for_ones_own_command() {
        let all = Subscribers::default();
        let (client, queue) = all.join(None);
        client.register("control-log");
        assert_eq!(all.log_wanted(), None);
        let tell = |level, connection, ike| all.emit_control_log(level, connection, ike, Message::new);
        tell(1, Some("a"), Some(7));
        let about = |child: &str| {
            let about = About::Attempt { connection: "a".into(), child: Some(child.into()), ikes: BTreeSet::new() };
            Some(ControlLog { level: 2, about })
        };
        all.set_control_log(&client, about("net"));
        assert_eq!(all.log_wanted(), Some(2));
        // Whose IKE SA it is shows when it is taken for the child.
        tell(1, Some("a"), Some(7));
        all.serves("a", Some("other"), 7);
        all.serves("b", Some("net"), 7);
        all.serves("a", None, 7);
        tell(1, Some("a"), Some(7));
        assert_eq!(queue.len(), 0);
        all.serves("a", Some("net"), 7);
        tell(2, Some("a"), Some(7));
        tell(2, Some("a"), None);
        assert_eq!(queue.len(), 2);
        tell(3, Some("a"), Some(7));
        tell(1, Some("a"), Some(8));
        tell(1, Some("b"), None);
        tell(1, None, None);
        assert_eq!(queue.len(), 2);
        all.set_control_log(&client, Some(ControlLog { level: 0, about: About::Known([3, 4].into()) }));
        tell(0, Some("a"), Some(4));
        tell(0, Some("a"), Some(7));
        tell(0, Some("a"), None);
        assert_eq!(queue.len(), 3);
        all.leave(&client);
        assert_eq!(all.log_wanted(), None);
    }
}
