//! Octets that mean harm: nothing panics, and nothing cut short passes for whole.

use ike_wire::ids::PayloadType;
use ike_wire::{HEADER_LEN, Header, Message, encode, encode_chain, parse_chain};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::octets::{datagram, hex};
use crate::strategies::{header, inner_payload};

const REQUEST: &str = include_str!("captured/ike_sa_init_request.hex");
const AUTH: &str = include_str!("captured/ike_auth_request.plaintext.hex");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..300), first in any::<u8>()) {
        let _ = Header::parse(&octets);
        let _ = Message::parse(&octets);
        // Behind a good header, and as the inside of SK, more of the parser is reached.
        let _ = Message::parse(&datagram(PayloadType(first), &octets));
        let _ = parse_chain(PayloadType(first), &octets, usize::MAX);
    }

    #[test]
    fn bodies_of_every_known_payload_never_panic(
        kind in prop_oneof![33..=48_u8, Just(53)],
        body in vec(prop_oneof![3 => 0..9_u8, 1 => any::<u8>()], 0..120),
    ) {
        let _ = parse_chain(PayloadType(kind), &crate::octets::payload(PayloadType::NO_NEXT_PAYLOAD, &body), 0);
    }

    #[test]
    fn changed_octets_of_a_real_request_never_panic(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut octets = hex(REQUEST);
        for (index, value) in &changes {
            *index.get_mut(&mut octets) = *value;
        }
        let _ = Message::parse(&octets);
    }
}

proptest! {
    #[test]
    fn no_truncation_passes_for_the_whole(header in header(), payloads in vec(inner_payload(), 1..4)) {
        let octets = encode(&header, &payloads).unwrap();
        for length in 0..octets.len() {
            prop_assert!(Message::parse(&octets[..length]).is_err());
            // With a header that admits the shorter length, the chain is what is short.
            let mut shorter = octets[..length].to_vec();
            if let Some(field) = shorter.get_mut(24..HEADER_LEN) {
                field.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            }
            prop_assert!(Message::parse(&shorter).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn no_truncated_chain_passes_for_the_whole(payloads in vec(inner_payload(), 1..4)) {
        let chain = encode_chain(&payloads).unwrap();
        for length in 0..chain.octets.len() {
            let error = parse_chain(chain.first, &chain.octets[..length], 1000).unwrap_err();
            prop_assert!((1000..=1000 + length).contains(&error.offset), "{error}");
        }
    }

    #[test]
    fn nothing_may_follow_the_last_payload(payloads in vec(inner_payload(), 0..4), extra in vec(any::<u8>(), 1..9)) {
        let chain = encode_chain(&payloads).unwrap();
        let longer = [chain.octets, extra].concat();
        prop_assert!(parse_chain(chain.first, &longer, 0).is_err());
    }
}

#[test]
fn every_truncation_and_every_single_octet_of_captured_messages() {
    let request = hex(REQUEST);
    for length in 0..request.len() {
        assert!(Message::parse(&request[..length]).is_err(), "cut to {length}");
    }
    // 41 is the Notify pad that the capture's plaintext ends with: one octet of pad length follows the chain.
    let plaintext = hex(AUTH);
    let chain = &plaintext[..plaintext.len() - 1];
    parse_chain(PayloadType::ID_INITIATOR, chain, 0).unwrap();
    for position in 0..chain.len() {
        let mut changed = chain.to_vec();
        for value in 0..=u8::MAX {
            changed[position] = value;
            if let Ok(payloads) = parse_chain(PayloadType::ID_INITIATOR, &changed, 0) {
                encode_chain(payloads.as_slice()).unwrap();
            }
        }
    }
}
