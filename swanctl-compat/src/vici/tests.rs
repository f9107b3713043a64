use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::{self, Deframer, MAX_PACKET, TooLong};
use super::*;

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9_-]{0,12}", "\\PC{0,20}"]
}

fn value() -> impl Strategy<Value = super::Value> {
    vec(any::<u8>(), 0..40).prop_map(super::Value::from)
}

fn message() -> impl Strategy<Value = Message> {
    let leaf = prop_oneof![
        (name(), value()).prop_map(|(name, value)| Element::KeyValue(name, value)),
        (name(), vec(value(), 0..5)).prop_map(|(name, items)| Element::List(name, items)),
    ];
    let element = leaf.prop_recursive(5, 40, 6, |inner| {
        (name(), vec(inner, 0..6)).prop_map(|(name, elements)| Element::Section(name, collect(elements)))
    });
    vec(element, 0..8).prop_map(collect)
}

fn collect(elements: Vec<Element>) -> Message {
    let mut message = Message::new();
    elements.into_iter().for_each(|element| message.push(element));
    message
}

fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        (name(), message()).prop_map(|(n, m)| Packet::CmdRequest(n, m)),
        message().prop_map(Packet::CmdResponse),
        Just(Packet::CmdUnknown),
        name().prop_map(Packet::EventRegister),
        name().prop_map(Packet::EventUnregister),
        Just(Packet::EventConfirm),
        Just(Packet::EventUnknown),
        (name(), message()).prop_map(|(n, m)| Packet::Event(n, m)),
    ]
}

proptest! {
    #[test]
    fn packets_survive_encoding(packet in packet()) {
        let octets = packet.encode().unwrap();
        prop_assert_eq!(Packet::decode(&octets).unwrap(), packet);
    }

    #[test]
    fn any_octets_decode_to_an_error_or_to_themselves(octets in vec(prop_oneof![0u8..8, any::<u8>()], 0..200)) {
        if let Ok(packet) = Packet::decode(&octets) {
            let again = packet.encode().unwrap();
            // What comes after the name of a registration means nothing.
            let is_registration = matches!(packet, Packet::EventRegister(_) | Packet::EventUnregister(_));
            prop_assert!(again == octets || (is_registration && octets.starts_with(&again)));
        }
    }

    #[test]
    fn every_cut_of_a_section_is_an_error(message in message(), cut in any::<prop::sample::Index>()) {
        let mut whole = Message::new();
        whole.section("s", message);
        let mut octets = Vec::new();
        whole.encode(&mut octets).unwrap();
        let cut = cut.index(octets.len() - 1) + 1;
        if cut < octets.len() {
            prop_assert!(Message::decode(&octets[..cut]).is_err());
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(packets in vec(packet(), 1..5), sizes in vec(1usize..30, 1..200)) {
        let stream: Vec<u8> = packets.iter().flat_map(|p| frame::encode(p).unwrap()).collect();
        let mut deframer = Deframer::new();
        let mut received = Vec::new();
        let mut rest = stream.as_slice();
        for size in sizes.iter().chain(std::iter::repeat(&4096)) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*size).min(rest.len()));
            deframer.push(now);
            rest = later;
            while let Some(octets) = deframer.next_packet().unwrap() {
                received.push(Packet::decode(&octets).unwrap());
            }
        }
        prop_assert_eq!(received, packets);
    }
}

/// The layout on the wire, written out once by hand.
#[test]
fn known_octets() {
    let mut message = Message::new();
    message.set("a", "xy");
    message.list("l", ["1", ""]);
    message.section("s", Message::new().with("k", "v"));
    let expected: &[u8] = &[
        0, 3, b'c', b'm', b'd', //
        3, 1, b'a', 0, 2, b'x', b'y', //
        4, 1, b'l', 5, 0, 1, b'1', 5, 0, 0, 6, //
        1, 1, b's', 3, 1, b'k', 0, 1, b'v', 2,
    ];
    let packet = Packet::CmdRequest("cmd".into(), message);
    assert_eq!(packet.encode().unwrap(), expected);
    assert_eq!(Packet::decode(expected).unwrap(), packet);
}

#[test]
fn malformed_messages_are_refused() {
    let cases: [(&[u8], DecodeError); 10] = [
        (&[2], DecodeError::Misplaced(0)),
        (&[6], DecodeError::Misplaced(0)),
        (&[5, 0, 0], DecodeError::Misplaced(0)),
        (&[4, 0, 4, 0], DecodeError::Misplaced(2)),
        (&[4, 0, 3, 0, 0, 0], DecodeError::Misplaced(2)),
        (&[1, 0], DecodeError::Truncated(2)),
        (&[3, 1, b'a', 0, 9, 0], DecodeError::Truncated(6)),
        (&[3, 1, 0xff, 0, 0], DecodeError::Name(2)),
        (&[0], DecodeError::UnknownElement(0)),
        (&[1, 0, 7], DecodeError::UnknownElement(2)),
    ];
    for (octets, expected) in cases {
        assert_eq!(Message::decode(octets), Err(expected), "{octets:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep: Vec<u8> = [1, 0].repeat(100_000);
    assert!(matches!(Message::decode(&deep), Err(DecodeError::TooDeep(_))));
    let allowed: Vec<u8> = [[1, 0].repeat(MAX_DEPTH), [2].repeat(MAX_DEPTH)].concat();
    assert!(Message::decode(&allowed).is_ok());
}

#[test]
fn lengths_are_bounded() {
    let long_name = Message::new().with(&"n".repeat(256), "");
    assert_eq!(long_name.encode(&mut Vec::new()), Err(EncodeError::NameTooLong(256)));
    let long_value = Message::new().with("k", vec![0u8; 65_536]);
    assert!(matches!(long_value.encode(&mut Vec::new()), Err(EncodeError::ValueTooLong { .. })));

    let mut big = Message::new();
    (0..9).for_each(|i| big.set(format!("k{i}"), vec![0u8; 60_000]));
    assert!(matches!(Packet::CmdResponse(big).encode(), Err(EncodeError::PacketTooLong(_))));

    let mut deframer = Deframer::new();
    let announced = u32::try_from(MAX_PACKET).unwrap() + 1;
    deframer.push(&announced.to_be_bytes());
    assert_eq!(deframer.next_packet(), Err(TooLong(announced)));
}

#[test]
fn duplicates_are_found_at_any_depth() {
    let mut inner = Message::new().with("a", "1");
    inner.list("a", ["2"]);
    let mut outer = Message::new().with("a", "0");
    outer.section("s", inner);
    assert_eq!(outer.duplicate_name(), Some("a"));
    assert_eq!(Message::new().with("a", "1").with("b", "2").duplicate_name(), None);
}

#[test]
fn debug_shows_no_values() {
    let message = Message::new().with("data", "planted-secret");
    assert!(!format!("{message:?}").contains("planted"));
}
