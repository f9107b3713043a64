//! One IKE SA for a pair of identities (`unique`): older ones make way, and of two that both ends began at once the same one stays at both.
//!
//! With `replace` and `keep`, what is there when a new IKE SA of the same peer comes up stays for a while longer: it may be authenticating
//! afresh, and until its children are up below the new one the old ones carry its traffic. `keep` refuses a new one from another address.
//!
//! Both ends may begin in the same instant. An attempt that has not sent IKE_AUTH when the peer's comes up is withdrawn. When both have sent it,
//! both IKE SAs come up at both ends; then the one with the lower initiator's SPI stays, which both ends see alike.

use std::time::Duration;

use ike_model::{Cause, CauseKind, Unique};

use crate::deadline::{IkeTimer, Timer};
use crate::directory::{DirectoryEntry, DirectoryMessage, Wish};
use crate::endpoint::Endpoint;
use crate::exchange::ike_sa_init::Step;
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Recipient};

/// An IKE SA that has a successor of the same peer stays this long: time for the children of a peer that authenticates afresh.
pub(crate) const SUPERSEDED: Duration = Duration::from_secs(10);
/// The end that did not begin the loser of a crossing closes it: it sends nothing on it. It waits for both to be up at both ends.
const CROSSED: Duration = Duration::from_secs(2);

impl Endpoint {
    /// An IKE SA is up: is it the only one?
    pub(super) fn settle_uniqueness(&mut self, context: &Context<'_>, spi: u64) {
        let Some(IkeSa { core, .. }) = self.ikes.get(&spi) else { return };
        match core.connection.unique {
            Unique::Keep | Unique::Replace => {}
            Unique::Never | Unique::No => return,
        }
        let connection = core.connection.clone();
        let (initiated, begun_at, own_spi, unique_id) =
            (!core.authentication.responder, core.begun_at, core.spi_i.0, core.unique_id);
        let twins = self.shared.registry.twins(&connection, &core.local_id, &core.remote_id, unique_id);
        if !initiated {
            self.yield_attempts(context, &connection.name);
            self.tell_others(DirectoryMessage::Yield { connection: connection.name.clone() });
        }
        for twin in twins.into_iter().filter(|twin| twin.initiator != initiated && twin.since >= begun_at) {
            let own_stays = own_spi < twin.initiator_spi;
            let (loser, began_loser) =
                if own_stays { (twin.unique_id, twin.initiator) } else { (unique_id, initiated) };
            let delay = if began_loser { SUPERSEDED } else { CROSSED };
            tracing::info!(
                conn = connection.name,
                stays = if own_stays { unique_id } else { twin.unique_id },
                "both ends began at once"
            );
            self.supersede(context, loser, delay);
        }
    }

    /// The peer was first: attempts that have not sent IKE_AUTH are withdrawn, and what they were for is asked for below the peer's IKE SA.
    pub(super) fn yield_attempts(&mut self, context: &Context<'_>, connection: &str) {
        let Some(connection) = context.config.connections.get(connection).cloned() else { return };
        let early = |ike: &IkeSa| {
            let Phase::Initiating(init) = &ike.phase else { return false };
            init.step != Step::AuthSent && ike.core.reauthenticates.is_none()
        };
        let cause = Cause::new(CauseKind::Replaced, "the peer was first");
        for request in self.give_up_attempts(context, &connection, early, &cause) {
            match request {
                Some(request) => {
                    if let Some(child) = connection.child(&request.child.name).cloned() {
                        self.initiate(context, &connection, Some(child), request.wish());
                    }
                }
                None => self.watch_up(&connection.name, None),
            }
        }
    }

    /// An IKE SA, perhaps of another shard, goes after `delay`: another one has its place. Nothing more is made below it.
    pub(super) fn supersede(&mut self, context: &Context<'_>, unique_id: u32, delay: Duration) {
        let Some(spi) = self.ikes.by_unique_id(unique_id) else {
            let owner = self.shared.registry.established.get(unique_id).map(|entry| entry.shard);
            if let Some(shard) = owner.filter(|shard| *shard != self.shared.ids.shard()) {
                let message = DirectoryMessage::Supersede { unique_id, delay };
                self.shared.outputs.push_back(Output::Directory(Recipient::Shard(shard), message));
            }
            return;
        };
        let Some(ike) = self.ikes.get_mut(spi).filter(|ike| !ike.core.superseded) else { return };
        ike.core.superseded = true;
        let (connection, initiated) = (ike.core.connection.clone(), !ike.core.authentication.responder);
        let children = match &ike.phase {
            Phase::Authenticated(authenticated) if initiated => authenticated.names(),
            Phase::Authenticated(_) | Phase::Initiating(_) | Phase::Responding(_) | Phase::Closed => Vec::new(),
        };
        self.shared.registry.established.remove(unique_id);
        self.tell_others(DirectoryMessage::Gone { unique_id });
        self.shared.deadlines.set(Timer::Ike(spi, IkeTimer::Superseded), context.now + delay);
        // What the peer began it asks for itself.
        for name in children {
            if let Some(child) = connection.child(&name).cloned() {
                self.initiate(context, &connection, Some(child), Wish::Again);
            }
        }
    }
}

/// Whether two IKE SAs were begun at once, one by each end, as the responder of the later one sees it.
pub(crate) fn crosses(twin: &DirectoryEntry, begun_at: ipsec::Instant) -> bool {
    twin.initiator && twin.since >= begun_at
}
