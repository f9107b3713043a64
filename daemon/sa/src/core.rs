//! What an IKE SA is in every phase: names, way, window, keys; sealing and opening of its messages.

use std::sync::Arc;
use std::time::Duration;

use ike_model::snapshot::IkeSaState;
use ike_model::{Cause, Connection, Counter, Identity, IkeSaSnapshot};
use ike_wire::ids::ExchangeType;
use ike_wire::{
    Chain, EncryptedFragment, Flags, Header, IkeSpi, Malformed, Message, MessageId, Payload, Payloads, SkBuffer,
    encode, encode_chain, sk_overhead,
};
use ipsec::{Instant, Path};

use crate::counters::{self, CounterTable, Way};
use crate::datagrams::Datagrams;
use crate::deadline::{IkeTimer, Timer};
use crate::error::Error;
use crate::fragmentation;
use crate::key_schedule::Keys;
use crate::mobility::{self, Mobility};
use crate::nat::Nat;
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::pace::Pace;
use crate::reassembly::{MOST_OCTETS, MOST_OCTETS_BEFORE_AUTHENTICATION, Reassembly};
use crate::retry;
use crate::say::{At, Said, say};
use crate::suite::IkeSuite;
use crate::tally::Tallied;
use crate::turn::Turn;
use crate::window::Window;

/// See the module.
pub(crate) struct Core {
    /// Initiator's SPI.
    pub(crate) spi_i: IkeSpi,
    /// Responder's SPI; zero before it is known.
    pub(crate) spi_r: IkeSpi,
    /// We are the original initiator of this IKE SA.
    pub(crate) initiator: bool,
    /// Number shown to users.
    pub(crate) unique_id: u32,
    /// Rekeys before this one.
    pub(crate) generation: u32,
    /// Configuration.
    pub(crate) connection: Arc<Connection>,
    /// It is known that this is the connection; until then it is one of those that may serve the peer.
    pub(crate) chosen: bool,
    /// Way to the peer.
    pub(crate) path: Path,
    /// NAT on it.
    pub(crate) nat: Nat,
    /// Other ways.
    pub(crate) mobility: Mobility,
    /// The way back to where the request being processed came from.
    pub(crate) reply: Path,
    /// When we last sent something to the peer.
    pub(crate) sent_at: Instant,
    /// Message IDs.
    pub(crate) window: Window,
    /// Both ends can do fragmentation.
    pub(crate) fragments: bool,
    /// Fragments of messages that are not whole yet.
    pub(crate) reassembly: Reassembly,
    /// Keys, once there are any.
    pub(crate) keys: Option<Keys>,
    /// Algorithms, once chosen.
    pub(crate) suite: Option<IkeSuite>,
    /// Our identity.
    pub(crate) local_id: Identity,
    /// The peer's identity; `Any` before it is known.
    pub(crate) remote_id: Identity,
    /// When the peer was last heard, authentically.
    pub(crate) heard_at: Instant,
    /// When our last request was sent for the first time.
    pub(crate) asked_at: Instant,
    /// From our last request that was answered without being repeated to its response.
    pub(crate) round_trip: Option<Duration>,
    /// Our SPI of the IKE SA that this one is to replace by full authentication, children and all.
    pub(crate) reauthenticates: Option<u64>,
    /// Since when it is up: authenticated, or made by rekeying one that was.
    pub(crate) established_at: Option<Instant>,
    /// Another IKE SA of the same peer has its place; it goes soon.
    pub(crate) superseded: bool,
    /// It was given up while IKE_AUTH was under way: the peer, which may have it up, is told once it answers.
    pub(crate) unwanted: bool,
    /// When it was begun here: the first request was received or made.
    pub(crate) begun_at: Instant,
    /// The authentication that it rests on.
    pub(crate) authentication: Authentication,
    /// Interface ids of children that have none of their own.
    pub(crate) interface: (u32, u32),
    /// How fast the peer may ask.
    pub(crate) pace: Pace,
}

/// How long the authentication holds that an IKE SA rests on; rekeying changes nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authentication {
    /// Since when.
    pub(crate) since: Option<Instant>,
    /// The peer began it.
    pub(crate) responder: bool,
    /// By our own configuration.
    pub(crate) own: Option<Limit>,
    /// By the peer's AUTH_LIFETIME.
    pub(crate) peer: Option<Limit>,
}

/// A limit of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// When it is to be repeated.
    pub(crate) repeat_at: Instant,
    /// When it ends.
    pub(crate) ends_at: Instant,
}

impl Limit {
    /// The earlier one of each.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { repeat_at: self.repeat_at.min(other.repeat_at), ends_at: self.ends_at.min(other.ends_at) }
    }
}

impl Authentication {
    /// The limits that hold.
    pub(crate) fn limit(&self) -> Option<Limit> {
        match (self.own, self.peer) {
            (Some(own), Some(peer)) => Some(own.min(peer)),
            (own, peer) => own.or(peer),
        }
    }
}

/// A message of the peer, checked and decrypted.
pub(crate) enum Opened {
    /// It came as a whole.
    Whole(SkBuffer),
    /// It came in fragments.
    Joined(Chain),
}

impl Opened {
    /// What it says.
    pub(crate) fn payloads(&self) -> Result<Payloads<'_>, Malformed> {
        match self {
            Self::Whole(buffer) => buffer.payloads(),
            Self::Joined(chain) => chain.payloads(),
        }
    }
}

impl Core {
    /// Our SPI: the name of the IKE SA in all tables.
    pub(crate) fn spi(&self) -> IkeSpi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// One of our deadlines.
    pub(crate) fn timer(&self, timer: IkeTimer) -> Timer {
        Timer::Ike(self.spi().0, timer)
    }

    fn header(&self, exchange: ExchangeType, id: MessageId, response: bool) -> Header {
        let flags = Flags { initiator: self.initiator, version: false, response };
        Header::new(self.spi_i, self.spi_r, exchange, flags, id)
    }

    /// A message in clear.
    pub(crate) fn plain(
        &self,
        exchange: ExchangeType,
        id: MessageId,
        response: bool,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, Error> {
        let header = self.header(exchange, id, response);
        say!(TRACE, "ENC 1", self, "generating {}", Said::new(&header, payloads));
        Ok(encode(&header, payloads)?)
    }

    /// A message in SK, or in fragments if it is longer than one datagram should be.
    pub(crate) fn sealed(
        &self,
        turn: &Turn<'_>,
        exchange: ExchangeType,
        id: MessageId,
        response: bool,
        payloads: &[Payload<'_>],
    ) -> Result<Datagrams, Error> {
        let keys = self.keys.as_ref().ok_or(Error::Temporary("no keys yet"))?;
        let sizes = Keys::sizes(keys.outbound.as_ref());
        let (header, chain) = (self.header(exchange, id, response), encode_chain(payloads)?);
        say!(TRACE, "ENC 1", self, "generating {}", Said::new(&header, payloads));
        let whole = chain.octets.len().saturating_add(sk_overhead(chain.octets.len(), sizes));
        let buffers = match self.longest_message(turn) {
            Some(longest) if whole > longest => SkBuffer::seal_fragments(&header, &chain, longest, sizes)?,
            //= RFC 7383 §2.5.1: a message that fits is sent as it always was
            Some(_) | None => vec![SkBuffer::seal(&header, &chain, sizes)?],
        };
        if let count @ 2.. = buffers.len() {
            say!(TRACE, "ENC 1", self, "splitting IKE message ({whole} bytes) into {count} fragments");
        }
        let seal = |mut buffer: SkBuffer| {
            let parts = buffer.parts();
            keys.outbound.seal(turn.context.rng, parts.associated, parts.iv, parts.body, parts.icv)?;
            Ok(buffer.into_octets())
        };
        buffers.into_iter().map(seal).collect()
    }

    /// Octets above which a message goes in fragments, if it may.
    fn longest_message(&self, turn: &Turn<'_>) -> Option<usize> {
        //= RFC 7383 §2.3: fragments are sent only when both ends have announced that they can
        let sends = self.fragments && self.connection.fragmentation.sends();
        sends.then(|| fragmentation::longest_message(&turn.context.config.settings, self.path))
    }

    /// Checks and decrypts a message of the peer. A fragment gives nothing until the last one is there.
    pub(crate) fn receive(&mut self, message: &Message<'_>) -> Result<Option<Opened>, Error> {
        match message.fragment() {
            Some(fragment) => Ok(self.collect(message, fragment)?.map(Opened::Joined)),
            None => Ok(Some(Opened::Whole(self.open(message)?))),
        }
    }

    fn collect(&mut self, message: &Message<'_>, fragment: &EncryptedFragment<'_>) -> Result<Option<Chain>, Error> {
        self.reassembly.admits(&message.header, fragment).map_err(Error::Unauthentic)?;
        //= RFC 7383 §2.6: a fragment is stored only when its own ICV is good
        let opened = self.open(message)?;
        let piece = opened.plaintext().map_err(|_| Error::Unauthentic("fragment with impossible padding"))?;
        let most = if self.established_at.is_some() { MOST_OCTETS } else { MOST_OCTETS_BEFORE_AUTHENTICATION };
        let (number, total) = (fragment.number, fragment.total);
        let whole = self.reassembly.store(&message.header, fragment, piece, most).map_err(Error::Unauthentic)?;
        match &whole {
            None => {
                say!(TRACE, "ENC 1", self, "received fragment #{number} of {total}, waiting for complete IKE message")
            }
            Some(_) => {
                say!(TRACE, "ENC 1", self, "received fragment #{number} of {total}, reassembled fragmented IKE message")
            }
        }
        Ok(whole)
    }

    //= RFC 7383 §2.5.3: of a fragmented message nothing stands in clear in front of SKF
    /// Checks and decrypts one datagram: a message, or a fragment of one.
    pub(crate) fn open(&self, message: &Message<'_>) -> Result<SkBuffer, Error> {
        let keys = self.keys.as_ref().ok_or(Error::Unauthentic("no keys yet"))?;
        //= RFC 7296 §1.2, §1.3: every payload of these exchanges is encrypted; one in front of SK has no place in them
        if message.payloads.len() != 1 {
            return Err(Error::Unauthentic("payloads outside of SK"));
        }
        if message.fragment().is_some() && !self.fragments {
            return Err(Error::Unauthentic("fragment, and fragmentation was not negotiated"));
        }
        // Before the integrity check nothing is known to come from the peer, so every fault here is just dropped.
        let mut buffer = SkBuffer::open(message, Keys::sizes(keys.inbound.as_ref()))
            .map_err(|_| Error::Unauthentic("nothing that could be decrypted"))?;
        let parts = buffer.parts();
        keys.inbound
            .open(parts.associated, parts.iv, parts.body, parts.icv)
            .map_err(|_| Error::Unauthentic("integrity check failed"))?;
        Ok(buffer)
    }

    /// Sends a request in SK and starts the repetitions. The window must be free.
    pub(crate) fn request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<(), Error> {
        let id = self.window.free_id().ok_or(Error::Temporary("a request is under way"))?;
        let datagrams = self.sealed(turn, exchange, id, false, payloads)?;
        self.count_message(turn, exchange, Way::RequestOut);
        self.send_request(turn, datagrams);
        Ok(())
    }

    /// Sends the datagrams of one message along `path`.
    pub(crate) fn transmit(&mut self, turn: &mut Turn<'_>, path: Path, datagrams: &Datagrams) {
        self.sent_at = turn.now();
        for octets in datagrams.iter() {
            let (from, to, length) = (At(path.local), At(path.remote), octets.len());
            say!(TRACE, "NET 1", self, "sending packet: from {from} to {to} ({length} bytes)");
            turn.transmit(path, octets.to_vec(), self.connection.dscp);
        }
    }

    /// Sends an encoded request under the free message ID.
    pub(crate) fn send_request(&mut self, turn: &mut Turn<'_>, datagrams: impl Into<Datagrams>) {
        let datagrams = datagrams.into();
        self.transmit(turn, self.mobility.detour.unwrap_or(self.path), &datagrams);
        self.window.sent(datagrams);
        self.asked_at = turn.now();
        self.await_response(turn, 0);
    }

    /// Sends other octets under the ID of the request that waits.
    pub(crate) fn replace_request(&mut self, turn: &mut Turn<'_>, datagrams: impl Into<Datagrams>) {
        let datagrams = datagrams.into();
        self.transmit(turn, self.path, &datagrams);
        self.window.replace(datagrams);
        self.asked_at = turn.now();
        self.await_response(turn, 0);
    }

    /// Repeats the request that waits.
    ///
    /// # Errors
    /// [`Error::PeerUnreachable`] when it was repeated often enough.
    pub(crate) fn repeat_request(&mut self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let settings = &turn.context.config.settings;
        let remote = self.path.remote;
        let Some((before, datagrams)) = self.window.repeat() else { return Ok(()) };
        if before >= settings.retransmit_tries {
            say!(DEBUG, "IKE 1", self, "giving up after {before} retransmits");
            let text = format!("{remote} did not answer {} messages", before.saturating_add(1));
            return Err(Error::PeerUnreachable(text));
        }
        //= RFC 7383 §2.6.1: a fragmented message is repeated as a whole
        let datagrams = datagrams.clone();
        let (number, id) = (before.saturating_add(1), self.window.waiting_id());
        say!(DEBUG, "IKE 1", self, "retransmit {number} of request with message ID {id}");
        turn.registry.tally.count(Tallied::RequestRepeated);
        for way in self.ways(before) {
            self.transmit(turn, way, &datagrams);
        }
        self.await_response(turn, before.saturating_add(1));
        Ok(())
    }

    //= RFC 4555 §3.5, §3.10: a request that was repeated without answer is a sign that another way may be better
    /// Ways on which a request is repeated that was repeated so often before.
    fn ways(&mut self, before: u32) -> Vec<Path> {
        let mut ways = vec![self.path];
        ways.extend(self.mobility.detour);
        if self.mobility.agreed && self.mobility.decides && before >= PATIENCE {
            ways.extend(mobility::other_ways(self));
        }
        self.mobility.scattered |= ways.len() > 1;
        ways
    }

    //= RFC 4555 §3.5: outstanding requests go on being repeated between the new addresses
    /// Sends the request that waits on the way that is now in use, as if for the first time.
    pub(crate) fn resend(&mut self, turn: &mut Turn<'_>) {
        if self.window.is_waiting() {
            self.mobility.scattered = true;
            self.resend_in_place(turn);
        }
    }

    /// The same where the way has not changed.
    pub(crate) fn resend_in_place(&mut self, turn: &mut Turn<'_>) {
        let Some(datagrams) = self.window.again().cloned() else { return };
        self.transmit(turn, self.path, &datagrams);
        self.await_response(turn, 0);
    }

    fn await_response(&self, turn: &mut Turn<'_>, repeats: u32) {
        let wait = retry::retransmission(&turn.context.config.settings, repeats, turn.random());
        if let Some(wait) = wait {
            let at = turn.after(wait);
            turn.deadlines.set(self.timer(IkeTimer::Retransmit), at);
        }
    }

    /// The response that was waited for has come.
    pub(crate) fn answered(&mut self, turn: &mut Turn<'_>) {
        // Of a repeated request nobody knows which one was answered.
        if !self.window.was_repeated() {
            self.round_trip = Some(turn.now().saturating_since(self.asked_at));
        }
        self.window.answered();
        self.reassembly.forget_response();
        self.mobility.answered();
        turn.deadlines.clear(self.timer(IkeTimer::Retransmit));
    }

    /// Sends the response in SK to the request being processed.
    pub(crate) fn respond(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<(), Error> {
        let id = self.window.processing();
        let datagrams = self.sealed(turn, exchange, id, true, payloads)?;
        self.count_message(turn, exchange, Way::ResponseOut);
        self.send_response(turn, datagrams);
        Ok(())
    }

    //= RFC 7296 §2.11: the response goes to the address and port that the request came from, and from where it came to
    /// Sends an encoded response to the request being processed.
    pub(crate) fn send_response(&mut self, turn: &mut Turn<'_>, datagrams: impl Into<Datagrams>) {
        let datagrams = datagrams.into();
        self.transmit(turn, self.reply, &datagrams);
        self.window.responded(datagrams);
    }

    /// One more of something, of the connection too once that is known.
    pub(crate) fn count(&self, turn: &mut Turn<'_>, what: Counter) {
        self.count_in(&mut turn.registry.counters, what);
    }

    /// The same, outside of a turn.
    pub(crate) fn count_in(&self, counters: &mut CounterTable, what: Counter) {
        if self.chosen { counters.count_for(&self.connection.name, what) } else { counters.count(what) }
    }

    /// One more message that was made, or that was received and can be read.
    pub(crate) fn count_message(&self, turn: &mut Turn<'_>, exchange: ExchangeType, way: Way) {
        if let Some(what) = counters::of_message(exchange, way) {
            self.count(turn, what);
        }
    }

    /// A child that was asked for is not going to be made, before there is any exchange for it.
    pub(crate) fn child_failed(&self, turn: &mut Turn<'_>, request: ChildRequest, cause: &Cause) {
        tracing::warn!(conn = self.connection.name, child = request.child.name, ike = self.unique_id, peer = %self.path.remote, "CHILD SA failed: {cause}");
        let (connection, child) = (self.connection.clone(), Some(request.child));
        turn.notices.push_back(Notice::ChildFailed { connection, child, cause: cause.clone() });
    }

    /// The name under which a child is installed.
    pub(crate) fn child_name(&self, child: &str) -> Arc<str> {
        format!("{}/{child}", self.connection.name).into()
    }

    /// State for users; children are left to the caller.
    pub(crate) fn snapshot(&self, now: Instant, state: IkeSaState) -> IkeSaSnapshot {
        IkeSaSnapshot {
            connection: self.connection.name.as_str().into(),
            unique_id: self.unique_id,
            state,
            local: self.path.local,
            remote: self.path.remote,
            local_id: self.local_id.clone(),
            remote_id: self.remote_id.clone(),
            initiator: self.initiator,
            initiator_spi: self.spi_i.0,
            responder_spi: self.spi_r.0,
            nat_local: self.nat.local,
            nat_remote: self.nat.remote,
            nat_fake: self.nat.forced,
            algorithms: self.suite.map(IkeSuite::shown),
            established_seconds: self.established_at.map(|at| now.saturating_since(at).as_secs()),
            rekey_seconds: None,
            reauth_seconds: None,
            heard_seconds: now.saturating_since(self.heard_at).as_secs(),
            repeats: self.window.repeats(),
            waiting_seconds: self.window.is_waiting().then(|| now.saturating_since(self.asked_at).as_secs()),
            tasks_queued: Vec::new(),
            tasks_active: Vec::new(),
            generation: self.generation,
            if_id_in: self.interface.0,
            if_id_out: self.interface.1,
            children: Vec::new(),
        }
    }
}

/// Repetitions of a request on the way in use before the other ways are tried too.
const PATIENCE: u32 = 1;

/// Seconds from `now` to `at`, negative when it has passed.
pub(crate) fn seconds_until(now: Instant, at: Instant) -> i64 {
    let (ahead, behind) = (at.saturating_since(now), now.saturating_since(at));
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    if behind.is_zero() { seconds(ahead) } else { -seconds(behind) }
}
