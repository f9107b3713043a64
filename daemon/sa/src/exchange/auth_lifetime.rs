//! How long an authentication holds, and AUTH_LIFETIME, by which a responder tells the initiator (RFC 4478).
//!
//! The time runs from IKE_AUTH on, whatever is rekeyed meanwhile. Before it is over the initiator makes a new IKE SA; that is
//! [`crate::endpoint`]'s. The responder waits for that and then acts itself, or closes the IKE SA at its hard lifetime.

use std::time::Duration;

use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Notify, Payload, Payloads};
use ipsec::Instant;

use crate::core::{Core, Limit};
use crate::error::Error;
use crate::established::{Active, Authenticated, schedule_lifetime};
use crate::turn::Turn;

/// An authentication is not repeated sooner than this, whatever the peer says: it might say so each time.
const SOONEST: Duration = Duration::from_secs(10);

/// Begins to count: the peer has just been authenticated.
pub(crate) fn begin(core: &mut Core, turn: &Turn<'_>) {
    core.authentication.since = Some(turn.now());
    configured(core, turn);
}

/// Takes over what is configured now. What the peer has said stays.
pub(crate) fn configured(core: &mut Core, turn: &Turn<'_>) {
    let (time, over) = (core.connection.reauth_time, core.connection.over_time);
    let share = turn.share();
    let begun = core.authentication.since.unwrap_or(turn.now());
    core.authentication.own = (!time.is_zero()).then(|| {
        let repeat_at = begun + time.saturating_sub(core.connection.rand_time.mul_f64(share));
        Limit { repeat_at, ends_at: repeat_at + over }
    });
}

//= RFC 4478 §3: the lifetime in seconds, four octets
/// What a responder tells, if it limits the time.
pub(crate) fn announcement(core: &Core, now: Instant) -> Option<Payload<'static>> {
    //= RFC 4478 §2: the responder sends it, in the last message of IKE_AUTH or at any time later
    let limit = core.authentication.own.filter(|_| core.authentication.responder)?;
    let seconds = u32::try_from(limit.repeat_at.saturating_since(now).as_secs()).unwrap_or(u32::MAX);
    Some(Payload::Notify(Notify::new(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes().to_vec())))
}

/// Tells it in an exchange of its own: it has changed.
pub(crate) fn start(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    let Some(payload) = announcement(core, turn.now()) else { return Ok(()) };
    core.request(turn, ExchangeType::INFORMATIONAL, &[payload])?;
    authenticated.active = Some(Active::AuthLifetime);
    Ok(())
}

/// The peer may have told it.
pub(crate) fn received(core: &mut Core, turn: &mut Turn<'_>, payloads: &Payloads<'_>) {
    let told = payloads.notify(NotifyType::AUTH_LIFETIME).and_then(Notify::data_u32);
    let Some(seconds) = told.filter(|_| !core.authentication.responder) else { return };
    let lifetime = Duration::from_secs(seconds.into());
    //= RFC 4478 §2: measured from the time at which it is received
    let now = turn.now();
    // As early as the hard lifetime comes after the soft one, but with short lifetimes not for half of the time.
    let margin = core.connection.over_time.clamp(lifetime / 20, lifetime / 4);
    let earliest = core.authentication.since.unwrap_or(now) + SOONEST;
    let limit = Limit {
        repeat_at: (now + lifetime.saturating_sub(margin)).max(earliest),
        //= RFC 4478 §2: with a lifetime of zero a reasonable time is left
        ends_at: (now + lifetime).max(earliest + SOONEST),
    };
    //= RFC 4478 §5: our own policy may be stricter; it is never made laxer
    let known = core.authentication.peer;
    core.authentication.peer = Some(known.map_or(limit, |known| known.min(limit)));
    tracing::debug!(conn = core.connection.name, ike = core.unique_id, seconds, "AUTH_LIFETIME received");
    schedule_lifetime(core, turn);
}
