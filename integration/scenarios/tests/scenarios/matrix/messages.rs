//! The messages that may come.

use ike_wire::ids::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use ike_wire::{Chain, Delete, IkeSpi, Notify, Payload, UnknownPayload, encode, encode_chain};

use super::puppet::{FIRST_CHILD, Puppet, UNKNOWN_CHILD, create_child, rekey_ike};

/// What COOKIE2 holds.
pub(super) const COOKIE2: [u8; 16] = [3; 16];

/// A message of the peer, or of somebody who poses as it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Liveness,
    DeleteChild,
    DeleteUnknown,
    DeleteIke,
    Cookie2,
    UnknownNotify,
    UnknownPayload,
    CriticalPayload,
    PayloadTwice,
    FatalNotify,
    CreateChild,
    CreateWithoutNonce,
    CreateWithoutSa,
    RekeyChild,
    RekeyUnknown,
    RekeyIke,
    RekeyIkeWithoutKe,
    Auth,
    Init,
    UnknownExchange,
    Repeated,
    Ahead,
    FarAhead,
    EmptyResponse,
    RefusingResponse,
    ResponseToNothing,
    NewerVersion,
    Clear,
    ClearResponse,
    BadIcv,
    BadIcvResponse,
    WrongDirection,
}

impl Kind {
    pub(super) const ALL: [Self; 32] = [
        Self::Liveness,
        Self::DeleteChild,
        Self::DeleteUnknown,
        Self::DeleteIke,
        Self::Cookie2,
        Self::UnknownNotify,
        Self::UnknownPayload,
        Self::CriticalPayload,
        Self::PayloadTwice,
        Self::FatalNotify,
        Self::CreateChild,
        Self::CreateWithoutNonce,
        Self::CreateWithoutSa,
        Self::RekeyChild,
        Self::RekeyUnknown,
        Self::RekeyIke,
        Self::RekeyIkeWithoutKe,
        Self::Auth,
        Self::Init,
        Self::UnknownExchange,
        Self::Repeated,
        Self::Ahead,
        Self::FarAhead,
        Self::EmptyResponse,
        Self::RefusingResponse,
        Self::ResponseToNothing,
        Self::NewerVersion,
        Self::Clear,
        Self::ClearResponse,
        Self::BadIcv,
        Self::BadIcvResponse,
        Self::WrongDirection,
    ];

    /// What it is, for the table.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Liveness => "INFORMATIONAL, empty",
            Self::DeleteChild => "INFORMATIONAL, DELETE of the CHILD SA",
            Self::DeleteUnknown => "INFORMATIONAL, DELETE of an unknown CHILD SA",
            Self::DeleteIke => "INFORMATIONAL, DELETE of the IKE SA",
            Self::Cookie2 => "INFORMATIONAL, COOKIE2",
            Self::UnknownNotify => "INFORMATIONAL, unknown status notification",
            Self::UnknownPayload => "INFORMATIONAL, unknown payload",
            Self::CriticalPayload => "INFORMATIONAL, unknown critical payload",
            Self::PayloadTwice => "CREATE_CHILD_SA, two nonces",
            Self::FatalNotify => "INFORMATIONAL, AUTHENTICATION_FAILED",
            Self::CreateChild => "CREATE_CHILD_SA, further CHILD SA",
            Self::CreateWithoutNonce => "CREATE_CHILD_SA without a nonce",
            Self::CreateWithoutSa => "CREATE_CHILD_SA without SA",
            Self::RekeyChild => "CREATE_CHILD_SA, rekeys the CHILD SA",
            Self::RekeyUnknown => "CREATE_CHILD_SA, rekeys an unknown CHILD SA",
            Self::RekeyIke => "CREATE_CHILD_SA, rekeys the IKE SA",
            Self::RekeyIkeWithoutKe => "CREATE_CHILD_SA for the IKE SA without KE",
            Self::Auth => "IKE_AUTH without IDi",
            Self::Init => "IKE_SA_INIT with the SPIs of the IKE SA",
            Self::UnknownExchange => "exchange of type 240",
            Self::Repeated => "the last request that was answered, again",
            Self::Ahead => "INFORMATIONAL, message ID one too high",
            Self::FarAhead => "INFORMATIONAL, message ID far too high",
            Self::EmptyResponse => "the response that is awaited, empty",
            Self::RefusingResponse => "the response that is awaited, TEMPORARY_FAILURE",
            Self::ResponseToNothing => "a response that nobody awaits",
            Self::NewerVersion => "a request of major version 3",
            Self::Clear => "INFORMATIONAL in clear",
            Self::ClearResponse => "the response that is awaited, in clear",
            Self::BadIcv => "INFORMATIONAL with a wrong ICV",
            Self::BadIcvResponse => "the response that is awaited, with a wrong ICV",
            Self::WrongDirection => "INFORMATIONAL with the Initiator flag of the other end",
        }
    }

    /// Whether anybody could have sent it: it must change nothing.
    pub(super) fn is_forged(self) -> bool {
        matches!(
            self,
            Self::NewerVersion
                | Self::Clear
                | Self::ClearResponse
                | Self::BadIcv
                | Self::BadIcvResponse
                | Self::WrongDirection
                | Self::Init
        )
    }

    /// Its octets, under the keys of the puppet.
    pub(super) fn octets(self, puppet: &Puppet) -> Vec<u8> {
        let (asked_exchange, asked_id) =
            puppet.asked.as_ref().map_or((ExchangeType::INFORMATIONAL, 0), |asked| (asked.exchange, asked.id));
        let informational = |payloads: &[Payload<'_>]| {
            puppet.seal(ExchangeType::INFORMATIONAL, puppet.next, false, &encode_chain(payloads).unwrap())
        };
        let create = |payloads: &[Payload<'_>]| {
            puppet.seal(ExchangeType::CREATE_CHILD_SA, puppet.next, false, &encode_chain(payloads).unwrap())
        };
        let notify = |kind| Payload::Notify(Notify::plain(kind));
        let unknown = |critical| {
            Payload::Unknown(UnknownPayload { kind: PayloadType(200), critical, body: vec![1, 2, 3].into() })
        };
        match self {
            Self::Liveness => informational(&[]),
            Self::DeleteChild => informational(&[delete(FIRST_CHILD)]),
            Self::DeleteUnknown => informational(&[delete(UNKNOWN_CHILD)]),
            Self::DeleteIke => informational(&[Payload::Delete(Delete::ike_sa())]),
            Self::Cookie2 => informational(&[Payload::Notify(Notify::new(NotifyType::COOKIE2, COOKIE2.to_vec()))]),
            Self::UnknownNotify => informational(&[notify(NotifyType(40_000))]),
            Self::UnknownPayload => informational(&[unknown(false)]),
            Self::CriticalPayload => informational(&[unknown(true)]),
            Self::FatalNotify => informational(&[notify(NotifyType::AUTHENTICATION_FAILED)]),
            Self::CreateChild => create(&create_child(None)),
            Self::CreateWithoutNonce => create(&without(create_child(None), PayloadType::NONCE)),
            Self::CreateWithoutSa => create(&without(create_child(None), PayloadType::SA)),
            Self::PayloadTwice => {
                let nonce = Payload::Nonce(ike_wire::Nonce::new(vec![1; 32]));
                create(&[create_child(None), vec![nonce]].concat())
            }
            Self::RekeyChild => create(&create_child(Some(FIRST_CHILD))),
            Self::RekeyUnknown => create(&create_child(Some(UNKNOWN_CHILD))),
            Self::RekeyIke => create(&ike_payloads()),
            Self::RekeyIkeWithoutKe => create(&without(ike_payloads(), PayloadType::KE)),
            Self::Auth => puppet.seal(ExchangeType::IKE_AUTH, puppet.next, false, &encode_chain(&[]).unwrap()),
            Self::Init => {
                let header = puppet.header(ExchangeType::IKE_SA_INIT, 0, false);
                encode(&header, &ike_payloads()).unwrap()
            }
            Self::UnknownExchange => puppet.seal(ExchangeType(240), puppet.next, false, &encode_chain(&[]).unwrap()),
            Self::Repeated => match &puppet.answered {
                Some((request, _)) => request.clone(),
                None => puppet.seal(ExchangeType::INFORMATIONAL, u32::MAX, false, &encode_chain(&[]).unwrap()),
            },
            Self::Ahead => {
                puppet.seal(ExchangeType::INFORMATIONAL, puppet.next + 1, false, &encode_chain(&[]).unwrap())
            }
            Self::FarAhead => {
                puppet.seal(ExchangeType::INFORMATIONAL, puppet.next + 1_000, false, &encode_chain(&[]).unwrap())
            }
            Self::EmptyResponse => puppet.seal(asked_exchange, asked_id, true, &encode_chain(&[]).unwrap()),
            Self::RefusingResponse => {
                let chain = encode_chain(&[notify(NotifyType::TEMPORARY_FAILURE)]).unwrap();
                puppet.seal(asked_exchange, asked_id, true, &chain)
            }
            Self::ResponseToNothing => {
                puppet.seal(ExchangeType::INFORMATIONAL, asked_id + 7, true, &encode_chain(&[]).unwrap())
            }
            Self::NewerVersion => {
                let mut octets = informational(&[]);
                octets[17] = 0x30;
                octets
            }
            Self::Clear => {
                let header = puppet.header(ExchangeType::INFORMATIONAL, puppet.next, false);
                encode(&header, &[notify(NotifyType::INVALID_IKE_SPI)]).unwrap()
            }
            Self::ClearResponse => {
                let header = puppet.header(asked_exchange, asked_id, true);
                encode(&header, &[notify(NotifyType::INVALID_IKE_SPI)]).unwrap()
            }
            Self::BadIcv => damaged(informational(&[Payload::Delete(Delete::ike_sa())])),
            Self::BadIcvResponse => damaged(puppet.seal(asked_exchange, asked_id, true, &empty())),
            Self::WrongDirection => {
                let mut octets = informational(&[Payload::Delete(Delete::ike_sa())]);
                octets[19] ^= 0x08;
                octets
            }
        }
    }
}

fn empty() -> Chain {
    encode_chain(&[]).unwrap()
}

fn damaged(mut octets: Vec<u8>) -> Vec<u8> {
    *octets.last_mut().unwrap() ^= 1;
    octets
}

fn delete(spi: u32) -> Payload<'static> {
    Payload::Delete(Delete::child_sas(ProtocolId::ESP, &[spi]))
}

fn ike_payloads() -> Vec<Payload<'static>> {
    let started = lab::hostile::peer::start_key_exchange().unwrap();
    rekey_ike(IkeSpi(0x5555_6666_7777_8888), started.public_value())
}

fn without(payloads: Vec<Payload<'static>>, kind: PayloadType) -> Vec<Payload<'static>> {
    payloads.into_iter().filter(|payload| payload.kind() != kind).collect()
}
