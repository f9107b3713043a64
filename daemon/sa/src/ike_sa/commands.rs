//! Everything that reaches an IKE SA and is no message: deadlines, finished work, installs, wishes.

use std::time::Duration;

use ike_model::{Cause, CauseKind, EventBody};
use ike_wire::ids::ExchangeType;
use ipsec::{Answer, OffloadError};

use crate::core::Core;
use crate::deadline::{ChildTimer, IkeTimer};
use crate::error::Error;
use crate::established::{Active, Authenticated, Incoming, Intent, Standing, is_made_as};
use crate::exchange::ike_sa_init::Step;
use crate::exchange::{create_child, ike_auth, ike_sa_init, liveness, rekey_ike};
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::say;
use crate::turn::Turn;
use crate::work::{Outcome, WorkId};

use super::{IkeSa, Phase};

impl IkeSa {
    /// One of our deadlines has come.
    pub(crate) fn on_timer(&mut self, turn: &mut Turn<'_>, timer: IkeTimer) {
        match timer {
            IkeTimer::Retransmit => self.retransmit(turn),
            IkeTimer::HalfOpen => {
                if matches!(self.phase, Phase::Responding(_)) {
                    self.give_up(turn, &ike_sa_init::half_open_cause());
                }
            }
            IkeTimer::Keepalive => self.with_authenticated(turn, liveness::keepalive),
            IkeTimer::Liveness => self.with_authenticated(turn, liveness::due),
            IkeTimer::Rekey => self.with_authenticated(turn, |authenticated, core, turn| {
                if authenticated.standing == Standing::Up {
                    authenticated.intend(core, turn, Intent::RekeyIke);
                }
            }),
            IkeTimer::Reauth => self.with_authenticated(turn, |authenticated, core, turn| {
                if authenticated.standing == Standing::Up {
                    let at = turn.after(REAUTH_AGAIN);
                    turn.deadlines.set(core.timer(IkeTimer::Reauth), at);
                    turn.notices.push_back(Notice::Reauthenticate { spi: core.spi().0 });
                }
            }),
            IkeTimer::Expire => self.with_authenticated(turn, |authenticated, core, turn| {
                authenticated.close(
                    core,
                    turn,
                    Cause::new(CauseKind::HardLimit, "the IKE SA has reached its hard lifetime"),
                );
            }),
            IkeTimer::Superseded => self.with_authenticated(turn, |authenticated, core, turn| {
                let text = "another IKE SA of the same peer has taken its place";
                authenticated.close(core, turn, Cause::new(CauseKind::Replaced, text));
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
        let Err(error) = self.core.repeat_request(turn) else { return self.doubt_the_way(turn) };
        match &mut self.phase {
            Phase::Initiating(_) => self.guarded(turn, |phase, core, turn| match phase {
                Phase::Initiating(init) => init.unanswered(core, turn, error),
                Phase::Responding(_) | Phase::Authenticated(_) | Phase::Closed => Err(error),
            }),
            Phase::Authenticated(authenticated) => {
                let cause = error.cause();
                if authenticated.standing == Standing::Up {
                    let ike = Box::new(authenticated.snapshot_due(&self.core, turn));
                    turn.event(EventBody::PeerUnreachable { ike, cause: cause.clone() });
                    let connection = self.core.connection.name.clone();
                    turn.notices.push_back(Notice::Unreachable { connection });
                }
                authenticated.finish(&self.core, turn, cause);
                self.reap(turn);
            }
            Phase::Responding(_) | Phase::Closed => {}
        }
    }

    //= RFC 4555 §3.5: a request repeated without answer makes the initiator look at other addresses
    /// A request had to be repeated: should there be other ways to the peer, they are looked for while it is waited for.
    fn doubt_the_way(&mut self, turn: &mut Turn<'_>) {
        let mobility = &self.core.mobility;
        if mobility.agreed && mobility.decides && mobility.looking.is_none() && !mobility.scattered {
            self.with_authenticated(turn, Authenticated::look_for_ways);
        }
    }

    /// A deadline of a CHILD SA has come.
    pub(crate) fn on_child_timer(&mut self, turn: &mut Turn<'_>, child: u32, timer: ChildTimer) {
        self.with_authenticated(turn, |authenticated, core, turn| {
            authenticated.on_child_timer(core, turn, child, timer)
        });
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

    /// A child is wanted. Gives it back when this IKE SA cannot take it.
    pub(crate) fn want_child(&mut self, turn: &mut Turn<'_>, request: ChildRequest) -> Option<ChildRequest> {
        say::serves(&self.core, Some(&request.child.name));
        match &mut self.phase {
            Phase::Initiating(init) => {
                let queued = init.requests.iter_mut().find(|other| other.child.name == request.child.name);
                let offered = init.offer.as_mut().map(|offer| &mut offer.request);
                match queued.or(offered.filter(|offered| is_made_as(&offered.child, &request.child))) {
                    Some(known) => known.asked |= request.asked,
                    None => init.requests.push_back(request),
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

    /// A child that only its configuration has asked for is not wanted any more: what the peer was not asked for yet is not asked for; what it was
    /// asked for is closed once it is made, where there is a cause for that. Gives whether this is an attempt that has nothing to do any more.
    pub(crate) fn withdraw_wish(&mut self, turn: &mut Turn<'_>, child: &str, closes: Option<&Cause>) -> bool {
        match &mut self.phase {
            Phase::Initiating(init) => {
                let before = init.requests.len();
                init.requests.retain(|request| request.asked || request.child.name != child);
                let none_left = init.requests.is_empty() && init.offer.is_none();
                before > 0 && none_left && self.core.reauthenticates.is_none()
            }
            Phase::Authenticated(authenticated) => {
                authenticated.withdraw_wish(&mut self.core, turn, child, closes);
                false
            }
            Phase::Responding(_) | Phase::Closed => false,
        }
    }

    /// Closes it with the peer, or at once when it is not authenticated or `force` says so.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>, cause: Cause, force: bool) {
        match &mut self.phase {
            Phase::Initiating(init) => {
                self.core.unwanted = init.step == Step::AuthSent;
                self.give_up(turn, &cause);
            }
            Phase::Responding(_) => self.give_up(turn, &cause),
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
}

/// When authenticating afresh came to nothing it is tried again after this long.
const REAUTH_AGAIN: Duration = Duration::from_secs(60);

fn established_work(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    id: WorkId,
    outcome: Outcome,
) -> Result<(), Error> {
    if let Outcome::Routes(pairs) = outcome {
        if core.mobility.looking == Some(id) {
            authenticated.on_ways(core, turn, pairs);
        }
        return Ok(());
    }
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
