//! Whole datagrams: any octets, and what is accepted encodes to something that is read the same way.
#![no_main]

use ike_wire::{Message, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(message) = Message::parse(datagram) {
        let octets = encode(&message.header, message.payloads.as_slice()).expect("accepted payloads can be encoded");
        let again = Message::parse(&octets).expect("encoded payloads can be read");
        assert_eq!(again.payloads, message.payloads);
    }
});
