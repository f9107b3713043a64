//! Acquires: packets that ask for a child through its trap.
//!
//! A backend raises one acquire for a trap and the next one only after the trap was touched or the acquire has aged; meanwhile it holds
//! packets. So each acquire is answered, now or later, and the answer to most of them is to touch the trap:
//!
//! | the child | what becomes of the acquire |
//! |---|---|
//! | is down | it is asked for, the packet's selectors first (RFC 7296 §2.9) |
//! | is being made | one negotiation serves all; the policies of the new child take the held packets |
//! | is up and carries such packets | it came too late: the trap is touched |
//! | is up and carries others only | nothing helps: the held packets age |
//! | has just failed | nobody is asked before the wait is over; then the trap is touched, and what is held by then asks again |
//! | has ended | the trap is touched: at once, or after a wait when it did not last |
//!
//! The wait is 1 s after the first failure, doubled up to [`TRAFFIC_WAITS`]. It ends early when an operator asks for the child, and when the
//! peer was away and makes an IKE SA itself.

use std::time::Duration;

use ike_model::{CauseKind, EventBody};
use ipsec::{Op, PacketSelectors, PolicyAction, PolicyHandle};
use tracing::Level;

use crate::deadline::Timer;
use crate::directory::Wish;
use crate::endpoint::Endpoint;
use crate::endpoint::configured::Trap;
use crate::ike_sa::Phase;
use crate::io::Context;
use crate::retry;
use crate::selectors;
use crate::turn::Purpose;

/// Traffic asks again for a child that has failed after this long at most.
const TRAFFIC_WAITS: Duration = Duration::from_secs(10);

impl Endpoint {
    //= RFC 7296 §2.9: the first selectors of the request are those of the packet that asks
    /// A packet hit a trap.
    pub(super) fn on_acquire(&mut self, context: &Context<'_>, policy: PolicyHandle, packet: PacketSelectors) {
        let Some(number) = self.keepers.by_policy.get(&policy).copied() else { return };
        let Some(keeper) = self.keepers.by_number.get(&number) else { return };
        let (connection, child) = (keeper.connection.clone(), keeper.child.clone());
        let waits = |why: &str| tracing::debug!(conn = connection.name, child = child.name, source = %packet.source, destination = %packet.destination, "traffic has to wait: {why}");
        if self.is_up_here(&connection.name, &child.name) {
            if self.carries(&connection.name, &child.name, &packet) {
                return self.arm_trap(context, number);
            }
            return waits("what the peer has agreed to does not cover it");
        }
        if self.is_coming(&connection.name, &child) {
            return waits("the child is being made");
        }
        if self.keepers.by_number.get(&number).and_then(|keeper| keeper.not_before).is_some_and(|at| at > context.now) {
            return waits("the last attempt has just failed");
        }
        let (source, destination) = selectors::of_packet(&packet);
        tracing::event!(name: "KNL 1", Level::DEBUG, conn = connection.name, child = child.name, "creating acquire job for policy {source} === {destination} of {}/{}", connection.name, child.name);
        self.shared.turn(context).event(EventBody::PolicyAcquire {
            connection: connection.name.clone(),
            child: child.name.clone(),
            packet,
        });
        self.initiate(context, &connection, Some(child), Wish::Packet(packet));
    }

    /// Whether the selectors of a child that is up cover a packet.
    fn carries(&self, connection: &str, child: &str, packet: &PacketSelectors) -> bool {
        let covers = |phase: &Phase| match phase {
            Phase::Authenticated(authenticated) => authenticated
                .children
                .iter()
                .filter(|sa| sa.is_up() && sa.config.name == child)
                .any(|sa| sa.pairs.iter().any(|pair| pair.matches_outbound(packet))),
            Phase::Initiating(_) | Phase::Responding(_) | Phase::Closed => false,
        };
        self.ikes.of(connection).any(|(_, ike)| covers(&ike.phase))
    }

    /// Touches a trap: the next packet, or one that is held, asks again.
    pub(super) fn arm_trap(&mut self, context: &Context<'_>, number: u32) {
        self.shared.deadlines.clear(Timer::Trap(number));
        if self.stopping {
            return;
        }
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        keeper.not_before = None;
        let Trap::Present { policies, confirmed: true, .. } = &keeper.trap else { return };
        let traps = policies.iter().filter(|policy| matches!(policy.action, PolicyAction::Trap { .. }));
        let ops: Vec<Op> = traps.cloned().map(Op::UpdatePolicy).collect();
        if !ops.is_empty() {
            self.shared.turn(context).apply(ops, Purpose::Remove);
        }
    }

    /// Traffic does not ask for a child for a while: an attempt has just failed.
    pub(super) fn quiet(&mut self, context: &Context<'_>, number: u32) {
        let Some(failures) = self.keepers.by_number.get(&number).map(|keeper| keeper.failures) else { return };
        let random = self.shared.turn(context).random();
        let at = context.now + retry::reattempt(failures.saturating_sub(1), random).min(TRAFFIC_WAITS);
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        keeper.not_before = Some(at);
        if matches!(keeper.trap, Trap::Present { .. }) && !self.stopping {
            self.shared.deadlines.set(Timer::Trap(number), at);
        }
    }

    /// An operator asks for a child: earlier failures do not keep traffic from asking, should this one fail.
    pub(super) fn forgive(&mut self, connection: &str, child: &str) {
        let Some(number) = self.keepers.find(connection, child) else { return };
        self.shared.deadlines.clear(Timer::Trap(number));
        if let Some(keeper) = self.keepers.by_number.get_mut(&number) {
            keeper.not_before = None;
        }
    }

    /// The peer of a connection has made an IKE SA: what traffic asked for while it was away need not wait any longer.
    pub(super) fn peer_is_back(&mut self, context: &Context<'_>, connection: &str) {
        let away = |kind| matches!(kind, CauseKind::PeerUnreachable | CauseKind::NoAddress);
        let waits = |number: &u32| {
            self.keepers.by_number.get(number).is_some_and(|keeper| {
                keeper.not_before.is_some() && keeper.last_cause.as_ref().is_some_and(|(_, cause)| away(cause.kind))
            })
        };
        let waiting: Vec<u32> = self.keepers.of(connection).filter(waits).collect();
        for number in waiting {
            self.arm_trap(context, number);
        }
    }
}
