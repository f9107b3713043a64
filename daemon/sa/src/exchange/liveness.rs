//! Is the peer still there? An empty INFORMATIONAL when nothing was heard for `dpd_delay` (RFC 7296 §1.4, §2.4), and NAT keepalives (RFC 3948).

use ike_wire::ids::ExchangeType;

use crate::core::Core;
use crate::deadline::IkeTimer;
use crate::error::Error;
use crate::established::{Active, Authenticated, Intent};
use crate::io::Output;
use crate::turn::Turn;

/// Starts both deadlines.
pub(crate) fn schedule(core: &Core, turn: &mut Turn<'_>) {
    let timer = core.timer(IkeTimer::Liveness);
    turn.deadlines.clear(timer);
    if !core.connection.dpd_delay.is_zero() {
        turn.deadlines.set(timer, core.heard_at + core.connection.dpd_delay);
    }
    let keepalive = turn.context.config.settings.keep_alive;
    if core.nat.local && !keepalive.is_zero() {
        let at = turn.after(keepalive);
        turn.deadlines.set(core.timer(IkeTimer::Keepalive), at);
    }
}

/// It is time to ask, unless something was heard since the deadline was set or a request is under way anyway.
pub(crate) fn due(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) {
    let delay = core.connection.dpd_delay;
    if delay.is_zero() {
        return;
    }
    let silent = turn.now().saturating_since(core.heard_at);
    let rest = delay.checked_sub(silent).filter(|rest| !rest.is_zero());
    let at = turn.after(rest.unwrap_or(delay));
    turn.deadlines.set(core.timer(IkeTimer::Liveness), at);
    if rest.is_none() && !core.window.is_waiting() {
        authenticated.intend(core, turn, Intent::Liveness);
    }
}

/// Sends a NAT keepalive.
pub(crate) fn keepalive(core: &Core, turn: &mut Turn<'_>) {
    turn.outputs.push_back(Output::Keepalive(core.path));
    let at = turn.after(turn.context.config.settings.keep_alive);
    turn.deadlines.set(core.timer(IkeTimer::Keepalive), at);
}

/// Asks.
pub(crate) fn start(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    core.request(turn, ExchangeType::INFORMATIONAL, &[])?;
    authenticated.active = Some(Active::Liveness);
    Ok(())
}
