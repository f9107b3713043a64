//! What strangers and peers may cost: order of the checks, size of the answers, work for what is wrong.

use std::time::Duration;

use ike_sa::Input;
use ike_wire::ids::{EncryptionId, ExchangeType, KeyExchangeId, NotifyType, PayloadType};
use ike_wire::{
    Flags, Header, IkeSpi, KeyExchange, Message, MessageId, Nonce, Notify, Payload, Proposal, SecurityAssociation,
    Transform, UnknownPayload, encode,
};
use ipsec::Path;

use crate::common::*;

/// Before the cookie an answer has at most twice the octets of its request.
const FACTOR: usize = 2;

fn path() -> Path {
    Path { local: socket("192.0.2.2:500"), remote: socket("192.0.2.1:500") }
}

fn header(exchange: ExchangeType) -> Header {
    let flags = Flags { initiator: true, version: false, response: false };
    Header::new(IkeSpi(7), IkeSpi(0), exchange, flags, MessageId(0))
}

fn first_request() -> Vec<u8> {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.hold[A] = true;
    world.initiate(A, 1);
    world.held[A][0].octets.clone()
}

/// The payloads of the shortest request that is served.
fn good() -> Vec<Payload<'static>> {
    let transforms = vec![
        Transform::encryption(EncryptionId::AES_GCM_16, Some(256)),
        Transform::prf(ike_wire::ids::PrfId::PRF_HMAC_SHA2_256),
        Transform::key_exchange(KeyExchangeId::CURVE_25519),
    ];
    vec![
        Payload::Sa(SecurityAssociation::new(vec![Proposal::new(1, ike_wire::ids::ProtocolId::IKE, transforms)])),
        Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, vec![9; 32])),
        Payload::Nonce(Nonce::new(vec![7; 16])),
    ]
}

fn request(payloads: &[Payload<'_>]) -> Vec<u8> {
    encode(&header(ExchangeType::IKE_SA_INIT), payloads).unwrap()
}

/// Requests that are refused, each with what is wrong.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let without = |kind| good().into_iter().filter(|payload| payload.kind() != kind).collect::<Vec<_>>();
    let mut newer = request(&good());
    newer[17] = 0x30;
    let mut other_id = request(&good());
    other_id[23] = 1;
    let critical = Payload::Unknown(UnknownPayload { kind: PayloadType(200), critical: true, body: vec![1].into() });
    let mut weak = good();
    let transforms = vec![
        Transform::encryption(EncryptionId::AES_GCM_16, Some(128)),
        Transform::prf(ike_wire::ids::PrfId::PRF_HMAC_SHA2_256),
        Transform::key_exchange(KeyExchangeId::CURVE_25519),
    ];
    weak[0] = Payload::Sa(SecurityAssociation::new(vec![Proposal::new(1, ike_wire::ids::ProtocolId::IKE, transforms)]));
    let mut guess = good();
    guess[1] = Payload::KeyExchange(KeyExchange::new(KeyExchangeId::ECP_384, vec![9; 96]));
    let mut sealed = request(&good());
    sealed[18] = 35;
    vec![
        ("a later version", newer),
        ("another message ID", other_id),
        ("an unknown critical payload", request(&[good(), vec![critical]].concat())),
        ("no SA", request(&without(PayloadType::SA))),
        ("no KE", request(&without(PayloadType::KE))),
        ("no nonce", request(&without(PayloadType::NONCE))),
        ("two nonces", request(&[good(), vec![Payload::Nonce(Nonce::new(vec![8; 16]))]].concat())),
        ("no proposal in common", request(&weak)),
        ("a key exchange method that was not chosen", request(&guess)),
        ("IKE_AUTH in clear", sealed),
        ("nothing", encode(&header(ExchangeType::IKE_SA_INIT), &[]).unwrap()),
    ]
}

//= RFC 7296 §2.6, §2.21.1: no key exchange is computed and no state kept for a request that a cheap check refuses
#[test]
fn key_exchange_comes_after_all_cheap_checks() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.peers[B].hold_work = true;
    for (what, octets) in bad() {
        world.input(B, Input::Datagram { path: path(), octets: &octets });
        assert!(world.peers[B].works.is_empty(), "a job for a request with {what}");
        assert_eq!(world.peers[B].endpoint.counts().ike_sas, 0, "state for a request with {what}");
    }
    let stranger = Path { remote: socket("203.0.113.9:500"), ..path() };
    world.input(B, Input::Datagram { path: stranger, octets: &request(&good()) });
    assert!(world.peers[B].works.is_empty(), "a job for an address without a connection");
    world.input(B, Input::Datagram { path: path(), octets: &request(&good()) });
    assert_eq!(world.peers[B].works.len(), 1, "one job for a good one");
    world.input(B, Input::Datagram { path: path(), octets: &request(&good()) });
    assert_eq!(world.peers[B].works.len(), 1, "and none for its repetition");
}

/// A cookie comes before everything that costs something, the choice of a proposal included.
#[test]
fn a_cookie_comes_before_all_of_it() {
    let [a, mut b] = plain();
    b.settings.cookie_threshold_ip = 1;
    let mut world = World::new(a, b);
    world.peers[B].hold_work = true;
    world.input(B, Input::Datagram { path: path(), octets: &first_request() });
    assert_eq!(world.peers[B].works.len(), 1);
    let wrong = Payload::Notify(Notify::new(NotifyType::COOKIE, vec![0; 33]));
    for payloads in [good(), [vec![wrong], good()].concat()] {
        world.link.clear();
        world.input(B, Input::Datagram { path: path(), octets: &request(&payloads) });
        let answer = world.link.pop().unwrap().octets;
        let message = Message::parse(&answer).unwrap();
        assert!(message.payloads.notify(NotifyType::COOKIE).is_some() && message.payloads.len() == 1);
        assert_eq!((world.peers[B].works.len(), world.peers[B].endpoint.counts().half_open), (1, 1));
    }
}

//= RFC 7296 §2.6, §2.1: whoever forges a source gets no more out of us than twice what it put in, and each octet once
#[test]
fn answers_do_not_amplify() {
    let requests: Vec<_> = [("what is served", request(&good())), ("what our initiator sends", first_request())]
        .into_iter()
        .chain(bad())
        .collect();
    for cookies in [0, 1] {
        let [a, mut b] = plain();
        (b.settings.cookie_threshold, b.settings.block_threshold, b.settings.init_rate_ip) = (cookies, 0, 0);
        b.settings.cookie_threshold_ip = 0;
        let mut world = World::new(a, b);
        for (what, octets) in &requests {
            world.link.clear();
            world.input(B, Input::Datagram { path: path(), octets });
            let answered: usize = world.link.iter().map(|flying| flying.octets.len()).sum();
            assert!(answered <= FACTOR * octets.len(), "{answered} octets for {} with {what}", octets.len());
            assert!(world.link.len() <= 1, "one datagram for one with {what}");
        }
        let sent = world.peers[B].sent;
        world.link.clear();
        world.run(Duration::from_secs(60));
        assert_eq!(world.peers[B].sent, sent, "a responder repeats nothing by itself");
        assert_eq!(world.peers[B].endpoint.counts().ike_sas, 0);
    }
}

/// Whoever sees IKE_SA_INIT can send any number of IKE_AUTH under wrong keys: each costs one check, and the right one is served.
//= RFC 7296 §2.21.2: a message that fails its integrity check is dropped
#[test]
fn wrong_keys_cost_one_check() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    while world
        .link
        .first()
        .is_none_or(|flying| Header::parse(&flying.octets).unwrap().exchange != ExchangeType::IKE_AUTH)
    {
        assert!(world.step(world.now + Duration::from_secs(1)));
    }
    let right = world.link[0].octets.clone();
    world.peers[B].hold_work = true;
    let (sent, events) = (world.peers[B].sent, world.peers[B].events.len());
    for number in 0..2_000_usize {
        let mut wrong = right.clone();
        let at = 32 + number % (wrong.len() - 32);
        wrong[at] ^= 1 + u8::try_from(number % 255).unwrap();
        world.input(B, Input::Datagram { path: path(), octets: &wrong });
    }
    assert_eq!((world.peers[B].sent, world.peers[B].events.len(), world.peers[B].works.len()), (sent, events, 0));
    world.peers[B].hold_work = false;
    world.run(Duration::from_secs(1));
    world.assert_one_tunnel();
}

/// A client that gives up leaves its command waiting; there is an end to that.
#[test]
fn waiting_commands_are_bounded() {
    let [a, b] = configs(|_, connection, _| connection.keyingtries = 0);
    let mut world = World::new(a, b);
    world.drop = Box::new(|_, _| true);
    for id in 1..=4_096 {
        world.initiate(A, id);
    }
    assert!(world.peers[A].replies.is_empty(), "all of them wait");
    world.initiate(A, 4_097);
    let Some(Err(error)) = world.peers[A].replies.get(&4_097) else { panic!("must be refused") };
    assert!(error.to_string().contains("4096 commands wait already"), "{error}");
    assert_eq!(world.peers[A].endpoint.counts().ike_sas, 1, "for one IKE SA");
}
