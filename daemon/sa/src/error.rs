//! What can go wrong, whose fault it is, and the one function that decides what goes on the wire.

use ike_crypto::CryptoError;
use ike_model::{Cause, CauseKind};
use ike_wire::ids::{KeyExchangeId, NotifyType, PayloadType, ProtocolId};
use ike_wire::{EncodeError, Malformed, Notify};
use ipsec::OffloadError;
use thiserror::Error as ThisError;

/// Why a message was not processed or an exchange did not succeed.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    /// The integrity check failed, or the message does not belong to the SA: somebody else may have sent it.
    #[error("not authentic: {0}")]
    Unauthentic(&'static str),
    /// Authentic octets that break the format.
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    /// A critical payload that we do not know.
    #[error("unknown critical payload {0}")]
    UnsupportedCritical(PayloadType),
    /// Authentic and well-formed, but against the rules of the exchange.
    #[error("{0}")]
    PeerMisbehaved(&'static str),
    /// No proposal in common; both sets in words.
    #[error("no proposal in common: configured {ours}, received {theirs}{difference}")]
    NoProposal {
        /// Configured.
        ours: String,
        /// Received.
        theirs: String,
        /// The first element that differs in the closest pair, as the end of the sentence.
        difference: String,
    },
    /// The KE payload is of another method than the one chosen.
    #[error("key exchange method {0} is wanted")]
    InvalidKe(KeyExchangeId),
    /// No selectors in common; both sets in words.
    #[error("no traffic selectors in common: configured {ours}, received {theirs}{difference}")]
    SelectorsUnacceptable {
        /// Configured.
        ours: String,
        /// Received.
        theirs: String,
        /// The first side that differs, as the end of the sentence.
        difference: String,
    },
    /// A child in transport mode whose selectors leave nothing of the two outer addresses; all in words.
    #[error("transport mode carries packets between {hosts} only, configured {configured}")]
    NotHostToHost {
        /// The outer addresses.
        hosts: String,
        /// Configured.
        configured: String,
    },
    /// The peer wants another mode than the one configured.
    #[error("{0}")]
    ModeRefused(String),
    /// The peer did not prove who it is, or is nobody we know.
    #[error("{text}")]
    AuthenticationFailed {
        /// `AuthenticationFailed`, `NoSecret` or `NoConfiguration`.
        kind: CauseKind,
        /// What was searched.
        text: String,
    },
    /// What the connection does not allow; named.
    #[error("{0}")]
    NotAllowed(String),
    /// Cannot be done now.
    #[error("temporarily not possible: {0}")]
    Temporary(&'static str),
    /// The CHILD SA that is to be rekeyed is not there.
    #[error("CHILD SA {0:08x} not found")]
    ChildNotFound(u32),
    /// No further CHILD SA is wanted.
    #[error("{0}")]
    NoAdditionalSas(String),
    /// The device cannot carry what is asked, on any rung that the configuration allows.
    #[error("{text}")]
    Unfit {
        /// Name of the child.
        child: String,
        /// Device, what was asked, what it offers instead, and the key to change.
        text: String,
        /// What a peer that asks for it is told.
        notify: NotifyType,
    },
    /// The peer answered with an error.
    #[error("peer answered {0}")]
    PeerNotified(NotifyType),
    /// The peer answered an offer with an error.
    #[error("peer answered {kind} to {offered}")]
    PeerRefused {
        /// The error.
        kind: NotifyType,
        /// What we have offered, in words.
        offered: String,
    },
    /// The device that carries the way to the peer is not there; in words.
    #[error("{0}")]
    DeviceDown(String),
    /// The backend refused.
    #[error("{0}")]
    Offload(#[from] OffloadError),
    /// Cryptography failed.
    #[error("{0}")]
    Crypto(#[from] CryptoError),
    /// The peer does not answer.
    #[error("{0}")]
    PeerUnreachable(String),
    /// There is no way to the peer.
    #[error("{0}")]
    NoAddress(String),
    /// Addresses were changed on the way of a message that says that they must not be.
    #[error("there is NAT on the way, and the peer does not allow it")]
    UnexpectedNat,
    /// We built something that cannot be sent.
    #[error("cannot encode: {0}")]
    Encode(#[from] EncodeError),
}

/// What goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Nothing, as if the message had not come.
    Drop,
    /// The exchange ends without result; the IKE SA goes on.
    EndExchange,
    /// The request is answered with this error; the IKE SA goes on.
    Notify(NotifyType),
    /// The request is answered with this error and the IKE SA ends.
    NotifyAndClose(NotifyType),
    /// The IKE SA ends; nothing is sent.
    CloseSilently,
}

impl Error {
    /// The one place that decides what an error does.
    pub(crate) fn reaction(&self) -> Reaction {
        match self {
            Self::Unauthentic(_) => Reaction::Drop,
            //= RFC 7296 §2.21.3: INVALID_SYNTAX in an authenticated message is fatal to the IKE SA
            Self::Malformed(_) | Self::PeerMisbehaved(_) | Self::NotAllowed(_) => {
                Reaction::NotifyAndClose(NotifyType::INVALID_SYNTAX)
            }
            Self::UnsupportedCritical(_) => Reaction::Notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD),
            Self::NoProposal { .. } => Reaction::Notify(NotifyType::NO_PROPOSAL_CHOSEN),
            Self::InvalidKe(_) => Reaction::Notify(NotifyType::INVALID_KE_PAYLOAD),
            Self::SelectorsUnacceptable { .. } | Self::NotHostToHost { .. } => {
                Reaction::Notify(NotifyType::TS_UNACCEPTABLE)
            }
            Self::ModeRefused(_) => Reaction::Notify(NotifyType::NO_PROPOSAL_CHOSEN),
            Self::AuthenticationFailed { .. } => Reaction::NotifyAndClose(NotifyType::AUTHENTICATION_FAILED),
            //= RFC 4555 §3.9: answered, and nothing is made of the addresses
            Self::UnexpectedNat => Reaction::NotifyAndClose(NotifyType::UNEXPECTED_NAT_DETECTED),
            Self::Temporary(_) => Reaction::Notify(NotifyType::TEMPORARY_FAILURE),
            Self::ChildNotFound(_) => Reaction::Notify(NotifyType::CHILD_SA_NOT_FOUND),
            Self::Unfit { notify, .. } => Reaction::Notify(*notify),
            Self::NoAdditionalSas(_) | Self::DeviceDown(_) | Self::Offload(_) => {
                Reaction::Notify(NotifyType::NO_ADDITIONAL_SAS)
            }
            Self::Crypto(error) if error.is_peer_fault() => Reaction::Notify(NotifyType::INVALID_SYNTAX),
            Self::Crypto(_) | Self::Encode(_) => Reaction::Notify(NotifyType::TEMPORARY_FAILURE),
            Self::PeerNotified(_) | Self::PeerRefused { .. } => Reaction::EndExchange,
            Self::PeerUnreachable(_) | Self::NoAddress(_) => Reaction::CloseSilently,
        }
    }

    /// The Notify payload of the reaction, built from our own values only.
    pub(crate) fn notify(&self) -> Option<Notify<'static>> {
        let kind = match self.reaction() {
            Reaction::Notify(kind) | Reaction::NotifyAndClose(kind) => kind,
            Reaction::Drop | Reaction::EndExchange | Reaction::CloseSilently => return None,
        };
        Some(match self {
            Self::InvalidKe(wanted) => Notify::invalid_ke_payload(*wanted),
            Self::UnsupportedCritical(payload) => Notify::unsupported_critical_payload(*payload),
            Self::ChildNotFound(spi) => Notify::about(kind, ProtocolId::ESP, *spi),
            Self::Unauthentic(_)
            | Self::Malformed(_)
            | Self::PeerMisbehaved(_)
            | Self::NoProposal { .. }
            | Self::SelectorsUnacceptable { .. }
            | Self::NotHostToHost { .. }
            | Self::ModeRefused(_)
            | Self::AuthenticationFailed { .. }
            | Self::NotAllowed(_)
            | Self::Temporary(_)
            | Self::NoAdditionalSas(_)
            | Self::Unfit { .. }
            | Self::DeviceDown(_)
            | Self::PeerNotified(_)
            | Self::PeerRefused { .. }
            | Self::Offload(_)
            | Self::Crypto(_)
            | Self::PeerUnreachable(_)
            | Self::NoAddress(_)
            | Self::UnexpectedNat
            | Self::Encode(_) => Notify::plain(kind),
        })
    }

    /// The peer has said no, rather than we.
    pub(crate) fn is_refusal_of_peer(&self) -> bool {
        matches!(self, Self::PeerNotified(_) | Self::PeerRefused { .. })
    }

    /// What was asked for and what is configured have nothing in common.
    pub(crate) fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::NoProposal { .. }
                | Self::SelectorsUnacceptable { .. }
                | Self::NotHostToHost { .. }
                | Self::ModeRefused(_)
        )
    }

    /// The same in the words of events.
    pub(crate) fn cause(&self) -> Cause {
        let kind = match self {
            Self::Unauthentic(_) | Self::Malformed(_) | Self::UnsupportedCritical(_) | Self::PeerMisbehaved(_) => {
                CauseKind::ProtocolViolation
            }
            Self::NoProposal { .. } | Self::InvalidKe(_) => CauseKind::NoProposal,
            Self::SelectorsUnacceptable { .. } | Self::NotHostToHost { .. } => CauseKind::SelectorsUnacceptable,
            Self::ModeRefused(_) => CauseKind::NoProposal,
            Self::AuthenticationFailed { kind, .. } => *kind,
            Self::NotAllowed(_) | Self::Temporary(_) | Self::ChildNotFound(_) | Self::NoAdditionalSas(_) => {
                CauseKind::PeerError
            }
            Self::PeerNotified(kind) | Self::PeerRefused { kind, .. } => match *kind {
                NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => CauseKind::NoProposal,
                NotifyType::TS_UNACCEPTABLE => CauseKind::SelectorsUnacceptable,
                NotifyType::AUTHENTICATION_FAILED => CauseKind::AuthenticationFailed,
                _ => CauseKind::PeerError,
            },
            // Only what was installed before can be missing.
            Self::DeviceDown(_) | Self::Offload(OffloadError::Unavailable(_) | OffloadError::Missing(_)) => {
                CauseKind::DeviceLost
            }
            Self::Offload(_) | Self::Unfit { .. } => CauseKind::OffloadFailed,
            Self::Crypto(error) if error.is_peer_fault() => CauseKind::ProtocolViolation,
            Self::Crypto(_) | Self::Encode(_) => CauseKind::Internal,
            Self::PeerUnreachable(_) => CauseKind::PeerUnreachable,
            Self::NoAddress(_) | Self::UnexpectedNat => CauseKind::NoAddress,
        };
        Cause::new(kind, self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_authentic_changes_nothing() {
        assert_eq!(Error::Unauthentic("x").reaction(), Reaction::Drop);
        assert!(Error::Unauthentic("x").notify().is_none());
    }

    #[test]
    fn notifies_are_built_from_our_own_values() {
        let notify = Error::ChildNotFound(0x1234_5678).notify().unwrap();
        assert_eq!((notify.kind, notify.spi_u32()), (NotifyType::CHILD_SA_NOT_FOUND, Some(0x1234_5678)));
        let notify = Error::InvalidKe(KeyExchangeId::CURVE_25519).notify().unwrap();
        assert_eq!(notify.data_u16(), Some(31));
    }
}
