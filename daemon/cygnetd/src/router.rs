//! The way of everything that happens outside a shard to the shard it belongs to.
//!
//! Handles, tags, work ids and our own IKE SPIs carry their shard, so that nothing is looked up. Called from any thread; never blocks.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ike_model::snapshot::PolicySnapshot;
use ike_model::{
    ChildSpecs, Command, CommandId, ConfiguredChildStatus, CounterScope, Counters, IkeSaSnapshot, KeyExport,
};
use ike_sa::{Counts, DirectoryMessage, ExportedKeys, Outcome, Recipient, WorkId};
use ipsec::{Answer, Event, OffloadError, Path, Reports, SaHandle, Shard, Tag};
use tokio::sync::oneshot;

use crate::firsts::Firsts;
use crate::inbox::{Inbox, is_first_request};

/// What a shard is told, besides datagrams.
pub(crate) enum Message {
    /// An operator or a client asks.
    Command(CommandId, Command),
    /// The backend answered.
    Report(Tag, Result<Answer, OffloadError>),
    /// The backend tells something.
    Backend(Event),
    /// Work is done.
    Work(WorkId, Outcome),
    /// Another shard tells something.
    Directory(DirectoryMessage),
    /// These addresses can be ends of a tunnel now.
    Network(Arc<[IpAddr]>),
    /// The machine may have been asleep.
    Awake,
    /// A question about its state.
    Ask(Question),
    /// End the thread.
    Stop,
}

/// A question about a shard's state, with the place for the answer.
pub(crate) enum Question {
    /// All IKE SAs.
    IkeSas(oneshot::Sender<Vec<IkeSaSnapshot>>),
    /// All configured children at home here.
    Configured(oneshot::Sender<Vec<ConfiguredChildStatus>>),
    /// Traps and shunts.
    Policies(oneshot::Sender<Vec<PolicySnapshot>>),
    /// What CHILD SAs, traps and shunts have the backend hold.
    Specs(oneshot::Sender<Vec<ChildSpecs>>),
    /// Keys of the SAs of a connection.
    Keys(KeyExport, String, oneshot::Sender<ExportedKeys>),
    /// Numbers of SAs.
    Counts(oneshot::Sender<Counts>),
    /// Counters of messages, by connection.
    Counters(CounterScope, oneshot::Sender<Vec<(String, Counters)>>),
    /// That these begin again at zero.
    ResetCounters(CounterScope, oneshot::Sender<()>),
}

type BackendAnswer = Result<Answer, OffloadError>;

/// The shard number of tags that the daemon itself makes, above those of real shards.
const DAEMON: Shard = Shard(u8::MAX);

/// The inboxes of all shards.
pub(crate) struct Router {
    inboxes: Vec<Arc<Inbox<Message>>>,
    firsts: Firsts,
    queries: Mutex<HashMap<Tag, oneshot::Sender<BackendAnswer>>>,
    next_query: AtomicU64,
}

impl Router {
    /// Inboxes for `shards` shards.
    pub(crate) fn new(shards: u8) -> io::Result<Self> {
        let inboxes = (0..shards.max(1)).map(|_| Inbox::new().map(Arc::new)).collect::<io::Result<_>>()?;
        Ok(Self { inboxes, firsts: Firsts::new()?, queries: Mutex::default(), next_query: AtomicU64::new(0) })
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u8 {
        u8::try_from(self.inboxes.len()).unwrap_or(u8::MAX)
    }

    /// The inbox of a shard.
    pub(crate) fn inbox(&self, shard: Shard) -> Option<&Arc<Inbox<Message>>> {
        self.inboxes.get(usize::from(shard.0))
    }

    /// All inboxes, by shard.
    pub(crate) fn inboxes(&self) -> impl Iterator<Item = &Arc<Inbox<Message>>> {
        self.inboxes.iter()
    }

    /// First requests that nobody has screened yet.
    pub(crate) fn firsts(&self) -> &Firsts {
        &self.firsts
    }

    /// Hands a first request that was screened to its shard.
    pub(crate) fn first_request(&self, path: Path, octets: &[u8], proven: bool) {
        if let Some(inbox) = self.inbox(ike_sa::route(octets, path.remote, self.shards())) {
            inbox.first_request(path, octets, proven);
        }
    }

    /// Tells one shard.
    pub(crate) fn tell(&self, shard: Shard, message: Message) {
        match self.inbox(shard) {
            Some(inbox) => inbox.control(message),
            None => tracing::error!(shard = shard.0, "a message for a shard that does not exist"),
        }
    }

    /// Tells every shard.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for inbox in &self.inboxes {
            inbox.control(message());
        }
    }

    /// Puts a question to every shard; the answers, in the order of the shards, are to come.
    pub(crate) fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Question) -> Vec<oneshot::Receiver<T>> {
        let ask = |inbox: &Arc<Inbox<Message>>| {
            let (sender, answer) = oneshot::channel();
            inbox.control(Message::Ask(question(sender)));
            answer
        };
        self.inboxes.iter().map(ask).collect()
    }

    /// Whether every shard takes from its inbox.
    ///
    /// # Errors
    /// Which does not within `limit`.
    pub(crate) async fn alive(&self, limit: Duration) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + limit;
        for (number, answer) in self.ask(Question::Counts).into_iter().enumerate() {
            if !matches!(tokio::time::timeout_at(deadline, answer).await, Ok(Ok(_))) {
                return Err(format!("shard {number} does not answer within {limit:?}"));
            }
        }
        Ok(())
    }

    /// Carries a message between shards.
    pub(crate) fn directory(&self, from: Shard, to: Recipient, message: DirectoryMessage) {
        match to {
            Recipient::Shard(shard) => self.tell(shard, Message::Directory(message)),
            Recipient::Others => {
                for shard in (0..self.shards()).map(Shard).filter(|shard| *shard != from) {
                    self.tell(shard, Message::Directory(message.clone()));
                }
            }
        }
    }

    /// A tag for a request of the daemon itself, and the place where its outcome appears.
    pub(crate) fn query(&self) -> (Tag, oneshot::Receiver<BackendAnswer>) {
        let tag = Tag::new(DAEMON, self.next_query.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        queries.insert(tag, sender);
        (tag, receiver)
    }

    fn of_sa(&self, sa: SaHandle, event: Event) {
        self.tell(sa.shard(), Message::Backend(event));
    }
}

impl Reports for Router {
    fn done(&self, tag: Tag, outcome: BackendAnswer) {
        if tag.shard() != DAEMON {
            return self.tell(tag.shard(), Message::Report(tag, outcome));
        }
        let waiting = self.queries.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone.
            let _ = waiting.send(outcome);
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Acquire { policy, .. } => self.tell(policy.shard(), Message::Backend(event)),
            Event::InboundFirstUse { sa }
            | Event::SoftExpire { sa, .. }
            | Event::HardExpire { sa, .. }
            | Event::MappingChange { sa, .. }
            | Event::PeerForm { sa, .. }
            | Event::StateLost { sa } => self.of_sa(sa, event),
            Event::DeviceDown(_) | Event::DeviceUp(_) | Event::DeviceGone(_) | Event::Resync => {
                self.tell_all(|| Message::Backend(event.clone()));
            }
            Event::Drops { reason, packets } => tracing::info!(reason, packets, "the datapath drops packets: {reason}"),
        }
    }

    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        if is_first_request(octets) {
            return self.firsts.put(path, octets);
        }
        let shard = ike_sa::route(octets, path.remote, self.shards());
        if let Some(inbox) = self.inbox(shard) {
            inbox.datagram(path, octets);
        }
    }
}

#[cfg(test)]
mod tests {
    use ipsec::{Applied, DeviceId, Installed, LimitUnit, PolicyHandle};

    use super::*;

    fn waiting(router: &Router) -> Vec<(usize, usize)> {
        router.inboxes().map(|inbox| inbox.waiting()).collect()
    }

    #[test]
    fn reports_find_the_shard_in_their_handle() {
        let router = Router::new(3).unwrap();
        router.done(Tag::new(Shard(1), 5), Ok(Answer::Applied(Applied::default())));
        router.event(Event::SoftExpire { sa: SaHandle::new(Shard(2), 1), unit: LimitUnit::Packets });
        let packet = ipsec::PacketSelectors {
            source: "10.1.0.1".parse().unwrap(),
            destination: "10.2.0.1".parse().unwrap(),
            protocol: 1,
            ports: None,
        };
        router.event(Event::Acquire { policy: PolicyHandle::new(Shard(0), 1), packet });
        assert_eq!(waiting(&router), [(1, 0), (1, 0), (1, 0)]);
        router.event(Event::DeviceGone(DeviceId(0)));
        assert_eq!(waiting(&router), [(2, 0), (2, 0), (2, 0)]);
        router.event(Event::Drops { reason: "replay", packets: 1 });
        assert_eq!(waiting(&router), [(2, 0), (2, 0), (2, 0)]);
    }

    #[test]
    fn datagrams_follow_our_spi() {
        let router = Router::new(4).unwrap();
        let path = Path { local: "192.0.2.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() };
        let mut message = [0; 28];
        message[8] = 3; // responder SPI, ours
        message[0] = 1;
        message[19] = 0x08;
        router.ike_datagram(path, &message);
        assert_eq!(waiting(&router), [(0, 0), (0, 0), (0, 0), (0, 1)]);
        message[8] = 0;
        router.ike_datagram(path, &message);
        assert_eq!(waiting(&router), [(0, 0), (0, 0), (0, 0), (0, 1)], "a first request is screened first");
        let first = router.firsts().take().pop_front().unwrap();
        router.first_request(first.path, &first.octets, true);
        assert_eq!(waiting(&router).iter().map(|(_, datagrams)| datagrams).sum::<usize>(), 2);
    }

    #[test]
    fn others_leaves_the_sender_out() {
        let router = Router::new(3).unwrap();
        router.directory(Shard(1), Recipient::Others, DirectoryMessage::Gone { unique_id: 1 });
        assert_eq!(waiting(&router), [(1, 0), (0, 0), (1, 0)]);
    }

    #[test]
    fn a_query_of_the_daemon_comes_back_to_it() {
        let router = Router::new(1).unwrap();
        let (tag, mut answer) = router.query();
        router.done(tag, Ok(Answer::Installed(Installed::default())));
        assert_eq!(answer.try_recv().unwrap(), Ok(Answer::Installed(Installed::default())));
        router.done(tag, Ok(Answer::Installed(Installed::default())));
        assert_eq!(waiting(&router), [(0, 0)]);
    }
}
