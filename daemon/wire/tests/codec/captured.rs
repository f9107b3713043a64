//! Messages captured between two strongSwan daemons, the encrypted ones with their plaintext (padding removed by hand): they
//! must decode to what was configured there, and encode to the same octets.

use ike_wire::ids::{
    AuthMethod, EncryptionId, EsnId, ExchangeType, IdType, KeyExchangeId, NotifyType, PayloadType, PrfId, ProtocolId,
    TransformType,
};
use ike_wire::{
    Header, IkeSpi, Message, MessageId, Payload, Payloads, SkBuffer, SkSizes, Transform, encode, encode_chain,
};

use crate::octets::hex;

/// The IKE SA was protected with AES-GCM-16.
const GCM: SkSizes = SkSizes { iv: 8, icv: 16, block: 1 };

struct Captured {
    name: &'static str,
    datagram: &'static str,
    plaintext: Option<&'static str>,
}

macro_rules! captured {
    ($name:literal) => {
        Captured { name: $name, datagram: include_str!(concat!("captured/", $name, ".hex")), plaintext: None }
    };
    ($name:literal, encrypted) => {
        Captured {
            name: $name,
            datagram: include_str!(concat!("captured/", $name, ".hex")),
            plaintext: Some(include_str!(concat!("captured/", $name, ".plaintext.hex"))),
        }
    };
}

const CAPTURED: [Captured; 5] = [
    captured!("ike_sa_init_request"),
    captured!("ike_sa_init_response"),
    captured!("ike_auth_request", encrypted),
    captured!("ike_auth_response", encrypted),
    captured!("informational_request", encrypted),
];

/// Puts the plaintext where a cipher would have left it.
fn decrypted(message: &Message<'_>, plaintext: &str) -> SkBuffer {
    let mut buffer = SkBuffer::open(message, GCM).unwrap();
    buffer.parts().body.copy_from_slice(&hex(plaintext));
    buffer
}

fn kinds(payloads: &Payloads<'_>) -> Vec<String> {
    payloads
        .iter()
        .map(|payload| {
            if let Payload::Notify(notify) = payload {
                format!("N({})", notify.kind)
            } else {
                payload.kind().to_string()
            }
        })
        .collect()
}

#[test]
fn every_captured_message_encodes_to_its_own_octets() {
    for Captured { name, datagram, plaintext } in CAPTURED {
        let octets = hex(datagram);
        let message = Message::parse(&octets).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(encode(&message.header, message.payloads.as_slice()).unwrap(), octets, "{name}");

        let Some(plaintext) = plaintext else { continue };
        let buffer = decrypted(&message, plaintext);
        let payloads = buffer.payloads().unwrap_or_else(|error| panic!("{name}: {error}"));
        let chain = encode_chain(payloads.as_slice()).unwrap();
        assert_eq!((chain.first, chain.octets.as_slice()), (buffer.first(), buffer.plaintext().unwrap()), "{name}");
        let mut sealed = SkBuffer::seal(&message.header, &chain, GCM).unwrap();
        let mut received = SkBuffer::open(&message, GCM).unwrap();
        assert_eq!(sealed.parts().associated, received.parts().associated, "{name}");
        assert_eq!(sealed.parts().body, hex(plaintext), "{name}");
    }
}

//= RFC 7296 §3.4, §3.13.1: as another implementation writes them
#[test]
fn the_initiators_first_request() {
    let octets = hex(CAPTURED[0].datagram);
    let message = Message::parse(&octets).unwrap();
    let Header { initiator_spi, responder_spi, exchange, flags, message_id, .. } = message.header;
    assert_eq!((initiator_spi, responder_spi), (IkeSpi(0xefe6_81ff_e88f_964c), IkeSpi::ZERO));
    assert_eq!((exchange, message_id), (ExchangeType::IKE_SA_INIT, MessageId(0)));
    assert!(flags.initiator && !flags.response && !flags.version);
    assert_eq!(
        kinds(&message.payloads),
        [
            "SA",
            "KE",
            "Nonce",
            "N(NAT_DETECTION_SOURCE_IP)",
            "N(NAT_DETECTION_DESTINATION_IP)",
            "N(IKEV2_FRAGMENTATION_SUPPORTED)",
            "N(SIGNATURE_HASH_ALGORITHMS)",
            "N(REDIRECT_SUPPORTED)",
        ]
    );
    let sa = message.payloads.sa().unwrap();
    assert_eq!(sa.proposals.len(), 4);
    assert!(sa.is_numbered());
    assert_eq!(sa.proposals[0].to_string(), "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384");
    assert_eq!(sa.proposals[3].to_string(), "IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519");
    let ke = message.payloads.key_exchange().unwrap();
    assert_eq!(message.payloads.nonce().unwrap().data.len(), 32);
    assert!(message.payloads.auth().is_none() && message.payloads.repeated().is_none());
    assert_eq!((ke.method, ke.data.len()), (KeyExchangeId::ECP_384, 96));
}

#[test]
fn the_responders_choice() {
    let octets = hex(CAPTURED[1].datagram);
    let message = Message::parse(&octets).unwrap();
    assert!(message.header.flags.response && !message.header.flags.initiator);
    assert!(!message.header.responder_spi.is_zero());
    let Some(Payload::Sa(sa)) = message.payloads.iter().next() else { panic!("no SA payload") };
    assert_eq!(
        sa.proposals[0].transforms,
        [
            Transform::encryption(EncryptionId::AES_GCM_16, Some(256)),
            Transform::prf(PrfId::PRF_HMAC_SHA2_384),
            Transform::key_exchange(KeyExchangeId::ECP_384),
        ]
    );
    assert!(message.payloads.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some());
    assert!(message.payloads.notify(NotifyType::COOKIE).is_none());
}

#[test]
fn the_inside_of_ike_auth() {
    let octets = hex(CAPTURED[2].datagram);
    let message = Message::parse(&octets).unwrap();
    let buffer = decrypted(&message, CAPTURED[2].plaintext.unwrap());
    let payloads = buffer.payloads().unwrap();
    assert_eq!(kinds(&payloads)[..7], ["IDi", "N(INITIAL_CONTACT)", "IDr", "AUTH", "SA", "TSi", "TSr"]);
    let initiator = payloads.id_initiator().unwrap();
    assert_eq!((initiator.kind, &*initiator.data), (IdType::ID_FQDN, &b"a.example"[..]));
    let responder = payloads.id_responder().unwrap();
    assert_eq!((responder.kind, &*responder.data), (IdType::ID_FQDN, &b"b.example"[..]));
    let auth = payloads.auth().unwrap();
    assert_eq!((auth.method, auth.data.len()), (AuthMethod::SHARED_KEY_MIC, 48));

    let sa = payloads.sa().unwrap();
    assert_eq!(sa.proposals[0].to_string(), "ESP:AES_GCM_16_256/EXT_SEQ");
    assert_eq!(sa.proposals[1].to_string(), "ESP:AES_CBC_128/HMAC_SHA2_256_128/NO_EXT_SEQ");
    assert_eq!(sa.proposals[0].protocol, ProtocolId::ESP);
    assert_eq!(sa.proposals[0].spi_u32(), Some(0xcec0_318d));
    assert_eq!(sa.proposals[0].transforms_of(TransformType::ESN).next().unwrap().id, EsnId::EXT_SEQ.0);

    let ts = payloads.ts_initiator().unwrap();
    let ends: Vec<_> = ts.ranges().map(|range| format!("{}-{}", range.start(), range.end())).collect();
    assert_eq!(ends, ["10.1.0.0-10.1.255.255", "fd01::-fd01::ffff:ffff:ffff:ffff"]);
    assert!(ts.ranges().all(|range| range.is_ordered() && (range.start_port, range.end_port) == (0, 65535)));
    assert_eq!(payloads.ts_responder().unwrap().ranges().count(), 2);
    assert_eq!(buffer.first(), PayloadType::ID_INITIATOR);
}

#[test]
fn a_refused_child_sa_is_a_notification() {
    let octets = hex(CAPTURED[3].datagram);
    let message = Message::parse(&octets).unwrap();
    let buffer = decrypted(&message, CAPTURED[3].plaintext.unwrap());
    let payloads = buffer.payloads().unwrap();
    let errors: Vec<_> = payloads.notifies().filter(|notify| notify.kind.is_error()).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind, NotifyType::NO_PROPOSAL_CHOSEN);
}
