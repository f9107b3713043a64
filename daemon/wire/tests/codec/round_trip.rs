//! Encoding and parsing undo each other.

use ike_wire::{Chain, Message, SkBuffer, SkSizes, encode, encode_chain, parse_chain};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::octets::datagram;
use crate::strategies::{header, inner_payload, outer_payloads};

proptest! {
    #[test]
    fn parsing_what_was_encoded_gives_it_back(header in header(), payloads in outer_payloads()) {
        let octets = encode(&header, &payloads).unwrap();
        let message = Message::parse(&octets).unwrap();
        prop_assert_eq!(message.payloads.as_slice(), payloads.as_slice());
        prop_assert_eq!(message.header.length as usize, octets.len());
        let expected = ike_wire::Header {
            next_payload: message.header.next_payload,
            length: message.header.length,
            ..header
        };
        prop_assert_eq!(message.header, expected);
        prop_assert_eq!(message.octets(), octets.as_slice());
    }

    #[test]
    fn chains_inside_sk_come_back(payloads in vec(inner_payload(), 0..8), base in 0..1000_usize) {
        let chain = encode_chain(&payloads).unwrap();
        let parsed = parse_chain(chain.first, &chain.octets, base).unwrap();
        prop_assert_eq!(parsed.as_slice(), payloads.as_slice());
    }

    #[test]
    fn chains_divided_into_fragments_come_back(
        header in header(),
        payloads in vec(inner_payload(), 0..8),
        limit in 0..700_usize,
        sizes in prop_oneof![Just(SkSizes { iv: 8, icv: 16, block: 1 }), Just(SkSizes { iv: 16, icv: 16, block: 16 })],
    ) {
        let chain = encode_chain(&payloads).unwrap();
        let sealed = SkBuffer::seal_fragments(&header, &chain, limit, sizes).unwrap();
        let mut joined = Chain { first: sealed[0].first(), octets: Vec::new() };
        for fragment in sealed {
            let octets = fragment.into_octets();
            let message = Message::parse(&octets).unwrap();
            prop_assert_eq!(message.header.message_id, header.message_id);
            joined.octets.extend_from_slice(SkBuffer::open(&message, sizes).unwrap().plaintext().unwrap());
        }
        prop_assert_eq!(&joined, &chain);
        let parsed = joined.payloads().unwrap();
        prop_assert_eq!(parsed.as_slice(), payloads.as_slice());
    }

    #[test]
    fn owned_payloads_are_equal_to_borrowed_ones(payloads in outer_payloads(), header in header()) {
        let octets = encode(&header, &payloads).unwrap();
        let owned: Vec<_> = Message::parse(&octets).unwrap().payloads.into_iter().map(ike_wire::Payload::into_owned).collect();
        prop_assert_eq!(owned, payloads);
    }

    /// What is read from octets that were not made by this encoder, reserved bits set and all, is written in one form.
    #[test]
    fn whatever_is_accepted_encodes_to_something_equal(
        first in prop_oneof![33..=48_u8, any::<u8>()].prop_map(ike_wire::ids::PayloadType),
        payloads in vec(inner_payload(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let chain = encode_chain(&payloads).unwrap();
        let mut body = chain.octets;
        for (index, value) in changes {
            *index.get_mut(&mut body) = value;
        }
        for first in [chain.first, first] {
            let octets = datagram(first, &body);
            if let Ok(message) = Message::parse(&octets) {
                let again = encode(&message.header, message.payloads.as_slice()).unwrap();
                let reparsed = Message::parse(&again).unwrap();
                prop_assert_eq!(&reparsed.payloads, &message.payloads);
                prop_assert_eq!(encode(&reparsed.header, reparsed.payloads.as_slice()).unwrap(), again);
            }
        }
    }
}
