//! What shards know of each other.
//!
//! Every shard keeps a copy of the directory of IKE SAs that are established elsewhere: it is told by [`DirectoryMessage::Established`] and
//! [`DirectoryMessage::Gone`]. Changes that cross shards are messages to the owner. With one shard none is ever sent.

use std::net::SocketAddr;
use std::time::Duration;

use ike_model::{Cause, CommandId, Identity};
use ipsec::{Instant, PacketSelectors, Shard};
/// A message between shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryMessage {
    /// An IKE SA is up.
    Established(DirectoryEntry),
    /// An IKE SA is being made.
    Connecting {
        /// Its unique id.
        unique_id: u32,
        /// Our identity.
        local_id: Identity,
        /// The peer's identity as it is expected.
        remote_id: Identity,
    },
    /// An IKE SA is gone or replaced by its rekeyed successor, or an attempt has ended.
    Gone {
        /// Its unique id.
        unique_id: u32,
    },
    /// Establish a child below an IKE SA that the receiver owns.
    Initiate {
        /// Unique id of the IKE SA.
        unique_id: u32,
        /// Connection, should the IKE SA be gone by then.
        connection: String,
        /// Child.
        child: String,
        /// Who asks for it.
        wish: Wish,
    },
    /// A configured child came up.
    ChildUp {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// Where.
        from: Shard,
    },
    /// A configured child that was asked for was up already.
    ChildThere {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// The command that asked for it when it was.
        command: Option<CommandId>,
    },
    /// A configured child is down, and why; the home shard of the connection decides what follows.
    ChildDown {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// Where.
        from: Shard,
        /// Why.
        cause: Cause,
    },
    /// A configured child that was asked for did not come up.
    ChildFailed {
        /// Connection.
        connection: String,
        /// Child; `None` = the IKE SA alone.
        child: Option<String>,
        /// Why.
        cause: Cause,
    },
    /// The peer has made an IKE SA of this connection: attempts at another one are withdrawn.
    Yield {
        /// Connection.
        connection: String,
    },
    /// An IKE SA that the receiver owns goes after a while: another one of the same peer has its place.
    Supersede {
        /// Unique id of the IKE SA.
        unique_id: u32,
        /// After this long.
        delay: Duration,
    },
    /// Close an IKE SA that the receiver owns: another one of the same peer takes its place.
    Replace {
        /// Unique id of the IKE SA.
        unique_id: u32,
        /// Do not tell the peer, it has forgotten the SA (INITIAL_CONTACT).
        silently: bool,
    },
}

/// Who asks for a child, or for an IKE SA alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Its configuration, by which it is to be up.
    Configured,
    /// A packet.
    Packet(PacketSelectors),
    /// A command.
    Command(CommandId),
    /// Whoever did before, and that was not its configuration alone.
    Again,
}

impl Wish {
    /// The packet.
    pub(crate) fn packet(self) -> Option<PacketSelectors> {
        match self {
            Self::Packet(packet) => Some(packet),
            Self::Configured | Self::Command(_) | Self::Again => None,
        }
    }

    /// The command.
    pub(crate) fn command(self) -> Option<CommandId> {
        match self {
            Self::Command(id) => Some(id),
            Self::Configured | Self::Packet(_) | Self::Again => None,
        }
    }

    /// Whether it stands although its configuration does not ask for the child any more.
    pub(crate) fn is_asked(self) -> bool {
        self != Self::Configured
    }
}

/// An IKE SA that is established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its owner.
    pub shard: Shard,
    /// Its unique id.
    pub unique_id: u32,
    /// Connection.
    pub connection: String,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's identity.
    pub remote_id: Identity,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Since when the peer is authenticated; rekeying does not change it.
    pub since: Instant,
    /// We began it.
    pub initiator: bool,
    /// Initiator's SPI.
    pub initiator_spi: u64,
}
