//! Values that the format can carry, for property tests.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike_wire::ids::{
    AttributeType, AuthMethod, CertEncoding, ConfigurationAttributeType, ConfigurationType, ExchangeType, IdType,
    KeyExchangeId, NotifyType, PayloadType, ProtocolId, TransformType, TsType,
};
use ike_wire::{
    Attribute, AttributeValue, Authentication, Certificate, CertificateRequest, Configuration, ConfigurationAttribute,
    Delete, Eap, Encrypted, EncryptedFragment, Flags, Header, Identification, IkeSpi, KeyExchange, MessageId, Nonce,
    Notify, OtherSelector, Payload, Proposal, SecurityAssociation, TrafficSelector, TrafficSelectors, Transform,
    UnknownPayload, VendorId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Octets = Cow<'static, [u8]>;

fn octets(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Octets> {
    vec(any::<u8>(), length).prop_map(Cow::Owned)
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let spis = (1..=u64::MAX, any::<u64>());
    (spis, any::<u8>(), any::<[bool; 3]>(), any::<u32>(), 0..16_u8).prop_map(
        |((initiator, responder), exchange, [initiator_flag, version, response], id, minor)| {
            let flags = Flags { initiator: initiator_flag, version, response };
            let exchange = ExchangeType(exchange);
            let mut header = Header::new(IkeSpi(initiator), IkeSpi(responder), exchange, flags, MessageId(id));
            header.version.minor = minor;
            header
        },
    )
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        any::<u16>().prop_map(AttributeValue::Short),
        vec(any::<u8>(), 0..20).prop_map(AttributeValue::Long)
    ];
    // Short key lengths are the business of `Transform::key_length`.
    (0..0x8000_u16, value).prop_filter_map("a key length", |(kind, value)| {
        let kind = AttributeType(kind);
        let key_length = kind == AttributeType::KEY_LENGTH && matches!(value, AttributeValue::Short(_));
        (!key_length).then_some(Attribute { kind, value })
    })
}

fn transform() -> impl Strategy<Value = Transform> {
    (prop_oneof![1..13_u8, any::<u8>()], any::<u16>(), option::of(any::<u16>()), vec(attribute(), 0..3)).prop_map(
        |(kind, id, key_length, attributes)| Transform { kind: TransformType(kind), id, key_length, attributes },
    )
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let protocol_and_spi = prop_oneof![
        vec(any::<u8>(), 0..=0).prop_map(|spi| (ProtocolId::IKE, spi)),
        vec(any::<u8>(), 8).prop_map(|spi| (ProtocolId::IKE, spi)),
        vec(any::<u8>(), 4).prop_map(|spi| (ProtocolId::ESP, spi)),
        vec(any::<u8>(), 4).prop_map(|spi| (ProtocolId::AH, spi)),
        (4..=255_u8, vec(any::<u8>(), 0..20)).prop_map(|(protocol, spi)| (ProtocolId(protocol), spi)),
    ];
    (any::<u8>(), protocol_and_spi, vec(transform(), 0..6)).prop_map(|(number, (protocol, spi), transforms)| Proposal {
        number,
        protocol,
        spi,
        transforms,
    })
}

fn security_association() -> impl Strategy<Value = SecurityAssociation> {
    vec(proposal(), 1..5).prop_map(SecurityAssociation::new)
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = (any::<u16>(), any::<u16>());
    let v4 = any::<(u32, u32)>().prop_map(|(a, b)| (IpAddr::V4(Ipv4Addr::from(a)), IpAddr::V4(Ipv4Addr::from(b))));
    let v6 = any::<(u128, u128)>().prop_map(|(a, b)| (IpAddr::V6(Ipv6Addr::from(a)), IpAddr::V6(Ipv6Addr::from(b))));
    let range =
        (any::<u8>(), ports, prop_oneof![v4, v6]).prop_map(|(protocol, (start_port, end_port), (start, end))| {
            TrafficSelector::range(protocol, start_port, end_port, start, end).unwrap()
        });
    let other = (9..=255_u8, any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, protocol, body)| {
        TrafficSelector::Other(OtherSelector { kind: TsType(kind), protocol, body })
    });
    prop_oneof![4 => range, 1 => other]
}

fn selectors() -> impl Strategy<Value = TrafficSelectors> {
    vec(selector(), 0..20).prop_map(TrafficSelectors::new)
}

fn identification() -> impl Strategy<Value = Identification<'static>> {
    prop_oneof![
        any::<u32>().prop_map(|address| Identification::address(Ipv4Addr::from(address).into())),
        any::<u128>().prop_map(|address| Identification::address(Ipv6Addr::from(address).into())),
        (6..=255_u8, any::<[u8; 3]>(), octets(0..60)).prop_map(|(kind, reserved, data)| Identification {
            kind: IdType(kind),
            reserved,
            data
        }),
    ]
}

fn notify() -> impl Strategy<Value = Notify<'static>> {
    let protocol_and_spi = prop_oneof![
        any::<u8>().prop_map(|protocol| (ProtocolId(protocol), Cow::Borrowed(&[][..]))),
        octets(0..20).prop_map(|spi| (ProtocolId::NONE, spi)),
        octets(8).prop_map(|spi| (ProtocolId::IKE, spi)),
        octets(4).prop_map(|spi| (ProtocolId::ESP, spi)),
        (4..=255_u8, octets(1..20)).prop_map(|(protocol, spi)| (ProtocolId(protocol), spi)),
    ];
    (protocol_and_spi, any::<u16>(), octets(0..60)).prop_map(|((protocol, spi), kind, data)| Notify {
        protocol,
        spi,
        kind: NotifyType(kind),
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete<'static>> {
    prop_oneof![
        Just(Delete::ike_sa()),
        vec(any::<u32>(), 0..10).prop_map(|spis| Delete::child_sas(ProtocolId::ESP, &spis)),
        (1..10_u8, 0..5_usize).prop_flat_map(|(spi_size, count)| {
            octets(usize::from(spi_size) * count).prop_map(move |octets| Delete {
                protocol: ProtocolId(9),
                spi_size,
                octets,
            })
        }),
    ]
}

fn configuration() -> impl Strategy<Value = Configuration<'static>> {
    let attribute = (0..0x8000_u16, octets(0..20))
        .prop_map(|(kind, value)| ConfigurationAttribute { kind: ConfigurationAttributeType(kind), value });
    (any::<u8>(), vec(attribute, 0..6))
        .prop_map(|(kind, attributes)| Configuration { kind: ConfigurationType(kind), attributes })
}

fn eap() -> impl Strategy<Value = Eap<'static>> {
    (any::<[u8; 2]>(), vec(any::<u8>(), 0..40)).prop_map(|(start, rest)| {
        let length = u16::try_from(rest.len() + 4).unwrap().to_be_bytes();
        Eap::new([&start[..], &length[..], &rest[..]].concat())
    })
}

fn unknown() -> impl Strategy<Value = UnknownPayload<'static>> {
    let kind = prop_oneof![1..33_u8, 49..53_u8, 54..=255_u8];
    (kind, any::<bool>(), octets(0..40)).prop_map(|(kind, critical, body)| UnknownPayload {
        kind: PayloadType(kind),
        critical,
        body,
    })
}

/// Any payload that can stand inside SK.
pub(crate) fn inner_payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        3 => security_association().prop_map(Payload::Sa),
        1 => (any::<u16>(), octets(0..60)).prop_map(|(method, data)| Payload::KeyExchange(KeyExchange::new(KeyExchangeId(method), data))),
        1 => identification().prop_map(Payload::IdInitiator),
        1 => identification().prop_map(Payload::IdResponder),
        1 => (any::<u8>(), octets(0..60)).prop_map(|(encoding, data)| Payload::Certificate(Certificate::new(CertEncoding(encoding), data))),
        1 => (any::<u8>(), octets(0..60)).prop_map(|(encoding, data)| Payload::CertificateRequest(CertificateRequest::new(CertEncoding(encoding), data))),
        1 => (any::<u8>(), octets(0..60)).prop_map(|(method, data)| Payload::Auth(Authentication::new(AuthMethod(method), data))),
        1 => octets(16..=256).prop_map(|data| Payload::Nonce(Nonce::new(data))),
        3 => notify().prop_map(Payload::Notify),
        2 => delete().prop_map(Payload::Delete),
        1 => octets(0..40).prop_map(|data| Payload::VendorId(VendorId::new(data))),
        2 => selectors().prop_map(Payload::TsInitiator),
        2 => selectors().prop_map(Payload::TsResponder),
        1 => configuration().prop_map(Payload::Configuration),
        1 => eap().prop_map(Payload::Eap),
        1 => unknown().prop_map(Payload::Unknown),
    ]
}

fn encrypted() -> impl Strategy<Value = Payload<'static>> {
    let sk = (any::<u8>(), octets(0..80))
        .prop_map(|(first, body)| Payload::Encrypted(Encrypted { first: PayloadType(first), body }));
    let skf = (any::<u8>(), 1..=128_u16, octets(0..80)).prop_flat_map(|(first, total, body)| {
        (1..=total).prop_map(move |number| {
            Payload::EncryptedFragment(EncryptedFragment {
                first: PayloadType(first),
                number,
                total,
                body: body.clone(),
            })
        })
    });
    prop_oneof![sk, skf]
}

/// Payloads of a whole message, the last one encrypted or not.
pub(crate) fn outer_payloads() -> impl Strategy<Value = Vec<Payload<'static>>> {
    (vec(inner_payload(), 0..6), option::of(encrypted())).prop_map(|(mut payloads, last)| {
        payloads.extend(last);
        payloads
    })
}
