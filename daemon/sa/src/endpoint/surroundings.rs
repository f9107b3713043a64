//! What happens to the machine as a whole: its addresses and routes change, it was asleep.

use std::net::IpAddr;
use std::time::Duration;

use ipsec::Instant;

use crate::deadline::{ChildTimer, IkeTimer, Timer};
use crate::endpoint::Endpoint;
use crate::established::{Authenticated, Intent, Standing};
use crate::io::Context;
use crate::turn::Turn;

/// Rekeys that became due while the machine was asleep are spread over this long.
const SPREAD: Duration = Duration::from_secs(10);

impl Endpoint {
    /// Addresses or routes have changed: every IKE SA looks whether its way still leads anywhere.
    pub(super) fn on_network(&mut self, context: &Context<'_>, addresses: &[IpAddr]) {
        self.shared.registry.local_addresses = addresses.into();
        self.each_authenticated(context, Authenticated::look_for_ways);
        self.ways_changed(context);
    }

    /// Peers may have gone meanwhile, and everything timed has become due at once: the former are asked now, the latter is spread.
    pub(super) fn on_resumed(&mut self, context: &Context<'_>, asleep: Duration) {
        tracing::info!(asleep = asleep.as_secs(), "the machine was asleep: asking all peers");
        let turn = self.shared.turn(context);
        for timer in turn.deadlines.overdue(context.now) {
            if let Some(at) = put_off(&turn, timer) {
                turn.deadlines.set(timer, at);
            }
        }
        self.each_authenticated(context, |authenticated, core, turn| {
            if authenticated.standing == Standing::Up {
                // A request under way asks as well as any other; its repetitions begin anew, as the clock ran while nothing could be sent.
                core.resend_in_place(turn);
                if !core.window.is_waiting() {
                    authenticated.intend(core, turn, Intent::Liveness);
                }
                authenticated.look_for_ways(core, turn);
            }
        });
    }

    pub(super) fn each_authenticated(
        &mut self,
        context: &Context<'_>,
        run: impl Fn(&mut Authenticated, &mut crate::core::Core, &mut Turn<'_>),
    ) {
        let spis: Vec<u64> = self.ikes.keys().copied().collect();
        for spi in spis {
            self.with_ike(context, spi, |ike, turn| ike.with_authenticated(turn, &run));
        }
    }
}

/// The new instant of an overdue rekeying: by chance within [`SPREAD`], but before the hard limit. Everything else stays due.
fn put_off(turn: &Turn<'_>, timer: Timer) -> Option<Instant> {
    let hard = match timer {
        Timer::Ike(spi, IkeTimer::Rekey | IkeTimer::Reauth) => Timer::Ike(spi, IkeTimer::Expire),
        Timer::Child(child, ChildTimer::Soft | ChildTimer::Retry) => Timer::Child(child, ChildTimer::Hard),
        Timer::Ike(..) | Timer::Child(..) | Timer::Keeper(_) | Timer::Trap(_) | Timer::Check => return None,
    };
    let left = turn.deadlines.get(hard).map_or(SPREAD, |at| at.saturating_since(turn.now()));
    let share = turn.share();
    Some(turn.after(left.min(SPREAD).mul_f64(share)))
}
