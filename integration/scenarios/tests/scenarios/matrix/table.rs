//! The documented answers, as data. The first rule that fits a state and a message holds.

use ike_wire::ids::NotifyType;

use super::messages::Kind::{self, *};
use super::states::State::{self, *};

/// What is sent in answer, and whether the IKE SA is still there afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing is sent and nothing changes.
    Nothing,
    /// Nothing is sent; what we had asked goes on with it, or ends.
    Taken,
    /// The same, and the IKE SA ends.
    TakenAndGone,
    /// An empty response.
    Empty,
    /// An empty response, and the IKE SA ends.
    EmptyAndGone,
    /// A response with DELETE of our half.
    Delete,
    /// A response with this error.
    Error(NotifyType),
    /// The same, and the IKE SA ends.
    ErrorAndGone(NotifyType),
    /// An error in clear: there is no IKE SA of that name.
    Clear(NotifyType),
    /// SA and nonce: a CHILD SA or an IKE SA is made.
    Created,
    /// A response with the same COOKIE2.
    Cookie2,
    /// The same octets as before.
    Same,
}

impl Answer {
    /// For the table.
    pub(super) fn words(self) -> String {
        match self {
            Self::Nothing => "-".into(),
            Self::Taken => "taken".into(),
            Self::TakenAndGone => "taken, gone".into(),
            Self::Empty => "empty".into(),
            Self::EmptyAndGone => "empty, gone".into(),
            Self::Delete => "DELETE".into(),
            Self::Error(kind) => kind.to_string(),
            Self::ErrorAndGone(kind) => format!("{kind}, gone"),
            Self::Clear(kind) => format!("{kind} in clear"),
            Self::Created => "SA".into(),
            Self::Cookie2 => "COOKIE2".into(),
            Self::Same => "same octets".into(),
        }
    }
}

/// States and messages, what is answered, and where that is written. An empty list means all.
pub(super) struct Rule(
    pub(super) &'static [State],
    pub(super) &'static [Kind],
    pub(super) Answer,
    pub(super) &'static str,
);

const BUSY: Answer = Answer::Error(NotifyType::TEMPORARY_FAILURE);
const SYNTAX: Answer = Answer::ErrorAndGone(NotifyType::INVALID_SYNTAX);
/// CREATE_CHILD_SA for a CHILD SA, in any form.
const ANY_CHILD: &[Kind] = &[CreateChild, CreateWithoutNonce, CreateWithoutSa, RekeyChild, RekeyUnknown];
const ANY_IKE: &[Kind] = &[RekeyIke, RekeyIkeWithoutKe];
/// Nobody needs CHILD SAs for these.
const NOT_ABOUT_CHILDREN: &[Kind] =
    &[Liveness, Cookie2, UnknownNotify, UnknownPayload, CriticalPayload, FatalNotify, Auth, UnknownExchange];
const AWAITED: &[Kind] = &[EmptyResponse, RefusingResponse];

pub(super) static RULES: &[Rule] = &[
    // Whoever sends it.
    Rule(&[], &[NewerVersion], Answer::Clear(NotifyType::INVALID_MAJOR_VERSION), "7296 §2.5"),
    Rule(&[InitSent], &[WrongDirection], Answer::Nothing, "7296 §2.21.4"),
    Rule(&[], &[WrongDirection], Answer::Clear(NotifyType::INVALID_IKE_SPI), "7296 §1.5, §3.1"),
    Rule(&[Unknown], &[BadIcv], Answer::Clear(NotifyType::INVALID_IKE_SPI), "7296 §1.5, §2.21.4"),
    Rule(&[], &[Clear, ClearResponse, BadIcv, BadIcvResponse], Answer::Nothing, "7296 §2.21.4"),
    Rule(&[], &[Init], Answer::Nothing, "7296 §1.2"),
    Rule(&[], &[ResponseToNothing], Answer::Nothing, "7296 §2.2"),
    // No IKE SA, or one that nobody has proved to be of.
    Rule(&[Unknown], AWAITED, Answer::Nothing, "7296 §1.5"),
    Rule(&[Unknown], &[], Answer::Clear(NotifyType::INVALID_IKE_SPI), "7296 §1.5, §2.21.4"),
    Rule(&[InitSent], &[], Answer::Nothing, "7296 §1.2"),
    Rule(&[AuthSent], AWAITED, Answer::TakenAndGone, "7296 §2.21.2"),
    Rule(&[AuthSent], &[], Answer::Nothing, "7296 §1.2"),
    Rule(&[HalfOpen], &[Auth], SYNTAX, "7296 §2.21.2"),
    Rule(&[HalfOpen], &[], Answer::Nothing, "7296 §1.2"),
    // The window, in every state of an established IKE SA.
    Rule(&[], &[Ahead, FarAhead], Answer::Nothing, "7296 §2.3"),
    Rule(&[Undecided], &[Repeated], Answer::Nothing, "7296 §2.3"),
    Rule(&[], &[Repeated], Answer::Same, "7296 §2.1"),
    Rule(&[Idle, Installing, Undecided, Replaced, Departed], AWAITED, Answer::Nothing, "7296 §2.2"),
    Rule(&[DeletingIke], AWAITED, Answer::TakenAndGone, "7296 §1.4.1"),
    Rule(&[], AWAITED, Answer::Taken, "7296 §2.2, §2.25"),
    // The request before is still being processed.
    Rule(&[Installing], &[], Answer::Nothing, "7296 §2.1"),
    // Which of two IKE SAs stays is not known, unless the peer uses this one for CHILD SAs: that decides it.
    Rule(&[Undecided], &[DeleteIke], Answer::EmptyAndGone, "7296 §2.8.2"),
    Rule(&[Undecided], NOT_ABOUT_CHILDREN, Answer::Nothing, "7296 §2.8.2"),
    // It has ended: its DELETE is answered, but nothing by which the peer could take it for alive.
    Rule(&[Departed], &[CriticalPayload], Answer::Error(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD), "7296 §2.5"),
    Rule(&[Departed], &[PayloadTwice], Answer::Error(NotifyType::INVALID_SYNTAX), "7296 §2.21.3"),
    Rule(&[Departed], &[DeleteIke], Answer::Empty, "7296 §1.4.1"),
    Rule(&[Departed], &[], Answer::Nothing, "7296 §2.4"),
    // What is wrong in itself.
    Rule(&[], &[CriticalPayload], Answer::Error(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD), "7296 §2.5"),
    Rule(&[], &[PayloadTwice, Auth, UnknownExchange], SYNTAX, "7296 §2.21.3"),
    // INFORMATIONAL.
    Rule(&[], &[DeleteIke], Answer::EmptyAndGone, "7296 §1.4.1, §2.25.2"),
    Rule(&[], &[FatalNotify], Answer::EmptyAndGone, "7296 §2.21.2"),
    Rule(&[DeletingChild], &[DeleteChild], Answer::Empty, "7296 §1.4.1"),
    Rule(&[Replaced], &[DeleteChild], Answer::Empty, "7296 §2.8"),
    Rule(&[], &[DeleteChild], Answer::Delete, "7296 §1.4.1, §2.25.1"),
    Rule(&[], &[DeleteUnknown], Answer::Empty, "7296 §1.4.1"),
    Rule(&[], &[Liveness, UnknownNotify, UnknownPayload], Answer::Empty, "7296 §1.4, §2.5"),
    Rule(&[], &[Cookie2], Answer::Cookie2, "4555 §3.7"),
    // CREATE_CHILD_SA.
    Rule(&[RekeyingIke, DeletingIke, Replaced], ANY_CHILD, BUSY, "7296 §2.25.2"),
    Rule(&[DeletingIke, Replaced], ANY_IKE, BUSY, "7296 §2.25.2"),
    Rule(&[Creating, RekeyingChild, DeletingChild], ANY_IKE, BUSY, "7296 §2.25.1"),
    Rule(&[DeletingChild], &[RekeyChild], BUSY, "7296 §2.25.1"),
    Rule(&[Creating, RekeyingChild], &[RekeyUnknown], BUSY, "7296 §2.25"),
    Rule(&[], &[RekeyUnknown], Answer::Error(NotifyType::CHILD_SA_NOT_FOUND), "7296 §2.25"),
    Rule(&[], &[CreateWithoutNonce, CreateWithoutSa, RekeyIkeWithoutKe], SYNTAX, "7296 §2.21.3"),
    Rule(&[], &[CreateChild, RekeyChild, RekeyIke], Answer::Created, "7296 §1.3, §2.8.1, §2.8.2"),
];

/// The rule for a cell.
pub(super) fn rule(state: State, kind: Kind) -> &'static Rule {
    let fits =
        |rule: &&Rule| (rule.0.is_empty() || rule.0.contains(&state)) && (rule.1.is_empty() || rule.1.contains(&kind));
    RULES.iter().find(fits).unwrap_or_else(|| panic!("no rule for {state:?}, {kind:?}"))
}
