//! Rekeying as it must not be: each way loses packets, and a soak that does not notice proves nothing.
//!
//! The daemons know nothing of it: the path behaves as if the gateways did, or they are set so.

use lab::relay::Profile;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sabotage {
    /// Packets of an old SA are lost as soon as its successor is in use
    DropOldInbound,
    /// Packets of a new SA are lost for a while: it is used before the other end can receive on it
    EarlyOutbound,
    /// `delete_rekeyed_delay = 0`: an old inbound SA goes with the answer to its DELETE, however late its last packets come
    #[value(name = "linger-0")]
    Linger0,
}

impl Sabotage {
    /// The path that does it.
    pub(super) fn path(self, path: Profile) -> Profile {
        match self {
            Sabotage::DropOldInbound => Profile { drop_old_inbound: true, ..path },
            Sabotage::EarlyOutbound => Profile { early_outbound: path.delay, ..path },
            // Little is late on a path that mostly keeps the order.
            Sabotage::Linger0 => Profile { reorder: 0.25, late: path.delay, ..path },
        }
    }

    /// Lines of the daemons' configuration files.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Sabotage::DropOldInbound | Sabotage::EarlyOutbound => "",
            Sabotage::Linger0 => "[ike]\ndelete_rekeyed_delay = 0\n",
        }
    }
}
