//! The payloads of one message as a list to search.

use super::{
    Authentication, Configuration, Delete, Eap, Identification, KeyExchange, Nonce, Notify, Payload,
    SecurityAssociation, TrafficSelectors,
};
use crate::ids::{NotifyType, PayloadType};

/// Types of which no message has more than one (RFC 7296 Appendix C). CERT, CERTREQ, N, D and V may repeat, unknown ones too.
const SINGLE: [PayloadType; 10] = [
    PayloadType::SA,
    PayloadType::KE,
    PayloadType::ID_INITIATOR,
    PayloadType::ID_RESPONDER,
    PayloadType::AUTH,
    PayloadType::NONCE,
    PayloadType::TS_INITIATOR,
    PayloadType::TS_RESPONDER,
    PayloadType::CP,
    PayloadType::EAP,
];

/// The payloads of a message, or of the inside of an SK payload, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payloads<'a>(Vec<Payload<'a>>);

impl<'a> Payloads<'a> {
    pub(super) fn new(payloads: Vec<Payload<'a>>) -> Self {
        Self(payloads)
    }

    /// The payloads in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Payload<'a>> {
        self.0.iter()
    }

    /// The payloads in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Payload<'a>] {
        &self.0
    }

    /// The payloads themselves.
    #[must_use]
    pub fn into_vec(self) -> Vec<Payload<'a>> {
        self.0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Notify payloads.
    pub fn notifies(&self) -> impl Iterator<Item = &Notify<'a>> {
        self.0.iter().filter_map(|payload| if let Payload::Notify(notify) = payload { Some(notify) } else { None })
    }

    /// The first Notify payload of this type.
    #[must_use]
    pub fn notify(&self, kind: NotifyType) -> Option<&Notify<'a>> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    /// The Delete payloads.
    pub fn deletes(&self) -> impl Iterator<Item = &Delete<'a>> {
        self.0.iter().filter_map(|payload| if let Payload::Delete(delete) = payload { Some(delete) } else { None })
    }

    /// The first type that a message may hold once and this one holds again. The methods that find a payload by its type give
    /// the first; a message that has a second says two things at once and should be refused.
    #[must_use]
    pub fn repeated(&self) -> Option<PayloadType> {
        let count = |kind: &PayloadType| self.0.iter().filter(|payload| payload.kind() == *kind).count();
        SINGLE.into_iter().find(|kind| count(kind) > 1)
    }

    /// The type of the first payload that is unknown and critical: the request that has one is refused with
    /// UNSUPPORTED_CRITICAL_PAYLOAD (RFC 7296 §2.5).
    #[must_use]
    pub fn unsupported_critical(&self) -> Option<PayloadType> {
        self.0.iter().find_map(|payload| {
            if let Payload::Unknown(unknown) = payload { unknown.critical.then_some(unknown.kind) } else { None }
        })
    }
}

/// Defines a method that finds the first payload of one type.
macro_rules! find {
    ($($(#[$doc:meta])* $method:ident -> $variant:ident($found:ty);)*) => {
        impl<'a> Payloads<'a> {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $method(&self) -> Option<&$found> {
                    self.0.iter().find_map(|payload| {
                        if let Payload::$variant(found) = payload { Some(found) } else { None }
                    })
                }
            )*
        }
    };
}

find! {
    /// The first SA payload.
    sa -> Sa(SecurityAssociation);
    /// The first KE payload.
    key_exchange -> KeyExchange(KeyExchange<'a>);
    /// The first IDi payload.
    id_initiator -> IdInitiator(Identification<'a>);
    /// The first IDr payload.
    id_responder -> IdResponder(Identification<'a>);
    /// The first AUTH payload.
    auth -> Auth(Authentication<'a>);
    /// The first Ni or Nr payload.
    nonce -> Nonce(Nonce<'a>);
    /// The first TSi payload.
    ts_initiator -> TsInitiator(TrafficSelectors);
    /// The first TSr payload.
    ts_responder -> TsResponder(TrafficSelectors);
    /// The first CP payload.
    configuration -> Configuration(Configuration<'a>);
    /// The first EAP payload.
    eap -> Eap(Eap<'a>);
}

impl<'a> IntoIterator for Payloads<'a> {
    type Item = Payload<'a>;
    type IntoIter = std::vec::IntoIter<Payload<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'s, 'a> IntoIterator for &'s Payloads<'a> {
    type Item = &'s Payload<'a>;
    type IntoIter = std::slice::Iter<'s, Payload<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
