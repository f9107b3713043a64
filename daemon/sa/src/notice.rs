//! What an IKE SA tells its endpoint.

use std::sync::Arc;

use ike_model::{Cause, Child, CommandId, Connection, IkeSaSnapshot};
use ike_wire::ids::ExchangeType;
use ipsec::{Instant, Path};

use crate::children::ChildSa;
use crate::core::Opened;
use crate::established::Intent;
use crate::ike_sa::IkeSa;
use crate::mobility::Mobility;
use crate::nat::Nat;

/// What passes from an IKE SA to its successor.
pub(crate) struct Estate {
    /// How the peer is reached now, which may have changed since the successor was made.
    pub(crate) way: Box<(Path, Nat, Mobility)>,
    /// CHILD SAs.
    pub(crate) children: Vec<ChildSa>,
    /// What is still to be done.
    pub(crate) intents: Vec<Intent>,
    /// What was put off, and until when.
    pub(crate) deferred: Vec<Intent>,
    /// See `deferred`.
    pub(crate) resume: Option<Instant>,
    /// Why the successor is to end, if it is.
    pub(crate) cause: Option<Cause>,
}

/// Something the endpoint should know or do.
pub(crate) enum Notice {
    /// The IKE SA is authenticated.
    Established {
        /// Our SPI.
        spi: u64,
    },
    /// A CHILD SA is up for the first time (not after a rekey).
    ChildUp {
        /// Connection.
        connection: Arc<Connection>,
        /// Child.
        child: Arc<Child>,
    },
    /// A child that was asked for was up already.
    ChildThere {
        /// Connection.
        connection: Arc<Connection>,
        /// Child.
        child: Arc<Child>,
        /// The command that asked for it when it was.
        command: Option<CommandId>,
    },
    /// A child that was asked for did not come up; its IKE SA may go on.
    ChildFailed {
        /// Connection.
        connection: Arc<Connection>,
        /// Child; `None` = the IKE SA itself was asked for.
        child: Option<Arc<Child>>,
        /// Why.
        cause: Cause,
    },
    /// A CHILD SA that was up has ended without a successor.
    ChildDown {
        /// Connection.
        connection: Arc<Connection>,
        /// Child.
        child: Arc<Child>,
        /// Unique id.
        unique_id: u32,
        /// Why.
        cause: Cause,
    },
    /// A CHILD SA is gone, whatever the reason.
    ChildGone {
        /// Unique id.
        unique_id: u32,
    },
    /// The IKE SA has ended and is to be removed.
    Closed {
        /// Our SPI.
        spi: u64,
        /// Unique id.
        unique_id: u32,
    },
    /// A rekeyed IKE SA was made.
    Successor {
        /// It.
        ike: Box<IkeSa>,
    },
    /// An IKE SA made by the peer's rekeying does not stay: ours was answered and wins.
    Redundant {
        /// Its SPI of ours.
        spi: u64,
    },
    /// The peer uses an IKE SA about which nothing is decided: that decides it, and then the request is to be answered.
    InUse {
        /// Our SPI of it.
        spi: u64,
        /// Exchange of the request.
        exchange: ExchangeType,
        /// The request.
        request: Opened,
    },
    /// A request that had to wait for a decision.
    Request {
        /// Our SPI.
        spi: u64,
        /// Its exchange.
        exchange: ExchangeType,
        /// The request.
        request: Opened,
    },
    /// The CHILD SAs and what is queued pass from one IKE SA to another.
    Inherit {
        /// The old one.
        old: Box<IkeSaSnapshot>,
        /// Our SPI of the new one.
        to: u64,
        /// What passes.
        estate: Estate,
    },
    /// The IKE SA is reached on another way: so are others to the same peer that are still to be closed.
    Moved {
        /// Our SPI.
        spi: u64,
        /// Before.
        from: Path,
        /// Now.
        to: Path,
    },
    /// The peer moved an IKE SA before it knew that it is replaced: the successor follows.
    MoveSuccessor {
        /// Our SPI of the successor.
        spi: u64,
        /// The way.
        path: Path,
        /// NAT on it.
        nat: Nat,
    },
    /// The peer is to be authenticated afresh: a new IKE SA takes the place of this one.
    Reauthenticate {
        /// Our SPI.
        spi: u64,
    },
    /// The peer stopped answering.
    Unreachable {
        /// Connection.
        connection: String,
    },
    /// Another IKE SA of the same peer is to go soon.
    Supersede {
        /// Its unique id.
        unique_id: u32,
    },
    /// Another IKE SA of the same peer is to be closed.
    Replace {
        /// Its unique id.
        unique_id: u32,
        /// Without telling the peer.
        silently: bool,
    },
}
