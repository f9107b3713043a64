//! A lossy path: forwards frames between two interfaces with delay, jitter, reordering and loss, and can be cut. It keeps a list of the IKE
//! messages that it saw.
//!
//! Ordinary frames keep their order: the delay of the path varies, the path itself does not reorder. A chosen share is held back a
//! little longer and overtaken by its successors.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::classify::{Class, NAT_PORT, classify};
use crate::frame::{Network, mend_checksum, parse, ports};
use crate::netns::Namespace;
use crate::packet::{LARGEST_FRAME, PacketSocket};
use crate::random::Random;

/// How the path behaves, the same in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Mean delay, one way.
    pub delay: Duration,
    /// The delay varies by up to this much either way.
    pub jitter: Duration,
    /// Share of frames that are overtaken.
    pub reorder: f64,
    /// By how much these are late at most.
    pub late: Duration,
    /// Share of frames that are lost.
    pub loss: f64,
    /// Share of IKE datagrams that are lost besides; ESP is spared.
    pub ike_loss: f64,
    /// While armed ([`Relay::arm`]), drops ESP frames of an old SPI as soon as either side has begun to use its successor: the gateways
    /// then look as if they removed the old inbound SA at once instead of letting it linger. For paths that carry one CHILD SA.
    pub drop_old_inbound: bool,
    /// While armed, drops ESP frames of an SPI that is new since then for so long after its first frame: the gateways then look as if they
    /// sent on a new outbound SA before the other end could receive on it.
    pub early_outbound: Duration,
    /// For the random choices.
    pub seed: u64,
}

impl Profile {
    /// Forwards everything at once.
    pub const CLEAN: Profile = Profile {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        reorder: 0.0,
        late: Duration::from_millis(3),
        loss: 0.0,
        ike_loss: 0.0,
        drop_old_inbound: false,
        early_outbound: Duration::ZERO,
        seed: 1,
    };
}

/// What the relay has done so far, both directions together unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames passed on.
    pub forwarded: u64,
    /// Frames dropped on purpose.
    pub dropped: u64,
    /// Frames held back to be overtaken.
    pub held: u64,
    /// ESP frames passed on, in either form: those that came from the left, those that came from the right.
    pub esp: [u64; 2],
}

/// An IKE message as it came to the relay, before anything was done with it. All of it is in the part of the header that is sent in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSeen {
    /// When.
    pub at: Instant,
    /// From the left end, gateway A's.
    pub from_left: bool,
    /// SPIs of the IKE SA, the initiator's first.
    pub spis: (u64, u64),
    /// Exchange type.
    pub exchange: u8,
    /// A response, not a request.
    pub is_response: bool,
    /// Message ID.
    pub message_id: u32,
    /// The same in repetitions, and in nothing else.
    pub content: u64,
    /// The relay lost it.
    pub lost: bool,
}

impl IkeSeen {
    fn read(frame: &[u8], from_left: bool) -> Option<Self> {
        let Network::Ip(packet) = parse(frame) else { return None };
        let (from, to) = ports(&packet)?;
        let data = packet.payload.get(8..)?;
        let message = if from == NAT_PORT || to == NAT_PORT { data.strip_prefix(&[0; 4])? } else { data };
        let word = |at: usize| Some(u64::from_be_bytes(*message.get(at..)?.first_chunk()?));
        let message_id = u32::from_be_bytes(*message.get(20..)?.first_chunk()?);
        Some(IkeSeen {
            at: Instant::now(),
            from_left,
            spis: (word(0)?, word(8)?),
            exchange: *message.get(18)?,
            is_response: message.get(19)? & RESPONSE != 0,
            message_id,
            content: content(message),
            lost: false,
        })
    }
}

/// What tells messages apart.
fn content(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

/// Whether both ends have sent a request of these exchange types.
#[must_use]
pub fn both_ask(seen: &[IkeSeen], exchanges: &[u8]) -> bool {
    let asks = |message: &IkeSeen, from_left: bool| {
        exchanges.contains(&message.exchange) && !message.is_response && message.from_left == from_left
    };
    [true, false].into_iter().all(|from_left| seen.iter().any(|message| asks(message, from_left)))
}

/// Whether both ends had sent their first request of these exchange types before they answered the other's: the requests crossed.
#[must_use]
pub fn crossed(seen: &[IkeSeen], exchanges: &[u8]) -> bool {
    let first = |from_left: bool, is_response: bool| {
        let fits = |message: &&IkeSeen| {
            exchanges.contains(&message.exchange)
                && message.from_left == from_left
                && message.is_response == is_response
        };
        seen.iter().find(fits).map(|message| message.at)
    };
    let before = |request: Option<Instant>, response: Option<Instant>| {
        request.is_some_and(|request| response.is_none_or(|response| request < response))
    };
    before(first(true, false), first(true, true)) && before(first(false, false), first(false, true))
}

/// IKE SA, whether the left end began it, message ID.
type Exchange = ((u64, u64), bool, u32);
/// When the request came to the relay, and the response, if it has come.
type Span = (Instant, Option<Instant>);

/// How many exchanges of one type, begun by the left end, overlap one of the same IKE SA begun by the right end: both requests were on their
/// way before either was answered.
#[must_use]
pub fn overlapping(seen: &[IkeSeen], exchange: u8) -> usize {
    // From the request to its response, as the path saw them; repetitions do not count.
    let mut spans: BTreeMap<Exchange, Span> = BTreeMap::new();
    for message in seen.iter().filter(|message| message.exchange == exchange) {
        let begun_by_left = message.from_left != message.is_response;
        let key = (message.spis, begun_by_left, message.message_id);
        if !message.is_response {
            spans.entry(key).or_insert((message.at, None));
        } else if let Some((_, end)) = spans.get_mut(&key) {
            end.get_or_insert(message.at);
        }
    }
    let by = |left: bool| spans.iter().filter(move |((_, by_left, _), _)| *by_left == left);
    let overlap = |(start, end): Span, (other, other_end): Span| {
        end.is_none_or(|end| other < end) && other_end.is_none_or(|end| start < end)
    };
    let crosses =
        |spis: (u64, u64), span| by(false).any(|((other, _, _), theirs)| *other == spis && overlap(span, *theirs));
    by(true).filter(|((spis, _, _), span)| crosses(*spis, **span)).count()
}

/// The flag of a response in the IKE header (RFC 7296 §3.1).
const RESPONSE: u8 = 0x20;
/// What is overtaken is late by so much at least.
const LEAST_LATE: Duration = Duration::from_micros(500);
/// IKE messages remembered; later ones are not.
const REMEMBERED: usize = 200_000;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    cut: AtomicBool,
    holding: AtomicBool,
    armed: AtomicBool,
    forwarded: AtomicU64,
    dropped: AtomicU64,
    held: AtomicU64,
    esp: [AtomicU64; 2],
    ike: Mutex<Vec<IkeSeen>>,
    /// How many CHILD SAs either side has begun to use.
    generation: AtomicUsize,
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// Forwards between two interfaces of a namespace from now on.
    ///
    /// # Errors
    /// No such interface, or raw sockets are not allowed.
    pub fn start(namespace: &Namespace, left: &str, right: &str, profile: &Profile) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        // One socket per interface, shared by both directions: a socket does not see the frames that it sends itself.
        let left_end = Arc::new(PacketSocket::open(namespace, left)?);
        let right_end = Arc::new(PacketSocket::open(namespace, right)?);
        let mut workers = Vec::new();
        for (name, receiver, sender, salt) in
            [(left, &left_end, &right_end, 0), (right, &right_end, &left_end, 0x5bd1_e995)]
        {
            let direction = Direction {
                from_left: salt == 0,
                receiver: Arc::clone(receiver),
                sender: Arc::clone(sender),
                profile: profile.clone(),
                random: Random::new(profile.seed ^ salt),
                shared: Arc::clone(&shared),
                waiting: BinaryHeap::new(),
                held: Vec::new(),
                arrived: 0,
                last_due: Instant::now(),
                spis: Vec::new(),
                early: BTreeMap::new(),
            };
            workers
                .push(std::thread::Builder::new().name(format!("relay from {name}")).spawn(move || direction.run())?);
        }
        Ok(Relay { shared, workers })
    }

    /// Cuts the path (true) or restores it.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Keeps IKE messages of both ends back (true) or lets them go on: requests that are sent meanwhile cross, however late one of them is.
    pub fn hold_ike(&self, hold: bool) {
        self.shared.holding.store(hold, Ordering::Relaxed);
    }

    /// Begins (true) or ends what the profile says of old and new SPIs: a path that breaks rekeying need not break anything else.
    pub fn arm(&self, armed: bool) {
        self.shared.armed.store(armed, Ordering::Relaxed);
    }

    /// Counters.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            forwarded: read(&self.shared.forwarded),
            dropped: read(&self.shared.dropped),
            held: read(&self.shared.held),
            esp: [read(&self.shared.esp[0]), read(&self.shared.esp[1])],
        }
    }

    /// How many IKE messages have come.
    #[must_use]
    pub fn ike_count(&self) -> usize {
        self.shared.ike.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When the last IKE message came.
    #[must_use]
    pub fn last_ike(&self) -> Option<Instant> {
        self.shared.ike.lock().unwrap_or_else(PoisonError::into_inner).last().map(|message| message.at)
    }

    /// The IKE messages that have come, the lost ones too, since and without the first `skip`.
    #[must_use]
    pub fn ike_seen(&self, skip: usize) -> Vec<IkeSeen> {
        let seen = self.shared.ike.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(skip..).unwrap_or_default().to_vec()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Frames that wait for their time, earliest first; equal times keep the order of arrival.
type Waiting = BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>;

/// One direction and its thread.
struct Direction {
    from_left: bool,
    receiver: Arc<PacketSocket>,
    sender: Arc<PacketSocket>,
    profile: Profile,
    random: Random,
    shared: Arc<Shared>,
    waiting: Waiting,
    /// IKE messages that are kept back, in order of arrival.
    held: Vec<Vec<u8>>,
    arrived: u64,
    last_due: Instant,
    /// In order of first use.
    spis: Vec<u32>,
    /// When an SPI was used first, of those that came up while armed.
    early: BTreeMap<u32, Instant>,
}

impl Direction {
    fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; LARGEST_FRAME];
        let receiver = Arc::clone(&self.receiver);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(frame) = receiver.receive(&mut buffer)? {
                self.admit(frame, now);
            }
            if !self.shared.holding.load(Ordering::Relaxed) {
                std::mem::take(&mut self.held).into_iter().for_each(|frame| self.queue(frame, Instant::now()));
            }
            self.release(Instant::now())?;
            let limit = Duration::from_millis(20);
            let next =
                self.waiting.peek().map_or(limit, |Reverse((due, _, _))| due.saturating_duration_since(Instant::now()));
            if !next.is_zero() {
                receiver.wait(next.min(limit))?;
            }
        }
        Ok(())
    }

    fn admit(&mut self, frame: &[u8], now: Instant) {
        let is_ike = classify(frame, &[]) == Class::Ike;
        let lost = self.shared.cut.load(Ordering::Relaxed)
            || self.random.chance(self.profile.loss)
            || is_ike && self.random.chance(self.profile.ike_loss)
            || self.is_on_old_sa(frame)
            || self.is_too_early(frame, now);
        if is_ike {
            self.remember(frame, lost);
        }
        if lost {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if is_ike && self.shared.holding.load(Ordering::Relaxed) {
            return self.held.push(frame.to_vec());
        }
        self.queue(frame.to_vec(), now);
    }

    /// Has a frame sent in its time.
    fn queue(&mut self, frame: Vec<u8>, now: Instant) {
        let due = if self.random.chance(self.profile.reorder) {
            self.shared.held.fetch_add(1, Ordering::Relaxed);
            self.last_due.max(now + self.varying_delay()) + self.lateness()
        } else {
            self.last_due = self.last_due.max(now + self.varying_delay());
            self.last_due
        };
        if self.profile.drop_old_inbound
            && let Some(number) = self.generation(&frame)
        {
            self.shared.generation.fetch_max(number, Ordering::Relaxed);
        }
        self.arrived += 1;
        self.waiting.push(Reverse((due, self.arrived, frame)));
    }

    fn remember(&self, frame: &[u8], lost: bool) {
        let Some(message) = IkeSeen::read(frame, self.from_left) else { return };
        let mut seen = self.shared.ike.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < REMEMBERED {
            seen.push(IkeSeen { lost, ..message });
        }
    }

    fn varying_delay(&mut self) -> Duration {
        let spread = u64::try_from(self.profile.jitter.as_micros()).unwrap_or(u64::MAX) * 2;
        (self.profile.delay + Duration::from_micros(self.random.below(spread + 1))).saturating_sub(self.profile.jitter)
    }

    fn lateness(&mut self) -> Duration {
        let most = u64::try_from(self.profile.late.saturating_sub(LEAST_LATE).as_micros()).unwrap_or(u64::MAX);
        LEAST_LATE + Duration::from_micros(self.random.below(most.max(1)))
    }

    /// The number of the CHILD SA that an ESP frame belongs to, counted from 1 in order of first use.
    fn generation(&mut self, frame: &[u8]) -> Option<usize> {
        let (Class::Esp(spi) | Class::UdpEsp(spi)) = classify(frame, &[]) else { return None };
        let known = self.spis.iter().rposition(|known| *known == spi);
        let index = known.unwrap_or_else(|| {
            self.spis.push(spi);
            self.spis.len() - 1
        });
        Some(index + 1)
    }

    fn is_on_old_sa(&mut self, frame: &[u8]) -> bool {
        self.profile.drop_old_inbound
            && self.shared.armed.load(Ordering::Relaxed)
            && self.generation(frame).is_some_and(|number| number < self.shared.generation.load(Ordering::Relaxed))
    }

    fn is_too_early(&mut self, frame: &[u8], now: Instant) -> bool {
        if self.profile.early_outbound.is_zero() {
            return false;
        }
        let known = self.spis.len();
        let Some(number) = self.generation(frame) else { return false };
        let Some(spi) = self.spis.get(number - 1) else { return false };
        if number > known && self.shared.armed.load(Ordering::Relaxed) {
            self.early.insert(*spi, now);
        }
        self.early.get(spi).is_some_and(|first| now.saturating_duration_since(*first) < self.profile.early_outbound)
    }

    fn release(&mut self, now: Instant) -> io::Result<()> {
        while self.waiting.peek().is_some_and(|Reverse((due, _, _))| *due <= now) {
            let Some(Reverse((_, _, mut frame))) = self.waiting.pop() else { break };
            if self.is_on_old_sa(&frame) {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if matches!(classify(&frame, &[]), Class::Esp(_) | Class::UdpEsp(_)) {
                let [from_left, from_right] = &self.shared.esp;
                let counter = if self.from_left { from_left } else { from_right };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            mend_checksum(&mut frame);
            self.sender.send(&frame)?;
            self.shared.forwarded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::udp;

    #[test]
    fn the_header_of_an_ike_message_is_read_on_both_ports() {
        let mut message = [0; 28];
        (message[7], message[15], message[18], message[19], message[23]) = (1, 2, 36, 0x28, 5);
        let frame = |port: u16, data: &[u8]| {
            let end = |host: u8| format!("192.0.2.{host}:{port}").parse().unwrap();
            udp([2; 6], [3; 6], end(1), end(2), data)
        };
        let marked = [&[0; 4], message.as_slice()].concat();
        for seen in [frame(500, &message), frame(4500, &marked)].map(|frame| IkeSeen::read(&frame, true).unwrap()) {
            assert_eq!((seen.spis, seen.exchange, seen.is_response, seen.message_id), ((1, 2), 36, true, 5));
        }
        assert_eq!(IkeSeen::read(&frame(4500, &[1; 40]), true), None, "ESP");
        assert_eq!(IkeSeen::read(&frame(500, &message[..27]), true).map(|seen| seen.message_id), Some(5));
        assert_eq!(IkeSeen::read(&frame(500, &message[..20]), true), None, "too short");
    }

    fn seen(order: &[(bool, bool)]) -> Vec<IkeSeen> {
        let start = Instant::now();
        let message = |(number, (from_left, is_response)): (u32, &(bool, bool))| IkeSeen {
            at: start + Duration::from_millis(number.into()),
            from_left: *from_left,
            spis: (1, 2),
            exchange: 36,
            is_response: *is_response,
            message_id: 0,
            content: 0,
            lost: false,
        };
        (0..).zip(order).map(message).collect()
    }

    #[test]
    fn both_ask_when_each_has_sent_a_request() {
        let (left, right) = (true, false);
        assert!(both_ask(&seen(&[(left, false), (right, false)]), &[36]));
        assert!(!both_ask(&seen(&[(left, false), (right, false)]), &[37]));
        assert!(!both_ask(&seen(&[(left, false), (right, true), (left, false)]), &[36]));
    }

    #[test]
    fn only_requests_that_cross_are_a_collision() {
        let (request, response) = (false, true);
        let (left, right) = (true, false);
        assert!(crossed(&seen(&[(left, request), (right, request), (left, response), (right, response)]), &[36]));
        assert!(crossed(&seen(&[(left, request), (right, request)]), &[36]));
        assert!(!crossed(&seen(&[(left, request), (right, response), (right, request), (left, response)]), &[36]));
        assert!(!crossed(&seen(&[(left, request), (right, response)]), &[36]));
        assert!(!crossed(&[], &[36]));
    }

    #[test]
    fn exchanges_that_overlap_are_counted_once_each() {
        let (request, response) = (false, true);
        let (left, right) = (true, false);
        let numbered = |order: &[(bool, bool, u32)]| {
            let plain: Vec<(bool, bool)> =
                order.iter().map(|(from_left, is_response, _)| (*from_left, *is_response)).collect();
            let mut seen = seen(&plain);
            seen.iter_mut().zip(order).for_each(|(message, (_, _, number))| message.message_id = *number);
            seen
        };
        let cross = [(left, request, 5), (right, request, 9), (right, response, 5), (left, response, 9)];
        assert_eq!(overlapping(&numbered(&cross), 36), 1);
        assert_eq!(overlapping(&numbered(&cross), 37), 0, "another type");
        let in_turn = [(left, request, 5), (right, response, 5), (right, request, 9), (left, response, 9)];
        assert_eq!(overlapping(&numbered(&in_turn), 36), 0);
        let again =
            [cross.as_slice(), &[(left, request, 6), (right, response, 6), (left, request, 7), (right, request, 10)]]
                .concat();
        assert_eq!(overlapping(&numbered(&again), 36), 2);
    }
}
