//! INVALID_KE_PAYLOAD in a CREATE_CHILD_SA exchange of ours: which key exchange method comes next, if any (RFC 7296 §1.3, §3.10.1). Pure.

use ike_wire::ids::{KeyExchangeId, NotifyType};
use ike_wire::{Notify, Payloads};

/// Answers that are followed in one exchange.
const MOST: u8 = 2;

/// The answers followed so far.
#[derive(Debug, Default)]
pub(crate) struct Detours(u8);

impl Detours {
    //= RFC 7296 §1.3: the request is made again with the method that INVALID_KE_PAYLOAD names
    /// The method that the peer wants: one that is acceptable, not the one just tried, and not for ever.
    pub(crate) fn follow(
        &mut self,
        payloads: &Payloads<'_>,
        tried: Option<KeyExchangeId>,
        acceptable: impl Fn(KeyExchangeId) -> bool,
    ) -> Option<KeyExchangeId> {
        let notify = payloads.notify(NotifyType::INVALID_KE_PAYLOAD);
        self.next(notify.and_then(Notify::data_u16).map(KeyExchangeId), tried, acceptable)
    }

    fn next(
        &mut self,
        wanted: Option<KeyExchangeId>,
        tried: Option<KeyExchangeId>,
        acceptable: impl Fn(KeyExchangeId) -> bool,
    ) -> Option<KeyExchangeId> {
        let method = wanted.filter(|id| Some(*id) != tried && acceptable(*id) && self.0 < MOST)?;
        self.0 = self.0.saturating_add(1);
        Some(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X25519: Option<KeyExchangeId> = Some(KeyExchangeId::CURVE_25519);
    const P256: Option<KeyExchangeId> = Some(KeyExchangeId::ECP_256);

    //= RFC 7296 §1.3: the request is made again with the method that INVALID_KE_PAYLOAD names
    #[test]
    fn twice_at_most() {
        let mut detours = Detours::default();
        assert_eq!(detours.next(P256, X25519, |_| true), P256);
        assert_eq!(detours.next(X25519, P256, |_| true), X25519);
        assert_eq!(detours.next(P256, X25519, |_| true), None);
    }

    #[test]
    fn only_to_what_makes_sense() {
        let mut detours = Detours::default();
        assert_eq!(detours.next(None, X25519, |_| true), None, "nothing is named");
        assert_eq!(detours.next(X25519, X25519, |_| true), None, "the one just tried");
        assert_eq!(detours.next(P256, X25519, |_| false), None, "not offered");
        assert_eq!(detours.next(P256, None, |id| Some(id) == P256), P256, "none was tried");
    }
}
