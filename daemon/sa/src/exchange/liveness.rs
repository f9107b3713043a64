//! Is the peer still there? An empty INFORMATIONAL when nothing was heard for `dpd_delay` (RFC 7296 §1.4, §2.4), and NAT keepalives
//! (RFC 3948 §4).

use std::time::Duration;

use ike_wire::ids::ExchangeType;
use ipsec::{Answer, Direction, OffloadError, Request};

use crate::children::{ChildSa, Outbound};
use crate::core::Core;
use crate::deadline::IkeTimer;
use crate::error::Error;
use crate::established::{Active, Authenticated, Intent};
use crate::exchange::mobike;
use crate::io::Output;
use crate::say::{At, say};
use crate::turn::{Purpose, Turn};

/// Starts both deadlines.
pub(crate) fn schedule(core: &Core, turn: &mut Turn<'_>) {
    let timer = core.timer(IkeTimer::Liveness);
    turn.deadlines.clear(timer);
    if !core.connection.dpd_delay.is_zero() {
        turn.deadlines.set(timer, core.heard_at + core.connection.dpd_delay);
    }
    schedule_keepalive(core, turn);
}

//= RFC 3948 §4: keepalives only while a NAT is detected between the ends, from the end behind it
/// Starts keepalives where we are behind NAT, and ends them where we are not.
pub(crate) fn schedule_keepalive(core: &Core, turn: &mut Turn<'_>) {
    let timer = core.timer(IkeTimer::Keepalive);
    let interval = turn.context.config.settings.keep_alive;
    if !core.nat.local || interval.is_zero() {
        return turn.deadlines.clear(timer);
    }
    if turn.deadlines.get(timer).is_none() {
        let at = turn.after(interval);
        turn.deadlines.set(timer, at);
    }
}

//= RFC 4555 §3.12: what counts is what was heard of the peer itself
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

//= RFC 3948 §4: only if no other packet to the peer was sent for the interval
/// A NAT keepalive is due, unless IKE or ESP has kept the mapping alive.
pub(crate) fn keepalive(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) {
    let silent = turn.now().saturating_since(core.sent_at);
    let interval = turn.context.config.settings.keep_alive;
    match interval.checked_sub(silent).filter(|rest| !rest.is_zero()) {
        Some(rest) => again_after(core, turn, rest),
        None => ask_next(authenticated, core, turn, 0),
    }
}

/// Asks the backend about the outbound SAs one after the other, by their numbers; when none was used a keepalive goes out.
fn ask_next(authenticated: &Authenticated, core: &mut Core, turn: &mut Turn<'_>, after: u32) {
    let sends = |child: &&ChildSa| child.outbound == Outbound::Active && child.unique_id > after;
    match authenticated.children.iter().filter(sends).map(|child| child.unique_id).min() {
        Some(child) => {
            // Should the CHILD SA be gone before the answer comes.
            let interval = turn.context.config.settings.keep_alive;
            again_after(core, turn, interval);
            let sa = turn.ids.sa(child, Direction::Outbound);
            turn.submit(Request::Query(sa), Purpose::Keepalive(child));
        }
        None => {
            say!(DEBUG, "IKE 1", core, "sending keep alive to {}", At(core.path.remote));
            turn.outputs.push_back(Output::Keepalive(core.path));
            core.sent_at = turn.now();
            let interval = turn.context.config.settings.keep_alive;
            again_after(core, turn, interval);
        }
    }
}

/// When a CHILD SA last carried something to the peer.
pub(crate) fn on_idle(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    child: u32,
    result: &Result<Answer, OffloadError>,
) {
    if let Ok(Answer::Status(status)) = result {
        authenticated.on_status(core, turn, (child, Direction::Outbound), status);
    }
    if !core.nat.local {
        return;
    }
    let idle = match result {
        Ok(Answer::Status(status)) => status.idle_seconds.map(Duration::from_secs),
        Ok(Answer::Applied(_) | Answer::Installed(_)) | Err(_) => None,
    };
    let interval = turn.context.config.settings.keep_alive;
    // A second of silence may be nearly two.
    let rest = idle.and_then(|idle| interval.checked_sub(idle + Duration::from_secs(1)));
    match rest.filter(|rest| !rest.is_zero()) {
        Some(rest) => again_after(core, turn, rest),
        None => ask_next(authenticated, core, turn, child),
    }
}

fn again_after(core: &Core, turn: &mut Turn<'_>, wait: Duration) {
    let at = turn.after(wait);
    turn.deadlines.set(core.timer(IkeTimer::Keepalive), at);
}

//= RFC 7296 §1.4: an INFORMATIONAL request without payloads asks whether the peer is there
/// Asks.
pub(crate) fn start(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    say!(DEBUG, "IKE 1", core, "sending DPD request");
    let payloads = mobike::mapping_watch(core);
    core.request(turn, ExchangeType::INFORMATIONAL, &payloads)?;
    authenticated.active = Some(Active::Liveness);
    Ok(())
}
