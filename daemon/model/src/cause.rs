//! Why something ended or failed: a closed set of kinds plus a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Kind, stable for machines.
    pub kind: CauseKind,
    /// One sentence for people; names the key, identity, address or proposal concerned.
    pub text: String,
}

/// Kinds of cause. Names are frozen, kinds are only added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// An operator or a client asked for it.
    Operator,
    /// The configuration was changed or unloaded.
    Reload,
    /// The peer deleted it.
    PeerDeleted,
    /// Replaced by a rekeyed successor.
    Rekeyed,
    /// Lost a collision; its twin lives on.
    CollisionLost,
    /// Another IKE SA of the same peer took its place.
    Replaced,
    /// The hard lifetime was reached.
    HardLimit,
    /// No traffic for the configured time.
    Inactive,
    /// The peer does not answer.
    PeerUnreachable,
    /// The peer refused: no proposal in common.
    NoProposal,
    /// The peer refused or we found no selectors in common.
    SelectorsUnacceptable,
    /// Authentication failed on our or the peer's side.
    AuthenticationFailed,
    /// No pre-shared key for the identity pair.
    NoSecret,
    /// No configuration for the peer.
    NoConfiguration,
    /// The peer sent an error notify.
    PeerError,
    /// A message of the peer broke the protocol.
    ProtocolViolation,
    /// The backend refused or failed.
    OffloadFailed,
    /// A device went down or lost its state.
    DeviceLost,
    /// A name did not resolve or no route leads to the peer.
    NoAddress,
    /// No event of anything new can be taken down.
    HistoryFull,
    /// A script of `updown` did not do its work.
    ScriptFailed,
    /// The daemon stops.
    Shutdown,
    /// A defect in this program.
    Internal,
}

impl CauseKind {
    /// All kinds.
    pub const ALL: [Self; 23] = [
        Self::Operator,
        Self::Reload,
        Self::PeerDeleted,
        Self::Rekeyed,
        Self::CollisionLost,
        Self::Replaced,
        Self::HardLimit,
        Self::Inactive,
        Self::PeerUnreachable,
        Self::NoProposal,
        Self::SelectorsUnacceptable,
        Self::AuthenticationFailed,
        Self::NoSecret,
        Self::NoConfiguration,
        Self::PeerError,
        Self::ProtocolViolation,
        Self::OffloadFailed,
        Self::DeviceLost,
        Self::NoAddress,
        Self::HistoryFull,
        Self::ScriptFailed,
        Self::Shutdown,
        Self::Internal,
    ];

    /// Its frozen name, as in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Reload => "reload",
            Self::PeerDeleted => "peer-deleted",
            Self::Rekeyed => "rekeyed",
            Self::CollisionLost => "collision-lost",
            Self::Replaced => "replaced",
            Self::HardLimit => "hard-limit",
            Self::Inactive => "inactive",
            Self::PeerUnreachable => "peer-unreachable",
            Self::NoProposal => "no-proposal",
            Self::SelectorsUnacceptable => "selectors-unacceptable",
            Self::AuthenticationFailed => "authentication-failed",
            Self::NoSecret => "no-secret",
            Self::NoConfiguration => "no-configuration",
            Self::PeerError => "peer-error",
            Self::ProtocolViolation => "protocol-violation",
            Self::OffloadFailed => "offload-failed",
            Self::DeviceLost => "device-lost",
            Self::NoAddress => "no-address",
            Self::HistoryFull => "history-full",
            Self::ScriptFailed => "script-failed",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}

impl Cause {
    /// A cause with its sentence.
    pub fn new(kind: CauseKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_events() {
        let last = CauseKind::ALL.into_iter().max();
        assert_eq!(last.map(|kind| kind as usize + 1), Some(CauseKind::ALL.len()));
        for kind in CauseKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(serde_json::from_value::<CauseKind>(kind.name().into()).unwrap(), kind);
        }
    }
}
