//! Layout of encrypted messages.

use ike_wire::ids::{ExchangeType, NotifyType, PayloadType};
use ike_wire::{
    Chain, EncodeError, Flags, Header, IkeSpi, MAX_FRAGMENTS, MAX_MESSAGE, Message, MessageId, Notify, Payload,
    Problem, SkBuffer, SkSizes, encode, encode_chain, sk_overhead, skf_capacity,
};

const GCM: SkSizes = SkSizes { iv: 8, icv: 16, block: 1 };
const CBC: SkSizes = SkSizes { iv: 16, icv: 16, block: 16 };

fn header() -> Header {
    Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, Flags::default(), MessageId(3))
}

fn chain(data: usize) -> Chain {
    encode_chain(&[Payload::Notify(Notify::new(NotifyType(40_000), vec![0x5a; data]))]).unwrap()
}

/// Inverts what a cipher would encrypt, and fills IV and ICV.
fn scramble(buffer: &mut SkBuffer) {
    let parts = buffer.parts();
    parts.iv.fill(0x11);
    parts.icv.fill(0x22);
    parts.body.iter_mut().for_each(|octet| *octet = !*octet);
}

#[test]
fn a_sealed_message_opens_to_the_same_payloads() {
    for sizes in [GCM, CBC, SkSizes { iv: 8, icv: 16, block: 4 }] {
        for data in 0..40 {
            let chain = chain(data);
            let mut sealed = SkBuffer::seal(&header(), &chain, sizes).unwrap();
            assert_eq!(sealed.parts().body.len() % sizes.block, 0);
            scramble(&mut sealed);
            let octets = sealed.into_octets();
            assert_eq!(octets.len(), chain.octets.len() + sk_overhead(chain.octets.len(), sizes));

            let message = Message::parse(&octets).unwrap();
            assert!(matches!(message.encrypted(), Some(Payload::Encrypted(sk)) if sk.first == PayloadType::NOTIFY));
            let mut opened = SkBuffer::open(&message, sizes).unwrap();
            scramble(&mut opened);
            assert_eq!(opened.plaintext().unwrap(), chain.octets);
            let payloads = opened.payloads().unwrap();
            assert_eq!(encode_chain(payloads.as_slice()).unwrap().octets, chain.octets);
        }
    }
}

#[test]
fn the_parts_are_the_whole_message_in_order() {
    let mut buffer = SkBuffer::seal(&header(), &chain(3), CBC).unwrap();
    scramble(&mut buffer);
    let parts = buffer.parts();
    assert_eq!(parts.associated.len(), 32);
    let whole = [parts.associated, parts.iv, parts.body, parts.icv].concat();
    let header = Header::parse(&whole).unwrap();
    assert_eq!(header.next_payload, PayloadType::SK);
    assert_eq!(whole, buffer.into_octets());
}

#[test]
fn an_empty_chain_is_padding_alone() {
    let empty = encode_chain(&[]).unwrap();
    assert_eq!((empty.first, empty.octets.len()), (PayloadType::NO_NEXT_PAYLOAD, 0));
    for (sizes, body) in [(GCM, 1), (CBC, 16)] {
        let mut buffer = SkBuffer::seal(&header(), &empty, sizes).unwrap();
        assert_eq!(buffer.parts().body.len(), body);
        assert!(buffer.payloads().unwrap().is_empty());
    }
}

#[test]
fn longer_padding_of_any_content_is_removed() {
    // A whole message as a peer that hides lengths would send it: 8 octets of payload, 23 of padding.
    let chain = chain(0);
    let longer = Chain { first: chain.first, octets: [&chain.octets[..], &[0xee; 23]].concat() };
    let mut buffer = SkBuffer::seal(&header(), &longer, CBC).unwrap();
    *buffer.parts().body.last_mut().unwrap() = 23;
    assert_eq!(buffer.plaintext().unwrap(), chain.octets);
}

#[test]
fn a_pad_length_beyond_the_body_is_refused() {
    let mut buffer = SkBuffer::seal(&header(), &chain(0), CBC).unwrap();
    *buffer.parts().body.last_mut().unwrap() = 16;
    let error = buffer.plaintext().unwrap_err();
    assert_eq!(error.problem, Problem::PaddingLength { padding: 16, plaintext: 15 });
    assert_eq!(error.offset, 32 + 16);
    assert!(buffer.payloads().is_err());
}

#[test]
fn a_body_that_cannot_be_ciphertext_is_refused_before_any_cipher_sees_it() {
    let body = |octets: usize| {
        let sk = ike_wire::Encrypted { first: PayloadType::NO_NEXT_PAYLOAD, body: vec![0; octets].into() };
        encode(&header(), &[Payload::Encrypted(sk)]).unwrap()
    };
    let open = |octets: usize, sizes| SkBuffer::open(&Message::parse(&body(octets)).unwrap(), sizes).map(drop);
    for octets in 0..=24 {
        let problem = open(octets, GCM).unwrap_err().problem;
        assert_eq!(problem, Problem::Truncated { needed: 25, left: octets });
    }
    open(25, GCM).unwrap();
    for octets in (0..48).chain(49..64) {
        assert!(open(octets, CBC).is_err(), "{octets}");
    }
    open(48, CBC).unwrap();
    assert_eq!(open(49, CBC).unwrap_err().problem, Problem::EncryptedLength { octets: 17, block: 16 });
}

#[test]
fn a_message_in_clear_cannot_be_opened() {
    let octets = encode(&header(), &[Payload::Notify(Notify::plain(NotifyType::INITIAL_CONTACT))]).unwrap();
    let error = SkBuffer::open(&Message::parse(&octets).unwrap(), GCM).unwrap_err();
    assert_eq!(error.problem, Problem::NotEncrypted);
}

#[test]
fn encrypted_payloads_do_not_nest() {
    for kind in [PayloadType::SK, PayloadType::SKF] {
        let inside = crate::octets::payload(PayloadType::NO_NEXT_PAYLOAD, &[0, 1, 0, 1, 9, 9]);
        let buffer = SkBuffer::seal(&header(), &Chain { first: kind, octets: inside }, GCM).unwrap();
        assert_eq!(buffer.payloads().unwrap_err().problem, Problem::NestedEncryption(kind));
    }
}

//= RFC 7383 §2.5: only the first fragment names the first payload inside
#[test]
fn fragments_join_to_the_chain() {
    let chain = chain(100);
    let mut joined = Vec::new();
    let mut first = PayloadType::NO_NEXT_PAYLOAD;
    let pieces: Vec<_> = chain.octets.chunks(50).collect();
    let total = u16::try_from(pieces.len()).unwrap();
    for (number, piece) in (1..).zip(pieces) {
        let mut sealed = SkBuffer::seal_fragment(&header(), chain.first, (number, total), piece, CBC).unwrap();
        assert_eq!(sealed.parts().associated.len(), 36);
        let octets = sealed.into_octets();
        let message = Message::parse(&octets).unwrap();
        let Some(Payload::EncryptedFragment(fragment)) = message.encrypted() else { panic!("no SKF") };
        assert_eq!((fragment.number, fragment.total), (number, total));
        let opened = SkBuffer::open(&message, CBC).unwrap();
        if number == 1 {
            first = opened.first();
        } else {
            assert_eq!(opened.first(), PayloadType::NO_NEXT_PAYLOAD);
        }
        joined.extend_from_slice(opened.plaintext().unwrap());
    }
    assert_eq!((first, joined), (chain.first, chain.octets));
    assert!(SkBuffer::seal_fragment(&header(), chain.first, (0, 2), &[], CBC).is_err());
    assert!(SkBuffer::seal_fragment(&header(), chain.first, (3, 2), &[], CBC).is_err());
}

/// What a receiver makes of fragments: the chain, and the octets of the longest message.
fn join(fragments: Vec<SkBuffer>, sizes: SkSizes) -> (Chain, usize) {
    let (mut joined, mut longest) = (Chain { first: PayloadType::NO_NEXT_PAYLOAD, octets: Vec::new() }, 0);
    let total = u16::try_from(fragments.len()).unwrap();
    for (number, mut sealed) in (1..).zip(fragments) {
        scramble(&mut sealed);
        let octets = sealed.into_octets();
        longest = longest.max(octets.len());
        let message = Message::parse(&octets).unwrap();
        let fragment = message.fragment().unwrap();
        assert_eq!((fragment.number, fragment.total), (number, total));
        if number == 1 {
            joined.first = fragment.first;
        }
        let mut opened = SkBuffer::open(&message, sizes).unwrap();
        scramble(&mut opened);
        joined.octets.extend_from_slice(opened.plaintext().unwrap());
    }
    (joined, longest)
}

//= RFC 7383 §2.5: the pieces together are the content, in order
#[test]
fn a_chain_is_divided_into_as_few_fragments_as_fit() {
    for sizes in [GCM, CBC, SkSizes { iv: 8, icv: 16, block: 4 }, SkSizes { iv: 16, icv: 32, block: 16 }] {
        for limit in [200, 201, 215, 216, 548, 1252] {
            let capacity = skf_capacity(limit, sizes);
            for length in [capacity + 1, 2 * capacity, 2 * capacity + 1, 2000] {
                let chain = chain(length - 8);
                let fragments = SkBuffer::seal_fragments(&header(), &chain, limit, sizes).unwrap();
                assert_eq!(fragments.len(), length.div_ceil(capacity), "{limit} {length}");
                let (joined, longest) = join(fragments, sizes);
                assert_eq!(joined, chain);
                assert!(longest <= limit && longest + sizes.block > limit, "{longest} of {limit}");
                assert_eq!(joined.payloads().unwrap().len(), 1);
            }
        }
    }
}

#[test]
fn what_one_fragment_could_carry_stays_whole() {
    let chain = chain(100);
    let limit = chain.octets.len() + 200;
    for chain in [chain, encode_chain(&[]).unwrap()] {
        let mut whole = SkBuffer::seal_fragments(&header(), &chain, limit, GCM).unwrap();
        assert_eq!(whole.len(), 1);
        let octets = whole.pop().unwrap().into_octets();
        assert_eq!(octets.len(), chain.octets.len() + sk_overhead(chain.octets.len(), GCM));
        assert!(Message::parse(&octets).unwrap().fragment().is_none());
    }
}

#[test]
fn a_limit_that_is_too_small_gives_longer_fragments_not_more() {
    let chain = chain(20_000);
    for limit in [0, 1, 60, 100] {
        let fragments = SkBuffer::seal_fragments(&header(), &chain, limit, CBC).unwrap();
        assert!(fragments.len() <= usize::from(MAX_FRAGMENTS));
        assert_eq!(join(fragments, CBC).0, chain);
    }
}

#[test]
fn a_chain_longer_than_a_message_may_be_is_not_divided() {
    let octets = MAX_MESSAGE + 1;
    let chain = Chain { first: PayloadType::NOTIFY, octets: vec![0; octets] };
    let error = SkBuffer::seal_fragments(&header(), &chain, 1252, GCM).unwrap_err();
    assert!(matches!(error, EncodeError::TooLong { octets: found, limit: MAX_MESSAGE, .. } if found == octets));
    let chain = Chain { first: PayloadType::NOTIFY, octets: vec![0; MAX_MESSAGE] };
    assert_eq!(join(SkBuffer::seal_fragments(&header(), &chain, 1252, GCM).unwrap(), GCM).0, chain);
}

#[test]
fn a_joined_chain_is_read_by_the_same_rules() {
    let chain = chain(30);
    let cut = Chain { first: chain.first, octets: chain.octets[..20].to_vec() };
    let error = cut.payloads().unwrap_err();
    assert!(error.offset <= 20, "{error}");
    let nested = crate::octets::payload(PayloadType::NO_NEXT_PAYLOAD, &[0, 1, 0, 1, 9, 9]);
    let nested = Chain { first: PayloadType::SKF, octets: nested };
    assert_eq!(nested.payloads().unwrap_err().problem, Problem::NestedEncryption(PayloadType::SKF));
}

#[test]
fn debug_shows_no_plaintext() {
    let text = format!("{:?}", SkBuffer::seal(&header(), &chain(9), GCM).unwrap());
    assert!(!text.contains("90") && !text.contains("5a"), "{text}");
}
