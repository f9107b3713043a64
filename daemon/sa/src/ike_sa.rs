//! One IKE SA: which phase it is in, and which exchange gets what comes in.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ike_model::snapshot::IkeSaState;
use ike_model::{Cause, CauseKind, Connection, EventBody, Identity, IkeSaSnapshot};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{IkeSpi, Message, Payload, Payloads};
use ipsec::{Answer, OffloadError, Path};

use crate::core::Core;
use crate::deadline::{ChildTimer, IkeTimer};
use crate::error::{Error, Reaction};
use crate::established::{Active, Authenticated, Incoming, Intent, SnapshotContext, Standing};
use crate::exchange::ike_sa_init::{Beginning, Initiating, Responding, Step};
use crate::exchange::{create_child, delete, ike_auth, ike_sa_init, liveness, rekey_ike};
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::turn::Turn;
use crate::window::{Fit, Window};
use crate::work::{Outcome, WorkId};

/// See the module.
pub(crate) struct IkeSa {
    /// What it is in every phase.
    pub(crate) core: Core,
    /// What it is in this phase.
    pub(crate) phase: Phase,
}

/// Phases of an IKE SA. What belongs to a past one cannot be reached.
pub(crate) enum Phase {
    /// We initiate it.
    Initiating(Box<Initiating>),
    /// A peer initiates it.
    Responding(Box<Responding>),
    /// Both ends have proved who they are.
    Authenticated(Box<Authenticated>),
    /// It is over.
    Closed,
}

impl IkeSa {
    /// Begins an IKE SA to a configured peer.
    pub(crate) fn initiate(
        turn: &mut Turn<'_>,
        connection: Arc<Connection>,
        requests: VecDeque<ChildRequest>,
    ) -> Result<Self, Error> {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let path = Path { local: nowhere, remote: nowhere };
        let spi_i = turn.ids.ike_spi(turn.context)?;
        let core = Self::new_core(turn, connection, path, (spi_i, IkeSpi(0)), true);
        let mut ike = Self { core, phase: Phase::Initiating(Box::new(Initiating::new(requests))) };
        ike.guarded(turn, |phase, core, turn| match phase {
            Phase::Initiating(init) => init.begin(core, turn),
            Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => Ok(()),
        });
        Ok(ike)
    }

    /// Begins an IKE SA that a peer asks for.
    pub(crate) fn respond(
        turn: &mut Turn<'_>,
        path: Path,
        message: &Message<'_>,
        beginning: Beginning,
    ) -> Result<Self, Error> {
        let spi_r = turn.ids.ike_spi(turn.context)?;
        let spis = (message.header.initiator_spi, spi_r);
        let mut core = Self::new_core(turn, beginning.connection(), path, spis, false);
        let responding = Responding::begin(&mut core, turn, message, beginning)?;
        Ok(Self { core, phase: Phase::Responding(Box::new(responding)) })
    }

    /// An IKE SA that is authenticated because its predecessor was.
    pub(crate) fn authenticated(core: Core, authenticated: Authenticated) -> Self {
        Self { core, phase: Phase::Authenticated(Box::new(authenticated)) }
    }

    fn new_core(
        turn: &mut Turn<'_>,
        connection: Arc<Connection>,
        path: Path,
        (spi_i, spi_r): (IkeSpi, IkeSpi),
        initiator: bool,
    ) -> Core {
        Core {
            spi_i,
            spi_r,
            initiator,
            unique_id: turn.ids.ike(),
            generation: 0,
            connection,
            path,
            nat: crate::nat::Nat::default(),
            window: Window::default(),
            keys: None,
            suite: None,
            local_id: Identity::Any,
            remote_id: Identity::Any,
            heard_at: turn.now(),
            established_at: None,
        }
    }

    /// Runs something of a phase before authentication; when it fails the attempt is over.
    fn guarded(
        &mut self,
        turn: &mut Turn<'_>,
        run: impl FnOnce(&mut Phase, &mut Core, &mut Turn<'_>) -> Result<(), Error>,
    ) {
        if let Err(error) = run(&mut self.phase, &mut self.core, turn) {
            self.attempt_failed(turn, &error);
        }
    }

    fn attempt_failed(&mut self, turn: &mut Turn<'_>, error: &Error) {
        if error.reaction() == Reaction::Drop {
            tracing::debug!(conn = self.core.connection.name, ike = self.core.unique_id, "ignored: {error}");
            return;
        }
        self.give_up(turn, &error.cause());
    }

    /// Ends an IKE SA that is not authenticated.
    pub(crate) fn give_up(&mut self, turn: &mut Turn<'_>, cause: &Cause) {
        let ike = Box::new(self.core.snapshot(turn.now(), IkeSaState::Connecting));
        let (core, cause) = (&self.core, cause.clone());
        tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, cause = ?cause.kind, "IKE SA failed: {cause}");
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Initiating(mut init) => ike_auth::all_failed(&mut init, core, turn, &cause),
            Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => {}
        }
        let about_identity =
            matches!(cause.kind, CauseKind::AuthenticationFailed | CauseKind::NoSecret | CauseKind::NoConfiguration);
        turn.event(if about_identity {
            EventBody::IkeSaAuthFailed { ike, cause }
        } else {
            EventBody::IkeSaFailed { ike, cause }
        });
        turn.notices.push_back(Notice::Closed { spi: core.spi().0, unique_id: core.unique_id });
    }

    /// A message with our SPI.
    pub(crate) fn on_message(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        let header = &message.header;
        if header.flags.initiator == self.core.initiator {
            return self.ignore("message from our own direction");
        }
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return self.on_init(turn, path, message);
        }
        let peer_spi = if self.core.initiator { header.responder_spi } else { header.initiator_spi };
        let expected = if self.core.initiator { self.core.spi_r } else { self.core.spi_i };
        if peer_spi != expected {
            return self.ignore("the peer's SPI is another one");
        }
        if header.flags.response { self.on_response(turn, message) } else { self.on_request(turn, path, message) }
    }

    fn ignore(&self, reason: &str) {
        tracing::debug!(conn = self.core.connection.name, ike = self.core.unique_id, "ignored: {reason}");
    }

    fn on_init(&mut self, turn: &mut Turn<'_>, path: Path, message: &Message<'_>) {
        self.guarded(turn, |phase, core, turn| match phase {
            Phase::Initiating(init) if message.header.flags.response => init.on_response(core, turn, path, message),
            Phase::Initiating(_) | Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => {
                Err(Error::Unauthentic("IKE_SA_INIT out of place"))
            }
        });
    }

    fn on_response(&mut self, turn: &mut Turn<'_>, message: &Message<'_>) {
        if !self.core.window.awaits(message.header.message_id) {
            return self.ignore("response that nobody waits for");
        }
        let opened = match self.core.open(message) {
            Ok(opened) => opened,
            Err(error) => return self.ignore(&error.to_string()),
        };
        let payloads = match opened.payloads() {
            Ok(payloads) => payloads,
            Err(error) => return self.broken(turn, &error.into()),
        };
        let repeated = self.core.window.was_repeated();
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
                established_response(authenticated, &mut self.core, turn, &payloads);
                authenticated.advance(&mut self.core, turn);
                self.reap(turn);
            }
            Phase::Responding(_) | Phase::Closed => {}
        }
    }

    fn on_auth_response(&mut self, turn: &mut Turn<'_>, exchange: ExchangeType, payloads: &Payloads<'_>) {
        let Phase::Initiating(init) = &mut self.phase else { return };
        if init.step != Step::AuthSent || exchange != ExchangeType::IKE_AUTH {
            return self.ignore("IKE_AUTH response out of place");
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
        match self.core.window.fit(message.header.message_id) {
            Fit::New => {}
            Fit::Processing => return self.ignore("request that is being processed"),
            Fit::Outside => return self.ignore("message ID outside of the window"),
            Fit::Repeated(octets) => {
                let octets = octets.to_vec();
                //= RFC 7296 §2.1: a repeated request is answered again; only an authentic one, or anybody could make us send
                match self.core.open(message) {
                    Ok(_) => turn.transmit(self.core.path, octets, self.core.connection.dscp),
                    Err(error) => self.ignore(&error.to_string()),
                }
                return;
            }
        }
        let opened = match self.core.open(message) {
            Ok(opened) => opened,
            Err(error) => return self.ignore(&error.to_string()),
        };
        self.core.heard_at = turn.now();
        self.follow(turn, path);
        self.core.window.processing();
        let exchange = message.header.exchange;
        let result = match opened.payloads() {
            Ok(payloads) => self.dispatch_request(turn, exchange, &payloads),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            self.request_failed(turn, exchange, &error);
        }
        self.advance(turn);
        self.reap(turn);
    }

    /// The way an authentic request took is the way to the peer, while the peer is behind NAT or has moved to the NAT-T port (RFC 7296 §2.23).
    fn follow(&mut self, turn: &mut Turn<'_>, path: Path) {
        let floats = matches!(self.phase, Phase::Responding(_));
        if path == self.core.path || !(floats || self.core.nat.remote && !self.core.nat.local) {
            return;
        }
        self.core.path = path;
        if let Phase::Authenticated(authenticated) = &mut self.phase {
            let ike = Box::new(authenticated.snapshot_alone(&self.core, turn.now()));
            turn.event(EventBody::IkeSaUpdated { ike, path });
            authenticated.move_children(&self.core, turn, path);
        }
    }

    fn dispatch_request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        payloads: &Payloads<'_>,
    ) -> Result<(), Error> {
        if let Some(kind) = payloads.unsupported_critical() {
            return Err(Error::UnsupportedCritical(kind));
        }
        let core = &mut self.core;
        match (&mut self.phase, exchange) {
            (Phase::Responding(responding), ExchangeType::IKE_AUTH) => {
                let authenticated = ike_auth::on_request(responding, core, turn, payloads)?;
                self.phase = Phase::Authenticated(Box::new(authenticated));
                Ok(())
            }
            (Phase::Authenticated(authenticated), ExchangeType::CREATE_CHILD_SA) => {
                if rekey_ike::is_meant(payloads) {
                    rekey_ike::on_request(authenticated, core, turn, payloads)
                } else {
                    create_child::on_request(authenticated, core, turn, payloads)
                }
            }
            (Phase::Authenticated(authenticated), ExchangeType::INFORMATIONAL) => {
                delete::on_request(authenticated, core, turn, payloads)?;
                peer_complains(authenticated, core, turn, payloads);
                Ok(())
            }
            //= RFC 7296 §1.2: nothing else is allowed before authentication, and no exchange twice
            (Phase::Initiating(_) | Phase::Responding(_), _) => Err(Error::Unauthentic("request out of place")),
            (Phase::Authenticated(_), _) => Err(Error::PeerMisbehaved("exchange that does not belong here")),
            (Phase::Closed, _) => Ok(()),
        }
    }

    /// A request could not be served: the reaction decides.
    fn request_failed(&mut self, turn: &mut Turn<'_>, exchange: ExchangeType, error: &Error) {
        let core = &mut self.core;
        match error.reaction() {
            Reaction::Drop | Reaction::EndExchange | Reaction::CloseSilently => {
                core.window.forget_request();
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
    fn broken(&mut self, turn: &mut Turn<'_>, error: &Error) {
        match &mut self.phase {
            Phase::Authenticated(authenticated) => {
                authenticated.finish(&self.core, turn, error.cause());
                self.reap(turn);
            }
            Phase::Initiating(_) | Phase::Responding(_) => self.attempt_failed(turn, error),
            Phase::Closed => {}
        }
    }

    /// Work for us is done.
    pub(crate) fn on_work(&mut self, turn: &mut Turn<'_>, id: WorkId, outcome: Outcome) {
        match &mut self.phase {
            Phase::Initiating(_) => self.guarded(turn, |phase, core, turn| {
                let Phase::Initiating(init) = phase else { return Ok(()) };
                if init.on_work(core, turn, id, outcome)? { ike_auth::start(init, core, turn) } else { Ok(()) }
            }),
            Phase::Responding(_) => self.guarded(turn, |phase, core, turn| match phase {
                Phase::Responding(responding) => responding.on_work(core, turn, id, outcome),
                Phase::Initiating(_) | Phase::Authenticated(_) | Phase::Closed => Ok(()),
            }),
            Phase::Authenticated(authenticated) => {
                let result = established_work(authenticated, &mut self.core, turn, id, outcome);
                if let Err(error) = result {
                    self.request_failed(turn, ExchangeType::CREATE_CHILD_SA, &error);
                }
                self.advance(turn);
                self.reap(turn);
            }
            Phase::Closed => {}
        }
    }

    /// The backend has answered an install.
    pub(crate) fn on_install(&mut self, turn: &mut Turn<'_>, child: u32, result: Result<Answer, OffloadError>) {
        self.with_authenticated(turn, |authenticated, core, turn| authenticated.on_install(core, turn, child, result));
    }

    /// Runs something of an authenticated IKE SA, and removes it should it end by that.
    pub(crate) fn with_authenticated(
        &mut self,
        turn: &mut Turn<'_>,
        run: impl FnOnce(&mut Authenticated, &mut Core, &mut Turn<'_>),
    ) {
        if let Phase::Authenticated(authenticated) = &mut self.phase {
            run(authenticated, &mut self.core, turn);
        }
        self.advance(turn);
        self.reap(turn);
    }

    /// One of our deadlines has come.
    pub(crate) fn on_timer(&mut self, turn: &mut Turn<'_>, timer: IkeTimer) {
        match timer {
            IkeTimer::Retransmit => self.retransmit(turn),
            IkeTimer::HalfOpen => {
                if matches!(self.phase, Phase::Responding(_)) {
                    self.give_up(turn, &ike_sa_init::half_open_cause());
                }
            }
            IkeTimer::Keepalive => liveness::keepalive(&self.core, turn),
            IkeTimer::Liveness => self.with_authenticated(turn, liveness::due),
            IkeTimer::Rekey => self.with_authenticated(turn, |authenticated, core, turn| {
                if authenticated.standing == Standing::Up {
                    authenticated.intend(core, turn, Intent::RekeyIke);
                }
            }),
            IkeTimer::Expire => self.with_authenticated(turn, |authenticated, core, turn| {
                authenticated.close(
                    core,
                    turn,
                    Cause::new(CauseKind::HardLimit, "the IKE SA has reached its hard lifetime"),
                );
            }),
            IkeTimer::Resume => self.with_authenticated(turn, |authenticated, _, _| {
                let deferred = std::mem::take(&mut authenticated.deferred);
                authenticated.intents.extend(deferred);
            }),
            IkeTimer::Reap => self.with_authenticated(turn, |authenticated, core, turn| {
                authenticated.finish(core, turn, Cause::new(CauseKind::Rekeyed, "replaced"));
            }),
        }
    }

    fn retransmit(&mut self, turn: &mut Turn<'_>) {
        let Err(error) = self.core.repeat_request(turn) else { return };
        match &mut self.phase {
            Phase::Initiating(_) => self.guarded(turn, |phase, core, turn| match phase {
                Phase::Initiating(init) => init.unanswered(core, turn, error),
                Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => Err(error),
            }),
            Phase::Authenticated(authenticated) => {
                let cause = error.cause();
                if authenticated.standing == Standing::Up {
                    let ike = Box::new(authenticated.snapshot_alone(&self.core, turn.now()));
                    turn.event(EventBody::PeerUnreachable { ike, cause: cause.clone() });
                }
                authenticated.finish(&self.core, turn, cause);
                self.reap(turn);
            }
            Phase::Responding(_) | Phase::Closed => {}
        }
    }

    /// A deadline of a CHILD SA has come.
    pub(crate) fn on_child_timer(&mut self, turn: &mut Turn<'_>, child: u32, timer: ChildTimer) {
        self.with_authenticated(turn, |authenticated, core, turn| {
            authenticated.on_child_timer(core, turn, child, timer)
        });
    }

    /// A child is wanted. Gives it back when this IKE SA cannot take it.
    pub(crate) fn want_child(&mut self, turn: &mut Turn<'_>, request: ChildRequest) -> Option<ChildRequest> {
        match &mut self.phase {
            Phase::Initiating(init) => {
                let known = init.requests.iter().any(|other| other.child.name == request.child.name)
                    || init.offer.as_ref().is_some_and(|offer| offer.request.child.name == request.child.name);
                if !known {
                    init.requests.push_back(request);
                }
                None
            }
            Phase::Authenticated(authenticated) if authenticated.standing == Standing::Up => {
                authenticated.want_child(&mut self.core, turn, request);
                None
            }
            Phase::Authenticated(_) | Phase::Responding(_) | Phase::Closed => Some(request),
        }
    }

    /// Closes it with the peer, or at once when it is not authenticated or `force` says so.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>, cause: Cause, force: bool) {
        match &mut self.phase {
            Phase::Initiating(_) | Phase::Responding(_) => self.give_up(turn, &cause),
            Phase::Authenticated(authenticated) => {
                authenticated.close(&mut self.core, turn, cause.clone());
                if force {
                    authenticated.finish(&self.core, turn, cause);
                }
                self.reap(turn);
            }
            Phase::Closed => {}
        }
    }

    fn advance(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Authenticated(authenticated) = &mut self.phase {
            authenticated.advance(&mut self.core, turn);
        }
    }

    /// Tells the endpoint to remove it once it has ended.
    pub(crate) fn reap(&mut self, turn: &mut Turn<'_>) {
        let finished = matches!(&self.phase, Phase::Authenticated(authenticated) if authenticated.finished);
        if finished {
            self.phase = Phase::Closed;
            turn.notices.push_back(Notice::Closed { spi: self.core.spi().0, unique_id: self.core.unique_id });
        }
    }

    /// State for users.
    pub(crate) fn snapshot(&self, context: &SnapshotContext<'_>) -> IkeSaSnapshot {
        match &self.phase {
            Phase::Authenticated(authenticated) => authenticated.snapshot(&self.core, context),
            Phase::Initiating(_) | Phase::Responding(_) => self.core.snapshot(context.now, IkeSaState::Connecting),
            Phase::Closed => self.core.snapshot(context.now, IkeSaState::Deleting),
        }
    }
}

/// The response to our exchange of an authenticated IKE SA.
fn established_response(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) {
    match authenticated.active.take() {
        Some(Active::Child(exchange)) => create_child::on_response(authenticated, core, turn, exchange, payloads),
        Some(Active::RekeyIke(exchange)) => rekey_ike::on_response(authenticated, core, turn, exchange, payloads),
        Some(Active::DeleteChildren(children)) => delete::children_deleted(authenticated, core, turn, &children),
        Some(Active::DeleteIke) => authenticated.finish(core, turn, Cause::new(CauseKind::Operator, "closed")),
        Some(Active::Liveness) | None => {}
        Some(first @ Active::First(_)) => authenticated.active = Some(first),
    }
}

fn established_work(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    id: WorkId,
    outcome: Outcome,
) -> Result<(), Error> {
    // Computing a response is told from computing for our own exchange by the kind of outcome.
    let answers = matches!(outcome, Outcome::Responded(_));
    if answers {
        return match authenticated.incoming.take() {
            Some(Incoming::ChildKeyExchange(pending)) => {
                create_child::on_key_exchange(authenticated, core, turn, pending, id, outcome)
            }
            Some(Incoming::IkeKeyExchange(pending)) => {
                rekey_ike::on_key_exchange(authenticated, core, turn, pending, id, outcome)
            }
            other => {
                authenticated.incoming = other;
                Ok(())
            }
        };
    }
    match authenticated.active.take() {
        Some(Active::Child(exchange)) => create_child::on_work(authenticated, core, turn, exchange, id, outcome),
        Some(Active::RekeyIke(exchange)) => rekey_ike::on_work(authenticated, core, turn, exchange, id, outcome),
        other => authenticated.active = other,
    }
    Ok(())
}

/// Errors that the peer reports outside of any exchange of ours.
fn peer_complains(authenticated: &mut Authenticated, core: &Core, turn: &mut Turn<'_>, payloads: &Payloads<'_>) {
    let fatal = [NotifyType::AUTHENTICATION_FAILED, NotifyType::INVALID_SYNTAX];
    let found = payloads.notifies().map(|notify| notify.kind).find(|kind| fatal.contains(kind));
    if let Some(kind) = found {
        authenticated.finish(core, turn, Error::PeerNotified(kind).cause());
    }
}
