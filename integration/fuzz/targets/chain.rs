//! The inside of SK: the first octet is the type of the first payload, the others are the chain.
#![no_main]

use ike_wire::ids::PayloadType;
use ike_wire::{encode_chain, parse_chain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else { return };
    match parse_chain(PayloadType(*first), octets, 0) {
        Ok(payloads) => {
            let chain = encode_chain(payloads.as_slice()).expect("accepted payloads can be encoded");
            let again = parse_chain(chain.first, &chain.octets, 0).expect("encoded payloads can be read");
            assert_eq!(again, payloads);
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
});
