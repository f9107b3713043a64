//! One IKE SA: which phase it is in, and which exchange gets what comes in.

mod commands;
mod messages;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ike_model::snapshot::IkeSaState;
use ike_model::{Cause, CauseKind, Connection, EventBody, Identity, IkeSaSnapshot};
use ike_wire::{IkeSpi, Message};
use ipsec::Path;

use crate::core::{Authentication, Core};
use crate::error::{Error, Reaction};
use crate::established::{Authenticated, SnapshotContext};
use crate::exchange::ike_auth;
use crate::exchange::ike_sa_init::{Beginning, Initiating, Responding};
use crate::mobility::Mobility;
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::reassembly::Reassembly;
use crate::say::{self, say};
use crate::turn::Turn;
use crate::window::Window;

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
        if requests.is_empty() {
            say::serves(&core, None);
        }
        requests.iter().for_each(|request| say::serves(&core, Some(&request.child.name)));
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
            chosen: initiator,
            path,
            nat: crate::nat::Nat::default(),
            mobility: Mobility { decides: initiator, ..Mobility::default() },
            reply: path,
            sent_at: turn.now(),
            window: Window::default(),
            fragments: false,
            reassembly: Reassembly::default(),
            keys: None,
            suite: None,
            local_id: Identity::Any,
            remote_id: Identity::Any,
            heard_at: turn.now(),
            asked_at: turn.now(),
            round_trip: None,
            reauthenticates: None,
            established_at: None,
            superseded: false,
            unwanted: false,
            begun_at: turn.now(),
            authentication: Authentication { responder: !initiator, ..Authentication::default() },
            interface: (0, 0),
            pace: crate::pace::Pace::default(),
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
        self.fail(turn, &error.cause(), error.is_refusal_of_peer());
    }

    /// Ends an IKE SA that is not authenticated.
    pub(crate) fn give_up(&mut self, turn: &mut Turn<'_>, cause: &Cause) {
        self.fail(turn, cause, false);
    }

    fn fail(&mut self, turn: &mut Turn<'_>, cause: &Cause, refused_by_peer: bool) {
        let ike = Box::new(self.core.snapshot(turn.now(), IkeSaState::Connecting));
        let (core, cause) = (&self.core, cause.clone());
        turn.notices.push_back(Notice::Closed { spi: core.spi().0, unique_id: core.unique_id });
        if matches!(self.phase, Phase::Responding(_)) && core.remote_id == Identity::Any {
            // Anybody can begin an IKE SA: before the first authentic message there is nothing to tell.
            tracing::debug!(ike = core.unique_id, peer = %core.path.remote, "half-open IKE SA forgotten: {cause}");
            self.phase = Phase::Closed;
            return;
        }
        if cause.kind == CauseKind::PeerUnreachable {
            say!(DEBUG, "IKE 1", core, "establishing IKE_SA failed, peer not responding");
        }
        tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, cause = ?cause.kind, "IKE SA failed: {cause}");
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Initiating(mut init) => ike_auth::all_failed(&mut init, core, turn, &cause),
            Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => {}
        }
        let about_identity =
            matches!(cause.kind, CauseKind::AuthenticationFailed | CauseKind::NoSecret | CauseKind::NoConfiguration);
        turn.event(if about_identity {
            EventBody::IkeSaAuthFailed { ike, cause, refused_by_peer }
        } else {
            EventBody::IkeSaFailed { ike, cause }
        });
    }

    /// Ends an attempt that goes on as another one: what was asked of it has been taken out before.
    pub(crate) fn withdraw(&mut self, turn: &mut Turn<'_>, cause: &Cause) {
        tracing::info!(conn = self.core.connection.name, ike = self.core.unique_id, "attempt withdrawn: {cause}");
        self.phase = Phase::Closed;
        turn.notices.push_back(Notice::Closed { spi: self.core.spi().0, unique_id: self.core.unique_id });
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
