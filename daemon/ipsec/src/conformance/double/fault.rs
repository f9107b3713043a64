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
}
