//! IKE_SA_INIT in both roles: algorithms, nonces, key exchange, NAT detection (RFC 7296 §1.2, §2.6, §2.7, §2.23).
//!
//! The responder keeps nothing of a request that it answers with COOKIE, INVALID_KE_PAYLOAD or another error.

mod initiator;
mod responder;

pub(crate) use initiator::{Initiating, Step};
pub(crate) use responder::{
    Beginning, FirstRequest, RespondStep, Responding, Stateless, first_request, half_open_cause, stateless,
};

use ike_wire::ids::KeyExchangeId;
use ike_wire::{Payload, Payloads, SecurityAssociation};

use crate::error::Error;

/// SA, KE and nonce of an IKE_SA_INIT message.
struct InitParts<'p> {
    sa: &'p SecurityAssociation,
    method: KeyExchangeId,
    public: &'p [u8],
    nonce: &'p [u8],
}

impl<'p> InitParts<'p> {
    fn find(payloads: &'p Payloads<'_>) -> Result<Self, Error> {
        let (mut sa, mut ke, mut nonce) = (None, None, None);
        for payload in payloads {
            #[expect(clippy::wildcard_enum_match_arm, reason = "looks for three kinds among all")]
            match payload {
                Payload::Sa(found) => sa = sa.or(Some(found)),
                Payload::KeyExchange(found) => ke = ke.or(Some(found)),
                Payload::Nonce(found) => nonce = nonce.or(Some(found)),
                _ => {}
            }
        }
        match (sa, ke, nonce) {
            (Some(sa), Some(ke), Some(nonce)) => {
                Ok(Self { sa, method: ke.method, public: &ke.data, nonce: &nonce.data })
            }
            _ => Err(Error::PeerMisbehaved("SA, KE or nonce is missing")),
        }
    }
}
