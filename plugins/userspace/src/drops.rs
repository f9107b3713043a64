//! Reasons for dropping a packet and their counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ipsec::{Event, Reports};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in events, metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// A packet from the protected side is no IP packet.
    MalformedInner = "malformed-inner",
    /// No SPD entry matches an outbound packet.
    NoPolicy = "no-policy",
    /// The same for a multicast or broadcast packet: the kernel sends some of its own into every device.
    NoPolicyMulticast = "no-policy-multicast",
    /// An SPD entry says discard.
    Discard = "discard",
    /// An SPD entry says bypass, but the packet was routed into the tunnel device.
    BypassInTunnel = "bypass-in-tunnel",
    /// The protecting SPD entry has no SA.
    NoOutboundSa = "no-outbound-sa",
    /// The SA has reached a hard limit.
    Expired = "expired",
    /// The SA is in one device, and the route to the peer leads out of another.
    WrongDevice = "wrong-device",
    /// The packet does not fit and may not be fragmented; the sender was told.
    TooBig = "too-big",
    /// The queue of packets that wait for an SA is full.
    HoldFull = "hold-full",
    /// A packet waited too long for an SA.
    HoldAged = "hold-aged",
    /// The system refused to send.
    SendFailed = "send-failed",
    /// No adopted socket has the SA's local address and port.
    NoSocket = "no-socket",
    /// The tunnel device did not take an inner packet.
    DeliveryFailed = "delivery-failed",
    /// Too short for ESP, or not whole cipher blocks.
    MalformedEsp = "malformed-esp",
    /// No inbound SA has the SPI.
    UnknownSpi = "unknown-spi",
    /// The sequence number is known or left of the window.
    Replay = "replay",
    /// The integrity check failed.
    Integrity = "integrity",
    /// Authentic, but padding or next header make no sense.
    MalformedPayload = "malformed-payload",
    /// The inner packet matches none of the SA's selectors.
    SelectorMismatch = "selector-mismatch",
    /// A fragment came over an SA whose selectors have ports.
    FragmentWithPorts = "fragment-with-ports",
    /// A fragment met an SA in transport mode, which takes whole packets only, and continued none of those before it.
    FragmentInTransport = "fragment-in-transport",
    /// Headers that belong before ESP in transport mode, but cannot be put there: routing headers, very long options.
    HeadersInTransport = "headers-in-transport",
    /// Congestion was marked on the way, but the transport inside does not understand the mark (RFC 6040).
    CongestionExperienced = "congestion-experienced",
}

/// One counter for each reason.
pub struct DropCounters {
    counters: [AtomicU64; Reason::ALL.len()],
}

impl Default for DropCounters {
    fn default() -> Self {
        Self { counters: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl DropCounters {
    /// Counts one packet; the first of its kind is reported.
    pub fn count(&self, reason: Reason, reports: &dyn Reports) {
        let before = self.counters.get(reason as usize).map_or(1, |counter| counter.fetch_add(1, Relaxed));
        if before == 0 {
            reports.event(Event::Drops { reason: reason.name(), packets: 1 });
        }
    }

    /// Packets dropped so far.
    pub fn get(&self, reason: Reason) -> u64 {
        self.counters.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }
}
