//! What the double can be told to do wrong.

/// One deliberate mistake; each is a kind of backend that must not pass the kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Every outcome is reported twice.
    DoubleDone,
    /// A request to a dead device is not answered.
    SilentAfterDeath,
    /// A refused request takes back its SAs, but not its policies.
    HalfUndone,
    /// An SPI that was given back is given out again at once.
    ReusesSpi,
    /// SPIs count up.
    CountsSpisUp,
    /// A list shows the entries of all shards.
    ListsEverything,
    /// What the rung cannot carry is carried in software.
    SilentSoftwareFallback,
    /// The answer to an install tells another mode than the one in use.
    LiesInReadBack,
    /// Auto is taken for software.
    TakesAuto,
    /// A full table takes one more.
    OverfullTable,
    /// A policy uses an SA of another device or rung.
    WrongDevice,
    /// A soft limit is not told.
    LostSoftExpire,
    /// A hard limit is told twice.
    DoubleHardExpire,
    /// Every packet that meets a trap asks for an SA.
    UnboundedAcquires,
    /// A device that goes down is not told.
    SilentDeviceLoss,
    /// An SA goes on after its hard limit.
    PassesAfterHardLimit,
    /// An SA that is activated is used from the second packet on.
    LateActivate,
    /// Counters stay at zero.
    FrozenCounters,
    /// What an SA has carried is forgotten with it.
    ForgetsRemoved,
    /// Packets that are refused are counted as carried.
    CountsRefused,
    /// Without an SA a packet leaves in clear.
    PlaintextWithoutSa,
    /// Sequence numbers start again after the last one.
    WrapsSequence,
    /// Packets are taken as often as they come.
    NoReplayCheck,
    /// The upper octet of an SPI does not count.
    ComparesLowSpi,
    /// A moved SA starts at its first sequence number again.
    MoveStartsOver,
    /// Decapsulated packets are not held against the selectors.
    IgnoresSelectors,
    /// Fragments pass although the selectors have ports.
    PassesFragments,
    /// Software policies are looked at among offloaded ones.
    MixesRungs,
    /// A packet that is too large goes unanswered.
    SilentOversize,
    /// A packet in clear from outside is delivered although a policy protects its traffic.
    AcceptsClear,
    /// The guard goes when the process stops.
    ForgetsGuard,
    /// The guard stays when the process was to leave traffic in clear.
    KeepsGuard,
    /// The bypass for IKE lets everybody's through.
    WideBypass,
    /// IKE is protected by the policies it sets up.
    NoBypass,
    /// Removing what is not there is refused.
    RefusesMissing,
    /// Now and then an SPI is given out twice.
    RepeatsSpi,
    /// The SPI of a refused SA is given to somebody else.
    FreesRefusedSpi,
    /// Names and SPIs that are taken are taken again.
    AcceptsTwins,
    /// Keys of any length are taken.
    TakesAnyKey,
    /// A refusal by the device is taken for success.
    SwallowsRefusal,
    /// Operations are carried out in another order.
    Reorders,
    /// Activation of whatever is said to have succeeded.
    ActivatesAnything,
    /// A refused request takes back its SAs, but not their addresses.
    HalfMoved,
    /// Updates of policies are said to stand, but do not.
    IgnoresUpdates,
    /// A list does not say which SA a policy uses.
    ListsNoOwner,
    /// A query for an SA that is gone is answered.
    RemembersRemoved,
    /// Limits that were reached do not show.
    HidesExpiry,
    /// A status tells another mode than the one in use.
    LiesInStatus,
    /// Ciphers other than AES-GCM with 256 bits are claimed, but broken.
    GarblesOthers,
    /// Rungs are listed from the plainest to the best.
    WorstFirst,
    /// A device that is not there is taken for the first one.
    TakesAnyDevice,
    /// A device that comes back has its old SAs, at their first number again.
    ReturnsStale,
    /// Protocol and ports of a bypass do not count.
    WidensBypass,
    /// Inbound policies are not looked at.
    IgnoresInboundPolicies,
    /// What matches no policy leaves in clear.
    ClearWithoutPolicy,
    /// The highest priority number wins.
    HighestNumberFirst,
    /// Of equal policies the first one stays in use.
    FirstOwnerStays,
    /// A flush leaves SAs behind.
    FlushesPoliciesOnly,
    /// Every packet that is dropped is told.
    TellsEveryDrop,
    /// Every other sequence number is left out.
    SkipsNumbers,
    /// A new inbound SA takes the place of the old one.
    OneInboundOnly,
    /// The form in which the peer sends is not told.
    SilentForm,
    /// Packets tell about the peer before they are known to be authentic.
    BelievesAnyone,
    /// Every inbound packet counts as the first one.
    TellsEveryUse,
    /// An SA that was lost is not told.
    SilentStateLoss,
    /// IPv6 is not carried.
    NoIpv6,
    /// Checksums stay as they were made before a NAT.
    LeavesChecksums,
    /// The upper half of a number is taken to be that of the last one.
    GuessesHighHalf,
    /// Requests that wait when the process stops are forgotten.
    ForgetsOutstanding,
    /// Forward policies are refused.
    RefusesForward,
    /// A policy without an SA hides its equals.
    HidesWithReserved,
}
