//! Messages of the peer: window, integrity, and the exchange that each belongs to.

use ike_model::{Cause, CauseKind, Counter};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Delete, Header, Message, Payload, Payloads};
use ipsec::Path;

use crate::core::{Core, Opened};
use crate::counters::Way;
use crate::error::{Error, Reaction};
use crate::established::{Active, Authenticated, Standing};
use crate::exchange::ike_sa_init::Step;
use crate::exchange::{auth_lifetime, create_child, delete, ike_auth, mobike, rekey_ike};
use crate::notice::Notice;
use crate::say::{At, Said, say};
use crate::tally::{Dropped, Tallied};
use crate::turn::Turn;
use crate::window::Fit;

use super::{IkeSa, Phase};

/// A message that holds a payload twice of which there is one says two things at once; taking either would be a guess.
const TWICE: Error = Error::PeerMisbehaved("a payload of which there is one stands twice in a message");

impl IkeSa {
    /// A message with our SPI.
    pub(crate) fn on_message(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        let header = &message.header;
        let (from, to, length) = (At(path.remote), At(path.local), message.octets().len());
        say!(TRACE, "NET 1", self.core, "received packet: from {from} to {to} ({length} bytes)");
        if header.flags.initiator == self.core.initiator {
            turn.registry.counters.count(Counter::InvalidSpi);
            return self.ignore(turn, Dropped::OutOfPlace, "message from our own direction");
        }
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return self.on_init(turn, path, message);
        }
        let peer_spi = if self.core.initiator { header.responder_spi } else { header.initiator_spi };
        let expected = if self.core.initiator { self.core.spi_r } else { self.core.spi_i };
        if peer_spi != expected {
            turn.registry.counters.count(Counter::InvalidSpi);
            return self.ignore(turn, Dropped::UnknownSpi, "the peer's SPI is another one");
        }
        if header.flags.response { self.on_response(turn, path, message) } else { self.on_request(turn, path, message) }
    }

    fn ignore(&self, turn: &Turn<'_>, why: Dropped, reason: &str) {
        turn.registry.tally.count(Tallied::Dropped(why));
        tracing::debug!(conn = self.core.connection.name, ike = self.core.unique_id, "ignored: {reason}");
    }

    /// A message that was looked for cannot be read, and perhaps nobody of ours has sent it.
    fn unreadable(&self, turn: &mut Turn<'_>, error: &Error) {
        self.core.count(turn, Counter::Invalid);
        self.ignore(turn, Dropped::Unauthentic, &error.to_string());
    }

    fn tell_parsed(&self, header: &Header, payloads: &[Payload<'_>]) {
        say!(TRACE, "ENC 1", self.core, "parsed {}", Said::new(header, payloads));
    }

    /// Nothing is wrong with a message, and there is nothing to do.
    fn pass_over(&self, reason: &str) {
        tracing::debug!(conn = self.core.connection.name, ike = self.core.unique_id, "ignored: {reason}");
    }

    fn on_init(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        if message.payloads.repeated().is_some() {
            self.core.count(turn, Counter::Invalid);
            return self.ignore(
                turn,
                Dropped::Malformed,
                "a payload of which there is one stands twice in IKE_SA_INIT",
            );
        }
        self.tell_parsed(&message.header, message.payloads.as_slice());
        self.guarded(turn, |phase, core, turn| match phase {
            Phase::Initiating(init) if message.header.flags.response => init.on_response(core, turn, path, message),
            Phase::Initiating(_) | Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => {
                Err(Error::Unauthentic("IKE_SA_INIT out of place"))
            }
        });
    }

    fn on_response(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        if !self.core.window.awaits(message.header.message_id) {
            return self.ignore(turn, Dropped::OutsideWindow, "response that nobody waits for");
        }
        let opened = match self.core.receive(message) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return self.unreadable(turn, &error),
        };
        let payloads = match opened.payloads() {
            Ok(payloads) => payloads,
            Err(error) => {
                self.core.count(turn, Counter::Invalid);
                return self.broken(turn, &error.into());
            }
        };
        count_read(&self.core, turn, message.header.exchange, &payloads, Way::ResponseIn);
        self.tell_parsed(&message.header, payloads.as_slice());
        if payloads.repeated().is_some() {
            return self.broken(turn, &TWICE);
        }
        let repeated = self.core.window.was_repeated();
        let scattered = self.core.mobility.scattered;
        self.core.answered(turn);
        self.core.heard_at = turn.now();
        match &mut self.phase {
            Phase::Initiating(_) => self.on_auth_response(turn, message.header.exchange, &payloads),
            Phase::Authenticated(authenticated) => {
                if repeated {
                    tracing::debug!(
                        conn = self.core.connection.name,
                        ike = self.core.unique_id,
                        "the peer answers again"
                    );
                }
                if scattered {
                    authenticated.answered_on(&mut self.core, turn, path);
                }
                established_response(authenticated, &mut self.core, turn, &payloads, (path, scattered));
                authenticated.advance(&mut self.core, turn);
                self.reap(turn);
            }
            Phase::Closed if self.core.unwanted => {
                self.core.unwanted = false;
                ike_auth::tell_unwanted(&mut self.core, turn);
            }
            Phase::Responding(_) | Phase::Closed => {}
        }
    }

    fn on_auth_response(&mut self, turn: &mut Turn<'_>, exchange: ExchangeType, payloads: &Payloads<'_>) {
        let Phase::Initiating(init) = &mut self.phase else { return };
        if init.step != Step::AuthSent || exchange != ExchangeType::IKE_AUTH {
            return self.ignore(turn, Dropped::OutOfPlace, "IKE_AUTH response out of place");
        }
        match ike_auth::on_response(init, &mut self.core, turn, payloads) {
            Ok(authenticated) => {
                self.phase = Phase::Authenticated(Box::new(authenticated));
                self.advance(turn);
            }
            Err(error) => {
                if matches!(error.reaction(), Reaction::NotifyAndClose(_)) {
                    ike_auth::tell_failure(&mut self.core, turn);
                }
                self.attempt_failed(turn, &error);
            }
        }
    }

    fn on_request(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        let settings = &turn.context.config.settings;
        let paced = matches!(self.phase, Phase::Authenticated(_));
        if paced && !self.core.pace.may_ask(turn.now(), settings) {
            return self.ignore(turn, Dropped::PeerTooFast, "the peer asks faster than peer_request_rate");
        }
        match self.core.window.fit(message.header.message_id) {
            Fit::New => {}
            Fit::Processing => {
                //= RFC 7296 §2.11: the response goes to where the request came from, and that may have changed
                if self.core.open(message).is_ok() {
                    self.core.reply = path;
                }
                return self.pass_over("request that is being processed");
            }
            Fit::Outside => return self.ignore(turn, Dropped::OutsideWindow, "message ID outside of the window"),
            Fit::Repeated(datagrams) => {
                //= RFC 7383 §2.6.1: the first fragment of a request that was answered asks for the response again, the others do not
                if message.fragment().is_some_and(|fragment| fragment.number != 1) {
                    return self.pass_over("fragment of a request that was answered");
                }
                let datagrams = datagrams.clone();
                //= RFC 7296 §2.1: a repeated request is answered again; only an authentic one, or anybody could make us send
                match self.core.open(message) {
                    Ok(_) => {
                        self.core.pace.asked(turn.now(), settings);
                        turn.registry.tally.count(Tallied::ResponseRepeated);
                        self.core.transmit(turn, path, &datagrams);
                    }
                    Err(error) => self.ignore(turn, Dropped::Unauthentic, &error.to_string()),
                }
                return;
            }
        }
        let opened = match self.core.receive(message) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return self.unreadable(turn, &error),
        };
        self.core.reassembly.forget_request();
        if let Ok(payloads) = opened.payloads() {
            self.tell_parsed(&message.header, payloads.as_slice());
        }
        self.core.heard_at = turn.now();
        self.core.reply = path;
        self.core.pace.asked(turn.now(), settings);
        self.follow(turn, path);
        self.core.window.processing();
        let exchange = message.header.exchange;
        if self.is_decided_by(exchange, &opened) {
            return turn.notices.push_back(Notice::InUse { spi: self.core.spi().0, exchange, request: opened });
        }
        self.serve(turn, exchange, &opened);
    }

    /// Answers a request that has been opened.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_>, exchange: ExchangeType, opened: &Opened) {
        let result = match opened.payloads() {
            Ok(payloads) => self.dispatch_request(turn, exchange, &payloads),
            Err(error) => {
                self.core.count(turn, Counter::Invalid);
                Err(error.into())
            }
        };
        if let Err(error) = result {
            self.request_failed(turn, exchange, &error);
        }
        self.advance(turn);
        self.reap(turn);
    }

    /// Whether nothing is decided about this IKE SA of the peer's rekeying and its request shows that it stays.
    fn is_decided_by(&self, exchange: ExchangeType, opened: &Opened) -> bool {
        let Phase::Authenticated(authenticated) = &self.phase else { return false };
        authenticated.standing == Standing::Undecided
            && opened.payloads().is_ok_and(|payloads| rekey_ike::shows_use(exchange, &payloads))
    }

    //= RFC 7296 §2.23: the end that is not behind NAT follows the other to where its authentic messages come from
    //= RFC 4555 §3.8: not with MOBIKE, so that a message without UPDATE_SA_ADDRESSES changes nothing
    //= RFC 7296 §2.11: requests are accepted from any port and answered to where they came from
    /// The way an authentic request took is the way to the peer, while the peer is behind NAT or has moved to the NAT-T port.
    fn follow(&mut self, turn: &mut Turn<'_>, path: Path) {
        match &mut self.phase {
            Phase::Responding(_) => self.core.path = path,
            Phase::Authenticated(authenticated) => authenticated.follow_mapping(&mut self.core, turn, path),
            Phase::Initiating(_) | Phase::Closed => {}
        }
    }

    fn dispatch_request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        payloads: &Payloads<'_>,
    ) -> Result<(), Error> {
        self.in_place(exchange, payloads)?;
        count_read(&self.core, turn, exchange, payloads, Way::RequestIn);
        if let Some(kind) = payloads.unsupported_critical() {
            return Err(Error::UnsupportedCritical(kind));
        }
        if payloads.repeated().is_some() {
            return Err(TWICE);
        }
        let core = &mut self.core;
        match (&mut self.phase, exchange) {
            (Phase::Responding(responding), ExchangeType::IKE_AUTH) => {
                let authenticated = ike_auth::on_request(responding, core, turn, payloads)?;
                self.phase = Phase::Authenticated(Box::new(authenticated));
                Ok(())
            }
            //= RFC 7296 §2.25: a request that cannot be served now is answered TEMPORARY_FAILURE, and the peer waits
            (Phase::Authenticated(_), ExchangeType::CREATE_CHILD_SA)
                if !core.pace.create(turn.now(), &turn.context.config.settings) =>
            {
                Err(Error::Temporary("the peer asks faster than peer_create_rate"))
            }
            (Phase::Authenticated(authenticated), ExchangeType::CREATE_CHILD_SA) => {
                if rekey_ike::is_meant(payloads) {
                    rekey_ike::on_request(authenticated, core, turn, payloads)
                } else {
                    create_child::on_request(authenticated, core, turn, payloads)
                }
            }
            (Phase::Authenticated(authenticated), ExchangeType::INFORMATIONAL) => {
                auth_lifetime::received(core, turn, payloads);
                let answer = mobike::on_request(authenticated, core, turn, payloads);
                delete::on_request(authenticated, core, turn, payloads, answer)?;
                peer_complains(authenticated, core, turn, payloads);
                Ok(())
            }
            (Phase::Initiating(_) | Phase::Responding(_), _) => Err(Error::Unauthentic("request out of place")),
            (Phase::Authenticated(_), _) => Err(Error::PeerMisbehaved("exchange that does not belong here")),
            // The peer may close what we have just forgotten.
            (Phase::Closed, ExchangeType::INFORMATIONAL) if payloads.deletes().any(Delete::is_ike_sa) => {
                core.respond(turn, exchange, &[])
            }
            // Whoever got an answer to anything else would believe that the IKE SA lives.
            (Phase::Closed, _) => Err(Error::Unauthentic("request for an IKE SA that has ended")),
        }
    }

    /// Whether a request may be looked at in this state at all; one that may not is not answered, whatever is wrong with it.
    fn in_place(&self, exchange: ExchangeType, payloads: &Payloads<'_>) -> Result<(), Error> {
        match &self.phase {
            //= RFC 7296 §1.2: nothing but IKE_AUTH is allowed before authentication, and that only from the initiator
            Phase::Responding(_) if exchange == ExchangeType::IKE_AUTH => Ok(()),
            Phase::Initiating(_) | Phase::Responding(_) => Err(Error::Unauthentic("request out of place")),
            // Both ends rekeyed, and nothing is known of this IKE SA yet but that the peer has it.
            Phase::Authenticated(authenticated)
                if authenticated.standing == Standing::Undecided && !payloads.deletes().any(Delete::is_ike_sa) =>
            {
                Err(Error::Unauthentic("request while it is not decided which IKE SA stays"))
            }
            Phase::Authenticated(_) | Phase::Closed => Ok(()),
        }
    }

    /// A request could not be served: the reaction decides.
    pub(super) fn request_failed(&mut self, turn: &mut Turn<'_>, exchange: ExchangeType, error: &Error) {
        let core = &mut self.core;
        match error.reaction() {
            Reaction::Drop | Reaction::EndExchange | Reaction::CloseSilently => {
                core.window.forget_request();
                turn.registry.tally.count(Tallied::Dropped(Dropped::OutOfPlace));
                tracing::debug!(conn = core.connection.name, ike = core.unique_id, "ignored: {error}");
            }
            Reaction::Notify(_) | Reaction::NotifyAndClose(_) => {
                tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, %exchange, "request refused: {error}");
                let notify: Vec<_> = error.notify().map(Payload::Notify).into_iter().collect();
                if let Err(error) = core.respond(turn, exchange, &notify) {
                    tracing::warn!(conn = core.connection.name, ike = core.unique_id, "{error}");
                }
            }
        }
        if matches!(error.reaction(), Reaction::NotifyAndClose(_)) {
            self.broken(turn, error);
        }
    }

    /// An authentic message breaks the protocol, or authentication failed: the IKE SA ends.
    pub(super) fn broken(&mut self, turn: &mut Turn<'_>, error: &Error) {
        match &mut self.phase {
            Phase::Authenticated(authenticated) => {
                authenticated.finish(&self.core, turn, error.cause());
                self.reap(turn);
            }
            Phase::Initiating(_) | Phase::Responding(_) => self.attempt_failed(turn, error),
            Phase::Closed => {}
        }
    }
}

/// One more message that was decrypted: as one of its exchange, unless something in it cannot be understood.
fn count_read(core: &Core, turn: &mut Turn<'_>, exchange: ExchangeType, payloads: &Payloads<'_>, way: Way) {
    if payloads.unsupported_critical().is_some() || payloads.repeated().is_some() {
        core.count(turn, Counter::Invalid);
    } else {
        core.count_message(turn, exchange, way);
    }
}

/// The response to our exchange of an authenticated IKE SA.
fn established_response(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
    came: (Path, bool),
) {
    match authenticated.active.take() {
        Some(Active::Child(exchange)) => create_child::on_response(authenticated, core, turn, exchange, payloads),
        Some(Active::RekeyIke(exchange)) => rekey_ike::on_response(authenticated, core, turn, exchange, payloads),
        Some(Active::DeleteChildren(children)) => delete::children_deleted(authenticated, core, turn, &children),
        Some(Active::DeleteIke) => authenticated.finish(core, turn, Cause::new(CauseKind::Operator, "closed")),
        Some(Active::Liveness) => mobike::watch_mapping(authenticated, core, payloads),
        Some(Active::Mobike(exchange)) => mobike::on_response(authenticated, core, turn, &exchange, payloads, came),
        Some(Active::AuthLifetime) | None => {}
        Some(first @ Active::First(_)) => authenticated.active = Some(first),
    }
}

/// Errors that the peer reports outside of any exchange of ours.
fn peer_complains(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, payloads: &Payloads<'_>) {
    let fatal = [NotifyType::AUTHENTICATION_FAILED, NotifyType::INVALID_SYNTAX];
    let found = payloads.notifies().map(|notify| notify.kind).find(|kind| fatal.contains(kind));
    if let Some(kind) = found {
        authenticated.finish(core, turn, Error::PeerNotified(kind).cause());
    }
}
