//! What is said about a packet's way.

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$inner:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $kind { $($(#[$inner])* $name,)* }

        impl $kind {
            /// Its stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

named! {
    /// Which way a packet goes through this gateway.
    Direction {
        /// From this host or from behind it to the peer's side.
        Outbound = "outbound",
        /// From the peer's side to this host or behind it.
        Inbound = "inbound",
    }
}

/// The steps and the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which way.
    pub direction: Direction,
    /// In the packet's order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// How it stands.
    pub state: State,
    /// What was found; no full stop.
    pub text: String,
    /// What is wrong, when broken.
    pub code: Option<Code>,
    /// What repairs it, when broken; no full stop.
    pub fix: String,
}

named! {
    /// How a step stands.
    State {
        /// The packet passes.
        Ok = "ok",
        /// It passes, but somebody should know this.
        Note = "note",
        /// It goes no further.
        Broken = "broken",
    }
}

named! {
    /// Steps, by their stable names.
    StepName {
        /// Where the packet comes from.
        Source = "source",
        /// Whether this host forwards it.
        Forwarding = "forwarding",
        /// The check of the way back to its sender (RFC 3704).
        ReversePath = "reverse-path",
        /// Where routing leads it.
        Route = "route",
        /// The kernel's own policies.
        KernelPolicy = "kernel-policy",
        /// The SPD entry that it meets (RFC 4301 §4.4.1).
        Policy = "policy",
        /// The way to the peer outside the tunnel.
        OuterPath = "outer-path",
        /// The configured child.
        Child = "child",
        /// Whether the peer answers.
        Peer = "peer",
        /// The SAs in the data path (RFC 4301 §4.4.2).
        Sa = "sa",
        /// Their limits.
        Limits = "limits",
        /// Whether it fits.
        Size = "size",
        /// What the data path has counted.
        Counters = "counters",
        /// Where it is delivered.
        Destination = "destination",
    }
}

named! {
    /// What is wrong; names are frozen, codes are only added.
    Code {
        /// No way back to the sender.
        SourceUnreachable = "source-unreachable",
        /// The link that the packet comes from is down.
        SourceLinkDown = "source-link-down",
        /// This host does not forward.
        ForwardingOff = "forwarding-off",
        /// The reverse path filter drops it.
        ReversePath = "reverse-path",
        /// No route where the tunnel's should be.
        NoRoute = "no-route",
        /// A route that refuses.
        RouteRefuses = "route-refuses",
        /// Another route takes it past the tunnel.
        RouteElsewhere = "route-elsewhere",
        /// The tunnel device is down.
        TunnelDeviceDown = "tunnel-device-down",
        /// A policy in the kernel that is not ours drops it, or wants it for itself.
        ForeignPolicy = "foreign-policy",
        /// The kernel does not have the entry that it should have.
        PolicyLost = "policy-lost",
        /// It passes in clear, by an exemption that has to be.
        Exempt = "exempt",
        /// No connection covers it.
        NoPolicy = "no-policy",
        /// The peer has agreed to less than is configured.
        Narrowed = "narrowed",
        /// A drop shunt.
        DropShunt = "drop-shunt",
        /// The local address of the tunnel is no address of this host.
        AddressGone = "address-gone",
        /// No route to the peer.
        NoRouteToPeer = "no-route-to-peer",
        /// The link to the peer is down.
        OuterLinkDown = "outer-link-down",
        /// The address of the peer is not known.
        NoPeerAddress = "no-peer-address",
        /// Nothing asks for the child.
        NotStarted = "not-started",
        /// An operator has closed it.
        ClosedByOperator = "closed-by-operator",
        /// The peer has closed it.
        ClosedByPeer = "closed-by-peer",
        /// Closed for want of traffic.
        ClosedIdle = "closed-idle",
        /// Not usable as configured.
        Refused = "refused",
        /// Being established.
        Connecting = "connecting",
        /// The peer has never answered, or does not any more.
        PeerUnreachable = "peer-unreachable",
        /// Authentication failed.
        AuthenticationFailed = "authentication-failed",
        /// There is no secret for the peer.
        NoSecret = "no-secret",
        /// No proposal in common.
        NoProposal = "no-proposal",
        /// No selectors in common.
        SelectorsUnacceptable = "selectors-unacceptable",
        /// The peer refuses for another reason.
        PeerRefuses = "peer-refuses",
        /// The backend refused.
        BackendRefused = "backend-refused",
        /// The device went down or lost its state.
        DeviceLost = "device-lost",
        /// It ended or failed for another reason.
        Failed = "failed",
        /// The device that holds the SAs carries nothing.
        DeviceDown = "device-down",
        /// The data path does not hold the SA.
        StateLost = "state-lost",
        /// A hard limit was reached.
        HardExpired = "hard-expired",
        /// Too large.
        TooLarge = "too-large",
        /// Packets leave and none come.
        OneWay = "one-way",
        /// The peer sends nothing.
        NothingArrives = "nothing-arrives",
        /// What arrives is dropped.
        Dropped = "dropped",
        /// No way to the destination.
        DestinationUnreachable = "destination-unreachable",
        /// The destination's link is down.
        DestinationLinkDown = "destination-link-down",
    }
}

impl Step {
    /// The packet passes.
    pub(super) fn ok(name: StepName, text: impl Into<String>) -> Self {
        Self { name, state: State::Ok, text: text.into(), code: None, fix: String::new() }
    }

    /// It passes, with a remark.
    pub(super) fn note(name: StepName, text: impl Into<String>) -> Self {
        Self { state: State::Note, ..Self::ok(name, text) }
    }

    /// It goes no further.
    pub(super) fn broken(name: StepName, code: Code, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Broken, text: text.into(), code: Some(code), fix: fix.into() }
    }
}

impl Report {
    /// The first step that the packet does not pass.
    #[must_use]
    pub fn broken(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.state == State::Broken)
    }

    /// One sentence: the first broken step and what repairs it, or that nothing is in the way.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.broken() {
            Some(Step { name, text, fix, .. }) => format!("Broken at {}: {text}; {fix}.", name.name()),
            None => match self.direction {
                Direction::Outbound => {
                    "As far as this gateway can see the packet is delivered to the peer's side.".to_owned()
                }
                Direction::Inbound => "As far as this gateway can see the packet is delivered.".to_owned(),
            },
        }
    }
}
