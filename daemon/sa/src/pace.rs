//! How fast an authenticated peer may ask: whoever knows the keys must not be able to keep us busy (RFC 7296 §2.25 for the answer).
//!
//! | limit | beyond it |
//! |---|---|
//! | `peer_request_rate`, `peer_request_burst`: requests of any kind | not decrypted, as good as lost: the peer repeats the request |
//! | `peer_create_rate`, `peer_create_burst`: CREATE_CHILD_SA | answered TEMPORARY_FAILURE, without a key exchange |
//!
//! The bursts leave room for every CHILD SA of a full IKE SA to be rekeyed at once.

use ike_model::IkeSettings;
use ipsec::Instant;

use crate::admission::Bucket;

/// What an authenticated peer may ask of us; a rekeyed IKE SA goes on with what is left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    requests: Bucket,
    creations: Bucket,
}

impl Pace {
    /// Whether a request may be looked at. Asked before it is decrypted, so that beyond the rate it costs next to nothing.
    pub(crate) fn may_ask(&self, now: Instant, settings: &IkeSettings) -> bool {
        self.requests.has(now, settings.peer_request_rate, settings.peer_request_burst)
    }

    /// An authentic request has come.
    pub(crate) fn asked(&mut self, now: Instant, settings: &IkeSettings) {
        self.requests.take(now, settings.peer_request_rate, settings.peer_request_burst);
    }

    /// Whether a CREATE_CHILD_SA may be served.
    pub(crate) fn create(&mut self, now: Instant, settings: &IkeSettings) -> bool {
        self.creations.take(now, settings.peer_create_rate, settings.peer_create_burst)
    }
}
