//! Encrypted messages as a cipher would leave them: the first octet chooses the cipher's sizes, the others are the datagram,
//! whose body is taken for plaintext. What comes out is divided into fragments of a size that its first octet chooses, and joined again.
#![no_main]

use ike_wire::{Chain, Header, MAX_FRAGMENTS, Message, SkBuffer, SkSizes};
use libfuzzer_sys::fuzz_target;

const SIZES: [SkSizes; 4] = [
    SkSizes { iv: 8, icv: 16, block: 1 },
    SkSizes { iv: 16, icv: 16, block: 16 },
    SkSizes { iv: 16, icv: 32, block: 16 },
    SkSizes { iv: 0, icv: 0, block: 1 },
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, datagram)) = input.split_first() else { return };
    let Some(sizes) = SIZES.get(usize::from(choice % 4)) else { return };
    let Ok(message) = Message::parse(datagram) else { return };
    let Ok(mut buffer) = SkBuffer::open(&message, *sizes) else { return };
    let parts = buffer.parts();
    assert_eq!((parts.iv.len(), parts.icv.len()), (sizes.iv, sizes.icv));
    assert_eq!(parts.associated.len() + sizes.iv + parts.body.len() + sizes.icv, datagram.len());
    assert_eq!(parts.body.len() % sizes.block, 0);
    if let Ok(plaintext) = buffer.plaintext() {
        assert!(plaintext.len() < datagram.len());
    }
    if let Err(malformed) = buffer.payloads() {
        assert!(malformed.offset <= datagram.len());
    }
    if let Ok(plaintext) = buffer.plaintext() {
        divide(&message.header, Chain { first: buffer.first(), octets: plaintext.to_vec() }, *sizes);
    }
});

fn divide(header: &Header, chain: Chain, sizes: SkSizes) {
    let limit = chain.octets.first().map_or(0, |octet| usize::from(*octet) * 4);
    let fragments = SkBuffer::seal_fragments(header, &chain, limit, sizes).expect("it came in one datagram");
    assert!((1..=usize::from(MAX_FRAGMENTS)).contains(&fragments.len()));
    let mut joined = Chain { first: fragments[0].first(), octets: Vec::new() };
    for fragment in fragments {
        let octets = fragment.into_octets();
        let message = Message::parse(&octets).expect("fragments are well-formed");
        let opened = SkBuffer::open(&message, sizes).expect("fragments hold what the cipher needs");
        joined.octets.extend_from_slice(opened.plaintext().expect("fragments are padded"));
    }
    assert_eq!(joined, chain);
    assert_eq!(joined.payloads().is_ok(), chain.payloads().is_ok());
}
