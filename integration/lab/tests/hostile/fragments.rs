//! Fragments from a peer that holds the session keys: what is authentic and still must not count (RFC 7383 §2.6).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ike_model::Fragmentation;
use ike_wire::ids::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use ike_wire::{Chain, MAX_FRAGMENTS, MAX_MESSAGE, Message, Notify, Payload, VendorId, encode_chain};
use lab::hostile::attacker::establish;
use lab::hostile::carrier::Carrier;
use lab::hostile::dice::Dice;
use lab::hostile::peer::{self, HalfOpen, IkeSa};

use crate::core::{Core, Loopback, profile};

/// Two Notify payloads that no one knows, and a Delete of a stranger: a request with an empty answer.
fn chain() -> Chain {
    let status = |kind, octets| Payload::Notify(Notify::new(NotifyType(kind), vec![0x5a; octets]));
    let delete = Payload::Delete(ike_wire::Delete::child_sas(ProtocolId::ESP, &[0x9999_9999]));
    encode_chain(&[status(50_000, 90), delete, status(50_001, 70)]).unwrap_or_else(|error| panic!("{error}"))
}

fn start(fragmentation: Fragmentation) -> (Loopback, IkeSa) {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new().with_fragmentation(fragmentation))));
    let ike = establish(&mut loopback, &profile(), &mut Dice::new(1)).unwrap_or_else(|error| panic!("{error:?}"));
    (loopback, ike)
}

fn send(loopback: &mut Loopback, octets: &[u8]) {
    loopback.send(octets).unwrap_or_else(|error| panic!("{error:?}"));
}

/// Message IDs of the responses that have come.
fn answers(loopback: &mut Loopback) -> Vec<u32> {
    let mut ids = Vec::new();
    while let Ok(Some(octets)) = loopback.receive(Duration::ZERO) {
        let message = Message::parse(&octets).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(message.header.flags.response && message.fragment().is_none());
        ids.push(message.header.message_id.0);
    }
    ids
}

fn divided(ike: &IkeSa, count: usize) -> Vec<Vec<u8>> {
    ike.fragments(ExchangeType::INFORMATIONAL, &chain(), count).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The request as a whole: the window must still be where it was.
fn whole_is_answered(loopback: &mut Loopback, ike: &IkeSa) {
    let whole = ike.seal(ExchangeType::INFORMATIONAL, ike.next, false, &chain());
    send(loopback, &whole.unwrap_or_else(|error| panic!("{error:?}")));
    assert_eq!(answers(loopback), [ike.next]);
    assert_eq!(loopback.0.borrow().counts().established, 1);
}

/// However it is divided: down to one octet for each fragment, which splits every payload header.
#[test]
fn a_request_in_fragments_is_a_request() {
    for count in [1, 2, 3, 7, 100, 128] {
        let (mut loopback, ike) = start(Fragmentation::Yes);
        let fragments = divided(&ike, count);
        let (last, before) = fragments.split_last().unwrap_or_else(|| panic!("no fragments"));
        for fragment in before.iter().rev() {
            send(&mut loopback, fragment);
        }
        assert_eq!(answers(&mut loopback), [0_u32; 0], "{count}");
        send(&mut loopback, last);
        assert_eq!(answers(&mut loopback), [ike.next], "{count}");
        // Once more, all of it: only the first fragment asks for the answer again.
        for fragment in &fragments {
            send(&mut loopback, fragment);
        }
        assert_eq!(answers(&mut loopback), [ike.next], "{count}");
    }
}

//= RFC 7383 §2.3: without negotiation there are no fragments
#[test]
fn fragments_that_nobody_agreed_on_are_dropped() {
    let (mut loopback, ike) = start(Fragmentation::No);
    for count in [1, 3] {
        divided(&ike, count).iter().for_each(|fragment| send(&mut loopback, fragment));
        assert_eq!(answers(&mut loopback), [0_u32; 0]);
    }
    whole_is_answered(&mut loopback, &ike);
}

//= RFC 7383 §2.6: more fragments start over, fewer are discarded
#[test]
fn another_division_starts_over() {
    let (mut loopback, ike) = start(Fragmentation::Yes);
    let (coarse, fine) = (divided(&ike, 2), divided(&ike, 5));
    send(&mut loopback, &coarse[0]);
    send(&mut loopback, &fine[0]);
    // The coarse set would be whole by now.
    send(&mut loopback, &coarse[1]);
    send(&mut loopback, &coarse[0]);
    assert_eq!(answers(&mut loopback), [0_u32; 0]);
    fine.iter().skip(1).for_each(|fragment| send(&mut loopback, fragment));
    assert_eq!(answers(&mut loopback), [ike.next]);
}

//= RFC 7383 §2.5.3: nothing in clear beside SKF is taken
/// Nothing may stand beside the fragment, not even covered by its ICV.
#[test]
fn a_payload_in_front_of_the_fragment_is_dropped() {
    let (mut loopback, ike) = start(Fragmentation::Yes);
    let header = peer::header(ike.spis, ExchangeType::INFORMATIONAL, false, ike.next);
    for (kind, body) in [(PayloadType::VENDOR_ID, &b"in clear"[..]), (PayloadType(200), &[][..])] {
        let octets = ike.keys.fragment_behind(&header, (kind, body), &chain());
        let octets = octets.unwrap_or_else(|error| panic!("{error:?}"));
        let parsed = Message::parse(&octets).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(parsed.payloads.len() == 2 && parsed.fragment().is_some(), "the message itself is well-formed");
        send(&mut loopback, &octets);
        assert_eq!(answers(&mut loopback), [0_u32; 0]);
    }
    whole_is_answered(&mut loopback, &ike);
}

/// As many fragments as there can be with as much as fits: what is kept ends at the length of a message, and the request is still free.
#[test]
fn what_a_peer_can_make_us_keep_is_bounded() {
    let (mut loopback, ike) = start(Fragmentation::Yes);
    let header = peer::header(ike.spis, ExchangeType::INFORMATIONAL, false, ike.next);
    let piece = vec![0; MAX_MESSAGE / usize::from(MAX_FRAGMENTS) + 1];
    for number in 1..=MAX_FRAGMENTS {
        let fragment = ike.keys.seal_fragment(&header, PayloadType::NOTIFY, (number, MAX_FRAGMENTS), &piece);
        send(&mut loopback, &fragment.unwrap_or_else(|error| panic!("{error:?}")));
    }
    assert_eq!(answers(&mut loopback), [0_u32; 0], "the last one would make it too long");
    whole_is_answered(&mut loopback, &ike);
}

/// Authentic fragments whose content is none: answered as the same content in one piece would be.
#[test]
fn joined_nonsense_ends_the_ike_sa_with_invalid_syntax() {
    let (mut loopback, ike) = start(Fragmentation::Yes);
    let broken = Chain { first: PayloadType::SA, octets: vec![0xff; 300] };
    let fragments = ike.fragments(ExchangeType::INFORMATIONAL, &broken, 3).unwrap_or_else(|error| panic!("{error:?}"));
    fragments.iter().for_each(|fragment| send(&mut loopback, fragment));
    assert_eq!(answers(&mut loopback), [ike.next]);
    assert_eq!(loopback.0.borrow().counts().established, 0);
}

/// Before authentication less is kept, and half an IKE_AUTH request goes with the half-open IKE SA.
#[test]
fn half_open_ike_sas_keep_little_and_not_for_long() {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    for (octets, answered) in [(30_000, true), (33_000, false)] {
        let half_open = HalfOpen::begin(&mut loopback, &profile(), &mut Dice::new(octets as u64))
            .unwrap_or_else(|error| panic!("{error:?}"))
            .unwrap_or_else(|| panic!("no answer"));
        let mut payloads = half_open.auth_payloads(&profile(), 0x7777).unwrap_or_else(|error| panic!("{error:?}"));
        payloads.push(Payload::VendorId(VendorId::new(vec![0; octets])));
        let chain = encode_chain(&payloads).unwrap_or_else(|error| panic!("{error}"));
        let (ike, _) = half_open.into_ike_sa();
        let fragments = ike.fragments(ExchangeType::IKE_AUTH, &chain, 40).unwrap_or_else(|error| panic!("{error:?}"));
        fragments.iter().for_each(|fragment| send(&mut loopback, fragment));
        assert_eq!(!answers(&mut loopback).is_empty(), answered, "{octets}");
    }
    assert_eq!(loopback.0.borrow().counts().half_open, 1);
    loopback.0.borrow_mut().pass(Duration::from_secs(31));
    let counts = loopback.0.borrow().counts();
    assert_eq!((counts.half_open, counts.established), (0, 1));
}
