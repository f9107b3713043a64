//! What is counted of the messages of all shards: those sent again, and those of others that came to nothing, by reason.
//!
//! The reasons are a closed set whose names are frozen; whoever floods us moves numbers and makes no new ones.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tallied {
    /// A message was received.
    Received,
    /// A request was sent once more because its response did not come.
    RequestRepeated,
    /// A response was sent once more because its request came again.
    ResponseRepeated,
    /// A COOKIE was asked for.
    CookieDemanded,
    /// A message came to nothing.
    Dropped(Dropped),
}

/// Why a message came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Dropped {
    /// It breaks the format.
    Malformed,
    /// It is of another version.
    Version,
    /// We have no IKE SA of its SPI.
    UnknownSpi,
    /// Its integrity check failed, or it cannot belong to the IKE SA.
    Unauthentic,
    /// It does not belong where the exchange is.
    OutOfPlace,
    /// Its message ID is outside of the window, or nobody waits for it.
    OutsideWindow,
    /// The peer asks faster than `peer_request_rate`.
    PeerTooFast,
    /// Nothing new is begun while no event can be taken down, or while the daemon stops.
    Held,
    /// There are as many IKE SAs as `ikesa_limit` allows.
    IkeSaLimit,
    /// There are too many half-open IKE SAs.
    HalfOpen,
    /// There are too many half-open IKE SAs of this peer.
    HalfOpenPeer,
    /// This peer begins IKE SAs faster than `init_rate_ip`.
    InitRate,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Version,
        Self::UnknownSpi,
        Self::Unauthentic,
        Self::OutOfPlace,
        Self::OutsideWindow,
        Self::PeerTooFast,
        Self::Held,
        Self::IkeSaLimit,
        Self::HalfOpen,
        Self::HalfOpenPeer,
        Self::InitRate,
    ];

    /// Its frozen name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownSpi => "unknown-spi",
            Self::Unauthentic => "unauthentic",
            Self::OutOfPlace => "out-of-place",
            Self::OutsideWindow => "outside-window",
            Self::PeerTooFast => "peer-too-fast",
            Self::Held => "held",
            Self::IkeSaLimit => "ike-sa-limit",
            Self::HalfOpen => "half-open",
            Self::HalfOpenPeer => "half-open-peer",
            Self::InitRate => "init-rate",
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it breaks the format",
            Self::Version => "it is of another version",
            Self::UnknownSpi => "there is no IKE SA of its SPI",
            Self::Unauthentic => "it is not authentic",
            Self::OutOfPlace => "it is out of place",
            Self::OutsideWindow => "its message ID is outside of the window",
            Self::PeerTooFast => "the peer asks faster than peer_request_rate",
            Self::Held => "nothing new is begun for now",
            Self::IkeSaLimit => "as many IKE SAs as ikesa_limit allows",
            Self::HalfOpen => "too many half-open IKE SAs",
            Self::HalfOpenPeer => "too many half-open IKE SAs of this peer",
            Self::InitRate => "this peer begins IKE SAs too fast",
        })
    }
}

/// The numbers. Counting takes no lock.
#[derive(Debug, Default)]
pub struct Tally {
    received: AtomicU64,
    request_repeated: AtomicU64,
    response_repeated: AtomicU64,
    cookie_demanded: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl Tally {
    /// One more.
    pub(crate) fn count(&self, what: Tallied) {
        if let Some(number) = self.number(what) {
            number.fetch_add(1, Relaxed);
        }
    }

    /// How many so far.
    pub fn so_far(&self, what: Tallied) -> u64 {
        self.number(what).map_or(0, |number| number.load(Relaxed))
    }

    fn number(&self, what: Tallied) -> Option<&AtomicU64> {
        match what {
            Tallied::Received => Some(&self.received),
            Tallied::RequestRepeated => Some(&self.request_repeated),
            Tallied::ResponseRepeated => Some(&self.response_repeated),
            Tallied::CookieDemanded => Some(&self.cookie_demanded),
            Tallied::Dropped(reason) => self.dropped.get(reason as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_of_its_own() {
        let tally = Tally::default();
        for (times, reason) in Dropped::ALL.into_iter().enumerate() {
            for _ in 0..=times {
                tally.count(Tallied::Dropped(reason));
            }
        }
        for (times, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(tally.so_far(Tallied::Dropped(reason)), times as u64 + 1, "{}", reason.name());
        }
        assert_eq!(tally.so_far(Tallied::RequestRepeated), 0);
    }
}
