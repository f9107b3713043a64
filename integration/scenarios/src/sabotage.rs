//! Faults planted on purpose: what watches a world must find each of them.

/// One fault, made by the harness around a sound core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// An inbound SA goes as soon as a successor is in use, not after it has lingered.
    DropOldInbound,
    /// The outbound SA of a successor is used as soon as it is installed, also by the responder.
    SwitchEarly,
    /// SAs that are to be removed stay in the backend.
    KeepRemoved,
    /// A DELETE for a CHILD SA is answered, and nothing is deleted.
    IgnoreDelete,
    /// Some events are told twice.
    RepeatEvent,
    /// The end of a CHILD SA is not told.
    SilentClose,
    /// What CHILD SAs that ended have carried is not told.
    SilentRemoval,
    /// After TEMPORARY_FAILURE the exchange is begun again at once.
    NoWait,
    /// A repeated message has other octets.
    ChangedRepetition,
    /// Some commands are never answered.
    ForgetReply,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DropOldInbound,
        Self::SwitchEarly,
        Self::KeepRemoved,
        Self::IgnoreDelete,
        Self::RepeatEvent,
        Self::SilentClose,
        Self::SilentRemoval,
        Self::NoWait,
        Self::ChangedRepetition,
        Self::ForgetReply,
    ];
}
