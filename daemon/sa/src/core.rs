//! What an IKE SA is in every phase: names, way, window, keys; sealing and opening of its messages.

use std::sync::Arc;

use ike_model::snapshot::IkeSaState;
use ike_model::{Cause, Connection, Identity, IkeSaSnapshot};
use ike_wire::ids::ExchangeType;
use ike_wire::{Flags, Header, IkeSpi, Message, MessageId, Payload, SkBuffer, encode, encode_chain};
use ipsec::{Instant, Path};

use crate::deadline::{IkeTimer, Timer};
use crate::error::Error;
use crate::key_schedule::Keys;
use crate::nat::Nat;
use crate::retry;
use crate::suite::IkeSuite;
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
    /// Way to the peer.
    pub(crate) path: Path,
    /// NAT on it.
    pub(crate) nat: Nat,
    /// Message IDs.
    pub(crate) window: Window,
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
    /// Our SPI of the IKE SA that this one is to replace by full authentication, children and all.
    pub(crate) reauthenticates: Option<u64>,
    /// Since when the peer is authenticated.
    pub(crate) established_at: Option<Instant>,
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
        Ok(encode(&self.header(exchange, id, response), payloads)?)
    }

    /// A message in SK.
    pub(crate) fn sealed(
        &self,
        turn: &Turn<'_>,
        exchange: ExchangeType,
        id: MessageId,
        response: bool,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, Error> {
        let keys = self.keys.as_ref().ok_or(Error::Temporary("no keys yet"))?;
        let header = self.header(exchange, id, response);
        let mut buffer = SkBuffer::seal(&header, &encode_chain(payloads)?, Keys::sizes(keys.outbound.as_ref()))?;
        let parts = buffer.parts();
        keys.outbound.seal(turn.context.rng, parts.associated, parts.iv, parts.body, parts.icv)?;
        Ok(buffer.into_octets())
    }

    /// Checks and decrypts a message of the peer.
    pub(crate) fn open(&self, message: &Message<'_>) -> Result<SkBuffer, Error> {
        let keys = self.keys.as_ref().ok_or(Error::Unauthentic("no keys yet"))?;
        //= RFC 7296 §1.2, §1.3: every payload of these exchanges is encrypted; one in front of SK has no place in them
        if message.payloads.len() != 1 {
            return Err(Error::Unauthentic("payloads outside of SK"));
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
        let octets = self.sealed(turn, exchange, id, false, payloads)?;
        self.send_request(turn, octets);
        Ok(())
    }

    /// Sends an encoded request under the free message ID.
    pub(crate) fn send_request(&mut self, turn: &mut Turn<'_>, octets: Vec<u8>) {
        turn.transmit(self.path, octets.clone(), self.connection.dscp);
        self.window.sent(octets);
        self.await_response(turn, 0);
    }

    /// Sends other octets under the ID of the request that waits.
    pub(crate) fn replace_request(&mut self, turn: &mut Turn<'_>, octets: Vec<u8>) {
        turn.transmit(self.path, octets.clone(), self.connection.dscp);
        self.window.replace(octets);
        self.await_response(turn, 0);
    }

    /// Repeats the request that waits.
    ///
    /// # Errors
    /// [`Error::PeerUnreachable`] when it was repeated often enough.
    pub(crate) fn repeat_request(&mut self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let settings = &turn.context.config.settings;
        let (path, dscp) = (self.path, self.connection.dscp);
        let Some((before, octets)) = self.window.repeat() else { return Ok(()) };
        if before >= settings.retransmit_tries {
            let text = format!("{} did not answer {} messages", path.remote, before.saturating_add(1));
            return Err(Error::PeerUnreachable(text));
        }
        let octets = octets.to_vec();
        turn.transmit(path, octets, dscp);
        self.await_response(turn, before.saturating_add(1));
        Ok(())
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
        self.window.answered();
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
        let octets = self.sealed(turn, exchange, id, true, payloads)?;
        self.send_response(turn, octets);
        Ok(())
    }

    /// Sends an encoded response to the request being processed.
    pub(crate) fn send_response(&mut self, turn: &mut Turn<'_>, octets: Vec<u8>) {
        self.window.responded(&octets);
        turn.transmit(self.path, octets, self.connection.dscp);
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
            tasks_queued: Vec::new(),
            tasks_active: Vec::new(),
            generation: self.generation,
            children: Vec::new(),
        }
    }
}

/// Seconds from `now` to `at`, negative when it has passed.
pub(crate) fn seconds_until(now: Instant, at: Instant) -> i64 {
    let (ahead, behind) = (at.saturating_since(now), now.saturating_since(at));
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    if behind.is_zero() { seconds(ahead) } else { -seconds(behind) }
}

/// Logs the end of something with its cause.
pub(crate) fn log_down(core: &Core, what: &str, cause: &Cause) {
    tracing::info!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, cause = ?cause.kind, "{what} down: {cause}");
}
