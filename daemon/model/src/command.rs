//! What operators and clients ask of the core.

use crate::cause::Cause;

/// Pairs a command with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// A command to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Establish a child, with its IKE SA where there is none; done when the CHILD SA is installed.
    Initiate {
        /// Connection.
        connection: String,
        /// Child; `None` = the IKE SA alone.
        child: Option<String>,
    },
    /// Close SAs; done when all are gone.
    Terminate {
        /// Which.
        selector: Selector,
        /// Do not wait for the peer's answers.
        force: bool,
    },
    /// Rekey SAs; done when queued.
    Rekey {
        /// Which.
        selector: Selector,
    },
    /// Authenticate IKE SAs afresh, children and all; done when queued.
    Reauthenticate {
        /// Which.
        selector: Selector,
    },
    /// Install the trap or shunt of a child.
    Install {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
    },
    /// Take the trap or shunt of a child out.
    Uninstall {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
    },
    /// The configuration snapshot has changed: compare, and act for the connections named.
    Reload {
        /// Connections that are new or changed, in load order.
        changed: Vec<String>,
        /// Connections that are gone, with their last configuration still in the core.
        removed: Vec<String>,
    },
    /// Close everything in good order; done when all deletes are answered or timed out, and what each SA has carried is told. Said again, it waits
    /// for no peer any more.
    Shutdown,
}

/// Which SAs; every field given must match. CHILD SAs are meant when `child` or `child_id` is given, else IKE SAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Connection name.
    pub ike: Option<String>,
    /// Unique id of the IKE SA.
    pub ike_id: Option<u32>,
    /// Child name.
    pub child: Option<String>,
    /// Unique id of the CHILD SA.
    pub child_id: Option<u32>,
}

/// A command's successful outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutcome {
    /// SAs the selector matched.
    pub matches: u32,
    /// SAs closed.
    pub terminated: u32,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing of this name is configured.
    #[error("{0}")]
    NotFound(String),
    /// It exists already.
    #[error("{0}")]
    Duplicate(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(Cause),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
}
